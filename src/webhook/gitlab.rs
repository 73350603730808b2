//! GitLab: a token that is sent along in plain text, or since 19.0 a signature as Standard Webhooks has it.
//!
//! ```text
//! configured secret     what proves a request                                            what does not
//! whsec_<base64>        webhook-signature: v1,<base64 of HMAC(id.timestamp.body)> …      a token: that would be a downgrade
//! anything else         x-gitlab-token: <the secret>                                     a signature
//! ```

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::signature::{Signature, same_token};
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, key_of_digest, payload};
use crate::domain::push::{DeliveryKey, Event, Push};
use crate::domain::secret::Secret;

/// Tries each secret with its own scheme; if none fits, the most telling reason is given.
pub(super) fn authenticate(request: &Request, secrets: &[&Secret], now: DateTime<Utc>) -> Result<(), Refusal> {
    let mut refusal = Refusal::NoSecret;
    for secret in secrets {
        let verdict = match Scheme::of(secret) {
            Scheme::Token(token) => check_token(request, token),
            Scheme::Signature(key) => check_signature(request, &key, now),
            Scheme::Unusable => Err(Refusal::SecretUnusable),
        };
        let Err(found) = verdict else { return Ok(()) };
        if telling(&found) > telling(&refusal) {
            refusal = found;
        }
    }
    Err(refusal)
}

/// Reads the event.
///
/// The delivery's key is `webhook-id`, else `Idempotency-Key`: GitLab (17.4 and newer) sends the same value in both, and keeps
/// it over retries and "Resend Request"; `webhook-id` is the one that is signed. Not `X-Gitlab-Event-UUID`, which recursive
/// hooks share, and not `X-Gitlab-Webhook-UUID`, which names the hook. An older GitLab gets the body's digest.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    let event_name = request.event_name(EVENT)?;
    let event = match event_name.as_str() {
        "Push Hook" | "Tag Push Hook" => push_event(request)?,
        "System Hook" => system_event(request)?,
        other => Event::Other(other.to_owned()),
    };
    let key = request.delivery_key(ID).or_else(|| request.delivery_key(IDEMPOTENCY_KEY));
    Ok(Parsed { key: key.unwrap_or_else(|| key_of_digest(&digest)), event_name, event, digest })
}

/// Writes a push and adds the token, or signs it. GitLab has no ping: its place takes a push that moves nothing.
pub(super) fn compose(secret: &Secret, message: &TestMessage<'_>, now: DateTime<Utc>) -> Request {
    let (ref_name, before, after) = match &message.kind {
        TestKind::Ping => ("refs/heads/main", NO_MOVE.to_owned(), NO_MOVE),
        TestKind::Push { ref_name, before, after } => {
            let before = before.map_or_else(|| payload::zeros(after), ToString::to_string);
            (ref_name.as_str(), before, after.as_str())
        }
    };
    let (event, kind) =
        if ref_name.starts_with("refs/tags/") { ("Tag Push Hook", "tag_push") } else { ("Push Hook", "push") };
    let mut request = Request::of_json(&json!({
        "object_kind": kind,
        "event_name": kind,
        "ref": ref_name,
        "before": before,
        "after": after,
        "checkout_sha": after,
        "project": { "path_with_namespace": message.repository },
    }));
    request.push_header(EVENT, event);
    request.push_header(IDEMPOTENCY_KEY, message.key);
    match Scheme::of(secret) {
        Scheme::Token(token) => request.push_header(TOKEN, token),
        Scheme::Signature(key) => {
            let timestamp = now.timestamp().to_string();
            let signature = signed(&key, message.key.as_bytes(), timestamp.as_bytes(), &request.body);
            request.push_header(ID, message.key);
            request.push_header(TIMESTAMP, timestamp);
            request.push_header(SIGNATURE, format!("{VERSION}{}", STANDARD.encode(signature.into_bytes())));
        }
        Scheme::Unusable => {}
    }
    request
}

/// What a secret proves, and with it the only thing that is accepted for it.
enum Scheme<'a> {
    /// Equality with this value.
    Token(&'a [u8]),
    /// A signature with this key.
    Signature(Vec<u8>),
    /// Nothing: it claims to be a signing secret and is none.
    Unusable,
}

impl<'a> Scheme<'a> {
    fn of(secret: &'a Secret) -> Self {
        let Some(encoded) = secret.expose().strip_prefix(SIGNING_SECRET) else {
            return Self::Token(secret.expose());
        };
        match KEY_BASE64.decode(encoded) {
            Ok(key) if key.len() >= SHORTEST_KEY => Self::Signature(key),
            Ok(_) | Err(_) => Self::Unusable,
        }
    }
}

fn check_token(request: &Request, token: &[u8]) -> Result<(), Refusal> {
    match request.header(TOKEN)? {
        Some(sent) if same_token(sent, token) => Ok(()),
        Some(_) => Err(Refusal::Mismatch(TOKEN)),
        None if request.header(SIGNATURE)?.is_some() => Err(Refusal::SignatureInsteadOfToken),
        None => Err(Refusal::Absent(TOKEN)),
    }
}

/// The age is looked at last, so that a wrong clock is not taken for a wrong secret, nor the other way round.
fn check_signature(request: &Request, key: &[u8], now: DateTime<Utc>) -> Result<(), Refusal> {
    let claims = match request.header(SIGNATURE)? {
        Some(claims) => claimed_signatures(claims)?,
        None if request.header(TOKEN)?.is_some() => return Err(Refusal::TokenInsteadOfSignature),
        None => return Err(Refusal::Absent(SIGNATURE)),
    };
    let id = request.header(ID)?.ok_or(Refusal::Absent(ID))?;
    // The parts are joined with full stops: one within the id could move the border between what was signed as what.
    let id_is_sound = std::str::from_utf8(id).is_ok_and(|text| DeliveryKey::parse(text).is_some());
    if !id_is_sound || id.contains(&b'.') {
        return Err(Refusal::Id);
    }
    let timestamp = request.header(TIMESTAMP)?.ok_or(Refusal::Absent(TIMESTAMP))?;
    let sent_at = unix_seconds(timestamp).ok_or(Refusal::TimestampNotNumber)?;
    let signature = signed(key, id, timestamp, &request.body);
    if !claims.iter().any(|claim| signature.matches(claim)) {
        return Err(Refusal::Mismatch(SIGNATURE));
    }
    check_age(now.timestamp().saturating_sub(sent_at))
}

/// A list separated by spaces: several while the forge rotates its key. Versions that we do not know are left out.
fn claimed_signatures(list: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let ours: Vec<&[u8]> =
        list.split(|byte| *byte == b' ').filter_map(|entry| entry.strip_prefix(VERSION.as_bytes())).collect();
    if ours.is_empty() {
        return Err(Refusal::UnknownVersions);
    }
    let decoded = ours.into_iter().filter_map(|encoded| STANDARD.decode(encoded).ok());
    let claims: Vec<Vec<u8>> = decoded.filter(|bytes| bytes.len() == 32).collect();
    if claims.is_empty() {
        return Err(Refusal::NotBase64);
    }
    Ok(claims)
}

fn signed(key: &[u8], id: &[u8], timestamp: &[u8], body: &[u8]) -> Signature {
    Signature::new(key, &[id, b".", timestamp, b".", body])
}

fn unix_seconds(value: &[u8]) -> Option<i64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

fn check_age(age_secs: i64) -> Result<(), Refusal> {
    if age_secs.unsigned_abs() <= TOLERANCE_SECS {
        return Ok(());
    }
    Err(match age_secs {
        0.. => Refusal::TooOld(age_secs.unsigned_abs()),
        _ => Refusal::FromTheFuture(age_secs.unsigned_abs()),
    })
}

/// How much a reason says when several secrets each have their own: the further a request got, the more.
fn telling(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::NoSecret => 0,
        Refusal::Absent(_) => 1,
        Refusal::TokenInsteadOfSignature | Refusal::SignatureInsteadOfToken => 2,
        Refusal::Mismatch(_) => 3,
        Refusal::Twice(_) | Refusal::Sha1Only | Refusal::Prefix | Refusal::Length(_) | Refusal::NotHex => 4,
        Refusal::UnknownVersions | Refusal::NotBase64 | Refusal::Id | Refusal::TimestampNotNumber => 4,
        Refusal::SecretUnusable => 5,
        Refusal::TooOld(_) | Refusal::FromTheFuture(_) => 6,
    }
}

/// The fields of a push that we use.
#[derive(Debug, Deserialize)]
struct Payload {
    object_kind: Option<String>,
    event_name: Option<String>,
    #[serde(rename = "ref")]
    ref_name: String,
    before: String,
    after: String,
    /// Absent, null, or a commit.
    #[serde(default, deserialize_with = "present")]
    checkout_sha: Option<Option<String>>,
    project: Project,
}

/// Which event a body is: hooks of a project say it in both fields, system hooks in one of them.
#[derive(Debug, Deserialize)]
struct Kind {
    object_kind: Option<String>,
    event_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Project {
    path_with_namespace: String,
}

impl Kind {
    fn word(&self) -> Option<&str> {
        self.object_kind.as_deref().or(self.event_name.as_deref())
    }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A system hook reports whatever happens on the instance: only pushes are read strictly.
fn system_event(request: &Request) -> Result<Event, Malformed> {
    let kind: Kind = payload::read(&request.body)?;
    match kind.word() {
        Some("push" | "tag_push") => push_event(request),
        Some(other) => {
            Ok(Event::Other(other.chars().filter(|letter| !letter.is_control()).take(LONGEST_WORD).collect()))
        }
        None => Err(Malformed::new("the system hook has neither `object_kind` nor `event_name`")),
    }
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let payload = payload::read_strictly(&request.body)?;
    let Payload { object_kind, event_name, ref_name, before, after, checkout_sha, project } = payload;
    let is_tag = match (Kind { object_kind, event_name }).word() {
        Some("push") => false,
        Some("tag_push") => true,
        Some(_) | None => return Err(Malformed::new("the event is a push, but the payload's `object_kind` is not")),
    };
    let repository = project.path_with_namespace.as_str();
    let push = payload::Moved { repository, ref_name: &ref_name, before: &before, after: &after }.check()?;
    if payload::is_test(&push) {
        return Ok(Event::Ping);
    }
    let after = match checkout_sha.as_ref().map(Option::as_deref) {
        None => push.after,
        // GitLab has no field that says "deleted": there is nothing to check out.
        Some(None) => None,
        Some(Some(text)) => {
            let commit = payload::revision("checkout_sha", text)?;
            // Of an annotated tag `after` is the tag object, and this is the commit.
            if is_tag && push.after.is_some() { commit } else { push.after }
        }
    };
    Ok(Event::Push(Push { after, ..push }))
}

const EVENT: &str = "x-gitlab-event";
const TOKEN: &str = "x-gitlab-token";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// HMAC-SHA256; `v1a` is Ed25519, which GitLab does not use.
const VERSION: &str = "v1,";
const SIGNING_SECRET: &[u8] = b"whsec_";

/// GitLab makes 32, Standard Webhooks asks for 24 to 64; below this a key can be guessed.
const SHORTEST_KEY: usize = 16;

/// What all reference implementations of Standard Webhooks use, both ways.
const TOLERANCE_SECS: u64 = 300;

/// A word of the forge, not a text.
const LONGEST_WORD: usize = 100;

/// Stands for a commit in a test delivery, where it is both before and after.
const NO_MOVE: &str = "1111111111111111111111111111111111111111";

/// Secrets are copied by hand, and some tools drop the padding.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
