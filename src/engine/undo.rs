//! Taking back: the only room that does. Every undo looks at the world first, so that doing it twice, or for nothing,
//! is harmless; the order is the contract's: end what the hooks started, flip back, `deploy.failure`, discard.

use std::time::Duration;

use crate::domain::deployment::{Entry, Failure, Outcome, Step, Undo};
use crate::domain::hook_name::HookName;
use crate::domain::release_id::ReleaseId;
use crate::domain::remedy::{self, Plan};
use crate::hook;
use crate::site::release::Release;
use crate::site::{SiteError, current, release};
use crate::sys::process;

use super::run::{Run, Tree};

/// Takes back everything a failed story did. Afterwards `current` has the link text from before, or the outcome says
/// what is left. Goes on whatever fails: half an undo helps nobody.
pub(super) fn undo_all(run: &mut Run<'_>, failure: Failure) -> Outcome {
    log::warn!("deployment failed: {failure} site={} deployment={}", run.target.site, run.deployment.id);
    run.say("failure", &failure.to_string());
    record(run, Entry::Failed(failure.clone()));
    end_hooks(run);
    let Plan { undos, failure_hook_due } = remedy::plan(run.deployment.kind, run.journal.entries());
    let (flips, discards): (Vec<_>, Vec<_>) = undos.into_iter().partition(|undo| matches!(undo, Undo::FlipBack { .. }));
    let mut left = take_all(run, flips);
    if failure_hook_due {
        run_failure_hook(run);
    }
    if left.is_empty() {
        left = take_all(run, discards);
    } else {
        // `current` may still name it, if only on disk.
        left.extend(discards);
    }
    if left.is_empty() {
        return Outcome::of(failure);
    }
    Outcome::Stuck { failure, left }
}

/// Ends what hooks of this deployment left behind, also those of a process that is gone.
pub(super) fn end_hooks(run: &Run<'_>) {
    let cookie = hook::cookie(run.deployment.id, &run.target.disk.current());
    match process::end_all(&cookie, hook::GRACE) {
        Ok(0) => {}
        Ok(count) => log::warn!(
            "ended {count} processes that hooks had left site={} deployment={}",
            run.target.site,
            run.deployment.id
        ),
        Err(error) => log::error!("cannot end what hooks have started: {error} deployment={}", run.deployment.id),
    }
}

/// Takes the undos, in order, and gives back those that did not work.
fn take_all(run: &mut Run<'_>, undos: Vec<Undo>) -> Vec<Undo> {
    let mut left = Vec::new();
    for undo in undos {
        match take(run, &undo) {
            Ok(()) => record(run, Entry::Undone(undo)),
            Err(error) => {
                log::error!("cannot {undo}: {error} site={} deployment={}", run.target.site, run.deployment.id);
                record(run, Entry::Warning(format!("cannot {undo}: {error}")));
                left.push(undo);
            }
        }
    }
    left
}

fn take(run: &Run<'_>, undo: &Undo) -> Result<(), SiteError> {
    match undo {
        Undo::Discard(id) => release::discard(run.lock, &run.target.disk, id),
        Undo::FlipBack { from, to } => current::flip_back(run.lock, &run.target.disk, from.as_deref(), to),
    }
}

/// Removes releases that retention picked.
pub(super) fn discard_old(run: &Run<'_>, releases: &[ReleaseId]) -> Result<(), SiteError> {
    for id in releases {
        release::discard(run.lock, &run.target.disk, id)?;
        log::info!("pruned {id} site={} deployment={}", run.target.site, run.deployment.id);
    }
    Ok(())
}

/// Runs `deploy.failure` from the failed release if it was checked out, else from the current one. Its end changes
/// nothing. It is noted before it runs: better not at all than twice.
fn run_failure_hook(run: &mut Run<'_>) {
    let checked_out = checked_out(run);
    let live = run.previous.clone();
    let tree = match (&checked_out, &live) {
        (Some((path, id, commit)), _) => Some(Tree { path, id, commit }),
        (None, Some(live)) => Some(Tree::of(live)),
        (None, None) => None,
    };
    let found = tree.and_then(|tree| {
        let hooks_dir = run.target.hooks_dir.as_deref();
        match hook::find(tree.path, hooks_dir, &run.target.environment, HookName::DeployFailure) {
            Ok(file) => file.map(|file| (file, tree)),
            Err(error) => {
                log::warn!("cannot run deploy.failure: {error} deployment={}", run.deployment.id);
                None
            }
        }
    });
    if let Some((file, tree)) = found {
        match run.journal.append(Entry::Hook(HookName::DeployFailure)) {
            Ok(()) => start_failure_hook(run, &file, tree),
            Err(error) => {
                log::error!(
                    "deploy.failure does not run, since it cannot be noted: {error} deployment={}",
                    run.deployment.id
                );
            }
        }
    }
}

fn start_failure_hook(run: &Run<'_>, file: &hook::HookFile, tree: Tree<'_>) {
    // What cancelled the deployment must not end the hook that tells of it, but a service that stops does not wait long.
    let stop = run.stop.delayed(FAILURE_HOOK_WHILE_STOPPING);
    match run.run_hook(file, tree, run.target.hook_timeout, &stop) {
        Ok(hook::HookResult::Fine) => {}
        Ok(hook::HookResult::Failed(end)) => log::warn!("deploy.failure {end} deployment={}", run.deployment.id),
        Ok(hook::HookResult::Cancelled(reason)) => {
            log::warn!("deploy.failure was ended: {reason} deployment={}", run.deployment.id);
        }
        Err(error) => log::warn!("cannot run deploy.failure: {error} deployment={}", run.deployment.id),
    }
}

/// The failed release, if its whole tree had been written.
fn checked_out(run: &Run<'_>) -> Option<(std::path::PathBuf, ReleaseId, crate::domain::revision::Revision)> {
    let journal = run.journal.entries();
    let id = remedy::announced_release(journal)?.clone();
    let commit = remedy::resolved_commit(journal)?.clone();
    // The tree was whole when the next step began.
    let written = journal.contains(&Entry::Entered(Step::Link));
    let path = run.target.disk.release_path(&id);
    (written && path.is_dir()).then_some((path, id, commit))
}

/// Appends a line that announces nothing: if the store is gone, undoing goes on all the same.
fn record(run: &mut Run<'_>, entry: Entry) {
    let already = matches!(&entry, Entry::Failed(_)) && run.journal.entries().contains(&entry);
    if already {
        return;
    }
    if let Err(error) = run.journal.append(entry) {
        log::error!("cannot write the journal while undoing: {error} deployment={}", run.deployment.id);
    }
}

/// The release that a journal says was live before, for a run that continues one.
pub(super) fn previous_of(run: &Run<'_>) -> Option<Release> {
    let id = match remedy::announced_flip(run.journal.entries()) {
        Some((from, _)) => run.target.disk.release_named_by(from?)?,
        None => current::live(&run.target.disk).ok().flatten()?,
    };
    Release::open(&run.target.disk, &id).ok().flatten()
}

/// Less than what systemd grants between TERM and KILL, with room for the rest of the undo.
const FAILURE_HOOK_WHILE_STOPPING: Duration = Duration::from_secs(30);
