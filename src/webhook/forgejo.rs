//! Forgejo: as Gitea, of which it is a fork, with headers of its own: `X-Forgejo-Signature`.
//!
//! It sends Gitea's headers beside them, which do not count: a repository of Forgejo is configured as one.

use super::gogs_family::Member;
use super::{Malformed, Parsed, Refusal, Request, TestMessage, gitea};
use crate::domain::secret::Secret;

/// Whether there is a signature.
pub(super) fn check_head(request: &Request) -> Result<(), Refusal> {
    FORGEJO.check_head(request)
}

/// Compares the signature with those that the secrets give.
pub(super) fn authenticate(request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
    FORGEJO.authenticate(request, secrets)
}

/// Reads the event. The delivery's key is `X-Forgejo-Delivery`; "Redeliver" makes a new one.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    gitea::parse_as(FORGEJO, request, digest)
}

/// Writes and signs a push.
pub(super) fn compose(secret: &Secret, message: &TestMessage<'_>) -> Request {
    FORGEJO.compose_push(secret, message)
}

const FORGEJO: Member = Member::new("x-forgejo-event", "x-forgejo-delivery", "x-forgejo-signature");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::push::Event;
    use crate::webhook::{fixtures, signature};

    /// A fixture, proved and read.
    fn recorded(file: &str) -> Parsed {
        let request = fixtures::load("forgejo", file);
        assert_eq!(check_head(&request), Ok(()), "{file}");
        assert_eq!(authenticate(&request, &[&Secret::new(fixtures::SECRET.into())]), Ok(()), "{file}");
        parse(&request, signature::digest(&request.body)).unwrap()
    }

    #[test]
    fn the_recorded_deliveries_say_what_happened() {
        let (main, release, tag) = ("refs/heads/main", "refs/heads/release/2.0", "refs/tags/v1.0.0");
        let (old, new) = ("6113728", "0d1a26e");
        let table: &[(&str, &str, Option<&str>, Option<&str>)] = &[
            ("push.json", main, Some(old), Some(new)),
            ("push-form.form", main, Some(old), Some(new)),
            ("capped-push.json", main, Some(old), Some(new)),
            ("force-push.json", main, Some(new), Some("9f2c4b7")),
            ("create-branch.json", release, None, Some(new)),
            ("tag.json", tag, None, Some(new)),
            ("annotated-tag.json", tag, None, Some(new)),
            ("delete-tag.json", tag, Some(new), None),
        ];
        for (file, ref_name, before, after) in table {
            let parsed = recorded(file);
            let Event::Push(push) = &parsed.event else { panic!("{file}: {parsed:?}") };
            assert_eq!((push.repository.as_str(), push.repository_id.as_deref()), ("acme/blog", Some("27")), "{file}");
            let change = &push.changes[0];
            let short = |id: &Option<crate::domain::revision::Revision>| id.as_ref().map(|id| id.short().to_owned());
            let ids = (short(&change.before), short(&change.after));
            assert_eq!(
                (change.ref_name.as_str(), ids),
                (*ref_name, (before.map(Into::into), after.map(Into::into))),
                "{file}"
            );
            assert_eq!(change.message.as_ref().is_some_and(|text| text.len() > 5), after.is_some(), "{file}");
            assert!(!format!("{parsed:?}").contains(fixtures::SECRET), "{file}");
            assert_eq!(parsed.key.as_str().len(), 36, "{file}: {}", parsed.key);
        }
        let Event::Push(long) = recorded("sha256-push.json").event else { panic!("no push") };
        assert_eq!(long.changes[0].after.as_ref().map(|id| id.as_str().len()), Some(64));
    }

    #[test]
    fn what_is_no_push_is_not_read() {
        assert_eq!(recorded("test.json").event, Event::Ping);
        for (file, word) in [
            ("create-branch-event.json", "create"),
            ("create-tag-event.json", "create"),
            ("delete-branch-event.json", "delete"),
            ("delete-tag-event.json", "delete"),
            ("issues.json", "issues"),
        ] {
            assert_eq!(recorded(file).event, Event::Other(word.into()), "{file}");
        }
    }

    #[test]
    fn a_hook_without_a_secret_is_refused_for_its_empty_signature() {
        let request = fixtures::load("forgejo", "no-secret.json");
        let refusal = Refusal::Length { header: "x-forgejo-signature", digits: 0 };
        assert_eq!(check_head(&request), Err(refusal.clone()));
        assert_eq!(authenticate(&request, &[&Secret::new(fixtures::SECRET.into())]), Err(refusal));
    }
}
