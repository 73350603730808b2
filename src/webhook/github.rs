//! GitHub: `X-Hub-Signature-256` over the raw body, which is JSON or a form with the JSON in its field `payload`.
//!
//! Unsigned, and thus only as trustworthy as the transport: every header, that is the event's name and the delivery's id.

use serde::Deserialize;
use serde_json::{Value, json};

use super::hex_signature::HexSignature;
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, form, key_of_digest, payload};
use crate::domain::push::{Change, Event};
use crate::domain::secret::Secret;

/// Whether there is a signature.
pub(super) fn check_head(request: &Request) -> Result<(), Refusal> {
    SIGNATURE.claim(request).map(drop)
}

/// Compares the signature with those that the secrets give.
pub(super) fn authenticate(request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
    SIGNATURE.check(request, &request.body, secrets)
}

/// Reads the event.
///
/// The delivery's key is `X-GitHub-Delivery`: "Redeliver" repeats it. It names the event rather than the delivery, so two hooks
/// on one repository may send the same one; they say the same thing.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    let event_name = request.event_name(EVENT)?;
    let event = match event_name.as_str() {
        "ping" => Event::Ping,
        "push" => push_event(request)?,
        other => Event::Other(other.to_owned()),
    };
    let key = request.delivery_key(DELIVERY).unwrap_or_else(|| key_of_digest(&digest));
    Ok(Parsed { key, event_name, event, digest })
}

/// Writes and signs a `ping` or a `push`.
pub(super) fn compose(secret: &Secret, message: &TestMessage<'_>) -> Request {
    let (event, body) = match &message.kind {
        TestKind::Ping => ("ping", ping_body(message.repository)),
        TestKind::Push { ref_name, before, after } => {
            let body = json!({
                "ref": ref_name.as_str(),
                "before": before.map_or_else(|| payload::zeros(after), ToString::to_string),
                "after": after.as_str(),
                "created": before.is_none(),
                "deleted": false,
                "repository": { "full_name": message.repository },
            });
            ("push", body)
        }
    };
    let mut request = Request::of_json(&body);
    let (header, signature) = SIGNATURE.sign(secret, &request.body);
    request.push_header(EVENT, event);
    request.push_header(DELIVERY, message.key);
    request.push_header(header, signature);
    request
}

/// The fields of a `push` that we use; GitHub sends some hundred more.
#[derive(Debug, Deserialize)]
struct Payload {
    #[serde(rename = "ref")]
    ref_name: String,
    before: String,
    after: String,
    #[serde(default)]
    deleted: bool,
    /// Null when a branch was deleted.
    head_commit: Option<Commit>,
    repository: Repository,
}

#[derive(Debug, Deserialize)]
struct Commit {
    id: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    id: Option<Value>,
    full_name: String,
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let payload: Payload = payload::read_strictly(&form::json_of(request)?)?;
    let Payload { ref_name, before, after, deleted, head_commit, repository: Repository { id, full_name } } = payload;
    let change = payload::Moved { ref_name: &ref_name, before: &before, after: &after }.check()?;
    let (head, message) = head_commit.map_or((None, None), |commit| (commit.id, commit.message));
    let head = head.map(|head| head.to_ascii_lowercase());
    let after = match &head {
        _ if deleted => None,
        // Of an annotated tag `after` may be the tag object, and this is the commit.
        Some(head) if change.ref_name.tag().is_some() => payload::revision("head_commit.id", head)?,
        Some(_) | None => change.after,
    };
    // Of another commit than the newest the message says nothing.
    let is_newest = head.is_none_or(|head| after.as_ref().is_some_and(|after| after.as_str() == head));
    payload::push(&full_name, id, vec![Change { after, message: message.filter(|_| is_newest), ..change }])
}

fn ping_body(repository: &str) -> Value {
    json!({ "zen": "Anything added dilutes everything else.", "repository": { "full_name": repository } })
}

const EVENT: &str = "x-github-event";
const DELIVERY: &str = "x-github-delivery";
const SIGNATURE: HexSignature =
    HexSignature { header: "x-hub-signature-256", prefix: "sha256=", sha1_header: Some("x-hub-signature") };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::push::DeliveryKey;
    use crate::webhook::{CONTENT_TYPE, FORM, fixtures, signature};

    const HEADER: &str = "x-hub-signature-256";
    const SHA1_HEADER: &str = "x-hub-signature";
    const SECRET: &str = "It's a Secret to Everybody";
    const HELLO: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn request(headers: &[(&str, &[u8])], body: &[u8]) -> Request {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        Request { headers, body: body.to_vec() }
    }

    fn check(headers: &[(&str, &[u8])], secrets: &[&str]) -> Result<(), Refusal> {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(text.as_bytes().to_vec())).collect();
        authenticate(&request(headers, b"Hello, World!"), &secrets.iter().collect::<Vec<_>>())
    }

    fn read(event: &str, content_type: &str, body: &[u8]) -> Result<Parsed, Malformed> {
        let headers: [(&str, &[u8]); 2] = [(EVENT, event.as_bytes()), (CONTENT_TYPE, content_type.as_bytes())];
        parse(&request(&headers, body), signature::digest(body))
    }

    /// A fixture, proved and read.
    fn recorded(file: &str) -> Parsed {
        let request = fixtures::load("github", file);
        assert_eq!(authenticate(&request, &[&Secret::new(fixtures::SECRET.into())]), Ok(()), "{file}");
        parse(&request, signature::digest(&request.body)).unwrap()
    }

    fn push(ref_name: &str, before: &str, after: &str, more: &str) -> Result<Event, Malformed> {
        let body = format!(
            r#"{{"ref":"{ref_name}","before":"{before}","after":"{after}","repository":{{"full_name":"acme/blog"}}{more}}}"#
        );
        read("push", "application/json", body.as_bytes()).map(|parsed| parsed.event)
    }

    fn ids(event: Result<Event, Malformed>) -> (String, Option<String>, Option<String>) {
        let Ok(Event::Push(push)) = event else { panic!("no push: {event:?}") };
        let [change] = &push.changes[..] else { panic!("{push:?}") };
        let text = |id: &Option<crate::domain::revision::Revision>| id.as_ref().map(|id| id.short().to_owned());
        (change.ref_name.to_string(), text(&change.before), text(&change.after))
    }

    #[test]
    fn the_example_of_the_manual_matches_whatever_the_case_of_its_digits() {
        for digits in [HELLO.to_owned(), HELLO.to_uppercase()] {
            let value = format!("sha256={digits}");
            assert_eq!(check(&[(HEADER, value.as_bytes())], &[SECRET]), Ok(()));
            assert_eq!(check(&[(HEADER, value.as_bytes())], &["another", SECRET, "third"]), Ok(()), "rotation");
            assert_eq!(check(&[("X-Hub-Signature-256", value.as_bytes())], &[SECRET]), Ok(()));
        }
    }

    #[test]
    fn every_other_signature_is_refused_with_its_reason() {
        let good = format!("sha256={HELLO}");
        let sha1: (&str, &[u8]) = (SHA1_HEADER, b"sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59");
        let of = |value: &str| check(&[(HEADER, value.as_bytes())], &[SECRET]);
        assert_eq!(check(&[], &[SECRET]), Err(Refusal::Absent(HEADER)));
        assert_eq!(check(&[sha1], &[SECRET]), Err(Refusal::Sha1Only(HEADER)));
        assert_eq!(check(&[sha1, (HEADER, good.as_bytes())], &[SECRET]), Ok(()));
        let twice: [(&str, &[u8]); 2] = [(HEADER, good.as_bytes()), (HEADER, good.as_bytes())];
        assert_eq!(check(&twice, &[SECRET]), Err(Refusal::Twice(HEADER)));
        for other in ["sha256", "Sha256", "it's a secret to everybody", "It's a Secret to Everybody\n"] {
            assert_eq!(check(&[(HEADER, good.as_bytes())], &[other]), Err(Refusal::Mismatch(HEADER)));
        }
        for value in ["", "sha256", HELLO, "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59", &good.to_uppercase()] {
            assert_eq!(of(value), Err(Refusal::Prefix { header: HEADER, prefix: "sha256=" }), "{value}");
        }
        assert_eq!(of("sha256="), Err(Refusal::Length { header: HEADER, digits: 0 }));
        assert_eq!(of(&good[..good.len() - 1]), Err(Refusal::Length { header: HEADER, digits: 63 }));
        assert_eq!(of(&format!("{good}0")), Err(Refusal::Length { header: HEADER, digits: 65 }));
        assert_eq!(of(&format!("sha256= {}", &HELLO[1..])), Err(Refusal::NotHex(HEADER)));
        assert_eq!(of(&format!("sha256={}", "ü".repeat(32))), Err(Refusal::NotHex(HEADER)));
        assert_eq!(
            check(&[(HEADER, &[0xff; 71])], &[SECRET]),
            Err(Refusal::Prefix { header: HEADER, prefix: "sha256=" })
        );
    }

    #[test]
    fn the_recorded_deliveries_say_what_happened() {
        let table: [(&str, &str, Option<&str>, Option<&str>); 9] = [
            ("push.json", "refs/heads/main", Some("6113728"), Some("0d1a26e")),
            ("push-form.form", "refs/heads/main", Some("6113728"), Some("0d1a26e")),
            ("ghes-push.json", "refs/heads/main", Some("6113728"), Some("0d1a26e")),
            ("force-push.json", "refs/heads/main", Some("0d1a26e"), Some("9f2c4b7")),
            ("create-branch.json", "refs/heads/release/2.0", None, Some("0d1a26e")),
            ("delete.json", "refs/heads/release/2.0", Some("0d1a26e"), None),
            ("tag.json", "refs/tags/v1.0.0", None, Some("0d1a26e")),
            ("annotated-tag.json", "refs/tags/v1.0.0", None, Some("0d1a26e")),
            ("delete-tag.json", "refs/tags/v1.0.0", Some("0d1a26e"), None),
        ];
        for (file, ref_name, before, after) in table {
            let parsed = recorded(file);
            let Event::Push(push) = &parsed.event else { panic!("{file}: {parsed:?}") };
            assert_eq!((push.repository.as_str(), parsed.event_name.as_str()), ("acme/blog", "push"), "{file}");
            assert_eq!(push.repository_id.as_deref(), Some("186853002"), "{file}");
            let message = push.changes[0].message.as_deref();
            assert_eq!(message.is_some_and(|message| !message.is_empty()), after.is_some(), "{file}: {message:?}");
            let expected = (ref_name.into(), before.map(Into::into), after.map(Into::into));
            assert_eq!(ids(Ok(parsed.event)), expected, "{file}");
        }
        assert_eq!(recorded("ping.json").event, Event::Ping);
        assert_eq!(recorded("organization-ping.json").event, Event::Ping);
        assert_eq!(recorded("create-event.json").event, Event::Other("create".into()));
    }

    #[test]
    fn a_form_is_verified_as_it_came_and_read_as_its_payload() {
        let form = recorded("push-form.form");
        assert_eq!(form.event, recorded("push.json").event);
        assert_eq!(form.digest, signature::digest(&fixtures::load("github", "push-form.form").body));
        let json = fixtures::load("github", "push.json").body;
        assert!(read("push", "application/json", &fixtures::load("github", "push-form.form").body).is_err());
        assert!(read("push", FORM, &json).is_err(), "the content type decides");
    }

    #[test]
    fn two_ids_tell_a_move_from_a_creation_a_deletion_and_a_test() {
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let short = |text: &str| Some(text[..7].to_owned());
        for zeros in ["0".repeat(40), "0".repeat(64)] {
            assert_eq!(ids(push("refs/heads/a", &zeros, &one, "")), ("refs/heads/a".into(), None, short(&one)));
            assert_eq!(ids(push("refs/heads/a", &one, &zeros, "")), ("refs/heads/a".into(), short(&one), None));
        }
        let deleted = push("refs/heads/a", &one, &two, r#","deleted":true"#);
        assert_eq!(ids(deleted), ("refs/heads/a".into(), short(&one), None));
        let moved = push("refs/heads/a", &"A".repeat(64), &"B".repeat(64), r#","deleted":false,"x":[{}]"#);
        assert_eq!(ids(moved), ("refs/heads/a".into(), Some("aaaaaaa".into()), Some("bbbbbbb".into())));
        assert_eq!(push("refs/heads/a", &one, &one, ""), Ok(Event::Ping));
        for (ref_name, before, after, more) in [
            ("main", &*one, &*two, ""),
            ("refs/heads/a ", &one, &two, ""),
            ("refs/heads/a", &one, "main", ""),
            ("refs/heads/a", &one[1..], &two, ""),
            ("refs/heads/a", &one, &two, r#","after":"3""#),
            ("refs/heads/a", &one, &two, r#","x":{"y":1,"y":1}"#),
            ("refs/heads/a", &one, &two, r#","deleted":"yes""#),
            ("refs/heads/a", &one, &two, r#"}{"#),
        ] {
            assert!(push(ref_name, before, after, more).is_err(), "{ref_name} {before} {after} {more}");
        }
    }

    #[test]
    fn the_newest_commit_says_what_a_tag_names_and_its_message() {
        let (one, two, zero) = ("1".repeat(40), "2".repeat(40), "0".repeat(40));
        let said = |ref_name: &str, before: &str, after: &str, more: &str| {
            let Ok(Event::Push(push)) = push(ref_name, before, after, more) else { panic!("no push") };
            let change = push.changes.into_iter().next().unwrap();
            (change.after.map(|id| id.to_string()), change.message)
        };
        let head = |id: &str| format!(r#","head_commit":{{"id":"{id}","message":"Fix [skip deploy]"}}"#);
        let message = Some("Fix [skip deploy]".to_owned());
        assert_eq!(said("refs/tags/v1", &zero, &one, &head(&two)), (Some(two.clone()), message.clone()));
        assert_eq!(said("refs/heads/a", &zero, &one, &head(&one)), (Some(one.clone()), message));
        assert_eq!(said("refs/heads/a", &zero, &one, &head(&two)), (Some(one.clone()), None), "of another commit");
        assert_eq!(said("refs/heads/a", &two, &one, r#","head_commit":null"#), (Some(one.clone()), None));
        assert_eq!(said("refs/tags/v1", &two, &zero, r#","head_commit":null"#), (None, None));
        assert!(push("refs/tags/v1", &zero, &one, &head("main")).is_err());
    }

    #[test]
    fn the_repository_has_a_number_beside_its_name() {
        for (id, expected) in [("1296269", Some("1296269")), ("\"{a-b}\"", Some("{a-b}")), ("null", None), ("[]", None)]
        {
            let (one, two) = ("1".repeat(40), "2".repeat(40));
            let body = format!(
                r#"{{"ref":"refs/heads/a","before":"{one}","after":"{two}","repository":{{"id":{id},"full_name":"a/b"}}}}"#
            );
            let Ok(Event::Push(push)) = read("push", "application/json", body.as_bytes()).map(|parsed| parsed.event)
            else {
                panic!("no push")
            };
            assert_eq!(push.repository_id.as_deref(), expected, "{id}");
        }
    }

    #[test]
    fn an_event_without_use_is_not_read() {
        for body in [&b"\xff{{{"[..], b"", br#"{"a":1,"a":1}"#] {
            assert_eq!(read("issues", "text/x", body).unwrap().event, Event::Other("issues".into()));
            assert_eq!(read("ping", "application/json", body).unwrap().event, Event::Ping);
            assert!(read("push", "application/json", body).is_err());
        }
        let long = "x".repeat(1000);
        for event in ["", "a\nb", "ümläut", &long] {
            assert!(read(event, "application/json", b"{}").is_err(), "{event}");
        }
    }

    #[test]
    fn the_key_is_the_forges_or_the_digest() {
        let digest = signature::digest(b"{}");
        let key = |values: &[&[u8]]| {
            let mut headers: Vec<(&str, &[u8])> = values.iter().map(|value| (DELIVERY, *value)).collect();
            headers.push((EVENT, b"ping"));
            parse(&request(&headers, b"{}"), digest.clone()).unwrap().key
        };
        assert_eq!(Some(key(&[b"72d3162e-cc78"])), DeliveryKey::parse("72d3162e-cc78"));
        let unsound: [&[&[u8]]; 6] = [&[], &[b""], &[b"a b"], &[b"\xff"], &[&[b'x'; 500]], &[b"one", b"two"]];
        for unsound in unsound {
            assert_eq!(key(unsound).as_str(), digest, "{unsound:?}");
        }
    }
}
