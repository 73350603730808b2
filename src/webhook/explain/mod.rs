//! What would have matched: hints for the operator about a request that was refused.
//!
//! ```text
//! mod      the order of the attempts, and what they lead to      bodies   what happens to a body on its way
//! secrets  what happens to a secret when it is pasted            json     JSON written in another way
//! allowance  how much may be tried
//! ```
//!
//! Every attempt uses the very check that refused the request, over a request or a secret with one change; so a hint that says
//! "would match" is true, and a request that is simply forged gets none. No hint holds a secret, a token or a signature. The
//! sender is never told: a hint is an answer to a guess.
//!
//! Absent: the log, and how often anybody wants to know.

mod allowance;
mod bodies;
mod json;
mod secrets;

use std::fmt;

use chrono::{DateTime, Utc};

use super::{CONTENT_LENGTH, Refusal, Request, check_head, is_public, prove, signature};
use crate::domain::forge::Forge;
use crate::domain::name::RepositoryName;
use crate::domain::secret::Secret;

pub use allowance::Allowance;
use bodies::BodyChange;

/// A request that was refused, and what it could have been meant for.
#[derive(Debug, Clone, Copy)]
pub struct Doubt<'a> {
    /// The configured forge.
    pub forge: Forge,
    /// What was refused. If it was refused by its head, the body may be empty: that is not held against it then.
    pub request: &'a Request,
    /// The configured secrets.
    pub secrets: &'a [Secret],
    /// The other repositories: a wrong URL is easily pasted.
    pub others: &'a [Other<'a>],
    /// When it came.
    pub now: DateTime<Utc>,
    /// How much may be tried.
    pub allowance: &'a Allowance,
}

/// Another repository.
#[derive(Debug, Clone, Copy)]
pub struct Other<'a> {
    /// Its name.
    pub name: &'a RepositoryName,
    /// Its forge.
    pub forge: Forge,
    /// Its secrets.
    pub secrets: &'a [Secret],
}

/// What an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Would match with a secret that is nearly the configured one; the words say what is different.
    Secret(&'static str),
    /// Would match over a body that is nearly the one that came.
    Body(BodyChange),
    /// Would match with the secret of that repository.
    Repository(RepositoryName),
    /// Would match if another forge were configured.
    Forge {
        /// Its word in the configuration.
        sender: &'static str,
        /// The configured one.
        configured: Forge,
    },
    /// The SHA-1 signature matches, which is not enough to be let in and enough to know that secret and body are right.
    Sha1,
    /// Everything is right but the time.
    Clock,
    /// Nothing matches, and a header is there that another forge sends, and none of the configured one's.
    Stranger {
        /// The other forge's word in the configuration.
        sender: &'static str,
        /// What gives it away.
        header: &'static str,
        /// The configured one.
        configured: Forge,
    },
    /// Nothing matches, and there is no body.
    EmptyBody,
    /// Nothing matches, and the body is not as long as was announced.
    CutBody {
        /// What the header says.
        announced: usize,
        /// What is there.
        found: usize,
    },
    /// Nothing was tried, since the body is longer than this.
    TooLong(usize),
}

/// Something that happens to bytes: the words for how they would have been right, and how to make them so; none where it
/// cannot have happened.
type Change = (&'static str, fn(&[u8]) -> Option<Vec<u8>>);

/// Says what would have matched, the best hint first; or what is strange about the request. Often there is nothing to say.
///
/// The work is bounded: a fixed list of attempts, with one secret some sixty and one for each other repository, over bodies
/// that are no longer than the allowance has it; and it ends when the allowance is spent.
pub fn explain(doubt: &Doubt<'_>) -> Vec<Hint> {
    let longest = doubt.allowance.longest_body();
    if doubt.request.body.len() > longest {
        return vec![Hint::TooLong(longest)];
    }
    match proof(doubt) {
        // Two explanations cannot both be true, and what is merely strange leads astray when the cause is known.
        Some(hint) => vec![hint],
        None => doubt.oddities(),
    }
}

/// From what goes wrong most often to what costs most.
fn proof(doubt: &Doubt<'_>) -> Option<Hint> {
    let Doubt { forge, request, secrets, .. } = *doubt;
    if doubt.would_match(forge, request, secrets) {
        return Some(Hint::Clock);
    }
    let with_another = doubt.other_secret().or_else(|| doubt.other_forge()).or_else(|| doubt.other_repository());
    with_another.or_else(|| doubt.older_signature()).or_else(|| doubt.other_body())
}

impl Doubt<'_> {
    /// Whether the proof is right, whatever the time; not if the allowance is spent.
    fn would_match(&self, forge: Forge, request: &Request, secrets: &[Secret]) -> bool {
        let is_paid = secrets.iter().all(|_| self.allowance.spend(request.body.len()));
        let proven = || prove(forge, request, secrets, self.now);
        is_paid && matches!(proven(), Ok(()) | Err(Refusal::TooOld(_) | Refusal::FromTheFuture(_)))
    }

    fn other_secret(&self) -> Option<Hint> {
        let Self { forge, request, secrets, .. } = *self;
        let variants = |secret| {
            let is_known = is_public(forge, secret);
            secrets::variants(secret).filter(move |(_, variant)| !is_known || is_public(forge, variant))
        };
        let mut tried = secrets.iter().take(MOST_SECRETS).flat_map(variants);
        let found = tried.find(|(_, variant)| self.would_match(forge, request, std::slice::from_ref(variant)))?;
        Some(Hint::Secret(found.0))
    }

    /// The forge that the headers name is the likelier one: some send the signatures of others beside their own.
    fn other_forge(&self) -> Option<Hint> {
        let Self { forge: configured, request, .. } = *self;
        let secrets: Vec<Secret> = self.hidden_secrets().cloned().collect();
        let mut others = Forge::ALL.into_iter().filter(|other| *other != configured);
        let proven = others.find(|other| self.would_match(*other, request, &secrets))?;
        let named = sender(request).map(|(word, _)| word).filter(|word| *word != configured.as_str());
        Some(Hint::Forge { sender: named.unwrap_or(proven.as_str()), configured })
    }

    fn other_repository(&self) -> Option<Hint> {
        let Self { request, others, .. } = *self;
        let is_hidden = |other: &&Other<'_>| !other.secrets.iter().any(|secret| is_public(other.forge, secret));
        let mut others = others.iter().filter(is_hidden).take(MOST_OTHERS);
        let found = others.find(|other| self.would_match(other.forge, request, other.secrets))?;
        Some(Hint::Repository(found.name.clone()))
    }

    /// Forges send it beside the better one, so it also tells that only the better one was changed.
    fn older_signature(&self) -> Option<Hint> {
        let Self { request, .. } = *self;
        let digits = request.header(SHA1_HEADER).ok()??.strip_prefix(SHA1_PREFIX)?;
        let claim = hex::decode(digits).ok()?;
        let is_paid = || self.allowance.spend(request.body.len());
        let matches = |secret: &Secret| is_paid() && signature::sha1_matches(secret.expose(), &request.body, &claim);
        self.hidden_secrets().any(matches).then_some(Hint::Sha1)
    }

    /// With a public key anybody can sign in another way than the one it is meant for.
    fn hidden_secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secrets.iter().take(MOST_SECRETS).filter(|secret| !is_public(self.forge, secret))
    }

    fn other_body(&self) -> Option<Hint> {
        let Self { forge, request, secrets, .. } = *self;
        if !self.depends_on_body() {
            return None;
        }
        let mut tried = Request { headers: request.headers.clone(), body: Vec::new() };
        bodies::changes(request, self.allowance).find_map(|(change, body)| {
            tried.body = body;
            self.would_match(forge, &tried, secrets).then_some(Hint::Body(change))
        })
    }

    /// Whether it was refused for its body: then the head alone is sound.
    fn depends_on_body(&self) -> bool {
        check_head(self.forge, self.request, self.secrets).is_ok()
    }

    fn oddities(&self) -> Vec<Hint> {
        let Self { forge: configured, request, .. } = *self;
        let mut hints = Vec::new();
        let knows_configured =
            || SENDERS.iter().any(|(word, header)| *word == configured.as_str() && request.has_header(header));
        if let Some((sender, header)) = sender(request).filter(|_| !knows_configured()) {
            hints.push(Hint::Stranger { sender, header, configured });
        }
        if !self.depends_on_body() {
            return hints;
        }
        let found = request.body.len();
        let announced = request.header(CONTENT_LENGTH).ok().flatten();
        let announced = announced.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        match announced {
            Some(announced) if announced != found => hints.push(Hint::CutBody { announced, found }),
            _ if found == 0 => hints.push(Hint::EmptyBody),
            _ => {}
        }
        hints
    }
}

/// Whom the headers name, as the word in the configuration, and the header that does. Nobody has to tell the truth here.
fn sender(request: &Request) -> Option<(&'static str, &'static str)> {
    SENDERS.iter().find(|(_, header)| request.has_header(header)).copied()
}

impl fmt::Display for Hint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(words) => write!(formatter, "would match if the configured secret {words}"),
            Self::Body(change) => write!(formatter, "would match if the body {change}: it was changed on its way, or when it was saved"),
            Self::Repository(name) => {
                write!(formatter, "would match with the secret of repository `{name}`: its webhook has the wrong URL")
            }
            Self::Forge { sender, configured } => {
                write!(formatter, "would match with `forge = \"{sender}\"`, but `{configured}` is configured")
            }
            Self::Sha1 => formatter.write_str(
                "the SHA-1 signature matches, so secret and body are right: the forge is too old, or a header was dropped or changed on \
                 its way",
            ),
            Self::Clock => formatter.write_str("secret and body are right: compare the clocks of this machine and of the sender"),
            Self::Stranger { sender, header, configured } => {
                write!(formatter, "header `{header}` is one of `{sender}`, but `{configured}` is configured")
            }
            Self::EmptyBody => formatter.write_str("the body is empty: a redirect or a proxy may have dropped it"),
            Self::CutBody { announced, found } => {
                write!(formatter, "the body has {found} bytes, but `{CONTENT_LENGTH}` says {announced}")
            }
            Self::TooLong(longest) => write!(formatter, "nothing was tried, since the body has more than {longest} bytes"),
        }
    }
}

/// Which header gives which forge away. The ones that also send the headers of others come first.
const SENDERS: [(&str, &str); 9] = [
    ("forgejo", "x-forgejo-event"),
    ("gitea", "x-gitea-event"),
    ("gogs", "x-gogs-event"),
    ("gitlab", "x-gitlab-event"),
    ("bitbucket", "x-hook-uuid"),
    ("bitbucket-dc", "x-event-key"),
    ("sourcehut", "x-payload-signature"),
    ("github", "x-github-event"),
    ("standard", "webhook-id"),
];

const SHA1_HEADER: &str = "x-hub-signature";
const SHA1_PREFIX: &[u8] = b"sha1=";

/// Two while one is replaced.
const MOST_SECRETS: usize = 4;

/// Each costs a signature over the body.
const MOST_OTHERS: usize = 32;

#[cfg(test)]
mod tests;
