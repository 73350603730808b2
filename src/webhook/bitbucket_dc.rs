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
