//! What goes into the store and comes out of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::domain::admission::{DeliveryStatus, SiteStatus};
use crate::domain::deployment::{DeploymentId, Entry, Kind, StateName, Step, Trigger};
use crate::domain::name::{NodeName, RepositoryName, SiteName};
use crate::domain::push::{Change, DeliveryKey, RefName};
use crate::domain::reconcile::Reason;
use crate::domain::release_id::ReleaseId;
use crate::domain::revision::Revision;
use crate::domain::routing::{Route, Wanted};

/// Why the store did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not answer, or could not write: busy, full, gone. Nothing has changed.
    #[error("the store is not available: {0}")]
    Unavailable(#[from] sqlx::Error),
    /// Somebody else took the deployment over; nothing of it may be touched any more.
    #[error("the lease of the deployment was lost")]
    LostLease,
    /// There is no such deployment.
    #[error("there is no deployment {0}")]
    NotFound(DeploymentId),
    /// The schema is from the future.
    #[error(
        "the store was changed by a newer Landfall (schema {0})\nhelp: run that version, or restore a copy from before"
    )]
    Newer(i64),
    /// The schema could not be brought up to date.
    #[error("cannot bring the store's schema up to date: {0}")]
    Migration(sqlx::migrate::MigrateError),
    /// It took nothing of a whole batch, for the same reason.
    #[error("the store is not available: {0}")]
    Batch(String),
    /// More wait to be stored than it can take.
    #[error("too many deliveries wait to be stored")]
    Busy,
    /// A value in a row is not one of ours.
    #[error("the store has a value that cannot be understood: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether it may be the fault of one of the rows, so that others could still be written.
    pub(super) fn is_of_the_rows(&self) -> bool {
        match self {
            Self::Unavailable(sqlx::Error::Database(error)) => {
                let is_constraint = !matches!(error.kind(), sqlx::error::ErrorKind::Other);
                // A value that PostgreSQL cannot take: SQLSTATE class 22.
                is_constraint || error.code().is_some_and(|code| code.len() == 5 && code.starts_with("22"))
            }
            Self::Corrupt(_) => true,
            Self::Unavailable(_) | Self::LostLease | Self::NotFound(_) | Self::Newer(_) => false,
            Self::Migration(_) | Self::Batch(_) | Self::Busy => false,
        }
    }
}

/// A delivery that is to be stored.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Whose webhook it is.
    pub repository: RepositoryName,
    /// The forge's own id of the repository, if the store is to remember it and to refuse another one.
    pub repository_id: Option<RepositoryId>,
    /// The forge's id of it.
    pub key: DeliveryKey,
    /// The forge's word for the event.
    pub event: String,
    /// SHA-256 of the body as it was sent, in hex.
    pub digest: String,
    /// The refs that moved.
    pub changes: Vec<Change>,
    /// Its headers, without what is secret.
    pub headers: Vec<(String, String)>,
    /// Its body, without what is secret.
    pub body: Vec<u8>,
    /// Who sent it.
    pub source: Option<IpAddr>,
    /// The earlier one that an operator sends again, and the operator.
    pub replay: Option<Replay>,
    /// When it came.
    pub received_at: DateTime<Utc>,
}

/// What a forge calls a repository that never changes, beside the name that may.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepositoryId {
    /// The forge and the name as they are configured: of others nothing is known yet.
    pub of: String,
    /// The forge's id.
    pub id: String,
}

/// That an operator sends a stored delivery again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The stored one.
    pub of: i64,
    /// The operator.
    pub asked_by: String,
}

/// A delivery with its verdict, on its way into the store.
#[derive(Debug)]
pub struct Submission {
    /// The delivery.
    pub delivery: NewDelivery,
    /// What it leads to, as far as the configuration says.
    pub verdict: Verdict,
    /// Since when its sender waits.
    pub arrived: Instant,
}

/// What a writer need not ask again: an id never changes, and a body that was used a moment ago is the last to be dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// The ids of repositories.
    pub(super) repositories: BTreeMap<(RepositoryName, String), String>,
    /// Digests of the bodies that were kept last, and when each was marked as used.
    pub(super) bodies: Vec<(String, DateTime<Utc>)>,
}

/// Tells which commit is live on a site at this moment.
pub type Live<'a> = dyn Fn(&SiteName) -> Option<Revision> + Send + Sync + 'a;

/// What a delivery leads to, before the queue is asked.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The same for all: `pong` or `ignored`.
    Whole {
        /// What became of it.
        status: DeliveryStatus,
        /// Why.
        reason: Option<String>,
    },
    /// One for each site of the repository.
    Sites(Vec<VerdictFor>),
}

/// The verdict over one site.
#[derive(Debug, Clone)]
pub struct VerdictFor {
    /// The site.
    pub site: SiteName,
    /// Where it lives.
    pub node: NodeName,
    /// Whether the push is for it.
    pub route: Route,
}

/// What became of a delivery.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// Our number of it.
    pub delivery: i64,
    /// The whole.
    pub status: DeliveryStatus,
    /// Why, if the whole was decided at once.
    pub reason: Option<String>,
    /// Each site.
    pub sites: Vec<SiteAcceptance>,
}

/// What became of a delivery for one site.
#[derive(Debug, Clone)]
pub struct SiteAcceptance {
    /// The site.
    pub site: SiteName,
    /// What was decided.
    pub status: SiteStatus,
    /// Why, if it is not obvious.
    pub reason: Option<String>,
    /// The deployment it led to, or is a duplicate of.
    pub deployment: Option<(DeploymentId, StateName)>,
    /// What of the delivery was for the site.
    pub wanted: Option<Wanted>,
}

/// A delivery as the store has it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Our number of it.
    pub id: i64,
    /// Whose webhook it is.
    pub repository: RepositoryName,
    /// The forge's id of it.
    pub key: DeliveryKey,
    /// 1, or more when the same key came again.
    pub attempt: i64,
    /// The forge's word for the event.
    pub event: String,
    /// SHA-256 of the body as it was sent, in hex.
    pub digest: String,
    /// The refs that moved.
    pub changes: Vec<Change>,
    /// The whole.
    pub status: DeliveryStatus,
    /// Why, if the whole was decided at once.
    pub reason: Option<String>,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// How long it took from its arrival to the decision, in microseconds; without the time its commit took.
    pub latency_us: Option<i64>,
    /// Who sent it.
    pub source: Option<String>,
    /// Its headers, without what is secret. Empty for what an older Landfall stored.
    pub headers: Vec<(String, String)>,
    /// How long its body was, in bytes.
    pub body_size: Option<i64>,
    /// See [`Replay`].
    pub replay: Option<Replay>,
    /// What was decided for each site.
    pub sites: Vec<DeliverySite>,
}

/// What was decided for a site, and what came of it.
#[derive(Debug, Clone)]
pub struct DeliverySite {
    /// The site.
    pub site: SiteName,
    /// What was decided.
    pub status: SiteStatus,
    /// Why, if it is not obvious.
    pub reason: Option<String>,
    /// Which of the refs was for the site.
    pub ref_name: Option<RefName>,
    /// The deployment it led to, or is a duplicate of, and how far that is now.
    pub deployment: Option<(DeploymentId, StateName)>,
}

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Only of this repository.
    pub repository: Option<RepositoryName>,
    /// Only with this key.
    pub key: Option<DeliveryKey>,
    /// At most this many.
    pub limit: i64,
}

/// How much of the past is kept. What is older or beyond is dropped, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryRetention {
    /// How long a delivery stays.
    pub keep: Duration,
    /// How many of each repository stay at most.
    pub keep_count: i64,
    /// What all bodies may take together, compressed, in bytes.
    pub keep_bodies: i64,
}

/// What became of a tip that a remote shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconciled {
    /// It will be deployed.
    Queued(DeploymentId),
    /// It is left alone.
    Left(Reason),
}

/// A deployment that is to be queued by an operator.
#[derive(Debug, Clone)]
pub struct NewDeployment {
    /// The site.
    pub site: SiteName,
    /// Where it lives.
    pub node: NodeName,
    /// What to do.
    pub kind: Kind,
    /// The ref to deploy.
    pub ref_name: Option<RefName>,
    /// The release to roll back to; none: the newest good one before the live one.
    pub rollback_to: Option<ReleaseId>,
    /// Deploy: even if the tip is live. Rollback: without hooks.
    pub force: bool,
    /// Who asks.
    pub requested_by: String,
}

/// A deployment as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its number.
    pub id: DeploymentId,
    /// The site.
    pub site: SiteName,
    /// Where it runs.
    pub node: NodeName,
    /// What it does.
    pub kind: Kind,
    /// Why it was queued.
    pub trigger: Trigger,
    /// How far it is.
    pub state: StateName,
    /// The step it is in, or ended in.
    pub step: Option<Step>,
    /// Why it failed.
    pub reason: Option<String>,
    /// The ref it deploys.
    pub ref_name: Option<RefName>,
    /// Where the ref was before the push.
    pub before: Option<Revision>,
    /// The commit the push named.
    pub after: Option<Revision>,
    /// The commit that was deployed: the tip at the time of the fetch.
    pub commit: Option<Revision>,
    /// The release it made, or went back to.
    pub release: Option<ReleaseId>,
    /// The release a rollback was asked to go to.
    pub rollback_to: Option<ReleaseId>,
    /// See [`NewDeployment::force`].
    pub force: bool,
    /// 1, or 2 after an interruption.
    pub attempt: i64,
    /// The interrupted deployment that this is the new attempt of.
    pub retry_of: Option<DeploymentId>,
    /// The newer one that took its place.
    pub superseded_by: Option<DeploymentId>,
    /// The operator who asked for it.
    pub requested_by: Option<String>,
    /// The forge's id of the delivery it came from.
    pub delivery: Option<DeliveryKey>,
    /// When it was queued.
    pub queued_at: DateTime<Utc>,
    /// When a worker took it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Which deployments to list.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFilter {
    /// Only of this site.
    pub site: Option<SiteName>,
    /// At most this many.
    pub limit: i64,
}

/// A deployment that is ours to work on, as long as the lease is renewed.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What to do.
    pub deployment: Deployment,
    /// The proof; whoever has an older one is refused.
    pub token: String,
}

/// What the end of a deployment brings with it.
#[derive(Debug, Clone, Default)]
pub struct FollowUp {
    /// The site refuses pushes from now on.
    pub hold: Option<Hold>,
    /// This release was rolled away from.
    pub bad_release: Option<ReleaseId>,
    /// It is tried again, with this number of attempt.
    pub retry: Option<i64>,
}

/// That a site refuses pushes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// Who said so.
    pub owner: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// A line of a journal, with its place and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalLine {
    /// Counted from 1.
    pub seq: i64,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// What it says.
    pub entry: Entry,
}
