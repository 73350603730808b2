//! What a release shares with the others: links into the site's storage, and the `.env` the operator keeps outside.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use crate::sys::{fs, tree};

use super::release::Staging;
use super::{DIRECTORY_MODE, Ownership, SiteDisk, SiteError};

/// Replaces each path of the release by a link to the same path in the site's storage. A missing one is made there as a
/// directory; what is there is never changed.
pub fn link_shared(
    staging: &Staging,
    disk: &SiteDisk,
    shared: &[String],
    ownership: &Ownership,
) -> Result<(), SiteError> {
    for path in shared {
        let target = disk.storage().join(path);
        make_target(disk, Path::new(path), ownership).map_err(SiteError::io("make", &target))?;
        place(staging.path(), Path::new(path), &target, ownership)
            .map_err(SiteError::io("link", &staging.path().join(path)))?;
    }
    Ok(())
}

/// Copies the operator's file to `.env`, in place of what the repository has there.
pub fn place_env(staging: &Staging, env_file: &Path, ownership: &Ownership) -> Result<(), SiteError> {
    let content = std::fs::read(env_file).map_err(SiteError::io("read", env_file))?;
    let path = staging.path().join(ENV);
    tree::remove(&path).map_err(SiteError::io("replace", &path))?;
    let owner = ownership.change.then_some((ownership.run_as, ownership.group));
    fs::write_atomic(&path, &content, ENV_MODE, owner).map_err(SiteError::io("write", &path))
}

/// Makes the directory in the storage, each new level like the storage itself; what is there stays, whatever it is.
fn make_target(disk: &SiteDisk, path: &Path, ownership: &Ownership) -> io::Result<()> {
    let names = names_of(path)?;
    let Some((last, parents)) = names.split_last() else { return Ok(()) };
    // The storage itself may be a link of the operator's; below it hooks can write, so no link is followed.
    let mut directory = nix::fcntl::open(&disk.storage(), STORAGE, Mode::empty())?;
    for name in parents {
        directory = descend(&directory, name, ownership, ownership.owner)?;
    }
    match nix::sys::stat::fstatat(&directory, last.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(()),
        Err(Errno::ENOENT) => descend(&directory, last, ownership, ownership.owner).map(drop),
        Err(error) => Err(error.into()),
    }
}

/// Goes down component by component and never through a link: a repository could have one that leads out of the tree.
fn place(release: &Path, path: &Path, target: &Path, ownership: &Ownership) -> io::Result<()> {
    let names = names_of(path)?;
    let Some((last, parents)) = names.split_last() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is empty"));
    };
    let mut directory = nix::fcntl::open(release, DIRECTORY, Mode::empty())?;
    for name in parents {
        directory = descend(&directory, name, ownership, ownership.run_as)?;
    }
    tree::remove_at(&directory, last)?;
    nix::unistd::symlinkat(target, &directory, last.as_c_str())?;
    if ownership.change {
        let (uid, gid) = (Uid::from_raw(ownership.run_as), Gid::from_raw(ownership.group));
        nix::unistd::fchownat(&directory, last.as_c_str(), Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn names_of(path: &Path) -> io::Result<Vec<CString>> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Ok(CString::new(name.as_bytes())?),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a plain relative path"))
        }
    };
    path.components().map(name).collect()
}

/// Opens the directory of this name. A missing one is made for this user, and given away by its descriptor: whatever has
/// taken its name meanwhile is not touched.
fn descend(directory: &OwnedFd, name: &CStr, ownership: &Ownership, owner: u32) -> io::Result<OwnedFd> {
    let is_new = match nix::sys::stat::mkdirat(directory, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let opened = nix::fcntl::openat(directory, name, DIRECTORY, Mode::empty()).map_err(|error| match error {
        Errno::ELOOP | Errno::ENOTDIR => {
            io::Error::other(format!("`{}` on the way is a link or a file", name.to_string_lossy()))
        }
        other => other.into(),
    })?;
    if is_new {
        if ownership.change {
            let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(ownership.group));
            nix::unistd::fchown(&opened, Some(uid), Some(gid))?;
        }
        nix::sys::stat::fchmod(&opened, Mode::from_bits_truncate(DIRECTORY_MODE))?;
    }
    Ok(opened)
}

/// The name of the environment file in a release.
pub(super) const ENV: &str = ".env";

/// Secrets: the web server's group may read them, others may not.
pub(super) const ENV_MODE: u32 = 0o640;

const STORAGE: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use chrono::Utc;

    use super::super::release;
    use super::super::support::TestSite;
    use super::*;
    use crate::domain::release_id::ReleaseStyle;
    use crate::domain::revision::Revision;

    fn staged(site: &TestSite) -> Staging {
        let lock = site.lock();
        let commit = Revision::parse(&"1a2b3c4d5e".repeat(4)).expect("a commit id");
        let id = release::choose_id(&site.disk, None, Utc::now(), &commit, ReleaseStyle::Timestamp).expect("a name");
        release::stage(&lock, &site.disk, &id, &site.ownership).expect("a staging")
    }

    #[test]
    fn whatever_the_repository_has_there_gives_way_to_the_link() {
        let site = TestSite::new();
        let staging = staged(&site);
        std::fs::create_dir_all(staging.path().join("storage/app/deep")).expect("a directory");
        std::fs::write(staging.path().join("storage/app/deep/file"), "x").expect("a file");
        std::fs::write(staging.path().join("uploads"), "x").expect("a file");
        symlink("/etc", staging.path().join("cache")).expect("a link");
        let shared = ["storage/app", "uploads", "cache", "new/sub/dir"].map(String::from);
        link_shared(&staging, &site.disk, &shared, &site.ownership).expect("links");
        for path in &shared {
            let target = std::fs::read_link(staging.path().join(path)).expect("a link");
            assert_eq!(target, site.disk.storage().join(path));
            assert!(target.is_dir(), "{path}");
        }
    }

    #[test]
    fn a_file_in_the_storage_is_shared_as_it_is() {
        let site = TestSite::new();
        let staging = staged(&site);
        std::fs::write(site.disk.storage().join("db.sqlite"), "precious").expect("a file");
        link_shared(&staging, &site.disk, &["db.sqlite".into()], &site.ownership).expect("links");
        assert_eq!(std::fs::read(staging.path().join("db.sqlite")).expect("through the link"), b"precious");
    }

    #[test]
    fn a_link_on_the_way_is_refused_and_nothing_outside_is_touched() {
        let site = TestSite::new();
        let staging = staged(&site);
        let outside = site.directory.path().join("outside");
        std::fs::create_dir_all(outside.join("app")).expect("a directory");
        symlink(&outside, staging.path().join("storage")).expect("a link");
        let refused = link_shared(&staging, &site.disk, &["storage/app".into()], &site.ownership);
        assert!(refused.is_err_and(|error| error.to_string().contains("is a link or a file")));
        assert!(outside.join("app").is_dir());
    }

    #[test]
    fn a_link_in_the_storage_is_refused_and_nothing_behind_it_is_touched() {
        let site = TestSite::new();
        let staging = staged(&site);
        let victim = site.directory.path().join("victim");
        std::fs::create_dir(&victim).expect("a directory");
        std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o700)).expect("a mode");
        symlink(&victim, site.disk.storage().join("app")).expect("a link");
        let refused = link_shared(&staging, &site.disk, &["app/cache".into()], &site.ownership);
        assert!(refused.is_err_and(|error| error.to_string().contains("is a link or a file")));
        assert_eq!(std::fs::read_dir(&victim).expect("a directory").count(), 0);
        link_shared(&staging, &site.disk, &["app".into()], &site.ownership).expect("the last one may be anything");
        let mode = std::fs::metadata(&victim).expect("a directory").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }

    #[test]
    fn the_env_file_replaces_the_repositorys_and_is_nobody_elses() {
        let site = TestSite::new();
        let staging = staged(&site);
        let (kept, outside) = (site.directory.path().join("env"), site.directory.path().join("outside"));
        std::fs::write(&kept, "A=1").expect("a file");
        std::fs::write(&outside, "victim").expect("a file");
        symlink(&outside, staging.path().join(".env")).expect("a link");
        place_env(&staging, &kept, &site.ownership).expect("a copy");
        let placed = staging.path().join(".env");
        let found = std::fs::symlink_metadata(&placed).expect("a file");
        assert_eq!((found.is_file(), found.permissions().mode() & 0o7777), (true, 0o640));
        assert_eq!(std::fs::read(placed).expect("a file"), b"A=1");
        assert_eq!(std::fs::read(outside).expect("a file"), b"victim");
    }
}
