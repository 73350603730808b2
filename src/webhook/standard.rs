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
curl --silent --show-error --fail-with-body -H 'content-type: application/json' -H "webhook-id: $id" \\
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
