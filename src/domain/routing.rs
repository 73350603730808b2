//! Which sites a push is for, with the reason for each that it is not for.

use super::name::{RepositoryName, SiteName};
use super::push::{Push, RefName};
use super::revision::Revision;

/// What a site listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRule {
    /// The site.
    pub site: SiteName,
    /// Its repository.
    pub repository: RepositoryName,
    /// Its branch, as a full ref.
    pub branch: RefName,
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
pub fn route(rules: &[SiteRule], repository: &RepositoryName, identity: &str, push: &Push) -> Routing {
    if !push.repository.eq_ignore_ascii_case(identity) {
        return Routing::Ignore(format!("the delivery is about another repository than `{identity}`"));
    }
    let Some(after) = &push.after else {
        return Routing::Ignore(format!("`{}` was deleted", push.ref_name));
    };
    let sites: Vec<_> = rules
        .iter()
        .filter(|rule| rule.repository == *repository)
        .map(|rule| (rule.site.clone(), route_to(rule, push, after)))
        .collect();
    if sites.is_empty() {
        return Routing::Ignore("no site is configured for this repository".into());
    }
    Routing::Sites(sites)
}

fn route_to(rule: &SiteRule, push: &Push, after: &Revision) -> Route {
    if rule.branch == push.ref_name {
        return Route::Deploy(Wanted {
            ref_name: push.ref_name.clone(),
            before: push.before.clone(),
            after: after.clone(),
        });
    }
    Route::Ignore(format!("`{}` is not the site's branch `{}`", push.ref_name, rule.branch.short()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_ref_matches() {
        let revision = Revision::parse(&"a".repeat(40)).expect("a commit id");
        let rule = |site: &str, repository: &str, branch: &str| SiteRule {
            site: SiteName::parse(site).expect("a site"),
            repository: RepositoryName::parse(repository).expect("a repository"),
            branch: RefName::of_branch(branch).expect("a branch"),
        };
        let rules =
            [rule("production", "blog", "main"), rule("staging", "blog", "develop"), rule("other", "shop", "main")];
        let blog = RepositoryName::parse("blog").expect("a repository");
        let verdict = |identity: &str, name: &str, after: Option<Revision>| {
            let push = Push {
                repository: identity.into(),
                ref_name: RefName::parse(name).expect("a ref"),
                before: None,
                after,
            };
            match route(&rules, &blog, "acme/blog", &push) {
                Routing::Ignore(_) => "ignored".to_owned(),
                Routing::Sites(sites) => sites
                    .iter()
                    .filter(|(_, route)| matches!(route, Route::Deploy(_)))
                    .map(|(site, _)| site.as_str().to_owned())
                    .collect::<Vec<_>>()
                    .join(","),
            }
        };
        let table = [
            ("acme/blog", "refs/heads/main", "production"),
            ("Acme/Blog", "refs/heads/main", "production"),
            ("acme/blog", "refs/heads/develop", "staging"),
            ("acme/blog", "refs/heads/Main", ""),
            ("acme/blog", "refs/tags/main", ""),
            ("acme/blog", "refs/heads/refs/heads/main", ""),
            ("acme/blog", "refs/heads/main2", ""),
            ("evil/blog", "refs/heads/main", "ignored"),
            ("acme/blog.git", "refs/heads/main", "ignored"),
        ];
        for (identity, name, expected) in table {
            assert_eq!(verdict(identity, name, Some(revision.clone())), expected, "{identity} {name}");
        }
        assert_eq!(verdict("acme/blog", "refs/heads/main", None), "ignored");
    }
}
