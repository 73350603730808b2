//! Deliveries as they were decided: the answer to "why did this push (not) deploy".

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::admission::{DeliveryStatus, SiteStatus};
use crate::domain::deployment::{DeploymentId, StateName};
use crate::domain::name::{RepositoryName, SiteName};
use crate::domain::push::{Change, DeliveryKey, RefName};
use crate::domain::revision::Revision;
use crate::store::{
    Acceptance, Delivery, DeliveryFilter, DeliverySite, NewDelivery, Replay, RepositoryId, StoreError, Submission,
};

use super::body::size;
use super::row::{read, storable, time};
use super::{Connection, Database, pieces};

/// The id that the forge gave the repository when it first said one; from now on this one, if it never did.
pub(super) async fn repository_id(
    connection: &mut Connection,
    name: &RepositoryName,
    RepositoryId { of, id }: &RepositoryId,
    now: DateTime<Utc>,
) -> Result<String, StoreError> {
    let (known,): (String,) = sqlx::query_as(
        "INSERT INTO repository (name, identity, forge_id, since) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name, identity) DO UPDATE SET since = repository.since RETURNING forge_id",
    )
    .bind(name.as_str())
    .bind(storable(of))
    .bind(storable(id))
    .bind(now.timestamp_millis())
    .fetch_one(&mut *connection)
    .await?;
    Ok(known)
}

/// Writes what was decided.
pub(super) async fn insert(
    connection: &mut Connection,
    submissions: &[Submission],
    accepted: &[Acceptance],
) -> Result<(), StoreError> {
    // A single one need not ask first.
    let mut attempts = match submissions {
        [_] => None,
        _ => Some(Attempts::read(connection, submissions).await?),
    };
    let rows: Vec<_> = submissions
        .iter()
        .zip(accepted)
        .map(|(submission, accepted)| {
            (submission, accepted, attempts.as_mut().map(|attempts| attempts.next(&submission.delivery)))
        })
        .collect();
    for piece in pieces(&rows) {
        insert_deliveries(connection, piece).await?;
    }
    let sites: Vec<_> =
        accepted.iter().flat_map(|accepted| accepted.sites.iter().map(|site| (accepted.delivery, site))).collect();
    for piece in pieces(&sites) {
        let mut insert = sqlx::QueryBuilder::<Database>::new(
            "INSERT INTO delivery_site (delivery, site, status, reason, deployment, ref_name, after_id) ",
        );
        insert.push_values(piece, |mut row, (delivery, site)| {
            row.push_bind(*delivery)
                .push_bind(site.site.as_str())
                .push_bind(site.status.as_str())
                .push_bind(site.reason.as_deref().map(storable))
                .push_bind(site.deployment.map(|(deployment, _)| deployment.0))
                .push_bind(site.wanted.as_ref().map(|wanted| wanted.ref_name.as_str()))
                .push_bind(site.wanted.as_ref().map(|wanted| wanted.after.as_str()));
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn insert_deliveries(
    connection: &mut Connection,
    rows: &[(&Submission, &Acceptance, Option<i64>)],
) -> Result<(), StoreError> {
    let mut insert = sqlx::QueryBuilder::<Database>::new(
        "INSERT INTO delivery (id, repository, forge_key, attempt, event, digest, ref_name, before_id, after_id, status, \
         reason, received_at, changes, headers, body_size, source, latency_us, replay_of, asked_by) ",
    );
    insert.push_values(rows, |mut row, (submission, accepted, attempt)| {
        let sent = &submission.delivery;
        let first = sent.changes.first();
        let waited = i64::try_from(submission.arrived.elapsed().as_micros()).unwrap_or(i64::MAX);
        row.push_bind(accepted.delivery).push_bind(sent.repository.as_str()).push_bind(sent.key.as_str());
        match attempt {
            Some(attempt) => row.push_bind(*attempt),
            None => row
                .push("(SELECT COALESCE(MAX(attempt), 0) + 1 FROM delivery WHERE repository = ")
                .push_bind_unseparated(sent.repository.as_str())
                .push_unseparated(" AND forge_key = ")
                .push_bind_unseparated(sent.key.as_str())
                .push_unseparated(")"),
        };
        row.push_bind(storable(&sent.event))
            .push_bind(sent.digest.as_str())
            .push_bind(first.map(|change| change.ref_name.as_str()))
            .push_bind(first.and_then(|change| change.before.as_ref()).map(Revision::as_str))
            .push_bind(first.and_then(|change| change.after.as_ref()).map(Revision::as_str))
            .push_bind(accepted.status.as_str())
            .push_bind(accepted.reason.as_deref().map(storable))
            .push_bind(sent.received_at.timestamp_millis())
            .push_bind(changes_text(&sent.changes))
            .push_bind(headers_text(&sent.headers))
            .push_bind(size(&sent.body))
            .push_bind(sent.source.map(|source| source.to_string()))
            .push_bind(waited)
            .push_bind(sent.replay.as_ref().map(|replay| replay.of))
            .push_bind(sent.replay.as_ref().map(|replay| storable(&replay.asked_by)));
    });
    insert.build().execute(&mut *connection).await?;
    Ok(())
}

/// The highest attempt of each key, counted on.
struct Attempts<'a>(BTreeMap<(&'a str, &'a str), i64>);

impl<'a> Attempts<'a> {
    async fn read(connection: &mut Connection, submissions: &'a [Submission]) -> Result<Self, StoreError> {
        let mut keys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for NewDelivery { repository, key, .. } in submissions.iter().map(|submission| &submission.delivery) {
            keys.entry(repository.as_str()).or_default().insert(key.as_str());
        }
        let mut highest = BTreeMap::new();
        for (repository, keys) in keys {
            let keys: Vec<&str> = keys.into_iter().collect();
            for piece in pieces(&keys) {
                let found = Self::of(connection, repository, piece).await?;
                for key in piece {
                    highest.insert((repository, *key), found.get(*key).copied().unwrap_or_default());
                }
            }
        }
        Ok(Self(highest))
    }

    async fn of(
        connection: &mut Connection,
        repository: &str,
        keys: &[&str],
    ) -> Result<BTreeMap<String, i64>, StoreError> {
        let mut select =
            sqlx::QueryBuilder::<Database>::new("SELECT forge_key, MAX(attempt) FROM delivery WHERE repository = ");
        select.push_bind(repository).push(" AND forge_key IN (");
        let mut list = select.separated(", ");
        for key in keys {
            list.push_bind(*key);
        }
        select.push(") GROUP BY forge_key");
        let rows: Vec<(String, i64)> = select.build_query_as().fetch_all(&mut *connection).await?;
        Ok(rows.into_iter().collect())
    }

    fn next(&mut self, delivery: &'a NewDelivery) -> i64 {
        let attempt = self.0.entry((delivery.repository.as_str(), delivery.key.as_str())).or_default();
        *attempt += 1;
        *attempt
    }
}

/// A change as it is stored; the message is not, since nothing asks for it again.
#[derive(Serialize, Deserialize)]
struct StoredChange {
    #[serde(rename = "ref")]
    ref_name: String,
    before: Option<Revision>,
    after: Option<Revision>,
}

fn changes_text(changes: &[Change]) -> Option<String> {
    let stored: Vec<_> = changes
        .iter()
        .map(|change| StoredChange {
            ref_name: change.ref_name.to_string(),
            before: change.before.clone(),
            after: change.after.clone(),
        })
        .collect();
    serde_json::to_string(&stored).ok()
}

fn headers_text(headers: &[(String, String)]) -> Option<String> {
    serde_json::to_string(headers).ok().map(|text| storable(&text))
}

/// Deliveries, newest first, with what was decided for each site.
pub(in crate::store) async fn deliveries(
    connection: &mut Connection,
    filter: &DeliveryFilter,
) -> Result<Vec<Delivery>, StoreError> {
    let DeliveryFilter { repository, key, limit } = filter;
    let mut select = sqlx::QueryBuilder::<Database>::new("SELECT * FROM delivery WHERE 1 = 1");
    if let Some(repository) = repository {
        select.push(" AND repository = ").push_bind(repository.as_str());
    }
    if let Some(key) = key {
        select.push(" AND forge_key = ").push_bind(key.as_str());
    }
    select.push(" ORDER BY id DESC LIMIT ").push_bind(*limit);
    let rows: Vec<DeliveryRow> = select.build_query_as().fetch_all(&mut *connection).await?;
    let mut deliveries = Vec::with_capacity(rows.len());
    for row in rows {
        deliveries.push(with_sites(connection, row).await?);
    }
    Ok(deliveries)
}

/// A delivery by its number.
pub(in crate::store) async fn delivery(connection: &mut Connection, id: i64) -> Result<Option<Delivery>, StoreError> {
    let row: Option<DeliveryRow> =
        sqlx::query_as("SELECT * FROM delivery WHERE id = $1").bind(id).fetch_optional(&mut *connection).await?;
    match row {
        Some(row) => with_sites(connection, row).await.map(Some),
        None => Ok(None),
    }
}

async fn with_sites(connection: &mut Connection, row: DeliveryRow) -> Result<Delivery, StoreError> {
    let sites: Vec<SiteRow> = sqlx::query_as(
        "SELECT decided.site, decided.status, decided.reason, decided.ref_name, decided.deployment, deployment.state \
         FROM delivery_site AS decided LEFT JOIN deployment ON deployment.id = decided.deployment \
         WHERE decided.delivery = $1 ORDER BY decided.site",
    )
    .bind(row.id)
    .fetch_all(&mut *connection)
    .await?;
    row.into_delivery(sites.into_iter().map(DeliverySite::try_from).collect::<Result<_, _>>()?)
}

/// Some of the oldest deliveries that are older than this, or beyond this many of their repository. The last one of a ref that
/// was for a site and ignored stays: without it, its commit would look like a lost push.
pub(in crate::store) async fn prunable(
    connection: &mut Connection,
    received_before: i64,
    keep_count: i64,
) -> Result<Vec<i64>, StoreError> {
    let rows: Vec<(i64,)> = sqlx::query_as(
        "SELECT id FROM (SELECT id, received_at, ROW_NUMBER() OVER (PARTITION BY repository ORDER BY id DESC) AS place \
         FROM delivery) AS placed WHERE (received_at < $1 OR place > $2) \
         AND id NOT IN (SELECT MAX(delivery) FROM delivery_site WHERE status = 'ignored' AND after_id IS NOT NULL \
         GROUP BY site, ref_name) ORDER BY id LIMIT $3",
    )
    .bind(received_before)
    .bind(keep_count)
    .bind(PRUNED_AT_ONCE)
    .fetch_all(&mut *connection)
    .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Drops these, and what was decided for their sites.
pub(in crate::store) async fn prune(connection: &mut Connection, ids: &[i64]) -> Result<u64, StoreError> {
    let mut dropped = 0;
    for piece in pieces(ids) {
        delete(connection, "DELETE FROM delivery_site WHERE delivery IN (", piece).await?;
        dropped += delete(connection, "DELETE FROM delivery WHERE id IN (", piece).await?;
    }
    Ok(dropped)
}

async fn delete(connection: &mut Connection, statement: &'static str, ids: &[i64]) -> Result<u64, StoreError> {
    let mut delete = sqlx::QueryBuilder::<Database>::new(statement);
    let mut list = delete.separated(", ");
    for id in ids {
        list.push_bind(*id);
    }
    delete.push(")");
    Ok(delete.build().execute(&mut *connection).await?.rows_affected())
}

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    id: i64,
    repository: String,
    forge_key: String,
    attempt: i64,
    event: String,
    digest: String,
    ref_name: Option<String>,
    before_id: Option<String>,
    after_id: Option<String>,
    status: String,
    reason: Option<String>,
    received_at: i64,
    changes: Option<String>,
    headers: Option<String>,
    body_size: Option<i64>,
    source: Option<String>,
    latency_us: Option<i64>,
    replay_of: Option<i64>,
    asked_by: Option<String>,
}

impl DeliveryRow {
    fn into_delivery(self, sites: Vec<DeliverySite>) -> Result<Delivery, StoreError> {
        let changes = self.changes()?;
        let headers = match &self.headers {
            Some(text) => serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))?,
            None => Vec::new(),
        };
        Ok(Delivery {
            id: self.id,
            repository: read("repository", &self.repository, |text| RepositoryName::parse(text).ok())?,
            key: read("forge_key", &self.forge_key, DeliveryKey::parse)?,
            attempt: self.attempt,
            event: self.event,
            digest: self.digest,
            changes,
            status: read("status", &self.status, DeliveryStatus::parse)?,
            reason: self.reason,
            received_at: time(self.received_at)?,
            latency_us: self.latency_us,
            source: self.source,
            headers,
            body_size: self.body_size,
            replay: self.replay_of.map(|of| Replay { of, asked_by: self.asked_by.unwrap_or_default() }),
            sites,
        })
    }

    /// What an older Landfall stored has its one ref in columns of its own.
    fn changes(&self) -> Result<Vec<Change>, StoreError> {
        let revision = |text: &Option<String>| text.as_deref().and_then(|text| Revision::parse(text).ok());
        let stored = match (&self.changes, &self.ref_name) {
            (Some(text), _) => serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))?,
            (None, Some(ref_name)) => vec![StoredChange {
                ref_name: ref_name.clone(),
                before: revision(&self.before_id),
                after: revision(&self.after_id),
            }],
            (None, None) => Vec::new(),
        };
        let change = |StoredChange { ref_name, before, after }| {
            let ref_name = read("changes", &ref_name, |text| RefName::parse(text).ok())?;
            Ok(Change { ref_name, before, after, message: None })
        };
        stored.into_iter().map(change).collect()
    }
}

#[derive(sqlx::FromRow)]
struct SiteRow {
    site: String,
    status: String,
    reason: Option<String>,
    ref_name: Option<String>,
    deployment: Option<i64>,
    state: Option<String>,
}

impl TryFrom<SiteRow> for DeliverySite {
    type Error = StoreError;

    fn try_from(row: SiteRow) -> Result<Self, StoreError> {
        let SiteRow { site, status, reason, ref_name, deployment, state } = row;
        let deployment = match (deployment, state) {
            (Some(id), Some(state)) => Some((DeploymentId(id), read("state", &state, StateName::parse)?)),
            (Some(_) | None, _) => None,
        };
        Ok(Self {
            site: read("site", &site, |text| SiteName::parse(text).ok())?,
            status: read("status", &status, SiteStatus::parse)?,
            reason,
            ref_name: ref_name.map(|text| read("ref_name", &text, |text| RefName::parse(text).ok())).transpose()?,
            deployment,
        })
    }
}

/// They are looked for while others write, and dropped a few at a time.
const PRUNED_AT_ONCE: i64 = 500;
