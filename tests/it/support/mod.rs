//! What the stories are made of: a house with a site in it, an origin to push to, a daemon that serves, and the invariant
//! that is checked when a house goes.

mod daemon;
mod gate;
mod house;
mod origin;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use daemon::{Answer, Daemon, Delivery, github_signature, request};
pub use gate::Gate;
pub use house::{House, Ran, SECRET, Setup, check_site};
pub use origin::{Origin, git};

/// The binary under test: `tests/run.sh` runs a copy of it as another user.
pub fn landfall() -> PathBuf {
    std::env::var_os("LANDFALL_TEST_BIN").map_or_else(|| env!("CARGO_BIN_EXE_landfall").into(), PathBuf::from)
}

/// The sources, or the copy that another user can read.
pub fn source() -> PathBuf {
    std::env::var_os("LANDFALL_TEST_SOURCE").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Waits until something is so, at most a minute; `what` says what in the failure.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited a minute for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The names in a directory, sorted; none if it is not there.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// The mode of the entry itself, without what kind it is.
#[track_caller]
pub fn mode(path: &Path) -> u32 {
    let found = std::fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    found.permissions().mode() & 0o7777
}

/// Every process that was given this entry in its environment and lives.
pub fn processes_with(entry: &str) -> Vec<i32> {
    let carries = |pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
    };
    let pids = names(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    pids.filter(|pid| carries(*pid)).collect()
}
