//! What a dead process left: the very same undo, or the very same way forward, from the journal in the store.
//!
//! Who is dead? Whoever does not hold the site's lock any more: the kernel lets go of it with the process.

use crate::domain::deployment::{Cause, Entry, Failure, Kind, Outcome, StateName, Step};
use crate::domain::remedy::{self, Recovery};
use crate::site::lock::SiteLock;
use crate::site::release::{self, Release};
use crate::store::{Deployment, StoreError};
use crate::sys::stop::Stop;

use super::run::failed;
use super::worker::{Engine, StoreJournal};
use super::{Run, deploy, rollback, undo};

/// Whether what could not be taken back is tried again as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Only what still counts as running.
    Running,
    /// Also what is stuck: at start.
    RunningAndStuck,
}

/// What became of a look for the dead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// How many were brought to an end.
    pub ended: usize,
    /// How many that are stuck were left alone, since somebody works on their site at this moment.
    pub postponed: usize,
}

/// Recovers every deployment of this node whose process is gone. One that cannot be recovered does not stop the others.
pub fn recover(engine: &Engine, scope: Scope, stop: &Stop) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered::default();
    for deployment in engine.store.unfinished(&engine.node)? {
        // What was decided goes forward at the next start; begun now, it would be undone.
        if stop.is_draining() {
            break;
        }
        if deployment.state == StateName::Stuck && scope == Scope::Running {
            continue;
        }
        match recover_one(engine, &deployment, scope, stop) {
            Ok(Found::Ended) => recovered.ended += 1,
            Ok(Found::Busy) if deployment.state == StateName::Stuck => recovered.postponed += 1,
            Ok(Found::Busy | Found::Nothing) => {}
            Err(error) => log::error!(
                "cannot recover a deployment: {error} site={} deployment={}",
                deployment.site,
                deployment.id
            ),
        }
    }
    Ok(recovered)
}

/// What was found where a process might have died.
enum Found {
    /// It had, and its deployment was brought to an end.
    Ended,
    /// Somebody works on the site.
    Busy,
    /// Nothing to do.
    Nothing,
}

/// Why a recovery did not come to its end.
#[derive(Debug, thiserror::Error)]
enum RecoverError {
    /// The store did not answer, or somebody else took over.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lock could not be asked.
    #[error(transparent)]
    Site(#[from] crate::site::SiteError),
}

fn recover_one(engine: &Engine, deployment: &Deployment, scope: Scope, stop: &Stop) -> Result<Found, RecoverError> {
    let Some(target) = engine.targets.get(&deployment.site) else {
        if scope == Scope::RunningAndStuck {
            log::warn!(
                "a deployment of a site that is not configured any more is left as it is site={} deployment={}",
                deployment.site,
                deployment.id
            );
        }
        return Ok(Found::Nothing);
    };
    let Some(lock) = SiteLock::try_acquire(&target.disk)? else { return Ok(Found::Busy) };
    // Between the question and the lock its process may have brought it to an end.
    let Some(deployment) = engine.store.deployment(deployment.id)? else { return Ok(Found::Nothing) };
    if !matches!(deployment.state, StateName::Running | StateName::Stuck) {
        return Ok(Found::Nothing);
    }
    log::info!("recovers what a dead process left site={} deployment={}", deployment.site, deployment.id);
    let mut journal = StoreJournal::take_over(engine, deployment.id)?;
    let mut run = Run {
        target,
        deployment: &deployment,
        lock: &lock,
        stop,
        on_stop: Cause::Interrupted,
        journal: &mut journal,
        clock: engine.clock,
        newest_release: None,
        previous: None,
    };
    run.previous = undo::previous_of(&run);
    // Also on the way forward: what runs again must not run beside itself.
    undo::end_hooks(&run);
    release::clean_up(&lock, &target.disk)?;
    let outcome = match remedy::recovery(run.journal.entries()) {
        Recovery::Undo(failure) => undo::undo_all(&mut run, failure),
        Recovery::Forward(release) => forward(&mut run, &release),
    };
    engine.finish(&mut journal, &deployment, outcome)?;
    Ok(Found::Ended)
}

fn forward(run: &mut Run<'_>, id: &crate::domain::release_id::ReleaseId) -> Outcome {
    let went = Release::open(&run.target.disk, id).map_err(failed(Step::Flip)).and_then(|release| {
        let release = release.ok_or_else(|| Failure {
            step: Step::Flip,
            cause: Cause::Error(format!("release `{id}` was decided for, but is not there")),
        })?;
        match run.deployment.kind {
            // Everything but the pruning was done: a hook that now failed would undo a success.
            Kind::Deploy if run.journal.entries().contains(&Entry::Entered(Step::Prune)) => {
                deploy::prune(run, &release);
                Ok(())
            }
            Kind::Deploy => deploy::go_live(run, &release),
            Kind::Rollback => rollback::go_live(run, &release),
        }
    });
    match went {
        Ok(()) => Outcome::Live,
        Err(failure) => undo::undo_all(run, failure),
    }
}
