//! Deliveries: what a webhook says, what was decided, and the deployments it leads to, in one transaction.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::domain::admission::{Admission, DeliveryStatus, SiteNow, SiteStatus, admit};
use crate::domain::deployment::{DeploymentId, Kind, StateName, Trigger};
use crate::domain::revision::Revision;
use crate::domain::routing::{Route, Wanted};
use crate::store::{Acceptance, IsLive, NewDelivery, SiteAcceptance, StoreError, Verdict, VerdictFor};

use super::queue::{NewRow, insert, next_number, pending, state_of, supersede};
use super::row::storable;
use super::{Connection, site};

pub(in crate::store) async fn accept(
    connection: &mut Connection,
    delivery: &NewDelivery,
    verdict: &Verdict,
    is_live: IsLive<'_>,
    now: DateTime<Utc>,
) -> Result<Acceptance, StoreError> {
    if let Verdict::Sites(verdicts) = verdict {
        let names: BTreeSet<_> = verdicts.iter().map(|verdict| &verdict.site).collect();
        for name in names {
            site::lock(connection, name).await?;
        }
    }
    let id = next_number(connection, "delivery").await?;
    let mut sites = Vec::new();
    if let Verdict::Sites(verdicts) = verdict {
        for verdict in verdicts {
            sites.push(accept_for(connection, delivery, verdict, is_live, now).await?);
        }
    }
    let (status, reason) = match verdict {
        Verdict::Whole { status, reason } => (*status, reason.clone()),
        Verdict::Sites(_) => (DeliveryStatus::whole(sites.iter().map(|site| site.status)), None),
    };
    insert_delivery(connection, id, delivery, status, reason, now).await?;
    for site in &sites {
        sqlx::query(
            "INSERT INTO delivery_site (delivery, site, status, reason, deployment) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id)
        .bind(site.site.as_str())
        .bind(site.status.as_str())
        .bind(site.reason.as_deref().map(storable))
        .bind(site.deployment.map(|(deployment, _)| deployment.0))
        .execute(&mut *connection)
        .await?;
    }
    Ok(Acceptance { delivery: id, status, sites })
}

async fn insert_delivery(
    connection: &mut Connection,
    id: i64,
    delivery: &NewDelivery,
    status: DeliveryStatus,
    reason: Option<String>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let (attempt,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) + 1 FROM delivery WHERE repository = $1 AND forge_key = $2")
            .bind(delivery.repository.as_str())
            .bind(delivery.key.as_str())
            .fetch_one(&mut *connection)
            .await?;
    let first = delivery.changes.first();
    sqlx::query(
        "INSERT INTO delivery (id, repository, forge_key, attempt, event, digest, ref_name, before_id, after_id, status, \
         reason, received_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(id)
    .bind(delivery.repository.as_str())
    .bind(delivery.key.as_str())
    .bind(attempt)
    .bind(storable(&delivery.event))
    .bind(delivery.digest.as_str())
    .bind(first.map(|change| change.ref_name.as_str()))
    .bind(first.and_then(|change| change.before.as_ref()).map(Revision::as_str))
    .bind(first.and_then(|change| change.after.as_ref()).map(Revision::as_str))
    .bind(status.as_str())
    .bind(reason.as_deref().map(storable))
    .bind(now.timestamp_millis())
    .execute(&mut *connection)
    .await?;
    Ok(())
}

async fn accept_for(
    connection: &mut Connection,
    delivery: &NewDelivery,
    verdict: &VerdictFor,
    is_live: IsLive<'_>,
    now: DateTime<Utc>,
) -> Result<SiteAcceptance, StoreError> {
    let VerdictFor { site, node, route } = verdict;
    let answer = |status, reason, deployment| SiteAcceptance { site: site.clone(), status, reason, deployment };
    let wanted = match route {
        Route::Ignore(reason) | Route::Skip(_, reason) => {
            return Ok(answer(SiteStatus::Ignored, Some(reason.clone()), None));
        }
        Route::Deploy(wanted) => wanted,
    };
    let hold = site::hold(connection, site).await?;
    let pending = pending(connection, site, node).await?;
    // Not before: what ended while this transaction waited has changed what is live.
    let is_live = is_live(site, &wanted.after);
    let now_there = SiteNow { hold: hold.as_ref().map(|hold| hold.reason.as_str()), pending: &pending, is_live };
    match admit(&now_there, wanted, &delivery.key) {
        Admission::Ignore(reason) => Ok(answer(SiteStatus::Ignored, Some(reason), None)),
        Admission::Current => Ok(answer(SiteStatus::Current, None, None)),
        Admission::Duplicate(id) => {
            let state = state_of(connection, id).await?;
            Ok(answer(SiteStatus::Duplicate, None, Some((id, state))))
        }
        Admission::Queue { supersedes } => {
            let id = queue(connection, delivery, verdict, wanted, &supersedes, None, now).await?;
            Ok(answer(SiteStatus::Queued, None, Some((id, StateName::Queued))))
        }
        Admission::GiveWay(rollback) => {
            queue(connection, delivery, verdict, wanted, &[], Some(rollback), now).await?;
            Ok(answer(SiteStatus::Ignored, Some(format!("hold: rollback {rollback} waits")), None))
        }
    }
}

async fn queue(
    connection: &mut Connection,
    delivery: &NewDelivery,
    verdict: &VerdictFor,
    wanted: &Wanted,
    supersedes: &[DeploymentId],
    superseded_by: Option<DeploymentId>,
    now: DateTime<Utc>,
) -> Result<DeploymentId, StoreError> {
    let id = DeploymentId(next_number(connection, "deployment").await?);
    supersede(connection, supersedes, id, now).await?;
    let row = NewRow {
        id,
        site: &verdict.site,
        node: &verdict.node,
        kind: Kind::Deploy,
        trigger: Trigger::Push,
        ref_name: Some(&wanted.ref_name),
        before: wanted.before.as_ref(),
        after: Some(&wanted.after),
        rollback_to: None,
        force: false,
        attempt: 1,
        retry_of: None,
        requested_by: None,
        delivery: Some(&delivery.key),
        superseded_by,
    };
    insert(connection, &row, now).await?;
    Ok(id)
}
