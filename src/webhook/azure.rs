//! Azure DevOps: a user and a password (HTTP's basic authentication), and no signature. What the body says is as trustworthy as
//! the transport: this forge needs https up to this machine.
//!
//! ```text
//! configured secret     what proves a request
//! user:password         Authorization: Basic base64(user:password)
//! password              Authorization: Basic base64(anything:password)
//! ```
//!
//! The event's name and id stand in the body. The "Test" button sends a sample about a repository of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::signature::same_token;
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, key_of_digest, payload};
use crate::domain::push::{Change, DeliveryKey, Event};
use crate::domain::secret::Secret;

/// Compares the credentials with the secrets: the body is no part of it.
pub(super) fn check_head(request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
    let value = request.header(CREDENTIALS)?.ok_or(Refusal::Absent(CREDENTIALS))?;
    let encoded = value.strip_prefix(SCHEME.as_bytes()).ok_or(Refusal::Scheme(CREDENTIALS))?;
    let sent = STANDARD.decode(encoded).map_err(|_| Refusal::NotCredentials(CREDENTIALS))?;
    let colon = sent.iter().position(|byte| *byte == b':').ok_or(Refusal::NotCredentials(CREDENTIALS))?;
    let password = &sent[colon + 1..];
    // Both are looked at, whatever the first says: the time tells nothing.
    let fits = |secret: &&Secret| same_token(&sent, secret.expose()) | same_token(password, secret.expose());
    if secrets.iter().filter(|secret| fits(secret)).count() > 0 {
        Ok(())
    } else {
        Err(Refusal::Credentials(CREDENTIALS))
    }
}

/// The part of a secret that is the password.
pub(super) fn password(secret: &Secret) -> &[u8] {
    let secret = secret.expose();
    secret.iter().position(|byte| *byte == b':').map_or(secret, |colon| &secret[colon + 1..])
}

/// Reads the event. Its name is in the body, so that a body is read leniently until it has turned out to be a push.
///
/// The delivery's key is the body's `id`, which names the event. Not `notificationId`, which counts what was sent.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    let Kind { event_type, id } = payload::read(&request.body)?;
    let event_type = event_type.ok_or_else(|| Malformed::new("the payload has no `eventType`"))?;
    let event = if event_type == PUSH { push_event(request)? } else { Event::Other(payload::word(&event_type)) };
    let key =
        id.as_ref().and_then(Value::as_str).and_then(DeliveryKey::parse).unwrap_or_else(|| key_of_digest(&digest));
    Ok(Parsed { key, event_name: payload::word(&event_type), event, digest })
}

/// Writes a push with the credentials. Azure has no ping: its place takes a push that moves nothing.
pub(super) fn compose(secret: &Secret, message: &TestMessage<'_>) -> Request {
    let (ref_name, before, after) = match &message.kind {
        TestKind::Ping => ("refs/heads/main", payload::NO_MOVE.to_owned(), payload::NO_MOVE),
        TestKind::Push { ref_name, before, after } => {
            let before = before.map_or_else(|| payload::zeros(after), ToString::to_string);
            (ref_name.as_str(), before, after.as_str())
        }
    };
    let (project, repository) = message.repository.split_once('/').unwrap_or(("", message.repository));
    let mut request = Request::of_json(&json!({
        "id": message.key,
        "eventType": PUSH,
        "publisherId": "tfs",
        "resource": {
            "refUpdates": [{ "name": ref_name, "oldObjectId": before, "newObjectId": after }],
            "repository": { "name": repository, "project": { "name": project } },
        },
    }));
    let is_whole = secret.expose().contains(&b':');
    let credentials = if is_whole { secret.expose().to_vec() } else { [b"landfall:", secret.expose()].concat() };
    request.push_header(CREDENTIALS, format!("{SCHEME}{}", STANDARD.encode(credentials)));
    request
}

/// What every event has.
#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(rename = "eventType")]
    event_type: Option<String>,
    id: Option<Value>,
}

/// The fields of a push that we use.
#[derive(Debug, Deserialize)]
struct Payload {
    resource: Resource,
}

#[derive(Debug, Deserialize)]
struct Resource {
    /// May be empty.
    #[serde(rename = "refUpdates")]
    ref_updates: Vec<RefUpdate>,
    commits: Option<Vec<Commit>>,
    repository: Repository,
}

#[derive(Debug, Deserialize)]
struct RefUpdate {
    name: String,
    #[serde(rename = "oldObjectId")]
    old_object_id: String,
    #[serde(rename = "newObjectId")]
    new_object_id: String,
}

#[derive(Debug, Deserialize)]
struct Commit {
    #[serde(rename = "commitId")]
    id: Option<String>,
    comment: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    id: Option<Value>,
    name: String,
    project: Project,
}

#[derive(Debug, Deserialize)]
struct Project {
    name: String,
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let Payload { resource: Resource { ref_updates, commits, repository } } = payload::read_strictly(&request.body)?;
    let Repository { id, name, project } = repository;
    let commits = commits.unwrap_or_default();
    let mut changes = Vec::with_capacity(ref_updates.len());
    for RefUpdate { name, old_object_id, new_object_id } in ref_updates {
        let moved = payload::Moved { ref_name: &name, before: &old_object_id, after: &new_object_id };
        let tip = commits.iter().find(|commit| commit.id.as_deref() == Some(&new_object_id));
        changes.push(Change { message: tip.and_then(|commit| commit.comment.clone()), ..moved.check()? });
    }
    payload::push(&format!("{}/{name}", project.name), id, changes)
}

const CREDENTIALS: &str = "authorization";
const SCHEME: &str = "Basic ";
const PUSH: &str = "git.push";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::fixtures::{self, count, load, told};
    use crate::webhook::signature;

    const PASSWORD: &str = fixtures::SECRET;

    fn check(headers: &[&str], secrets: &[&str]) -> Result<(), Refusal> {
        let headers = headers.iter().map(|value| ("Authorization".to_owned(), value.as_bytes().to_vec())).collect();
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(text.as_bytes().to_vec())).collect();
        check_head(&Request { headers, body: Vec::new() }, &secrets.iter().collect::<Vec<_>>())
    }

    fn basic(credentials: &str) -> String {
        format!("Basic {}", STANDARD.encode(credentials))
    }

    fn read(body: &str) -> Result<Parsed, Malformed> {
        let request = Request { headers: Vec::new(), body: body.as_bytes().to_vec() };
        parse(&request, signature::digest(&request.body))
    }

    fn push(resource: &str) -> Result<Parsed, Malformed> {
        read(&format!(r#"{{"eventType":"git.push","id":"1","resource":{resource}}}"#))
    }

    #[test]
    fn the_recorded_payloads_say_what_happened() {
        const ID: &str = "278d5cd2-584d-4b63-824a-2ba458937249";
        let table = [
            ("push", format!("acme/blog {ID}: refs/heads/main 6113728..0d1a26e `A second page`")),
            ("create-branch", format!("acme/blog {ID}: refs/heads/release/2.0 -..0d1a26e")),
            ("delete", format!("acme/blog {ID}: refs/heads/release/2.0 0d1a26e..-")),
            ("force-push", format!("acme/blog {ID}: refs/heads/main 0d1a26e..9f2c4b7 `Another second page`")),
            ("tag", format!("acme/blog {ID}: refs/tags/v1.0.0 -..0d1a26e")),
            // Azure tells the tag object; the fetch finds its commit.
            ("annotated-tag", format!("acme/blog {ID}: refs/tags/v1.0.0 -..5c0ffee")),
            ("delete-tag", format!("acme/blog {ID}: refs/tags/v1.0.0 5c0ffee..-")),
            (
                "several",
                format!(
                    "acme/blog {ID}: refs/heads/draft 6113728..9f2c4b7 `A draft`, refs/heads/main 6113728..0d1a26e \
                     `A second page`, refs/tags/v0.9.0 6113728..-, refs/tags/v1.0.0 -..0d1a26e `A second page`"
                ),
            ),
            ("no-refs", format!("acme/blog {ID}:")),
            ("blanks", format!("Acme Web/blog {ID}: refs/heads/main 6113728..0d1a26e `A second page`")),
            (
                "sample",
                format!(
                    "Fabrikam-Fiber-Git/Fabrikam-Fiber-Git {ID}: refs/heads/main aad331d..33b55f7 `Fixed bug in web.config file`"
                ),
            ),
            ("pull-request", "other `git.pullrequest.created`".into()),
        ];
        assert_eq!(count("azure"), table.len());
        for (name, expected) in table {
            let request = load("azure", &format!("{name}.json"));
            assert_eq!(check_head(&request, &[&Secret::new(PASSWORD.into())]), Ok(()), "{name}");
            assert_eq!(told(parse(&request, signature::digest(&request.body))), expected, "{name}");
        }
    }

    #[test]
    fn a_secret_is_a_user_and_a_password_or_a_password() {
        let whole = format!("ada:{PASSWORD}");
        for (credentials, secret, believed) in [
            (&*whole, &*whole, true),
            (&whole, PASSWORD, true),
            (&format!(":{PASSWORD}"), PASSWORD, true),
            (&format!("eve:{PASSWORD}"), &whole, false),
            (&format!("eve:{whole}"), &whole, true),
            (&format!("{whole}:"), &whole, false),
            (&format!("ada:{PASSWORD} "), PASSWORD, false),
            (&format!("ada:{PASSWORD}\n"), PASSWORD, false),
            (&format!("ada:{}", &PASSWORD[1..]), PASSWORD, false),
            (&format!("ada:{}", PASSWORD.to_uppercase()), PASSWORD, false),
            (&format!("{PASSWORD}:ada"), PASSWORD, false),
            (&format!("{PASSWORD}:"), PASSWORD, false),
            (":", PASSWORD, false),
        ] {
            let expected = if believed { Ok(()) } else { Err(Refusal::Credentials(CREDENTIALS)) };
            assert_eq!(check(&[&basic(credentials)], &[secret]), expected, "{credentials} {secret}");
            assert_eq!(check(&[&basic(credentials)], &["another", secret]), expected, "rotation");
        }
    }

    #[test]
    fn every_other_header_is_refused_with_its_reason() {
        let good = basic(&format!("ada:{PASSWORD}"));
        assert_eq!(check(&[], &[PASSWORD]), Err(Refusal::Absent(CREDENTIALS)));
        assert_eq!(check(&[&good, &good], &[PASSWORD]), Err(Refusal::Twice(CREDENTIALS)));
        let bearer = good.replace("Basic", "Bearer");
        for value in ["", "Basic", &bearer, &good["Basic ".len()..], &good.replace("Basic ", "basic ")] {
            assert_eq!(check(&[value], &[PASSWORD]), Err(Refusal::Scheme(CREDENTIALS)), "{value}");
        }
        let bad = [
            "Basic ",
            "Basic *",
            &good[..good.len() - 1],
            &format!("{good}="),
            &format!("{good} "),
            &basic(PASSWORD),
            &basic(""),
        ];
        for value in bad {
            assert_eq!(check(&[value], &[PASSWORD]), Err(Refusal::NotCredentials(CREDENTIALS)), "{value}");
        }
    }

    #[test]
    fn the_event_and_the_key_stand_in_the_body() {
        let parsed =
            read(r#"{"eventType":"ms.vss-release.deployment-completed-event","id":7,"resource":null}"#).unwrap();
        assert_eq!(parsed.event, Event::Other("ms.vss-release.deployment-completed-event".into()));
        assert_eq!(parsed.key.as_str(), parsed.digest, "no id that could be one");
        let parsed = read(r#"{"eventType":"a\nb","id":"one two"}"#).unwrap();
        assert_eq!((parsed.event_name.as_str(), parsed.key.as_str()), ("ab", &*parsed.digest));
        assert_eq!(read(r#"{"eventType":"x","id":"03c164c2"}"#).unwrap().key.as_str(), "03c164c2");
        for body in [
            "",
            "[]",
            "{}",
            r#"{"eventType":null}"#,
            r#"{"eventType":7}"#,
            r#"{"eventType":"a","eventType":"git.push"}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
    }

    #[test]
    fn what_matters_is_read_strictly_and_the_rest_is_not_missed() {
        const BLOG: &str = r#""repository":{"name":"blog","project":{"name":"acme"}}"#;
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let update = |name: &str, old: &str, new: &str| {
            push(&format!(
                r#"{{{BLOG},"refUpdates":[{{"name":"{name}","oldObjectId":"{old}","newObjectId":"{new}"}}]}}"#
            ))
        };
        assert_eq!(told(update("refs/heads/main", &one, &two)), "acme/blog: refs/heads/main 1111111..2222222");
        assert_eq!(told(update("refs/heads/main", &one, &one)), "ping");
        assert_eq!(told(push(&format!(r#"{{{BLOG},"refUpdates":[]}}"#))), "acme/blog:");
        assert!(update("main", &one, &two).is_err());
        assert!(update("refs/heads/main", &one[1..], &two).is_err());
        assert!(update("refs/heads/main", &one, "").is_err());
        let bare = format!("{{{BLOG}}}");
        for resource in [
            "null",
            "{}",
            &bare,
            &format!(r#"{{{BLOG},"refUpdates":null}}"#),
            &format!(r#"{{{BLOG},"refUpdates":[null]}}"#),
            &format!(r#"{{{BLOG},"refUpdates":[],"commits":7}}"#),
            &format!(r#"{{{BLOG},"refUpdates":[],"refUpdates":[]}}"#),
            r#"{"refUpdates":[],"repository":{"name":"blog"}}"#,
            r#"{"refUpdates":[],"repository":null}"#,
        ] {
            assert!(push(resource).is_err(), "{resource}");
        }
    }
}
