//! The demo's world: a bare repository and its work tree, a secret, a configuration, all in one temporary directory.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::cli::forge::{self, ServerAnswer};
use crate::cli::{CliError, load, now};
use crate::config::Config;
use crate::domain::forge::Forge;
use crate::domain::push::RefName;
use crate::domain::revision::Revision;
use crate::domain::secret::Secret;
use crate::webhook::{TestKind, TestMessage, compose};

/// That the demo's own directory or git could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot set the demo's stage: {0}")]
pub(in crate::cli) struct StageError(#[from] io::Error);

/// Removed with everything in it when it goes.
pub(super) struct Stage {
    directory: TempDir,
    secret: Secret,
}

impl Stage {
    /// Makes the repository, the hooks and the configuration.
    pub(super) fn set() -> Result<Self, StageError> {
        let directory = tempfile::Builder::new().prefix("landfall-demo-").tempdir()?;
        let secret = hex::encode(random()?);
        let stage = Self { directory, secret: Secret::new(secret.clone().into_bytes()) };
        let file = stage.path().join("secret");
        fs::write(&file, secret)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        fs::write(stage.config_path(), stage.configuration())?;
        fs::create_dir_all(stage.work().join(".landfall"))?;
        for (name, text) in HOOKS {
            fs::write(stage.work().join(".landfall").join(name), text)?;
        }
        git(stage.path(), &["init", "--quiet", "--bare", "--initial-branch=main", &stage.origin().to_string_lossy()])?;
        git(&stage.work(), &["init", "--quiet", "--initial-branch=main"])?;
        Ok(stage)
    }

    /// The story tells what a webhook leads to: nothing else may deploy what it pushes.
    fn configuration(&self) -> String {
        let here = self.path().display();
        format!(
            "state_dir = \"{here}/state\"\nreconcile = \"0s\"\n\n[server]\nlisten = \"{ANY_PORT}\"\n\n\
             [repositories.blog]\nurl = \"{here}/blog.git\"\nrepository = \"{IDENTITY}\"\nforge = \"github\"\n\
             secret = {{ file = \"{here}/secret\" }}\n\n\
             [sites.{SITE}]\nrepository = \"blog\"\nbranch = \"main\"\nroot = \"{here}/webroot\"\n"
        )
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn work(&self) -> PathBuf {
        self.path().join("work")
    }

    pub(super) fn origin(&self) -> PathBuf {
        self.path().join("blog.git")
    }

    pub(super) fn root(&self) -> PathBuf {
        self.path().join("webroot")
    }

    pub(super) fn config_path(&self) -> PathBuf {
        self.path().join("deploy.toml")
    }

    /// Writes down where the service listens, for commands from another terminal.
    pub(super) fn listens_at(&self, url: &str) -> Result<(), StageError> {
        let text = self.configuration().replace(ANY_PORT, url.trim_start_matches("http://"));
        Ok(fs::write(self.config_path(), text)?)
    }

    /// As the service reads it.
    pub(super) fn config(&self) -> Result<Config, CliError> {
        load(&self.config_path())
    }

    /// Commits a version of the page and pushes it; gives back the commit.
    pub(super) fn push_version(&self, version: &str) -> Result<String, StageError> {
        let page = format!("<!doctype html>\n<title>blog</title>\n<p>This is version {version}.</p>\n");
        fs::write(self.work().join("index.html"), page)?;
        self.push()
    }

    /// The same with a mistake that only the hook finds.
    pub(super) fn push_broken_version(&self) -> Result<String, StageError> {
        fs::write(self.work().join("index.html"), "<p>This page is broken\n")?;
        self.push()
    }

    fn push(&self) -> Result<String, StageError> {
        git(&self.work(), &["add", "--all"])?;
        git(&self.work(), &["commit", "--quiet", "--message", "a change"])?;
        git(&self.work(), &["push", "--quiet", &self.origin().to_string_lossy(), "HEAD:refs/heads/main"])?;
        Ok(git(&self.work(), &["rev-parse", "HEAD"])?)
    }

    /// Sends the webhook that GitHub would send for this push.
    pub(super) fn send(&self, server: &str, key: &str, commit: &str) -> Result<ServerAnswer, CliError> {
        let untrue = |error: &dyn std::fmt::Display| CliError::Untrue(error.to_string());
        let ref_name = RefName::of_branch("main").map_err(|error| untrue(&error))?;
        let after = Revision::parse(commit).map_err(|error| untrue(&error))?;
        let kind = TestKind::Push { ref_name: &ref_name, before: None, after: &after };
        let request = compose(Forge::Github, &self.secret, &TestMessage { key, repository: IDENTITY, kind }, now())?;
        forge::send(&format!("{server}/hooks/blog"), request)
    }

    /// The text of the link.
    pub(super) fn current(&self) -> Result<PathBuf, StageError> {
        Ok(fs::read_link(self.root().join("current"))?)
    }

    /// What a visitor sees.
    pub(super) fn page(&self) -> Result<String, StageError> {
        Ok(fs::read_to_string(self.root().join("current/index.html"))?)
    }

    /// Whether the live release has what its hook makes.
    pub(super) fn is_built(&self) -> Result<bool, StageError> {
        Ok(self.root().join("current/built.txt").try_exists()?)
    }

    pub(super) fn releases(&self) -> Result<Vec<PathBuf>, StageError> {
        let paths: io::Result<_> = fs::read_dir(self.root().join("release"))?.map(|entry| Ok(entry?.path())).collect();
        Ok(paths?)
    }

    /// What `deploy.failure` has written, a line for each run.
    pub(super) fn failures(&self) -> Result<String, StageError> {
        Ok(fs::read_to_string(self.root().join("storage/failures.txt"))?)
    }
}

/// Git with nothing of this machine's configuration.
fn git(directory: &Path, args: &[&str]) -> io::Result<String> {
    let ran = Command::new("git")
        .args(args)
        .current_dir(directory)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
        .envs([("GIT_AUTHOR_NAME", "demo"), ("GIT_AUTHOR_EMAIL", "demo@example.com")])
        .envs([("GIT_COMMITTER_NAME", "demo"), ("GIT_COMMITTER_EMAIL", "demo@example.com")])
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run git, which the demo needs: {error}")))?;
    if !ran.status.success() {
        let text = String::from_utf8_lossy(&ran.stderr);
        return Err(io::Error::other(format!("git {}: {}", args.join(" "), text.trim_end())));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).trim_end().to_owned())
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(super) const SITE: &str = "production";

const ANY_PORT: &str = "127.0.0.1:0";

const IDENTITY: &str = "acme/blog";

/// The repository's own hooks: a build, a check that the broken version does not pass, and a note of each failure.
const HOOKS: [(&str, &str); 4] = [
    ("after.pull", "set -e\necho \"builds $RELEASE_ID\"\necho \"built from $COMMIT_ID\" > built.txt\n"),
    ("before.deploy", "grep -q '</p>' index.html || { echo 'index.html: <p> is not closed'; exit 1; }\n"),
    ("after.deploy", "echo \"live: $(readlink \"$CURRENT_PATH\")\"\n"),
    ("deploy.failure", "echo \"$COMMIT_ID failed\" >> \"$STORAGE_DIRECTORY/failures.txt\"\n"),
];
