//! Lost pushes: what a remote shows, compared with all that is known of the site, in one transaction.

use chrono::{DateTime, Utc};

use crate::domain::admission::SiteStatus;
use crate::domain::deployment::{DeploymentId, Kind, Trigger};
use crate::domain::name::{NodeName, SiteName};
use crate::domain::push::RefName;
use crate::domain::reconcile::{Attempt, Decision, Sighting, SiteNow, judge};
use crate::store::{Deployment, Live, Reconciled, StoreError};

use super::queue::{NewRow, insert, next_number, pending};
use super::row::{DeploymentRow, all, read};
use super::{Connection, site};

pub(in crate::store) async fn reconcile(
    connection: &mut Connection,
    name: &SiteName,
    node: &NodeName,
    seen: &Sighting,
    live: &Live<'_>,
    now: DateTime<Utc>,
) -> Result<Reconciled, StoreError> {
    site::lock(connection, name).await?;
    let attempts = attempts(connection, name, node).await?;
    let site_now = SiteNow {
        is_held: site::hold(connection, name).await?.is_some(),
        is_busy: !pending(connection, name, node).await?.is_empty(),
        is_refused: is_refused(connection, name, seen).await?,
        // Not before: what ended while this transaction waited has changed what is live.
        is_live: live(name).as_ref() == Some(&seen.tip),
        attempts: &attempts,
    };
    let before = match judge(seen, &site_now) {
        Decision::Leave(reason) => return Ok(Reconciled::Left(reason)),
        Decision::Queue { before } => before,
    };
    let id = DeploymentId(next_number(connection, "deployment").await?);
    let row = NewRow {
        id,
        site: name,
        node,
        kind: Kind::Deploy,
        trigger: Trigger::Reconcile,
        ref_name: Some(&seen.ref_name),
        before: before.as_ref(),
        after: Some(&seen.tip),
        rollback_to: None,
        force: false,
        attempt: 1,
        retry_of: None,
        requested_by: None,
        delivery: None,
        superseded_by: None,
    };
    insert(connection, &row, now).await?;
    Ok(Reconciled::Queued(id))
}

/// The latest deploys of a site that have ended, newest first. What was superseded has tried nothing.
async fn attempts(connection: &mut Connection, site: &SiteName, node: &NodeName) -> Result<Vec<Attempt>, StoreError> {
    let rows: Vec<DeploymentRow> = sqlx::query_as(
        "SELECT * FROM deployment WHERE site = $1 AND node = $2 AND kind = 'deploy' \
         AND state NOT IN ('queued', 'running', 'superseded') ORDER BY id DESC LIMIT $3",
    )
    .bind(site.as_str())
    .bind(node.as_str())
    .bind(MOST_ATTEMPTS)
    .fetch_all(&mut *connection)
    .await?;
    Ok(all(rows)?.into_iter().map(attempt_of).collect())
}

fn attempt_of(ended: Deployment) -> Attempt {
    Attempt {
        ref_name: ended.ref_name,
        trigger: ended.trigger,
        ordered: ended.requested_by.is_some(),
        state: ended.state,
        after: ended.after,
        commit: ended.commit,
        ended_at: ended.finished_at,
    }
}

/// Whether the last delivery that told of this tip was ignored for the site.
async fn is_refused(connection: &mut Connection, site: &SiteName, seen: &Sighting) -> Result<bool, StoreError> {
    let row: Option<(String,)> = sqlx::query_as(
        "SELECT status FROM delivery_site WHERE site = $1 AND ref_name = $2 AND after_id = $3 \
         ORDER BY delivery DESC LIMIT 1",
    )
    .bind(site.as_str())
    .bind(seen.ref_name.as_str())
    .bind(seen.tip.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    Ok(row.is_some_and(|(status,)| status == SiteStatus::Ignored.as_str()))
}

pub(in crate::store) async fn last_ref(
    connection: &mut Connection,
    site: &SiteName,
    node: &NodeName,
) -> Result<Option<RefName>, StoreError> {
    let row: Option<(String,)> = sqlx::query_as(
        "SELECT ref_name FROM deployment WHERE site = $1 AND node = $2 AND kind = 'deploy' AND ref_name IS NOT NULL \
         AND requested_by IS NULL AND state <> 'superseded' ORDER BY id DESC LIMIT 1",
    )
    .bind(site.as_str())
    .bind(node.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    row.map(|(text,)| read("ref_name", &text, |text| RefName::parse(text).ok())).transpose()
}

/// Far more than lie between a deployment that found a tip and the newest one, unless the remote is down for days.
const MOST_ATTEMPTS: i64 = 50;
