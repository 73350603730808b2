//! Authentic nonsense: whatever a forge signs is understood, or refused in words that can be shown.

#![no_main]

use landfall::domain::forge::Forge;
use landfall::domain::identity::Identity;
use landfall::domain::name::{RepositoryName, SiteName};
use landfall::domain::push::{DeliveryKey, Event, Push, RefName};
use landfall::domain::ref_rule::{BranchPattern, RefRule};
use landfall::domain::routing::{Route, Routing, SiteRule, route};
use landfall::webhook::{Parsed, Request, authenticate, parse};
use landfall_fuzz::{REPOSITORY, SENDERS, Sender, assert_showable, input_of, now, plant, recorded, sent};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fuzz_target!(init: plant(seeds()), |input: &[u8]| {
    let Some((sender, request)) = sent(input) else { return };
    let Some(request) = sender.signed(request) else { return };
    let verified = authenticate(sender.forge, request.clone(), &sender.secrets(), now())
        .unwrap_or_else(|refusal| panic!("what {} signs is believed, not refused: {refusal}", sender.forge));
    let parsed = parse(&verified);
    assert_eq!(parsed, parse(&verified), "the same request says the same");
    match &parsed {
        Ok(parsed) => check(sender.forge, &request, parsed),
        Err(malformed) => assert_showable(&malformed.to_string()),
    }
});

fn check(forge: Forge, request: &Request, Parsed { key, event_name, event, digest }: &Parsed) {
    assert_eq!(*digest, hex::encode(Sha256::digest(&request.body)));
    assert!(DeliveryKey::parse(key.as_str()).is_some(), "{key}");
    assert!(!event_name.contains(char::is_control) && event_name.chars().count() <= 300, "{event_name:?}");
    match event {
        Event::Ping => {}
        Event::Incomplete(reason) => assert_showable(reason),
        Event::Other(word) => assert!(!word.contains(char::is_control), "{word:?}"),
        Event::Push(push) => check_push(forge, push),
    }
}

fn check_push(forge: Forge, push: &Push) {
    assert!(!push.repository.is_empty() && !push.repository.contains(char::is_control), "{push:?}");
    for change in &push.changes {
        assert_eq!(RefName::parse(change.ref_name.as_str()).as_ref(), Ok(&change.ref_name));
    }
    let every = RefRule::Branches(vec![BranchPattern::parse("**").expect("a pattern")]);
    let main = RefRule::Branch(RefName::of_branch("main").expect("a branch"));
    let blog = RepositoryName::parse("blog").expect("a name");
    let rules = [("one", main), ("all", every)].map(|(site, refs)| SiteRule {
        site: SiteName::parse(site).expect("a name"),
        repository: blog.clone(),
        refs,
        skip_markers: vec!["[skip deploy]".into()],
    });
    match route(&rules, &blog, &Identity::new(forge, REPOSITORY), push) {
        Routing::Ignore(reason) => assert!(!reason.contains(char::is_control), "{reason:?}"),
        Routing::Sites(sites) => {
            assert!(push.repository.eq_ignore_ascii_case(REPOSITORY), "{push:?}");
            for (site, route) in sites {
                let Route::Deploy(wanted) = route else { continue };
                let told = |change: &landfall::domain::push::Change| {
                    change.ref_name == wanted.ref_name && change.after.as_ref() == Some(&wanted.after)
                };
                assert!(push.changes.iter().any(told), "{site} deploys what was not pushed: {wanted:?}");
                assert!(wanted.ref_name.as_str().starts_with("refs/heads/"), "{site}: {wanted:?}");
                assert!(site.as_str() == "all" || wanted.ref_name.as_str() == "refs/heads/main", "{wanted:?}");
            }
        }
    }
}

/// What `send-test` composes, and what was recorded.
fn seeds() -> Vec<Vec<u8>> {
    let of_sender = |sender: &'static Sender| {
        let requests = sender.composed().into_iter().chain(recorded(sender.forge));
        requests.map(|request| input_of(sender, &request)).collect::<Vec<_>>()
    };
    SENDERS.iter().flat_map(of_sender).collect()
}
