//! What happens to a secret between the place where it was made and the two where it is needed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Change;
use crate::domain::secret::Secret;

/// The secrets that this one may stand for, each with what comes after "would match if the configured secret".
pub(super) fn variants(secret: &Secret) -> impl Iterator<Item = (&'static str, Secret)> {
    CHANGES.iter().filter_map(move |(words, change)| {
        let changed = change(secret.expose())?;
        let differs = changed != secret.expose() && changed.len() >= SHORTEST;
        differs.then(|| (*words, Secret::new(changed)))
    })
}

/// In the order of how often they happen.
pub(super) const CHANGES: [Change; 18] = [
    ("had no newline at its end", |secret| Some(without_newlines(secret).to_vec())),
    ("had no white space around it", |secret| Some(secret.trim_ascii().to_vec())),
    ("ended with a newline, as the forge's does", |secret| Some([secret, b"\n"].concat())),
    ("ended with a carriage return and a newline, as the forge's does", |secret| Some([secret, b"\r\n"].concat())),
    ("ended with a space, as the forge's does", |secret| Some([secret, b" "].concat())),
    ("began with a space, as the forge's does", |secret| Some([b" ", secret].concat())),
    ("had no quotation marks around it", unquoted),
    ("had no `NAME=` before it", |secret| Some(secret[secret.iter().position(|byte| *byte == b'=')? + 1..].to_vec())),
    ("did not begin with a byte order mark", |secret| secret.strip_prefix(BYTE_ORDER_MARK).map(<[u8]>::to_vec)),
    ("were the bytes that it is the base64 of", |secret| STANDARD.decode(after_whsec(secret).unwrap_or(secret)).ok()),
    ("were the bytes that it is the hex of", |secret| hex::decode(secret).ok()),
    ("were given as its base64, which is what the forge has", |secret| Some(STANDARD.encode(secret).into_bytes())),
    ("were given as its hex, which is what the forge has", |secret| Some(hex::encode(secret).into_bytes())),
    ("had `whsec_` before it", |secret| after_whsec(secret).is_none().then(|| [WHSEC, secret].concat())),
    ("had no `whsec_` before it", |secret| after_whsec(secret).map(<[u8]>::to_vec)),
    // The base64 of a text is the signing secret whose key is that text.
    ("were taken as text with its `whsec_`, as the sender does", |secret| {
        after_whsec(secret).map(|_| signing_secret_of(secret))
    }),
    ("were taken as text after its `whsec_`, as the sender does", |secret| after_whsec(secret).map(signing_secret_of)),
    ("were taken as text and not as base64, as the sender does", |secret| {
        after_whsec(secret).is_none().then(|| signing_secret_of(secret))
    }),
];

fn without_newlines(secret: &[u8]) -> &[u8] {
    let end = secret.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    &secret[..end]
}

fn unquoted(secret: &[u8]) -> Option<Vec<u8>> {
    let within = |quote: &[u8]| secret.strip_prefix(quote)?.strip_suffix(quote);
    within(b"\"").or_else(|| within(b"'")).map(<[u8]>::to_vec)
}

fn after_whsec(secret: &[u8]) -> Option<&[u8]> {
    secret.strip_prefix(WHSEC)
}

fn signing_secret_of(key: &[u8]) -> Vec<u8> {
    [WHSEC, STANDARD.encode(key).as_bytes()].concat()
}

const WHSEC: &[u8] = b"whsec_";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is left of a secret and can be guessed proves nothing.
const SHORTEST: usize = 8;
