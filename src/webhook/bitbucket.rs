//! Bitbucket Cloud: `X-Hub-Signature` over the raw body, with SHA-256 under the name that GitHub used for SHA-1. One delivery
//! tells of all refs of a push, and has no zeros: where there was or is nothing stands null.
//!
//! Unsigned, and thus only as trustworthy as the transport: every header, that is the event's name and the delivery's id.

use serde::Deserialize;
use serde_json::{Value, json};

use super::hex_signature::HexSignature;
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, key_of_digest, payload};
use crate::domain::push::{Change, Event, RefName};
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
/// The delivery's key is `X-Request-UUID`, which the attempts after a 5xx repeat. Not `X-Hook-UUID`, which names the hook.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    let event_name = request.event_name(EVENT)?;
    let event = match event_name.as_str() {
        PUSH => push_event(request)?,
        other => Event::Other(other.to_owned()),
    };
    let key = request.delivery_key(DELIVERY).unwrap_or_else(|| key_of_digest(&digest));
    Ok(Parsed { key, event_name, event, digest })
}

/// Writes and signs a push. Bitbucket has no ping: its place takes a push that moves nothing.
pub(super) fn compose(secret: &Secret, message: &TestMessage<'_>) -> Request {
    let (ref_name, before, after) = match &message.kind {
        TestKind::Ping => ("refs/heads/main", Some(payload::NO_MOVE), payload::NO_MOVE),
        TestKind::Push { ref_name, before, after } => {
            (ref_name.as_str(), before.map(|before| before.as_str()), after.as_str())
        }
    };
    let (kind, name) = match ref_name.strip_prefix(TAGS) {
        Some(tag) => (TAG, tag),
        None => (BRANCH, ref_name.strip_prefix(BRANCHES).unwrap_or(ref_name)),
    };
    let side = |hash: &str| json!({ "type": kind, "name": name, "target": { "type": "commit", "hash": hash } });
    let mut request = Request::of_json(&json!({
        "repository": { "full_name": message.repository },
        "push": { "changes": [{
            "old": before.map(side),
            "new": side(after),
            "created": before.is_none(),
            "closed": false,
            "forced": false,
        }] },
    }));
    let (header, signature) = SIGNATURE.sign(secret, &request.body);
    request.push_header(EVENT, PUSH);
    request.push_header(DELIVERY, message.key);
    request.push_header(header, signature);
    request
}

/// The fields of a push that we use. Its lists of commits are not among them: they end at five.
#[derive(Debug, Deserialize)]
struct Payload {
    push: Changes,
    repository: Repository,
}

#[derive(Debug, Deserialize)]
struct Changes {
    changes: Vec<Moved>,
}

#[derive(Debug, Deserialize)]
struct Moved {
    /// Null if the ref was created.
    old: Option<Side>,
    /// Null if the ref was deleted.
    new: Option<Side>,
}

#[derive(Debug, Deserialize)]
struct Side {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    target: Target,
}

#[derive(Debug, Deserialize)]
struct Target {
    hash: String,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    uuid: Option<Value>,
    full_name: String,
}

impl Moved {
    /// None for what is neither a branch nor a tag.
    fn change(self) -> Result<Option<Change>, Malformed> {
        let Self { old, new } = self;
        let named =
            new.as_ref().or(old.as_ref()).ok_or_else(|| Malformed::new("a change has neither `old` nor `new`"))?;
        let ref_name = match named.kind.as_str() {
            BRANCH => format!("{BRANCHES}{}", named.name),
            TAG => format!("{TAGS}{}", named.name),
            _ => return Ok(None),
        };
        let ref_name = RefName::parse(&ref_name).map_err(Malformed::new)?;
        let id = |field: &str, side: &Option<Side>| {
            side.as_ref().map_or(Ok(None), |side| payload::revision(field, &side.target.hash))
        };
        let (before, after) = (id("old.target.hash", &old)?, id("new.target.hash", &new)?);
        Ok(Some(Change { ref_name, before, after, message: new.and_then(|side| side.target.message) }))
    }
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let Payload { push, repository } = payload::read_strictly(&request.body)?;
    let Repository { uuid, full_name } = repository;
    let changes: Result<Vec<_>, _> = push.changes.into_iter().map(Moved::change).collect();
    payload::push(&full_name, uuid, changes?.into_iter().flatten().collect())
}

const EVENT: &str = "x-event-key";
const DELIVERY: &str = "x-request-uuid";
const SIGNATURE: HexSignature = HexSignature { header: "x-hub-signature", prefix: "sha256=", sha1_header: None };
const PUSH: &str = "repo:push";
const BRANCH: &str = "branch";
const TAG: &str = "tag";
const BRANCHES: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::fixtures::{self, count, load, told, told_event};
    use crate::webhook::signature;

    fn read(body: &str) -> Result<Event, Malformed> {
        let headers = vec![(EVENT.to_owned(), PUSH.into())];
        let request = Request { headers, body: body.as_bytes().to_vec() };
        parse(&request, signature::digest(&request.body)).map(|parsed| parsed.event)
    }

    fn push(changes: &str) -> Result<Event, Malformed> {
        read(&format!(r#"{{"repository":{{"full_name":"acme/blog"}},"push":{{"changes":{changes}}}}}"#))
    }

    fn side(kind: &str, name: &str, hash: &str) -> String {
        format!(r#"{{"type":"{kind}","name":"{name}","target":{{"hash":"{hash}"}}}}"#)
    }

    #[test]
    fn the_recorded_payloads_say_what_happened() {
        const REPOSITORY: &str = "acme/blog {673a6070-3421-46c9-9d48-90745f7bfe8e}:";
        let table = [
            ("push", " refs/heads/main 6113728..0d1a26e `A second page`"),
            ("create-branch", " refs/heads/release/2.0 -..0d1a26e `A second page`"),
            ("delete", " refs/heads/release/2.0 0d1a26e..-"),
            ("force-push", " refs/heads/main 0d1a26e..9f2c4b7 `Another second page`"),
            ("tag", " refs/tags/v1.0.0 -..0d1a26e `A second page`"),
            ("delete-tag", " refs/tags/v1.0.0 0d1a26e..-"),
            ("truncated", " refs/heads/main 6113728..0d1a26e `The last of many`"),
            (
                "several",
                " refs/heads/draft 6113728..9f2c4b7 `A draft`, refs/heads/main 6113728..0d1a26e `A second page`, \
                 refs/tags/v0.9.0 6113728..-, refs/tags/v1.0.0 -..0d1a26e `A second page`",
            ),
        ];
        assert_eq!(count("bitbucket"), table.len() + 1);
        let secret = Secret::new(fixtures::SECRET.into());
        let other = ("pull-request", "other `pullrequest:created`".to_owned());
        for (name, expected) in
            table.map(|(name, changes)| (name, format!("{REPOSITORY}{changes}"))).into_iter().chain([other])
        {
            let request = load("bitbucket", &format!("{name}.json"));
            assert_eq!(check_head(&request), Ok(()), "{name}");
            assert_eq!(authenticate(&request, &[&secret]), Ok(()), "{name}");
            assert_eq!(told(parse(&request, signature::digest(&request.body))), expected, "{name}");
        }
    }

    #[test]
    fn sha_1_is_refused_although_the_header_is_the_right_one() {
        let mut request = load("bitbucket", "push.json");
        request.headers.retain(|(name, _)| name != "x-hub-signature");
        assert_eq!(check_head(&request), Err(Refusal::Absent("x-hub-signature")));
        request.push_header("x-hub-signature", "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59");
        assert_eq!(check_head(&request), Err(Refusal::Sha1Only("x-hub-signature")));
        request.push_header("x-hub-signature", "sha256=");
        assert_eq!(check_head(&request), Err(Refusal::Twice("x-hub-signature")));
    }

    #[test]
    fn the_key_is_the_one_that_further_attempts_repeat() {
        let key = |request: &Request| parse(request, signature::digest(&request.body)).unwrap().key.as_str().to_owned();
        let mut request = load("bitbucket", "push.json");
        let sent = request.headers.iter().find(|(name, _)| name == DELIVERY).unwrap().1.clone();
        assert_eq!(key(&request).as_bytes(), sent);
        request.headers.retain(|(name, _)| name != DELIVERY);
        assert_eq!(key(&request), signature::digest(&request.body));
    }

    #[test]
    fn null_is_nothing_and_what_matters_is_read_strictly() {
        let (one, two) = ("1".repeat(40), "2".repeat(64));
        let change = |old: &str, new: &str| push(&format!(r#"[{{"old":{old},"new":{new},"truncated":7}}]"#));
        let branch = |hash: &str| side("branch", "main", hash);
        assert_eq!(told_event(change("null", &branch(&two))), "acme/blog: refs/heads/main -..2222222");
        assert_eq!(
            told_event(push(&format!(r#"[{{"new":{}}}]"#, branch(&two)))),
            "acme/blog: refs/heads/main -..2222222"
        );
        assert_eq!(told_event(change(&branch(&one), "null")), "acme/blog: refs/heads/main 1111111..-");
        assert_eq!(change(&branch(&one), &branch(&one)), Ok(Event::Ping));
        assert_eq!(told_event(push("[]")), "acme/blog:");
        assert_eq!(told_event(change("null", &side("bookmark", "main", &one))), "acme/blog:", "neither branch nor tag");
        for (old, new) in [
            ("null", "null"),
            ("null", "7"),
            ("null", &*branch("")),
            ("null", &branch("main")),
            (&branch(&one[1..]), &branch(&two)),
            ("null", &side("branch", "a..b", &one)),
            ("null", &side("tag", "", &one)),
            ("null", r#"{"type":"branch","name":"main"}"#),
            ("null", r#"{"type":"branch","name":"main","target":null}"#),
            ("null", r#"{"type":"branch","name":["main"],"target":{}}"#),
        ] {
            assert!(change(old, new).is_err(), "{old} {new}");
        }
        for body in [
            "",
            "{}",
            "[]",
            r#"{"push":{"changes":[]}}"#,
            r#"{"push":{"changes":null},"repository":{"full_name":"a/b"}}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
        assert!(read(r#"{"repository":{"full_name":"a/b"},"push":{"changes":[],"changes":[]}}"#).is_err(), "twice");
    }
}
