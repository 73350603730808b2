//! One to three changes of a request, as an attacker, a proxy or a careless library would make them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use serde_json::Value;

use crate::webhook::{CONTENT_TYPE, FORM, JSON, Request};

/// A small generator of numbers (SplitMix64): the same seed gives the same numbers everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the limit; 0 if there is none.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Changes a request in one to three ways, with pieces of another authentic one; says in which.
pub(super) fn mutate(random: &mut Random, request: &mut Request, other: &Request) -> Vec<&'static str> {
    let mut names = Vec::new();
    for _ in 0..=random.below(3) {
        let (name, change) = random.one_of(CHANGES);
        change(random, request, other);
        names.push(name);
    }
    names
}

/// A body as a form has it.
pub(super) fn as_form(json: &[u8]) -> Vec<u8> {
    let mut form = b"payload=".to_vec();
    for byte in json {
        match byte {
            b' ' => form.push(b'+'),
            byte if byte.is_ascii_alphanumeric() => form.push(*byte),
            byte => form.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    form
}

type Change = fn(&mut Random, &mut Request, &Request);

const CHANGES: &[(&str, Change)] = &[
    ("a bit flipped", |random, request, _| {
        let (part, range) = range(random, request);
        let bit = random.below(8);
        part[range].iter_mut().take(1).for_each(|byte| *byte ^= 1 << bit);
    }),
    ("a byte inserted", |random, request, _| {
        let (part, range) = range(random, request);
        part.insert(range.start, random.next().to_le_bytes()[0]);
    }),
    ("bytes deleted", |random, request, _| {
        let (part, range) = range(random, request);
        part.drain(range);
    }),
    ("bytes repeated", |random, request, _| {
        let (part, range) = range(random, request);
        let copy = part[range.clone()].to_vec();
        part.splice(range.start..range.start, copy);
    }),
    ("cut off", |random, request, _| {
        let (part, range) = range(random, request);
        part.truncate(range.start);
    }),
    ("a header dropped", |random, request, _| {
        if let Some(index) = header(random, request) {
            request.headers.remove(index);
        }
    }),
    ("a header twice", |random, request, _| {
        let Some(index) = header(random, request) else { return };
        let copy = request.headers[index].clone();
        request.headers.insert(random.below(request.headers.len() + 1), copy);
    }),
    ("a header renamed", |random, request, _| {
        if let Some(index) = header(random, request) {
            request.headers[index].0 = random.one_of(NAMES).to_owned();
        }
    }),
    ("a header's name in capitals", |random, request, _| {
        if let Some(index) = header(random, request) {
            request.headers[index].0.make_ascii_uppercase();
        }
    }),
    ("headers in another order", |random, request, _| {
        if let Some((one, two)) = header(random, request).zip(header(random, request)) {
            request.headers.swap(one, two);
        }
    }),
    ("a strange header", |random, request, _| {
        let (name, value) = (random.one_of(NAMES).to_owned(), random.one_of(VALUES).to_vec());
        request.headers.insert(random.below(request.headers.len() + 1), (name, value));
    }),
    ("another value", |random, request, _| {
        if let Some(index) = header(random, request) {
            request.headers[index].1 = random.one_of(VALUES).to_vec();
        }
    }),
    ("white space beside a value", |random, request, _| {
        let Some(index) = header(random, request) else { return };
        let value = &mut request.headers[index].1;
        value.insert(random.one_of(&[0, value.len()]), random.one_of(b" \t\r\n\0"));
    }),
    ("a value in another case", |random, request, _| {
        let Some(index) = header(random, request) else { return };
        let value = &mut request.headers[index].1;
        if random.below(2) == 0 { value.make_ascii_uppercase() } else { value.make_ascii_lowercase() }
    }),
    ("the digits in another case", |_, request, _| {
        for (_, value) in request.headers.iter_mut().filter(|(name, _)| name.contains("signature")) {
            let prefix = prefix_length(value);
            value[prefix..].make_ascii_uppercase();
        }
    }),
    ("a value in another encoding", |random, request, _| {
        let Some(index) = header(random, request) else { return };
        let value = &mut request.headers[index].1;
        let (prefix, encoded) = value.split_at(prefix_length(value));
        let decoded = hex::decode(encoded).or_else(|_| STANDARD.decode(encoded)).unwrap_or_else(|_| encoded.to_vec());
        let encoded = match random.below(6) {
            0 => hex::encode(decoded),
            1 => STANDARD.encode(decoded),
            2 => STANDARD_NO_PAD.encode(decoded),
            3 => URL_SAFE.encode(decoded),
            4 => STANDARD.encode(hex::encode(decoded)),
            _ => decoded.iter().map(|byte| format!("%{byte:02X}")).collect(),
        };
        *value = [prefix, encoded.as_bytes()].concat();
    }),
    ("another prefix", |random, request, _| {
        let Some(index) = header(random, request) else { return };
        let value = &mut request.headers[index].1;
        *value = [random.one_of(PREFIXES), &value[prefix_length(value)..]].concat();
    }),
    ("a list of values", |random, request, other| {
        let Some(index) = header(random, request) else { return };
        let (name, value) = &mut request.headers[index];
        let beside =
            other.headers.iter().find(|(found, _)| found == name).map_or(random.one_of(VALUES), |(_, value)| value);
        let delimiter = random.one_of(&[b" ".as_slice(), b",", b", ", b";"]);
        *value = [beside, delimiter, value.as_slice()].concat();
    }),
    ("the event by another name", |random, request, _| {
        for (_, value) in request.headers.iter_mut().filter(|(name, _)| name.contains("event")) {
            *value = random.one_of(EVENTS).into();
        }
    }),
    ("another content type", |random, request, _| {
        for (_, value) in request.headers.iter_mut().filter(|(name, _)| name == CONTENT_TYPE) {
            *value =
                random.one_of(&[JSON, FORM, "text/plain", "application/x-www-form-urlencoded; charset=utf-8"]).into();
        }
    }),
    ("the body as a form", |random, request, _| {
        request.body = as_form(&request.body);
        let types = request.headers.iter_mut().filter(|(name, _)| name == CONTENT_TYPE);
        types.take(random.below(2)).for_each(|(_, value)| *value = FORM.into());
    }),
    ("the same JSON in another spelling", |random, request, _| {
        let Ok(json) = serde_json::from_slice::<Value>(&request.body) else { return };
        request.body = match random.below(4) {
            0 => serde_json::to_vec_pretty(&json).unwrap(),
            1 => [request.body.as_slice(), b"\n"].concat(),
            2 => [b"\xef\xbb\xbf".as_slice(), &request.body].concat(),
            _ => String::from_utf8_lossy(&request.body).replacen("refs/", "\\u0072efs\\/", 1).into_bytes(),
        };
    }),
    ("a key of the JSON twice", |random, request, _| {
        let key = random.one_of(&["ref", "after", "before", "object_kind", "checkout_sha", "deleted"]);
        let pair = format!("{{\"{key}\":\"refs/heads/main\",");
        request.body = [pair.as_bytes(), request.body.strip_prefix(b"{").unwrap_or(&request.body)].concat();
    }),
    ("the other's body", |_, request, other| request.body.clone_from(&other.body)),
    ("the other's headers", |_, request, other| request.headers.clone_from(&other.headers)),
    ("a value of the other's", |random, request, other| {
        let Some(index) = header(random, request) else { return };
        let (name, value) = &mut request.headers[index];
        if let Some((_, others)) = other.headers.iter().find(|(found, _)| found == name) {
            value.clone_from(others);
        }
    }),
    ("a header of the other's beside", |random, request, other| {
        if let Some(index) = header(random, other) {
            request.headers.insert(random.below(request.headers.len() + 1), other.headers[index].clone());
        }
    }),
];

/// The body or the value of a header, and a range within, which is empty if the part is.
fn range<'r>(random: &mut Random, request: &'r mut Request) -> (&'r mut Vec<u8>, std::ops::Range<usize>) {
    let headers = request.headers.len();
    let part = match random.below(2 * headers) {
        index if index < headers => &mut request.headers[index].1,
        _ => &mut request.body,
    };
    let start = random.below(part.len());
    let length = 1 + random.below(random_length(part.len() - start));
    let end = part.len().min(start + length);
    (part, start..end)
}

/// Short ranges are more telling than long ones.
fn random_length(rest: usize) -> usize {
    rest.min(16)
}

fn header(random: &mut Random, request: &Request) -> Option<usize> {
    (!request.headers.is_empty()).then(|| random.below(request.headers.len()))
}

/// `sha256=`, `v1,`, `Basic `: up to the first delimiter, if there is one near the beginning.
fn prefix_length(value: &[u8]) -> usize {
    value.iter().take(8).position(|byte| b"=, ".contains(byte)).map_or(0, |place| place + 1)
}

const NAMES: &[&str] = &[
    "x-hub-signature",
    "x-hub-signature-256",
    "x-github-event",
    "x-github-delivery",
    "x-gitea-signature",
    "x-gitea-event",
    "x-forgejo-signature",
    "x-forgejo-delivery",
    "x-gogs-signature",
    "x-gogs-event",
    "x-gitlab-token",
    "x-gitlab-event",
    "idempotency-key",
    "x-event-key",
    "x-request-uuid",
    "x-request-id",
    "x-payload-nonce",
    "x-payload-signature",
    "x-webhook-delivery",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "content-type",
    "content-encoding",
    "authorization",
    "x-hub-signature_256",
    "",
];

const VALUES: &[&[u8]] = &[
    b"",
    b"sha256=",
    b"sha256=0000000000000000000000000000000000000000000000000000000000000000",
    b"v1,",
    b"Basic YWRhOg==",
    b"f070a0bf609e2d52",
    b"v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    b"0",
    b"1787392881",
    b"msg_1",
    b"gzip",
    b"push",
    b"application/json",
    b"\xff\xfe",
];

const PREFIXES: &[&[u8]] =
    &[b"", b"sha1=", b"SHA256=", b"sha256", b"sha256==", b"sha512=", b"v1", b"v1a,", b"v2,", b"v1,v1,"];

const EVENTS: &[&str] =
    &["push", "ping", "create", "Push Hook", "Tag Push Hook", "System Hook", "Note Hook", "PUSH", ""];
