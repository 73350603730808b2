//! What happens to a body between a forge and us: on its way, and when a person saves it.

use std::fmt;

use super::super::{Request, form, record};
use super::json::{self, Rewriting};
use super::{Allowance, Change};

/// What the body was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyChange {
    /// Something about its bytes; the words come after "would match if the body".
    Bytes(&'static str),
    /// The same JSON, written in another way.
    Json(Rewriting),
}

/// The bodies that this one may have been, each with the change that leads to it.
pub(super) fn changes<'a>(
    request: &'a Request,
    allowance: &'a Allowance,
) -> impl Iterator<Item = (BodyChange, Vec<u8>)> + 'a {
    let Request { body, .. } = request;
    let of_bytes = BYTES.iter().filter_map(move |(words, change)| Some((BodyChange::Bytes(words), change(body)?)));
    let as_form = form_changes(request).into_iter().map(|(words, body)| (BodyChange::Bytes(words), body));
    let as_json = json::rewritings(body, allowance).map(|(rewriting, body)| (BodyChange::Json(rewriting), body));
    of_bytes.chain(as_form).chain(as_json).filter(move |(_, changed)| changed != body)
}

/// What of its bytes may have been different.
pub(super) const BYTES: [Change; 8] = [
    ("had no newline at its end", |body| {
        body.strip_suffix(b"\n").map(|body| body.strip_suffix(b"\r").unwrap_or(body).to_vec())
    }),
    ("had a newline at its end", |body| Some([body, b"\n"].concat())),
    ("had a carriage return and a newline at its end", |body| Some([body, b"\r\n"].concat())),
    ("had no white space around it", |body| Some(body.trim_ascii().to_vec())),
    ("had LF where it has CR LF", |body| Some(with_lf(body))),
    ("had CR LF where it has LF", |body| Some(with_crlf(&with_lf(body)))),
    ("did not begin with a byte order mark", |body| body.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec)),
    ("began with a byte order mark", |body| Some([b"\xef\xbb\xbf", body].concat())),
];

fn with_lf(body: &[u8]) -> Vec<u8> {
    let is_kept = |(index, byte): &(usize, &u8)| **byte != b'\r' || body.get(index + 1) != Some(&b'\n');
    body.iter().enumerate().filter(is_kept).map(|(_, byte)| *byte).collect()
}

fn with_crlf(body: &[u8]) -> Vec<u8> {
    body.split_inclusive(|byte| *byte == b'\n').fold(Vec::with_capacity(body.len()), |mut all, line| {
        match line.strip_suffix(b"\n") {
            Some(text) => all.extend([text, b"\r\n"].concat()),
            None => all.extend(line),
        }
        all
    })
}

/// Some forges sign a form as it is sent, some the JSON in it; and what stands in between may make one of the other.
fn form_changes(request: &Request) -> Vec<(&'static str, Vec<u8>)> {
    let as_form = |json: &[u8]| [b"payload=", record::percent_encoded(json, b"*-._").as_slice()].concat();
    if !request.is_form().unwrap_or(false) {
        return vec![("were the form with it in the field `payload`", as_form(&request.body))];
    }
    let Ok(json) = form::field(&request.body, b"payload") else { return Vec::new() };
    let again = as_form(&json);
    vec![
        ("were the JSON in the form's field `payload`, which is what some forges sign", json),
        ("were the form encoded anew", again),
    ]
}

impl fmt::Display for BodyChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(words) => formatter.write_str(words),
            Self::Json(rewriting) => write!(formatter, "had its JSON {rewriting}"),
        }
    }
}
