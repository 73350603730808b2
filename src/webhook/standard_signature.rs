//! The signature of Standard Webhooks: an HMAC-SHA256 or an Ed25519 signature over id, time of sending and body.
//!
//! ```text
//! webhook-id: msg_1      webhook-timestamp: 1614265330      webhook-signature: v1,<base64 of HMAC(id.timestamp.body)> …
//! ```
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>; the secret is `whsec_` and
//! the key in base64, a public key `whpk_` and its 32 bytes in base64.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use chrono::{DateTime, Utc};

use super::public_key::{PublicKey, SIGNATURE_BYTES};
use super::signature::Signature;
use super::{Refusal, Request};
use crate::domain::push::DeliveryKey;
use crate::domain::secret::Secret;

/// A way of signing, as an entry of the list begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    word: &'static str,
    bytes: usize,
}

/// HMAC-SHA256.
pub(super) const V1: Version = Version { word: "v1", bytes: 32 };

/// Ed25519.
pub(super) const V1A: Version = Version { word: "v1a", bytes: SIGNATURE_BYTES };

/// The key of a signing secret.
#[derive(Clone)]
pub(super) struct SigningKey(Vec<u8>);

/// Whether a secret claims to be one: then nothing else than a signature is accepted for it.
pub(super) fn is_signing_secret(secret: &Secret) -> bool {
    secret.expose().starts_with(SIGNING_SECRET)
}

/// Whether it is the key of somebody else, who alone can sign.
pub(super) fn is_public_key(secret: &Secret) -> bool {
    secret.expose().starts_with(PUBLIC_KEY)
}

/// The key in `whpk_<base64>`; none if it is none.
pub(super) fn public_key(secret: &Secret) -> Option<PublicKey> {
    PublicKey::of_base64(secret.expose().strip_prefix(PUBLIC_KEY)?)
}

/// The signatures of a version in a list separated by spaces: several while the sender rotates its key. Versions that we do
/// not know are left out.
pub(super) fn claims(request: &Request, version: Version) -> Result<Vec<Vec<u8>>, Refusal> {
    let Version { word, bytes } = version;
    let list = request.header(SIGNATURE)?.ok_or(Refusal::Absent(SIGNATURE))?;
    let of_version = |entry: &'_ [u8]| Some(entry.strip_prefix(word.as_bytes())?.strip_prefix(b",")?.to_vec());
    let ours: Vec<_> = list.split(|byte| *byte == b' ').filter_map(of_version).collect();
    if ours.is_empty() {
        return Err(Refusal::UnknownVersions(word));
    }
    let decoded = ours.into_iter().filter_map(|encoded| STANDARD.decode(encoded).ok());
    let claims: Vec<Vec<u8>> = decoded.filter(|claim| claim.len() == bytes).take(MOST_CLAIMS).collect();
    if claims.is_empty() { Err(Refusal::NotBase64 { version: word, bytes }) } else { Ok(claims) }
}

/// What is signed together with the body.
#[derive(Debug)]
struct Envelope<'a> {
    id: &'a [u8],
    timestamp: &'a [u8],
    sent_at: i64,
}

impl<'a> Envelope<'a> {
    fn of(request: &'a Request) -> Result<Self, Refusal> {
        let id = request.header(ID)?.ok_or(Refusal::Absent(ID))?;
        // The parts are joined with full stops: one within the id could move the border between what was signed as what.
        let id_is_sound = std::str::from_utf8(id).is_ok_and(|text| DeliveryKey::parse(text).is_some());
        if !id_is_sound || id.contains(&b'.') {
            return Err(Refusal::Id);
        }
        let timestamp = request.header(TIMESTAMP)?.ok_or(Refusal::Absent(TIMESTAMP))?;
        let sent_at = unix_seconds(timestamp).ok_or(Refusal::TimestampNotNumber)?;
        Ok(Self { id, timestamp, sent_at })
    }
}

/// Whether a request has whatever a signature needs, apart from the body.
pub(super) fn check_head(request: &Request, version: Version) -> Result<(), Refusal> {
    claims(request, version)?;
    Envelope::of(request).map(drop)
}

/// Lets `matches` look at what has to be signed. The age is looked at last, so that a wrong clock is not taken for a wrong
/// secret, nor the other way round.
pub(super) fn check(request: &Request, now: DateTime<Utc>, matches: impl Fn(&[&[u8]]) -> bool) -> Result<(), Refusal> {
    let Envelope { id, timestamp, sent_at } = Envelope::of(request)?;
    if !matches(&[id, b".", timestamp, b".", &request.body]) {
        return Err(Refusal::Mismatch(SIGNATURE));
    }
    check_age(now.timestamp().saturating_sub(sent_at))
}

impl SigningKey {
    /// The key in `whsec_<base64>`; none if it is none, or one that can be guessed.
    pub(super) fn of(secret: &Secret) -> Option<Self> {
        let key = KEY_BASE64.decode(secret.expose().strip_prefix(SIGNING_SECRET)?).ok()?;
        (key.len() >= SHORTEST_KEY).then_some(Self(key))
    }

    /// Compares the claims with the signature of the request.
    pub(super) fn check(&self, request: &Request, claims: &[Vec<u8>], now: DateTime<Utc>) -> Result<(), Refusal> {
        check(request, now, |signed| {
            let signature = Signature::new(&self.0, signed);
            claims.iter().any(|claim| signature.matches(claim))
        })
    }

    /// Signs a request that has everything but its signature.
    pub(super) fn sign(&self, request: &mut Request, id: &str, now: DateTime<Utc>) {
        let timestamp = now.timestamp().to_string();
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &request.body];
        let signature = Signature::new(&self.0, &signed).into_bytes();
        request.push_header(ID, id);
        request.push_header(TIMESTAMP, timestamp);
        request.push_header(SIGNATURE, format!("{},{}", V1.word, STANDARD.encode(signature)));
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

const SIGNING_SECRET: &[u8] = b"whsec_";
const PUBLIC_KEY: &[u8] = b"whpk_";

/// While a key is replaced there are two. Each that is looked at may cost a hash of the whole body.
const MOST_CLAIMS: usize = 4;

/// GitLab makes 32, Standard Webhooks asks for 24 to 64; below this a key can be guessed.
const SHORTEST_KEY: usize = 16;

/// What all reference implementations of Standard Webhooks use, both ways.
const TOLERANCE_SECS: u64 = 300;

/// Secrets are copied by hand, and some tools drop the padding.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
