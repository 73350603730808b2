//! Configuration → sites as the engine needs them: users, groups, secrets and directories looked up on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::secrets::refuse_readable_by_others;
use crate::config::{Config, Problem, Secrets, Site, quoted};
use crate::domain::name::{RepositoryName, SiteName};
use crate::engine::{Source, Target};
use crate::git::Credentials;
use crate::site::{Ownership, SiteDisk};
use crate::sys::fs;
use crate::sys::process::Identity;
use crate::sys::user::{self, Account};

use super::{AppError, Variables};

/// The directories below the state directory, with their modes; nobody but Landfall has business in them.
pub(super) fn state_directories(config: &Config) -> [(PathBuf, u32); 5] {
    let state = &config.state_dir;
    [
        (state.clone(), OWN_MODE),
        (state.join("repositories"), OWN_MODE),
        (state.join("releases"), OWN_MODE),
        (state.join("locks"), OWN_MODE),
        (logs(config), OWN_MODE),
    ]
}

pub(super) fn logs(config: &Config) -> PathBuf {
    config.state_dir.join("logs")
}

pub(super) fn server_lock(config: &Config) -> PathBuf {
    config.state_dir.join("locks").join(".serve.lock")
}

pub(super) fn disk(config: &Config, name: &SiteName, site: &Site) -> SiteDisk {
    SiteDisk::new(site.root.clone(), config.state_dir.clone(), name.clone())
}

/// Looks every site up. Gives back all mistakes, each at its key.
pub(super) fn check(
    config: &Config,
    variables: Variables<'_>,
) -> Result<(Secrets, BTreeMap<SiteName, Target>), Vec<Problem>> {
    let (secrets, mut problems) = match Secrets::read(config, variables) {
        Ok(secrets) => (secrets, Vec::new()),
        Err(problems) => (Secrets::default(), problems),
    };
    problems.extend(check_key_files(config));
    problems.extend(check_real_roots(config));
    warn_of_hidden_sources(config);
    let mut targets = BTreeMap::new();
    for (name, site) in &config.sites {
        match Lookup::new(config, name, site).target(&secrets) {
            Ok(target) => {
                targets.insert(name.clone(), target);
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        return Ok((secrets, targets));
    }
    problems.sort_by_key(|problem| problem.place);
    Err(problems)
}

/// A private key that others can read is nobody's secret, and one that is not there fails every fetch.
fn check_key_files(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, repository) in &config.repositories {
        let key = |key: &str| format!("repositories.{}.{key}", quoted(name.as_str()));
        if let Some(path) = &repository.ssh_key
            && let Err(reason) = refuse_readable_by_others(path)
        {
            problems.push(config.problem(&key("ssh_key"), reason));
        }
        if let Some(path) = &repository.known_hosts
            && let Err(error) = std::fs::metadata(path)
        {
            problems.push(config.problem(&key("known_hosts"), format!("cannot read `{}`: {error}", path.display())));
        }
    }
    problems
}

/// Behind a proxy that is not trusted every source is the proxy's, and none of a forge's is allowed.
fn warn_of_hidden_sources(config: &Config) {
    let server = &config.server;
    if !server.listen.ip().to_canonical().is_loopback() || !server.trusted_proxies.is_empty() {
        return;
    }
    for (name, repository) in &config.repositories {
        if repository.allow_from.is_some() {
            let address = server.listen.ip();
            log::warn!(
                "repository `{name}` has `allow_from`, but the server listens on {address}, where every source is this \
                 machine; set `server.trusted_proxies` to the reverse proxy's address"
            );
        }
    }
}

/// Two sites in one directory would flip the same link. Links can hide that from the configuration.
fn check_real_roots(config: &Config) -> Vec<Problem> {
    let mut taken = vec![("the state directory".to_owned(), fs::real_path(&config.state_dir))];
    let mut problems = Vec::new();
    for (name, site) in &config.sites {
        let root = fs::real_path(&site.root);
        if let Some((other, _)) = taken.iter().find(|(_, other)| root.starts_with(other) || other.starts_with(&root)) {
            let message = format!("is really `{}`, and lies in {other} or around it", root.display());
            problems.push(config.problem(&format!("sites.{}.root", quoted(name.as_str())), message));
        }
        taken.push((format!("the root of site `{name}`"), root));
    }
    problems
}

/// Makes the hooks' own home directories. They lie in the state directory, which others can then pass through, but not
/// read: only if there is such a home.
pub(super) fn open_way_home<'a>(config: &Config, targets: impl Iterator<Item = &'a Target>) -> Result<(), AppError> {
    let homes = config.state_dir.join("home");
    for target in targets.filter(|target| target.home.starts_with(&homes)) {
        let make = |path: &Path, mode| fs::make_directory(path, mode).map_err(AppError::io("make the directory", path));
        make(&homes, PASSAGE_MODE)?;
        make(&target.home, OWN_MODE)?;
        if target.ownership.change {
            let Account { uid, gid, .. } = target.account;
            fs::set_owner(&target.home, uid, gid).map_err(AppError::io("set the owner of", &target.home))?;
            let state = &config.state_dir;
            fs::add_mode(state, PASSAGE_MODE).map_err(AppError::io("set the mode of", state))?;
        }
    }
    Ok(())
}

/// A repository as the engine needs it; none if it is not configured.
pub(super) fn source(config: &Config, name: &RepositoryName, secrets: &Secrets) -> Option<Source> {
    let repository = config.repositories.get(name)?;
    Some(Source {
        name: name.clone(),
        identity: repository.identity.to_string(),
        url: repository.url.clone(),
        credentials: Credentials {
            ssh_key: repository.ssh_key.clone(),
            known_hosts: repository.known_hosts.clone(),
            token: secrets.tokens.get(name).cloned(),
        },
        mirror: config.state_dir.join("repositories").join(format!("{name}.git")),
    })
}

/// One site on its way to the engine.
struct Lookup<'a> {
    config: &'a Config,
    name: &'a SiteName,
    site: &'a Site,
    problems: Vec<Problem>,
}

impl<'a> Lookup<'a> {
    fn new(config: &'a Config, name: &'a SiteName, site: &'a Site) -> Self {
        Self { config, name, site, problems: Vec::new() }
    }

    fn fail(&mut self, key: &str, message: String) {
        let key = format!("sites.{}.{key}", quoted(self.name.as_str()));
        self.problems.push(self.config.problem(&key, message));
    }

    fn target(mut self, secrets: &Secrets) -> Result<Target, Vec<Problem>> {
        let Self { config, name, site, .. } = self;
        let disk = disk(config, name, site);
        if let Err(error) = disk.refuse_foreign() {
            self.fail("root", error.to_string());
        }
        if let Some(path) = &site.env_file
            && let Err(reason) = refuse_readable_by_others(path)
        {
            self.fail("env_file", reason);
        }
        let people = self.people();
        if let Some(people) = &people {
            self.refuse_open_to_hooks(&disk, people);
        }
        let source = source(config, &site.repository, secrets);
        let (Some(people), Some(source), true) = (people, source, self.problems.is_empty()) else {
            return Err(self.problems);
        };
        let People { ownership, account, identity, groups } = people;
        let site = site.clone();
        Ok(Target {
            site: name.clone(),
            ownership,
            home: home(config, name, &account, &groups),
            account,
            identity,
            source,
            refs: site.refs,
            branch: site.branch,
            environment: site.environment,
            keep: site.keep,
            release_style: site.release_style,
            hooks_dir: site.hooks_dir,
            hook_timeout: site.hook_timeout,
            allow_failure: site.allow_failure,
            activate: site.activate,
            executable: site.executable,
            env_file: site.env_file,
            env: site.env,
            secrets: secrets.hooks.get(name).cloned().unwrap_or_default(),
            shared: site.shared,
            logs: logs(config),
            disk,
        })
    }

    fn people(&mut self) -> Option<People> {
        let me = match user::current() {
            Ok(me) => me,
            Err(error) => {
                self.fail("run_as", format!("cannot look up the user Landfall runs as: {error}"));
                return None;
            }
        };
        let owner = self.account("owner", self.site.owner.as_deref(), &me);
        let account = self.account("run_as", self.site.run_as.as_deref(), owner.as_ref()?);
        let group = self.group(account.as_ref()?);
        let (owner, account, group) = (owner?, account?, group?);
        if !user::is_root() {
            self.refuse_other_people(&me, &owner, &account, group);
        }
        let groups = match user::groups_of(&account) {
            Ok(groups) => groups,
            Err(error) => {
                self.fail("run_as", format!("cannot look up the groups of `{}`: {error}", account.name));
                return None;
            }
        };
        let change = user::is_root();
        if account.uid == 0 {
            log::warn!("the hooks of site `{}` run as root; set `run_as` to a user of their own", self.name);
        }
        let ownership = Ownership { owner: owner.uid, group, run_as: account.uid, change };
        // Root drops to the user in every case: also to itself, without capabilities it has no need for.
        let identity = change.then(|| Identity { uid: account.uid, gid: account.gid, groups: groups.clone() });
        Some(People { ownership, account, identity, groups })
    }

    /// Root makes, renames and removes in these directories by name: a hook that could exchange what the names mean would do
    /// it with root's rights.
    fn refuse_open_to_hooks(&mut self, disk: &SiteDisk, people: &People) {
        let People { ownership, account, groups, .. } = people;
        if !ownership.change || account.uid == 0 {
            return;
        }
        let may_write = |path: &Path| fs::may_write(path, account.uid, groups).unwrap_or(false);
        let may_exchange = |path: &&Path| may_write(path) && !fs::is_sticky(path).unwrap_or(false);
        let above = disk.root().ancestors().skip(1).filter(may_exchange).map(Path::to_owned);
        let own = [disk.root().to_owned(), disk.releases()].into_iter().filter(|path| may_write(path));
        for path in own.chain(above) {
            let (path, name) = (path.display(), &account.name);
            let help = format!("help: chown root: {path} && chmod go-w {path}, or put the root elsewhere");
            self.fail("root", format!("`{path}` can be written by `{name}`, whom hooks run as\n{help}"));
        }
    }

    fn account(&mut self, key: &str, name: Option<&str>, default: &Account) -> Option<Account> {
        let Some(name) = name else { return Some(default.clone()) };
        match user::account(name) {
            Ok(Some(account)) => Some(account),
            Ok(None) => {
                self.fail(key, format!("this machine has no user `{name}`; make it, for example with useradd(8)"));
                None
            }
            Err(error) => {
                self.fail(key, format!("cannot look up the user `{name}`: {error}"));
                None
            }
        }
    }

    fn group(&mut self, run_as: &Account) -> Option<u32> {
        let Some(name) = self.site.group.as_deref() else { return Some(run_as.gid) };
        match user::group_id(name) {
            Ok(Some(group)) => Some(group),
            Ok(None) => {
                self.fail(
                    "group",
                    format!("this machine has no group `{name}`; make it, for example with groupadd(8)"),
                );
                None
            }
            Err(error) => {
                self.fail("group", format!("cannot look up the group `{name}`: {error}"));
                None
            }
        }
    }

    /// Only root can give files away and run hooks as somebody else; to pretend otherwise would be a lie.
    fn refuse_other_people(&mut self, me: &Account, owner: &Account, run_as: &Account, group: u32) {
        let help = format!("Landfall runs as `{}` and only root can change owners", me.name);
        if owner.uid != me.uid {
            self.fail("owner", format!("`{}` is somebody else: {help}", owner.name));
        }
        if run_as.uid != me.uid {
            self.fail("run_as", format!("`{}` is somebody else: {help}", run_as.name));
        }
        if group != me.gid {
            self.fail("group", format!("is not the user's primary group: {help}"));
        }
    }
}

/// Who works on a site.
struct People {
    ownership: Ownership,
    account: Account,
    identity: Option<Identity>,
    groups: Vec<u32>,
}

/// The home from the list of users, if that user can write there; else one of our own.
fn home(config: &Config, name: &SiteName, account: &Account, groups: &[u32]) -> PathBuf {
    let can_write = fs::may_write(&account.home, account.uid, groups).unwrap_or(false);
    if can_write { account.home.clone() } else { config.state_dir.join("home").join(name.as_str()) }
}

/// For Landfall alone.
const OWN_MODE: u32 = 0o700;

/// Others may pass through to what is theirs, but see nothing.
const PASSAGE_MODE: u32 = 0o711;
