//! What an operator asks for, and following it to its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::domain::deployment::{DeploymentId, Kind, StateName};
use crate::domain::name::SiteName;
use crate::domain::push::RefName;
use crate::domain::release_id::ReleaseId;
use crate::domain::retention;
use crate::engine::recover::{Scope, recover};
use crate::engine::threads::{Crew, Workers};
use crate::site::current;
use crate::site::release::{self, Release};
use crate::store::{Deployment, NewDeployment};
use crate::sys::stop::Stop;

use super::{App, AppError, Service};

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The operator's name.
    pub name: &'a str,
    /// The time.
    pub now: DateTime<Utc>,
}

impl App {
    /// Queues a deployment of the site's usual ref, or of another one. It takes the place of the one that waits, is never a
    /// duplicate, and lifts a hold.
    pub fn order_deploy(
        &self,
        site: &SiteName,
        ref_name: Option<RefName>,
        asker: Asker<'_>,
    ) -> Result<DeploymentId, AppError> {
        let ref_name = match ref_name {
            Some(named) => named,
            None => self.usual_ref(site)?,
        };
        self.order(site, Kind::Deploy, Some(ref_name), None, true, asker)
    }

    /// What is deployed when nobody names a ref: the site's branch, or of several the one that was deployed last.
    fn usual_ref(&self, site: &SiteName) -> Result<RefName, AppError> {
        let configured = self.site(site)?;
        if let Some(branch) = &configured.branch {
            return Ok(branch.clone());
        }
        self.store.last_ref(site, &self.config.node)?.ok_or_else(|| {
            let refs = &configured.refs;
            AppError::Refused(format!(
                "site `{site}` deploys {refs}, and none of them was pushed yet\nhelp: name one with --ref"
            ))
        })
    }

    /// Queues a rollback to this release, or to the newest good one before the live one. With `force`, without hooks.
    pub fn order_rollback(
        &self,
        site: &SiteName,
        to: Option<ReleaseId>,
        force: bool,
        asker: Asker<'_>,
    ) -> Result<DeploymentId, AppError> {
        self.refuse_hopeless_rollback(site, to.as_ref())?;
        self.order(site, Kind::Rollback, None, to, force, asker)
    }

    fn order(
        &self,
        site: &SiteName,
        kind: Kind,
        ref_name: Option<RefName>,
        rollback_to: Option<ReleaseId>,
        force: bool,
        asker: Asker<'_>,
    ) -> Result<DeploymentId, AppError> {
        let Asker { name, now } = asker;
        let (site, node, requested_by) = (site.clone(), self.config.node.clone(), name.to_owned());
        Ok(self.store.enqueue(&NewDeployment { site, node, kind, ref_name, rollback_to, force, requested_by }, now)?)
    }

    /// What is plain to see now need not be queued first. The deployment itself looks again.
    fn refuse_hopeless_rollback(&self, site: &SiteName, to: Option<&ReleaseId>) -> Result<(), AppError> {
        let disk = self.disk(site)?;
        if let Some(wanted) = to {
            return match Release::open(&disk, wanted)? {
                Some(_) => Ok(()),
                None => Err(AppError::NotFound(format!(
                    "site `{site}` has no release `{wanted}`\nhelp: `landfall releases {site}` lists them"
                ))),
            };
        }
        let sealed: Vec<_> = release::list(&disk)?.iter().map(|release| release.id().clone()).collect();
        let bad = self.store.bad_releases(site, &self.config.node)?;
        match retention::rollback_target(&sealed, current::live(&disk)?.as_ref(), &bad) {
            Some(_) => Ok(()),
            None => Err(AppError::NotFound(format!(
                "site `{site}` has no older good release to roll back to\nhelp: name one with --to; `landfall releases {site}` \
                 lists them"
            ))),
        }
    }

    /// A deployment by its number.
    pub fn deployment(&self, id: DeploymentId) -> Result<Deployment, AppError> {
        self.store.deployment(id)?.ok_or_else(|| AppError::NotFound(format!("there is no deployment {id}")))
    }

    /// Passes on what a deployment writes until it has ended. `pause` waits a moment; false if nobody wants to go on, and
    /// then the deployment is given back as it is.
    pub fn follow<E: From<AppError>>(
        &self,
        id: DeploymentId,
        sink: &mut dyn FnMut(&Chunk) -> Result<(), E>,
        pause: &mut dyn FnMut(Duration) -> Result<bool, E>,
    ) -> Result<Deployment, E> {
        let mut tail = self.log_tail(id);
        loop {
            // The state first: what is read after the end is the whole log.
            let deployment = self.deployment(id)?;
            tail.pass_on(sink)?;
            if deployment.state.is_final() || !pause(FOLLOW_POLL)? {
                return Ok(deployment);
            }
        }
    }

    /// The log of a deployment, from its beginning.
    pub fn log_tail(&self, id: DeploymentId) -> LogTail {
        LogTail { directory: self.log_directory(id), number: 0, offset: 0 }
    }
}

impl Service {
    /// Does the work itself, for a command line without a server: first what dead processes left, then this deployment.
    /// Returns when the deployment has ended, or somebody else has taken it.
    pub fn work_on(&self, id: DeploymentId, stop: &Stop) -> Result<(), AppError> {
        // What is to be deployed was said: comparing all sites with their remotes, and forgetting, is for the service.
        let crew = Crew { workers: 0, reconcile: Duration::ZERO, retention: None };
        let helpers = Workers::start(&self.engine, crew, stop, &self.bell)
            .map_err(AppError::io("start the threads of", &self.app.config.state_dir))?;
        let worked = self.work_until_taken(id, stop);
        stop.drain();
        helpers.join();
        worked
    }

    fn work_until_taken(&self, id: DeploymentId, stop: &Stop) -> Result<(), AppError> {
        // What is stuck keeps nobody from working, so the deployment would not wait for it by itself.
        recover(&self.engine, Scope::RunningAndStuck, stop)?;
        while stop.cancelled().is_none() {
            if self.engine.step_one(id, stop)? || self.app.deployment(id)?.state != StateName::Queued {
                return Ok(());
            }
            stop.pause(FOLLOW_POLL);
        }
        // Whoever asked does not want it any more: it must not wait for the next server.
        Ok(self.engine.store.cancel_waiting(id, "its command was interrupted", self.now())?)
    }
}

/// A piece of a deployment's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What wrote it: a step or a hook.
    pub name: String,
    /// Whether it is the first of its file.
    pub begins: bool,
    /// Raw bytes: whatever the hook wrote, secrets masked.
    pub bytes: Vec<u8>,
}

/// Reads the files of a log directory one after the other while they grow.
#[derive(Debug)]
pub struct LogTail {
    directory: PathBuf,
    /// The file that is being read; 0 before the first.
    number: u32,
    offset: u64,
}

impl LogTail {
    /// Passes on everything that was written since the last time. Without a directory there is nothing yet.
    pub fn pass_on<E: From<AppError>>(&mut self, sink: &mut dyn FnMut(&Chunk) -> Result<(), E>) -> Result<(), E> {
        for (number, name, path) in log_files(&self.directory).map_err(AppError::io("list", &self.directory))? {
            if number < self.number {
                continue;
            }
            let begins = number > self.number;
            if begins {
                (self.number, self.offset) = (number, 0);
            }
            let mut chunk = Chunk { name, begins, bytes: Vec::new() };
            loop {
                chunk.bytes = read_at(&path, self.offset).map_err(AppError::io("read", &path))?;
                if chunk.bytes.is_empty() && !chunk.begins {
                    break;
                }
                self.offset += chunk.bytes.len() as u64;
                sink(&chunk)?;
                chunk.begins = false;
            }
        }
        Ok(())
    }
}

fn read_at(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(CHUNK).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The files of a log directory in the order in which they were begun: number, name, path.
fn log_files(directory: &Path) -> io::Result<Vec<(u32, String, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name();
        let parts = file_name.to_str().and_then(|text| text.strip_suffix(".log")?.split_once('-'));
        let numbered = parts.and_then(|(number, name)| Some((number.parse().ok()?, name.to_owned())));
        files.extend(numbered.map(|(number, name)| (number, name, entry.path())));
    }
    files.sort();
    Ok(files)
}

/// How often a follower looks.
const FOLLOW_POLL: Duration = Duration::from_millis(100);

/// What is read at once: a log has no limit that a terminal should wait for.
const CHUNK: u64 = 64 * 1024;
