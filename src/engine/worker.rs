//! The work: claim a deployment from the store, run its story, record the end with what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use crate::domain::deployment::{Cause, DeploymentId, Entry, Kind, Outcome, Step};
use crate::domain::name::{NodeName, SiteName};
use crate::domain::release_id::ReleaseId;
use crate::domain::remedy;
use crate::site::lock::SiteLock;
use crate::store::{Claim, Deployment, FollowUp, Hold, Store, StoreError};
use crate::sys::stop::Stop;

use super::deploy::End;
use super::run::failed;
use super::{Clock, Journal, Run, Target, deploy, rollback, undo};

/// Everything the workers share.
#[derive(Debug)]
pub struct Engine {
    /// Where deployments wait.
    pub store: Store,
    /// The sites of this node.
    pub targets: BTreeMap<SiteName, Target>,
    /// This node.
    pub node: NodeName,
    /// This process, as the leases name it.
    pub owner: String,
    /// The time.
    pub clock: Clock,
}

impl Engine {
    /// Claims and runs the oldest deployment that may run; false if there is none.
    pub fn step(&self, stop: &Stop) -> Result<bool, StoreError> {
        for site in self.store.waiting_sites(&self.node)? {
            let claim = || self.store.claim_next(&site, &self.node, &self.owner, LEASE, (self.clock)());
            if self.take(&site, claim, stop, Cause::Interrupted)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Claims and runs this very deployment, for a command line without a server; false if it cannot be claimed now.
    pub fn step_one(&self, id: DeploymentId, stop: &Stop) -> Result<bool, StoreError> {
        let Some(waiting) = self.store.deployment(id)? else { return Ok(false) };
        let claim = || self.store.claim_one(id, &self.owner, LEASE, (self.clock)());
        self.take(&waiting.site, claim, stop, Cause::Cancelled)
    }

    /// The lock is held before anybody can see the deployment run, until everybody can see that it has ended: whatever runs
    /// without its lock is dead, and recovered.
    fn take(
        &self,
        site: &SiteName,
        claim: impl FnOnce() -> Result<Option<Claim>, StoreError>,
        stop: &Stop,
        on_stop: fn(String) -> Cause,
    ) -> Result<bool, StoreError> {
        let Some(place) = self.place(site) else { return Ok(false) };
        let Some(claim) = claim()? else { return Ok(false) };
        self.work(claim, place, stop, on_stop)?;
        Ok(true)
    }

    /// Where the site's work is done; or why it cannot be done here at all. None while somebody else works on the site, and
    /// while the disk does not even lock: a push waits for better times.
    fn place(&self, site: &SiteName) -> Option<Result<(&Target, SiteLock), String>> {
        let Some(target) = self.targets.get(site) else {
            return Some(Err(format!("site `{site}` is not configured on this node")));
        };
        match SiteLock::try_acquire(&target.disk) {
            Ok(lock) => lock.map(|lock| Ok((target, lock))),
            Err(error) => {
                log::error!("{error} site={site}");
                None
            }
        }
    }

    /// Renews the leases of everything this process runs.
    pub fn renew(&self) -> Result<u64, StoreError> {
        self.store.renew(&self.owner, LEASE, (self.clock)())
    }

    fn work(
        &self,
        claim: Claim,
        place: Result<(&Target, SiteLock), String>,
        stop: &Stop,
        on_stop: fn(String) -> Cause,
    ) -> Result<(), StoreError> {
        let Claim { deployment, token } = claim;
        log::info!(
            "starts {} site={} deployment={} attempt={}",
            deployment.kind,
            deployment.site,
            deployment.id,
            deployment.attempt
        );
        let mut journal = StoreJournal::claimed(self, deployment.id, token)?;
        let (target, lock) = match place {
            Ok(place) => place,
            Err(reason) => {
                let failure = failed(Step::BeforePull)(reason);
                return self.finish(&mut journal, &deployment, Outcome::Failed(failure));
            }
        };
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.run(target, &lock, &deployment, &mut journal, stop, on_stop)
        }));
        let finished = match ran {
            Ok(outcome) => self.finish(&mut journal, &deployment, outcome),
            Err(_) => {
                log::error!(
                    "a bug: it panicked, and is recovered site={} deployment={}",
                    deployment.site,
                    deployment.id
                );
                Ok(())
            }
        };
        // From now on what still counts as running is taken for dead.
        drop(lock);
        finished
    }

    fn run(
        &self,
        target: &Target,
        lock: &SiteLock,
        deployment: &Deployment,
        journal: &mut StoreJournal<'_>,
        stop: &Stop,
        on_stop: fn(String) -> Cause,
    ) -> Outcome {
        let (newest_release, bad) = match self.known_releases(&deployment.site) {
            Ok(known) => known,
            Err(error) => return Outcome::Failed(failed(Step::BeforePull)(error)),
        };
        let clock = self.clock;
        let mut run = Run { target, deployment, lock, stop, on_stop, journal, clock, newest_release, previous: None };
        let ended = match deployment.kind {
            Kind::Deploy => deploy::deploy(&mut run),
            Kind::Rollback => rollback::rollback(&mut run, &bad),
        };
        match ended {
            Ok(End::Live) => Outcome::Live,
            Ok(End::Current) => Outcome::Current,
            Err(failure) => undo::undo_all(&mut run, failure),
        }
    }

    fn known_releases(&self, site: &SiteName) -> Result<(Option<ReleaseId>, BTreeSet<ReleaseId>), StoreError> {
        Ok((self.store.newest_release(site, &self.node)?, self.store.bad_releases(site, &self.node)?))
    }

    /// Records the end, with what follows from it, in one transaction.
    pub(super) fn finish(
        &self,
        journal: &mut StoreJournal<'_>,
        deployment: &Deployment,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let follow_up = self.follow_up(deployment, journal.entries(), &outcome);
        let state = outcome.state();
        let retry = journal.finish(&outcome, &follow_up)?;
        log::info!("{} {state} site={} deployment={}", deployment.kind, deployment.site, deployment.id);
        if let Some(retry) = retry {
            log::info!("tries it once more as {retry} site={} deployment={}", deployment.site, deployment.id);
        }
        Ok(())
    }

    fn follow_up(&self, deployment: &Deployment, journal: &[Entry], outcome: &Outcome) -> FollowUp {
        match (outcome, deployment.kind) {
            (Outcome::Live, Kind::Rollback) => self.after_rollback(deployment, journal),
            (Outcome::Interrupted(_), _) => {
                FollowUp { retry: self.next_attempt(deployment, journal), ..FollowUp::default() }
            }
            // What is left of it must not be chosen by a rollback: it is taken back as soon as that works.
            (Outcome::Stuck { .. }, Kind::Deploy) => {
                FollowUp { bad_release: remedy::announced_release(journal).cloned(), ..FollowUp::default() }
            }
            (Outcome::Live, Kind::Deploy)
            | (Outcome::Stuck { .. }, Kind::Rollback)
            | (Outcome::Current | Outcome::Failed(_) | Outcome::Cancelled(_), _) => FollowUp::default(),
        }
    }

    /// The attempt an interruption leads to: one more, and only one, if a hook had begun; else the same again, but not for
    /// ever: what kills the process may be the deployment itself.
    fn next_attempt(&self, deployment: &Deployment, journal: &[Entry]) -> Option<i64> {
        if remedy::interruption_counts(journal) {
            return (deployment.attempt < MOST_ATTEMPTS).then_some(deployment.attempt + 1);
        }
        let mut earlier = deployment.retry_of;
        for _ in 0..MOST_UNCOUNTED {
            let Some(id) = earlier else { return Some(deployment.attempt) };
            earlier = match self.store.deployment(id) {
                Ok(found) => found.and_then(|found| found.retry_of),
                Err(error) => {
                    log::warn!("cannot look how often it was tried: {error} deployment={}", deployment.id);
                    None
                }
            };
        }
        log::error!("is not tried again after {MOST_UNCOUNTED} interruptions deployment={}", deployment.id);
        None
    }

    /// A rollback that worked holds the site, so that the next push does not bring the bad release back.
    fn after_rollback(&self, deployment: &Deployment, journal: &[Entry]) -> FollowUp {
        let Some((from, to)) = remedy::announced_flip(journal) else { return FollowUp::default() };
        let bad_release = from.and_then(|from| self.targets.get(&deployment.site)?.disk.release_named_by(from));
        let owner = deployment.requested_by.clone().unwrap_or_else(|| self.owner.clone());
        let hold = Hold { reason: format!("rolled back to {to}"), owner, since: (self.clock)() };
        FollowUp { hold: Some(hold), bad_release, retry: None }
    }
}

/// The journal of a deployment in the store, written under its lease.
#[derive(Debug)]
pub struct StoreJournal<'a> {
    engine: &'a Engine,
    id: DeploymentId,
    token: String,
    entries: Vec<Entry>,
}

impl<'a> StoreJournal<'a> {
    fn claimed(engine: &'a Engine, id: DeploymentId, token: String) -> Result<Self, StoreError> {
        let entries = engine.store.journal(id)?.into_iter().map(|line| line.entry).collect();
        Ok(Self { engine, id, token, entries })
    }

    /// Takes a dead process's deployment over: from now on its own token counts for nothing.
    pub(super) fn take_over(engine: &'a Engine, id: DeploymentId) -> Result<Self, StoreError> {
        let claim = engine.store.take_over(id, &engine.owner, LEASE, (engine.clock)())?;
        Self::claimed(engine, id, claim.token)
    }

    fn finish(&mut self, outcome: &Outcome, follow_up: &FollowUp) -> Result<Option<DeploymentId>, StoreError> {
        self.engine.store.finish(self.id, &self.token, outcome, follow_up, (self.engine.clock)())
    }
}

impl Journal for StoreJournal<'_> {
    fn append(&mut self, entry: Entry) -> Result<(), StoreError> {
        self.engine.store.append(self.id, &self.token, &entry, (self.engine.clock)())?;
        self.entries.push(entry);
        Ok(())
    }

    fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// How long a process may be silent. For a fleet, where nobody sees the locks of another machine: on one machine the site's
/// lock says who is dead, and the lease's token who may write.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// An interrupted deployment is tried once more.
const MOST_ATTEMPTS: i64 = 2;

/// A machine that is restarted again and again has a few; a tree whose checkout kills the process would have them all.
const MOST_UNCOUNTED: usize = 5;
