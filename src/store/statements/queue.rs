//! The queue: what waits, who works on it, and what takes whose place.

use chrono::{DateTime, Utc};

use crate::domain::admission::{Pending, waiting as waiting_of};
use crate::domain::deployment::{DeploymentId, Entry, Kind, StateName, Trigger};
use crate::domain::name::{NodeName, SiteName};
use crate::domain::push::{DeliveryKey, RefName};
use crate::domain::release_id::ReleaseId;
use crate::domain::revision::Revision;
use crate::store::{Claim, Deployment, DeploymentFilter, NewDeployment, StoreError};

use super::row::{DeploymentRow, all, read, storable};
use super::{Connection, journal, site};

/// A row that is to be inserted, waiting.
#[derive(Debug)]
pub(super) struct NewRow<'a> {
    pub(super) id: DeploymentId,
    pub(super) site: &'a SiteName,
    pub(super) node: &'a NodeName,
    pub(super) kind: Kind,
    pub(super) trigger: Trigger,
    pub(super) ref_name: Option<&'a RefName>,
    pub(super) before: Option<&'a Revision>,
    pub(super) after: Option<&'a Revision>,
    pub(super) rollback_to: Option<&'a ReleaseId>,
    pub(super) force: bool,
    pub(super) attempt: i64,
    pub(super) retry_of: Option<DeploymentId>,
    pub(super) requested_by: Option<&'a str>,
    pub(super) delivery: Option<&'a DeliveryKey>,
    /// It does not wait, since this one has taken its place already.
    pub(super) superseded_by: Option<DeploymentId>,
}

/// Takes the next number of a kind. The counter's row stays locked until the transaction ends.
pub(super) async fn next_number(connection: &mut Connection, name: &str) -> Result<i64, StoreError> {
    next_numbers(connection, name, 1).await
}

/// Takes as many numbers in a row; gives back the first.
pub(super) async fn next_numbers(connection: &mut Connection, name: &str, count: i64) -> Result<i64, StoreError> {
    let (last,): (i64,) = sqlx::query_as("UPDATE counter SET value = value + $2 WHERE name = $1 RETURNING value")
        .bind(name)
        .bind(count)
        .fetch_one(&mut *connection)
        .await?;
    Ok(last - count + 1)
}

pub(super) async fn insert(
    connection: &mut Connection,
    row: &NewRow<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO deployment (id, site, node, kind, trigger, state, ref_name, before_id, after_id, rollback_to, forced, attempt, \
         retry_of, requested_by, forge_key, queued_at, superseded_by, finished_at) \
         VALUES ($1, $2, $3, $4, $5, $16, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $17, $18)",
    )
    .bind(row.id.0)
    .bind(row.site.as_str())
    .bind(row.node.as_str())
    .bind(row.kind.as_str())
    .bind(row.trigger.as_str())
    .bind(row.ref_name.map(RefName::as_str))
    .bind(row.before.map(Revision::as_str))
    .bind(row.after.map(Revision::as_str))
    .bind(row.rollback_to.map(ReleaseId::as_str))
    .bind(row.force)
    .bind(row.attempt)
    .bind(row.retry_of.map(|id| id.0))
    .bind(row.requested_by.map(storable))
    .bind(row.delivery.map(DeliveryKey::as_str))
    .bind(now.timestamp_millis())
    .bind(row.superseded_by.map_or(StateName::Queued, |_| StateName::Superseded).as_str())
    .bind(row.superseded_by.map(|id| id.0))
    .bind(row.superseded_by.map(|_| now.timestamp_millis()))
    .execute(&mut *connection)
    .await?;
    Ok(())
}

pub(super) async fn supersede(
    connection: &mut Connection,
    ids: &[DeploymentId],
    by: DeploymentId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    for id in ids {
        sqlx::query(
            "UPDATE deployment SET state = 'superseded', superseded_by = $1, finished_at = $2 \
             WHERE id = $3 AND state = 'queued'",
        )
        .bind(by.0)
        .bind(now.timestamp_millis())
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(in crate::store) async fn cancel_waiting(
    connection: &mut Connection,
    id: DeploymentId,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let waiting = deployment(connection, id).await?.ok_or(StoreError::NotFound(id))?;
    site::lock(connection, &waiting.site).await?;
    let cancelled = sqlx::query(
        "UPDATE deployment SET state = 'cancelled', reason = $1, finished_at = $2 WHERE id = $3 AND state = 'queued'",
    )
    .bind(storable(reason))
    .bind(now.timestamp_millis())
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    if cancelled.rows_affected() == 1 && waiting.kind == Kind::Rollback {
        bring_back(connection, &waiting, now).await?;
    }
    Ok(())
}

/// What waits or runs for a site.
pub(super) async fn pending(
    connection: &mut Connection,
    site: &SiteName,
    node: &NodeName,
) -> Result<Vec<Pending>, StoreError> {
    let rows: Vec<DeploymentRow> = sqlx::query_as(
        "SELECT * FROM deployment WHERE site = $1 AND node = $2 AND state IN ('queued', 'running') ORDER BY id",
    )
    .bind(site.as_str())
    .bind(node.as_str())
    .fetch_all(&mut *connection)
    .await?;
    let pending = all(rows)?.into_iter().map(|deployment| Pending {
        id: deployment.id,
        kind: deployment.kind,
        waits: deployment.state == StateName::Queued,
        ref_name: deployment.ref_name,
        after: deployment.after,
        delivery: deployment.delivery,
    });
    Ok(pending.collect())
}

/// What waits for a site, on all nodes.
pub(super) async fn waiting_for(connection: &mut Connection, site: &SiteName) -> Result<Vec<Deployment>, StoreError> {
    let rows: Vec<DeploymentRow> =
        sqlx::query_as("SELECT * FROM deployment WHERE site = $1 AND state = 'queued' ORDER BY id")
            .bind(site.as_str())
            .fetch_all(&mut *connection)
            .await?;
    all(rows)
}

pub(in crate::store) async fn enqueue(
    connection: &mut Connection,
    order: &NewDeployment,
    now: DateTime<Utc>,
) -> Result<DeploymentId, StoreError> {
    let NewDeployment { site, node, kind, ref_name, rollback_to, force, requested_by } = order;
    site::lock(connection, site).await?;
    let id = DeploymentId(next_number(connection, "deployment").await?);
    if *kind == Kind::Deploy {
        site::clear_hold(connection, site).await?;
    }
    let pending = pending(connection, site, node).await?;
    supersede(connection, &waiting_of(&pending), id, now).await?;
    let row = NewRow {
        id,
        site,
        node,
        kind: *kind,
        trigger: Trigger::Manual,
        ref_name: ref_name.as_ref(),
        before: None,
        after: None,
        rollback_to: rollback_to.as_ref(),
        force: *force,
        attempt: 1,
        retry_of: None,
        requested_by: Some(requested_by),
        delivery: None,
        superseded_by: None,
    };
    insert(connection, &row, now).await?;
    Ok(id)
}

/// Queues a deployment once more, unless something newer waits for the site, which is locked.
pub(super) async fn retry(
    connection: &mut Connection,
    interrupted: &Deployment,
    attempt: i64,
    now: DateTime<Utc>,
) -> Result<Option<DeploymentId>, StoreError> {
    let pending = pending(connection, &interrupted.site, &interrupted.node).await?;
    if pending.iter().any(|pending| pending.waits) {
        return Ok(None);
    }
    let id = DeploymentId(next_number(connection, "deployment").await?);
    let row = NewRow {
        id,
        site: &interrupted.site,
        node: &interrupted.node,
        kind: interrupted.kind,
        trigger: Trigger::Retry,
        ref_name: interrupted.ref_name.as_ref(),
        before: interrupted.before.as_ref(),
        after: interrupted.after.as_ref(),
        rollback_to: interrupted.rollback_to.as_ref(),
        force: interrupted.force,
        attempt,
        retry_of: Some(interrupted.id),
        requested_by: interrupted.requested_by.as_deref(),
        delivery: interrupted.delivery.as_ref(),
        superseded_by: None,
    };
    insert(connection, &row, now).await?;
    // What gave way to it gives way to its new attempt.
    sqlx::query("UPDATE deployment SET superseded_by = $1 WHERE superseded_by = $2 AND site = $3")
        .bind(id.0)
        .bind(interrupted.id.0)
        .bind(interrupted.site.as_str())
        .execute(&mut *connection)
        .await?;
    Ok(Some(id))
}

/// Queues the newest push again that gave way to a rollback which did not come about. The site is locked.
pub(super) async fn bring_back(
    connection: &mut Connection,
    rollback: &Deployment,
    now: DateTime<Utc>,
) -> Result<Option<DeploymentId>, StoreError> {
    let row: Option<DeploymentRow> = sqlx::query_as(
        "SELECT * FROM deployment WHERE site = $1 AND node = $2 AND superseded_by = $3 AND kind = 'deploy' \
         AND trigger <> 'manual' ORDER BY id DESC LIMIT 1",
    )
    .bind(rollback.site.as_str())
    .bind(rollback.node.as_str())
    .bind(rollback.id.0)
    .fetch_optional(&mut *connection)
    .await?;
    match row.map(Deployment::try_from).transpose()? {
        Some(gave_way) => retry(connection, &gave_way, gave_way.attempt, now).await,
        None => Ok(None),
    }
}

/// A new value, since SQLite writes no page whose content stays the same.
pub(in crate::store) async fn write_something(connection: &mut Connection) -> Result<(), StoreError> {
    next_number(connection, "check").await.map(drop)
}

/// Takes over everything that was stored under another name of this machine.
pub(in crate::store) async fn adopt(connection: &mut Connection, node: &NodeName) -> Result<u64, StoreError> {
    let adopted = sqlx::query("UPDATE deployment SET node = $1 WHERE node <> $1")
        .bind(node.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE bad_release SET node = $1 WHERE node <> $1 AND NOT EXISTS (SELECT 1 FROM bad_release AS other \
         WHERE other.node = $1 AND other.site = bad_release.site AND other.release = bad_release.release)",
    )
    .bind(node.as_str())
    .execute(&mut *connection)
    .await?;
    Ok(adopted.rows_affected())
}

/// The sites for which something could be claimed at this moment, what waits longest first. Each is tried in a transaction of
/// its own: whoever has lost one must not keep its site locked while it tries the next.
pub(in crate::store) async fn waiting_sites(
    connection: &mut Connection,
    node: &NodeName,
) -> Result<Vec<SiteName>, StoreError> {
    let sites: Vec<(String,)> = sqlx::query_as(
        "SELECT site FROM deployment AS waiting WHERE node = $1 AND state = 'queued' AND NOT EXISTS \
         (SELECT 1 FROM deployment AS other WHERE other.site = waiting.site AND other.node = waiting.node \
          AND other.state = 'running') ORDER BY id LIMIT 8",
    )
    .bind(node.as_str())
    .fetch_all(&mut *connection)
    .await?;
    sites.iter().map(|(site,)| read("site", site, |text| SiteName::parse(text).ok())).collect()
}

/// Takes what waits for the site when the site is locked, whichever that is: under a stream of pushes what waited a moment
/// ago has given way long since.
pub(in crate::store) async fn claim_next(
    connection: &mut Connection,
    site: &SiteName,
    node: &NodeName,
    owner: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Option<Claim>, StoreError> {
    site::lock(connection, site).await?;
    let waiting: Option<(i64,)> =
        sqlx::query_as("SELECT id FROM deployment WHERE site = $1 AND node = $2 AND state = 'queued'")
            .bind(site.as_str())
            .bind(node.as_str())
            .fetch_optional(&mut *connection)
            .await?;
    match waiting {
        Some((id,)) => claim_one(connection, DeploymentId(id), owner, now, until).await,
        None => Ok(None),
    }
}

pub(in crate::store) async fn claim_one(
    connection: &mut Connection,
    id: DeploymentId,
    owner: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Option<Claim>, StoreError> {
    let Some(waiting) = deployment(connection, id).await? else { return Ok(None) };
    // On PostgreSQL two claims can see the same row waiting: the site's row puts them in a row, the guard is asked again.
    site::lock(connection, &waiting.site).await?;
    let token = new_token(connection, id, owner).await?;
    let claimed = sqlx::query(
        "UPDATE deployment SET state = 'running', started_at = $1, lease_owner = $2, lease_token = $3, lease_until = $4 \
         WHERE id = $5 AND state = 'queued' AND NOT EXISTS \
         (SELECT 1 FROM deployment AS other WHERE other.site = $6 AND other.node = $7 AND other.state = 'running')",
    )
    .bind(now.timestamp_millis())
    .bind(owner)
    .bind(token.as_str())
    .bind(until.timestamp_millis())
    .bind(id.0)
    .bind(waiting.site.as_str())
    .bind(waiting.node.as_str())
    .execute(&mut *connection)
    .await?;
    if claimed.rows_affected() == 0 {
        return Ok(None);
    }
    journal::append(connection, id, &token, &Entry::Claimed, now).await?;
    claimed_as(connection, id, token).await.map(Some)
}

pub(in crate::store) async fn take_over(
    connection: &mut Connection,
    id: DeploymentId,
    owner: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Claim, StoreError> {
    let abandoned = deployment(connection, id).await?.ok_or(StoreError::NotFound(id))?;
    // What is stuck runs again from now on; the site's row puts this and a claim of another one in a row.
    site::lock(connection, &abandoned.site).await?;
    let token = new_token(connection, id, owner).await?;
    let taken = sqlx::query(
        "UPDATE deployment SET lease_owner = $1, lease_token = $2, lease_until = $3 \
         WHERE id = $4 AND state IN ('running', 'stuck')",
    )
    .bind(owner)
    .bind(token.as_str())
    .bind(until.timestamp_millis())
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    if taken.rows_affected() == 0 {
        return Err(StoreError::NotFound(id));
    }
    journal::append(connection, id, &token, &Entry::Claimed, now).await?;
    claimed_as(connection, id, token).await
}

async fn claimed_as(connection: &mut Connection, id: DeploymentId, token: String) -> Result<Claim, StoreError> {
    let deployment = deployment(connection, id).await?.ok_or(StoreError::NotFound(id))?;
    Ok(Claim { deployment, token })
}

/// Unlike any earlier one of the deployment, whatever the clock says: every claim adds a line to its journal, and claims
/// of a site come one after the other.
async fn new_token(connection: &mut Connection, id: DeploymentId, owner: &str) -> Result<String, StoreError> {
    let (lines,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM journal WHERE deployment = $1")
        .bind(id.0)
        .fetch_one(&mut *connection)
        .await?;
    Ok(format!("{owner}/{id}/{lines}"))
}

pub(in crate::store) async fn renew(
    connection: &mut Connection,
    owner: &str,
    until: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let renewed = sqlx::query("UPDATE deployment SET lease_until = $1 WHERE lease_owner = $2 AND state = 'running'")
        .bind(until.timestamp_millis())
        .bind(owner)
        .execute(&mut *connection)
        .await?;
    Ok(renewed.rows_affected())
}

pub(in crate::store) async fn deployment(
    connection: &mut Connection,
    id: DeploymentId,
) -> Result<Option<Deployment>, StoreError> {
    let row: Option<DeploymentRow> =
        sqlx::query_as("SELECT * FROM deployment WHERE id = $1").bind(id.0).fetch_optional(&mut *connection).await?;
    row.map(Deployment::try_from).transpose()
}

pub(in crate::store) async fn deployments(
    connection: &mut Connection,
    filter: &DeploymentFilter,
) -> Result<Vec<Deployment>, StoreError> {
    let DeploymentFilter { site, limit } = filter;
    let rows: Vec<DeploymentRow> = match site {
        Some(site) => {
            sqlx::query_as("SELECT * FROM deployment WHERE site = $1 ORDER BY id DESC LIMIT $2")
                .bind(site.as_str())
                .bind(limit)
                .fetch_all(&mut *connection)
                .await?
        }
        None => {
            sqlx::query_as("SELECT * FROM deployment ORDER BY id DESC LIMIT $1")
                .bind(limit)
                .fetch_all(&mut *connection)
                .await?
        }
    };
    all(rows)
}

pub(in crate::store) async fn pending_of(
    connection: &mut Connection,
    site: &SiteName,
) -> Result<Vec<Deployment>, StoreError> {
    let rows: Vec<DeploymentRow> =
        sqlx::query_as("SELECT * FROM deployment WHERE site = $1 AND state IN ('queued', 'running') ORDER BY id")
            .bind(site.as_str())
            .fetch_all(&mut *connection)
            .await?;
    all(rows)
}

pub(in crate::store) async fn last_ended(
    connection: &mut Connection,
    site: &SiteName,
) -> Result<Option<Deployment>, StoreError> {
    let row: Option<DeploymentRow> = sqlx::query_as(
        "SELECT * FROM deployment WHERE site = $1 AND state NOT IN ('queued', 'running', 'superseded') \
         ORDER BY finished_at DESC, id DESC LIMIT 1",
    )
    .bind(site.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    row.map(Deployment::try_from).transpose()
}

pub(in crate::store) async fn unfinished(
    connection: &mut Connection,
    node: &NodeName,
) -> Result<Vec<Deployment>, StoreError> {
    let rows: Vec<DeploymentRow> = sqlx::query_as(
        "SELECT * FROM deployment WHERE node = $1 AND state IN ('running', 'stuck') \
         ORDER BY CASE state WHEN 'running' THEN 1 ELSE 2 END, id DESC",
    )
    .bind(node.as_str())
    .fetch_all(&mut *connection)
    .await?;
    all(rows)
}
