//! Bodies of deliveries: compressed, each once.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::store::{Memory, NewDelivery, StoreError, Submission};

use super::queue::next_numbers;
use super::{Connection, Database, pieces};

/// Keeps the bodies of these deliveries, so that they can be replayed. One that does not get small is not kept.
pub(in crate::store) async fn keep(
    connection: &mut Connection,
    submissions: &[Submission],
    memory: &mut Memory,
) -> Result<(), StoreError> {
    let bodies: BTreeMap<&str, &NewDelivery> = submissions
        .iter()
        .map(|submission| (submission.delivery.digest.as_str(), &submission.delivery))
        .filter(|(digest, delivery)| !was_used_just_now(memory, digest, delivery.received_at))
        .collect();
    let mut missing = bodies.clone();
    let digests: Vec<&str> = bodies.keys().copied().collect();
    for piece in pieces(&digests) {
        for digest in touch(connection, piece, &bodies).await? {
            missing.remove(digest.as_str());
        }
    }
    for (digest, delivery) in missing {
        let packed =
            zstd::bulk::compress(&delivery.body, LEVEL).map_err(|error| StoreError::Unavailable(error.into()))?;
        if packed.len() > LONGEST_PACKED {
            continue;
        }
        sqlx::query("INSERT INTO body (digest, size, packed, packed_size, last_used) VALUES ($1, $2, $3, $4, $5)")
            .bind(digest)
            .bind(size(&delivery.body))
            .bind(packed.as_slice())
            .bind(size(&packed))
            .bind(delivery.received_at.timestamp_millis())
            .execute(&mut *connection)
            .await?;
    }
    memory.bodies.retain(|(digest, _)| !bodies.contains_key(digest.as_str()));
    memory.bodies.extend(bodies.values().map(|delivery| (delivery.digest.clone(), delivery.received_at)));
    let surplus = memory.bodies.len().saturating_sub(REMEMBERED);
    memory.bodies.drain(..surplus);
    Ok(())
}

fn was_used_just_now(memory: &Memory, digest: &str, now: DateTime<Utc>) -> bool {
    memory.bodies.iter().any(|(kept, used)| kept == digest && (now - *used).abs() < JUST_NOW)
}

/// Marks what is there as used, and gives back which that is.
async fn touch(
    connection: &mut Connection,
    digests: &[&str],
    bodies: &BTreeMap<&str, &NewDelivery>,
) -> Result<Vec<String>, StoreError> {
    let newest = digests.iter().filter_map(|digest| Some(bodies.get(digest)?.received_at)).max();
    let mut update = sqlx::QueryBuilder::<Database>::new("UPDATE body SET last_used = ");
    update.push_bind(newest.map(|time| time.timestamp_millis()));
    update.push(" WHERE digest IN (");
    let mut list = update.separated(", ");
    for digest in digests {
        list.push_bind(*digest);
    }
    update.push(") RETURNING digest");
    let rows: Vec<(String,)> = update.build_query_as().fetch_all(&mut *connection).await?;
    Ok(rows.into_iter().map(|(digest,)| digest).collect())
}

/// A body that was kept, if it still is.
pub(in crate::store) async fn body(connection: &mut Connection, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let row: Option<(Vec<u8>, i64)> = sqlx::query_as("SELECT packed, size FROM body WHERE digest = $1")
        .bind(digest)
        .fetch_optional(&mut *connection)
        .await?;
    let Some((packed, size)) = row else { return Ok(None) };
    let size =
        usize::try_from(size).map_err(|_| StoreError::Corrupt(format!("the body of {digest} has {size} bytes")))?;
    let body = zstd::bulk::decompress(&packed, size)
        .map_err(|error| StoreError::Corrupt(format!("the body of {digest} cannot be unpacked: {error}")))?;
    Ok(Some(body))
}

/// Some of the bodies that were not used since this time, or are the longest unused beyond this many bytes together.
pub(in crate::store) async fn prunable(
    connection: &mut Connection,
    unused_since: i64,
    keep_bytes: i64,
) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT digest FROM (SELECT digest, last_used, \
         SUM(packed_size) OVER (ORDER BY last_used DESC, digest) AS total FROM body) AS counted \
         WHERE last_used < $1 OR total > $2 ORDER BY last_used LIMIT $3",
    )
    .bind(unused_since)
    .bind(keep_bytes)
    .bind(PRUNED_AT_ONCE)
    .fetch_all(&mut *connection)
    .await?;
    Ok(rows.into_iter().map(|(digest,)| digest).collect())
}

/// Drops these, unless they were used meanwhile. Whoever accepts deliveries waits, on PostgreSQL too: what is used is not
/// dropped at the same moment.
pub(in crate::store) async fn prune(
    connection: &mut Connection,
    digests: &[String],
    used_since: i64,
) -> Result<u64, StoreError> {
    next_numbers(connection, "delivery", 0).await?;
    let mut dropped = 0;
    for piece in pieces(digests) {
        let mut delete = sqlx::QueryBuilder::<Database>::new("DELETE FROM body WHERE last_used < ");
        delete.push_bind(used_since).push(" AND digest IN (");
        let mut list = delete.separated(", ");
        for digest in piece {
            list.push_bind(digest.as_str());
        }
        delete.push(")");
        dropped += delete.build().execute(&mut *connection).await?.rows_affected();
    }
    Ok(dropped)
}

pub(super) fn size(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

/// They are looked for while others write, and dropped a few at a time.
const PRUNED_AT_ONCE: i64 = 500;

/// How long a body needs no new mark.
const JUST_NOW: TimeDelta = TimeDelta::seconds(10);

/// A forge that sends the same again does so at once.
const REMEMBERED: usize = 32;

/// JSON gets small at the quickest level already.
const LEVEL: i32 = 1;

/// The largest payload of any forge is 25 MB of JSON, which packs to 2 or 3.
const LONGEST_PACKED: usize = 8 << 20;
