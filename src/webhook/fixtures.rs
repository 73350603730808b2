//! The recorded deliveries in `fixtures/webhooks`, for the tables of each forge's file.

use super::{Malformed, Parsed, Request};
use crate::domain::push::Event;
use crate::domain::revision::Revision;

/// Reads a body and the headers beside it.
pub(super) fn load(forge: &str, file: &str) -> Request {
    let path = format!("fixtures/webhooks/{forge}/{file}");
    let (stem, _) = path.rsplit_once('.').unwrap();
    let headers = std::fs::read_to_string(format!("{stem}.headers")).unwrap();
    let headers = headers.lines().map(|line| line.split_once(':').unwrap());
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().as_bytes().to_vec())).collect();
    Request { headers, body: std::fs::read(path).unwrap() }
}

/// The secret that they are signed with, where a forge takes any text.
pub(super) const SECRET: &str = "a secret of the fixtures";

/// The signing secret that they are signed with.
pub(super) const SIGNING_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=";

/// When the ones with a time were signed, in seconds.
pub(super) const SIGNED_AT: i64 = 1_787_392_881;

/// The public half of the Ed25519 key that is the SHA-256 of the secret.
pub(super) const PUBLIC_KEY: &str = "Lj1GvEKXBCRbWZmhNI0hUkmuh/27Nvu4lcZhH1aiddk=";

/// How many there are of a forge: so that a table forgets none.
pub(super) fn count(forge: &str) -> usize {
    let names = std::fs::read_dir(format!("fixtures/webhooks/{forge}")).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|kind| kind != "headers")).count()
}

/// What a delivery says, in a line.
pub(super) fn told(parsed: Result<Parsed, Malformed>) -> String {
    told_event(parsed.map(|parsed| parsed.event))
}

/// The same of its event.
pub(super) fn told_event(event: Result<Event, Malformed>) -> String {
    let push = match event {
        Ok(Event::Ping) => return "ping".into(),
        Ok(Event::Other(word)) => return format!("other `{word}`"),
        Ok(Event::Incomplete(reason)) => return format!("incomplete: {reason}"),
        Ok(Event::Push(push)) => push,
        Err(malformed) => return format!("malformed: {malformed}"),
    };
    let short = |id: &Option<Revision>| id.as_ref().map_or("-".to_owned(), |id| id.short().to_owned());
    let changes = push.changes.iter().map(|change| {
        let message = change.message.as_deref().map(|message| format!(" `{}`", message.trim())).unwrap_or_default();
        format!(" {} {}..{}{message}", change.ref_name, short(&change.before), short(&change.after))
    });
    let id = push.repository_id.map(|id| format!(" {id}")).unwrap_or_default();
    format!("{}{id}:{}", push.repository, changes.collect::<Vec<_>>().join(","))
}
