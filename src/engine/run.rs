//! What every story shares: the journal, the hooks, the logs, and the question whether to stop.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::deployment::{Cause, Entry, Failure, HookEnd, Step, Undo};
use crate::domain::hook_name::HookName;
use crate::domain::push::RefName;
use crate::domain::release_id::ReleaseId;
use crate::domain::revision::Revision;
use crate::hook::{self, DeploymentLog, HookResult, Scene};
use crate::site::current;
use crate::site::lock::SiteLock;
use crate::site::release::{self, Release};
use crate::store::{Deployment, StoreError};
use crate::sys::stop::Stop;

use super::{Clock, Journal, Target};

/// One deployment under way. Holds the site's lock, without which nothing may flip.
pub struct Run<'a> {
    /// The site.
    pub target: &'a Target,
    /// What is asked for.
    pub deployment: &'a Deployment,
    /// The proof that nobody else works on this site.
    pub lock: &'a SiteLock,
    /// Whether to stop.
    pub stop: &'a Stop,
    /// What a stop means: an operator's cancellation, or an interruption that is tried again.
    pub on_stop: fn(String) -> Cause,
    /// Where every act is announced.
    pub journal: &'a mut dyn Journal,
    /// The time.
    pub clock: Clock,
    /// The newest name any release of this site ever had.
    pub newest_release: Option<ReleaseId>,
    /// The release that was live when the deployment began.
    pub previous: Option<Release>,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Run").field("deployment", &self.deployment.id).finish_non_exhaustive()
    }
}

/// A release that a hook can run from: sealed or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'a> {
    /// The directory.
    pub(super) path: &'a Path,
    /// Its name.
    pub(super) id: &'a ReleaseId,
    /// Its commit.
    pub(super) commit: &'a Revision,
}

impl<'a> Tree<'a> {
    pub(super) fn of(release: &'a Release) -> Self {
        Self { path: release.path(), id: release.id(), commit: release.commit() }
    }
}

/// Makes the failure of a step out of any error.
pub(super) fn failed<E: Display>(step: Step) -> impl Fn(E) -> Failure {
    move |error| Failure { step, cause: Cause::Error(error.to_string()) }
}

impl Run<'_> {
    /// Begins a step, unless the deployment is to stop.
    pub(super) fn enter(&mut self, step: Step) -> Result<(), Failure> {
        self.check_stop(step)?;
        self.note(step, Entry::Entered(step))
    }

    /// Fails if the deployment is to stop.
    pub(super) fn check_stop(&self, step: Step) -> Result<(), Failure> {
        match self.stop.cancelled() {
            Some(reason) => Err(Failure { step, cause: (self.on_stop)(reason) }),
            None => Ok(()),
        }
    }

    /// Writes a line into the journal; if that is not possible, the step fails and what it announces does not happen.
    pub(super) fn note(&mut self, step: Step, entry: Entry) -> Result<(), Failure> {
        self.journal.append(entry).map_err(|error: StoreError| match error {
            StoreError::LostLease => {
                Failure { step, cause: Cause::Interrupted("another process took the deployment over".into()) }
            }
            other => failed(step)(format!("cannot write the journal: {other}")),
        })
    }

    /// Announces an act that can be taken back.
    pub(super) fn will_undo(&mut self, step: Step, undo: Undo) -> Result<(), Failure> {
        self.note(step, Entry::WillUndo(undo))
    }

    /// Makes what is missing on the site's disk, and removes what a killed process has left.
    pub(super) fn prepare(&self, step: Step) -> Result<(), Failure> {
        self.target.disk.prepare(&self.target.ownership).map_err(failed(step))?;
        release::clean_up(self.lock, &self.target.disk).map_err(failed(step))
    }

    /// Waits, unless the deployment is to stop.
    pub(super) fn pause(&self, step: Step, duration: Duration) -> Result<(), Failure> {
        self.stop.pause(duration);
        self.check_stop(step)
    }

    /// The release that is live, if it is one of ours.
    pub(super) fn live(&self, step: Step) -> Result<Option<Release>, Failure> {
        let Some(id) = current::live(&self.target.disk).map_err(failed(step))? else { return Ok(None) };
        Release::open(&self.target.disk, &id).map_err(failed(step))
    }

    /// Where this deployment's logs are.
    pub(super) fn log_directory(&self) -> PathBuf {
        self.target.logs.join(self.deployment.id.to_string())
    }

    /// Writes what a step has to tell into the deployment's log. A log that cannot be written is the service's trouble,
    /// not the deployment's.
    pub(super) fn say(&self, name: &str, text: &str) {
        let told = self.open_log(name).map_err(|error| error.to_string()).and_then(|mut log| {
            let written = log.write(format!("{text}\n").as_bytes()).and_then(|()| log.finish());
            written.map_err(|error| error.to_string())
        });
        if let Err(error) = told {
            log::warn!("cannot write the log of {name}: {error} deployment={}", self.deployment.id);
        }
    }

    fn open_log(&self, name: &str) -> Result<DeploymentLog, hook::HookError> {
        let secrets: Vec<&[u8]> = self.target.secrets.iter().map(|(_, secret)| secret.expose()).collect();
        DeploymentLog::create(&self.log_directory(), name, &secrets, hook::LOG_LIMIT)
    }

    /// Runs a hook of the tree, if it has it. A failure counts unless the site allows it.
    pub(super) fn hook(&mut self, step: Step, hook: HookName, tree: Tree<'_>) -> Result<(), Failure> {
        let found = hook::find(tree.path, self.target.hooks_dir.as_deref(), &self.target.environment, hook);
        let Some(found) = found.transpose() else { return Ok(()) };
        self.enter(step)?;
        self.note(step, Entry::Hook(hook))?;
        // One that cannot be used is judged like one that fails: else a `before.pull` that is no file would block the site.
        let ran = found.and_then(|file| self.run_hook(&file, tree, self.target.hook_timeout, self.stop));
        match ran.unwrap_or_else(|error| HookResult::Failed(HookEnd::NotStarted(error.to_string()))) {
            HookResult::Fine => Ok(()),
            HookResult::Cancelled(reason) => Err(Failure { step, cause: (self.on_stop)(reason) }),
            HookResult::Failed(end) if self.target.allow_failure.contains(&hook) => {
                log::warn!(
                    "hook {hook} {end}, which the site allows site={} deployment={}",
                    self.target.site,
                    self.deployment.id
                );
                self.note(step, Entry::HookIgnored { hook, end })
            }
            HookResult::Failed(end) => Err(Failure { step, cause: Cause::Hook { hook, end } }),
        }
    }

    /// Runs a hook file and gives back how it ended; the journal and the rules are the caller's.
    pub(super) fn run_hook(
        &self,
        file: &hook::HookFile,
        tree: Tree<'_>,
        limit: Duration,
        stop: &Stop,
    ) -> Result<HookResult, hook::HookError> {
        log::info!("runs hook {} site={} deployment={}", file.name, self.target.site, self.deployment.id);
        let mut log = self.open_log(file.name.as_str())?;
        let run = hook::Run { identity: self.target.identity.as_ref(), limit, stop };
        hook::run(file, &self.scene(tree), &run, &mut log)
    }

    /// What is deployed.
    pub(super) fn ref_name(&self) -> Option<&RefName> {
        self.deployment.ref_name.as_ref().or(self.target.branch.as_ref())
    }

    fn scene<'b>(&'b self, tree: Tree<'b>) -> Scene<'b> {
        let target = self.target;
        Scene {
            release_path: tree.path,
            release: tree.id,
            commit: tree.commit,
            branch: self.ref_name().map(RefName::short).unwrap_or_default(),
            repository: &target.source.identity,
            environment: &target.environment,
            storage: target.disk.storage(),
            current: target.disk.current(),
            previous_release: self.previous.as_ref().map(|release| release.path().to_owned()),
            previous_commit: self.previous.as_ref().map(Release::commit),
            deployment: self.deployment.id,
            home: &target.home,
            user: &target.account.name,
            shell: &target.account.shell,
            env: &target.env,
            secrets: &target.secrets,
        }
    }
}
