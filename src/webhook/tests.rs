//! What holds for every forge: who is believed, and what of a request is shown.

use super::*;
use crate::domain::push::Change;

const WHSEC: &[u8] = b"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=";

/// Every forge whose deliveries can be composed, with every kind of secret that it has.
fn schemes() -> Vec<(Forge, Secret)> {
    let secret = |forge| match forge {
        Forge::Sourcehut => None,
        Forge::Standard => Some(WHSEC),
        Forge::Azure => Some(&b"ada:5f2b8c1d9e3a7f60"[..]),
        _ => Some(&b"5f2b8c1d9e3a7f60"[..]),
    };
    let first = Forge::ALL.into_iter().filter_map(|forge| Some((forge, Secret::new(secret(forge)?.to_vec()))));
    first.chain([(Forge::Gitlab, Secret::new(WHSEC.to_vec()))]).collect()
}

fn compose(forge: Forge, secret: &Secret, message: &TestMessage<'_>, now: DateTime<Utc>) -> Request {
    super::compose(forge, secret, message, now).unwrap()
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_787_392_881, 0).unwrap()
}

fn id(digit: &str, length: usize) -> Revision {
    Revision::parse(&digit.repeat(length)).unwrap()
}

fn push_message<'a>(ref_name: &'a RefName, after: &'a Revision) -> TestMessage<'a> {
    TestMessage { key: "test-1", repository: "acme/blog", kind: TestKind::Push { ref_name, before: None, after } }
}

#[test]
fn what_is_composed_is_believed_and_understood() {
    for (forge, secret) in schemes() {
        for (ref_name, before, after) in [
            ("refs/heads/main", Some(id("1", 40)), id("2", 40)),
            ("refs/heads/main", None, id("2", 64)),
            ("refs/tags/v1.0", None, id("3", 40)),
            ("refs/heads/\"ü\"", Some(id("1", 40)), id("2", 40)),
        ] {
            let ref_name = RefName::parse(ref_name).unwrap();
            let kind = TestKind::Push { ref_name: &ref_name, before: before.as_ref(), after: &after };
            let message = TestMessage { key: "test-1", repository: "acme/blog", kind };
            let request = compose(forge, &secret, &message, now());
            let verified = authenticate(forge, request, std::slice::from_ref(&secret), now()).unwrap();
            let parsed = parse(&verified).unwrap();
            let Event::Push(push) = parsed.event else { panic!("{parsed:?}") };
            assert_eq!((parsed.key.as_str(), push.repository.as_str()), ("test-1", "acme/blog"));
            let change = Change { ref_name, before, after: Some(after), message: None };
            assert_eq!(push.changes, [change]);
            assert_eq!(parsed.digest, signature::digest(&verified.request.body));
        }
        let message = TestMessage { key: "test-2", repository: "acme/blog", kind: TestKind::Ping };
        let verified = authenticate(forge, compose(forge, &secret, &message, now()), &[secret], now()).unwrap();
        assert_eq!(parse(&verified).unwrap().event, Event::Ping);
    }
}

#[test]
fn a_changed_byte_of_the_body_or_the_proof_is_refused() {
    let (ref_name, after) = (RefName::parse("refs/heads/main").unwrap(), id("2", 40));
    for (forge, secret) in schemes() {
        let good = compose(forge, &secret, &push_message(&ref_name, &after), now());
        let believed = |request: Request| authenticate(forge, request, std::slice::from_ref(&secret), now()).is_ok();
        assert!(believed(good.clone()));
        let unsigned = ["x-gitlab-token", "authorization"];
        let body_is_signed = !good.headers.iter().any(|(name, _)| unsigned.contains(&name.as_str()));
        for index in (0..good.body.len()).filter(|_| body_is_signed) {
            let mut changed = good.clone();
            changed.body[index] ^= 1;
            assert!(!believed(changed), "{forge}: byte {index} of the body");
        }
        for truncated in [&good.body[1..], &good.body[..good.body.len() - 1], b""].iter().filter(|_| body_is_signed) {
            assert!(!believed(Request { body: truncated.to_vec(), ..good.clone() }));
        }
        let proof = |(name, _): &&(String, Vec<u8>)| {
            let of_header = |word| name.starts_with(word) || name.ends_with(word);
            ["webhook-", "x-hub-", "-signature"].into_iter().any(of_header) || unsigned.contains(&name.as_str())
        };
        for (header, value) in good.headers.iter().filter(proof) {
            for (index, bit) in (0..value.len()).flat_map(|index| (0..8).map(move |bit| (index, bit))) {
                let mut changed = good.clone();
                let (_, bytes) = changed.headers.iter_mut().find(|(name, _)| name == header).unwrap();
                bytes[index] ^= 1 << bit;
                let digits = if header.starts_with("x-hub-") { 7 } else { 0 };
                let is_hex = header.starts_with("x-") && !unsigned.contains(&header.as_str());
                let other_case_of_hex = is_hex && index >= digits && bytes.eq_ignore_ascii_case(value);
                assert_eq!(believed(changed), other_case_of_hex, "{forge}: bit {bit} of byte {index} of {header}");
            }
        }
    }
}

#[test]
fn the_secret_of_another_forge_or_no_secret_proves_nothing() {
    let message = TestMessage { key: "test", repository: "acme/blog", kind: TestKind::Ping };
    for (forge, secret) in schemes() {
        let empty = Secret::new(Vec::new());
        let request = compose(forge, &secret, &message, now());
        for secrets in [&[][..], std::slice::from_ref(&empty)] {
            assert_eq!(authenticate(forge, request.clone(), secrets, now()).unwrap_err().refusal, Refusal::NoSecret);
            assert_eq!(check_head(forge, &request, secrets), Err(Refusal::NoSecret));
        }
        assert_eq!(check_head(forge, &request, std::slice::from_ref(&secret)), Ok(()));
        // These sign alike; what tells them apart is the payload.
        let twins = [(Forge::Bitbucket, Forge::BitbucketDc), (Forge::Gitlab, Forge::Standard)];
        let alike = |other| twins.iter().any(|pair| *pair == (forge, other) || *pair == (other, forge));
        for other in Forge::ALL.into_iter().filter(|other| *other != forge && !alike(*other)) {
            assert!(authenticate(other, request.clone(), std::slice::from_ref(&secret), now()).is_err(), "{other}");
        }
        let rotating = [empty, Secret::new(b"another secret".to_vec()), secret];
        assert_eq!(authenticate(forge, request, &rotating, now()).unwrap().forge, forge);
    }
    let unusable = Secret::new(b"whsec_***".to_vec());
    let request = compose(Forge::Gitlab, &unusable, &message, now());
    assert_eq!(authenticate(Forge::Gitlab, request, &[unusable], now()).unwrap_err().refusal, Refusal::SecretUnusable);
}

#[test]
fn no_mutation_of_a_request_panics() {
    let (ref_name, after) = (RefName::parse("refs/heads/main").unwrap(), id("2", 40));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % limit as u64).unwrap()
    };
    for (forge, secret) in schemes() {
        let good = compose(forge, &secret, &push_message(&ref_name, &after), now());
        for _ in 0..2000 {
            let mut changed = good.clone();
            for _ in 0..=next(4) {
                let header = next(good.headers.len() + 1);
                let bytes = match changed.headers.get_mut(header) {
                    Some((_, value)) => value,
                    None => &mut changed.body,
                };
                let (from, to) = (next(bytes.len() + 1), next(bytes.len() + 1));
                match next(4) {
                    0 => bytes.truncate(from),
                    1 => bytes.insert(from, u8::try_from(next(256)).unwrap()),
                    2 => bytes.extend_from_within(from.min(to)..),
                    _ => bytes.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 1 << (to % 8)),
                }
            }
            if let Err(refusal) = authenticate(forge, changed.clone(), std::slice::from_ref(&secret), now()) {
                assert!(!format!("{refusal} {refusal:?}").contains("5f2b8c1d9e3a7f60"));
            }
            // The parser sees authentic nonsense too.
            if let Err(malformed) = parse(&Verified { forge, request: changed }) {
                assert!(malformed.to_string().chars().count() <= LONGEST_REASON);
            }
        }
    }
}

#[test]
fn media_types_are_compared_without_their_parameters() {
    let table = [
        (Some("application/json"), true, true),
        (Some("Application/JSON; charset=utf-8"), true, true),
        (Some(" application/json ;charset=\"utf-8\""), true, true),
        (Some("application/x-www-form-urlencoded"), true, false),
        (Some("application/x-www-form-urlencoded;charset=UTF-8"), true, false),
        (Some("application/jsonx"), false, false),
        (Some("text/json"), false, false),
        (Some("application/json, text/plain"), false, false),
        (Some("multipart/form-data; boundary=application/json"), false, false),
        (Some(""), false, false),
        (None, false, false),
    ];
    for (content_type, github, gitlab) in table {
        assert_eq!(accepts_media_type(Forge::Github, content_type), github, "{content_type:?}");
        let json_only =
            [Forge::Gitlab, Forge::Bitbucket, Forge::BitbucketDc, Forge::Azure, Forge::Sourcehut, Forge::Standard];
        for forge in json_only {
            assert_eq!(accepts_media_type(forge, content_type), gitlab, "{forge} {content_type:?}");
        }
        for of_the_family in [Forge::Gitea, Forge::Forgejo, Forge::Gogs] {
            assert_eq!(accepts_media_type(of_the_family, content_type), github, "{content_type:?}");
        }
    }
}

#[test]
fn a_request_does_not_show_what_is_in_it() {
    let request = Request { headers: vec![("x-gitlab-token".into(), b"abc".to_vec())], body: b"abc".to_vec() };
    let verified = Verified { forge: Forge::Gitlab, request };
    let shown = format!("{verified:?}");
    assert!(shown.contains("x-gitlab-token") && shown.contains("3 bytes") && !shown.contains("abc"), "{shown}");
    assert!(!shown.contains("97"), "{shown}");
}
