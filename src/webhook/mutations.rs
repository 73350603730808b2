//! 100,000 changed copies of authentic requests: none is believed that says something else than what was signed.
//!
//! ```text
//! composed by the forge ── one to three changes ──▶ authenticate ──▶ refused
//!   (the authentic ones)        (mutate)                 └─believed─▶ judge: the laws below
//! ```
//!
//! What a scheme does not prove, its own row in [`SCHEMES`] says; that much, and not more, may differ in a believed request.
//! Each case follows from its number alone, so that a failure can be looked at again.

mod mutate;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};

use self::mutate::{Random, as_form, mutate};
use super::signature::{self, Signature};
use super::*;

/// A forge with a kind of secret that it has, and what its proof is worth.
struct Scheme {
    name: &'static str,
    forge: Forge,
    secret: &'static str,
    /// The header that carries the proof: a believed request has it once.
    proof: &'static str,
    /// What the proof covers: in a believed request exactly what it is in an authentic one.
    proven: fn(&Request) -> Vec<Vec<u8>>,
    /// Whether the body is a part of that, and with it all that is read from it.
    proves_body: bool,
    /// Headers that choose how the body is read and that nothing proves. Who can change a request on its way can silence a
    /// push with them, or make another word of it, but not another push.
    event: &'static [&'static str],
    /// Headers that name the delivery and that nothing proves.
    key: &'static [&'static str],
}

const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "GitHub",
        forge: Forge::Github,
        secret: "5f2b8c1d9e3a7f60",
        proof: "x-hub-signature-256",
        proven: body,
        proves_body: true,
        event: &["x-github-event", "content-type"],
        key: &["x-github-delivery"],
    },
    Scheme {
        name: "GitLab with a signing token",
        forge: Forge::Gitlab,
        secret: fixtures::SIGNING_SECRET,
        proof: "webhook-signature",
        proven: standard_webhooks,
        proves_body: true,
        event: &["x-gitlab-event"],
        key: &[],
    },
    Scheme {
        name: "GitLab with a token",
        forge: Forge::Gitlab,
        secret: "5f2b8c1d9e3a7f60",
        proof: "x-gitlab-token",
        proven: |request| values(request, "x-gitlab-token"),
        proves_body: false,
        event: &["x-gitlab-event"],
        key: &["webhook-id", "idempotency-key"],
    },
    Scheme {
        name: "Gitea",
        forge: Forge::Gitea,
        secret: "5f2b8c1d9e3a7f60",
        proof: "x-gitea-signature",
        proven: json,
        proves_body: true,
        event: &["x-gitea-event"],
        key: &["x-gitea-delivery"],
    },
    Scheme {
        name: "Forgejo",
        forge: Forge::Forgejo,
        secret: "5f2b8c1d9e3a7f60",
        proof: "x-forgejo-signature",
        proven: json,
        proves_body: true,
        event: &["x-forgejo-event"],
        key: &["x-forgejo-delivery"],
    },
    Scheme {
        name: "Gogs",
        forge: Forge::Gogs,
        secret: "5f2b8c1d9e3a7f60",
        proof: "x-gogs-signature",
        proven: json,
        proves_body: true,
        event: &["x-gogs-event"],
        key: &["x-gogs-delivery"],
    },
    Scheme {
        name: "Bitbucket",
        forge: Forge::Bitbucket,
        secret: "5f2b8c1d9e3a7f60",
        proof: "x-hub-signature",
        proven: body,
        proves_body: true,
        event: &["x-event-key"],
        key: &["x-request-uuid"],
    },
    Scheme {
        name: "Bitbucket Data Center",
        forge: Forge::BitbucketDc,
        secret: "5f2b8c1d9e3a7f60",
        proof: "x-hub-signature",
        proven: body,
        proves_body: true,
        event: &["x-event-key"],
        key: &["x-request-id"],
    },
    Scheme {
        name: "Azure DevOps with a user and a password",
        forge: Forge::Azure,
        secret: "ada:5f2b8c1d9e3a7f60",
        proof: "authorization",
        proven: |request| vec![credentials(request)],
        proves_body: false,
        event: &[],
        key: &[],
    },
    Scheme {
        name: "Azure DevOps with a password",
        forge: Forge::Azure,
        secret: "5f2b8c1d9e3a7f60",
        proof: "authorization",
        proven: |request| credentials(request).splitn(2, |byte| *byte == b':').skip(1).map(<[u8]>::to_vec).collect(),
        proves_body: false,
        event: &[],
        key: &[],
    },
    Scheme {
        name: "SourceHut",
        forge: Forge::Sourcehut,
        secret: fixtures::PUBLIC_KEY,
        proof: "x-payload-signature",
        proven: |request| [body(request), values(request, "x-payload-nonce")].concat(),
        proves_body: true,
        event: &[],
        key: &[],
    },
    Scheme {
        name: "Standard Webhooks with a secret",
        forge: Forge::Standard,
        secret: fixtures::SIGNING_SECRET,
        proof: "webhook-signature",
        proven: standard_webhooks,
        proves_body: true,
        event: &[],
        key: &[],
    },
    Scheme {
        name: "Standard Webhooks with a public key",
        forge: Forge::Standard,
        secret: "whpk_Lj1GvEKXBCRbWZmhNI0hUkmuh/27Nvu4lcZhH1aiddk=",
        proof: "webhook-signature",
        proven: standard_webhooks,
        proves_body: true,
        event: &[],
        key: &[],
    },
];

fn body(request: &Request) -> Vec<Vec<u8>> {
    vec![request.body.clone()]
}

/// The user and the password of basic authentication.
fn credentials(request: &Request) -> Vec<u8> {
    let value = values(request, "authorization").concat();
    value.strip_prefix(b"Basic ").and_then(|encoded| STANDARD.decode(encoded).ok()).unwrap_or_default()
}

/// The JSON alone: a form around it may be written in many ways, and not be there at all.
fn json(request: &Request) -> Vec<Vec<u8>> {
    form::json_of(request).into_iter().map(Cow::into_owned).collect()
}

/// Each part on its own: where one ends and the next begins is proven too.
fn standard_webhooks(request: &Request) -> Vec<Vec<u8>> {
    [values(request, "webhook-id"), values(request, "webhook-timestamp"), body(request)].concat()
}

/// An authentic request, and what it says.
struct Authentic {
    request: Request,
    said: Parsed,
}

type Authenticate = fn(Forge, Request, &[Secret], DateTime<Utc>) -> Result<Verified, Refused>;

impl Scheme {
    fn secret(&self) -> Secret {
        Secret::new(self.secret.into())
    }

    fn authentic(&self) -> Vec<Authentic> {
        let requests = match self.compose("ping", TestKind::Ping) {
            Ok(ping) => [vec![ping], self.pushes()].concat(),
            // What we can not sign was recorded.
            Err(CannotSign::Sourcehut) => {
                let names = ["push.json", "force-push.json", "several.json", "tag.json", "delete.json"];
                names.map(|name| fixtures::load("sourcehut", name)).into()
            }
            Err(CannotSign::PublicKey) => vec![fixtures::load("standard", "push-public-key.json")],
        };
        requests.into_iter().map(|request| Authentic { said: self.read(&request), request }).collect()
    }

    fn pushes(&self) -> Vec<Request> {
        let id = |digit: &str, length: usize| Revision::parse(&digit.repeat(length)).unwrap();
        let sly = format!("refs/heads/a&{}&b", String::from_utf8(as_form(FORGED.as_bytes())).unwrap());
        let pushes = [
            ("refs/heads/main", Some(id("1", 40)), id("2", 40)),
            ("refs/heads/main", Some(id("2", 40)), id("3", 40)),
            ("refs/heads/ümläut", None, id("4", 64)),
            ("refs/tags/v1.0", None, id("5", 40)),
            // Read as a form, the body is another push.
            (&sly, Some(id("6", 40)), id("7", 40)),
        ];
        let composed = pushes.into_iter().enumerate().map(|(number, (ref_name, before, after))| {
            let ref_name = RefName::parse(ref_name).unwrap();
            let kind = TestKind::Push { ref_name: &ref_name, before: before.as_ref(), after: &after };
            self.compose(&format!("push-{number}"), kind).unwrap()
        });
        let mut requests: Vec<_> = composed.collect();
        requests.extend(self.form(&requests[0]));
        requests
    }

    fn compose(&self, key: &str, kind: TestKind<'_>) -> Result<Request, CannotSign> {
        compose(self.forge, &self.secret(), &TestMessage { key, repository: "acme/blog", kind }, now())
    }

    fn read(&self, request: &Request) -> Parsed {
        parse(&authenticate(self.forge, request.clone(), &[self.secret()], now()).unwrap()).unwrap()
    }

    /// The same as the forge would send it if it were told to send forms.
    fn form(&self, request: &Request) -> Option<Request> {
        let mut form = Request { body: as_form(&request.body), ..request.clone() };
        let (_, content_type) = form.headers.iter_mut().find(|(name, _)| name == CONTENT_TYPE)?;
        *content_type = FORM.into();
        match self.forge {
            Forge::Github => {
                let signature = Signature::new(self.secret.as_bytes(), &[&form.body]).into_bytes();
                let (_, proof) = form.headers.iter_mut().find(|(name, _)| name == self.proof)?;
                *proof = format!("sha256={}", hex::encode(signature)).into();
                Some(form)
            }
            // What they sign is the JSON.
            Forge::Gitea | Forge::Forgejo | Forge::Gogs => Some(form),
            Forge::Gitlab
            | Forge::Bitbucket
            | Forge::BitbucketDc
            | Forge::Azure
            | Forge::Sourcehut
            | Forge::Standard => None,
        }
    }
}

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The changes undid each other.
    Unchanged,
    Refused,
    /// What differs is nothing that was proven.
    Believed,
}

/// How many cases of a scheme ended how.
type Tally = BTreeMap<(&'static str, Verdict), usize>;

/// Holds a changed request against the laws; an error names the one that it breaks.
fn judge(
    scheme: &Scheme,
    authentic: &[Authentic],
    changed: &Request,
    believe: Authenticate,
) -> Result<Verdict, &'static str> {
    let same = |one: &Request| one.headers == changed.headers && one.body == changed.body;
    if authentic.iter().any(|one| same(&one.request)) {
        return Ok(Verdict::Unchanged);
    }
    let secrets = [scheme.secret()];
    let Ok(verified) = believe(scheme.forge, changed.clone(), &secrets, now()) else { return Ok(Verdict::Refused) };
    if check_head(scheme.forge, changed, &secrets).is_err() {
        return Err("what is believed is not refused before its body is read");
    }
    if values(changed, scheme.proof).len() != 1 {
        return Err("the proof is there once");
    }
    let proven = (scheme.proven)(changed);
    let mut originals = authentic.iter().filter(|one| (scheme.proven)(&one.request) == proven);
    let original = if scheme.proves_body {
        originals.next()
    } else {
        // Any body is as good as another; there is only something to compare with if it is one of ours.
        originals.next().ok_or("what is proven is what was signed")?;
        let Some(original) = authentic.iter().find(|one| one.request.body == changed.body) else {
            return Ok(Verdict::Believed);
        };
        Some(original)
    };
    let original = original.ok_or("what is proven is what was signed")?;
    compare(scheme, original, changed, &parse(&verified)).map(|()| Verdict::Believed)
}

/// What a believed request says is what the original says, apart from what headers say that nothing proves.
fn compare(
    scheme: &Scheme,
    original: &Authentic,
    changed: &Request,
    said: &Result<Parsed, Malformed>,
) -> Result<(), &'static str> {
    let touched = |names: &[&str]| names.iter().any(|name| values(changed, name) != values(&original.request, name));
    let (event_may_differ, key_may_differ) = (touched(scheme.event), touched(scheme.key));
    let said = match said {
        Ok(said) => said,
        Err(_) if event_may_differ => return Ok(()),
        Err(_) => return Err("what is authentic makes as much sense as before"),
    };
    let Parsed { key, event_name, event, digest } = said;
    if *event != original.said.event && (!event_may_differ || matches!(event, Event::Push(_))) {
        return Err("the event is the one that was sent");
    }
    if *event_name != original.said.event_name && !event_may_differ {
        return Err("the event's name is the one that was sent");
    }
    if *key != original.said.key && !key_may_differ {
        return Err("the key is the one that was sent");
    }
    if *digest != signature::digest(&changed.body) {
        return Err("the digest is the body's");
    }
    Ok(())
}

/// All values of a header.
fn values(request: &Request, name: &str) -> Vec<Vec<u8>> {
    let named = request.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.clone()).collect()
}

/// Runs the cases of these numbers; the first that breaks a law is told with all that is needed to understand it.
fn run(cases: impl Iterator<Item = u64>, believe: Authenticate) -> Result<Tally, String> {
    let all: Vec<(&Scheme, Vec<Authentic>)> = SCHEMES.iter().map(|scheme| (scheme, scheme.authentic())).collect();
    let mut tally = Tally::new();
    for case in cases {
        let mut random = Random::new(case);
        let (scheme, authentic) = &all[random.below(all.len())];
        let (one, other) = (random.below(authentic.len()), random.below(authentic.len()));
        let mut changed = authentic[one].request.clone();
        let changes = mutate(&mut random, &mut changed, &authentic[other].request);
        let verdict = judge(scheme, authentic, &changed, believe).map_err(|law| {
            let Request { headers, body } = &changed;
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {}\n", value.escape_ascii())).collect();
            format!(
                "the law is that {law}: case {case} of {}, authentic request {one} with {changes:?} (from {other})\n{headers}\n{}",
                scheme.name,
                body.escape_ascii()
            )
        })?;
        *tally.entry((scheme.name, verdict)).or_default() += 1;
    }
    Ok(tally)
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(fixtures::SIGNED_AT, 0).unwrap()
}

/// What somebody without the secret would like to be read.
const FORGED: &str = concat!(
    r#"{"ref":"refs/heads/main","before":"1111111111111111111111111111111111111111","#,
    r#""after":"ffffffffffffffffffffffffffffffffffffffff","repository":{"full_name":"acme/blog"}}"#
);

/// Of some of which the changes undo each other.
const CASES: u64 = 110_000;

#[test]
fn no_changed_request_is_believed_to_say_something_else() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = |thread: usize| (0..CASES).skip(thread).step_by(threads);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || run(share(thread), authenticate))).collect();
        let ended = running.into_iter().map(|thread| thread.join().unwrap());
        ended.map(|tally| tally.unwrap_or_else(|failure| panic!("{failure}"))).collect()
    });
    let count = |scheme: &Scheme, verdict| -> usize {
        tallies.iter().map(|tally| tally.get(&(scheme.name, verdict)).copied().unwrap_or_default()).sum()
    };
    let changed = |scheme: &Scheme| count(scheme, Verdict::Refused) + count(scheme, Verdict::Believed);
    assert!(SCHEMES.iter().map(changed).sum::<usize>() >= 100_000, "{tallies:?}");
    // Neither is believing nothing what is wanted, nor are these changes that nothing would believe anyhow.
    for scheme in SCHEMES {
        assert!(count(scheme, Verdict::Refused) > changed(scheme) / 10, "{}: {tallies:?}", scheme.name);
        assert!(count(scheme, Verdict::Believed) > changed(scheme) / 10, "{}: {tallies:?}", scheme.name);
    }
}

#[test]
fn every_forge_has_a_row() {
    for forge in Forge::ALL {
        assert!(SCHEMES.iter().any(|scheme| scheme.forge == forge), "{forge}");
    }
}

/// The laws can be broken: each of these would let something in.
#[test]
fn careless_ways_to_authenticate_are_found_out() {
    let careless: [(&str, Authenticate); 5] = [
        ("whoever asks", |forge, request, _, _| Ok(Verified { forge, request })),
        ("without the end of the body", |forge, request, secrets, now| {
            let cut = Request { body: request.body.trim_ascii_end().to_vec(), ..request.clone() };
            authenticate(forge, cut, secrets, now).map(|_| Verified { forge, request })
        }),
        ("with the first of several headers", |forge, request, secrets, now| {
            let mut once = request.clone();
            let mut seen = std::collections::HashSet::new();
            once.headers.retain(|(name, _)| seen.insert(name.to_ascii_lowercase()));
            authenticate(forge, once, secrets, now).map(|_| Verified { forge, request })
        }),
        ("with trimmed values", |forge, request, secrets, now| {
            let mut trimmed = request.clone();
            trimmed.headers.iter_mut().for_each(|(_, value)| *value = value.trim_ascii().to_vec());
            authenticate(forge, trimmed, secrets, now).map(|_| Verified { forge, request })
        }),
        ("after the body was read and written again", |forge, request, secrets, now| {
            let json: Option<serde_json::Value> = serde_json::from_slice(&request.body).ok();
            let body = json.map_or(request.body.clone(), |json| json.to_string().into_bytes());
            let written = Request { body, ..request.clone() };
            authenticate(forge, written, secrets, now).map(|_| Verified { forge, request })
        }),
    ];
    for (what, believe) in careless {
        let found = run(0..20_000, believe).expect_err(what);
        assert!(found.starts_with("the law is that "), "{what}: {found}");
    }
}
