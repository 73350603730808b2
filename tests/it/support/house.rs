//! A house: a temporary directory with an origin, a configuration, a state directory and the root of a site.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::{Daemon, Gate, Origin, landfall, names, processes_with, wait_for};

/// The webhook secret of the repository `blog` of every house.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef-blog";

/// What a house is built with.
#[derive(Debug, Default)]
pub struct Setup<'a> {
    /// Lines for the top of the file, before any table.
    pub top: &'a str,
    /// Lines for `[server]`.
    pub server: &'a str,
    /// Lines for `[repositories.blog]`, in place of `url` and `forge`.
    pub repository: &'a str,
    /// Lines for `[sites.blog]`.
    pub site: &'a str,
    /// More tables for the end of the file. `{house}` is the house's directory.
    pub more: &'a str,
}

/// One site, `blog`, of one repository, `blog` (`acme/blog` on GitHub).
#[derive(Debug)]
pub struct House {
    pub directory: TempDir,
    pub origin: Origin,
    pub root: PathBuf,
    pub state: PathBuf,
    pub config: PathBuf,
    /// Whether the invariant is left alone when the house goes.
    unclean: bool,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks the exit code, and shows everything if it is another one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// A deployment that runs while the test looks. When the story fails it is asked to end, and takes its hook with it.
#[derive(Debug)]
pub struct Deploying(Child);

impl Deploying {
    /// Lets a hook go on that waits for `go` in the storage, and waits for a good end.
    pub fn go_on(mut self, house: &House) {
        std::fs::write(house.storage().join("go"), "").expect("a file");
        assert!(self.0.wait().expect("an end").success());
    }
}

impl Drop for Deploying {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"));
            kill(pid, Signal::SIGTERM).expect("a signal");
            self.0.wait().expect("an end");
        }
    }
}

impl House {
    pub fn new() -> Self {
        Self::with(&Setup::default())
    }

    pub fn with(setup: &Setup<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // Hooks of other users have to get to their release.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let path = directory.path().canonicalize().expect("a path");
        let house = Self {
            origin: Origin::new(&path, "origin"),
            root: path.join("root"),
            state: path.join("state"),
            config: path.join("deploy.toml"),
            unclean: false,
            directory,
        };
        house.write_secret("secret", SECRET);
        house.configure(setup);
        house
    }

    /// Writes the configuration anew.
    pub fn configure(&self, setup: &Setup<'_>) {
        let Setup { top, server, repository, site, more } = setup;
        let path = self.path();
        let url = format!("url = \"{}\"\nforge = \"github\"", self.origin.bare.display());
        let repository = if repository.is_empty() { &url } else { *repository };
        let mut text = String::new();
        // What is pushed is deployed when the story says so.
        if !top.contains("reconcile = ") {
            text += "reconcile = \"0s\"\n";
        }
        writeln!(text, "state_dir = \"{}\"\n{top}\n[server]\nlisten = \"127.0.0.1:0\"\n{server}", self.state.display())
            .expect("a text");
        writeln!(text, "[repositories.blog]\nrepository = \"acme/blog\"\n{repository}").expect("a text");
        writeln!(text, "secret = {{ file = \"{}\" }}", path.join("secret").display()).expect("a text");
        writeln!(text, "[sites.blog]\nrepository = \"blog\"\nroot = \"{}\"", self.root.display()).expect("a text");
        if !site.contains("branch = ") {
            text += "branch = \"main\"\n";
        }
        writeln!(text, "{site}\n{more}").expect("a text");
        std::fs::write(&self.config, text.replace("{house}", &path.to_string_lossy())).expect("a configuration");
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().canonicalize().expect("a path")
    }

    /// Closes a gate that hooks of this house can wait at.
    pub fn gate(&self, name: &str) -> Gate {
        Gate::new(&self.path(), name)
    }

    /// A file that nobody else can read.
    pub fn write_secret(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("a secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(landfall());
        command.arg("--config").arg(&self.config).args(args).stdin(Stdio::null());
        // Nothing of the machine's, and nothing of the test runner's.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.path());
        command
    }

    pub fn landfall(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().expect("the binary");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    pub fn deploy(&self) -> Ran {
        self.landfall(&["deploy", "blog"])
    }

    /// Begins a deployment, to look at while it runs.
    pub fn start_deploying(&self) -> Deploying {
        let mut command = self.command(&["deploy", "blog"]);
        Deploying(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary"))
    }

    pub fn serve(&self) -> Daemon {
        Daemon::start(self.command(&["serve"]))
    }

    /// The text of `current`; none if there is no link.
    pub fn current(&self) -> Option<String> {
        std::fs::read_link(self.root.join("current")).ok().map(|text| text.to_string_lossy().into_owned())
    }

    /// A file of the live release.
    #[track_caller]
    pub fn live(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join("current").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn releases(&self) -> Vec<String> {
        names(&self.root.join("release"))
    }

    /// All deployments, newest first.
    pub fn deployments(&self) -> Vec<Value> {
        let listed = self.landfall(&["deployments", "--json", "--limit", "10000"]).expect(0).json();
        listed.as_array().expect("a list").clone()
    }

    pub fn deployment(&self, id: i64) -> Value {
        let found = self.deployments().into_iter().find(|found| found["id"] == id);
        found.unwrap_or_else(|| panic!("no deployment {id}"))
    }

    /// The states of all deployments, oldest first.
    pub fn states(&self) -> Vec<String> {
        self.deployments().iter().rev().map(|found| found["state"].as_str().expect("a state").to_owned()).collect()
    }

    /// Waits until a deployment has ended; gives it back.
    pub fn wait_for_end(&self, id: i64) -> Value {
        wait_for(&format!("the end of deployment {id}"), || {
            let found = self.deployment(id);
            let is_over = !matches!(found["state"].as_str(), Some("queued" | "running"));
            is_over.then_some(found)
        })
    }

    /// Waits until nothing waits or runs.
    pub fn wait_for_quiet(&self) {
        wait_for("an empty queue", || {
            let busy = self.states().iter().any(|state| matches!(state.as_str(), "queued" | "running"));
            (!busy).then_some(())
        });
    }

    /// The whole log of a deployment.
    pub fn log(&self, id: i64) -> String {
        self.landfall(&["log", &id.to_string()]).expect(0).stdout
    }

    /// Reads a file of the house's own directory, such as one that a hook wrote.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    /// The site's persistent directory, where hooks of any user can write.
    pub fn storage(&self) -> PathBuf {
        self.root.join("storage")
    }

    /// A file that hooks wrote into the site's storage; empty if none did.
    pub fn stored(&self, name: &str) -> String {
        std::fs::read_to_string(self.storage().join(name)).unwrap_or_default()
    }

    /// The lines that hooks wrote into `notes` in the site's storage.
    pub fn notes(&self) -> Vec<String> {
        self.stored("notes").lines().map(str::to_owned).collect()
    }

    /// For a story that ends with a mess on purpose.
    pub fn leave_unclean(&mut self) {
        self.unclean = true;
    }

    /// What has to be true whenever nothing of a site runs.
    #[track_caller]
    pub fn check(&self) {
        check_site(&self.root, &self.state, "blog");
        if self.state.join("landfall.db").exists() {
            let running = self.states().iter().filter(|state| *state == "running").count();
            assert_eq!(running, 0, "something counts as running");
        }
    }
}

/// `current` is absent or names a complete release; no release without its record, no record without its release; no
/// stray link; no process of a hook.
#[track_caller]
pub fn check_site(root: &Path, state: &Path, site: &str) {
    let records: Vec<_> = names(&state.join("releases").join(site));
    let releases = names(&root.join("release"));
    let marked: Vec<_> = records.iter().map(|name| name.trim_end_matches(".json").to_owned()).collect();
    assert_eq!(releases, marked, "releases and their records");
    let current = root.join("current");
    if current.symlink_metadata().is_ok() {
        let target = std::fs::read_link(&current).expect("a link");
        assert_eq!(target.parent(), Some(root.join("release").as_path()), "current is absolute and names a release");
        let name = target.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        assert!(marked.contains(&name), "current names a complete release: {name}");
    }
    let known = ["current", "release", "storage"];
    let strange: Vec<_> = names(root).into_iter().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(strange.is_empty(), "stray files in the root: {strange:?}");
    let left = processes_with(&cookie(root));
    assert!(left.is_empty(), "processes of hooks live: {left:?}");
}

/// What every hook of the site is given.
fn cookie(root: &Path) -> String {
    format!("CURRENT_PATH={}", root.join("current").display())
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The story failed, maybe with a hook that waits for ever: nobody else would end it.
            for pid in processes_with(&cookie(&self.root)) {
                if kill(Pid::from_raw(pid), Signal::SIGKILL).is_err() {
                    // It is gone by now.
                }
            }
        } else if !self.unclean {
            self.check();
        }
    }
}
