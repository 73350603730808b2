//! Azure DevOps: a user and a password (HTTP's basic authentication), and no signature. What the body says is as trustworthy as
//! the transport: this forge needs https up to this machine.
//!
//! ```text
//! configured secret     what proves a request
//! user:password         Authorization: Basic base64(user:password)
//! password              Authorization: Basic base64(anything:password)
//! ```
//!
//! The event's name and id stand in the body. The "Test" button sends a sample about a repository of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::signature::same_token;
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, key_of_digest, payload};
use crate::domain::push::{Change, DeliveryKey, Event};
use crate::domain::secret::Secret;

/// Compares the credentials with the secrets: the body is no part of it.
pub(super) fn check_head(request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
    let value = request.header(CREDENTIALS)?.ok_or(Refusal::Absent(CREDENTIALS))?;
    let encoded = value.strip_prefix(SCHEME.as_bytes()).ok_or(Refusal::Scheme(CREDENTIALS))?;
    let sent = STANDARD.decode(encoded).map_err(|_| Refusal::NotCredentials(CREDENTIALS))?;
    let colon = sent.iter().position(|byte| *byte == b':').ok_or(Refusal::NotCredentials(CREDENTIALS))?;
    let password = &sent[colon + 1..];
    // Both are looked at, whatever the first says: the time tells nothing.
    let fits = |secret: &&Secret| same_token(&sent, secret.expose()) | same_token(password, secret.expose());
    if secrets.iter().filter(|secret| fits(secret)).count() > 0 {
        Ok(())
    } else {
        Err(Refusal::Credentials(CREDENTIALS))
    }
}

/// The part of a secret that is the password.
pub(super) fn password(secret: &Secret) -> &[u8] {
    let secret = secret.expose();
    secret.iter().position(|byte| *byte == b':').map_or(secret, |colon| &secret[colon + 1..])
}

/// Reads the event. Its name is in the body, so that a body is read leniently until it has turned out to be a push.
///
/// The delivery's key is the body's `id`, which names the event. Not `notificationId`, which counts what was sent.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    let Kind { event_type, id } = payload::read(&request.body)?;
    let event_type = event_type.ok_or_else(|| Malformed::new("the payload has no `eventType`"))?;
    let event = if event_type == PUSH { push_event(request)? } else { Event::Other(payload::word(&event_type)) };
    let key =
        id.as_ref().and_then(Value::as_str).and_then(DeliveryKey::parse).unwrap_or_else(|| key_of_digest(&digest));
    Ok(Parsed { key, event_name: payload::word(&event_type), event, digest })
}

/// Writes a push with the credentials. Azure has no ping: its place takes a push that moves nothing.
pub(super) fn compose(secret: &Secret, message: &TestMessage<'_>) -> Request {
    let (ref_name, before, after) = match &message.kind {
        TestKind::Ping => ("refs/heads/main", NO_MOVE.to_owned(), NO_MOVE),
        TestKind::Push { ref_name, before, after } => {
            let before = before.map_or_else(|| payload::zeros(after), ToString::to_string);
            (ref_name.as_str(), before, after.as_str())
        }
    };
    let (project, repository) = message.repository.split_once('/').unwrap_or(("", message.repository));
    let mut request = Request::of_json(&json!({
        "id": message.key,
        "eventType": PUSH,
        "publisherId": "tfs",
        "resource": {
            "refUpdates": [{ "name": ref_name, "oldObjectId": before, "newObjectId": after }],
            "repository": { "name": repository, "project": { "name": project } },
        },
    }));
    let is_whole = secret.expose().contains(&b':');
    let credentials = if is_whole { secret.expose().to_vec() } else { [b"landfall:", secret.expose()].concat() };
    request.push_header(CREDENTIALS, format!("{SCHEME}{}", STANDARD.encode(credentials)));
    request
}

/// What every event has.
#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(rename = "eventType")]
    event_type: Option<String>,
    id: Option<Value>,
}

/// The fields of a push that we use.
#[derive(Debug, Deserialize)]
struct Payload {
    resource: Resource,
}

#[derive(Debug, Deserialize)]
struct Resource {
    /// May be empty.
    #[serde(rename = "refUpdates")]
    ref_updates: Vec<RefUpdate>,
    commits: Option<Vec<Commit>>,
    repository: Repository,
}

#[derive(Debug, Deserialize)]
struct RefUpdate {
    name: String,
    #[serde(rename = "oldObjectId")]
    old_object_id: String,
    #[serde(rename = "newObjectId")]
    new_object_id: String,
}

#[derive(Debug, Deserialize)]
struct Commit {
    #[serde(rename = "commitId")]
    id: Option<String>,
    comment: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    id: Option<Value>,
    name: String,
    project: Project,
}

#[derive(Debug, Deserialize)]
struct Project {
    name: String,
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let Payload { resource: Resource { ref_updates, commits, repository } } = payload::read_strictly(&request.body)?;
    let Repository { id, name, project } = repository;
    let commits = commits.unwrap_or_default();
    let mut changes = Vec::with_capacity(ref_updates.len());
    for RefUpdate { name, old_object_id, new_object_id } in ref_updates {
        let moved = payload::Moved { ref_name: &name, before: &old_object_id, after: &new_object_id };
        let tip = commits.iter().find(|commit| commit.id.as_deref() == Some(&new_object_id));
        changes.push(Change { message: tip.and_then(|commit| commit.comment.clone()), ..moved.check()? });
    }
    payload::push(&format!("{}/{name}", project.name), id, changes)
}

const CREDENTIALS: &str = "authorization";
const SCHEME: &str = "Basic ";
const PUSH: &str = "git.push";

/// Stands for a commit in a test delivery, where it is both before and after.
const NO_MOVE: &str = "1111111111111111111111111111111111111111";
