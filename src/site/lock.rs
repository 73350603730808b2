//! Who may work on a site: one at a time, over all processes of the machine.

use crate::domain::name::SiteName;
use crate::sys::fs::{self, LockFile};

use super::{SiteDisk, SiteError};

/// The proof that nobody else works on the site. Only its holder can make a release, flip or discard. The kernel takes it
/// away with the process, so that a crash leaves no stale lock.
#[derive(Debug)]
#[must_use = "dropping it lets go of the lock"]
pub struct SiteLock {
    site: SiteName,
    _file: LockFile,
}

impl SiteLock {
    /// Takes the lock, or gives back none if somebody else works on the site.
    pub fn try_acquire(disk: &SiteDisk) -> Result<Option<Self>, SiteError> {
        let path = disk.lock_path();
        if let Some(parent) = path.parent() {
            fs::make_directory(parent, 0o700).map_err(SiteError::io("make", parent))?;
        }
        let file = LockFile::try_acquire(&path).map_err(SiteError::io("lock", &path))?;
        Ok(file.map(|file| Self { site: disk.site().clone(), _file: file }))
    }

    /// The site.
    pub fn site(&self) -> &SiteName {
        &self.site
    }
}
