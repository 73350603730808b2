//! Which sites a push is for, with the reason for each that it is not for.

use super::identity::Identity;
use super::name::{RepositoryName, SiteName};
use super::push::{Change, Push, RefName};
use super::ref_rule::RefRule;
use super::revision::Revision;

/// What a site listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRule {
    /// The site.
    pub site: SiteName,
    /// Its repository.
    pub repository: RepositoryName,
    /// Its refs.
    pub refs: RefRule,
    /// A commit whose message has one of these is not deployed; compared without regard to case.
    pub skip_markers: Vec<String>,
}

/// What a site is asked to deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The ref that moved; its tip at the time of the fetch is what is deployed.
    pub ref_name: RefName,
    /// Where the ref was: a remote that still shows this has not caught up yet.
    pub before: Option<Revision>,
    /// Where the ref is, as the forge says.
    pub after: Revision,
}

/// The verdict over one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The push is for this site.
    Deploy(Wanted),
    /// It is not; the text says why.
    Ignore(String),
    /// It is, but its author wants no deployment; the text says how that was said.
    Skip(Wanted, String),
}

impl Route {
    /// The same, but whoever it was for refuses it. What was pushed is remembered: nobody may take it for lost.
    pub fn refused(self, reason: &str) -> Self {
        match self {
            Self::Deploy(wanted) | Self::Skip(wanted, _) => Self::Skip(wanted, reason.to_owned()),
            Self::Ignore(reason) => Self::Ignore(reason),
        }
    }
}

/// The verdict over a push: for the whole if it cannot be for any site, else one for each site of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// Not for any site; the text says why.
    Ignore(String),
    /// One verdict for each site of the repository, in the order of the rules.
    Sites(Vec<(SiteName, Route)>),
}

/// Matches a push of `repository`, whose identity on its forge is `identity`, with the rules of its sites.
pub fn route(rules: &[SiteRule], repository: &RepositoryName, identity: &Identity, push: &Push) -> Routing {
    if !identity.is(&push.repository) {
        return Routing::Ignore(format!("the delivery is about another repository than `{identity}`"));
    }
    if push.changes.is_empty() {
        return Routing::Ignore("the push names no ref".into());
    }
    if let Some(reason) = all_deleted(&push.changes) {
        return Routing::Ignore(reason);
    }
    let sites: Vec<_> = rules
        .iter()
        .filter(|rule| rule.repository == *repository)
        .map(|rule| (rule.site.clone(), route_to(rule, push)))
        .collect();
    if sites.is_empty() {
        return Routing::Ignore("no site is configured for this repository".into());
    }
    Routing::Sites(sites)
}

fn all_deleted(changes: &[Change]) -> Option<String> {
    let none_is_left = changes.iter().all(|change| change.after.is_none());
    let names: Vec<_> = changes.iter().map(|change| format!("`{}`", change.ref_name)).collect();
    match &names[..] {
        _ if !none_is_left => None,
        [only] => Some(format!("{only} was deleted")),
        several => Some(format!("{} refs were deleted", several.len())),
    }
}

/// Of several refs that are for the site the last counts: one of them can be live, and the forge tells them in their order.
fn route_to(rule: &SiteRule, push: &Push) -> Route {
    let matching = || push.changes.iter().rev().filter(|change| rule.refs.matches(&change.ref_name));
    let moved = matching().find_map(|change| Some((change, change.after.as_ref()?)));
    let Some((change, after)) = moved else {
        return Route::Ignore(match matching().next() {
            Some(deleted) => format!("`{}` was deleted", deleted.ref_name),
            None => not_for(rule, &push.changes),
        });
    };
    let wanted = Wanted { ref_name: change.ref_name.clone(), before: change.before.clone(), after: after.clone() };
    match skip_marker(rule, change) {
        Some(marker) => Route::Skip(wanted, format!("the commit's message has the skip marker `{marker}`")),
        None => Route::Deploy(wanted),
    }
}

fn not_for(rule: &SiteRule, changes: &[Change]) -> String {
    match changes {
        [only] => format!("`{}` is not the site's {}", only.ref_name, rule.refs),
        several => format!("none of the {} refs is the site's {}", several.len(), rule.refs),
    }
}

/// Only the message of the commit that would be deployed counts: of the others no forge tells all.
fn skip_marker<'a>(rule: &'a SiteRule, change: &Change) -> Option<&'a str> {
    let message = change.message.as_ref()?.to_lowercase();
    rule.skip_markers.iter().map(String::as_str).find(|marker| message.contains(&marker.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::forge::Forge;
    use crate::domain::ref_rule::{BranchPattern, TagPattern};

    fn revision(digit: &str) -> Revision {
        Revision::parse(&digit.repeat(40)).expect("a commit id")
    }

    fn branch(name: &str) -> RefRule {
        RefRule::Branch(RefName::of_branch(name).expect("a branch"))
    }

    fn rule(site: &str, repository: &str, refs: RefRule) -> SiteRule {
        SiteRule {
            site: SiteName::parse(site).expect("a site"),
            repository: RepositoryName::parse(repository).expect("a repository"),
            refs,
            skip_markers: Vec::new(),
        }
    }

    fn change(name: &str, after: Option<&str>) -> Change {
        let ref_name = RefName::parse(name).expect("a ref");
        Change { ref_name, before: Some(revision("1")), after: after.map(revision), message: None }
    }

    fn routed(rules: &[SiteRule], identity: &str, changes: Vec<Change>) -> Routing {
        let blog = RepositoryName::parse("blog").expect("a repository");
        let push = Push { repository: identity.into(), repository_id: None, changes };
        route(rules, &blog, &Identity::new(Forge::Github, "acme/blog"), &push)
    }

    /// Each site that deploys, with the first digit of its commit.
    fn deploys(routing: &Routing) -> String {
        let Routing::Sites(sites) = routing else { return "ignored".into() };
        let deployed = sites.iter().filter_map(|(site, route)| match route {
            Route::Deploy(wanted) => Some(format!("{site}={}", &wanted.after.as_str()[..1])),
            Route::Ignore(_) | Route::Skip(..) => None,
        });
        deployed.collect::<Vec<_>>().join(",")
    }

    #[test]
    fn only_the_very_ref_matches() {
        let rules = [
            rule("production", "blog", branch("main")),
            rule("staging", "blog", branch("develop")),
            rule("other", "shop", branch("main")),
        ];
        let table = [
            ("acme/blog", "refs/heads/main", "production=2"),
            ("Acme/Blog", "refs/heads/main", "production=2"),
            ("acme/blog", "refs/heads/develop", "staging=2"),
            ("acme/blog", "refs/heads/Main", ""),
            ("acme/blog", "refs/tags/main", ""),
            ("acme/blog", "refs/heads/refs/heads/main", ""),
            ("acme/blog", "refs/heads/main2", ""),
            ("evil/blog", "refs/heads/main", "ignored"),
            ("acme/blog.git", "refs/heads/main", "ignored"),
        ];
        for (identity, name, expected) in table {
            let routing = routed(&rules, identity, vec![change(name, Some("2"))]);
            assert_eq!(deploys(&routing), expected, "{identity} {name}");
        }
        let deleted = routed(&rules, "acme/blog", vec![change("refs/heads/any", None)]);
        assert_eq!(deleted, Routing::Ignore("`refs/heads/any` was deleted".into()));
        assert_eq!(deploys(&routed(&rules, "acme/blog", vec![])), "ignored");
        assert_eq!(deploys(&routed(&[], "acme/blog", vec![change("refs/heads/main", Some("2"))])), "ignored");
    }

    #[test]
    fn several_refs_in_one_push_reach_each_site_that_wants_one() {
        let rules = [
            rule("production", "blog", branch("main")),
            rule("mirror", "blog", branch("main")),
            rule("preview", "blog", RefRule::Branches(vec![BranchPattern::parse("feature/*").expect("a pattern")])),
            rule("releases", "blog", RefRule::Tags(TagPattern::parse(r"^v\d").expect("an expression"))),
        ];
        let table: Vec<(Vec<Change>, &str)> = vec![
            (vec![change("refs/heads/main", Some("2"))], "production=2,mirror=2"),
            (
                vec![change("refs/heads/main", Some("2")), change("refs/tags/v1", Some("3"))],
                "production=2,mirror=2,releases=3",
            ),
            (vec![change("refs/tags/main", Some("2")), change("refs/heads/v1", Some("3"))], ""),
            (vec![change("refs/heads/feature/a", Some("2")), change("refs/heads/feature/b", Some("3"))], "preview=3"),
            (vec![change("refs/heads/feature/a", Some("2")), change("refs/heads/feature/b", None)], "preview=2"),
            (vec![change("refs/heads/feature/a", None), change("refs/heads/x", Some("2"))], ""),
            (vec![change("refs/heads/feature/a", None), change("refs/heads/feature/b", None)], "ignored"),
        ];
        for (changes, expected) in table {
            assert_eq!(deploys(&routed(&rules, "acme/blog", changes.clone())), expected, "{changes:?}");
        }
    }

    #[test]
    fn a_skip_marker_counts_where_it_is_configured_and_in_the_head_commit_only() {
        let marked = |message: &str| Change { message: Some(message.into()), ..change("refs/heads/main", Some("2")) };
        let with = SiteRule {
            skip_markers: vec!["[skip deploy]".into(), "[CI skip]".into()],
            ..rule("production", "blog", branch("main"))
        };
        let without = rule("production", "blog", branch("main"));
        for (message, skipped) in [
            ("Fix typo [skip deploy]", true),
            ("Fix typo\n\n[SKIP Deploy]\n", true),
            ("[ci skip] Fix", true),
            ("skip deploy", false),
            ("[skip  deploy]", false),
            ("", false),
        ] {
            let routing = |rule: &SiteRule| routed(std::slice::from_ref(rule), "acme/blog", vec![marked(message)]);
            assert_eq!(deploys(&routing(&with)).is_empty(), skipped, "{message}");
            assert_eq!(deploys(&routing(&without)), "production=2", "{message}");
        }
        assert_eq!(deploys(&routed(&[with], "acme/blog", vec![change("refs/heads/main", Some("2"))])), "production=2");
    }

    #[test]
    fn each_refusal_says_why() {
        let rules = [
            rule("one", "blog", branch("main")),
            rule("two", "blog", RefRule::Branches(vec![BranchPattern::parse("a/*").expect("a pattern")])),
            rule("three", "blog", RefRule::Tags(TagPattern::parse("^v").expect("an expression"))),
        ];
        let Routing::Sites(sites) = routed(&rules, "acme/blog", vec![change("refs/heads/x", Some("2"))]) else {
            panic!("no verdicts")
        };
        let reasons: Vec<_> = sites.into_iter().map(|(_, route)| route).collect();
        let expected = ["branch `main`", "branches `a/*`", "tags `^v`"]
            .map(|rule| Route::Ignore(format!("`refs/heads/x` is not the site's {rule}")));
        assert_eq!(reasons, expected);
        let two = vec![change("refs/heads/x", Some("2")), change("refs/heads/y", Some("2"))];
        let Routing::Sites(sites) = routed(&rules[..1], "acme/blog", two) else { panic!("no verdicts") };
        assert_eq!(sites[0].1, Route::Ignore("none of the 2 refs is the site's branch `main`".into()));
    }
}
