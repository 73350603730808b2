//! The order of effects: what comes after what when a site is deployed, rolled back, undone or recovered.
//!
//! ```text
//! threads  workers, recovery, leases, reconcile, forget               (started and joined by whoever serves)
//! reconcile  compares sites with their remotes, queues what was lost  (never waits for a remote that is silent)
//! forget   drops what is not to be kept of past deliveries            (in parts, and never a deployment)
//! worker   claims a deployment, runs its story, records the end      (the lock; the lease; one retry)
//!   deploy     the straight line from `before.pull` to prune          (may fail at each `?`)
//!   rollback   the same for an older release
//!   undo       takes back what a failed story did, newest first       (the only room that takes back)
//!   recover    the same for what a dead process left
//! run      what all of them share: journal, hooks, logs, cancellation
//! ```
//!
//! Absent: any decision that follows from values (`domain`), any system call (`sys`), configuration files and HTTP.

pub mod deploy;
mod forget;
mod reconcile;
pub mod recover;
pub mod rollback;
mod run;
pub mod threads;
pub mod undo;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::domain::deployment::Entry;
use crate::domain::hook_name::HookName;
use crate::domain::name::{RepositoryName, SiteName};
use crate::domain::push::RefName;
use crate::domain::ref_rule::RefRule;
use crate::domain::release_id::ReleaseStyle;
use crate::domain::remote_url::RemoteUrl;
use crate::domain::revision::Revision;
use crate::domain::secret::Secret;
use crate::git::Credentials;
use crate::site::permissions::Executable;
use crate::site::{Ownership, SiteDisk, current};
use crate::store::StoreError;
use crate::sys::process::Identity;
use crate::sys::user::Account;

pub use run::Run;

/// Where the time comes from: passed in, so that nobody asks the world in the middle.
pub type Clock = fn() -> DateTime<Utc>;

/// A site on this node, with everything looked up that a deployment needs.
#[derive(Debug)]
pub struct Target {
    /// The site.
    pub site: SiteName,
    /// Its disk.
    pub disk: SiteDisk,
    /// Who owns its files.
    pub ownership: Ownership,
    /// Whom hooks run as.
    pub account: Account,
    /// What a hook's process becomes; none when it stays what we are.
    pub identity: Option<Identity>,
    /// `HOME` of the hooks.
    pub home: PathBuf,
    /// Where it comes from.
    pub source: Source,
    /// The refs whose pushes it deploys.
    pub refs: RefRule,
    /// What is deployed when a deployment names no ref.
    pub branch: Option<RefName>,
    /// The name of its environment.
    pub environment: String,
    /// How many succeeded releases stay.
    pub keep: usize,
    /// How releases are named.
    pub release_style: ReleaseStyle,
    /// The hooks' directory, if it is not the usual one.
    pub hooks_dir: Option<String>,
    /// How long a hook may run.
    pub hook_timeout: Duration,
    /// Hooks whose failure does not fail the deployment.
    pub allow_failure: BTreeSet<HookName>,
    /// When the flip happens.
    pub activate: Activate,
    /// What becomes of executable bits.
    pub executable: Executable,
    /// The file that becomes `.env`.
    pub env_file: Option<PathBuf>,
    /// Variables for the hooks.
    pub env: BTreeMap<String, String>,
    /// Secret variables for the hooks, masked in their output.
    pub secrets: Vec<(String, Secret)>,
    /// Paths that live in the site's storage.
    pub shared: Vec<String>,
    /// The directory of all deployments' logs.
    pub logs: PathBuf,
}

impl Target {
    /// See [`current::live_commit`].
    pub fn live_commit(&self) -> Option<Revision> {
        current::live_commit(&self.disk)
    }
}

/// A repository as a deployment needs it.
#[derive(Debug)]
pub struct Source {
    /// Its name in the configuration.
    pub name: RepositoryName,
    /// Its identity on the forge: `acme/blog`.
    pub identity: String,
    /// Its URL.
    pub url: RemoteUrl,
    /// What opens it.
    pub credentials: Credentials,
    /// Its local copy.
    pub mirror: PathBuf,
}

/// When `current` is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activate {
    /// Before `after.deploy`, which then sees the new release live; taken back if it fails.
    First,
    /// After all hooks: no visitor sees a release whose hooks then fail, but no hook sees it live.
    Last,
}

/// Where a deployment writes down what it is about to do. A trait, so that a test can make it fail.
pub trait Journal {
    /// Appends a line durably. If this fails, the act it announces must not happen.
    fn append(&mut self, entry: Entry) -> Result<(), StoreError>;

    /// All lines so far.
    fn entries(&self) -> &[Entry];
}

#[cfg(test)]
mod tests;
