//! The use cases, shared by the command line and the HTTP doors, and the only place where all rooms are put together.
//!
//! ```text
//! App        configuration and store: reports, orders, following       (needs no secret)
//! Service    App, secrets, looked-up sites and the engine: receives webhooks, does the work
//!   setup      configuration → sites as the engine needs them          receive    a webhook → what becomes of it
//!   orders     what an operator asks for, and following it             report     what the store and the disks say
//!   ready      whether a push could be taken and deployed now          head       who may send, before anything is read
//!   refusals   who may not: counted, and told in moderation            examine    why a saved request is (not) believed
//!   deliveries what was sent, and sending it again
//! ```
//!
//! Absent: async, HTTP, columns and colours, exit codes and status codes.

pub mod deliveries;
pub mod examine;
mod head;
pub mod orders;
pub mod ready;
pub mod receive;
pub mod refusals;
pub mod report;
mod setup;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::config::{Config, Problem, Secrets, Site, quoted};
use crate::domain::name::{RepositoryName, SiteName};
use crate::domain::push::RefName;
use crate::domain::revision::Revision;
use crate::domain::routing::SiteRule;
use crate::domain::secret::Secret;
use crate::engine::Target;
use crate::engine::worker::Engine;
use crate::git::{self, GitError, Remote};
use crate::site::{SiteDisk, SiteError};
use crate::store::{Acceptor, Store, StoreError};
use crate::sys::bell::Bell;
use crate::sys::fs::{self, LockFile};

use refusals::Refusals;

/// Looks a variable of our environment up: passed in, so that nobody asks the world in the middle.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The configuration and the store.
#[derive(Debug)]
pub struct App {
    /// What the operator wants.
    pub config: Config,
    /// What was decided and done.
    pub store: Store,
}

/// Everything it takes to receive webhooks and to deploy.
#[derive(Debug)]
pub struct Service {
    /// What it is built on.
    pub app: App,
    /// What does the work.
    pub engine: Arc<Engine>,
    /// Wakes the workers.
    pub bell: Arc<Bell>,
    rules: Vec<SiteRule>,
    acceptor: Acceptor,
    webhook_secrets: BTreeMap<RepositoryName, Vec<Secret>>,
    refusals: Refusals,
}

/// Why a use case did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration does not fit the machine.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Problem>),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is there, but not to be had now.
    #[error("{0}")]
    Refused(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk of a site did not do it.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The remote did not do it.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A path of ours could not be used.
    #[error("cannot {operation} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the machine said.
        source: std::io::Error,
    },
}

impl AppError {
    /// Says what was tried on which path, for a machine that said no.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

impl App {
    /// Opens the store of a configuration; makes the state directory if it is not there.
    pub fn open(config: Config) -> Result<Self, AppError> {
        for (directory, mode) in setup::state_directories(&config) {
            fs::make_directory(&directory, mode).map_err(AppError::io("make the directory", &directory))?;
        }
        let store = Store::open(&config.store_url)?;
        Ok(Self { config, store })
    }

    /// A configured site.
    pub fn site(&self, name: &SiteName) -> Result<&Site, AppError> {
        site(&self.config, name)
    }

    /// The disk of a configured site.
    pub fn disk(&self, name: &SiteName) -> Result<SiteDisk, AppError> {
        Ok(setup::disk(&self.config, name, self.site(name)?))
    }

    /// Which pushes are for which site.
    fn rules(&self) -> Vec<SiteRule> {
        rules(&self.config)
    }

    /// Where a deployment's logs are.
    pub fn log_directory(&self, id: crate::domain::deployment::DeploymentId) -> PathBuf {
        setup::logs(&self.config).join(id.to_string())
    }

    /// Holds the place of the server on this state directory, which only one process can have. None if another has it.
    pub fn take_server_place(&self) -> Result<Option<LockFile>, AppError> {
        let path = setup::server_lock(&self.config);
        LockFile::try_acquire(&path).map_err(AppError::io("lock", &path))
    }

    /// Whether a server works on this state directory at this moment.
    pub fn server_runs(&self) -> Result<bool, AppError> {
        server_runs(&self.config)
    }
}

impl Service {
    /// Looks everything up that receiving and deploying needs. Every mistake is reported at once.
    pub fn new(app: App, variables: Variables<'_>) -> Result<Self, AppError> {
        let (secrets, targets) = setup::check(&app.config, variables).map_err(AppError::Config)?;
        setup::open_way_home(&app.config, targets.values())?;
        let adopted = app.store.adopt(&app.config.node)?;
        if adopted > 0 {
            log::info!("{adopted} deployments of an earlier name of this machine are its own node={}", app.config.node);
        }
        let engine = Engine {
            store: app.store.clone(),
            targets,
            node: app.config.node.clone(),
            owner: format!("{}:{}", app.config.node, std::process::id()),
            clock: Utc::now,
        };
        let engine = Arc::new(engine);
        let live_here = Arc::clone(&engine);
        let live = move |site: &SiteName| live_here.targets.get(site).and_then(Target::live_commit);
        let Secrets { webhook: webhook_secrets, tokens: _, hooks: _ } = secrets;
        Ok(Self {
            rules: app.rules(),
            acceptor: app.store.acceptor(Arc::new(live))?,
            engine,
            bell: Arc::default(),
            webhook_secrets,
            refusals: Refusals::default(),
            app,
        })
    }

    fn now(&self) -> DateTime<Utc> {
        (self.engine.clock)()
    }
}

/// Which pushes are for which site.
fn rules(config: &Config) -> Vec<SiteRule> {
    let rule = |(name, site): (&SiteName, &Site)| SiteRule {
        site: name.clone(),
        repository: site.repository.clone(),
        refs: site.refs.clone(),
        skip_markers: site.skip_markers.clone(),
    };
    config.sites.iter().map(rule).collect()
}

/// A configured site.
pub fn site<'a>(config: &'a Config, name: &SiteName) -> Result<&'a Site, AppError> {
    config.sites.get(name).ok_or_else(|| {
        let known: Vec<_> = config.sites.keys().map(SiteName::as_str).collect();
        AppError::NotFound(format!("there is no site `{name}`; configured: {}", known.join(", ")))
    })
}

/// Whether a server works on the state directory of this configuration at this moment.
pub fn server_runs(config: &Config) -> Result<bool, AppError> {
    let path = setup::server_lock(config);
    LockFile::is_held(&path).map_err(AppError::io("ask for", &path))
}

/// Checks a configuration against the machine, without making anything.
pub fn check(config: &Config, variables: Variables<'_>) -> Result<(), AppError> {
    setup::check(config, variables).map(drop).map_err(AppError::Config)
}

/// Asks each remote for the tip of each site's branch. A remote that refuses, or a branch that is not there, is a mistake at
/// its key.
pub fn check_online(config: &Config, variables: Variables<'_>) -> Result<BTreeMap<SiteName, Revision>, AppError> {
    let secrets = Secrets::read(config, variables).map_err(AppError::Config)?;
    let (mut tips, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, site) in &config.sites {
        let table = format!("sites.{}", quoted(name.as_str()));
        let ref_name = site.branch.as_ref();
        match ref_name.map(|ref_name| tip_of(config, &site.repository, ref_name, &secrets)).transpose() {
            Ok(None) => {}
            Ok(Some(Some(tip))) => {
                tips.insert(name.clone(), tip);
            }
            Ok(Some(None)) => {
                let branch = ref_name.map(RefName::short).unwrap_or_default();
                let message = format!("the remote has no branch `{branch}`");
                problems.push(config.problem(&format!("{table}.branch"), message));
            }
            Err(AppError::Git(error)) => {
                problems.push(config.problem(&format!("{table}.repository"), error.to_string()));
            }
            Err(other) => return Err(other),
        }
    }
    if problems.is_empty() { Ok(tips) } else { Err(AppError::Config(problems)) }
}

/// Asks the remote of a repository for the tip of a ref; none if it is not there.
pub fn remote_tip(
    config: &Config,
    name: &RepositoryName,
    ref_name: &RefName,
    variables: Variables<'_>,
) -> Result<Option<Revision>, AppError> {
    tip_of(config, name, ref_name, &Secrets::read(config, variables).map_err(AppError::Config)?)
}

fn tip_of(
    config: &Config,
    name: &RepositoryName,
    ref_name: &RefName,
    secrets: &Secrets,
) -> Result<Option<Revision>, AppError> {
    let source = setup::source(config, name, secrets).ok_or_else(|| unknown_repository(config, name))?;
    Ok(git::tip(&Remote { url: &source.url, credentials: &source.credentials }, ref_name)?)
}

/// The webhook secrets of a repository, for a command that prints or uses them.
pub fn webhook_secrets(
    config: &Config,
    repository: &RepositoryName,
    variables: Variables<'_>,
) -> Result<Vec<Secret>, AppError> {
    let mut secrets = Secrets::read(config, variables).map_err(AppError::Config)?;
    secrets.webhook.remove(repository).ok_or_else(|| unknown_repository(config, repository))
}

/// The error for a repository that is not configured.
pub fn unknown_repository(config: &Config, name: &RepositoryName) -> AppError {
    let known: Vec<_> = config.repositories.keys().map(RepositoryName::as_str).collect();
    AppError::NotFound(format!("there is no repository `{name}`; configured: {}", known.join(", ")))
}
