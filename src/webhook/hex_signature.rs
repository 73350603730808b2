//! An HMAC-SHA256 that a forge writes into a header in hex, with or without a prefix.

use super::signature::Signature;
use super::{Refusal, Request};
use crate::domain::secret::Secret;

/// How a forge writes it down.
#[derive(Debug, Clone, Copy)]
pub(super) struct HexSignature {
    /// Where it stands.
    pub(super) header: &'static str,
    /// What comes before the digits; may be empty.
    pub(super) prefix: &'static str,
    /// Where the forge's older SHA-1 stands, which is not enough.
    pub(super) sha1_header: Option<&'static str>,
}

impl HexSignature {
    /// The 32 bytes that the request claims, if it has the header once and in its whole form.
    pub(super) fn claim(&self, request: &Request) -> Result<Vec<u8>, Refusal> {
        let Self { header, prefix, sha1_header } = *self;
        let Some(value) = request.header(header)? else {
            let sha1_was_sent = sha1_header.is_some_and(|header| request.has_header(header));
            return Err(if sha1_was_sent { Refusal::Sha1Only(header) } else { Refusal::Absent(header) });
        };
        let Some(digits) = value.strip_prefix(prefix.as_bytes()) else {
            let is_sha1 = sha1_header.is_none() && value.starts_with(b"sha1=");
            return Err(if is_sha1 { Refusal::Sha1Only(header) } else { Refusal::Prefix { header, prefix } });
        };
        if digits.len() != 64 {
            return Err(Refusal::Length { header, digits: digits.len() });
        }
        hex::decode(digits).map_err(|_| Refusal::NotHex(header))
    }

    /// Compares the claim with the signature of these bytes by each of the secrets, in constant time.
    pub(super) fn check(&self, request: &Request, signed: &[u8], secrets: &[&Secret]) -> Result<(), Refusal> {
        let claim = self.claim(request)?;
        if secrets.iter().any(|secret| Signature::new(secret.expose(), &[signed]).matches(&claim)) {
            return Ok(());
        }
        Err(Refusal::Mismatch(self.header))
    }

    /// The header and its value, for those who sign.
    pub(super) fn sign(&self, secret: &Secret, signed: &[u8]) -> (&'static str, String) {
        let signature = Signature::new(secret.expose(), &[signed]).into_bytes();
        (self.header, format!("{}{}", self.prefix, hex::encode(signature)))
    }
}
