//! Bytes of a webhook in, an event out: who may speak, and what was said.
//!
//! ```text
//! Request ── authenticate ──▶ Verified ── parse ──▶ Parsed { key, event, … }
//!               │                           │
//!               ▼                           ▼
//!            Refused                    Malformed
//!     (the operator's log)        (the authentic sender)
//!               │
//!            explain ──▶ Hint, for the operator too
//! ```
//!
//! The names of the forges' headers and payload fields live here and nowhere else, one file per forge. What several of them
//! share: `signature` the HMACs, `public_key` Ed25519, `hex_signature` and `standard_signature` two ways of writing one down,
//! `gogs_family` what three forges inherited from one, `form` and `payload` two ways of packing JSON, `refusal` the reasons,
//! `secrets` what may be configured, `explain` what would have matched, `record` what is kept. The forge is the configured one: no header can choose a weaker check.
//!
//! Absent from this room: input and output, the clock (`now` is an argument), the log, async, and any knowledge of sites.

mod azure;
mod bitbucket;
mod bitbucket_dc;
mod explain;
mod forgejo;
mod form;
mod gitea;
mod github;
mod gitlab;
mod gogs;
mod gogs_family;
mod hex_signature;
mod payload;
mod public_key;
mod record;
mod refusal;
mod secrets;
mod signature;
mod sourcehut;
mod standard;
mod standard_signature;

use std::fmt;

use chrono::{DateTime, Utc};

use crate::domain::forge::Forge;
use crate::domain::push::{DeliveryKey, Event, RefName};
use crate::domain::revision::Revision;
use crate::domain::secret::Secret;

pub use explain::{Allowance, Doubt, Hint, Other, explain};
pub use record::Record;
pub use refusal::Refusal;
use refusal::Twice;
pub use secrets::{SecretUnfit, check_secret, default_secret, is_public};
pub use sourcehut::QUERY as SOURCEHUT_QUERY;
pub use standard::SCRIPT as STANDARD_SCRIPT;

/// One POST as it came: nothing in it can be trusted yet.
#[derive(Clone)]
pub struct Request {
    /// Lower-case names and raw values, in the order they came; a header that was sent twice is here twice.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The raw bytes: never decompressed, decoded or normalised, since the signature is over them.
    pub body: Vec<u8>,
}

/// A request whose signature or token matched. Only [`authenticate`] makes one, and [`replay`] of what that one made.
#[derive(Debug)]
pub struct Verified {
    forge: Forge,
    request: Request,
}

/// A request that nobody has to believe, for those who ask why.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// What was refused.
    pub request: Request,
}

/// What an authentic delivery says, and how to recognise it when it comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The forge's id of the delivery, or the body's digest if it sent none.
    pub key: DeliveryKey,
    /// The event in the forge's own words: `push`, `Tag Push Hook`.
    pub event_name: String,
    /// The event in ours.
    pub event: Event,
    /// SHA-256 of the raw body, in hex.
    pub digest: String,
}

/// Why an authentic delivery makes no sense: fit to be shown to its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// Why a delivery can not be composed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotSign {
    /// The private key is in the forge.
    #[error("only SourceHut itself can sign its deliveries\nhelp: push to the repository, and see what it is answered")]
    Sourcehut,
    /// The private key is the sender's.
    #[error("the configured key is a public one: only the sender can sign")]
    PublicKey,
}

/// A delivery to compose, for `send-test` and `demo`.
#[derive(Debug, Clone)]
pub struct TestMessage<'a> {
    /// The id of the delivery: printable ASCII without a full stop, which the signing scheme of GitLab uses as a delimiter.
    pub key: &'a str,
    /// The repository's identity: `acme/blog`.
    pub repository: &'a str,
    /// What to say.
    pub kind: TestKind<'a>,
}

/// What a composed delivery says.
#[derive(Debug, Clone)]
pub enum TestKind<'a> {
    /// "Does somebody listen?": changes nothing.
    Ping,
    /// "This ref moved."
    Push {
        /// The ref that moved.
        ref_name: &'a RefName,
        /// Where it was; none when it was created.
        before: Option<&'a Revision>,
        /// Where it is now.
        after: &'a Revision,
    },
}

/// Looks whether a request could be authentic before its body is read: whether the proof is there, whole and, where it does
/// not depend on the body, right. `request.body` is not looked at.
pub fn check_head(forge: Forge, request: &Request, secrets: &[Secret]) -> Result<(), Refusal> {
    let secrets = usable(secrets)?;
    match forge {
        Forge::Github => github::check_head(request),
        Forge::Gitlab => gitlab::check_head(request, &secrets),
        Forge::Gitea => gitea::check_head(request),
        Forge::Forgejo => forgejo::check_head(request),
        Forge::Gogs => gogs::check_head(request),
        Forge::Bitbucket => bitbucket::check_head(request),
        Forge::BitbucketDc => bitbucket_dc::check_head(request),
        Forge::Azure => azure::check_head(request, &secrets),
        Forge::Sourcehut => sourcehut::check_head(request),
        Forge::Standard => standard::check_head(request, &secrets),
    }
}

/// Proves that a request comes from the configured forge, with any of the secrets (several while rotating).
///
/// Looks at headers and raw bytes only: nothing is parsed before this succeeds. Every comparison with a secret takes constant time.
pub fn authenticate(
    forge: Forge,
    request: Request,
    secrets: &[Secret],
    now: DateTime<Utc>,
) -> Result<Verified, Refused> {
    match prove(forge, &request, secrets, now) {
        Ok(()) => Ok(Verified { forge, request }),
        Err(refusal) => Err(Refused { refusal, request }),
    }
}

fn prove(forge: Forge, request: &Request, secrets: &[Secret], now: DateTime<Utc>) -> Result<(), Refusal> {
    let secrets = usable(secrets)?;
    match forge {
        Forge::Github => github::authenticate(request, &secrets),
        Forge::Gitlab => gitlab::authenticate(request, &secrets, now),
        Forge::Gitea => gitea::authenticate(request, &secrets),
        Forge::Forgejo => forgejo::authenticate(request, &secrets),
        Forge::Gogs => gogs::authenticate(request, &secrets),
        Forge::Bitbucket => bitbucket::authenticate(request, &secrets),
        Forge::BitbucketDc => bitbucket_dc::authenticate(request, &secrets),
        // The head is all there is.
        Forge::Azure => azure::check_head(request, &secrets),
        Forge::Sourcehut => sourcehut::authenticate(request, &secrets),
        Forge::Standard => standard::authenticate(request, &secrets, now),
    }
}

/// A delivery that was authentic when it came, as it was kept.
pub fn replay(forge: Forge, record: Record) -> Verified {
    let Record { headers, body } = record;
    let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    Verified { forge, request: Request { headers, body } }
}

fn usable(secrets: &[Secret]) -> Result<Vec<&Secret>, Refusal> {
    let secrets: Vec<&Secret> = secrets.iter().filter(|secret| !secret.expose().is_empty()).collect();
    if secrets.is_empty() { Err(Refusal::NoSecret) } else { Ok(secrets) }
}

/// Reads what an authentic delivery says; the only parser.
///
/// A push is read strictly (duplicate keys are an error), any other event not at all.
pub fn parse(verified: &Verified) -> Result<Parsed, Malformed> {
    let digest = signature::digest(&verified.request.body);
    match verified.forge {
        Forge::Github => github::parse(&verified.request, digest),
        Forge::Gitlab => gitlab::parse(&verified.request, digest),
        Forge::Gitea => gitea::parse(&verified.request, digest),
        Forge::Forgejo => forgejo::parse(&verified.request, digest),
        Forge::Gogs => gogs::parse(&verified.request, digest),
        Forge::Bitbucket => bitbucket::parse(&verified.request, digest),
        Forge::BitbucketDc => bitbucket_dc::parse(&verified.request, digest),
        Forge::Azure => azure::parse(&verified.request, digest),
        Forge::Sourcehut => sourcehut::parse(&verified.request, digest),
        Forge::Standard => standard::parse(&verified.request, digest),
    }
}

/// Writes and signs what the forge would send. GitLab's secret that nothing can be signed with yields a request without a
/// signature.
pub fn compose(
    forge: Forge,
    secret: &Secret,
    message: &TestMessage<'_>,
    now: DateTime<Utc>,
) -> Result<Request, CannotSign> {
    Ok(match forge {
        Forge::Github => github::compose(secret, message),
        Forge::Gitlab => gitlab::compose(secret, message, now),
        Forge::Gitea => gitea::compose(secret, message),
        Forge::Forgejo => forgejo::compose(secret, message),
        Forge::Gogs => gogs::compose(secret, message),
        Forge::Bitbucket => bitbucket::compose(secret, message),
        Forge::BitbucketDc => bitbucket_dc::compose(secret, message),
        Forge::Azure => azure::compose(secret, message),
        Forge::Sourcehut => return Err(CannotSign::Sourcehut),
        Forge::Standard => match standard::Key::of(secret) {
            Some(standard::Key::Shared(key)) => standard::compose(&key, message, now),
            Some(standard::Key::Public(_)) | None => return Err(CannotSign::PublicKey),
        },
    })
}

/// Tells whether the forge sends this `Content-Type`; parameters such as `charset` do not matter, a missing header is not accepted.
pub fn accepts_media_type(forge: Forge, content_type: Option<&str>) -> bool {
    let media_type = content_type.map(essence);
    match forge {
        Forge::Github | Forge::Gitea | Forge::Forgejo | Forge::Gogs => {
            matches!(media_type.as_deref(), Some(JSON | FORM))
        }
        Forge::Gitlab | Forge::Bitbucket | Forge::BitbucketDc | Forge::Azure | Forge::Sourcehut | Forge::Standard => {
            matches!(media_type.as_deref(), Some(JSON))
        }
    }
}

/// Why the door refuses a request before it looks for a proof, if it does.
pub fn obstacle(forge: Forge, request: &Request) -> Option<&'static str> {
    let text = |name| request.header(name).ok().flatten().map(String::from_utf8_lossy);
    if text(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Some("it has a `content-encoding`, and what is signed are the bytes");
    }
    let content_type = text(CONTENT_TYPE);
    (!accepts_media_type(forge, content_type.as_deref())).then_some("its `content-type` is none that the forge sends")
}

impl Request {
    /// Whether a header was sent at all.
    fn has_header(&self, name: &'static str) -> bool {
        self.headers.iter().any(|(found, _)| found.eq_ignore_ascii_case(name))
    }

    /// The value of a header that may be sent once.
    fn header(&self, name: &'static str) -> Result<Option<&[u8]>, Twice> {
        let mut values = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, value)| value.as_slice());
        if values.next().is_some() {
            return Err(Twice(name));
        }
        Ok(first)
    }

    /// The forge's word for the event.
    fn event_name(&self, header: &'static str) -> Result<String, Malformed> {
        let value = self.header(header)?.ok_or_else(|| Malformed::new(format!("header `{header}` is absent")))?;
        let sound = |text: &&str| {
            !text.is_empty()
                && text.len() <= LONGEST_EVENT_NAME
                && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        };
        let text = std::str::from_utf8(value).ok().filter(sound);
        text.map(str::to_owned).ok_or_else(|| Malformed::new(format!("header `{header}` is no name of an event")))
    }

    /// The id in the header, if it was sent once and is sound.
    fn delivery_key(&self, header: &'static str) -> Option<DeliveryKey> {
        let value = self.header(header).ok()??;
        DeliveryKey::parse(std::str::from_utf8(value).ok()?)
    }

    /// Whether the body is a form; else it is taken for JSON.
    fn is_form(&self) -> Result<bool, Twice> {
        let content_type = self.header(CONTENT_TYPE)?;
        Ok(content_type.is_some_and(|value| essence(&String::from_utf8_lossy(value)) == FORM))
    }

    fn of_json(body: &serde_json::Value) -> Self {
        Self { headers: vec![(CONTENT_TYPE.to_owned(), JSON.into())], body: body.to_string().into_bytes() }
    }

    fn push_header(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.headers.push((name.to_owned(), value.into()));
    }
}

/// Header values and the body are not shown: they hold tokens, and what may be anything.
impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Request")
            .field("headers", &names)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

impl Malformed {
    /// Keeps the beginning only: a reason may quote the sender's bytes.
    fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string().chars().take(LONGEST_REASON).collect())
    }
}

impl From<Twice> for Malformed {
    fn from(Twice(header): Twice) -> Self {
        Self::new(format!("header `{header}` was sent more than once"))
    }
}

/// The body's digest as the id of the delivery: the same body again is the same delivery.
#[expect(clippy::expect_used, reason = "64 hex digits are printable ASCII of a sane length")]
fn key_of_digest(digest: &str) -> DeliveryKey {
    DeliveryKey::parse(digest).expect("a digest is a sound key")
}

/// A media type without its parameters, lower-case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

const CONTENT_TYPE: &str = "content-type";
const CONTENT_ENCODING: &str = "content-encoding";
const CONTENT_LENGTH: &str = "content-length";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// The longest one of GitHub has 39 letters.
const LONGEST_EVENT_NAME: usize = 100;

/// A line in the forge's delivery view.
const LONGEST_REASON: usize = 300;

#[cfg(test)]
mod fixtures;

#[cfg(test)]
mod mutations;

#[cfg(test)]
mod tests;
