//! What Gogs and its descendants Gitea and Forgejo have in common: an HMAC-SHA256 in hex over the JSON.
//!
//! ```text
//! Content-Type                          body                          what is signed
//! application/json                      {…}                           the body
//! application/x-www-form-urlencoded     payload=<the JSON, encoded>   the decoded value of the field
//! ```
//!
//! So the envelope of a form is not signed, and nothing of it but that field is looked at. Each descendant also sends the headers
//! of its ancestors and GitHub's; only its own count here. Without a secret they send the header with an empty value.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json};

use super::hex_signature::HexSignature;
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, form, key_of_digest, payload};
use crate::domain::push::{Change, Event};
use crate::domain::secret::Secret;

/// A member of the family, by its own headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// Where the event's name stands.
    pub(super) event: &'static str,
    /// Where the delivery's id stands.
    pub(super) delivery: &'static str,
    /// How it signs.
    pub(super) signature: HexSignature,
}

impl Member {
    /// The signature of a member: digits without a prefix.
    pub(super) const fn new(event: &'static str, delivery: &'static str, signature: &'static str) -> Self {
        let sha1_header = Some("x-hub-signature");
        Self { event, delivery, signature: HexSignature { header: signature, prefix: "", sha1_header } }
    }

    /// Whether there is a signature.
    pub(super) fn check_head(&self, request: &Request) -> Result<(), Refusal> {
        self.signature.claim(request).map(drop)
    }

    /// Compares the signature with those that the secrets give.
    pub(super) fn authenticate(&self, request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
        self.signature.claim(request)?;
        self.signature.check(request, &signed_part(request)?, secrets)
    }

    /// Puts together what was read.
    pub(super) fn parsed(
        &self,
        request: &Request,
        digest: String,
        event_of: impl FnOnce(&str) -> Result<Event, Malformed>,
    ) -> Result<Parsed, Malformed> {
        let event_name = request.event_name(self.event)?;
        let event = event_of(&event_name)?;
        let key = request.delivery_key(self.delivery).unwrap_or_else(|| key_of_digest(&digest));
        Ok(Parsed { key, event_name, event, digest })
    }

    /// Writes and signs a push. The family has no ping: its own test delivery is a push that moves nothing.
    pub(super) fn compose_push(&self, secret: &Secret, message: &TestMessage<'_>) -> Request {
        let (ref_name, before, after) = match &message.kind {
            TestKind::Ping => ("refs/heads/main", payload::NO_MOVE.to_owned(), payload::NO_MOVE),
            TestKind::Push { ref_name, before, after } => {
                let before = before.map_or_else(|| payload::zeros(after), ToString::to_string);
                (ref_name.as_str(), before, after.as_str())
            }
        };
        let body = json!({
            "ref": ref_name,
            "before": before,
            "after": after,
            "commits": [],
            "repository": { "full_name": message.repository },
        });
        self.compose(secret, message, "push", &body)
    }

    /// Signs an event.
    pub(super) fn compose(&self, secret: &Secret, message: &TestMessage<'_>, event: &str, body: &Value) -> Request {
        let mut request = Request::of_json(body);
        let (header, signature) = self.signature.sign(secret, &request.body);
        request.push_header(self.event, event);
        request.push_header(self.delivery, message.key);
        request.push_header(header, signature);
        request
    }
}

/// The JSON, which has to be taken out of its envelope before anything is proved: in time linear in the body, and no further.
fn signed_part(request: &Request) -> Result<Cow<'_, [u8]>, Refusal> {
    if !request.is_form()? {
        return Ok(Cow::Borrowed(&request.body));
    }
    form::field(&request.body, b"payload").map(Cow::Owned).map_err(|_| Refusal::NoPayload)
}

/// The fields of a `push` that we use. A `secret` that an old version writes into the payload is not read, and so not kept.
#[derive(Debug, Deserialize)]
struct Payload {
    #[serde(rename = "ref")]
    ref_name: String,
    before: String,
    after: String,
    /// Of Gitea 1.15 and newer; null when a tag was deleted.
    head_commit: Option<Commit>,
    /// At most five, the newest first; null when a tag was deleted.
    commits: Option<Vec<Commit>>,
    repository: Repository,
}

#[derive(Debug, Deserialize)]
struct Commit {
    id: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Repository {
    pub(super) id: Option<Value>,
    pub(super) full_name: String,
}

/// Reads a `push`.
pub(super) fn push_event(request: &Request) -> Result<Event, Malformed> {
    let payload: Payload = payload::read_strictly(&form::json_of(request)?)?;
    let Payload { ref_name, before, after, head_commit, commits, repository: Repository { id, full_name } } = payload;
    let change = payload::Moved { ref_name: &ref_name, before: &before, after: &after }.check()?;
    // The list is capped, so that only the commit that is named counts, wherever it stands.
    let is_named = |commit: &Commit| commit.id.as_ref() == Some(&after);
    let head = head_commit.or_else(|| commits.unwrap_or_default().into_iter().find(is_named));
    let (head, message) = head.map_or((None, None), |commit| (commit.id, commit.message));
    let after = match (change.after, head) {
        // Of an annotated tag `after` is the tag object, and this is the commit.
        (Some(_), Some(head)) if change.ref_name.tag().is_some() => payload::revision("head_commit.id", &head)?,
        (after, _) => after,
    };
    payload::push(&full_name, id, vec![Change { after, message, ..change }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::{CONTENT_TYPE, FORM, JSON, signature::Signature};

    const MEMBER: Member = Member::new("x-event", "x-delivery", "x-signature");
    const SECRET: &[u8] = b"5f2b8c1d9e3a7f60";

    /// A body under this media type, with the signature of something.
    fn request(media_type: &str, body: &[u8], signed: &[u8]) -> Request {
        let signature = hex::encode(Signature::new(SECRET, &[signed]).into_bytes());
        let headers = [(CONTENT_TYPE, media_type), ("x-event", "push"), ("x-signature", &signature)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into();
        Request { headers, body: body.to_vec() }
    }

    fn check(media_type: &str, body: &str, signed: &str) -> Result<(), Refusal> {
        let request = request(media_type, body.as_bytes(), signed.as_bytes());
        MEMBER.authenticate(&request, &[&Secret::new(SECRET.to_vec())])
    }

    fn message(body: &str) -> Option<String> {
        let Ok(Event::Push(push)) = push_event(&request(JSON, body.as_bytes(), b"")) else { panic!("no push") };
        push.changes.into_iter().next().unwrap().message
    }

    #[test]
    fn of_a_form_the_decoded_field_is_signed_and_of_json_the_body() {
        let mismatch = Err(Refusal::Mismatch("x-signature"));
        let table = [
            (JSON, "{\"a\": 1}", "{\"a\": 1}", Ok(())),
            (JSON, "payload=%7B%7D", "{}", mismatch.clone()),
            (FORM, "payload=%7B%22a%22:+1%7D", "{\"a\": 1}", Ok(())),
            ("Application/X-WWW-Form-URLencoded; charset=utf-8", "x=y&payload=%7B%7D", "{}", Ok(())),
            (FORM, "payload=%7B%7D", "payload=%7B%7D", mismatch.clone()),
            (FORM, "payload=%7B%7D+", "{}", mismatch.clone()),
            (FORM, "{}", "{}", Err(Refusal::NoPayload)),
            (FORM, "", "", Err(Refusal::NoPayload)),
            (FORM, "payload=%7B%7D&payload=%7B%7D", "{}", Err(Refusal::NoPayload)),
            (FORM, "payload=%7B%7D&x=%", "{}", Ok(())),
            (FORM, "payload=%7B%7D&x%=1", "{}", Err(Refusal::NoPayload)),
        ];
        for (media_type, body, signed, expected) in table {
            assert_eq!(check(media_type, body, signed), expected, "{media_type} {body} {signed}");
        }
    }

    #[test]
    fn the_ancestors_signatures_do_not_count() {
        let mut ancestors = request(JSON, b"{}", b"{}");
        let (_, digits) = ancestors.headers.pop().unwrap();
        ancestors.headers.push(("x-gogs-signature".into(), digits.clone()));
        ancestors.headers.push(("x-hub-signature-256".into(), [b"sha256=", &digits[..]].concat()));
        let secret = Secret::new(SECRET.to_vec());
        assert_eq!(MEMBER.authenticate(&ancestors, &[&secret]), Err(Refusal::Absent("x-signature")));
        ancestors.headers.push(("x-hub-signature".into(), b"sha1=00".to_vec()));
        assert_eq!(MEMBER.authenticate(&ancestors, &[&secret]), Err(Refusal::Sha1Only("x-signature")));
        assert_eq!(MEMBER.check_head(&ancestors), Err(Refusal::Sha1Only("x-signature")));
    }

    #[test]
    fn what_a_tag_names_is_the_head_commit_unless_it_is_gone() {
        let (one, two, zeros) = ("1".repeat(40), "2".repeat(40), "0".repeat(40));
        let after = |ref_name: &str, after: &str, head: &str| {
            let body = format!(
                r#"{{"ref":"{ref_name}","before":"{zeros}","after":"{after}","head_commit":{{"id":"{head}"}},"repository":{{"full_name":"a/b"}}}}"#
            );
            let Event::Push(push) = push_event(&request(JSON, body.as_bytes(), b""))? else { panic!("no push") };
            Ok::<_, Malformed>(push.changes.into_iter().next().unwrap().after.map(|id| id.to_string()))
        };
        assert_eq!(after("refs/tags/v1", &one, &two), Ok(Some(two.clone())));
        assert_eq!(after("refs/heads/a", &one, &two), Ok(Some(one.clone())));
        assert_eq!(after("refs/tags/v1", &zeros, &two), Ok(None));
        assert!(after("refs/tags/v1", &one, "main").is_err());
    }

    #[test]
    fn the_message_is_that_of_the_commit_that_is_named_wherever_it_stands() {
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let with = |more: &str| {
            message(&format!(
                r#"{{"ref":"refs/heads/a","before":"{one}","after":"{two}","repository":{{"full_name":"a/b"}}{more}}}"#
            ))
        };
        let commits = |first: &str, second: &str| {
            format!(r#","commits":[{{"id":"{first}","message":"first"}},{{"id":"{second}","message":"second"}}]"#)
        };
        assert_eq!(with(&commits(&two, &one)).as_deref(), Some("first"));
        assert_eq!(with(&commits(&one, &two)).as_deref(), Some("second"));
        assert_eq!(with(&commits(&one, &one)), None);
        let head = format!(r#","head_commit":{{"id":"{two}","message":"head"}}{}"#, commits(&two, &one));
        assert_eq!(with(&head).as_deref(), Some("head"));
        for more in ["", r#","commits":null,"head_commit":null"#, r#","commits":[{}]"#, r#","head_commit":{}"#] {
            assert_eq!(with(more), None, "{more}");
        }
    }
}
