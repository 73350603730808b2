//! Why a request is not believed, in the operator's words.
//!
//! Absent: secrets, tokens, signatures and bodies; a reason may be logged.

/// Why a request is not believed: for the operator's log, never for the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing to compare with: an empty secret would let anyone in.
    #[error("the repository has no webhook secret")]
    NoSecret,
    /// The operator's mistake: no request can match this secret.
    #[error("the configured signing secret is not `whsec_` followed by the base64 of 16 bytes or more")]
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
    #[error("header `webhook-signature` has no entry of version `v1`")]
    UnknownVersions,
    /// Not the form of Standard Webhooks.
    #[error("header `webhook-signature` has no `v1` entry that is the base64 of 32 bytes")]
    NotBase64,
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

/// A header was sent more than once.
#[derive(Debug)]
pub(super) struct Twice(pub(super) &'static str);

impl From<Twice> for Refusal {
    fn from(Twice(header): Twice) -> Self {
        Self::Twice(header)
    }
}

impl Refusal {
    /// How much a reason says when several secrets each have their own: the further a request got, the more.
    pub(super) fn telling(&self) -> u8 {
        match self {
            Self::NoSecret => 0,
            Self::Absent(_) => 1,
            Self::TokenInsteadOfSignature | Self::SignatureInsteadOfToken => 2,
            Self::Mismatch(_) => 3,
            Self::Twice(_) | Self::Sha1Only(_) | Self::Prefix { .. } | Self::Length { .. } | Self::NotHex(_) => 4,
            Self::NoPayload | Self::UnknownVersions | Self::NotBase64 | Self::Id | Self::TimestampNotNumber => 4,
            Self::SecretUnusable => 5,
            Self::TooOld(_) | Self::FromTheFuture(_) => 6,
        }
    }
}
