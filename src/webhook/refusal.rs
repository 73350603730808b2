//! Why a request is not believed, in the operator's words.
//!
//! Absent: secrets, tokens, signatures and bodies; a reason may be logged.

use crate::domain::secret::Secret;

/// Why a request is not believed: for the operator's log, never for the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing to compare with: an empty secret would let anyone in.
    #[error("the repository has no webhook secret")]
    NoSecret,
    /// The operator's mistake: no request can match this secret.
    #[error("the configured secret is none that this forge's proofs could be checked with")]
    SecretUnusable,
    /// The proof is missing.
    #[error("header `{0}` is absent: is a secret set on the forge?")]
    Absent(&'static str),
    /// Which of them would count is anybody's guess, so none does.
    #[error("header `{0}` was sent more than once")]
    Twice(&'static str),
    /// A very old forge, or a proxy that drops headers. Names the header that is needed.
    #[error("only a SHA-1 signature was sent; `{0}` with SHA-256 is needed")]
    Sha1Only(&'static str),
    /// Not the forge's form.
    #[error("header `{header}` does not begin with `{prefix}`")]
    Prefix {
        /// Which one.
        header: &'static str,
        /// What it has to begin with.
        prefix: &'static str,
    },
    /// Not a whole SHA-256.
    #[error("header `{header}` has a signature of {digits} characters instead of 64")]
    Length {
        /// Which one.
        header: &'static str,
        /// How long it is.
        digits: usize,
    },
    /// Not the forge's form.
    #[error("header `{0}` has something else than hex digits")]
    NotHex(&'static str),
    /// What is signed is not there.
    #[error("the body is a form without a field `payload` that can be decoded, which is what is signed")]
    NoPayload,
    /// Signed, but not in a way that we can check.
    #[error("header `webhook-signature` has no entry of version `{0}`")]
    UnknownVersions(&'static str),
    /// Not the form of Standard Webhooks.
    #[error("header `webhook-signature` has no `{version}` entry that is the base64 of {bytes} bytes")]
    NotBase64 {
        /// Which way of signing.
        version: &'static str,
        /// How long such a signature is.
        bytes: usize,
    },
    /// Not the form of an Ed25519 signature.
    #[error("header `{0}` is not the base64 of 64 bytes")]
    NotSignature(&'static str),
    /// What is signed behind the body can not be told from it.
    #[error("header `{0}` is not 16 hex digits")]
    Nonce(&'static str),
    /// Another kind of proof than the forge sends.
    #[error("header `{0}` is not of the scheme `Basic`")]
    Scheme(&'static str),
    /// Not the form of HTTP's basic authentication.
    #[error("header `{0}` is not the base64 of a user, a colon and a password")]
    NotCredentials(&'static str),
    /// Well-formed, and another user or password. Nothing is signed that could have been changed.
    #[error("header `{0}` has another user or password than the configured secret")]
    Credentials(&'static str),
    /// An id that could be taken for a part of the timestamp or the body.
    #[error("header `webhook-id` is empty, too long, or has a character that no id has")]
    Id,
    /// The time of sending can not be told.
    #[error("header `webhook-timestamp` is no number of seconds")]
    TimestampNotNumber,
    /// Authentic, but perhaps recorded and sent again.
    #[error("the signature is right, but {0} s old: a replay, or one of the two clocks is wrong")]
    TooOld(u64),
    /// Authentic, but a clock is wrong.
    #[error("the signature is right, but {0} s ahead of this machine's clock")]
    FromTheFuture(u64),
    /// The configuration asks for more than the forge sent; accepting less would be a downgrade.
    #[error("a token was sent, but the configured secret is a signing secret: set it as signing token on the forge")]
    TokenInsteadOfSignature,
    /// The other way round.
    #[error("a signature was sent, but the configured secret is a plain token, not a signing secret (`whsec_…`)")]
    SignatureInsteadOfToken,
    /// Well-formed, and made with another secret or over another body.
    #[error("header `{0}` does not match: another secret, or the body was changed on its way")]
    Mismatch(&'static str),
}

/// Tries each secret; if none fits, the most telling reason is given.
pub(super) fn first_or_most_telling(
    secrets: &[&Secret],
    check: impl Fn(&Secret) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut refusal = Refusal::NoSecret;
    for secret in secrets {
        let Err(found) = check(secret) else { return Ok(()) };
        if found.telling() > refusal.telling() {
            refusal = found;
        }
    }
    Err(refusal)
}

/// A header was sent more than once.
#[derive(Debug)]
pub(super) struct Twice(pub(super) &'static str);

impl From<Twice> for Refusal {
    fn from(Twice(header): Twice) -> Self {
        Self::Twice(header)
    }
}

impl Refusal {
    /// The reason in a word, by which refusals are counted.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoSecret => "no_secret",
            Self::SecretUnusable => "unusable_secret",
            Self::Absent(_) => "absent",
            Self::Twice(_) => "twice",
            Self::Sha1Only(_) => "sha1_only",
            Self::Prefix { .. } => "prefix",
            Self::Length { .. } => "length",
            Self::NotHex(_) => "not_hex",
            Self::NoPayload => "no_payload",
            Self::UnknownVersions(_) => "unknown_version",
            Self::NotBase64 { .. } => "not_base64",
            Self::NotSignature(_) => "not_signature",
            Self::Nonce(_) => "nonce",
            Self::Scheme(_) => "scheme",
            Self::NotCredentials(_) => "not_credentials",
            Self::Credentials(_) => "credentials",
            Self::Id => "id",
            Self::TimestampNotNumber => "timestamp",
            Self::TooOld(_) => "too_old",
            Self::FromTheFuture(_) => "from_the_future",
            Self::TokenInsteadOfSignature => "token_instead_of_signature",
            Self::SignatureInsteadOfToken => "signature_instead_of_token",
            Self::Mismatch(_) => "mismatch",
        }
    }

    /// How much a reason says when several secrets each have their own: the further a request got, the more.
    fn telling(&self) -> u8 {
        match self {
            Self::NoSecret => 0,
            Self::Absent(_) => 1,
            Self::TokenInsteadOfSignature | Self::SignatureInsteadOfToken => 2,
            Self::Mismatch(_) | Self::Credentials(_) => 3,
            Self::Twice(_) | Self::Sha1Only(_) | Self::Prefix { .. } | Self::Length { .. } | Self::NotHex(_) => 4,
            Self::NoPayload
            | Self::UnknownVersions(_)
            | Self::NotBase64 { .. }
            | Self::Id
            | Self::TimestampNotNumber => 4,
            Self::NotSignature(_) | Self::Nonce(_) | Self::Scheme(_) | Self::NotCredentials(_) => 4,
            Self::SecretUnusable => 5,
            Self::TooOld(_) | Self::FromTheFuture(_) => 6,
        }
    }
}
