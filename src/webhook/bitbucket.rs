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
        TestKind::Ping => ("refs/heads/main", Some(NO_MOVE), NO_MOVE),
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

/// Stands for a commit in a test delivery, where it is both before and after.
const NO_MOVE: &str = "1111111111111111111111111111111111111111";
