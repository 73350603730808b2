//! What is kept of a delivery: everything that it takes to say why it did (not) deploy and to do it again, and no secret.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem;
use regex::bytes::Regex;

use super::Verified;
use crate::domain::forge::Forge;
use crate::domain::secret::Secret;

/// A delivery as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Names, lower-case, and values; of what is secret or a cookie a placeholder.
    pub headers: Vec<(String, String)>,
    /// The bytes, with a placeholder for each secret.
    pub body: Vec<u8>,
}

impl Verified {
    /// What may be kept of the delivery, given the secrets that prove such ones. Old Gitea and Gogs write the secret into
    /// the payload (go-gitea/gitea#3901), and a GitLab token is one in a header.
    pub fn record(&self, secrets: &[Secret]) -> Record {
        let mut needles: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| spellings(secret.expose())).collect();
        if self.forge == Forge::Azure {
            // Of `user:password` the password alone.
            let passwords = secrets.iter().filter_map(|secret| secret.expose().splitn(2, |byte| *byte == b':').nth(1));
            needles.extend(passwords.filter(|password| password.len() >= SHORTEST_PASSWORD).flat_map(spellings));
        }
        // The longest first: one may be the beginning of another.
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        let headers = self.request.headers.iter().take(MOST_HEADERS).map(|(name, value)| {
            let secret = sounds_secret(name) || holds(value, &needles);
            let shown = if secret { REDACTED.to_owned() } else { String::from_utf8_lossy(value).into_owned() };
            (name.clone(), shown)
        });
        let body = without(&self.request.body, &needles);
        let may_hold_field = matches!(self.forge, Forge::Gitea | Forge::Forgejo | Forge::Gogs);
        let body = if may_hold_field { without_secret_field(&body) } else { body };
        Record { headers: headers.collect(), body }
    }
}

/// How a secret may stand in a body: as it is, in JSON, and in a form. The forges that write it there are written in Go, whose
/// JSON and forms escape more, or other characters, than most.
fn spellings(raw: &[u8]) -> Vec<Vec<u8>> {
    if raw.is_empty() {
        return Vec::new();
    }
    let mut texts = vec![raw.to_vec()];
    if let Some(json) = std::str::from_utf8(raw).ok().and_then(|text| serde_json::to_string(text).ok()) {
        let inner = &json[1..json.len() - 1];
        texts.push(inner.as_bytes().to_vec());
        let of_go = inner.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
        texts.push(of_go.into_bytes());
    }
    let encoded = texts.iter().flat_map(|text| [percent_encoded(text, b"*-._"), percent_encoded(text, b"-._~")]);
    let mut spellings: Vec<_> = encoded.collect();
    spellings.extend(texts);
    spellings.sort();
    spellings.dedup();
    spellings
}

/// As in a form; of the punctuation only this stays as it is.
pub(super) fn percent_encoded(bytes: &[u8], plain: &[u8]) -> Vec<u8> {
    let encoded = bytes.iter().flat_map(|byte| match byte {
        b' ' => vec![b'+'],
        same if same.is_ascii_alphanumeric() || plain.contains(same) => vec![*same],
        other => format!("%{other:02X}").into_bytes(),
    });
    encoded.collect()
}

/// Proxies and forges let their users add headers of their own, such as `x-api-key`.
fn sounds_secret(name: &str) -> bool {
    !HARMLESS_HEADERS.contains(&name) && SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn holds(value: &[u8], needles: &[Vec<u8>]) -> bool {
    needles.iter().any(|needle| memmem::find(value, needle).is_some())
}

fn without(body: &[u8], needles: &[Vec<u8>]) -> Vec<u8> {
    let mut body = body.to_vec();
    for needle in needles {
        if memmem::find(&body, needle).is_none() {
            continue;
        }
        let (mut kept, mut from) = (Vec::with_capacity(body.len()), 0);
        for at in memmem::find_iter(&body, needle) {
            kept.extend_from_slice(&body[from..at]);
            kept.extend_from_slice(REDACTED.as_bytes());
            from = at + needle.len();
        }
        kept.extend_from_slice(&body[from..]);
        body = kept;
    }
    body
}

/// Also a secret that is not the configured one any more, and has its own field.
fn without_secret_field(body: &[u8]) -> Vec<u8> {
    let in_json = SECRET_FIELD.as_ref().map(|field| field.replace_all(body, &b"${1}\"(redacted)\""[..]));
    let body = in_json.unwrap_or(Cow::Borrowed(body));
    match SECRET_FIELD_IN_FORM.as_ref() {
        Some(field) => field.replace_all(&body, &b"${1}%22(redacted)%22"[..]).into_owned(),
        None => body.into_owned(),
    }
}

static SECRET_FIELD: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?-u)("secret"\s*:\s*)"(?:[^"\\]|\\.)*""#).ok());
static SECRET_FIELD_IN_FORM: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?-u)(%22secret%22(?:%20|\+|%0A)*%3A(?:%20|\+)*)%22.*?%22").ok());

/// Neither ends a text of JSON nor of a form.
const REDACTED: &str = "(redacted)";

const SECRET_WORDS: [&str; 9] = ["auth", "cookie", "token", "secret", "password", "passwd", "key", "jwt", "credential"];

/// Names of the forges that only sound like it.
const HARMLESS_HEADERS: [&str; 2] = ["idempotency-key", "x-event-key"];

/// What is shorter stands in many a text.
const SHORTEST_PASSWORD: usize = 8;

/// More than any forge sends with all proxies on the way.
const MOST_HEADERS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::Request;

    fn record(headers: &[(&str, &str)], body: &str, secret: &str) -> Record {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        let request = Request { headers, body: body.into() };
        Verified { forge: Forge::Github, request }.record(&[Secret::new(secret.into())])
    }

    #[test]
    fn no_secret_is_kept_however_it_is_spelled() {
        let secret = "a \"secret\" & 1/2 of it";
        let spelled = [
            secret.to_owned(),
            serde_json::to_string(secret).unwrap(),
            "payload=%7B%22secret%22%3A%22a+%5C%22secret%5C%22+%26+1%2F2+of+it%22%7D".to_owned(),
            "x=a+%22secret%22+%26+1%2F2+of+it&y".to_owned(),
            format!("{secret}{secret}"),
        ];
        for body in spelled {
            let kept = String::from_utf8(record(&[], &format!("before {body} after"), secret).body).unwrap();
            assert!(kept.starts_with("before ") && kept.ends_with(" after"), "{kept}");
            assert!(kept.contains("(redacted)") && !kept.contains("of it") && !kept.contains("of+it"), "{kept}");
        }
        // What Go's `json.Marshal` and `url.Values.Encode` make of it.
        let (of_go, secret_of_go) = (r"a\u0026b\u003c*~\u003e and more of it", "a&b<*~> and more of it");
        let form = "payload=%7B%22secret%22%3A%22a%5Cu0026b%5Cu003c%2A~%5Cu003e+and+more+of+it%22%7D";
        for body in [of_go, form, "x=a%26b%3C%2A~%3E+and+more+of+it"] {
            let kept = String::from_utf8(record(&[], body, secret_of_go).body).unwrap();
            assert!(kept.contains("(redacted)") && !kept.contains("more"), "{kept}");
        }
        assert_eq!(record(&[], r#"{"a":1}"#, secret).body, br#"{"a":1}"#);
    }

    #[test]
    fn the_secret_field_of_old_gitea_is_not_kept_whatever_is_in_it() {
        let table = [
            (
                r#"{"secret":"another \" one","ref":"refs/heads/secret"}"#,
                r#"{"secret":"(redacted)","ref":"refs/heads/secret"}"#,
            ),
            ("{\n  \"secret\": \"x\",\n  \"a\": 1\n}", "{\n  \"secret\": \"(redacted)\",\n  \"a\": 1\n}"),
            (r#"{"message":"the \"secret\": is out"}"#, r#"{"message":"the \"secret\": is out"}"#),
            (
                "payload=%7B%22secret%22%3A%22another%22%2C%22a%22%3A1%7D",
                "payload=%7B%22secret%22%3A%22(redacted)%22%2C%22a%22%3A1%7D",
            ),
        ];
        for (body, expected) in table {
            let request = Request { headers: Vec::new(), body: body.into() };
            let kept = Verified { forge: Forge::Gitea, request }.record(&[Secret::new(b"the configured one".to_vec())]);
            assert_eq!(String::from_utf8(kept.body).unwrap(), expected);
        }
    }

    #[test]
    fn tokens_and_cookies_are_not_kept_and_signatures_are() {
        let kept = record(
            &[
                ("authorization", "Basic abc"),
                ("cookie", "session=1"),
                ("x-gitlab-token", "another"),
                ("x-custom", "the secret of the hook is in here"),
                ("x-api-key", "a"),
                ("cf-access-client-secret", "b"),
                ("x-forwarded-access-token", "c"),
                ("idempotency-key", "d"),
                ("x-event-key", "repo:push"),
                ("x-github-event", "push"),
                ("x-hub-signature-256", "sha256=00"),
            ],
            "",
            "secret of the hook",
        );
        let values: Vec<_> = kept.headers.iter().map(|(_, value)| value.as_str()).collect();
        let hidden = ["(redacted)"; 7];
        let shown = ["d", "repo:push", "push", "sha256=00"];
        assert_eq!(values, [&hidden[..], &shown].concat());
    }

    #[test]
    fn of_two_secrets_one_may_begin_like_the_other_and_a_password_is_one_without_its_user() {
        let secrets = ["first part", "first part and more"].map(|text| Secret::new(text.into()));
        let request = Request { headers: Vec::new(), body: b"x first part and more y first part z".to_vec() };
        let kept = Verified { forge: Forge::Github, request: request.clone() }.record(&secrets).body;
        assert_eq!(String::from_utf8(kept).unwrap(), "x (redacted) y (redacted) z");
        let body = b"user hook, password of the hook".to_vec();
        let kept = Verified { forge: Forge::Azure, request: Request { body, ..request } }
            .record(&[Secret::new(b"hook:password of the hook".to_vec())]);
        assert_eq!(String::from_utf8(kept.body).unwrap(), "user hook, (redacted)");
    }
}
