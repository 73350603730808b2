//! Signing as the forges do it, and spoiling what was signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::dialect::{PLAIN, WHSEC};
use crate::support::Delivery;

/// HMAC-SHA256 in hex.
pub fn hmac_hex(secret: &str, body: &[u8]) -> String {
    hex::encode(hmac(secret.as_bytes(), &[body]))
}

/// HMAC-SHA1 in hex.
pub fn hmac_sha1_hex(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// Signs as Standard Webhooks has it, now, keeping the delivery's id if it has one.
pub fn sign_standard(delivery: Delivery, secret: &str) -> Delivery {
    let found = |name: &str| delivery.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.clone());
    let id = found("webhook-id").or(found("idempotency-key")).unwrap_or_else(|| "an-id".to_owned());
    let timestamp = Utc::now().timestamp().to_string();
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("base64");
    let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &delivery.body];
    let signature = format!("v1,{}", STANDARD.encode(hmac(&key, &parts)));
    delivery
        .header("webhook-id", Some(&id))
        .header("webhook-timestamp", Some(&timestamp))
        .header("webhook-signature", Some(&signature))
}

/// The public half of the key that the fixtures are signed with: the private one is the SHA-256 of their secret.
pub const PUBLIC_KEY: &str = "Lj1GvEKXBCRbWZmhNI0hUkmuh/27Nvu4lcZhH1aiddk=";

/// That of another secret.
pub const OTHER_PUBLIC_KEY: &str = "01lnYlTyyaHXVcWy8U8PHievyIfNslizMTT4QMM119U=";

/// Signs as whoever has the private half of this key.
pub fn sign_ed25519(public_key: &str, parts: &[&[u8]]) -> [u8; 64] {
    let mut keys =
        [PLAIN, "another secret of the fixtures"].map(|text| SigningKey::from_bytes(&Sha256::digest(text).into()));
    keys.sort_by_key(|key| STANDARD.encode(key.verifying_key()) != public_key);
    assert_eq!(STANDARD.encode(keys[0].verifying_key()), public_key, "a key that we have");
    keys[0].sign(&parts.concat()).to_bytes()
}

/// An Ed25519 signature in base64 after a prefix, which may be empty.
pub fn bad_ed25519(prefix: &'static str, good: &str) -> Vec<(&'static str, String)> {
    let encoded = good.strip_prefix(prefix).expect("a good signature");
    let signature = STANDARD.decode(encoded).expect("base64");
    let of = |bytes: &[u8]| format!("{prefix}{}", STANDARD.encode(bytes));
    let changed = |index: usize| {
        let mut changed = signature.clone();
        changed[index] ^= 1;
        of(&changed)
    };
    let mut bad = vec![
        ("an empty signature", String::new()),
        ("a signature of 0 bytes", prefix.to_owned()),
        ("a signature of 31 bytes", of(&signature[..31])),
        ("a signature of 33 bytes", of(&signature[..33])),
        ("a byte less", of(&signature[..63])),
        ("a byte more", of(&[&signature[..], &[0]].concat())),
        ("zeros", of(&[0; 64])),
        ("another first byte", changed(0)),
        ("another last byte", changed(63)),
        ("a wrong prefix", format!("v2,{encoded}")),
        ("the other scheme's prefix", format!("v1,{encoded}")),
        ("hex", format!("{prefix}{}", hex::encode(&signature))),
    ];
    if !prefix.is_empty() {
        bad.push(("no prefix", encoded.to_owned()));
    }
    bad
}

/// Right proofs of forges by their own headers, each made with the secret of the fixtures: none opens another's door.
pub fn of_all_forges(body: &[u8]) -> Vec<(&'static str, String)> {
    let hex = hmac_hex(PLAIN, body);
    let standard =
        sign_standard(Delivery { repository: String::new(), headers: Vec::new(), body: body.to_vec() }, WHSEC);
    let mut proofs = vec![
        ("x-hub-signature-256", format!("sha256={hex}")),
        ("x-hub-signature", format!("sha256={hex}")),
        ("x-gitlab-token", PLAIN.to_owned()),
        ("x-gitea-signature", hex.clone()),
        ("x-forgejo-signature", hex.clone()),
        ("x-gogs-signature", hex),
        ("authorization", format!("Basic {}", STANDARD.encode(format!("landfall:{PLAIN}")))),
        ("x-payload-signature", STANDARD.encode(sign_ed25519(PUBLIC_KEY, &[body, b"0123456789abcdef"]))),
        ("x-payload-nonce", "0123456789abcdef".to_owned()),
        ("x-landfall-token", PLAIN.to_owned()),
    ];
    proofs.extend(standard.headers.into_iter().map(|(name, value)| match name.as_str() {
        "webhook-id" => ("webhook-id", value),
        "webhook-timestamp" => ("webhook-timestamp", value),
        _ => ("webhook-signature", value),
    }));
    proofs
}

/// A digest in hex after a prefix, which may be empty.
pub fn bad_hex(prefix: &'static str, good: &str) -> Vec<(&'static str, String)> {
    let digits = good.strip_prefix(prefix).expect("a good signature");
    let (first, rest) = digits.split_at(1);
    let last = &digits[..digits.len() - 1];
    let mut bad = vec![
        ("an empty signature", String::new()),
        ("a digest of 0 bytes", prefix.to_owned()),
        ("a digest of 31 bytes", format!("{prefix}{}", &digits[..62])),
        ("a digest of 33 bytes", format!("{prefix}{digits}00")),
        ("half a byte less", format!("{prefix}{last}")),
        ("a wrong prefix", format!("sha512={digits}")),
        ("SHA-1 by its prefix", format!("sha1={}", &digits[..40])),
        ("another first digit", format!("{prefix}{}{rest}", if first == "0" { "1" } else { "0" })),
        ("something else than hex", format!("{prefix}g{rest}")),
        ("a list", format!("{good},{good}")),
    ];
    if prefix.is_empty() {
        bad.push(("a prefix where there is none", format!("sha256={digits}")));
    } else {
        bad.push(("no prefix", digits.to_owned()));
        bad.push(("a prefix in capitals", format!("{}{digits}", prefix.to_uppercase())));
    }
    bad
}

/// A secret that is sent along.
pub fn bad_tokens(good: &str) -> Vec<(&'static str, String)> {
    vec![
        ("an empty token", String::new()),
        ("a byte less", good[..good.len() - 1].to_owned()),
        ("a byte more", format!("{good}x")),
        ("other capitals", good.to_uppercase()),
        ("a wrong prefix", format!("Bearer {good}")),
        ("a digest of it", hmac_hex(good, b"")),
    ]
}

/// A signature of Standard Webhooks.
pub fn bad_standard(good: &str) -> Vec<(&'static str, String)> {
    let encoded = good.strip_prefix("v1,").expect("a good signature");
    let digest = STANDARD.decode(encoded).expect("base64");
    let of = |bytes: &[u8]| format!("v1,{}", STANDARD.encode(bytes));
    let mut changed = digest.clone();
    changed[0] ^= 1;
    vec![
        ("an empty signature", String::new()),
        ("a digest of 0 bytes", "v1,".to_owned()),
        ("a digest of 31 bytes", of(&digest[..31])),
        ("a digest of 33 bytes", of(&[&digest[..], &[0]].concat())),
        ("a changed digest", of(&changed)),
        ("a wrong prefix", format!("v2,{encoded}")),
        ("the other scheme's prefix", format!("v1a,{encoded}")),
        ("no prefix", encoded.to_owned()),
        ("hex", format!("v1,{}", hex::encode(&digest))),
        ("SHA-1", of(&digest[..20])),
    ]
}
