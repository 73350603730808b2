//! What the store and the disks say, as values that the command line, the API and the pages show alike.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::domain::deployment::{DeploymentId, Kind, StateName, Step, Trigger};
use crate::domain::name::{NodeName, RepositoryName, SiteName};
use crate::domain::release_id::ReleaseId;
use crate::domain::revision::Revision;
use crate::site::current;
use crate::site::release::{self, Release};
use crate::store::{Deployment, DeploymentFilter, Hold, JournalLine};

use super::{App, AppError};

/// A site at this moment.
#[derive(Debug, Clone, Serialize)]
pub struct SiteReport {
    /// The site.
    pub site: SiteName,
    /// Its repository.
    pub repository: RepositoryName,
    /// What is deployed when nobody names a ref, if that is one branch.
    pub branch: Option<String>,
    /// The refs whose pushes it deploys, in words.
    pub refs: String,
    /// Its root directory.
    pub root: String,
    /// What `current` names, if it is one of ours.
    pub live: Option<ReleaseReport>,
    /// Why its disk cannot be deployed to, if so.
    pub problem: Option<String>,
    /// Why it refuses pushes, if it does.
    pub hold: Option<Hold>,
    /// What runs.
    pub running: Option<DeploymentReport>,
    /// What waits.
    pub queued: Option<DeploymentReport>,
    /// What ended last, apart from what was superseded.
    pub last: Option<DeploymentReport>,
}

/// A complete release.
#[derive(Debug, Clone, Serialize)]
pub struct ReleaseReport {
    /// Its name.
    pub release: ReleaseId,
    /// Its directory.
    pub path: String,
    /// The commit it was made from.
    pub commit: Revision,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// When it was complete.
    pub made_at: DateTime<Utc>,
    /// Whether `current` names it.
    pub live: bool,
    /// Whether it was rolled away from: a bare rollback does not choose it.
    pub rolled_away: bool,
}

/// A deployment.
#[derive(Debug, Clone, Serialize)]
pub struct DeploymentReport {
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
    #[serde(rename = "ref")]
    pub ref_name: Option<String>,
    /// The commit: of the tip at the time of the fetch, before that of the push.
    pub commit: Option<Revision>,
    /// The release it made, or went back to.
    pub release: Option<ReleaseId>,
    /// 1, or 2 after an interruption.
    pub attempt: i64,
    /// The interrupted one that it is the new attempt of.
    pub retry_of: Option<DeploymentId>,
    /// The newer one that took its place.
    pub superseded_by: Option<DeploymentId>,
    /// The operator who asked for it.
    pub requested_by: Option<String>,
    /// The forge's id of the delivery it came from.
    pub delivery_key: Option<String>,
    /// When it was queued.
    pub queued_at: DateTime<Utc>,
    /// When a worker took it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl From<Deployment> for DeploymentReport {
    fn from(deployment: Deployment) -> Self {
        let Deployment {
            id,
            site,
            node,
            kind,
            trigger,
            state,
            step,
            reason,
            ref_name,
            before: _,
            after,
            commit,
            release,
            rollback_to,
            force: _,
            attempt,
            retry_of,
            superseded_by,
            requested_by,
            delivery,
            queued_at,
            started_at,
            finished_at,
        } = deployment;
        Self {
            id,
            site,
            node,
            kind,
            trigger,
            state,
            step,
            reason,
            ref_name: ref_name.map(|name| name.as_str().to_owned()),
            commit: commit.or(after),
            release: release.or(rollback_to),
            attempt,
            retry_of,
            superseded_by,
            requested_by,
            delivery_key: delivery.map(|key| key.as_str().to_owned()),
            queued_at,
            started_at,
            finished_at,
        }
    }
}

impl App {
    /// A site at this moment.
    pub fn site_report(&self, name: &SiteName) -> Result<SiteReport, AppError> {
        let site = self.site(name)?;
        let pending: Vec<_> = self.store.pending(name)?.into_iter().map(DeploymentReport::from).collect();
        let first = |state| pending.iter().find(|found| found.state == state).cloned();
        // One site with something in its way must not hide the others.
        let (live, problem) = match self.live_release(name) {
            Ok(live) => (live, None),
            Err(AppError::Site(error)) => (None, Some(error.to_string())),
            Err(other) => return Err(other),
        };
        Ok(SiteReport {
            site: name.clone(),
            repository: site.repository.clone(),
            branch: site.branch.as_ref().map(|branch| branch.short().to_owned()),
            refs: site.refs.to_string(),
            root: site.root.display().to_string(),
            live,
            problem,
            hold: self.store.hold(name)?,
            running: first(StateName::Running),
            queued: first(StateName::Queued),
            last: self.store.last_ended(name)?.map(DeploymentReport::from),
        })
    }

    /// All sites, by name.
    pub fn site_reports(&self) -> Result<Vec<SiteReport>, AppError> {
        self.config.sites.keys().map(|name| self.site_report(name)).collect()
    }

    fn live_release(&self, site: &SiteName) -> Result<Option<ReleaseReport>, AppError> {
        let disk = self.disk(site)?;
        let Some(id) = current::live(&disk)? else { return Ok(None) };
        let bad = self.store.bad_releases(site, &self.config.node)?;
        let release = Release::open(&disk, &id)?;
        Ok(release.map(|release| release_report(&release, true, bad.contains(&id))))
    }

    /// The complete releases of a site, newest first.
    pub fn releases(&self, site: &SiteName) -> Result<Vec<ReleaseReport>, AppError> {
        let disk = self.disk(site)?;
        let live = current::live(&disk)?;
        let bad = self.store.bad_releases(site, &self.config.node)?;
        let report = |release: &Release| {
            release_report(release, live.as_ref() == Some(release.id()), bad.contains(release.id()))
        };
        Ok(release::list(&disk)?.iter().map(report).collect())
    }

    /// Deployments of one site or of all, newest first.
    pub fn deployments(&self, site: Option<&SiteName>, limit: i64) -> Result<Vec<DeploymentReport>, AppError> {
        if let Some(site) = site {
            self.site(site)?;
        }
        let filter = DeploymentFilter { site: site.cloned(), limit };
        Ok(self.store.deployments(&filter)?.into_iter().map(DeploymentReport::from).collect())
    }

    /// The journal of a deployment: its timeline.
    pub fn journal(&self, id: DeploymentId) -> Result<Vec<JournalLine>, AppError> {
        Ok(self.store.journal(id)?)
    }
}

fn release_report(release: &Release, live: bool, rolled_away: bool) -> ReleaseReport {
    ReleaseReport {
        release: release.id().clone(),
        path: release.path().display().to_string(),
        commit: release.commit().clone(),
        deployment: release.deployment(),
        made_at: release.sealed_at(),
        live,
        rolled_away,
    }
}
