//! SourceHut: an Ed25519 signature over the body and a nonce behind it, by the one key of the instance.
//!
//! What the signature proves: the instance has sent this body to somebody's URL. It does not prove that a push has happened:
//! everybody on sr.ht chooses the URLs and the GraphQL queries of their own webhooks, and with aliases in the query nearly any
//! JSON comes out, signed. Nor can it tell an old delivery from a new one. So no more is believed than that one should look:
//! not the repository's id, nor where a ref was (`Forge::proves_what_it_tells`). What is deployed is the tip of the configured
//! ref, which only those can move who may push. What a stranger gains is that Landfall looks at the remote, with a row in the
//! store for each time. Who minds sets `allow_from` to sr.ht's networks, or gives the repository a name that nobody guesses: it
//! is in the webhook's URL.
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
    let Answer { data, errors } = payload::read::<Answer<Kind>>(&request.body).map_err(hint)?;
    let Data { webhook } = data.ok_or_else(|| no_data(errors.as_ref()))?;
    let Kind { event: event_name, uuid } = webhook;
    let event = if event_name == PUSH { push_event(request)? } else { Event::Other(payload::word(&event_name)) };
    let uuid = uuid.as_ref().and_then(Value::as_str).and_then(DeliveryKey::parse);
    let key = uuid.or_else(|| request.delivery_key(DELIVERY)).unwrap_or_else(|| key_of_digest(&digest));
    Ok(Parsed { key, event_name: payload::word(&event_name), event, digest })
}

/// The query was not answered: mostly since the token, that the webhook was made with, may not see something.
fn no_data(errors: Option<&Value>) -> Malformed {
    let message = errors.and_then(|errors| errors.get(0)?.get("message")?.as_str());
    hint(Malformed::new(format!("the query has no answer: {:?}", message.unwrap_or_default())))
}

/// An answer to another query is what goes wrong first.
fn hint(malformed: Malformed) -> Malformed {
    Malformed::new(format!("{malformed}; was the webhook made as `landfall webhook` says?"))
}

#[derive(Debug, Deserialize)]
struct Answer<T> {
    data: Option<Data<T>>,
    errors: Option<Value>,
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
    let Answer { data, errors } = payload::read_strictly::<Answer<Push>>(&request.body).map_err(hint)?;
    let Data { webhook } = data.ok_or_else(|| no_data(errors.as_ref()))?;
    let Push { repository: Repository { id, name, owner }, updates } = webhook;
    let told = updates.len();
    let changes: Result<Vec<_>, _> = updates.into_iter().flatten().map(Update::change).collect();
    let changes: Vec<Change> = changes?.into_iter().flatten().collect();
    if changes.is_empty() && told > 0 {
        return Ok(Event::Incomplete(
            "SourceHut does not name new refs: push once more, or run `landfall deploy`".into(),
        ));
    }
    payload::push(&format!("{}/{name}", owner.canonical_name), id, changes)
}

const SIGNATURE: &str = "x-payload-signature";
const NONCE: &str = "x-payload-nonce";
const DELIVERY: &str = "x-webhook-delivery";
const PUSH: &str = "GIT_POST_RECEIVE";

/// Eight bytes in hex.
const NONCE_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::fixtures::{self, count, load, told, told_event};
    use crate::webhook::signature;

    /// The public half of what the fixtures are signed with.
    fn key() -> Secret {
        Secret::new(fixtures::PUBLIC_KEY.into())
    }

    fn read(body: &str) -> Result<Event, Malformed> {
        let request = Request { headers: Vec::new(), body: body.as_bytes().to_vec() };
        parse(&request, signature::digest(&request.body)).map(|parsed| parsed.event)
    }

    fn push(updates: &str) -> Result<Event, Malformed> {
        read(&format!(
            r#"{{"data":{{"webhook":{{"event":"GIT_POST_RECEIVE","repository":{{"name":"blog","owner":{{"canonicalName":"~acme"}}}},"updates":{updates}}}}}}}"#
        ))
    }

    #[test]
    fn the_recorded_payloads_say_what_happened() {
        let table = [
            ("push", "~acme/blog 42: refs/heads/main 6113728..0d1a26e `A second page`"),
            ("force-push", "~acme/blog 42: refs/heads/main 0d1a26e..9f2c4b7 `Another second page`"),
            ("create-branch", "incomplete: SourceHut does not name new refs: push once more, or run `landfall deploy`"),
            ("create-branch-named", "~acme/blog 42: refs/heads/release/2.0 -..0d1a26e `A second page`"),
            ("delete", "~acme/blog 42: refs/heads/release/2.0 0d1a26e..-"),
            ("tag", "~acme/blog 42: refs/tags/v1.0.0 6113728..0d1a26e `A second page`"),
            ("annotated-tag", "~acme/blog 42: refs/tags/v1.0.0 6113728..0d1a26e"),
            ("delete-tag", "~acme/blog 42: refs/tags/v1.0.0 0d1a26e..-"),
            (
                "several",
                "~acme/blog 42: refs/heads/draft 6113728..9f2c4b7 `A draft`, \
                 refs/heads/main 6113728..0d1a26e `A second page`, refs/tags/v0.9.0 6113728..-",
            ),
            ("pre-receive", "other `GIT_PRE_RECEIVE`"),
            (
                "errors",
                "malformed: the query has no answer: \"Access denied for OBJECTS\"; was the webhook made as `landfall webhook` says?",
            ),
        ];
        assert_eq!(count("sourcehut"), table.len());
        for (name, expected) in table {
            let request = load("sourcehut", &format!("{name}.json"));
            assert_eq!(check_head(&request), Ok(()), "{name}");
            assert_eq!(authenticate(&request, &[&key()]), Ok(()), "{name}");
            assert_eq!(told(parse(&request, signature::digest(&request.body))), expected, "{name}");
        }
    }

    #[test]
    fn nothing_but_what_the_instance_has_signed_is_believed() {
        let good = load("sourcehut", "push.json");
        let (own, sr_ht) = (key(), Secret::new(SR_HT_KEY.into()));
        let check = |request: &Request, keys: &[&Secret]| authenticate(request, keys);
        assert_eq!(check(&good, &[&sr_ht]), Err(Refusal::Mismatch(SIGNATURE)));
        assert_eq!(check(&good, &[&sr_ht, &own]), Ok(()), "rotation");
        assert_eq!(check(&good, &[&Secret::new(b"5f2b8c1d9e3a7f60".to_vec())]), Err(Refusal::SecretUnusable));
        let with = |header: &str, value: Option<&[u8]>| {
            let mut changed = good.clone();
            changed.headers.retain(|(name, _)| name != header);
            changed.headers.extend(value.map(|value| (header.to_owned(), value.to_vec())));
            assert_eq!(
                check_head(&changed).err(),
                check(&changed, &[&own]).err().filter(|found| !matches!(found, Refusal::Mismatch(_)))
            );
            check(&changed, &[&own])
        };
        assert_eq!(with(SIGNATURE, None), Err(Refusal::Absent(SIGNATURE)));
        for (bytes, expected) in [
            (0, Refusal::NotSignature(SIGNATURE)),
            (32, Refusal::NotSignature(SIGNATURE)),
            (63, Refusal::NotSignature(SIGNATURE)),
            (64, Refusal::Mismatch(SIGNATURE)),
            (65, Refusal::NotSignature(SIGNATURE)),
        ] {
            assert_eq!(
                with(SIGNATURE, Some(STANDARD.encode(vec![1; bytes]).as_bytes())),
                Err(expected),
                "{bytes} bytes"
            );
        }
        assert_eq!(with(SIGNATURE, Some(b"*")), Err(Refusal::NotSignature(SIGNATURE)));
        assert_eq!(with(NONCE, None), Err(Refusal::Absent(NONCE)));
        assert_eq!(with(NONCE, Some(b"e570bf3dca56d27f")), Err(Refusal::Mismatch(SIGNATURE)));
        for nonce in ["", "e570bf3dca56d27", "e570bf3dca56d27e0", "e570bf3dca56d27g", "e570bf3dca56d27 "] {
            assert_eq!(with(NONCE, Some(nonce.as_bytes())), Err(Refusal::Nonce(NONCE)), "{nonce:?}");
        }
        for header in [SIGNATURE, NONCE] {
            let mut twice = good.clone();
            let value = twice.headers.iter().find(|(name, _)| name == header).unwrap().clone();
            twice.headers.push(value);
            assert_eq!(
                (check(&twice, &[&own]), check_head(&twice)),
                (Err(Refusal::Twice(header)), Err(Refusal::Twice(header)))
            );
        }
        for index in 0..good.body.len() {
            let mut changed = good.clone();
            changed.body[index] ^= 1;
            assert_eq!(check(&changed, &[&own]), Err(Refusal::Mismatch(SIGNATURE)), "byte {index}");
        }
    }

    /// Body and nonce are signed as one text: moving the border between them leaves the signature right.
    #[test]
    fn the_border_between_body_and_nonce_does_not_move() {
        let good = load("sourcehut", "push.json");
        let nonce = good.headers.iter().find(|(name, _)| name == NONCE).unwrap().1.clone();
        let whole = [good.body.as_slice(), &nonce].concat();
        for border in (0..=whole.len()).filter(|border| *border != good.body.len()) {
            let mut moved = Request { body: whole[..border].to_vec(), ..good.clone() };
            moved.headers.retain(|(name, _)| name != NONCE);
            moved.push_header(NONCE, &whole[border..]);
            assert_eq!(authenticate(&moved, &[&key()]), Err(Refusal::Nonce(NONCE)), "{border}");
        }
    }

    #[test]
    fn what_is_signed_names_the_delivery_and_the_event() {
        let mut request = load("sourcehut", "push.json");
        let key = |request: &Request| parse(request, signature::digest(&request.body)).unwrap().key.as_str().to_owned();
        assert_eq!(key(&request), "8b53a176-2273-4a73-8bdc-ef8f7934f66e");
        for (name, value) in &mut request.headers {
            if name == DELIVERY || name == "x-webhook-event" {
                *value = b"another".to_vec();
            }
        }
        assert_eq!(key(&request), "8b53a176-2273-4a73-8bdc-ef8f7934f66e");
        let text = String::from_utf8(request.body).unwrap().replace("uuid", "guid");
        request.body = text.into_bytes();
        assert_eq!(key(&request), "another");
        request.headers.clear();
        assert_eq!(key(&request), signature::digest(&request.body));
    }

    #[test]
    fn what_matters_is_read_strictly_and_the_rest_is_not_missed() {
        let (one, two, zero) = ("1".repeat(40), "2".repeat(40), "0".repeat(40));
        let update = |name: &str, old: &str, new: &str| {
            format!(r#"[{{"ref":{{"name":"{name}"}},"old":{{"id":"{old}"}},"new":{{"id":"{new}"}}}}]"#)
        };
        assert_eq!(
            told_event(push(&update("refs/heads/main", &one, &two))),
            "~acme/blog: refs/heads/main 1111111..2222222"
        );
        assert_eq!(push(&update("refs/heads/main", &one, &one)), Ok(Event::Ping));
        assert!(matches!(push("[null]"), Ok(Event::Incomplete(_))));
        assert_eq!(told_event(push("[]")), "~acme/blog:");
        assert_eq!(told_event(push(&update("refs/heads/main", &zero, &two))), "~acme/blog: refs/heads/main -..2222222");
        for updates in [
            update("main", &one, &two),
            update("refs/heads/main ", &one, &two),
            update("refs/heads/main", &one[1..], &two),
            update("refs/heads/main", &one, "HEAD"),
            update("refs/heads/main", &one, &two).replace("\"old\"", "\"new\""),
            update("refs/heads/main", &one, &two).replace(r#"{"name":"refs/heads/main"}"#, "\"refs/heads/main\""),
            r#"[{"ref":{"name":"refs/heads/main"},"old":null,"new":{"id":7}}]"#.into(),
            r#"[{"ref":{"name":"refs/heads/main"},"old":null,"new":{}}]"#.into(),
            "null".into(),
            "{}".into(),
        ] {
            assert!(push(&updates).is_err(), "{updates}");
        }
        for body in
            ["", "null", "{}", r#"{"data":{}}"#, r#"{"data":{"webhook":null}}"#, r#"{"data":{"webhook":{"event":7}}}"#]
        {
            let reason = read(body).unwrap_err().to_string();
            assert!(reason.ends_with("was the webhook made as `landfall webhook` says?"), "{body}: {reason}");
        }
        assert_eq!(
            read(r#"{"data":{"webhook":{"event":"REPO_UPDATE","repository":7}}}"#),
            Ok(Event::Other("REPO_UPDATE".into()))
        );
    }
}
