//! Gogs: `X-Gogs-Signature` over the JSON, see `gogs_family`.
//!
//! ```text
//! what happened         what Gogs tells
//! a branch moved        push
//! a branch is new       create (ref_type branch, no commit) and push
//! a branch is gone      delete
//! a tag is new, moved   create (ref_type tag, sha): no push
//! a tag is gone         delete
//! ```
//!
//! So a `create` of a tag is read as the push that it is. Its `sha` is what was pushed: of an annotated tag the tag object, which
//! no other field of the payload resolves. The release is of the commit all the same, since the fetch resolves it; only that a
//! redelivery finds it live already is not seen at the door, but when it is fetched.

use serde::Deserialize;
use serde_json::json;

use super::gogs_family::{Member, Repository, push_event};
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, form, payload};
use crate::domain::push::{Change, Event, RefName};
use crate::domain::secret::Secret;

/// Whether there is a signature.
pub(super) fn check_head(request: &Request) -> Result<(), Refusal> {
    GOGS.check_head(request)
}

/// Compares the signature with those that the secrets give.
pub(super) fn authenticate(request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
    GOGS.authenticate(request, secrets)
}

/// Reads the event. The delivery's key is `X-Gogs-Delivery`, which a redelivery repeats.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    GOGS.parsed(request, digest, |event| match event {
        "push" => push_event(request),
        "create" => create_event(request),
        other => Ok(Event::Other(other.to_owned())),
    })
}

/// Writes and signs a push, or the creation of a tag.
pub(super) fn compose(secret: &Secret, message: &TestMessage<'_>) -> Request {
    let tag = match &message.kind {
        TestKind::Push { ref_name, after, .. } => ref_name.tag().map(|tag| (tag, after)),
        TestKind::Ping => None,
    };
    let Some((tag, after)) = tag else { return GOGS.compose_push(secret, message) };
    let body = json!({
        "ref": tag,
        "ref_type": "tag",
        "sha": after.as_str(),
        "repository": { "full_name": message.repository },
    });
    GOGS.compose(secret, message, "create", &body)
}

/// The fields of a `create` that we use.
#[derive(Debug, Deserialize)]
struct Creation {
    /// The short name.
    #[serde(rename = "ref")]
    name: String,
    ref_type: String,
    /// Empty for a branch; of a tag absent before Gogs 0.12.
    sha: Option<String>,
    repository: Repository,
}

fn create_event(request: &Request) -> Result<Event, Malformed> {
    let creation: Creation = payload::read_strictly(&form::json_of(request)?)?;
    let Creation { name, ref_type, sha, repository: Repository { id, full_name } } = creation;
    if ref_type != "tag" {
        // A new branch is told by a push, too.
        return Ok(Event::Other("create".to_owned()));
    }
    let Some(sha) = sha.filter(|sha| !sha.is_empty()) else {
        return Ok(Event::Incomplete(
            "this Gogs does not say which commit the new tag names: `landfall deploy SITE --ref refs/tags/…` deploys it"
                .to_owned(),
        ));
    };
    let ref_name = RefName::parse(&format!("refs/tags/{name}")).map_err(Malformed::new)?;
    let after = payload::revision("sha", &sha)?;
    payload::push(&full_name, id, vec![Change { ref_name, before: None, after, message: None }])
}

const GOGS: Member = Member::new("x-gogs-event", "x-gogs-delivery", "x-gogs-signature");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::revision::Revision;
    use crate::webhook::{fixtures, signature};

    /// A fixture, proved and read.
    fn recorded(file: &str) -> Parsed {
        let request = fixtures::load("gogs", file);
        assert_eq!(check_head(&request), Ok(()), "{file}");
        assert_eq!(authenticate(&request, &[&Secret::new(fixtures::SECRET.into())]), Ok(()), "{file}");
        parse(&request, signature::digest(&request.body)).unwrap()
    }

    fn created(more: &str) -> Result<Event, Malformed> {
        let body = format!(r#"{{"ref":"v1","repository":{{"full_name":"acme/blog"}},{more}}}"#);
        let headers = vec![("x-gogs-event".to_owned(), b"create".to_vec())];
        parse(&Request { headers, body: body.into_bytes() }, String::from("0")).map(|parsed| parsed.event)
    }

    #[test]
    fn the_recorded_deliveries_say_what_happened() {
        let (main, release, tag) = ("refs/heads/main", "refs/heads/release/2.0", "refs/tags/v1.0.0");
        let (old, new) = ("6113728", "0d1a26e");
        let table = [
            ("push.json", main, Some(old), new),
            ("push-form.form", main, Some(old), new),
            ("old-push.json", main, Some(old), new),
            ("force-push.json", main, Some(new), "9f2c4b7"),
            ("create-branch.json", release, None, new),
            ("create-tag-event.json", tag, None, new),
            ("create-annotated-tag-event.json", tag, None, "a81c02f"),
        ];
        for (file, ref_name, before, after) in table {
            let parsed = recorded(file);
            let Event::Push(push) = &parsed.event else { panic!("{file}: {parsed:?}") };
            assert_eq!((push.repository.as_str(), push.repository_id.as_deref()), ("acme/blog", Some("27")), "{file}");
            let change = &push.changes[0];
            let short = |id: &Option<Revision>| id.as_ref().map(|id| id.short().to_owned());
            let ids = (short(&change.before), short(&change.after));
            let expected = (before.map(Into::into), Some(after.into()));
            assert_eq!((change.ref_name.as_str(), ids), (ref_name, expected), "{file}");
            assert_eq!(change.message.is_some(), parsed.event_name == "push", "{file}");
            assert!(!format!("{parsed:?}").contains(fixtures::SECRET), "{file}");
            assert_eq!(parsed.key.as_str().len(), 36, "{file}: {}", parsed.key);
        }
    }

    #[test]
    fn what_is_no_push_and_no_new_tag_deploys_nothing() {
        assert_eq!(recorded("test.json").event, Event::Ping);
        for (file, word) in [
            ("create-branch-event.json", "create"),
            ("delete-branch-event.json", "delete"),
            ("delete-tag-event.json", "delete"),
            ("issues.json", "issues"),
        ] {
            assert_eq!(recorded(file).event, Event::Other(word.into()), "{file}");
        }
        assert!(matches!(recorded("old-create-tag-event.json").event, Event::Incomplete(_)));
    }

    #[test]
    fn a_new_tag_is_read_strictly() {
        let one = "1".repeat(40);
        assert!(matches!(created(&format!(r#""ref_type":"tag","sha":"{one}""#)), Ok(Event::Push(_))));
        for nothing in [r#""ref_type":"tag""#, r#""ref_type":"tag","sha":null"#, r#""ref_type":"tag","sha":"""#] {
            assert!(matches!(created(nothing), Ok(Event::Incomplete(_))), "{nothing}");
        }
        for more in [
            r#""ref_type":"tag","sha":"main""#.to_owned(),
            r#""ref_type":"tag","sha":1"#.to_owned(),
            format!(r#""ref_type":"tag","sha":"{one}","sha":"{one}""#),
            format!(r#""ref_type":7,"sha":"{one}""#),
            format!(r#""sha":"{one}""#),
            format!(r#""ref_type":"tag","sha":"{one}","ref":"v2""#),
        ] {
            assert!(created(&more).is_err(), "{more}");
        }
    }

    #[test]
    fn a_hook_without_a_secret_is_refused_for_its_empty_signature() {
        let request = fixtures::load("gogs", "no-secret.json");
        let refusal = Refusal::Length { header: "x-gogs-signature", digits: 0 };
        assert_eq!(check_head(&request), Err(refusal.clone()));
        assert_eq!(authenticate(&request, &[&Secret::new(fixtures::SECRET.into())]), Err(refusal));
    }
}
