//! The signature of Standard Webhooks: an HMAC-SHA256 over id, time of sending and body.
//!
//! ```text
//! webhook-id: msg_1      webhook-timestamp: 1614265330      webhook-signature: v1,<base64 of HMAC(id.timestamp.body)> …
//! ```
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>; the secret is `whsec_` and
//! the key in base64.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use chrono::{DateTime, Utc};

use super::signature::Signature;
use super::{Refusal, Request};
use crate::domain::push::DeliveryKey;
use crate::domain::secret::Secret;

/// The key of a signing secret.
#[derive(Clone)]
pub(super) struct SigningKey(Vec<u8>);

/// Whether a secret claims to be one: then nothing else than a signature is accepted for it.
pub(super) fn is_signing_secret(secret: &Secret) -> bool {
    secret.expose().starts_with(SIGNING_SECRET)
}

/// A list separated by spaces: several while the sender rotates its key. Versions that we do not know are left out.
pub(super) fn claims(request: &Request) -> Result<Vec<Vec<u8>>, Refusal> {
    let list = request.header(SIGNATURE)?.ok_or(Refusal::Absent(SIGNATURE))?;
    let ours: Vec<&[u8]> =
        list.split(|byte| *byte == b' ').filter_map(|entry| entry.strip_prefix(VERSION.as_bytes())).collect();
    if ours.is_empty() {
        return Err(Refusal::UnknownVersions);
    }
    let decoded = ours.into_iter().filter_map(|encoded| STANDARD.decode(encoded).ok());
    let claims: Vec<Vec<u8>> = decoded.filter(|bytes| bytes.len() == 32).collect();
    if claims.is_empty() { Err(Refusal::NotBase64) } else { Ok(claims) }
}

impl SigningKey {
    /// The key in `whsec_<base64>`; none if it is none, or one that can be guessed.
    pub(super) fn of(secret: &Secret) -> Option<Self> {
        let key = KEY_BASE64.decode(secret.expose().strip_prefix(SIGNING_SECRET)?).ok()?;
        (key.len() >= SHORTEST_KEY).then_some(Self(key))
    }

    /// Compares the claims with the signature of the request. The age is looked at last, so that a wrong clock is not taken
    /// for a wrong secret, nor the other way round.
    pub(super) fn check(&self, request: &Request, claims: &[Vec<u8>], now: DateTime<Utc>) -> Result<(), Refusal> {
        let id = request.header(ID)?.ok_or(Refusal::Absent(ID))?;
        // The parts are joined with full stops: one within the id could move the border between what was signed as what.
        let id_is_sound = std::str::from_utf8(id).is_ok_and(|text| DeliveryKey::parse(text).is_some());
        if !id_is_sound || id.contains(&b'.') {
            return Err(Refusal::Id);
        }
        let timestamp = request.header(TIMESTAMP)?.ok_or(Refusal::Absent(TIMESTAMP))?;
        let sent_at = unix_seconds(timestamp).ok_or(Refusal::TimestampNotNumber)?;
        let signature = self.signature(id, timestamp, &request.body);
        if !claims.iter().any(|claim| signature.matches(claim)) {
            return Err(Refusal::Mismatch(SIGNATURE));
        }
        check_age(now.timestamp().saturating_sub(sent_at))
    }

    /// Signs a request that has everything but its signature.
    pub(super) fn sign(&self, request: &mut Request, id: &str, now: DateTime<Utc>) {
        let timestamp = now.timestamp().to_string();
        let signature = self.signature(id.as_bytes(), timestamp.as_bytes(), &request.body).into_bytes();
        request.push_header(ID, id);
        request.push_header(TIMESTAMP, timestamp);
        request.push_header(SIGNATURE, format!("{VERSION}{}", STANDARD.encode(signature)));
    }

    fn signature(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> Signature {
        Signature::new(&self.0, &[id, b".", timestamp, b".", body])
    }
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

pub(super) const ID: &str = "webhook-id";
pub(super) const TIMESTAMP: &str = "webhook-timestamp";
pub(super) const SIGNATURE: &str = "webhook-signature";

/// HMAC-SHA256; `v1a` is Ed25519.
const VERSION: &str = "v1,";
const SIGNING_SECRET: &[u8] = b"whsec_";

/// GitLab makes 32, Standard Webhooks asks for 24 to 64; below this a key can be guessed.
const SHORTEST_KEY: usize = 16;

/// What all reference implementations of Standard Webhooks use, both ways.
const TOLERANCE_SECS: u64 = 300;

/// Secrets are copied by hand, and some tools drop the padding.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
