//! The recorded deliveries in `fixtures/webhooks`, for the tables of each forge's file.

use super::Request;

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
