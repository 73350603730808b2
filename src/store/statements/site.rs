//! What is known of a site beside its configuration.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::domain::deployment::Kind;
use crate::domain::name::{NodeName, SiteName};
use crate::domain::release_id::ReleaseId;
use crate::store::{Deployment, Hold, StoreError};

use super::row::{read, storable, time};
use super::{Connection, queue};

/// Locks the site's row until the transaction ends: on PostgreSQL this puts everybody who decides over the site in a row.
pub(super) async fn lock(connection: &mut Connection, site: &SiteName) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO site (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET touched = site.touched + 1")
        .bind(site.as_str())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

pub(in crate::store) async fn hold(connection: &mut Connection, site: &SiteName) -> Result<Option<Hold>, StoreError> {
    let row: Option<(String, String, i64)> = sqlx::query_as(
        "SELECT hold_reason, hold_owner, hold_since FROM site WHERE name = $1 AND hold_reason IS NOT NULL",
    )
    .bind(site.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    row.map(|(reason, owner, since)| Ok(Hold { reason, owner, since: time(since)? })).transpose()
}

/// Sets a hold at the end of a rollback. What was queued while it ran came before the hold: a deploy that an operator
/// ordered lifts it, so there is none; a push would undo the rollback, and gives way to it.
pub(super) async fn hold_after(
    connection: &mut Connection,
    ended: &Deployment,
    hold: &Hold,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let waiting = queue::waiting_for(connection, &ended.site).await?;
    let (ordered, pushed): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|waiting| waiting.requested_by.is_some());
    if ordered.iter().any(|waiting| waiting.kind == Kind::Deploy) {
        return Ok(());
    }
    let pushed: Vec<_> = pushed.into_iter().map(|waiting| waiting.id).collect();
    queue::supersede(connection, &pushed, ended.id, now).await?;
    set_hold(connection, &ended.site, hold).await
}

async fn set_hold(connection: &mut Connection, site: &SiteName, hold: &Hold) -> Result<(), StoreError> {
    sqlx::query("UPDATE site SET hold_reason = $1, hold_owner = $2, hold_since = $3 WHERE name = $4")
        .bind(storable(&hold.reason))
        .bind(storable(&hold.owner))
        .bind(hold.since.timestamp_millis())
        .bind(site.as_str())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

pub(super) async fn clear_hold(connection: &mut Connection, site: &SiteName) -> Result<(), StoreError> {
    sqlx::query("UPDATE site SET hold_reason = NULL, hold_owner = NULL, hold_since = NULL WHERE name = $1")
        .bind(site.as_str())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

pub(super) async fn mark_bad(
    connection: &mut Connection,
    site: &SiteName,
    node: &NodeName,
    release: &ReleaseId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO bad_release (site, node, release, since) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (site, node, release) DO NOTHING",
    )
    .bind(site.as_str())
    .bind(node.as_str())
    .bind(release.as_str())
    .bind(now.timestamp_millis())
    .execute(&mut *connection)
    .await?;
    Ok(())
}

pub(in crate::store) async fn bad_releases(
    connection: &mut Connection,
    site: &SiteName,
    node: &NodeName,
) -> Result<BTreeSet<ReleaseId>, StoreError> {
    let rows: Vec<(String,)> = sqlx::query_as("SELECT release FROM bad_release WHERE site = $1 AND node = $2")
        .bind(site.as_str())
        .bind(node.as_str())
        .fetch_all(&mut *connection)
        .await?;
    rows.iter().map(|(text,)| read("release", text, |text| ReleaseId::parse(text).ok())).collect()
}

pub(in crate::store) async fn newest_release(
    connection: &mut Connection,
    site: &SiteName,
    node: &NodeName,
) -> Result<Option<ReleaseId>, StoreError> {
    let row: Option<(String,)> = sqlx::query_as(
        "SELECT release FROM deployment WHERE site = $1 AND node = $2 AND kind = 'deploy' AND release IS NOT NULL \
         ORDER BY id DESC LIMIT 1",
    )
    .bind(site.as_str())
    .bind(node.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    row.map(|(text,)| read("release", &text, |text| ReleaseId::parse(text).ok())).transpose()
}
