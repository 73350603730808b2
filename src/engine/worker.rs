//! Who does the work: threads that claim a deployment from the store, run its story and record the end.
//!
//! The queue is the store: nothing is kept in memory that a crash could lose. A wake-up is a hint, polling the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::domain::deployment::{Cause, DeploymentId, Entry, Kind, Outcome, Step, Undo};
use crate::domain::name::{NodeName, SiteName};
use crate::domain::release_id::ReleaseId;
use crate::domain::remedy;
use crate::site::current;
use crate::site::lock::SiteLock;
use crate::store::{Claim, Deployment, FollowUp, Hold, Store, StoreError};
use crate::sys::stop::Stop;

use super::deploy::End;
use super::recover::{Scope, recover};
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
        for id in self.store.candidates(&self.node)? {
            if self.take(id, stop, Cause::Interrupted)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Claims and runs this very deployment, for a command line without a server; false if it cannot be claimed now.
    pub fn step_one(&self, id: DeploymentId, stop: &Stop) -> Result<bool, StoreError> {
        self.take(id, stop, Cause::Cancelled)
    }

    /// The lock is held before anybody can see the deployment run, until everybody can see that it has ended: whatever runs
    /// without its lock is dead, and recovered.
    fn take(&self, id: DeploymentId, stop: &Stop, on_stop: fn(String) -> Cause) -> Result<bool, StoreError> {
        let Some(waiting) = self.store.deployment(id)? else { return Ok(false) };
        let Some(place) = self.place(&waiting.site) else { return Ok(false) };
        let Some(claim) = self.store.claim_one(id, &self.owner, LEASE, (self.clock)())? else { return Ok(false) };
        self.work(claim, place, stop, on_stop)?;
        Ok(true)
    }

    /// Where the site's work is done; or why it cannot be done here at all. None while somebody else works on the site.
    fn place(&self, site: &SiteName) -> Option<Result<(&Target, SiteLock), String>> {
        let Some(target) = self.targets.get(site) else {
            return Some(Err(format!("site `{site}` is not configured on this node")));
        };
        match SiteLock::try_acquire(&target.disk) {
            Ok(lock) => lock.map(|lock| Ok((target, lock))),
            Err(error) => Some(Err(error.to_string())),
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
            "starts {} number {} site={} deployment={}",
            deployment.kind,
            deployment.attempt,
            deployment.site,
            deployment.id
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
        match ran {
            Ok(outcome) => {
                let finished = self.finish(&mut journal, &deployment, outcome);
                drop(lock);
                finished
            }
            // A bug of ours: without the lock it counts as dead, and recovery knows how to undo a journal.
            Err(_) => {
                drop(lock);
                recover(self, Scope::Running, stop).map(drop)
            }
        }
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
                FollowUp { bad_release: made_release(journal), ..FollowUp::default() }
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
        let flip = journal.iter().rev().find_map(|entry| match entry {
            Entry::WillUndo(Undo::FlipBack { from, to }) => Some((from.clone(), to.clone())),
            _ => None,
        });
        let Some((from, to)) = flip else { return FollowUp::default() };
        let bad_release = from.and_then(|from| self.targets.get(&deployment.site)?.disk.release_named_by(&from));
        let owner = deployment.requested_by.clone().unwrap_or_else(|| self.owner.clone());
        let hold = Hold { reason: format!("rolled back to {to}"), owner, since: (self.clock)() };
        FollowUp { hold: Some(hold), bad_release, retry: None }
    }
}

/// The release that a deployment made.
fn made_release(journal: &[Entry]) -> Option<ReleaseId> {
    journal.iter().find_map(|entry| match entry {
        Entry::WillUndo(Undo::Discard(release)) => Some(release.clone()),
        _ => None,
    })
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

/// A bell: whoever waits is woken when it rings, or after a while.
#[derive(Debug, Default)]
pub struct Bell {
    rings: Mutex<u64>,
    rang: Condvar,
}

impl Bell {
    /// Wakes everybody who waits.
    pub fn ring(&self) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.rang.notify_all();
    }

    /// Waits for a ring after `heard`, at most `limit`; gives back the last one.
    pub fn wait(&self, heard: u64, limit: Duration) -> u64 {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.rang.wait_timeout_while(rings, limit, |rings| *rings == heard);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The threads that do the work. Whoever starts them joins them.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    leases: JoinHandle<()>,
    /// Leases are renewed until the last worker has ended, however long that takes after the stop.
    leases_stop: Stop,
    alive: Arc<()>,
}

impl Workers {
    /// Starts `count` workers, a thread that recovers what the dead have left, and one that renews leases.
    pub fn start(engine: &Arc<Engine>, count: usize, stop: &Stop, bell: &Arc<Bell>) -> std::io::Result<Self> {
        let (alive, leases_stop) = (Arc::new(()), Stop::new());
        let spawn = |name: String, stop: &Stop, body: fn(&Engine, &Stop, &Bell)| {
            let (engine, stop, bell, pulse) = (engine.clone(), stop.clone(), bell.clone(), alive.clone());
            std::thread::Builder::new().name(name).spawn(move || {
                body(&engine, &stop, &bell);
                drop(pulse);
            })
        };
        let workers = (1..=count).map(|number| spawn(format!("deploy-{number}"), stop, work_loop));
        let threads = workers.chain([spawn("recover".into(), stop, recover_loop)]).collect::<Result<_, _>>()?;
        let leases = spawn("leases".into(), &leases_stop, lease_loop)?;
        Ok(Self { threads, leases, leases_stop, alive })
    }

    /// A question that can be asked from elsewhere: are all threads alive?
    pub fn pulse(&self) -> Pulse {
        Pulse { expected: self.threads.len() + 1, alive: Arc::downgrade(&self.alive) }
    }

    /// Waits for all threads to end; they do when the stop says so.
    pub fn join(self) {
        self.threads.into_iter().for_each(join);
        self.leases_stop.drain();
        join(self.leases);
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("?").to_owned();
    if thread.join().is_err() {
        log::error!("thread {name} panicked");
    }
}

/// Whether the worker threads live. Each holds a reference that goes with it, also when it panics.
#[derive(Debug, Clone)]
pub struct Pulse {
    expected: usize,
    alive: std::sync::Weak<()>,
}

impl Pulse {
    /// True while no thread has ended.
    pub fn is_steady(&self) -> bool {
        // One reference is the owner's own.
        self.alive.strong_count() > self.expected
    }
}

fn work_loop(engine: &Engine, stop: &Stop, bell: &Bell) {
    let mut heard = 0;
    while !stop.is_draining() {
        match engine.step(stop) {
            Ok(true) => {}
            Ok(false) => heard = bell.wait(heard, POLL),
            Err(error) => {
                log::error!("cannot work on the queue: {error}");
                stop.wait(STORE_TROUBLE_PAUSE);
            }
        }
    }
}

/// A thread of its own, since a recovery may run hooks for minutes, and pushes and leases do not wait.
fn recover_loop(engine: &Engine, stop: &Stop, bell: &Bell) {
    let mut scope = Scope::RunningAndStuck;
    while !stop.is_draining() {
        match recover(engine, scope, stop) {
            Ok(recovered) => {
                scope = Scope::Running;
                if recovered > 0 {
                    bell.ring();
                }
            }
            Err(error) => log::error!("cannot look for what dead processes left: {error}"),
        }
        stop.wait(RECOVER_POLL);
    }
}

fn lease_loop(engine: &Engine, stop: &Stop, _: &Bell) {
    while !stop.is_draining() {
        if let Err(error) = engine.renew() {
            log::error!("cannot renew leases: {error}");
        }
        stop.wait(LEASE / 3);
    }
}

/// Whether the site's live release is the commit, for the door's answer.
pub fn is_live(target: &Target, commit: &crate::domain::revision::Revision) -> bool {
    let live = current::live(&target.disk).ok().flatten();
    let release = live.and_then(|id| crate::site::release::Release::open(&target.disk, &id).ok().flatten());
    release.is_some_and(|release| release.commit() == commit)
}

/// How long a process may be silent before others ask whether it is dead; renewed at a third of it.
const LEASE: Duration = Duration::from_secs(30);

/// An interrupted deployment is tried once more.
const MOST_ATTEMPTS: i64 = 2;

/// A machine that is restarted again and again has a few; a tree whose checkout kills the process would have them all.
const MOST_UNCOUNTED: usize = 5;

/// The bell is a hint; this is the longest a queued deployment waits when it was not heard.
const POLL: Duration = Duration::from_secs(1);

/// How soon what a process left is found that died while another one of this node lives.
const RECOVER_POLL: Duration = Duration::from_secs(10);

/// The pause after the store did not answer.
const STORE_TROUBLE_PAUSE: Duration = Duration::from_secs(1);
