//! The values that never stand in the configuration itself: webhook secrets, tokens, the hooks' secrets.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::domain::forge::Forge;
use crate::domain::name::{RepositoryName, SiteName};
use crate::domain::secret::Secret;
use crate::webhook;

use super::{Config, Problem};

/// Where a secret lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file that others cannot read; one trailing newline is dropped.
    File(PathBuf),
    /// In a variable of our environment.
    Env(String),
    /// In a systemd credential of this name.
    Credential(String),
}

/// Every secret that is configured, read.
#[derive(Debug, Default)]
pub struct Secrets {
    /// What signs the webhooks of a repository.
    pub webhook: BTreeMap<RepositoryName, Vec<Secret>>,
    /// What opens a repository over https.
    pub tokens: BTreeMap<RepositoryName, Secret>,
    /// What a site's hooks are given.
    pub hooks: BTreeMap<SiteName, Vec<(String, Secret)>>,
}

impl Secrets {
    /// Reads all secrets. `variable` looks a variable of our environment up. Weak, unreadable and shared secrets are
    /// mistakes, each at its key.
    pub fn read(config: &Config, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Vec<Problem>> {
        let mut reader = SecretReader { config, variable, problems: Vec::new() };
        let mut secrets = Self::default();
        for (name, repository) in &config.repositories {
            let key = format!("repositories.{}.secret", quoted(name.as_str()));
            let forge = repository.forge;
            let webhook = repository.secrets.iter().filter_map(|source| reader.webhook(&key, forge, source));
            let mut webhook: Vec<Secret> = webhook.collect();
            if repository.secrets.is_empty() {
                webhook.extend(webhook::default_secret(forge));
            }
            secrets.webhook.insert(name.clone(), webhook);
            let key = format!("repositories.{}.token", quoted(name.as_str()));
            let token = repository.token.as_ref().and_then(|source| reader.value(&key, source));
            secrets.tokens.extend(token.map(|token| (name.clone(), token)));
        }
        for (name, site) in &config.sites {
            let table = format!("sites.{}.secrets", quoted(name.as_str()));
            let values = site.secrets.iter().filter_map(|(variable, source)| {
                Some((variable.clone(), reader.value(&format!("{table}.{variable}"), source)?))
            });
            secrets.hooks.insert(name.clone(), values.collect());
        }
        reader.refuse_shared(&secrets.webhook);
        if reader.problems.is_empty() { Ok(secrets) } else { Err(reader.problems) }
    }
}

struct SecretReader<'a> {
    config: &'a Config,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    problems: Vec<Problem>,
}

impl SecretReader<'_> {
    fn fail(&mut self, key: &str, message: String) {
        self.problems.push(self.config.problem(key, message));
    }

    fn webhook(&mut self, key: &str, forge: Forge, source: &SecretSource) -> Option<Secret> {
        let secret = self.value(key, source)?;
        match webhook::check_secret(forge, &secret) {
            Ok(()) => Some(secret),
            Err(error) => {
                self.fail(key, format!("{} {error}", describe(source)));
                None
            }
        }
    }

    fn value(&mut self, key: &str, source: &SecretSource) -> Option<Secret> {
        match self.read(source) {
            Ok(secret) if secret.expose().trim_ascii().is_empty() => {
                self.fail(key, format!("{} is empty", describe(source)));
                None
            }
            Ok(secret) => Some(secret),
            Err(reason) => {
                self.fail(key, reason);
                None
            }
        }
    }

    fn read(&self, source: &SecretSource) -> Result<Secret, String> {
        match source {
            SecretSource::File(path) => read_file(path),
            SecretSource::Env(name) => match (self.variable)(name) {
                Some(value) => Ok(Secret::new(value.into_vec())),
                None => Err(format!("the variable `{name}` is not set")),
            },
            SecretSource::Credential(name) => match (self.variable)("CREDENTIALS_DIRECTORY") {
                // systemd guards the directory: its files may look readable to root's group.
                Some(directory) => read_unguarded(&Path::new(&directory).join(name)),
                None => Err(format!(
                    "the credential `{name}` is not there, since systemd has not started this process with credentials"
                )),
            },
        }
    }

    /// With one secret for two repositories, whoever may push to one could forge a push to the other.
    fn refuse_shared(&mut self, webhook: &BTreeMap<RepositoryName, Vec<Secret>>) {
        let config = self.config;
        // What everybody may know may be shared too.
        let is_secret = |name: &RepositoryName, secret: &Secret| {
            let forge = config.repositories.get(name).map(|repository| repository.forge);
            !forge.is_some_and(|forge| webhook::is_public(forge, secret))
        };
        let all = || {
            let secrets = webhook.iter().flat_map(|(name, secrets)| secrets.iter().map(move |secret| (name, secret)));
            secrets.filter(|(name, secret)| is_secret(name, secret))
        };
        for (index, (name, secret)) in all().enumerate() {
            let earlier =
                all().take(index).find(|(other, earlier)| *other != name && earlier.expose() == secret.expose());
            if let Some((other, _)) = earlier {
                let key = format!("repositories.{}.secret", quoted(name.as_str()));
                self.fail(&key, format!("is the same as that of repository `{other}`; each needs its own"));
            }
        }
    }
}

/// Refuses a file that others can read, whatever it is for.
pub fn refuse_readable_by_others(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    if !metadata.is_file() {
        return Err(format!("`{}` is no file", path.display()));
    }
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(format!("`{0}` is open to others; run: chmod o= {0}", path.display()));
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Secret, String> {
    refuse_readable_by_others(path)?;
    read_unguarded(path)
}

fn read_unguarded(path: &Path) -> Result<Secret, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LONGEST_SECRET + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    if bytes.len() as u64 > LONGEST_SECRET {
        return Err(format!("`{}` has more than {LONGEST_SECRET} bytes; is it the right file?", path.display()));
    }
    Ok(Secret::of_file(bytes))
}

fn describe(source: &SecretSource) -> String {
    match source {
        SecretSource::File(path) => format!("the secret in `{}`", path.display()),
        SecretSource::Env(name) => format!("the secret in the variable `{name}`"),
        SecretSource::Credential(name) => format!("the secret in the credential `{name}`"),
    }
}

/// As the reader writes a key with dots.
pub(crate) fn quoted(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

/// Keys and tokens are far shorter; a device or a log by mistake is not read to its end.
const LONGEST_SECRET: u64 = 64 * 1024;
