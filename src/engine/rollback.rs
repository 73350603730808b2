//! The story of a rollback: an operator makes an older release live. No fetch, no build, and nothing is ever discarded.

use std::collections::BTreeSet;

use crate::domain::deployment::{Failure, Step};
use crate::domain::hook_name::HookName;
use crate::domain::release_id::ReleaseId;
use crate::domain::retention;
use crate::site::release::{self, Release};

use super::deploy::{End, decide, flip};
use super::run::{Run, Tree, failed};

/// Flips to the release that was asked for, or to the newest good one before the live one. `bad` are the releases that
/// were rolled away from. `--force` skips the hooks.
pub(super) fn rollback(run: &mut Run<'_>, bad: &BTreeSet<ReleaseId>) -> Result<End, Failure> {
    run.prepare(Step::RollbackBefore)?;
    run.previous = run.live(Step::RollbackBefore)?;
    let release = choose(run, bad)?;
    if run.previous.as_ref().is_some_and(|live| live.id() == release.id()) {
        return Ok(End::Current);
    }
    run_hook(run, Step::RollbackBefore, HookName::RollbackBefore)?;
    decide(run, &release)?;
    go_live(run, &release)?;
    Ok(End::Live)
}

/// The flip and what follows it: also what recovery does after a crash behind the decision.
pub(super) fn go_live(run: &mut Run<'_>, release: &Release) -> Result<(), Failure> {
    run.enter(Step::Flip)?;
    flip(run, release)?;
    run_hook(run, Step::RollbackAfter, HookName::RollbackAfter)
}

fn choose(run: &Run<'_>, bad: &BTreeSet<ReleaseId>) -> Result<Release, Failure> {
    let error = failed(Step::RollbackBefore);
    let disk = &run.target.disk;
    if let Some(wanted) = &run.deployment.rollback_to {
        let release = Release::open(disk, wanted).map_err(failed(Step::RollbackBefore))?;
        return release.ok_or_else(|| error(format!("release `{wanted}` is not there any more")));
    }
    let sealed = release::list(disk).map_err(failed(Step::RollbackBefore))?;
    let ids: Vec<ReleaseId> = sealed.iter().map(|release| release.id().clone()).collect();
    let chosen = retention::rollback_target(&ids, run.previous.as_ref().map(Release::id), bad);
    sealed
        .into_iter()
        .find(|release| Some(release.id()) == chosen.as_ref())
        .ok_or_else(|| error("there is no older good release to roll back to".to_owned()))
}

/// Both hooks come from the release that was current when the rollback started.
fn run_hook(run: &mut Run<'_>, step: Step, hook: HookName) -> Result<(), Failure> {
    if run.deployment.force {
        return Ok(());
    }
    let Some(live) = run.previous.clone() else { return Ok(()) };
    run.hook(step, hook, Tree::of(&live))
}
