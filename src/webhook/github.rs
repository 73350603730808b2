//! GitHub: `X-Hub-Signature-256` over the raw body, which is JSON or a form with the JSON in its field `payload`.
//!
//! Unsigned, and thus only as trustworthy as the transport: every header, that is the event's name and the delivery's id.

use serde::Deserialize;
use serde_json::{Value, json};

use super::signature::Signature;
use super::{CONTENT_TYPE, FORM, Malformed, Parsed, Refusal, Request, TestKind, TestMessage};
use super::{essence, key_of_digest, payload};
use crate::domain::push::{Event, Push};
use crate::domain::secret::Secret;

/// Compares the signature with those that the secrets give.
pub(super) fn authenticate(request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
    let claim = claimed_signature(request)?;
    if secrets.iter().any(|secret| Signature::new(secret.expose(), &[&request.body]).matches(&claim)) {
        return Ok(());
    }
    Err(Refusal::Mismatch(SIGNATURE))
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
    let signature = Signature::new(secret.expose(), &[&request.body]).into_bytes();
    request.push_header(EVENT, event);
    request.push_header(DELIVERY, message.key);
    request.push_header(SIGNATURE, format!("{PREFIX}{}", hex::encode(signature)));
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
    repository: Repository,
}

#[derive(Debug, Deserialize)]
struct Repository {
    full_name: String,
}

fn claimed_signature(request: &Request) -> Result<Vec<u8>, Refusal> {
    let Some(value) = request.header(SIGNATURE)? else {
        let sha1_was_sent = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(SHA1_SIGNATURE));
        return Err(if sha1_was_sent { Refusal::Sha1Only } else { Refusal::Absent(SIGNATURE) });
    };
    let digits = value.strip_prefix(PREFIX.as_bytes()).ok_or(Refusal::Prefix)?;
    if digits.len() != 64 {
        return Err(Refusal::Length(digits.len()));
    }
    hex::decode(digits).map_err(|_| Refusal::NotHex)
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let payload: Payload = match request.header(CONTENT_TYPE)? {
        Some(value) if essence(&String::from_utf8_lossy(value)) == FORM => {
            payload::read_strictly(&form_field(&request.body, b"payload")?)?
        }
        _ => payload::read_strictly(&request.body)?,
    };
    let Payload { ref_name, before, after, deleted, repository: Repository { full_name } } = payload;
    let moved = payload::Moved { repository: &full_name, ref_name: &ref_name, before: &before, after: &after };
    let push = moved.check()?;
    if deleted {
        return Ok(Event::Push(Push { after: None, ..push }));
    }
    if payload::is_test(&push) {
        return Ok(Event::Ping);
    }
    Ok(Event::Push(push))
}

/// The decoded value of a field that must be in the form exactly once.
fn form_field(form: &[u8], name: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut found = None;
    for pair in form.split(|byte| *byte == b'&') {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let (key, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        if form_decode(key)? == name && found.replace(form_decode(value)?).is_some() {
            return Err(Malformed::new("the form has the field `payload` more than once"));
        }
    }
    found.ok_or_else(|| Malformed::new("the form has no field `payload`"))
}

fn form_decode(text: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let value = match byte {
            b'+' => b' ',
            b'%' => hex_value(bytes.next())
                .zip(hex_value(bytes.next()))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(|| Malformed::new("the form has a `%` that is not followed by two hex digits"))?,
            other => *other,
        };
        decoded.push(value);
    }
    Ok(decoded)
}

fn hex_value(digit: Option<&u8>) -> Option<u8> {
    char::from(*digit?).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn ping_body(repository: &str) -> Value {
    json!({ "zen": "Anything added dilutes everything else.", "repository": { "full_name": repository } })
}

const EVENT: &str = "x-github-event";
const DELIVERY: &str = "x-github-delivery";
const SIGNATURE: &str = "x-hub-signature-256";
const SHA1_SIGNATURE: &str = "x-hub-signature";
const PREFIX: &str = "sha256=";
