//! Ref names and the rules for them, held against git's own judgement and against rules written down a second time.
//!
//! An input is four lines: the ref that was pushed, a branch, a pattern for branches, a regular expression for tags.

#![no_main]

use landfall::domain::forge::Forge;
use landfall::domain::identity::Identity;
use landfall::domain::name::{RepositoryName, SiteName};
use landfall::domain::push::{Change, Push, RefName};
use landfall::domain::ref_rule::{BranchPattern, RefRule, TagPattern};
use landfall::domain::revision::Revision;
use landfall::domain::routing::{Route, Routing, SiteRule, route};
use landfall_fuzz::{REPOSITORY, assert_showable, plant};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: plant(SEEDS.iter().map(|seed| seed.as_bytes().to_vec())), |input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (name, branch, pattern, expression) = (line(), line(), line(), line());

    let parsed = RefName::parse(name);
    assert_eq!(parsed.is_ok(), is_sound(name), "the rules of git check-ref-format: {name:?}");
    if parsed.is_ok() {
        assert!(git2::Reference::is_valid_name(name), "git refuses {name:?}");
    }
    let branch_ref = RefName::of_branch(branch);
    assert_eq!(branch_ref.is_ok(), is_sound(&format!("refs/heads/{branch}")), "{branch:?}");

    let mut rules = Vec::new();
    rules.extend(branch_ref.ok().map(|branch| ("branch", RefRule::Branch(branch))));
    match BranchPattern::parse(pattern) {
        Ok(pattern) => rules.push(("pattern", RefRule::Branches(vec![pattern]))),
        Err(reason) => assert_showable(&reason),
    }
    match TagPattern::parse(expression) {
        Ok(expression) => rules.push(("expression", RefRule::Tags(expression))),
        Err(reason) => assert!(!reason.is_empty(), "{expression:?}"),
    }
    let Ok(name) = parsed else { return };
    check(&name, branch, pattern, rules);
});

/// Routes a push of the ref, and of it beside another, to a site for each rule.
fn check(name: &RefName, branch: &str, pattern: &str, rules: Vec<(&str, RefRule)>) {
    let blog = RepositoryName::parse("blog").expect("a name");
    let rules: Vec<_> = rules
        .into_iter()
        .map(|(site, refs)| SiteRule {
            site: SiteName::parse(site).expect("a name"),
            repository: blog.clone(),
            refs,
            skip_markers: Vec::new(),
        })
        .collect();
    let change = |ref_name: &RefName, digit: &str| Change {
        ref_name: ref_name.clone(),
        before: None,
        after: Revision::parse(&digit.repeat(40)).ok(),
        message: None,
    };
    let elsewhere = RefName::parse("refs/notes/elsewhere").expect("a ref");
    let push = |changes| Push { repository: REPOSITORY.into(), repository_id: None, changes };
    let identity = Identity::new(Forge::Github, REPOSITORY);
    let alone = route(&rules, &blog, &identity, &push(vec![change(name, "1")]));
    let beside = route(&rules, &blog, &identity, &push(vec![change(&elsewhere, "2"), change(name, "1")]));
    if rules.is_empty() {
        assert!(matches!((&alone, &beside), (Routing::Ignore(_), Routing::Ignore(_))));
        return;
    }
    let (Routing::Sites(alone), Routing::Sites(beside)) = (alone, beside) else { panic!("no verdicts") };
    for ((site, one), (_, other)) in alone.iter().zip(&beside) {
        let is_for_it = matches!(one, Route::Deploy(_));
        assert_eq!(is_for_it, matches!(other, Route::Deploy(_)), "another ref in the push changes nothing for {site}");
        if let Route::Deploy(wanted) = one {
            assert_eq!(wanted.ref_name, *name);
        }
        let (as_branch, as_tag) = (name.as_str().strip_prefix("refs/heads/"), name.as_str().strip_prefix("refs/tags/"));
        match site.as_str() {
            "branch" => assert_eq!(is_for_it, as_branch == Some(branch), "{name} {branch:?}"),
            "pattern" if is_simple(pattern) => {
                let expected = as_branch.is_some_and(|branch| matches(pattern.as_bytes(), branch.as_bytes()));
                assert_eq!(is_for_it, expected, "{name} {pattern:?}");
            }
            "pattern" => assert!(!is_for_it || as_branch.is_some(), "{name} {pattern:?}"),
            _ => assert!(!is_for_it || as_tag.is_some(), "{name}"),
        }
    }
}

/// The rules of git-check-ref-format(1), one by one, for a name below a namespace below `refs/`.
fn is_sound(name: &str) -> bool {
    let components: Vec<&str> = name.split('/').collect();
    let forbidden = |byte: u8| byte < 0x20 || byte == 0x7f || b" ~^:?*[\\".contains(&byte);
    components.first() == Some(&"refs")
        && components.len() >= 3 // Git would take `refs/stash` too, which no forge lets anybody push.
        && components.iter().all(|component| !component.starts_with('.') && !component.ends_with(".lock")) // 1
        && !name.contains("..") // 3
        && !name.bytes().any(forbidden) // 4, 5, 10
        && components.iter().all(|component| !component.is_empty()) // 6
        && !name.ends_with('.') // 7
        && !name.contains("@{") // 8
        && name != "@" // 9
        && name.len() <= 1024 // A path, for git and for the file system.
}

/// Patterns that need no more than [`matches`] knows.
fn is_simple(pattern: &str) -> bool {
    !pattern.contains("**") && !pattern.contains(['[', ']', '{', '}', ',', '\\'])
}

/// `*` stands for any text without `/`, `?` for one letter that is none.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut reachable = vec![false; text.len() + 1];
    reachable[0] = true;
    for step in pattern {
        let mut next = vec![false; text.len() + 1];
        for place in 0..=text.len() {
            let (here, before) = (reachable[place], place.checked_sub(1));
            match step {
                b'*' => next[place] = here || before.is_some_and(|before| next[before] && text[before] != b'/'),
                b'?' => next[place] = before.is_some_and(|before| reachable[before] && text[before] != b'/'),
                letter => next[place] = before.is_some_and(|before| reachable[before] && text[before] == *letter),
            }
        }
        reachable = next;
    }
    reachable[text.len()]
}

const SEEDS: &[&str] = &[
    "refs/heads/main\nmain\nrelease/*\n^v\\d+",
    "refs/heads/release/1.0\nrelease/1.0\nrelease/?.*\n^v",
    "refs/heads/release/1.0/hotfix\nmain\nrelease/**\n\\d$",
    "refs/tags/v1.2.3\nv1.2.3\nv*\n^v\\d+\\.\\d+\\.\\d+$",
    "refs/heads/feature/a.lock\na@{0}\n{main,develop}\n(?i)^V",
    "refs/heads/--upload-pack=x\n$(id)\nv[0-9]\n[a-z]{2,3}",
    "refs/heads/refs/heads/main\nrefs/heads/main\n*\nmain",
    "refs/pull/7/head\n.a\n**/x\n.",
    "refs/heads/ümläut\nümläut\n*l*\nü",
    "refs/heads/a..b\na~1\na^b\n(",
];
