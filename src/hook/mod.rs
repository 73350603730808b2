//! A hook: which file, in which environment, as which user; and its run, with its output in the deployment's log.
//!
//! Absent: what a failed hook means for the deployment (the engine decides), and how a process is started and ended
//! (`sys::process`). Nothing of Landfall's own environment reaches a hook.

mod log;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::deployment::{DeploymentId, HookEnd};
use crate::domain::hook_name::HookName;
use crate::domain::release_id::ReleaseId;
use crate::domain::revision::Revision;
use crate::domain::secret::Secret;
use crate::sys::process::{self, End, Identity, Spec};
use crate::sys::stop::Stop;

pub use log::{DeploymentLog, LOG_LIMIT};

/// A hook that a release brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookFile {
    /// Where it is, below the release.
    pub path: PathBuf,
    /// Which one it is.
    pub name: HookName,
}

/// What went wrong with a hook apart from its own end.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The file is no hook that we would run.
    #[error("cannot use hook `{path}`: it {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not, after "it".
        reason: &'static str,
    },
    /// The machine refused something.
    #[error("cannot {operation} `{path}`: {source}")]
    Io {
        /// What we were about to do.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// How a hook's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookResult {
    /// With status 0.
    Fine,
    /// In any other way of its own, or at its time limit, or it could not be started.
    Failed(HookEnd),
    /// Somebody cancelled it, for this reason.
    Cancelled(String),
}

/// What a hook is told about its deployment.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The release it runs from.
    pub release_path: &'a Path,
    /// That release's name.
    pub release: &'a ReleaseId,
    /// That release's commit.
    pub commit: &'a Revision,
    /// The branch or tag.
    pub branch: &'a str,
    /// The repository as the forge names it: `acme/blog`.
    pub repository: &'a str,
    /// The site's environment.
    pub environment: &'a str,
    /// The site's persistent directory.
    pub storage: PathBuf,
    /// The link to the live release.
    pub current: PathBuf,
    /// The release that was live before.
    pub previous_release: Option<PathBuf>,
    /// Its commit.
    pub previous_commit: Option<&'a Revision>,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The home directory of the user it runs as.
    pub home: &'a Path,
    /// That user's name.
    pub user: &'a str,
    /// That user's shell.
    pub shell: &'a Path,
    /// The site's `env` table.
    pub env: &'a BTreeMap<String, String>,
    /// The site's secrets by name.
    pub secrets: &'a [(String, Secret)],
}

/// The terms of a run.
#[derive(Debug)]
pub struct Run<'a> {
    /// Whom it runs as; none: as this process.
    pub identity: Option<&'a Identity>,
    /// How long it may take.
    pub limit: Duration,
    /// What cancels it.
    pub stop: &'a Stop,
}

/// The directory in which a release keeps its hooks: the setting, else `.landfall`, else `.amezmo`. None if it is absent. One
/// that is a link out of the release is an error: without its hooks the release must not go live.
fn hooks_directory(release: &Path, setting: Option<&str>) -> Result<Option<PathBuf>, HookError> {
    let candidates = setting.map_or(&DEFAULT_DIRECTORIES[..], |_| &[]);
    for name in setting.iter().chain(candidates) {
        let directory = release.join(name);
        if is_directory_of(release, &directory)? {
            return Ok(Some(directory));
        }
    }
    Ok(None)
}

fn is_directory_of(release: &Path, directory: &Path) -> Result<bool, HookError> {
    if directory.symlink_metadata().is_ok_and(|found| found.is_symlink()) && inside(release, directory).is_none() {
        return Err(HookError::Unusable { path: directory.to_owned(), reason: LEAVES });
    }
    Ok(directory.is_dir())
}

/// Finds a hook: that of the environment, else the general one. A file that leaves the release, or is none, is an error.
pub fn find(
    release: &Path,
    setting: Option<&str>,
    environment: &str,
    hook: HookName,
) -> Result<Option<HookFile>, HookError> {
    let Some(directory) = hooks_directory(release, setting)? else { return Ok(None) };
    for directory in [environment_directory(&directory, environment), Some(directory)].into_iter().flatten() {
        if !is_directory_of(release, &directory)? {
            continue;
        }
        let path = directory.join(hook.as_str());
        if is_hook_file(release, &path)? {
            return Ok(Some(HookFile { path, name: hook }));
        }
    }
    Ok(None)
}

/// Files beside the hooks that look like one and are none: misspelt, or with an extension. As paths below the release.
pub fn unknown(release: &Path, setting: Option<&str>, environment: &str) -> Vec<String> {
    let Ok(Some(directory)) = hooks_directory(release, setting) else { return Vec::new() };
    let mut found = Vec::new();
    for directory in [Some(directory.clone()), environment_directory(&directory, environment)].into_iter().flatten() {
        let names = file_names(release, &directory).into_iter().filter(|name| looks_like_a_hook(name));
        found.extend(names.map(|name| directory.join(name)));
        let rollback = directory.join(ROLLBACK);
        let names = file_names(release, &rollback).into_iter().filter(|name| looks_like_a_rollback_hook(name));
        found.extend(names.map(|name| rollback.join(name)));
    }
    let below = |path: &PathBuf| path.strip_prefix(release).unwrap_or(path).display().to_string();
    let mut found: Vec<_> = found.iter().map(below).collect();
    found.sort();
    found
}

/// The whole environment of a hook, each name once. The site's tables may replace what describes the user (`PATH` to
/// `COMPOSER_MEMORY_LIMIT`), never what describes the deployment: the cookie is among it.
pub fn environment(scene: &Scene<'_>, hook: HookName) -> Vec<(String, OsString)> {
    let table = scene.env.iter().map(|(name, value)| (name.as_str(), OsStr::new(value)));
    let secrets = scene.secrets.iter().map(|(name, secret)| (name.as_str(), OsStr::from_bytes(secret.expose())));
    let mut environment: Vec<(String, OsString)> = Vec::new();
    let deployment = scene.deployment.to_string();
    for (name, value) in
        of_user(scene).into_iter().chain(table).chain(secrets).chain(of_deployment(scene, hook, &deployment))
    {
        environment.retain(|(other, _)| other != name);
        environment.push((name.to_owned(), value.to_owned()));
    }
    environment
}

/// The entries of the environment that mark every process of a deployment, to find what its hooks left behind.
pub fn cookie(deployment: DeploymentId, current: &Path) -> Vec<String> {
    vec![format!("DEPLOYMENT_ID={deployment}"), format!("CURRENT_PATH={}", current.display())]
}

/// Runs a hook to its end. Afterwards nothing that it started lives, and its output is in the log.
pub fn run(
    file: &HookFile,
    scene: &Scene<'_>,
    run: &Run<'_>,
    log: &mut DeploymentLog,
) -> Result<HookResult, HookError> {
    let Run { identity, limit, stop } = *run;
    let Some(bash) = bash() else {
        return Ok(HookResult::Failed(HookEnd::NotStarted(format!("there is no bash in `{PATH}`"))));
    };
    let cookie = cookie(scene.deployment, &scene.current);
    let spec = Spec {
        program: &bash,
        args: &[file.path.clone().into_os_string()],
        directory: scene.release_path,
        environment: &environment(scene, file.name),
        run_as: identity,
        umask: UMASK,
        time_limit: limit,
        grace: GRACE,
        cookie: &cookie,
    };
    let started = match process::start(&spec) {
        Ok(started) => started,
        Err(error) => return Ok(HookResult::Failed(HookEnd::NotStarted(error.to_string()))),
    };
    let end = started.follow(stop, &mut |bytes| log.write(bytes));
    let end = end.and_then(|end| log.finish().map(|()| end));
    Ok(match end {
        Ok(end) => result_of(end, limit),
        Err(error) => HookResult::Failed(HookEnd::Lost(error.to_string())),
    })
}

fn result_of(end: End, limit: Duration) -> HookResult {
    match end {
        End::Exit(0) => HookResult::Fine,
        End::Exit(status) => HookResult::Failed(HookEnd::Exit(status)),
        End::Signal(number) => HookResult::Failed(HookEnd::Signal(number)),
        // Rounded up, so that a limit below a second is not told as none.
        End::TimeLimit => HookResult::Failed(HookEnd::TimeLimit(limit.as_millis().div_ceil(1000) as u64)),
        End::Cancelled(reason) => HookResult::Cancelled(reason),
    }
}

/// Only a name can be a directory of its own; anything with a path in it is not looked for.
fn environment_directory(directory: &Path, environment: &str) -> Option<PathBuf> {
    let is_name = !environment.is_empty() && !environment.contains(['/', '\0']) && !matches!(environment, "." | "..");
    is_name.then(|| directory.join(environment))
}

/// Whether the file is there and may be run.
fn is_hook_file(release: &Path, path: &Path) -> Result<bool, HookError> {
    let unusable = |reason| Err(HookError::Unusable { path: path.to_owned(), reason });
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(false),
        Err(source) => return Err(HookError::Io { operation: "look at hook", path: path.to_owned(), source }),
    }
    let Some(real) = inside(release, path) else {
        return unusable(LEAVES);
    };
    if !real.is_file() {
        return unusable("is not a regular file");
    }
    Ok(true)
}

/// Where the path really is, if that is below the release.
fn inside(release: &Path, path: &Path) -> Option<PathBuf> {
    let (release, real) = (release.canonicalize().ok()?, path.canonicalize().ok()?);
    real.starts_with(release).then_some(real)
}

/// Best effort: this only serves a warning.
fn file_names(release: &Path, directory: &Path) -> Vec<String> {
    let entries = inside(release, directory).and_then(|directory| fs::read_dir(directory).ok());
    let entries = entries.into_iter().flatten().flatten().filter(|entry| !entry.path().is_dir());
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn looks_like_a_hook(name: &str) -> bool {
    let plain = plain(name);
    let is_known = HookName::parse(name).is_some() || name == AFTER_EXTRACT;
    !is_known
        && !name.starts_with('.')
        && (HOOK_STARTS.iter().any(|start| plain.starts_with(start))
            || HOOK_ENDS.iter().any(|end| plain.ends_with(end)))
}

fn looks_like_a_rollback_hook(name: &str) -> bool {
    !name.starts_with('.') && HookName::parse(&format!("{ROLLBACK}/{name}")).is_none()
}

/// `Before-Deploy` was meant to be `before.deploy`.
fn plain(name: &str) -> String {
    name.to_lowercase().replace(['-', '_'], ".")
}

fn of_user<'a>(scene: &'a Scene<'_>) -> [(&'static str, &'a OsStr); 7] {
    [
        ("PATH", OsStr::new(PATH)),
        ("HOME", scene.home.as_os_str()),
        ("USER", OsStr::new(scene.user)),
        ("LOGNAME", OsStr::new(scene.user)),
        ("SHELL", scene.shell.as_os_str()),
        ("LANG", OsStr::new("C.UTF-8")),
        ("COMPOSER_MEMORY_LIMIT", OsStr::new("-1")),
    ]
}

fn of_deployment<'a>(scene: &'a Scene<'_>, hook: HookName, deployment: &'a str) -> [(&'static str, &'a OsStr); 15] {
    let release = scene.release_path.as_os_str();
    let values = [
        release,
        release,
        OsStr::new(scene.release.as_str()),
        OsStr::new(scene.release.as_str()),
        OsStr::new(scene.commit.as_str()),
        OsStr::new(scene.branch),
        OsStr::new(scene.repository),
        OsStr::new(hook.as_str()),
        OsStr::new(scene.environment),
        scene.storage.as_os_str(),
        scene.storage.as_os_str(),
        scene.current.as_os_str(),
        scene.previous_release.as_deref().map_or(OsStr::new(""), Path::as_os_str),
        OsStr::new(scene.previous_commit.map_or("", Revision::as_str)),
        OsStr::new(deployment),
    ];
    std::array::from_fn(|index| (DEPLOYMENT_VARIABLES[index], values[index]))
}

fn bash() -> Option<PathBuf> {
    let directories = PATH.split(':').filter(|directory| directory.starts_with('/'));
    directories.map(|directory| Path::new(directory).join("bash")).find(|path| path.is_file())
}

/// The relative parts find what `npm run` and `composer` look for by an absolute path, which the colons of a release's
/// name would break.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:node_modules/.bin:vendor/bin";

/// Files for the group too: the web server's user and the deployer share the release by it.
const UMASK: u32 = 0o002;

/// What every hook is told about its deployment; the site's own tables cannot replace these.
pub const DEPLOYMENT_VARIABLES: [&str; 15] = [
    "APPLICATION_ROOT",
    "DEPLOYMENT_DIRECTORY",
    "RELEASE_ID",
    "RELEASE_NUMBER",
    "COMMIT_ID",
    "DEPLOY_BRANCH",
    "REPO_NAME",
    "TARGET_HOOK",
    "ENVIRONMENT_NAME",
    "STORAGE_DIRECTORY",
    "PERSISTENT_STORAGE_DIRECTORY",
    "CURRENT_PATH",
    "PREVIOUS_RELEASE",
    "PREVIOUS_COMMIT",
    "DEPLOYMENT_ID",
];

/// How long after TERM a hook is killed.
pub const GRACE: Duration = Duration::from_secs(10);

const LEAVES: &str = "is a link that leaves the release or leads nowhere";

const DEFAULT_DIRECTORIES: [&str; 2] = [".landfall", ".amezmo"];

const ROLLBACK: &str = "rollback";

/// A hook of Amezmo for uploaded archives, which Landfall has none of.
const AFTER_EXTRACT: &str = "after.extract";

const HOOK_STARTS: [&str; 5] = ["before.", "after.", "deploy.", "rollback.", "post."];

const HOOK_ENDS: [&str; 4] = [".pull", ".deploy", ".extract", ".rollback"];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const COMMIT: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";
    const RELEASE: &str = "2026-11-22T10:15:30.000000.1a2b3c4";

    /// A site with one release, in a directory whose name has colons as real ones do.
    struct House {
        root: tempfile::TempDir,
        commit: Revision,
        release: ReleaseId,
        env: BTreeMap<String, String>,
        secrets: Vec<(String, Secret)>,
        limit: Duration,
        stop: Stop,
        deployment: DeploymentId,
    }

    impl House {
        fn new() -> Self {
            let root = tempfile::tempdir().expect("a directory");
            fs::create_dir_all(root.path().join("release").join(RELEASE)).expect("a release");
            Self {
                root,
                commit: Revision::parse(COMMIT).expect("a commit"),
                release: ReleaseId::parse(RELEASE).expect("a release name"),
                env: BTreeMap::new(),
                secrets: Vec::new(),
                limit: MINUTE,
                stop: Stop::new(),
                deployment: DeploymentId(42),
            }
        }

        fn path(&self) -> PathBuf {
            self.root.path().join("release").join(RELEASE)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
            fs::write(path, text).expect("a file");
        }

        fn logs(&self) -> PathBuf {
            self.root.path().join("logs")
        }

        fn with_scene<T>(&self, act: impl FnOnce(&Scene<'_>) -> T) -> T {
            act(&Scene {
                release_path: &self.path(),
                release: &self.release,
                commit: &self.commit,
                branch: "main",
                repository: "acme/blog",
                environment: "production",
                storage: self.root.path().join("storage"),
                current: self.root.path().join("current"),
                previous_release: None,
                previous_commit: None,
                deployment: self.deployment,
                home: Path::new("/home/deployer"),
                user: "deployer",
                shell: Path::new("/bin/bash"),
                env: &self.env,
                secrets: &self.secrets,
            })
        }

        /// Runs `after.pull` with this text; what came out is in the log.
        fn run(&self, script: &str) -> (HookResult, Vec<u8>) {
            self.write(".landfall/after.pull", script);
            let file = find(&self.path(), None, "production", HookName::AfterPull).expect("no error").expect("a hook");
            let secrets: Vec<_> = self.secrets.iter().map(|(_, secret)| secret.expose()).collect();
            let mut log = DeploymentLog::create(&self.logs(), "after.pull", &secrets, LOG_LIMIT).expect("a log");
            let terms = Run { identity: None, limit: self.limit, stop: &self.stop };
            let result = self.with_scene(|scene| run(&file, scene, &terms, &mut log)).expect("a result");
            (result, fs::read(self.newest_log()).expect("the log"))
        }

        fn newest_log(&self) -> PathBuf {
            let logs = fs::read_dir(self.logs()).expect("logs").map(|entry| entry.expect("an entry").path());
            logs.max().expect("a log")
        }

        fn text(&self, script: &str) -> String {
            let (result, output) = self.run(script);
            assert_eq!(result, HookResult::Fine, "{}", output.escape_ascii());
            String::from_utf8(output).expect("UTF-8")
        }
    }

    #[test]
    fn the_directory_is_the_setting_or_ours_or_that_of_amezmo() {
        let house = House::new();
        let name = |setting| {
            let found = hooks_directory(&house.path(), setting).expect("no error");
            found.map(|path| path.file_name().map(OsStr::to_owned))
        };
        let named = |name: &str| Some(Some(OsString::from(name)));
        assert_eq!(name(None), None);
        house.write(".amezmo/after.pull", "");
        assert_eq!(name(None), named(".amezmo"));
        house.write(".landfall/after.pull", "");
        assert_eq!(name(None), named(".landfall"));
        assert_eq!(name(Some("hooks")), None);
        house.write("hooks/after.pull", "");
        assert_eq!(name(Some("hooks")), named("hooks"));
    }

    #[test]
    fn a_hook_of_the_environment_wins() {
        let house = House::new();
        let found = |environment: &str, hook| find(&house.path(), None, environment, hook).expect("no error");
        assert_eq!(found("production", HookName::AfterPull), None);
        house.write(".landfall/after.pull", "");
        house.write(".landfall/production/after.pull", "");
        house.write(".landfall/rollback/before", "");
        let path = |name: &str| Some(house.path().join(".landfall").join(name));
        let table = [
            ("production", HookName::AfterPull, path("production/after.pull")),
            ("staging", HookName::AfterPull, path("after.pull")),
            ("../production", HookName::AfterPull, path("after.pull")),
            ("", HookName::AfterPull, path("after.pull")),
            ("production", HookName::RollbackBefore, path("rollback/before")),
            ("production", HookName::RollbackAfter, None),
            ("after.pull", HookName::BeforeDeploy, None),
        ];
        for (environment, hook, expected) in table {
            assert_eq!(found(environment, hook).map(|file| file.path), expected, "{environment} {hook}");
        }
    }

    #[test]
    fn a_hook_must_be_a_file_of_the_release() {
        let house = House::new();
        house.write(".landfall/real", "");
        house.write("../outside", "");
        let outside = house.root.path().join("release/outside");
        let hook = house.path().join(".landfall/after.pull");
        for (target, fine) in [("real", true), ("/etc/passwd", false), ("../../outside", false), ("absent", false)] {
            symlink(target, &hook).expect("a link");
            let found = find(&house.path(), None, "production", HookName::AfterPull);
            assert_eq!(matches!(found, Ok(Some(_))), fine, "{target}: {found:?}");
            assert_eq!(found.is_err(), !fine, "{target}");
            fs::remove_file(&hook).expect("no link");
        }
        assert!(outside.is_file());
        fs::create_dir(&hook).expect("a directory");
        let error = find(&house.path(), None, "production", HookName::AfterPull).expect_err("an error");
        assert!(error.to_string().ends_with("it is not a regular file"), "{error}");
        let leaving = find(&house.path(), Some("../../release"), "x", HookName::AfterPull).expect("none there");
        assert_eq!(leaving, None);
    }

    #[test]
    fn what_looks_like_a_hook_and_is_none_is_told() {
        let house = House::new();
        let names = [
            "after.pull",
            "after.extract",
            "before.deploy",
            "deploy.failure",
            "README.md",
            "helper.sh",
            ".after.pull.swp",
            "after.pull.sh",
            "before-deploy",
            "pre.pull",
            "post.deploy",
            "deploy.succes",
            "After.Deploy",
            "rollback/before",
            "rollback/during",
            "production/after.foo",
            "production/after.pull",
            "staging/after.foo",
        ];
        for name in names {
            house.write(&format!(".landfall/{name}"), "");
        }
        let expected = [
            "After.Deploy",
            "after.pull.sh",
            "before-deploy",
            "deploy.succes",
            "post.deploy",
            "pre.pull",
            "production/after.foo",
            "rollback/during",
        ];
        assert_eq!(unknown(&house.path(), None, "production"), expected.map(|name| format!(".landfall/{name}")));
        assert_eq!(unknown(&house.path(), Some("absent"), "production"), Vec::<String>::new());
    }

    #[test]
    fn the_environment_is_exactly_the_list() {
        let mut house = House::new();
        house.env.insert("APP_ENV".into(), "production".into());
        house.env.insert("LANG".into(), "de_DE.UTF-8".into());
        house.env.insert("DEPLOYMENT_ID".into(), "1".into());
        house.secrets.push(("KEY".into(), Secret::new(b"abc\xff".to_vec())));
        let output = house.run("/usr/bin/env -0").1;
        let mut entries: Vec<_> = output.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).collect();
        entries.retain(|entry| [&b"PWD="[..], b"SHLVL=", b"_="].iter().all(|own| !entry.starts_with(own)));
        entries.sort_unstable();
        let (release, root) = (house.path().display().to_string(), house.root.path().display().to_string());
        let expected = [
            "APPLICATION_ROOT=".to_owned() + &release,
            "APP_ENV=production".to_owned(),
            format!("COMMIT_ID={COMMIT}"),
            "COMPOSER_MEMORY_LIMIT=-1".to_owned(),
            format!("CURRENT_PATH={root}/current"),
            "DEPLOYMENT_DIRECTORY=".to_owned() + &release,
            "DEPLOYMENT_ID=42".to_owned(),
            "DEPLOY_BRANCH=main".to_owned(),
            "ENVIRONMENT_NAME=production".to_owned(),
            "HOME=/home/deployer".to_owned(),
            "KEY=***".to_owned(),
            "LANG=de_DE.UTF-8".to_owned(),
            "LOGNAME=deployer".to_owned(),
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:node_modules/.bin:vendor/bin".to_owned(),
            format!("PERSISTENT_STORAGE_DIRECTORY={root}/storage"),
            "PREVIOUS_COMMIT=".to_owned(),
            "PREVIOUS_RELEASE=".to_owned(),
            format!("RELEASE_ID={RELEASE}"),
            format!("RELEASE_NUMBER={RELEASE}"),
            "REPO_NAME=acme/blog".to_owned(),
            "SHELL=/bin/bash".to_owned(),
            format!("STORAGE_DIRECTORY={root}/storage"),
            "TARGET_HOOK=after.pull".to_owned(),
            "USER=deployer".to_owned(),
        ];
        let entries: Vec<_> = entries.into_iter().map(|entry| String::from_utf8_lossy(entry).into_owned()).collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn the_cookie_is_in_the_environment() {
        let house = House::new();
        let cookie = cookie(house.deployment, &house.root.path().join("current"));
        house.with_scene(|scene| {
            let environment = environment(scene, HookName::AfterPull);
            for entry in &cookie {
                let (name, value) = entry.split_once('=').expect("an entry");
                assert!(environment.contains(&(name.to_owned(), value.into())), "{entry}");
            }
        });
    }

    #[test]
    fn a_hook_ends_as_it_ends() {
        let failed = HookResult::Failed;
        let table = [
            ("exit 0", HookResult::Fine),
            ("", HookResult::Fine),
            ("exit 3", failed(HookEnd::Exit(3))),
            ("kill -9 $$", failed(HookEnd::Signal(9))),
            ("if", failed(HookEnd::Exit(2))),
            ("sleep 1000", failed(HookEnd::TimeLimit(1))),
        ];
        for (script, expected) in table {
            let mut house = House::new();
            house.limit = if script == "sleep 1000" { Duration::from_millis(300) } else { MINUTE };
            assert_eq!(house.run(script).0, expected, "{script}");
        }
    }

    #[test]
    fn a_hook_that_can_not_start_says_why() {
        let mut house = House::new();
        house.env.insert("NUL".into(), "a\0b".into());
        let (result, _) = house.run("exit 0");
        assert!(matches!(result, HookResult::Failed(HookEnd::NotStarted(_))), "{result:?}");
    }

    #[test]
    fn a_cancelled_hook_says_so() {
        let house = House::new();
        house.stop.cancel("an operator said so");
        assert_eq!(house.run("sleep 1000").0, HookResult::Cancelled("an operator said so".into()));
    }

    #[test]
    fn a_hook_runs_in_the_release_and_writes_for_the_group() {
        let house = House::new();
        assert_eq!(house.text("pwd; umask; echo x > made; cat"), format!("{}\n0002\n", house.path().display()));
        let mode = fs::metadata(house.path().join("made")).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o664);
    }

    #[test]
    fn local_binaries_are_found_in_spite_of_the_colons() {
        let house = House::new();
        house.write("vendor/bin/phpunit", "#!/bin/bash\necho php\n");
        house.write("node_modules/.bin/vite", "#!/bin/bash\necho vite\n");
        house.write("package.json", r#"{"scripts": {"build": "vite"}}"#);
        let make_runnable = "chmod +x vendor/bin/phpunit node_modules/.bin/vite; ";
        assert_eq!(house.text(&format!("{make_runnable} phpunit; vite")), "php\nvite\n");
        let npm = house.text("command -v npm >/dev/null || { echo vite; exit; }; HOME=$PWD npm run --silent build");
        assert_eq!(npm, "vite\n");
    }

    #[test]
    fn a_flood_is_bounded_and_the_rest_of_the_log_is_raw() {
        let house = House::new();
        let (result, output) = house.run(r"printf '\xff\x00'; head -c 31457280 /dev/zero; echo end");
        assert_eq!(result, HookResult::Fine);
        assert!(output.starts_with(b"\xff\x00\x00"));
        assert!(output.ends_with("\n[… output beyond 10 MiB is not kept]\n".as_bytes()));
        assert!((10 << 20..(10 << 20) + 100).contains(&output.len()), "{}", output.len());
    }
}
