//! The story of a deployment, one line after the other: the order is the safety argument.

use std::time::{Duration, Instant};

use crate::domain::deployment::{Entry, Failure, Step, Trigger, Undo};
use crate::domain::hook_name::HookName;
use crate::domain::push::RefName;
use crate::domain::retention::prunable;
use crate::domain::revision::Revision;
use crate::git::{self, Fetched, GitError, Mirror, Remote};
use crate::hook;
use crate::site::release::{self, Release, Staging};
use crate::site::{current, permissions, shared};

use super::run::{Run, Tree, failed};
use super::{Activate, undo};

/// How a story ends when nothing fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The release is live.
    Live,
    /// The tip was live already.
    Current,
}

/// Deploys the tip of the ref. Nothing is visible to visitors before `go_live`.
pub(super) fn deploy(run: &mut Run<'_>) -> Result<End, Failure> {
    run.prepare(Step::BeforePull)?;
    run.previous = run.live(Step::BeforePull)?;
    if let Some(live) = run.previous.clone() {
        run.hook(Step::BeforePull, HookName::BeforePull, Tree::of(&live))?;
    }

    run.enter(Step::Fetch)?;
    let (mirror, revision) = fetch(run)?;
    run.note(Step::Fetch, Entry::Resolved(revision.clone()))?;
    if is_live_already(run, &revision) {
        return Ok(End::Current);
    }

    run.enter(Step::Checkout)?;
    let staging = stage(run, &revision)?;
    checkout(run, &mirror, &revision, &staging)?;
    run.enter(Step::Link)?;
    link(run, &staging)?;

    let release_id = staging.id().clone();
    let path = staging.path().to_owned();
    let tree = Tree { path: &path, id: &release_id, commit: &revision };
    warn_of_unknown_hooks(run, &path);
    run.hook(Step::AfterPull, HookName::AfterPull, tree)?;
    run.hook(Step::BeforeDeploy, HookName::BeforeDeploy, tree)?;
    if run.target.activate == Activate::Last {
        // Before owners, modes and sync, which are for what these hooks write too.
        run.hook(Step::AfterDeploy, HookName::AfterDeploy, tree)?;
        run.hook(Step::DeploySuccess, HookName::DeploySuccess, tree)?;
    }

    run.enter(Step::Permissions)?;
    set_permissions(run, &staging)?;
    run.enter(Step::Sync)?;
    let now = (run.clock)();
    let release = staging.seal(run.lock, &revision, run.deployment.id, now).map_err(failed(Step::Sync))?;
    decide(run, &release)?;
    go_live(run, &release)?;
    Ok(End::Live)
}

/// Everything from the flip on: also what recovery does after a crash behind the decision.
pub(super) fn go_live(run: &mut Run<'_>, release: &Release) -> Result<(), Failure> {
    run.enter(Step::Flip)?;
    flip(run, release)?;
    if run.target.activate == Activate::First {
        run.hook(Step::AfterDeploy, HookName::AfterDeploy, Tree::of(release))?;
        run.hook(Step::DeploySuccess, HookName::DeploySuccess, Tree::of(release))?;
    }
    prune(run, release);
    Ok(())
}

/// Notes how to flip back, then the decision. On one node it is made at once.
pub(super) fn decide(run: &mut Run<'_>, release: &Release) -> Result<(), Failure> {
    run.check_stop(Step::Decide)?;
    let from = current::read(&run.target.disk).map_err(failed(Step::Decide))?;
    run.will_undo(Step::Decide, Undo::FlipBack { from, to: release.id().clone() })?;
    run.note(Step::Decide, Entry::Decided)
}

/// Points `current` at the release.
pub(super) fn flip(run: &Run<'_>, release: &Release) -> Result<(), Failure> {
    let flip = current::flip(run.lock, &run.target.disk, release).map_err(failed(Step::Flip))?;
    let from = flip.from.as_deref().unwrap_or("nothing");
    log::info!("flipped {} to {} site={} deployment={}", run.target.site, flip.to, run.target.site, run.deployment.id);
    run.say("flip", &format!("current -> {} (before: {from})", release.path().display()));
    Ok(())
}

/// A tip that is live already needs no release; an operator who asks for one gets it all the same.
fn is_live_already(run: &Run<'_>, revision: &Revision) -> bool {
    !run.deployment.force && run.previous.as_ref().is_some_and(|live| live.commit() == revision)
}

/// Asks the remote for the tip, again and again while it has not caught up with the push.
fn fetch(run: &Run<'_>) -> Result<(Mirror, Revision), Failure> {
    let source = &run.target.source;
    let ref_name =
        run.ref_name().ok_or_else(|| failed(Step::Fetch)("neither the deployment nor the site names a ref"))?;
    let deadline = Instant::now() + FETCH_LIMIT;
    let is_cancelled = || run.stop.cancelled().is_some() || Instant::now() >= deadline;
    let mirror = Mirror::open_or_create(&source.mirror, &is_cancelled);
    run.check_stop(Step::Fetch)?;
    let mut mirror = mirror.map_err(failed(Step::Fetch))?;
    let remote = Remote { url: &source.url, credentials: &source.credentials };
    let pushed = run.deployment.after.is_some();
    let mut delays = if pushed { PROPAGATION_DELAYS_SECS.iter() } else { [].iter() };
    loop {
        let tip = mirror.fetch(&remote, ref_name, &is_cancelled);
        run.check_stop(Step::Fetch)?;
        let tip = tip.map_err(|error| match error {
            GitError::Cancelled => failed(Step::Fetch)(format!("`{}` took longer than {FETCH_LIMIT:?}", source.url)),
            other => failed(Step::Fetch)(other.to_string()),
        })?;
        let lagging = why_lagging(run, ref_name, tip.as_ref());
        match (tip, lagging) {
            (Some(Fetched { commit: revision, .. }), None) => {
                let why = if run.deployment.trigger == Trigger::Reconcile { ", found without a push" } else { "" };
                run.say("fetch", &format!("{ref_name} of {} is {revision}{why}", source.url));
                return Ok((mirror, revision));
            }
            (Some(_) | None, reason) => match delays.next() {
                Some(seconds) => run.pause(Step::Fetch, Duration::from_secs(*seconds))?,
                None => return Err(failed(Step::Fetch)(reason.unwrap_or_default())),
            },
        }
    }
}

/// Why the remote's answer cannot be deployed yet; none if it can. Of an annotated tag some forges tell the tag, some its
/// commit; and a tag that was made anew on its commit is not one that lags.
fn why_lagging(run: &Run<'_>, ref_name: &RefName, tip: Option<&Fetched>) -> Option<String> {
    let url = &run.target.source.url;
    let Some(tip) = tip else { return Some(format!("`{ref_name}` does not exist in `{url}`")) };
    let is_at = |told: &Option<Revision>| told.as_ref().is_some_and(|told| *told == tip.object || *told == tip.commit);
    let lags = is_at(&run.deployment.before) && !is_at(&run.deployment.after);
    lags.then(|| format!("`{url}` still shows `{}` at `{ref_name}`, which is from before the push", tip.object))
}

fn stage(run: &mut Run<'_>, revision: &Revision) -> Result<Staging, Failure> {
    let target = run.target;
    let now = (run.clock)();
    let id = release::choose_id(&target.disk, run.newest_release.as_ref(), now, revision, target.release_style)
        .map_err(failed(Step::Checkout))?;
    run.will_undo(Step::Checkout, Undo::Discard(id.clone()))?;
    release::stage(run.lock, &target.disk, &id, &target.ownership).map_err(failed(Step::Checkout))
}

fn checkout(run: &Run<'_>, mirror: &Mirror, revision: &Revision, staging: &Staging) -> Result<(), Failure> {
    let ownership = &run.target.ownership;
    let owner = ownership.change.then_some(git::Owner { uid: ownership.run_as, gid: ownership.group });
    let written = git::checkout(mirror, revision, staging.path(), owner, &|| run.stop.cancelled().is_some());
    run.check_stop(Step::Checkout)?;
    let written = written.map_err(failed(Step::Checkout))?;
    run.say("checkout", &format!("{} files, {} bytes in {}", written.files, written.bytes, staging.path().display()));
    Ok(())
}

fn link(run: &Run<'_>, staging: &Staging) -> Result<(), Failure> {
    let target = run.target;
    if let Some(env_file) = &target.env_file {
        shared::place_env(staging, env_file, &target.ownership).map_err(failed(Step::Link))?;
    }
    shared::link_shared(staging, &target.disk, &target.shared, &target.ownership).map_err(failed(Step::Link))
}

fn warn_of_unknown_hooks(run: &Run<'_>, release: &std::path::Path) {
    for name in hook::unknown(release, run.target.hooks_dir.as_deref(), &run.target.environment) {
        log::warn!("`{name}` looks like a hook but is none site={} deployment={}", run.target.site, run.deployment.id);
        run.say("checkout", &format!("warning: `{name}` looks like a hook, but no hook has this name"));
    }
}

fn set_permissions(run: &Run<'_>, staging: &Staging) -> Result<(), Failure> {
    let target = run.target;
    let report =
        permissions::apply(staging, &target.ownership, target.executable).map_err(failed(Step::Permissions))?;
    let mut text = format!("{} entries changed", report.changed);
    if report.skipped_hard_links > 0 {
        text += &format!("; warning: {} files with several hard links left as they are", report.skipped_hard_links);
    }
    if report.skipped_special > 0 {
        text += &format!("; {} sockets, fifos or devices left as they are", report.skipped_special);
    }
    if report.skipped_foreign > 0 {
        text += &format!("; warning: {} entries of other users left as they are", report.skipped_foreign);
    }
    run.say("permissions", &text);
    Ok(())
}

/// Removes old releases. A problem here, or a stop, is no failure: the new release is live and well.
pub(super) fn prune(run: &mut Run<'_>, live: &Release) {
    if let Err(failure) = run.note(Step::Prune, Entry::Entered(Step::Prune)) {
        log::warn!("cannot note that pruning begins: {failure} deployment={}", run.deployment.id);
    }
    let protected = [Some(live.id()), run.previous.as_ref().map(Release::id)].into_iter().flatten().cloned().collect();
    let pruned = release::list(&run.target.disk).and_then(|releases| {
        let sealed: Vec<_> = releases.iter().map(|release| release.id().clone()).collect();
        undo::discard_old(run, &prunable(&sealed, run.target.keep, &protected))
    });
    let Err(error) = pruned else { return };
    log::warn!("cannot prune: {error} site={} deployment={}", run.target.site, run.deployment.id);
    if let Err(failure) = run.note(Step::Prune, Entry::Warning(format!("cannot prune: {error}"))) {
        log::warn!("cannot note a warning: {failure} deployment={}", run.deployment.id);
    }
}

/// The largest repositories take minutes; a remote that drips would hold a worker, and whoever waits for the mirror.
const FETCH_LIMIT: Duration = Duration::from_secs(3600);

/// Forges announce a push before every replica of theirs shows it.
const PROPAGATION_DELAYS_SECS: [u64; 5] = [1, 2, 4, 8, 15];
