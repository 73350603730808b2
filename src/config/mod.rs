//! What the operator wants: `deploy.toml` as values, and every mistake in it with its place.
//!
//! ```text
//! mod      the values, and Config::load       parse    which keys there are and what they mean
//! secrets  the values that lie elsewhere      reader   typed reading of TOML, with file, line, column and key
//! units    durations and sizes                           refs     which refs a site deploys
//! networks lists of addresses and networks    repository, deliveries    their keys
//! ```
//!
//! [`Config::parse`] is pure: a text in, values or all of its mistakes out. Absent: whether users, groups and directories
//! exist (`app`), since that is a question to the machine.

mod deliveries;
mod networks;
mod parse;
mod reader;
mod refs;
mod repository;
pub mod secrets;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::forge::Forge;
use crate::domain::hook_name::HookName;
use crate::domain::identity::Identity;
use crate::domain::name::{NodeName, RepositoryName, SiteName};
use crate::domain::network::Network;
use crate::domain::push::RefName;
use crate::domain::ref_rule::RefRule;
use crate::domain::release_id::ReleaseStyle;
use crate::domain::remote_url::RemoteUrl;
use crate::engine::Activate;
use crate::site::permissions::Executable;
use crate::store::DeliveryRetention;

pub(crate) use secrets::quoted;
pub use secrets::{SecretSource, Secrets};

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// Where Landfall keeps what is its own; default `/var/lib/landfall`.
    pub state_dir: PathBuf,
    /// How many sites deploy at the same time; default 2.
    pub workers: usize,
    /// How often the sites are compared with their remotes; default 5 minutes, zero is never.
    pub reconcile: Duration,
    /// The HTTP server.
    pub server: Server,
    /// The store, as a URL; default `landfall.db` in the state directory.
    pub store_url: String,
    /// How much of the past deliveries is kept; default 30 days, 10,000 of each repository, and 256 MiB of bodies.
    pub deliveries: DeliveryRetention,
    /// This machine; default the host name.
    pub node: NodeName,
    /// The repositories by name.
    pub repositories: BTreeMap<RepositoryName, Repository>,
    /// The sites by name.
    pub sites: BTreeMap<SiteName, Site>,
    places: BTreeMap<String, Place>,
}

/// Where the HTTP server listens, and what it takes.
#[derive(Debug, Clone)]
pub struct Server {
    /// Default `127.0.0.1:9000`.
    pub listen: SocketAddr,
    /// How the outside reaches it, without a trailing slash.
    pub public_url: Option<String>,
    /// The longest body of a webhook in bytes; default 25 MiB, GitHub's own limit.
    pub body_limit: usize,
    /// The reverse proxies whose `X-Forwarded-For` is believed; default none.
    pub trusted_proxies: Vec<Network>,
}

/// A remote with its webhook secret and credentials.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its URL.
    pub url: RemoteUrl,
    /// Its identity in payloads: `acme/blog`.
    pub identity: Identity,
    /// The forge's own id of it; default: the one that its first push names.
    pub forge_id: Option<String>,
    /// Who sends its webhooks.
    pub forge: Forge,
    /// What signs its webhooks; several while rotating.
    pub secrets: Vec<SecretSource>,
    /// Where its webhooks may come from; default from anywhere.
    pub allow_from: Option<Vec<Network>>,
    /// The private key for ssh.
    pub ssh_key: Option<PathBuf>,
    /// The host keys that are trusted.
    pub known_hosts: Option<PathBuf>,
    /// The token for https.
    pub token: Option<SecretSource>,
}

/// A branch or tag rule of a repository, deployed under a root.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its repository.
    pub repository: RepositoryName,
    /// The refs whose pushes it deploys.
    pub refs: RefRule,
    /// What is deployed when nobody names a ref: its branch, if it has a single one.
    pub branch: Option<RefName>,
    /// A push whose newest commit has one of these in its message is not deployed; default none.
    pub skip_markers: Vec<String>,
    /// Its root directory.
    pub root: PathBuf,
    /// Its environment; default the site's name.
    pub environment: String,
    /// The owner of finished releases; default the user Landfall runs as.
    pub owner: Option<String>,
    /// The group of releases; default the primary group of `run_as`.
    pub group: Option<String>,
    /// Whom hooks run as; default the owner.
    pub run_as: Option<String>,
    /// How many succeeded releases stay; default 5.
    pub keep: usize,
    /// How releases are named; default with colons.
    pub release_style: ReleaseStyle,
    /// The hooks' directory; default `.landfall`, else `.amezmo`.
    pub hooks_dir: Option<String>,
    /// How long a hook may run; default 10 minutes.
    pub hook_timeout: Duration,
    /// Hooks that may fail; default `before.pull`.
    pub allow_failure: BTreeSet<HookName>,
    /// Whether the flip comes before or after the last hooks; default before.
    pub activate: Activate,
    /// What becomes of executable bits; default they stay.
    pub executable: Executable,
    /// The file that becomes `.env`.
    pub env_file: Option<PathBuf>,
    /// Variables for the hooks.
    pub env: BTreeMap<String, String>,
    /// Secret variables for the hooks.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Paths that live in the site's storage.
    pub shared: Vec<String>,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path, host_name: &str) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path, host_name)
    }

    /// Checks a text; `file` is what mistakes are reported against.
    pub fn parse(text: &str, file: &Path, host_name: &str) -> Result<Self, ConfigError> {
        parse::parse(text, file, host_name).map_err(ConfigError::Problems)
    }

    /// A mistake that only a look at the machine can show, at the place of its key, or of the table it is missing from.
    pub fn problem(&self, key: &str, message: String) -> Problem {
        let mut known = key;
        let place = loop {
            if let Some(place) = self.places.get(known) {
                break *place;
            }
            match known.rsplit_once('.') {
                Some((table, _)) => known = table,
                None => break Place { line: 1, column: 1 },
            }
        };
        Problem { file: self.file.clone(), place, key: key.to_owned(), message }
    }
}

/// A place in a file, counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Where in the file.
    pub place: Place,
    /// The key with its tables: `sites.production.keep`.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place: Place { line, column }, key, message } = self;
        write!(formatter, "{}:{line}:{column}: ", file.display())?;
        if !key.is_empty() {
            write!(formatter, "{key}: ")?;
        }
        formatter.write_str(message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration `{}`: {source}\nhelp: name another with --config, or copy deploy.toml.example",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It has mistakes, in the order of the file.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
