//! What the fuzz targets share: senders that play the forges, and requests as text.
//!
//! The senders are written after the forges' manuals and not after `landfall::webhook`: where the two disagree, a target
//! says so. A target's input is a byte that chooses the sender, and a request as [`text_of`] writes it, so that what the
//! fuzzer learns about one header helps it with the next.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use landfall::domain::forge::Forge;
use landfall::domain::push::RefName;
use landfall::domain::revision::Revision;
use landfall::domain::secret::Secret;
use landfall::webhook::{Request, TestKind, TestMessage, compose};
use sha2::{Digest, Sha256};

/// Who sends, and how it proves that.
pub struct Sender {
    /// What Landfall is configured for.
    pub forge: Forge,
    /// What both know.
    pub secret: &'static str,
    /// The headers of its proof.
    pub proof: &'static [&'static str],
    /// Puts the proof on a request that has none; none if the forge would not send such a request.
    pub sign: fn(&Request, &str) -> Option<Headers>,
    /// What the proof covers.
    pub proven: fn(&Request) -> Vec<Vec<u8>>,
}

/// Names and values.
pub type Headers = Vec<(String, Vec<u8>)>;

/// Every way in which a forge proves its requests. No two share a secret: what one has signed, the other would believe.
pub static SENDERS: &[Sender] = &[
    Sender {
        forge: Forge::Github,
        secret: "a secret of GitHub",
        proof: &["x-hub-signature-256"],
        sign: |request, secret| {
            let signature = hex::encode(hmac(secret.as_bytes(), &[&request.body]));
            header("x-hub-signature-256", format!("sha256={signature}"))
        },
        proven: body,
    },
    Sender {
        forge: Forge::Gitlab,
        secret: "a token of GitLab",
        proof: &["x-gitlab-token"],
        sign: |_, secret| header("x-gitlab-token", secret.to_owned()),
        proven: |request| values(request, "x-gitlab-token"),
    },
    Sender {
        forge: Forge::Gitlab,
        secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=",
        proof: STANDARD_WEBHOOKS,
        sign: sign_standard,
        proven: standard,
    },
    Sender {
        forge: Forge::Gitea,
        secret: "a secret of Gitea",
        proof: &["x-gitea-signature"],
        sign: |request, secret| header("x-gitea-signature", sign_json(request, secret)?),
        proven: |request| json_in(request).into_iter().collect(),
    },
    Sender {
        forge: Forge::Forgejo,
        secret: "a secret of Forgejo",
        proof: &["x-forgejo-signature"],
        sign: |request, secret| header("x-forgejo-signature", sign_json(request, secret)?),
        proven: |request| json_in(request).into_iter().collect(),
    },
    Sender {
        forge: Forge::Gogs,
        secret: "a secret of Gogs",
        proof: &["x-gogs-signature"],
        sign: |request, secret| header("x-gogs-signature", sign_json(request, secret)?),
        proven: |request| json_in(request).into_iter().collect(),
    },
    Sender {
        forge: Forge::Bitbucket,
        secret: "a secret of Bitbucket",
        proof: &["x-hub-signature"],
        sign: sign_hub,
        proven: body,
    },
    Sender {
        forge: Forge::BitbucketDc,
        secret: "a secret of Bitbucket Data Center",
        proof: &["x-hub-signature"],
        sign: sign_hub,
        proven: body,
    },
    Sender {
        forge: Forge::Azure,
        secret: PASSWORD,
        proof: &["authorization"],
        sign: |_, secret| header("authorization", format!("Basic {}", STANDARD.encode(format!("ada:{secret}")))),
        proven: |request| credentials(request, PASSWORD),
    },
    Sender {
        forge: Forge::Azure,
        secret: USER_AND_PASSWORD,
        proof: &["authorization"],
        sign: |_, secret| header("authorization", format!("Basic {}", STANDARD.encode(secret))),
        proven: |request| credentials(request, USER_AND_PASSWORD),
    },
    Sender {
        forge: Forge::Sourcehut,
        secret: "Lj1GvEKXBCRbWZmhNI0hUkmuh/27Nvu4lcZhH1aiddk=",
        proof: &["x-payload-nonce", "x-payload-signature"],
        sign: |request, _| {
            let nonce = "f070a0bf609e2d52";
            let signature = ed25519(&[request.body.as_slice(), nonce.as_bytes()].concat());
            let (nonce, signature) = (header("x-payload-nonce", nonce.into())?, STANDARD.encode(signature));
            Some([nonce, header("x-payload-signature", signature)?].concat())
        },
        proven: |request| [body(request), values(request, "x-payload-nonce")].concat(),
    },
    Sender {
        forge: Forge::Standard,
        secret: "whsec_YSBzZWNyZXQgb2YgU3RhbmRhcmQgV2ViaG9va3M=",
        proof: STANDARD_WEBHOOKS,
        sign: sign_standard,
        proven: standard,
    },
    Sender {
        forge: Forge::Standard,
        secret: "whpk_Lj1GvEKXBCRbWZmhNI0hUkmuh/27Nvu4lcZhH1aiddk=",
        proof: STANDARD_WEBHOOKS,
        sign: |request, _| {
            Some(standard_headers(|signed| format!("v1a,{}", STANDARD.encode(ed25519(signed))), request))
        },
        proven: standard,
    },
];

impl Sender {
    /// The secret as Landfall has it.
    pub fn secrets(&self) -> [Secret; 1] {
        [Secret::new(self.secret.into())]
    }

    /// What `send-test` would send: pushes of several kinds, and a ping; where it can send nothing, what was recorded.
    pub fn composed(&self) -> Vec<Request> {
        let [one, two] = ["1", "2"].map(|digit| Revision::parse(&digit.repeat(40)).expect("a commit"));
        let refs = ["refs/heads/main", "refs/tags/v1.0"].map(|name| RefName::parse(name).expect("a ref"));
        let pushes = refs
            .iter()
            .flat_map(|ref_name| [None, Some(&one)].map(|before| TestKind::Push { ref_name, before, after: &two }));
        let kinds = pushes.chain([TestKind::Ping]);
        let message = |kind| TestMessage { key: "id-1", repository: REPOSITORY, kind };
        let composed = kinds.map(|kind| compose(self.forge, &self.secrets()[0], &message(kind), now()));
        match composed.collect() {
            Ok(requests) => requests,
            Err(_) => recorded(self.forge).into_iter().filter_map(|request| self.signed(request)).collect(),
        }
    }

    /// The request with this sender's proof, and no other; none if it would not send such a one.
    pub fn signed(&self, mut request: Request) -> Option<Request> {
        request.headers.retain(|(name, _)| !self.proof.contains(&name.as_str()));
        let proof = (self.sign)(&request, self.secret)?;
        request.headers.extend(proof);
        Some(request)
    }
}

/// The sender that an input chooses, and the request in it.
pub fn sent(input: &[u8]) -> Option<(&'static Sender, Request)> {
    let (choice, text) = input.split_first()?;
    Some((&SENDERS[usize::from(*choice) % SENDERS.len()], request_of(text)))
}

/// The input that [`sent`] takes apart.
pub fn input_of(sender: &Sender, request: &Request) -> Vec<u8> {
    let choice = SENDERS.iter().position(|other| std::ptr::eq(other, sender)).expect("one of the senders");
    let mut input = vec![u8::try_from(choice).expect("few senders")];
    input.extend(text_of(request));
    input
}

/// A request as HTTP would write it: `name: value` lines, an empty one, the body.
fn text_of(Request { headers, body }: &Request) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in headers {
        text.extend([name.as_bytes(), b": ", value, b"\n"].concat());
    }
    [text.as_slice(), b"\n", body].concat()
}

/// Names are what an HTTP server lets through: lower-case ASCII. Values may be any bytes but a newline.
fn request_of(mut text: &[u8]) -> Request {
    let mut headers = Vec::new();
    while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
        let line = &text[..end];
        text = &text[end + 1..];
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        let value = line.get(colon + 1..).unwrap_or_default();
        headers.push((name, value.strip_prefix(b" ").unwrap_or(value).to_vec()));
    }
    Request { headers, body: text.to_vec() }
}

/// All values of a header.
pub fn values(request: &Request, name: &str) -> Vec<Vec<u8>> {
    let named = request.headers.iter().filter(|(found, _)| found == name);
    named.map(|(_, value)| value.clone()).collect()
}

/// The time at which everything is sent and received.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_787_392_881, 0).expect("a time")
}

/// Asserts that a text can be shown in one line of a log or of a forge's page.
pub fn assert_showable(text: &str) {
    assert!(!text.is_empty() && text.chars().count() <= 300, "{} characters: {text:?}", text.chars().count());
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// Writes the inputs to begin with into the directory that `run.sh` names; libFuzzer reads it after that.
pub fn plant(seeds: impl IntoIterator<Item = Vec<u8>>) {
    for forge in Forge::ALL {
        assert!(SENDERS.iter().any(|sender| sender.forge == forge), "fuzz/src/lib.rs has no sender for {forge}");
    }
    let Some(directory) = std::env::var_os("LANDFALL_FUZZ_SEEDS").map(PathBuf::from) else { return };
    for (number, seed) in seeds.into_iter().enumerate() {
        std::fs::write(directory.join(format!("seed-{number}")), seed).expect("a seed is written");
    }
}

/// The files below a directory of `fixtures/`, with their paths.
pub fn fixtures(directory: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut waiting = vec![SOURCE.join("fixtures").join(directory)];
    let mut found = Vec::new();
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).expect("a directory of fixtures") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.push((path.clone(), std::fs::read(&path).expect("a fixture")));
            }
        }
    }
    assert!(!found.is_empty(), "fixtures/{directory} is empty");
    found.sort();
    found
}

/// The deliveries of a forge in `fixtures/webhooks`: each body with the headers beside it.
pub fn recorded(forge: Forge) -> Vec<Request> {
    let bodies = fixtures(&format!("webhooks/{forge}")).into_iter();
    let bodies = bodies.filter(|(path, _)| path.extension().is_some_and(|extension| extension != "headers"));
    bodies
        .map(|(path, body)| {
            let headers = std::fs::read(path.with_extension("headers")).expect("the headers of a fixture");
            Request { body, ..request_of(&headers) }
        })
        .collect()
}

/// Landfall's sources.
pub static SOURCE: LazyLock<&Path> =
    LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("fuzz/ is in the sources"));

fn header(name: &str, value: String) -> Option<Headers> {
    Some(vec![(name.into(), value.into())])
}

fn body(request: &Request) -> Vec<Vec<u8>> {
    vec![request.body.clone()]
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// Gogs and its descendants sign the JSON, and then may put it into a form.
fn sign_json(request: &Request, secret: &str) -> Option<String> {
    Some(hex::encode(hmac(secret.as_bytes(), &[&json_in(request)?])))
}

/// The JSON of a body, or of the one field `payload` of a form; none for what is neither.
fn json_in(request: &Request) -> Option<Vec<u8>> {
    let types = values(request, "content-type");
    if types.len() > 1 {
        return None;
    }
    let media_type = types.first().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Some(request.body.clone());
    }
    if request.body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let mut payloads = Vec::new();
    for field in request.body.split(|byte| *byte == b'&') {
        let end = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
        let (name, value) = (decoded(&field[..end])?, decoded(field.get(end + 1..).unwrap_or_default())?);
        if name == b"payload" {
            payloads.push(value);
        }
    }
    if payloads.len() == 1 { payloads.pop() } else { None }
}

fn decoded(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, rest) = text.split_at_checked(2)?;
                text = rest;
                hex::decode(digits).ok()?[0]
            }
            other => *other,
        });
    }
    Some(bytes)
}

/// The parts that Standard Webhooks signs.
fn standard(request: &Request) -> Vec<Vec<u8>> {
    [values(request, "webhook-id"), values(request, "webhook-timestamp"), body(request)].concat()
}

fn sign_standard(request: &Request, secret: &str) -> Option<Headers> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    Some(standard_headers(|signed| format!("v1,{}", STANDARD.encode(hmac(&key, &[signed]))), request))
}

fn standard_headers(sign: impl Fn(&[u8]) -> String, request: &Request) -> Headers {
    let (id, timestamp) = ("id-1".to_owned(), now().timestamp().to_string());
    let signature = sign(&[format!("{id}.{timestamp}.").as_bytes(), &request.body].concat());
    let headers = STANDARD_WEBHOOKS.iter().zip([id, timestamp, signature]);
    headers.map(|(name, value)| ((*name).to_owned(), value.into())).collect()
}

fn sign_hub(request: &Request, secret: &str) -> Option<Headers> {
    header("x-hub-signature", format!("sha256={}", hex::encode(hmac(secret.as_bytes(), &[&request.body]))))
}

/// What of basic authentication ends like the secret: whoever knows that may put any user before it.
fn credentials(request: &Request, secret: &str) -> Vec<Vec<u8>> {
    let value = values(request, "authorization").concat();
    let encoded = value.strip_prefix(b"Basic ").unwrap_or_default();
    let decoded = STANDARD.decode(encoded).unwrap_or_default();
    vec![decoded[decoded.len().saturating_sub(secret.len())..].to_vec()]
}

/// Signs with the private half of the key that the fixtures are signed with.
fn ed25519(signed: &[u8]) -> Vec<u8> {
    static KEY: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::from_bytes(&Sha256::digest("a secret of the fixtures").into()));
    KEY.sign(signed).to_bytes().to_vec()
}

/// The repository of all seeds.
pub const REPOSITORY: &str = "acme/blog";

const STANDARD_WEBHOOKS: &[&str] = &["webhook-id", "webhook-timestamp", "webhook-signature"];

const PASSWORD: &str = "a password of Azure";
const USER_AND_PASSWORD: &str = "ada:and another one";
