//! GitLab: a token that is sent along in plain text, or since 19.0 a signature as Standard Webhooks has it.
//!
//! ```text
//! configured secret     what proves a request                                            what does not
//! whsec_<base64>        webhook-signature: v1,<base64 of HMAC(id.timestamp.body)> …      a token: that would be a downgrade
//! anything else         x-gitlab-token: <the secret>                                     a signature
//! ```

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::refusal::first_or_most_telling;
use super::signature::same_token;
use super::standard_signature::{self, ID, SigningKey};
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, key_of_digest, payload};
use crate::domain::push::{Change, Event};
use crate::domain::revision::Revision;
use crate::domain::secret::Secret;

/// Whether there is a token that matches, or a signature that could.
pub(super) fn check_head(request: &Request, secrets: &[&Secret]) -> Result<(), Refusal> {
    first_or_most_telling(secrets, |secret| match Scheme::of(secret) {
        Scheme::Token(token) => check_token(request, token),
        Scheme::Signature(_) => claims(request).map(drop),
        Scheme::Unusable => Err(Refusal::SecretUnusable),
    })
}

/// Tries each secret with its own scheme; if none fits, the most telling reason is given.
pub(super) fn authenticate(request: &Request, secrets: &[&Secret], now: DateTime<Utc>) -> Result<(), Refusal> {
    first_or_most_telling(secrets, |secret| match Scheme::of(secret) {
        Scheme::Token(token) => check_token(request, token),
        Scheme::Signature(key) => key.check(request, &claims(request)?, now),
        Scheme::Unusable => Err(Refusal::SecretUnusable),
    })
}

/// Reads the event.
///
/// The delivery's key is `webhook-id`, else `Idempotency-Key`: GitLab (17.4 and newer) sends the same value in both, and keeps
/// it over retries and "Resend Request"; `webhook-id` is the one that is signed. Not `X-Gitlab-Event-UUID`, which recursive
/// hooks share, and not `X-Gitlab-Webhook-UUID`, which names the hook. An older GitLab gets the body's digest.
pub(super) fn parse(request: &Request, digest: String) -> Result<Parsed, Malformed> {
    let event_name = request.event_name(EVENT)?;
    let event = match event_name.as_str() {
        "Push Hook" | "Tag Push Hook" => push_event(request)?,
        "System Hook" => system_event(request)?,
        other => Event::Other(other.to_owned()),
    };
    let key = request.delivery_key(ID).or_else(|| request.delivery_key(IDEMPOTENCY_KEY));
    Ok(Parsed { key: key.unwrap_or_else(|| key_of_digest(&digest)), event_name, event, digest })
}

/// Writes a push and adds the token, or signs it. GitLab has no ping: its place takes a push that moves nothing.
pub(super) fn compose(secret: &Secret, message: &TestMessage<'_>, now: DateTime<Utc>) -> Request {
    let (ref_name, before, after) = match &message.kind {
        TestKind::Ping => ("refs/heads/main", payload::NO_MOVE.to_owned(), payload::NO_MOVE),
        TestKind::Push { ref_name, before, after } => {
            let before = before.map_or_else(|| payload::zeros(after), ToString::to_string);
            (ref_name.as_str(), before, after.as_str())
        }
    };
    let (event, kind) =
        if ref_name.starts_with("refs/tags/") { ("Tag Push Hook", "tag_push") } else { ("Push Hook", "push") };
    let mut request = Request::of_json(&json!({
        "object_kind": kind,
        "event_name": kind,
        "ref": ref_name,
        "before": before,
        "after": after,
        "checkout_sha": after,
        "project": { "path_with_namespace": message.repository },
    }));
    request.push_header(EVENT, event);
    request.push_header(IDEMPOTENCY_KEY, message.key);
    match Scheme::of(secret) {
        Scheme::Token(token) => request.push_header(TOKEN, token),
        Scheme::Signature(key) => key.sign(&mut request, message.key, now),
        Scheme::Unusable => {}
    }
    request
}

/// What a secret proves, and with it the only thing that is accepted for it.
enum Scheme<'a> {
    /// Equality with this value.
    Token(&'a [u8]),
    /// A signature with this key.
    Signature(SigningKey),
    /// Nothing: it claims to be a signing secret and is none.
    Unusable,
}

impl<'a> Scheme<'a> {
    fn of(secret: &'a Secret) -> Self {
        if !standard_signature::is_signing_secret(secret) {
            return Self::Token(secret.expose());
        }
        SigningKey::of(secret).map_or(Self::Unusable, Self::Signature)
    }
}

/// A signature alone; a token beside it is the forge's other way, and not what this secret asks for.
fn claims(request: &Request) -> Result<Vec<Vec<u8>>, Refusal> {
    match standard_signature::claims(request, standard_signature::V1) {
        Err(Refusal::Absent(_)) if request.header(TOKEN)?.is_some() => Err(Refusal::TokenInsteadOfSignature),
        claims => claims,
    }
}

fn check_token(request: &Request, token: &[u8]) -> Result<(), Refusal> {
    match request.header(TOKEN)? {
        Some(sent) if same_token(sent, token) => Ok(()),
        Some(_) => Err(Refusal::Mismatch(TOKEN)),
        None if request.has_header(standard_signature::SIGNATURE) => Err(Refusal::SignatureInsteadOfToken),
        None => Err(Refusal::Absent(TOKEN)),
    }
}

/// The fields of a push that we use.
#[derive(Debug, Deserialize)]
struct Payload {
    object_kind: Option<String>,
    event_name: Option<String>,
    #[serde(rename = "ref")]
    ref_name: String,
    before: String,
    after: String,
    /// Absent, null, or a commit.
    #[serde(default, deserialize_with = "present")]
    checkout_sha: Option<Option<String>>,
    commits: Option<Vec<Commit>>,
    project: Project,
}

#[derive(Debug, Deserialize)]
struct Commit {
    id: Option<String>,
    message: Option<String>,
}

/// Which event a body is: hooks of a project say it in both fields, system hooks in one of them.
#[derive(Debug, Deserialize)]
struct Kind {
    object_kind: Option<String>,
    event_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Project {
    id: Option<Value>,
    path_with_namespace: String,
}

impl Kind {
    fn word(&self) -> Option<&str> {
        self.object_kind.as_deref().or(self.event_name.as_deref())
    }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A system hook reports whatever happens on the instance: only pushes are read strictly.
///
/// `repository_update`, which a new system hook sends unless it is told otherwise, comes beside the pushes: it names no commit
/// of an annotated tag and no message, so that a skip marker would not be seen.
fn system_event(request: &Request) -> Result<Event, Malformed> {
    let kind: Kind = payload::read(&request.body)?;
    match kind.word() {
        Some("push" | "tag_push") => push_event(request),
        Some("repository_update") => Ok(Event::Incomplete(
            "a `repository_update` has no messages of commits: let the system hook send push and tag push events"
                .into(),
        )),
        Some(other) => Ok(Event::Other(payload::word(other))),
        None => Err(Malformed::new("the system hook has neither `object_kind` nor `event_name`")),
    }
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let payload = payload::read_strictly(&request.body)?;
    let Payload { object_kind, event_name, ref_name, before, after, checkout_sha, commits, project } = payload;
    let is_tag = match (Kind { object_kind, event_name }).word() {
        Some("push") => false,
        Some("tag_push") => true,
        Some(_) | None => return Err(Malformed::new("the event is a push, but the payload's `object_kind` is not")),
    };
    let change = payload::Moved { ref_name: &ref_name, before: &before, after: &after }.check()?;
    let stands_still = change.before.is_some() && change.before == change.after;
    let after = match checkout_sha.as_ref().map(Option::as_deref) {
        // A test: what it would check out does not make it a move.
        _ if stands_still => change.after,
        None => change.after,
        // GitLab has no field that says "deleted": there is nothing to check out.
        Some(None) => None,
        Some(Some(text)) => {
            let commit = payload::revision("checkout_sha", text)?;
            // Of an annotated tag `after` is the tag object, and this is the commit.
            if is_tag && change.after.is_some() { commit } else { change.after }
        }
    };
    // The list is capped, but its last is the one that the ref names.
    let is_head = |commit: &Commit| after.as_ref().map(Revision::as_str) == commit.id.as_deref();
    let message = commits.unwrap_or_default().into_iter().rev().find(is_head).and_then(|commit| commit.message);
    let Project { id, path_with_namespace } = project;
    payload::push(&path_with_namespace, id, vec![Change { after, message, ..change }])
}

const EVENT: &str = "x-gitlab-event";
const TOKEN: &str = "x-gitlab-token";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::standard_signature::{SIGNATURE, TIMESTAMP};
    use crate::webhook::{fixtures, signature};

    const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const MESSAGE_ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SENT_AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn request(headers: &[(&str, &str)], body: &[u8]) -> Request {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        Request { headers, body: body.to_vec() }
    }

    fn check(headers: &[(&str, &str)], secrets: &[&str], seconds_later: i64) -> Result<(), Refusal> {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(text.as_bytes().to_vec())).collect();
        let now = DateTime::from_timestamp(SENT_AT + seconds_later, 0).unwrap();
        authenticate(&request(headers, BODY), &secrets.iter().collect::<Vec<_>>(), now)
    }

    fn signed_headers<'a>(id: &'a str, timestamp: &'a str, signature: &'a str) -> [(&'a str, &'a str); 3] {
        [(ID, id), (TIMESTAMP, timestamp), (SIGNATURE, signature)]
    }

    fn read(event: &str, body: &[u8]) -> Result<Event, Malformed> {
        parse(&request(&[(EVENT, event)], body), signature::digest(body)).map(|parsed| parsed.event)
    }

    /// A fixture, proved by its token or its signature, and read.
    fn recorded(file: &str) -> Parsed {
        let request = fixtures::load("gitlab", file);
        let secrets = [fixtures::SECRET, fixtures::SIGNING_SECRET].map(|text| Secret::new(text.into()));
        let then = DateTime::from_timestamp(fixtures::SIGNED_AT, 0).unwrap();
        assert_eq!(authenticate(&request, &secrets.iter().collect::<Vec<_>>(), then), Ok(()), "{file}");
        parse(&request, signature::digest(&request.body)).unwrap()
    }

    fn ids(event: Result<Event, Malformed>) -> (String, Option<String>, Option<String>) {
        let Ok(Event::Push(push)) = event else { panic!("no push: {event:?}") };
        let [change] = &push.changes[..] else { panic!("{push:?}") };
        let text = |id: &Option<crate::domain::revision::Revision>| id.as_ref().map(|id| id.short().to_owned());
        (change.ref_name.to_string(), text(&change.before), text(&change.after))
    }

    #[test]
    fn a_token_is_the_secret_or_nothing() {
        let of = |token: &str| check(&[(TOKEN, token)], &["a plain token", "the next one"], 0);
        assert_eq!(of("a plain token"), Ok(()));
        assert_eq!(of("the next one"), Ok(()), "rotation");
        for token in ["", "a plain toke", "a plain token ", "A plain token", "a plain tokenthe next one"] {
            assert_eq!(of(token), Err(Refusal::Mismatch(TOKEN)), "{token}");
        }
        assert_eq!(check(&[], &["a plain token"], 0), Err(Refusal::Absent(TOKEN)));
        let twice = [(TOKEN, "a plain token"), (TOKEN, "a plain token")];
        assert_eq!(check(&twice, &["a plain token"], 0), Err(Refusal::Twice(TOKEN)));
    }

    #[test]
    fn the_vector_of_standard_webhooks_matches_within_five_minutes() {
        let sent_at = SENT_AT.to_string();
        let headers = signed_headers(MESSAGE_ID, &sent_at, GOOD);
        let table = [
            (0, Ok(())),
            (300, Ok(())),
            (-300, Ok(())),
            (301, Err(Refusal::TooOld(301))),
            (-301, Err(Refusal::FromTheFuture(301))),
            (86_400, Err(Refusal::TooOld(86_400))),
        ];
        for (seconds_later, expected) in table {
            assert_eq!(check(&headers, &[WHSEC], seconds_later), expected, "{seconds_later}");
        }
        for list in [format!("{GOOD} v1,AAAA"), format!("v1a,xyz  {GOOD}"), format!("v2,{} {GOOD}", &GOOD[3..])] {
            assert_eq!(check(&signed_headers(MESSAGE_ID, &sent_at, &list), &[WHSEC], 0), Ok(()), "{list}");
        }
    }

    #[test]
    fn every_other_signature_is_refused_with_its_reason() {
        let sent_at = SENT_AT.to_string();
        let of = |list: &str| check(&signed_headers(MESSAGE_ID, &sent_at, list), &[WHSEC], 0);
        let other_key = "v1,b5ZHkA2vT4E1yY1UqfNZ1tC4gN1mN2kQe8b9o4pVvX0=";
        for list in
            ["", " ", "v1", "v1a,abc", "v2,abc", &GOOD[3..], &GOOD.replace("v1", "V1"), &GOOD.replace(',', ", ")]
        {
            let expected = if list.contains(", ") {
                Refusal::NotBase64 { version: "v1", bytes: 32 }
            } else {
                Refusal::UnknownVersions("v1")
            };
            assert_eq!(of(list), Err(expected), "{list}");
        }
        for list in ["v1,", "v1,AAAA", "v1,***", GOOD.trim_end_matches('='), &format!("{GOOD},{GOOD}")] {
            assert_eq!(of(list), Err(Refusal::NotBase64 { version: "v1", bytes: 32 }), "{list}");
        }
        assert_eq!(of(other_key), Err(Refusal::Mismatch(SIGNATURE)));

        let with = |id: &str, timestamp: &str| check(&signed_headers(id, timestamp, GOOD), &[WHSEC], 0);
        assert_eq!(with("msg_other", &sent_at), Err(Refusal::Mismatch(SIGNATURE)));
        assert_eq!(with(MESSAGE_ID, "1614265331"), Err(Refusal::Mismatch(SIGNATURE)));
        for id in ["", "a.b", "a b", "ümläut", &"x".repeat(500)] {
            assert_eq!(with(id, &sent_at), Err(Refusal::Id), "{id}");
        }
        for timestamp in ["", "+1614265330", "-1", "1614265330.0", " 1614265330", "99999999999999999999", "2021-02-25"]
        {
            assert_eq!(with(MESSAGE_ID, timestamp), Err(Refusal::TimestampNotNumber), "{timestamp}");
        }
        let all = signed_headers(MESSAGE_ID, &sent_at, GOOD);
        for (missing, name) in [ID, TIMESTAMP, SIGNATURE].into_iter().enumerate() {
            let rest: Vec<_> =
                all.into_iter().enumerate().filter(|(index, _)| *index != missing).map(|(_, it)| it).collect();
            assert_eq!(check(&rest, &[WHSEC], 0), Err(Refusal::Absent(name)));
            assert_eq!(check(&[&all[..], &all[missing..=missing]].concat(), &[WHSEC], 0), Err(Refusal::Twice(name)));
        }
    }

    #[test]
    fn a_signing_secret_accepts_no_token_and_a_token_no_signature() {
        let sent_at = SENT_AT.to_string();
        let signed = signed_headers(MESSAGE_ID, &sent_at, GOOD);
        for token in [WHSEC, &WHSEC[6..], "a plain token"] {
            assert_eq!(check(&[(TOKEN, token)], &[WHSEC], 0), Err(Refusal::TokenInsteadOfSignature));
        }
        assert_eq!(check(&signed, &["a plain token"], 0), Err(Refusal::SignatureInsteadOfToken));
        for unusable in ["whsec_", "whsec_***", "whsec_AAAA"] {
            assert_eq!(check(&[(TOKEN, unusable)], &[unusable], 0), Err(Refusal::SecretUnusable), "{unusable}");
            assert_eq!(check(&signed, &[unusable], 0), Err(Refusal::SecretUnusable), "{unusable}");
        }
    }

    #[test]
    fn while_rotating_each_secret_has_its_own_scheme_and_the_best_reason_wins() {
        let sent_at = SENT_AT.to_string();
        let signed = signed_headers(MESSAGE_ID, &sent_at, GOOD);
        let both = [&signed[..], &[(TOKEN, "wrong")]].concat();
        for secrets in [["a plain token", WHSEC], [WHSEC, "a plain token"]] {
            assert_eq!(check(&signed, &secrets, 0), Ok(()));
            assert_eq!(check(&both, &secrets, 0), Ok(()));
            assert_eq!(check(&[(TOKEN, "a plain token")], &secrets, 0), Ok(()));
            assert_eq!(check(&[(TOKEN, "wrong")], &secrets, 0), Err(Refusal::Mismatch(TOKEN)));
            assert_eq!(check(&both, &secrets, 900), Err(Refusal::TooOld(900)));
            assert_eq!(check(&signed, &secrets, 900), Err(Refusal::TooOld(900)));
        }
    }

    #[test]
    fn the_recorded_deliveries_say_what_happened() {
        let (main, release, tag) = ("refs/heads/main", "refs/heads/release/2.0", "refs/tags/v1.0.0");
        let (old, new, object) = ("6113728", "0d1a26e", "a81c02f");
        let table = [
            ("push.json", main, Some(old), Some(new)),
            ("group-push.json", main, Some(old), Some(new)),
            ("old-push.json", main, Some(old), Some(new)),
            ("system-push.json", main, Some(old), Some(new)),
            ("signed-push.json", main, Some(old), Some(new)),
            ("signed-and-token-push.json", main, Some(old), Some(new)),
            ("force-push.json", main, Some(new), Some("9f2c4b7")),
            ("create-branch.json", release, None, Some(new)),
            ("delete.json", release, Some(new), None),
            ("tag.json", tag, None, Some(new)),
            ("system-tag.json", tag, None, Some(new)),
            ("annotated-tag.json", tag, None, Some(new)),
            ("delete-tag.json", tag, Some(object), None),
        ];
        for (file, ref_name, before, after) in table {
            let parsed = recorded(file);
            let is_ours = |push: &crate::domain::push::Push| {
                push.repository == "acme/web/blog" && push.repository_id.as_deref() == Some("15")
            };
            assert!(matches!(&parsed.event, Event::Push(push) if is_ours(push)), "{file}: {parsed:?}");
            let expected = (ref_name.into(), before.map(Into::into), after.map(Into::into));
            assert_eq!(ids(Ok(parsed.event)), expected, "{file}");
        }
        let Event::Push(long) = recorded("sha256-push.json").event else { panic!("no push") };
        assert_eq!(long.changes[0].after.as_ref().map(|id| id.as_str().len()), Some(64));
        assert_eq!(recorded("test.json").event, Event::Ping);
        assert_eq!(recorded("issue.json").event, Event::Other("Issue Hook".into()));
        let update = recorded("system-repository-update.json").event;
        assert!(matches!(&update, Event::Incomplete(reason) if reason.contains("tag push events")), "{update:?}");
    }

    #[test]
    fn what_is_recorded_with_a_signature_is_refused_as_a_replay_later() {
        let secret = Secret::new(fixtures::SIGNING_SECRET.into());
        for file in ["signed-push.json", "signed-and-token-push.json"] {
            let later = DateTime::from_timestamp(fixtures::SIGNED_AT + 301, 0).unwrap();
            let refusal = authenticate(&fixtures::load("gitlab", file), &[&secret], later);
            assert_eq!(refusal, Err(Refusal::TooOld(301)), "{file}");
        }
    }

    #[test]
    fn the_commit_of_a_tag_is_what_would_be_checked_out() {
        let (one, two, three, zero) = ("1".repeat(40), "2".repeat(40), "3".repeat(40), "0".repeat(40));
        let push = |kind: &str, before: &str, after: &str, more: &str| {
            let body = format!(
                r#"{{"object_kind":"{kind}","ref":"refs/tags/a","before":"{before}","after":"{after}",
                "project":{{"path_with_namespace":"acme/blog"}}{more}}}"#
            );
            read("Push Hook", body.as_bytes())
        };
        let checkout = |commit: &str| format!(r#","checkout_sha":"{commit}""#);
        let after = |event| ids(event).2.unwrap_or_default();
        assert_eq!(after(push("tag_push", &zero, &two, &checkout(&three))), "3333333");
        assert_eq!(after(push("tag_push", &zero, &two, "")), "2222222");
        assert_eq!(after(push("push", &one, &two, &checkout(&three))), "2222222");
        assert_eq!(after(push("push", &one, &two, r#","checkout_sha":null"#)), "");
        assert_eq!(after(push("tag_push", &one, &zero, &checkout(&three))), "");
        assert_eq!(push("tag_push", &two, &two, &checkout(&three)), Ok(Event::Ping));
        for (kind, more) in [
            ("push", r#","checkout_sha":"main""#),
            ("push", r#","checkout_sha":1"#),
            ("push", r#","ref":"refs/heads/b""#),
            ("push", r#","project":{"path_with_namespace":"acme/blog"}"#),
            ("note", ""),
        ] {
            assert!(push(kind, &one, &two, more).is_err(), "{kind} {more}");
        }
    }

    #[test]
    fn an_event_without_use_is_not_read() {
        for body in [&b"\xff{{{"[..], b"", br#"{"a":1,"a":1}"#] {
            assert_eq!(read("Note Hook", body), Ok(Event::Other("Note Hook".into())));
            assert!(read("Push Hook", body).is_err());
            assert!(read("System Hook", body).is_err());
        }
        for (body, word) in [
            (r#"{"event_name":"project_create","name":"x","x":1,"x":2}"#, "project_create"),
            (r#"{"object_kind":"merge_request","event_type":"merge_request"}"#, "merge_request"),
            (r#"{"event_name":"a\u0000b"}"#, "ab"),
        ] {
            assert_eq!(read("System Hook", body.as_bytes()), Ok(Event::Other(word.into())));
        }
    }

    #[test]
    fn the_key_is_the_one_that_a_redelivery_repeats() {
        let key = |headers: &[(&str, &str)]| {
            let headers = [headers, &[(EVENT, "Note Hook"), ("x-gitlab-event-uuid", "shared")]].concat();
            parse(&request(&headers, b"{}"), signature::digest(b"{}")).unwrap().key.to_string()
        };
        assert_eq!(key(&[(IDEMPOTENCY_KEY, "second"), (ID, "first")]), "first");
        assert_eq!(key(&[(IDEMPOTENCY_KEY, "second")]), "second");
        assert_eq!(key(&[(IDEMPOTENCY_KEY, "second"), (ID, "not sound")]), "second");
        assert_eq!(key(&[]), signature::digest(b"{}"));
        assert_eq!(key(&[(IDEMPOTENCY_KEY, "one"), (IDEMPOTENCY_KEY, "two")]), signature::digest(b"{}"));
    }
}
