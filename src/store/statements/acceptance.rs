//! What becomes of deliveries: decided and written for many at once, since the disk takes as long for one.
//!
//! ```text
//! lock their sites ▸ remember the repositories' ids ▸ for each in its order: admit, queue ▸ write deliveries, bodies
//! ```
//!
//! What is known of a site is read once, and kept true here while one delivery after the other changes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::admission::{Admission, DeliveryStatus, Pending, SiteNow, SiteStatus, admit};
use crate::domain::deployment::{DeploymentId, Kind, StateName, Trigger};
use crate::domain::name::{NodeName, RepositoryName, SiteName};
use crate::domain::push::DeliveryKey;
use crate::domain::revision::Revision;
use crate::domain::routing::{Route, Wanted};
use crate::store::{
    Acceptance, Live, Memory, NewDelivery, RepositoryId, SiteAcceptance, StoreError, Submission, Verdict, VerdictFor,
};

use super::queue::{NewRow, insert, next_number, next_numbers, pending, supersede};
use super::{Connection, body, delivery, site};

/// Stores deliveries with their verdicts and the deployments they lead to, in their order.
pub(in crate::store) async fn accept(
    connection: &mut Connection,
    submissions: &[Submission],
    memory: &mut Memory,
    live: &Live<'_>,
) -> Result<Vec<Acceptance>, StoreError> {
    let mut known = Known::default();
    for name in sites_of(submissions) {
        let hold = site::lock(connection, name).await?;
        known.holds.insert(name.clone(), hold);
    }
    known.learn_repositories(connection, submissions, memory).await?;
    let first = next_numbers(connection, "delivery", i64::try_from(submissions.len()).unwrap_or(i64::MAX)).await?;
    let mut accepted = Vec::with_capacity(submissions.len());
    for (id, submission) in (first..).zip(submissions) {
        accepted.push(decide(connection, &mut known, id, submission, live).await?);
    }
    delivery::insert(connection, submissions, &accepted).await?;
    body::keep(connection, submissions, memory).await?;
    memory.repositories.append(&mut known.repositories);
    Ok(accepted)
}

fn sites_of(submissions: &[Submission]) -> BTreeSet<&SiteName> {
    let verdicts = submissions.iter().flat_map(|submission| match &submission.verdict {
        Verdict::Whole { .. } => &[],
        Verdict::Sites(verdicts) => verdicts.as_slice(),
    });
    verdicts.map(|verdict| &verdict.site).collect()
}

async fn decide(
    connection: &mut Connection,
    known: &mut Known,
    id: i64,
    submission: &Submission,
    live: &Live<'_>,
) -> Result<Acceptance, StoreError> {
    let other = known.other_repository(submission);
    let verdicts = match &submission.verdict {
        Verdict::Whole { status, reason } => {
            return Ok(Acceptance { delivery: id, status: *status, reason: reason.clone(), sites: Vec::new() });
        }
        Verdict::Sites(verdicts) => verdicts,
    };
    let mut sites = Vec::with_capacity(verdicts.len());
    for verdict in verdicts {
        sites.push(match &other {
            Some(reason) => refuse(verdict, reason),
            None => decide_for(connection, known, submission, verdict, live).await?,
        });
    }
    let status = DeliveryStatus::whole(sites.iter().map(|site| site.status));
    Ok(Acceptance { delivery: id, status, reason: other, sites })
}

fn refuse(verdict: &VerdictFor, reason: &str) -> SiteAcceptance {
    let (reason, wanted) = match verdict.route.clone().refused(reason) {
        Route::Deploy(wanted) | Route::Skip(wanted, _) => (reason.to_owned(), Some(wanted)),
        Route::Ignore(reason) => (reason, None),
    };
    let site = verdict.site.clone();
    SiteAcceptance { site, status: SiteStatus::Ignored, reason: Some(reason), deployment: None, wanted }
}

async fn decide_for(
    connection: &mut Connection,
    known: &mut Known,
    submission: &Submission,
    verdict: &VerdictFor,
    live: &Live<'_>,
) -> Result<SiteAcceptance, StoreError> {
    let VerdictFor { site: name, node, route } = verdict;
    let answer =
        |status, reason, deployment, wanted| SiteAcceptance { site: name.clone(), status, reason, deployment, wanted };
    let wanted = match route {
        Route::Ignore(reason) => return Ok(answer(SiteStatus::Ignored, Some(reason.clone()), None, None)),
        Route::Skip(wanted, reason) => {
            return Ok(answer(SiteStatus::Ignored, Some(reason.clone()), None, Some(wanted.clone())));
        }
        Route::Deploy(wanted) => wanted,
    };
    let site = known.site(connection, name, node, live).await?;
    let is_live = site.live.as_ref() == Some(&wanted.after);
    let now_there = SiteNow { hold: site.hold.as_deref(), pending: &site.pending, is_live };
    let key = &submission.delivery.key;
    let (status, reason, deployment) = match admit(&now_there, wanted, key) {
        Admission::Ignore(reason) => (SiteStatus::Ignored, Some(reason), None),
        Admission::Current => (SiteStatus::Current, None, None),
        Admission::Duplicate(id) => (SiteStatus::Duplicate, None, Some((id, site.state_of(id)))),
        Admission::Queue { supersedes } => {
            let id = queue(connection, submission, verdict, wanted, &supersedes, None).await?;
            site.queued(id, &supersedes, wanted, key);
            (SiteStatus::Queued, None, Some((id, StateName::Queued)))
        }
        Admission::GiveWay(rollback) => {
            queue(connection, submission, verdict, wanted, &[], Some(rollback)).await?;
            (SiteStatus::Ignored, Some(format!("hold: rollback {rollback} waits")), None)
        }
    };
    Ok(answer(status, reason, deployment, Some(wanted.clone())))
}

async fn queue(
    connection: &mut Connection,
    submission: &Submission,
    verdict: &VerdictFor,
    wanted: &Wanted,
    supersedes: &[DeploymentId],
    superseded_by: Option<DeploymentId>,
) -> Result<DeploymentId, StoreError> {
    let now = submission.delivery.received_at;
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
        delivery: Some(&submission.delivery.key),
        superseded_by,
    };
    insert(connection, &row, now).await?;
    Ok(id)
}

/// What was read of the store, kept true while this transaction changes it.
#[derive(Default)]
struct Known {
    holds: BTreeMap<SiteName, Option<String>>,
    sites: BTreeMap<(SiteName, NodeName), Site>,
    repositories: BTreeMap<(RepositoryName, String), String>,
}

/// A site, as the next delivery finds it.
struct Site {
    hold: Option<String>,
    pending: Vec<Pending>,
    live: Option<Revision>,
}

impl Known {
    async fn site(
        &mut self,
        connection: &mut Connection,
        name: &SiteName,
        node: &NodeName,
        live: &Live<'_>,
    ) -> Result<&mut Site, StoreError> {
        let entry = match self.sites.entry((name.clone(), node.clone())) {
            std::collections::btree_map::Entry::Occupied(entry) => return Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => entry,
        };
        let hold = self.holds.get(name).cloned().flatten();
        let pending = pending(connection, name, node).await?;
        // Not before: what ended while this transaction waited for its locks has changed what is live.
        Ok(entry.insert(Site { hold, pending, live: live(name) }))
    }

    /// The first push that names an id is believed; whatever comes later has to agree with it.
    async fn learn_repositories(
        &mut self,
        connection: &mut Connection,
        submissions: &[Submission],
        memory: &mut Memory,
    ) -> Result<(), StoreError> {
        // The first of each, in an order that all writers keep.
        let mut first: BTreeMap<(RepositoryName, String), &NewDelivery> = BTreeMap::new();
        for sent in submissions.iter().rev().map(|submission| &submission.delivery) {
            if let Some(id) = &sent.repository_id {
                first.insert((sent.repository.clone(), id.of.clone()), sent);
            }
        }
        for (name, sent) in first {
            let Some(said) = &sent.repository_id else { continue };
            let id = match memory.repositories.get(&name) {
                Some(id) => id.clone(),
                None => delivery::repository_id(connection, &sent.repository, said, sent.received_at).await?,
            };
            self.repositories.insert(name, id);
        }
        Ok(())
    }

    fn other_repository(&self, submission: &Submission) -> Option<String> {
        let RepositoryId { of, id: sent } = submission.delivery.repository_id.as_ref()?;
        let name = (submission.delivery.repository.clone(), of.clone());
        let known = self.repositories.get(&name).filter(|known| *known != sent)?;
        Some(format!(
            "the forge's id of the repository is `{sent}`, and was `{known}` in its first push: another repository has its \
             name now; set `repository_id` in the configuration to accept it"
        ))
    }
}

impl Site {
    fn state_of(&self, id: DeploymentId) -> StateName {
        let waits = self.pending.iter().any(|pending| pending.id == id && pending.waits);
        if waits { StateName::Queued } else { StateName::Running }
    }

    fn queued(&mut self, id: DeploymentId, supersedes: &[DeploymentId], wanted: &Wanted, delivery: &DeliveryKey) {
        self.pending.retain(|pending| !supersedes.contains(&pending.id));
        self.pending.push(Pending {
            id,
            kind: Kind::Deploy,
            waits: true,
            ref_name: Some(wanted.ref_name.clone()),
            after: Some(wanted.after.clone()),
            delivery: Some(delivery.clone()),
        });
    }
}
