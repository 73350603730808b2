//! SourceHut: an Ed25519 signature over the body and a nonce behind it, by the one key of the instance.
//!
//! What the signature proves: the instance has sent this body to somebody's URL. It does not prove that a push has happened:
//! everybody on sr.ht chooses the URLs and the GraphQL queries of their own webhooks, and with aliases in the query nearly any
//! JSON comes out, signed. Nor can it tell an old delivery from a new one. That does no harm: a delivery only makes Landfall
//! fetch, and what is deployed is the tip of the configured ref, which only those can move who may push. All that a stranger
//! gains is to make Landfall look at the remote. Who minds allows sr.ht's networks only, or gives the repository a name that
//! nobody guesses: the name is in the webhook's URL.
//!
//! A payload is the answer to the query that the webhook was registered with; [`QUERY`] is the one that is understood here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::public_key::{PublicKey, SIGNATURE_BYTES};
use super::refusal::first_or_most_telling;
use super::{Malformed, Parsed, Refusal, Request, key_of_digest, payload};
use crate::domain::push::{Change, DeliveryKey, Event, RefName};
use crate::domain::secret::Secret;

/// What a webhook has to be registered with, for the event `GIT_POST_RECEIVE`.
pub const QUERY: &str = "query { webhook { uuid event date ... on GitEvent { repository { id name owner { canonicalName } } \
                         updates { ref { name } old { id } new { id ... on Commit { message } ... on Tag { target { id } } } } } } }";

/// The key of sr.ht itself, as its services publish it.
pub(super) const SR_HT_KEY: &str = "uX7KWyyDNMaBma4aVbJ/cbUQpdjqczuCyK/HxzV/u+4=";

/// The key of an instance; none if it is none.
pub(super) fn public_key(secret: &Secret) -> Option<PublicKey> {
    PublicKey::of_base64(secret.expose())
}

/// Whether there is a signature, and what was signed behind the body.
pub(super) fn check_head(request: &Request) -> Result<(), Refusal> {
    Proof::of(request).map(drop)
}

/// Checks the signature with each of the keys.
pub(super) fn authenticate(request: &Request, keys: &[&Secret]) -> Result<(), Refusal> {
    let Proof { signature, nonce } = Proof::of(request)?;
    first_or_most_telling(keys, |key| match public_key(key) {
        None => Err(Refusal::SecretUnusable),
        Some(key) if key.has_signed(&[&request.body, nonce], &signature) => Ok(()),
        Some(_) => Err(Refusal::Mismatch(SIGNATURE)),
    })
}

struct Proof<'a> {
    signature: Vec<u8>,
    nonce: &'a [u8],
}

impl<'a> Proof<'a> {
    fn of(request: &'a Request) -> Result<Self, Refusal> {
        let value = request.header(SIGNATURE)?.ok_or(Refusal::Absent(SIGNATURE))?;
        let signature = STANDARD.decode(value).ok().filter(|bytes| bytes.len() == SIGNATURE_BYTES);
        let signature = signature.ok_or(Refusal::NotSignature(SIGNATURE))?;
        let nonce = request.header(NONCE)?.ok_or(Refusal::Absent(NONCE))?;
        // Nothing stands between the two: a nonce of any length could take the end of the body, or give it some more.
        if nonce.len() != NONCE_DIGITS || !nonce.iter().all(u8::is_ascii_hexdigit) {
            return Err(Refusal::Nonce(NONCE));
        }
        Ok(Self { signature, nonce })
    }
}

/// Reads the event. What stands in the body is signed, unlike the headers, and comes first: `event` decides, and `uuid` is the
/// delivery's key, so that a delivery under another `X-Webhook-Delivery` is the same all the same.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    let Answer { data: Data { webhook } } = payload::read::<Answer<Kind>>(&request.body).map_err(hint)?;
    let Kind { event: event_name, uuid } = webhook;
    let event = if event_name == PUSH { push_event(request)? } else { Event::Other(payload::word(&event_name)) };
    let uuid = uuid.as_ref().and_then(Value::as_str).and_then(DeliveryKey::parse);
    let key = uuid.or_else(|| request.delivery_key(DELIVERY)).unwrap_or_else(|| key_of_digest(&digest));
    Ok(Parsed { key, event_name: payload::word(&event_name), event, digest })
}

/// An answer to another query is what goes wrong first.
fn hint(malformed: Malformed) -> Malformed {
    Malformed::new(format!("{malformed}; is the webhook registered with the query that `landfall webhook` prints?"))
}

#[derive(Debug, Deserialize)]
struct Answer<T> {
    data: Data<T>,
}

#[derive(Debug, Deserialize)]
struct Data<T> {
    webhook: T,
}

/// What every event has.
#[derive(Debug, Deserialize)]
struct Kind {
    event: String,
    uuid: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Push {
    repository: Repository,
    updates: Vec<Option<Update>>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    id: Option<Value>,
    name: String,
    owner: Owner,
}

#[derive(Debug, Deserialize)]
struct Owner {
    #[serde(rename = "canonicalName")]
    canonical_name: String,
}

#[derive(Debug, Deserialize)]
struct Update {
    /// Null for a new ref, as the schema has it.
    #[serde(rename = "ref")]
    reference: Option<Reference>,
    /// Null if the ref was created.
    old: Option<Object>,
    /// Null if the ref was deleted.
    new: Option<Object>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    name: String,
}

/// A commit or an annotated tag.
#[derive(Debug, Deserialize)]
struct Object {
    id: String,
    message: Option<String>,
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    id: String,
}

impl Update {
    /// None where sr.ht does not say which ref it was, or neither where it was nor where it is: of such a push there is nothing
    /// to tell.
    fn change(self) -> Result<Option<Change>, Malformed> {
        let (Some(Reference { name }), true) = (self.reference, self.old.is_some() || self.new.is_some()) else {
            return Ok(None);
        };
        let ref_name = RefName::parse(&name).map_err(Malformed::new)?;
        let before = self.old.map_or(Ok(None), |old| payload::revision("old.id", &old.id))?;
        let Some(Object { id, message, target }) = self.new else {
            return Ok(Some(Change { ref_name, before, after: None, message: None }));
        };
        // Of an annotated tag `id` is the tag object, and this the commit.
        let after = match target {
            Some(Target { id }) => payload::revision("new.target.id", &id)?,
            None => payload::revision("new.id", &id)?,
        };
        Ok(Some(Change { ref_name, before, after, message }))
    }
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let Answer { data: Data { webhook } } = payload::read_strictly::<Answer<Push>>(&request.body).map_err(hint)?;
    let Push { repository: Repository { id, name, owner }, updates } = webhook;
    let changes: Result<Vec<_>, _> = updates.into_iter().flatten().map(Update::change).collect();
    payload::push(&format!("{}/{name}", owner.canonical_name), id, changes?.into_iter().flatten().collect())
}

const SIGNATURE: &str = "x-payload-signature";
const NONCE: &str = "x-payload-nonce";
const DELIVERY: &str = "x-webhook-delivery";
const PUSH: &str = "GIT_POST_RECEIVE";

/// Eight bytes in hex.
const NONCE_DIGITS: usize = 16;
