//! Standard Webhooks, for whoever is not another forge: a CI job, a script with `openssl` and `curl`, a forge we do not know.
//!
//! ```text
//! configured secret     what proves a request
//! whsec_<base64>        webhook-signature: v1,<base64 of HMAC-SHA256(id.timestamp.body)> …
//! whpk_<base64>         webhook-signature: v1a,<base64 of Ed25519(id.timestamp.body)> …
//! ```
//!
//! The body is ours to define:
//!
//! ```json
//! { "type": "push", "data": { "repository": "acme/blog", "ref": "refs/heads/main", "before": "…", "after": "…", "message": "…" } }
//! { "type": "push", "data": { "repository": "acme/blog", "changes": [{ "ref": "…", "before": "…", "after": "…" }] } }
//! { "type": "ping" }
//! ```
//!
//! `before` and `after` are commit ids of 40 or 64 hex digits. `before` may be left out, or be null or zeros, for a new ref;
//! `after` is zeros for a deleted one. `message`, of the commit that the ref names now, may be left out. Any other type is ignored.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::public_key::PublicKey;
use super::refusal::first_or_most_telling;
use super::standard_signature::{self, ID, SigningKey, V1, V1A};
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, key_of_digest, payload};
use crate::domain::push::{Change, Event, RefName};
use crate::domain::secret::Secret;

/// A script for `bash` that sends a push, from its variables `URL`, `SECRET`, `REPOSITORY` (as JSON), `REF` and `COMMIT`.
pub const SCRIPT: &str = r#"id=$(openssl rand -hex 16)
timestamp=$(date +%s)
body='{"type":"push","data":{"repository":'"$REPOSITORY"',"ref":"'"$REF"'","after":"'"$COMMIT"'"}}'
key=$(printf %s "${SECRET#whsec_}" | base64 -d | od -An -v -tx1 | tr -d ' \n')
signature=$(printf %s "$id.$timestamp.$body" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64)
curl --silent --show-error --fail-with-body -H 'content-type: application/json' -H "webhook-id: $id" \
  -H "webhook-timestamp: $timestamp" -H "webhook-signature: v1,$signature" --data-binary "$body" "$URL"
"#;

/// Whether there is a signature, and whatever is signed together with the body.
pub(super) fn check_head(request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
    first_or_most_telling(secrets, |secret| match Key::of(secret).ok_or(Refusal::SecretUnusable)? {
        Key::Shared(_) => standard_signature::check_head(request, V1),
        Key::Public(_) => standard_signature::check_head(request, V1A),
    })
}

/// Tries each secret with its own version of the signature.
pub(super) fn authenticate(request: &Request, secrets: &[&Secret], now: DateTime<Utc>) -> Result<(), Refusal> {
    first_or_most_telling(secrets, |secret| match Key::of(secret).ok_or(Refusal::SecretUnusable)? {
        Key::Shared(key) => key.check(request, &standard_signature::claims(request, V1)?, now),
        Key::Public(key) => {
            let claims = standard_signature::claims(request, V1A)?;
            let matches = |signed: &[&[u8]]| claims.iter().any(|claim| key.has_signed(signed, claim));
            standard_signature::check(request, now, matches)
        }
    })
}

/// What a secret is for.
pub(super) enum Key {
    /// Whoever has it can sign.
    Shared(SigningKey),
    /// Whoever has the other half can sign.
    Public(PublicKey),
}

impl Key {
    /// None for what is no secret of Standard Webhooks.
    pub(super) fn of(secret: &Secret) -> Option<Self> {
        SigningKey::of(secret).map(Self::Shared).or_else(|| standard_signature::public_key(secret).map(Self::Public))
    }
}

/// Reads the event. The delivery's key is `webhook-id`, which is signed and stays the same over retries.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    let Kind { kind } = payload::read(&request.body)?;
    let event = match kind.as_str() {
        "ping" => Event::Ping,
        "push" => push_event(request)?,
        other => Event::Other(payload::word(other)),
    };
    let key = request.delivery_key(ID).unwrap_or_else(|| key_of_digest(&digest));
    Ok(Parsed { key, event_name: payload::word(&kind), event, digest })
}

/// Writes and signs a ping or a push.
pub(super) fn compose(key: &SigningKey, message: &TestMessage<'_>, now: DateTime<Utc>) -> Request {
    let body = match &message.kind {
        TestKind::Ping => json!({ "type": "ping" }),
        TestKind::Push { ref_name, before, after } => json!({
            "type": "push",
            "data": {
                "repository": message.repository,
                "ref": ref_name.as_str(),
                "before": before.map(|before| before.as_str()),
                "after": after.as_str(),
            },
        }),
    };
    let mut request = Request::of_json(&body);
    key.sign(&mut request, message.key, now);
    request
}

/// What every event has.
#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Payload {
    data: Data,
}

/// Either one change or a list of them.
#[derive(Debug, Deserialize)]
struct Data {
    repository: String,
    repository_id: Option<Value>,
    changes: Option<Vec<Moved>>,
    #[serde(rename = "ref")]
    ref_name: Option<String>,
    before: Option<String>,
    after: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Moved {
    #[serde(rename = "ref")]
    ref_name: String,
    before: Option<String>,
    after: String,
    message: Option<String>,
}

impl Moved {
    fn check(self) -> Result<Change, Malformed> {
        let Self { ref_name, before, after, message } = self;
        Ok(Change {
            ref_name: RefName::parse(&ref_name).map_err(Malformed::new)?,
            before: before.map_or(Ok(None), |before| payload::revision("before", &before))?,
            after: payload::revision("after", &after)?,
            message,
        })
    }
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let Payload { data } = payload::read_strictly(&request.body)?;
    let Data { repository, repository_id, changes, ref_name, before, after, message } = data;
    let moved = match (changes, ref_name, after) {
        (Some(changes), None, None) => changes,
        (None, Some(ref_name), Some(after)) => vec![Moved { ref_name, before, after, message }],
        (None, _, _) => return Err(Malformed::new("`data` has neither `changes` nor `ref` and `after`")),
        (Some(_), _, _) => return Err(Malformed::new("`data` has both `changes` and `ref` or `after`")),
    };
    let changes: Result<Vec<_>, _> = moved.into_iter().map(Moved::check).collect();
    payload::push(&repository, repository_id, changes?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::fixtures::{self, count, load, told, told_event};
    use crate::webhook::signature;
    use crate::webhook::standard_signature::{SIGNATURE, TIMESTAMP};

    /// The public half of what the fixtures of SourceHut are signed with, too.
    fn public() -> String {
        format!("whpk_{}", fixtures::PUBLIC_KEY)
    }

    fn check(request: &Request, secrets: &[&str], seconds_later: i64) -> Result<(), Refusal> {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(text.as_bytes().to_vec())).collect();
        let now = DateTime::from_timestamp(fixtures::SIGNED_AT + seconds_later, 0).unwrap();
        authenticate(request, &secrets.iter().collect::<Vec<_>>(), now)
    }

    fn read(body: &str) -> Result<Event, Malformed> {
        let request = Request { headers: Vec::new(), body: body.as_bytes().to_vec() };
        parse(&request, signature::digest(&request.body)).map(|parsed| parsed.event)
    }

    fn push(data: &str) -> Result<Event, Malformed> {
        read(&format!(r#"{{"type":"push","data":{{"repository":"acme/blog",{data}}}}}"#))
    }

    #[test]
    fn the_recorded_payloads_say_what_happened() {
        let table = [
            ("push", "acme/blog: refs/heads/main 6113728..0d1a26e `A second page`"),
            ("push-public-key", "acme/blog: refs/heads/main 6113728..0d1a26e `A second page`"),
            ("create-branch", "acme/blog: refs/heads/release/2.0 -..0d1a26e"),
            ("delete", "acme/blog: refs/heads/release/2.0 0d1a26e..-"),
            ("force-push", "acme/blog: refs/heads/main 0d1a26e..9f2c4b7"),
            ("tag", "acme/blog: refs/tags/v1.0.0 -..0d1a26e"),
            ("delete-tag", "acme/blog: refs/tags/v1.0.0 0d1a26e..-"),
            ("long-ids", "acme/blog: refs/heads/main 1f4a1f4..2e5b2e5"),
            (
                "several",
                "acme/blog: refs/heads/draft 6113728..9f2c4b7 `A draft`, refs/heads/main 6113728..0d1a26e `A second page`, \
                 refs/tags/v0.9.0 6113728..-, refs/tags/v1.0.0 -..0d1a26e",
            ),
            ("ping", "ping"),
            ("build", "other `build.finished`"),
        ];
        assert_eq!(count("standard"), table.len());
        let public = public();
        for (name, expected) in table {
            let request = load("standard", &format!("{name}.json"));
            let (own, other) = if name == "push-public-key" {
                (&*public, fixtures::SIGNING_SECRET)
            } else {
                (fixtures::SIGNING_SECRET, &*public)
            };
            assert_eq!(check_head(&request, &[&Secret::new(own.into())]), Ok(()), "{name}");
            assert_eq!(check(&request, &[own], 0), Ok(()), "{name}");
            assert!(matches!(check(&request, &[other], 0), Err(Refusal::UnknownVersions(_))), "{name}");
            assert_eq!(check(&request, &[other, own], 299), Ok(()), "rotation");
            let parsed = parse(&request, signature::digest(&request.body)).unwrap();
            let id = request.headers.iter().find(|(name, _)| name == ID).unwrap().1.clone();
            assert_eq!(parsed.key.as_str().as_bytes(), id, "{name}");
            assert_eq!(told(Ok(parsed)), expected, "{name}");
        }
    }

    #[test]
    fn whatever_is_signed_is_needed_and_counts_for_both_ways_of_signing() {
        let public = public();
        for (name, key, version, bytes) in
            [("push", fixtures::SIGNING_SECRET, "v1", 32), ("push-public-key", &*public, "v1a", 64)]
        {
            let good = load("standard", &format!("{name}.json"));
            let with = |header: &str, value: Option<&[u8]>| {
                let mut changed = good.clone();
                changed.headers.retain(|(name, _)| name != header);
                changed.headers.extend(value.map(|value| (header.to_owned(), value.to_vec())));
                let refused = check(&changed, &[key], 0).unwrap_err();
                let early = check_head(&changed, &[&Secret::new(key.into())]).err();
                assert_eq!(early, Some(refused.clone()).filter(|refused| *refused != Refusal::Mismatch(SIGNATURE)));
                refused
            };
            assert_eq!(check(&good, &[key], 300), Ok(()));
            assert_eq!(check(&good, &[key], 301), Err(Refusal::TooOld(301)));
            assert_eq!(check(&good, &[key], -301), Err(Refusal::FromTheFuture(301)));
            for header in [ID, TIMESTAMP, SIGNATURE] {
                assert_eq!(with(header, None), Refusal::Absent(header));
                let mut twice = good.clone();
                let value = twice.headers.iter().find(|(name, _)| name == header).unwrap().clone();
                twice.headers.push(value);
                assert_eq!(check(&twice, &[key], 0), Err(Refusal::Twice(header)));
            }
            assert_eq!(with(ID, Some(b"msg_another")), Refusal::Mismatch(SIGNATURE));
            assert_eq!(with(ID, Some(b"msg.1")), Refusal::Id);
            assert_eq!(with(TIMESTAMP, Some(b"1787392882")), Refusal::Mismatch(SIGNATURE));
            assert_eq!(with(TIMESTAMP, Some(b"now")), Refusal::TimestampNotNumber);
            let claim = |length: usize| {
                format!(
                    "{version},{}",
                    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, vec![1; length])
                )
            };
            assert_eq!(with(SIGNATURE, Some(b"v2,AAAA")), Refusal::UnknownVersions(version));
            assert_eq!(with(SIGNATURE, Some(version.as_bytes())), Refusal::UnknownVersions(version));
            for length in [0, bytes - 1, bytes + 1] {
                assert_eq!(with(SIGNATURE, Some(claim(length).as_bytes())), Refusal::NotBase64 { version, bytes });
            }
            assert_eq!(with(SIGNATURE, Some(claim(bytes).as_bytes())), Refusal::Mismatch(SIGNATURE));
            for index in 0..good.body.len() {
                let mut changed = good.clone();
                changed.body[index] ^= 1;
                assert_eq!(check(&changed, &[key], 0), Err(Refusal::Mismatch(SIGNATURE)), "{version} byte {index}");
            }
        }
    }

    /// Each may cost a hash of the whole body: a list of hundreds fits into a header.
    #[test]
    fn of_a_list_of_signatures_the_first_four_are_looked_at() {
        let good = load("standard", "push-public-key.json");
        let value = |request: &Request| request.headers.iter().find(|(name, _)| name == SIGNATURE).unwrap().1.clone();
        let right = String::from_utf8(value(&good)).unwrap();
        let wrong = format!("v1a,{}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [1; 64]));
        for (before, believed) in [(0, true), (3, true), (4, false)] {
            let list = vec![wrong.as_str(); before]
                .into_iter()
                .chain([right.as_str(), wrong.as_str()])
                .collect::<Vec<_>>()
                .join(" ");
            let mut request = good.clone();
            request.headers.retain(|(name, _)| name != SIGNATURE);
            request.push_header(SIGNATURE, list);
            assert_eq!(check(&request, &[&public()], 0).is_ok(), believed, "{before}");
        }
    }

    #[test]
    fn what_matters_is_read_strictly_and_the_rest_is_not_missed() {
        let (one, two, zero) = ("1".repeat(40), "2".repeat(64), "0".repeat(64));
        let ids = |before: &str, after: &str| {
            push(&format!(r#""ref":"refs/heads/main","before":{before},"after":"{after}""#))
        };
        let quoted = |id: &str| format!("\"{id}\"");
        assert_eq!(told_event(ids("null", &two)), "acme/blog: refs/heads/main -..2222222");
        assert_eq!(told_event(ids(&quoted(&zero), &two)), "acme/blog: refs/heads/main -..2222222");
        assert_eq!(told_event(ids(&quoted(&one), &zero)), "acme/blog: refs/heads/main 1111111..-");
        assert_eq!(ids(&quoted(&one), &one), Ok(Event::Ping));
        assert_eq!(told_event(push(r#""changes":[],"x":{}"#)), "acme/blog:");
        assert_eq!(
            told_event(push(&format!(r#""repository_id":7,"ref":"refs/tags/v1","after":"{one}""#))),
            "acme/blog 7: refs/tags/v1 -..1111111"
        );
        for data in [
            r#""x":1"#.to_owned(),
            r#""ref":"refs/heads/main""#.into(),
            format!(r#""after":"{one}""#),
            format!(r#""ref":"refs/heads/main","after":null,"before":"{one}""#),
            format!(r#""ref":"main","after":"{one}""#),
            format!(r#""ref":"refs/heads/main","after":"{}""#, &one[1..]),
            format!(r#""ref":"refs/heads/main","after":"{one}","before":"""#),
            format!(r#""ref":"refs/heads/main","after":"{one}","changes":[]"#),
            format!(r#""ref":"refs/heads/main","ref":"refs/heads/main","after":"{one}""#),
            format!(r#""changes":[{{"ref":"refs/heads/main"}}],"x":"{one}""#),
            r#""changes":[null]"#.into(),
            r#""repository":7,"changes":[]"#.into(),
        ] {
            assert!(push(&data).is_err(), "{data}");
        }
        for body in
            ["", "null", "{}", r#"{"type":7}"#, r#"{"type":"push"}"#, r#"{"type":"push","data":{"changes":[]}}"#]
        {
            assert!(read(body).is_err(), "{body}");
        }
    }
}
