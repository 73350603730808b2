//! Bitbucket Data Center and Server: the signature of Bitbucket Cloud over another payload, with several refs in one push.
//!
//! "Test connection" sends `diagnostics:ping`. It is believed when it is signed, like everything else: an unsigned one would let
//! anybody ask what is configured here.
//!
//! Unsigned, and thus only as trustworthy as the transport: every header, that is the event's name and the delivery's id.

use serde::Deserialize;
use serde_json::{Value, json};

use super::hex_signature::HexSignature;
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, key_of_digest, payload};
use crate::domain::push::{Change, Event};
use crate::domain::revision::Revision;
use crate::domain::secret::Secret;

/// Whether there is a signature.
pub(super) fn check_head(request: &Request) -> Result<(), Refusal> {
    SIGNATURE.claim(request).map(drop)
}

/// Compares the signature with those that the secrets give.
pub(super) fn authenticate(request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
    SIGNATURE.check(request, &request.body, secrets)
}

/// Reads the event. The delivery's key is `X-Request-Id`.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    let event_name = request.event_name(EVENT)?;
    let event = match event_name.as_str() {
        PING => Event::Ping,
        PUSH => push_event(request)?,
        other => Event::Other(other.to_owned()),
    };
    let key = request.delivery_key(DELIVERY).unwrap_or_else(|| key_of_digest(&digest));
    Ok(Parsed { key, event_name, event, digest })
}

/// Writes and signs a test of the connection or a push.
pub(super) fn compose(secret: &Secret, message: &TestMessage<'_>) -> Request {
    let (event, body) = match &message.kind {
        TestKind::Ping => (PING, json!({ "test": true })),
        TestKind::Push { ref_name, before, after } => {
            (PUSH, push_body(message.repository, ref_name.as_str(), *before, after))
        }
    };
    let mut request = Request::of_json(&body);
    let (header, signature) = SIGNATURE.sign(secret, &request.body);
    request.push_header(EVENT, event);
    request.push_header(DELIVERY, message.key);
    request.push_header(header, signature);
    request
}

fn push_body(repository: &str, ref_name: &str, before: Option<&Revision>, after: &Revision) -> Value {
    let (project, slug) = repository.rsplit_once('/').unwrap_or(("", repository));
    json!({
        "eventKey": PUSH,
        "repository": { "slug": slug, "project": { "key": project } },
        "changes": [{
            "ref": { "id": ref_name },
            "refId": ref_name,
            "fromHash": before.map_or_else(|| payload::zeros(after), ToString::to_string),
            "toHash": after.as_str(),
            "type": if before.is_some() { "UPDATE" } else { "ADD" },
        }],
    })
}

/// The fields of a push that we use.
#[derive(Debug, Deserialize)]
struct Payload {
    changes: Vec<Moved>,
    repository: Repository,
    /// Newer servers add the commit that a ref names now.
    #[serde(rename = "toCommit")]
    to_commit: Option<Commit>,
}

#[derive(Debug, Deserialize)]
struct Moved {
    #[serde(rename = "refId")]
    ref_id: String,
    #[serde(rename = "fromHash")]
    from_hash: String,
    #[serde(rename = "toHash")]
    to_hash: String,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Commit {
    id: Option<String>,
    message: Option<String>,
}

/// Its clone URLs are never read: they are missing, or of another form, in some payloads.
#[derive(Debug, Deserialize)]
struct Repository {
    id: Option<Value>,
    slug: String,
    project: Project,
}

#[derive(Debug, Deserialize)]
struct Project {
    key: String,
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let Payload { changes, repository, to_commit } = payload::read_strictly(&request.body)?;
    let Repository { id, slug, project: Project { key } } = repository;
    let mut checked = Vec::with_capacity(changes.len());
    for Moved { ref_id, from_hash, to_hash, kind } in changes {
        let change = payload::Moved { ref_name: &ref_id, before: &from_hash, after: &to_hash }.check()?;
        let after = change.after.filter(|_| kind.as_deref() != Some("DELETE"));
        let tip = to_commit.as_ref().filter(|commit| commit.id.as_deref() == Some(&to_hash));
        checked.push(Change { after, message: tip.and_then(|commit| commit.message.clone()), ..change });
    }
    payload::push(&format!("{key}/{slug}"), id, checked)
}

const EVENT: &str = "x-event-key";
const DELIVERY: &str = "x-request-id";
const SIGNATURE: HexSignature = HexSignature { header: "x-hub-signature", prefix: "sha256=", sha1_header: None };
const PING: &str = "diagnostics:ping";
const PUSH: &str = "repo:refs_changed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::fixtures::{self, count, load, told, told_event};
    use crate::webhook::signature;

    fn push(repository: &str, changes: &str) -> Result<Event, Malformed> {
        let body = format!(r#"{{"repository":{repository},"changes":{changes}}}"#);
        let request = Request { headers: vec![(EVENT.to_owned(), PUSH.into())], body: body.into_bytes() };
        parse(&request, signature::digest(&request.body)).map(|parsed| parsed.event)
    }

    #[test]
    fn the_recorded_payloads_say_what_happened() {
        let table = [
            ("push", "ACME/blog 84: refs/heads/main 6113728..0d1a26e `A second page`"),
            ("push-old-server", "ACME/blog 84: refs/heads/main 6113728..0d1a26e"),
            ("create-branch", "ACME/blog 84: refs/heads/release/2.0 -..0d1a26e `A second page`"),
            ("delete", "ACME/blog 84: refs/heads/release/2.0 0d1a26e..-"),
            ("force-push", "ACME/blog 84: refs/heads/main 0d1a26e..9f2c4b7 `Another second page`"),
            ("tag", "ACME/blog 84: refs/tags/v1.0.0 -..0d1a26e `A second page`"),
            // The server tells the tag object; the fetch finds its commit.
            ("annotated-tag", "ACME/blog 84: refs/tags/v1.0.0 -..5c0ffee"),
            ("delete-tag", "ACME/blog 84: refs/tags/v1.0.0 0d1a26e..-"),
            (
                "several",
                "ACME/blog 84: refs/heads/draft 6113728..9f2c4b7, refs/heads/main 6113728..0d1a26e `A second page`, \
                 refs/tags/v0.9.0 6113728..-, refs/tags/v1.0.0 -..0d1a26e `A second page`",
            ),
            ("personal", "~ADA/blog 84: refs/heads/main 6113728..0d1a26e"),
            ("ping", "ping"),
            ("pull-request", "other `pr:opened`"),
        ];
        assert_eq!(count("bitbucket-dc"), table.len());
        let secret = Secret::new(fixtures::SECRET.into());
        for (name, expected) in table {
            let request = load("bitbucket-dc", &format!("{name}.json"));
            assert_eq!(check_head(&request), Ok(()), "{name}");
            assert_eq!(authenticate(&request, &[&secret]), Ok(()), "{name}");
            let parsed = parse(&request, signature::digest(&request.body)).unwrap();
            let sent = request.headers.iter().find(|(name, _)| name == DELIVERY).unwrap().1.clone();
            assert_eq!(parsed.key.as_str().as_bytes(), sent, "{name}");
            assert_eq!(told(Ok(parsed)), expected, "{name}");
        }
    }

    #[test]
    fn a_test_of_the_connection_needs_a_signature_too() {
        let mut request = load("bitbucket-dc", "ping.json");
        request.headers.retain(|(name, _)| name != "x-hub-signature");
        assert_eq!(check_head(&request), Err(Refusal::Absent("x-hub-signature")));
    }

    #[test]
    fn what_matters_is_read_strictly_and_the_rest_is_not_missed() {
        const BLOG: &str = r#"{"slug":"blog","project":{"key":"ACME"},"links":{"clone":"none"}}"#;
        let (one, two, zero) = ("1".repeat(40), "2".repeat(40), "0".repeat(40));
        let change = |name: &str, from: &str, to: &str, more: &str| {
            format!(r#"[{{"refId":"{name}","fromHash":"{from}","toHash":"{to}"{more}}}]"#)
        };
        let moved = change("refs/heads/main", &one, &two, "");
        assert_eq!(told_event(push(BLOG, &moved)), "ACME/blog: refs/heads/main 1111111..2222222");
        let deleted = change("refs/heads/main", &one, &two, r#","type":"DELETE""#);
        assert_eq!(told_event(push(BLOG, &deleted)), "ACME/blog: refs/heads/main 1111111..-");
        assert_eq!(
            told_event(push(BLOG, &change("refs/heads/a", &zero, &two, ""))),
            "ACME/blog: refs/heads/a -..2222222"
        );
        assert_eq!(push(BLOG, &change("refs/heads/a", &one, &one, "")), Ok(Event::Ping));
        assert_eq!(told_event(push(BLOG, "[]")), "ACME/blog:");
        for changes in [
            change("main", &one, &two, ""),
            change("refs/heads/main", &one[1..], &two, ""),
            change("refs/heads/main", &one, "", ""),
            change("refs/heads/main", &one, &two, r#","toHash":"""#),
            change("refs/heads/main", &one, &two, r#","type":7"#),
            "null".into(),
            "[{}]".into(),
            r#"[{"refId":7}]"#.into(),
        ] {
            assert!(push(BLOG, &changes).is_err(), "{changes}");
        }
        for repository in [
            "null",
            "{}",
            r#"{"slug":"blog"}"#,
            r#"{"slug":"blog","project":{"key":null}}"#,
            r#"{"slug":7,"project":{"key":"A"}}"#,
        ] {
            assert!(push(repository, &moved).is_err(), "{repository}");
        }
    }
}
