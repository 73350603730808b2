//! GitLab: a token that is sent along in plain text, or since 19.0 a signature as Standard Webhooks has it.
//!
//! ```text
//! configured secret     what proves a request                                            what does not
//! whsec_<base64>        webhook-signature: v1,<base64 of HMAC(id.timestamp.body)> …      a token: that would be a downgrade
//! anything else         x-gitlab-token: <the secret>                                     a signature
//! ```

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::signature::{Signature, same_token};
use super::{Malformed, Parsed, Refusal, Request, TestKind, TestMessage, key_of_digest, payload};
use crate::domain::push::{DeliveryKey, Event, Push};
use crate::domain::secret::Secret;

/// Tries each secret with its own scheme; if none fits, the most telling reason is given.
pub(super) fn authenticate(request: &Request, secrets: &[&Secret], now: DateTime<Utc>) -> Result<(), Refusal> {
    let mut refusal = Refusal::NoSecret;
    for secret in secrets {
        let verdict = match Scheme::of(secret) {
            Scheme::Token(token) => check_token(request, token),
            Scheme::Signature(key) => check_signature(request, &key, now),
            Scheme::Unusable => Err(Refusal::SecretUnusable),
        };
        let Err(found) = verdict else { return Ok(()) };
        if telling(&found) > telling(&refusal) {
            refusal = found;
        }
    }
    Err(refusal)
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
        TestKind::Ping => ("refs/heads/main", NO_MOVE.to_owned(), NO_MOVE),
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
        Scheme::Signature(key) => {
            let timestamp = now.timestamp().to_string();
            let signature = signed(&key, message.key.as_bytes(), timestamp.as_bytes(), &request.body);
            request.push_header(ID, message.key);
            request.push_header(TIMESTAMP, timestamp);
            request.push_header(SIGNATURE, format!("{VERSION}{}", STANDARD.encode(signature.into_bytes())));
        }
        Scheme::Unusable => {}
    }
    request
}

/// What a secret proves, and with it the only thing that is accepted for it.
enum Scheme<'a> {
    /// Equality with this value.
    Token(&'a [u8]),
    /// A signature with this key.
    Signature(Vec<u8>),
    /// Nothing: it claims to be a signing secret and is none.
    Unusable,
}

impl<'a> Scheme<'a> {
    fn of(secret: &'a Secret) -> Self {
        let Some(encoded) = secret.expose().strip_prefix(SIGNING_SECRET) else {
            return Self::Token(secret.expose());
        };
        match KEY_BASE64.decode(encoded) {
            Ok(key) if key.len() >= SHORTEST_KEY => Self::Signature(key),
            Ok(_) | Err(_) => Self::Unusable,
        }
    }
}

fn check_token(request: &Request, token: &[u8]) -> Result<(), Refusal> {
    match request.header(TOKEN)? {
        Some(sent) if same_token(sent, token) => Ok(()),
        Some(_) => Err(Refusal::Mismatch(TOKEN)),
        None if request.header(SIGNATURE)?.is_some() => Err(Refusal::SignatureInsteadOfToken),
        None => Err(Refusal::Absent(TOKEN)),
    }
}

/// The age is looked at last, so that a wrong clock is not taken for a wrong secret, nor the other way round.
fn check_signature(request: &Request, key: &[u8], now: DateTime<Utc>) -> Result<(), Refusal> {
    let claims = match request.header(SIGNATURE)? {
        Some(claims) => claimed_signatures(claims)?,
        None if request.header(TOKEN)?.is_some() => return Err(Refusal::TokenInsteadOfSignature),
        None => return Err(Refusal::Absent(SIGNATURE)),
    };
    let id = request.header(ID)?.ok_or(Refusal::Absent(ID))?;
    // The parts are joined with full stops: one within the id could move the border between what was signed as what.
    let id_is_sound = std::str::from_utf8(id).is_ok_and(|text| DeliveryKey::parse(text).is_some());
    if !id_is_sound || id.contains(&b'.') {
        return Err(Refusal::Id);
    }
    let timestamp = request.header(TIMESTAMP)?.ok_or(Refusal::Absent(TIMESTAMP))?;
    let sent_at = unix_seconds(timestamp).ok_or(Refusal::TimestampNotNumber)?;
    let signature = signed(key, id, timestamp, &request.body);
    if !claims.iter().any(|claim| signature.matches(claim)) {
        return Err(Refusal::Mismatch(SIGNATURE));
    }
    check_age(now.timestamp().saturating_sub(sent_at))
}

/// A list separated by spaces: several while the forge rotates its key. Versions that we do not know are left out.
fn claimed_signatures(list: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let ours: Vec<&[u8]> =
        list.split(|byte| *byte == b' ').filter_map(|entry| entry.strip_prefix(VERSION.as_bytes())).collect();
    if ours.is_empty() {
        return Err(Refusal::UnknownVersions);
    }
    let decoded = ours.into_iter().filter_map(|encoded| STANDARD.decode(encoded).ok());
    let claims: Vec<Vec<u8>> = decoded.filter(|bytes| bytes.len() == 32).collect();
    if claims.is_empty() {
        return Err(Refusal::NotBase64);
    }
    Ok(claims)
}

fn signed(key: &[u8], id: &[u8], timestamp: &[u8], body: &[u8]) -> Signature {
    Signature::new(key, &[id, b".", timestamp, b".", body])
}

fn unix_seconds(value: &[u8]) -> Option<i64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

fn check_age(age_secs: i64) -> Result<(), Refusal> {
    if age_secs.unsigned_abs() <= TOLERANCE_SECS {
        return Ok(());
    }
    Err(match age_secs {
        0.. => Refusal::TooOld(age_secs.unsigned_abs()),
        _ => Refusal::FromTheFuture(age_secs.unsigned_abs()),
    })
}

/// How much a reason says when several secrets each have their own: the further a request got, the more.
fn telling(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::NoSecret => 0,
        Refusal::Absent(_) => 1,
        Refusal::TokenInsteadOfSignature | Refusal::SignatureInsteadOfToken => 2,
        Refusal::Mismatch(_) => 3,
        Refusal::Twice(_) | Refusal::Sha1Only | Refusal::Prefix | Refusal::Length(_) | Refusal::NotHex => 4,
        Refusal::UnknownVersions | Refusal::NotBase64 | Refusal::Id | Refusal::TimestampNotNumber => 4,
        Refusal::SecretUnusable => 5,
        Refusal::TooOld(_) | Refusal::FromTheFuture(_) => 6,
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
    project: Project,
}

/// Which event a body is: hooks of a project say it in both fields, system hooks in one of them.
#[derive(Debug, Deserialize)]
struct Kind {
    object_kind: Option<String>,
    event_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Project {
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
fn system_event(request: &Request) -> Result<Event, Malformed> {
    let kind: Kind = payload::read(&request.body)?;
    match kind.word() {
        Some("push" | "tag_push") => push_event(request),
        Some(other) => {
            Ok(Event::Other(other.chars().filter(|letter| !letter.is_control()).take(LONGEST_WORD).collect()))
        }
        None => Err(Malformed::new("the system hook has neither `object_kind` nor `event_name`")),
    }
}

fn push_event(request: &Request) -> Result<Event, Malformed> {
    let payload = payload::read_strictly(&request.body)?;
    let Payload { object_kind, event_name, ref_name, before, after, checkout_sha, project } = payload;
    let is_tag = match (Kind { object_kind, event_name }).word() {
        Some("push") => false,
        Some("tag_push") => true,
        Some(_) | None => return Err(Malformed::new("the event is a push, but the payload's `object_kind` is not")),
    };
    let repository = project.path_with_namespace.as_str();
    let push = payload::Moved { repository, ref_name: &ref_name, before: &before, after: &after }.check()?;
    if payload::is_test(&push) {
        return Ok(Event::Ping);
    }
    let after = match checkout_sha.as_ref().map(Option::as_deref) {
        None => push.after,
        // GitLab has no field that says "deleted": there is nothing to check out.
        Some(None) => None,
        Some(Some(text)) => {
            let commit = payload::revision("checkout_sha", text)?;
            // Of an annotated tag `after` is the tag object, and this is the commit.
            if is_tag && push.after.is_some() { commit } else { push.after }
        }
    };
    Ok(Event::Push(Push { after, ..push }))
}

const EVENT: &str = "x-gitlab-event";
const TOKEN: &str = "x-gitlab-token";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// HMAC-SHA256; `v1a` is Ed25519, which GitLab does not use.
const VERSION: &str = "v1,";
const SIGNING_SECRET: &[u8] = b"whsec_";

/// GitLab makes 32, Standard Webhooks asks for 24 to 64; below this a key can be guessed.
const SHORTEST_KEY: usize = 16;

/// What all reference implementations of Standard Webhooks use, both ways.
const TOLERANCE_SECS: u64 = 300;

/// A word of the forge, not a text.
const LONGEST_WORD: usize = 100;

/// Stands for a commit in a test delivery, where it is both before and after.
const NO_MOVE: &str = "1111111111111111111111111111111111111111";

/// Secrets are copied by hand, and some tools drop the padding.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::signature;

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

    fn ids(event: Result<Event, Malformed>) -> (String, Option<String>, Option<String>) {
        let Ok(Event::Push(push)) = event else { panic!("no push: {event:?}") };
        let text = |id: Option<crate::domain::revision::Revision>| id.map(|id| id.short().to_owned());
        (push.ref_name.to_string(), text(push.before), text(push.after))
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
            let expected = if list.contains(", ") { Refusal::NotBase64 } else { Refusal::UnknownVersions };
            assert_eq!(of(list), Err(expected), "{list}");
        }
        for list in ["v1,", "v1,AAAA", "v1,***", GOOD.trim_end_matches('='), &format!("{GOOD},{GOOD}")] {
            assert_eq!(of(list), Err(Refusal::NotBase64), "{list}");
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
    fn the_recorded_payloads_say_what_happened() {
        let file = |name: &str| std::fs::read(format!("fixtures/webhooks/gitlab/{name}.json")).unwrap();
        let table = [
            ("push", "Push Hook", "refs/heads/main", Some("6113728"), Some("0d1a26e")),
            ("system-push", "System Hook", "refs/heads/main", Some("6113728"), Some("0d1a26e")),
            ("tag", "Tag Push Hook", "refs/tags/v1.0.0", None, Some("0d1a26e")),
            ("delete", "Push Hook", "refs/heads/release/2.0", Some("0d1a26e"), None),
        ];
        for (name, event, ref_name, before, after) in table {
            let found = read(event, &file(name));
            assert!(matches!(&found, Ok(Event::Push(push)) if push.repository == "acme/web/blog"), "{name}: {found:?}");
            assert_eq!(ids(found), (ref_name.into(), before.map(Into::into), after.map(Into::into)), "{name}");
        }
        assert_eq!(read("Push Hook", &file("test")), Ok(Event::Ping));
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
