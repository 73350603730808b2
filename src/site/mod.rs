//! The disk of one site.
//!
//! ```text
//! <root>/                                a site's root, e.g. /webroot                ours, 0755
//!   current -> <root>/release/<id>       replaced by one rename(2)                   current.rs
//!   release/                             ours, 0755: hooks cannot exchange a release
//!     <id>/                              a release: run_as:group, then owner:group   release.rs
//!     .trash-<id>/                       on its way out
//!   storage/                             made once, never emptied                    shared.rs
//! <state>/
//!   releases/<site>/<id>.json            the record that a release is complete       release.rs
//!   locks/<site>.lock                    who may work on the site                    lock.rs
//! ```
//!
//! A directory in `release/` without a record is not a release, whatever the database says. Absent: what to do in which
//! order (`engine`), what to keep (`domain`), and any path that is not drawn above.

pub mod current;
pub mod lock;
pub mod permissions;
pub mod release;
pub mod shared;

use std::io;
use std::path::{Path, PathBuf};

use crate::domain::name::SiteName;
use crate::domain::release_id::ReleaseId;
use crate::sys::fs;

/// Why the disk of a site did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// An operation on a path failed.
    #[error("cannot {operation} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
    /// Something is in the way that is not ours to remove.
    #[error("`{}` is {what}\nhelp: {help}", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What is there.
        what: String,
        /// How to mend it.
        help: String,
    },
    /// What was asked for would hurt the live site.
    #[error("release `{0}` is live")]
    Live(ReleaseId),
    /// What `current` should name is not there any more.
    #[error("release `{0}` is not there any more")]
    Gone(ReleaseId),
}

impl SiteError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

/// Whose the files of a site are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The owner of a finished release.
    pub owner: u32,
    /// The group of everything.
    pub group: u32,
    /// The user hooks run as, who owns a release while they do.
    pub run_as: u32,
    /// Whether owners are changed at all: a plain user cannot.
    pub change: bool,
}

impl Ownership {
    /// Gives a path to whom finished releases belong: the web server writes there, and hooks do by the group.
    fn give_to_site(&self, path: &Path) -> Result<(), SiteError> {
        if !self.change {
            return Ok(());
        }
        fs::set_owner(path, self.owner, self.group).map_err(SiteError::io("set the owner of", path))
    }
}

/// Where a site's files are.
#[derive(Debug, Clone)]
pub struct SiteDisk {
    root: PathBuf,
    state: PathBuf,
    site: SiteName,
}

impl SiteDisk {
    /// The disk of a site with this root, whose records are below the state directory.
    pub fn new(root: PathBuf, state: PathBuf, site: SiteName) -> Self {
        Self { root, state, site }
    }

    /// The site.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The link to the live release.
    pub fn current(&self) -> PathBuf {
        self.root.join(CURRENT)
    }

    /// The directory of all releases.
    pub fn releases(&self) -> PathBuf {
        self.root.join("release")
    }

    /// The directory of a release.
    pub fn release_path(&self, id: &ReleaseId) -> PathBuf {
        self.releases().join(id.as_str())
    }

    /// Persistent data.
    pub fn storage(&self) -> PathBuf {
        self.root.join("storage")
    }

    /// The release that a link text names, if it is one of this site's. An operator may have made the link relative.
    pub fn release_named_by(&self, text: &str) -> Option<ReleaseId> {
        let path = self.root.join(text);
        if path.parent() != Some(self.releases().as_path()) {
            return None;
        }
        ReleaseId::parse(path.file_name()?.to_str()?).ok()
    }

    fn records(&self) -> PathBuf {
        self.state.join("releases").join(self.site.as_str())
    }

    fn record_path(&self, id: &ReleaseId) -> PathBuf {
        self.records().join(format!("{id}.json"))
    }

    fn lock_path(&self) -> PathBuf {
        self.state.join("locks").join(format!("{}.lock", self.site))
    }

    /// Makes what is missing and refuses what cannot be made safe: a `current` that is no link, a root on another file
    /// system than its releases. Nothing is removed.
    pub fn prepare(&self, ownership: &Ownership) -> Result<(), SiteError> {
        self.make(&self.root, 0o755)?;
        self.make(&self.releases(), 0o755)?;
        self.refuse_foreign()?;
        if !self.storage().exists() {
            self.make(&self.storage(), DIRECTORY_MODE)?;
            ownership.give_to_site(&self.storage())?;
            fs::add_mode(&self.storage(), DIRECTORY_MODE).map_err(SiteError::io("set the mode of", &self.storage()))?;
        }
        Ok(())
    }

    /// Refuses what `prepare` refuses, without making anything.
    pub fn refuse_foreign(&self) -> Result<(), SiteError> {
        current::read(self)?;
        for path in [self.releases(), self.storage()] {
            self.refuse_link(&path)?;
        }
        self.refuse_other_file_system()
    }

    fn refuse_link(&self, path: &Path) -> Result<(), SiteError> {
        match fs::read_link(path).map_err(SiteError::io("look at", path))? {
            fs::LinkState::Absent | fs::LinkState::Foreign("a directory") => Ok(()),
            fs::LinkState::Link(_) if path == self.storage() => Ok(()),
            fs::LinkState::Link(text) => Err(SiteError::Foreign {
                path: path.to_owned(),
                what: format!("a link to `{text}`"),
                help: "make it a directory: releases and `current` have to be on one file system".into(),
            }),
            fs::LinkState::Foreign(what) => Err(SiteError::Foreign {
                path: path.to_owned(),
                what: what.into(),
                help: "move it away: Landfall needs a directory here".into(),
            }),
        }
    }

    fn refuse_other_file_system(&self) -> Result<(), SiteError> {
        let device = |path: &Path| fs::device_of(path).map_err(SiteError::io("look at", path));
        match (device(&self.root)?, device(&self.releases())?) {
            (Some(root), Some(releases)) if root != releases => Err(SiteError::Foreign {
                path: self.releases(),
                what: "on another file system than the root".into(),
                help: "mount the file system at the root instead: one sync has to cover both".into(),
            }),
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }

    fn make(&self, path: &Path, mode: u32) -> Result<(), SiteError> {
        fs::make_directory(path, mode).map_err(SiteError::io("make", path))
    }
}

const CURRENT: &str = "current";

/// Directories of a release and of the storage: the group may write, and what is made in them has their group.
const DIRECTORY_MODE: u32 = 0o2775;

#[cfg(test)]
mod support {
    use super::*;

    /// A site in a temporary directory, owned by whoever runs the test.
    #[derive(Debug)]
    pub(super) struct TestSite {
        pub(super) directory: tempfile::TempDir,
        pub(super) disk: SiteDisk,
        pub(super) ownership: Ownership,
    }

    impl TestSite {
        pub(super) fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let site = SiteName::parse("blog").expect("a name");
            let disk = SiteDisk::new(directory.path().join("root"), directory.path().join("state"), site);
            let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
            let ownership = Ownership { owner: uid, group: gid, run_as: uid, change: true };
            disk.prepare(&ownership).expect("a prepared site");
            Self { directory, disk, ownership }
        }

        pub(super) fn lock(&self) -> lock::SiteLock {
            lock::SiteLock::try_acquire(&self.disk).expect("a question").expect("the lock")
        }
    }
}
