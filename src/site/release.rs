//! Releases: a directory, and outside of it the record that it is complete.

use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::deployment::DeploymentId;
use crate::domain::release_id::{ReleaseId, ReleaseStyle};
use crate::domain::revision::Revision;
use crate::sys::{fs, tree};

use super::lock::SiteLock;
use super::{DIRECTORY_MODE, Ownership, SiteDisk, SiteError, current};

/// A release being made: nobody may serve it.
#[derive(Debug)]
pub struct Staging {
    id: ReleaseId,
    path: PathBuf,
    record: PathBuf,
}

/// A complete release: its files are synced, and its record says so. Only `seal` and `open` make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    id: ReleaseId,
    path: PathBuf,
    record: Record,
}

/// What is kept of a complete release, as `<state>/releases/<site>/<id>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    release: ReleaseId,
    commit: Revision,
    deployment: DeploymentId,
    sealed_at: DateTime<Utc>,
}

impl Staging {
    /// The release's name.
    pub fn id(&self) -> &ReleaseId {
        &self.id
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the release, then records that it is complete. A failed sync is final: the kernel may have dropped the data
    /// and would report success the next time, so these files must never be used.
    pub fn seal(
        self,
        lock: &SiteLock,
        commit: &Revision,
        deployment: DeploymentId,
        now: DateTime<Utc>,
    ) -> Result<Release, SiteError> {
        log::debug!("seals {} site={}", self.id, lock.site());
        fs::sync_file_system(&self.path).map_err(SiteError::io("sync", &self.path))?;
        let record = Record { release: self.id.clone(), commit: commit.clone(), deployment, sealed_at: now };
        if let Some(parent) = self.record.parent() {
            fs::make_directory(parent, 0o700).map_err(SiteError::io("make", parent))?;
        }
        let text = serde_json::to_vec(&record).map_err(io::Error::from);
        text.and_then(|text| fs::write_atomic(&self.record, &text, 0o600, None))
            .map_err(SiteError::io("write", &self.record))?;
        Ok(Release { id: self.id, path: self.path, record })
    }
}

impl Release {
    /// Finds a release by its name; none without its record or its directory.
    pub fn open(disk: &SiteDisk, id: &ReleaseId) -> Result<Option<Self>, SiteError> {
        let (path, record_path) = (disk.release_path(id), disk.record_path(id));
        let text = match std::fs::read(&record_path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SiteError::io("read", &record_path)(error)),
        };
        let record = serde_json::from_slice(&text)
            .map_err(|error| SiteError::io("understand", &record_path)(io::Error::from(error)))?;
        let is_directory = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        Ok(is_directory.then(|| Self { id: id.clone(), path, record }))
    }

    /// Its name.
    pub fn id(&self) -> &ReleaseId {
        &self.id
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The commit it was made from.
    pub fn commit(&self) -> &Revision {
        &self.record.commit
    }

    /// The deployment that made it.
    pub fn deployment(&self) -> DeploymentId {
        self.record.deployment
    }

    /// When it was complete.
    pub fn sealed_at(&self) -> DateTime<Utc> {
        self.record.sealed_at
    }
}

/// Names a new release: newer than `newest_known` and than everything on disk, also when the clock stepped back.
pub fn choose_id(
    disk: &SiteDisk,
    newest_known: Option<&ReleaseId>,
    now: DateTime<Utc>,
    commit: &Revision,
    style: ReleaseStyle,
) -> Result<ReleaseId, SiteError> {
    let on_disk = directories(disk)?.into_iter().max();
    let newest = on_disk.as_ref().max(newest_known);
    Ok(ReleaseId::after(newest, now, commit, style))
}

/// Makes the directory of a new release; that it is new, mkdir(2) decides. It belongs to the hooks' user from the start.
pub fn stage(lock: &SiteLock, disk: &SiteDisk, id: &ReleaseId, ownership: &Ownership) -> Result<Staging, SiteError> {
    debug_assert_eq!(lock.site(), disk.site(), "the lock of another site");
    let path = disk.release_path(id);
    let owner = ownership.change.then_some((ownership.run_as, ownership.group));
    fs::create_directory(&path, DIRECTORY_MODE, owner).map_err(SiteError::io("make", &path))?;
    Ok(Staging { id: id.clone(), record: disk.record_path(id), path })
}

/// The complete releases, newest first.
pub fn list(disk: &SiteDisk) -> Result<Vec<Release>, SiteError> {
    let mut releases = Vec::new();
    for id in directories(disk)? {
        releases.extend(Release::open(disk, &id)?);
    }
    releases.sort_by(|left, right| right.id.cmp(&left.id));
    Ok(releases)
}

/// Removes a release, never the live one: it is moved aside, its record is removed, and then it is emptied. An absent one is
/// fine. Survives a power cut when it returns; what cannot be emptied is no release any more, and is tried again at the next
/// [`clean_up`].
pub fn discard(lock: &SiteLock, disk: &SiteDisk, id: &ReleaseId) -> Result<(), SiteError> {
    debug_assert_eq!(lock.site(), disk.site(), "the lock of another site");
    if current::live(disk)?.as_ref() == Some(id) {
        return Err(SiteError::Live(id.clone()));
    }
    let (path, aside) = (disk.release_path(id), disk.releases().join(format!("{TRASH}{id}")));
    match std::fs::rename(&path, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(SiteError::io("move aside", &path)(error)),
        Ok(()) | Err(_) => {}
    }
    sync(&disk.releases())?;
    let record = disk.record_path(id);
    fs::remove_file(&record).map_err(SiteError::io("remove", &record))?;
    sync(&disk.records())?;
    empty_trash(disk)
}

/// Of a directory that is not there nothing can be lost.
fn sync(directory: &Path) -> Result<(), SiteError> {
    match fs::sync_directory(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SiteError::io("sync", directory)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes what a process that was killed has left half-done: links beside `current`, releases on their way out, records
/// whose release is gone.
pub fn clean_up(lock: &SiteLock, disk: &SiteDisk) -> Result<(), SiteError> {
    debug_assert_eq!(lock.site(), disk.site(), "the lock of another site");
    current::clean_up(disk)?;
    empty_trash(disk)?;
    let records = disk.records();
    for name in names_in(&records)? {
        let is_used = name.strip_suffix(".json").and_then(|id| ReleaseId::parse(id).ok());
        if is_used.is_none_or(|id| !disk.release_path(&id).is_dir()) {
            let path = records.join(name);
            fs::remove_file(&path).map_err(SiteError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Somebody else's file in it, which we may not delete, must fail no deployment.
fn empty_trash(disk: &SiteDisk) -> Result<(), SiteError> {
    for name in names_in(&disk.releases())? {
        if name.strip_prefix(TRASH).is_some_and(|id| ReleaseId::parse(id).is_ok()) {
            let path = disk.releases().join(name);
            if let Err(error) = tree::remove(&path) {
                log::warn!("cannot remove `{}`: {error} site={}", path.display(), disk.site());
            }
        }
    }
    Ok(())
}

fn directories(disk: &SiteDisk) -> Result<Vec<ReleaseId>, SiteError> {
    Ok(names_in(&disk.releases())?.iter().filter_map(|name| ReleaseId::parse(name).ok()).collect())
}

/// The names in a directory; none if it is not there yet.
fn names_in(path: &Path) -> Result<Vec<String>, SiteError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SiteError::io("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(SiteError::io("list", path))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// A release on its way out: no web server is pointed at it, and no name of a release begins with a dot.
const TRASH: &str = ".trash-";

#[cfg(test)]
pub(super) mod tests {
    use super::super::support::TestSite;
    use super::*;

    fn commit() -> Revision {
        Revision::parse(&"1a2b3c4d5e".repeat(4)).expect("a commit id")
    }

    fn staged(site: &TestSite, lock: &SiteLock) -> Staging {
        let id = choose_id(&site.disk, None, Utc::now(), &commit(), ReleaseStyle::Timestamp).expect("a name");
        stage(lock, &site.disk, &id, &site.ownership).expect("a staging")
    }

    /// A complete release with one file.
    pub(in super::super) fn sealed(site: &TestSite, lock: &SiteLock) -> Release {
        let staging = staged(site, lock);
        std::fs::write(staging.path().join("index.html"), staging.id().as_str()).expect("a file");
        staging.seal(lock, &commit(), DeploymentId(1), Utc::now()).expect("a release")
    }

    #[test]
    fn a_release_is_complete_only_with_its_record() {
        let site = TestSite::new();
        let lock = site.lock();
        let staging = staged(&site, &lock);
        let id = staging.id().clone();
        assert_eq!(Release::open(&site.disk, &id).expect("a look"), None);
        assert!(stage(&lock, &site.disk, &id, &site.ownership).is_err(), "mkdir decides");
        let release = staging.seal(&lock, &commit(), DeploymentId(7), Utc::now()).expect("a release");
        assert_eq!(Release::open(&site.disk, &id).expect("a look"), Some(release));
    }

    #[test]
    fn names_only_grow_also_when_the_clock_steps_back() {
        let site = TestSite::new();
        let lock = site.lock();
        let first = staged(&site, &lock);
        let hour_ago = Utc::now() - chrono::TimeDelta::hours(1);
        let next = choose_id(&site.disk, None, hour_ago, &commit(), ReleaseStyle::Compact).expect("a name");
        assert!(next > *first.id());
        let after_all =
            choose_id(&site.disk, Some(&next), hour_ago, &commit(), ReleaseStyle::Timestamp).expect("a name");
        assert!(after_all > next);
    }

    #[test]
    fn the_live_release_is_not_discarded_and_others_go_whole() {
        let site = TestSite::new();
        let lock = site.lock();
        let (one, two) = (sealed(&site, &lock), sealed(&site, &lock));
        let _flip = current::flip(&lock, &site.disk, &two).expect("a flip");
        assert!(matches!(discard(&lock, &site.disk, two.id()), Err(SiteError::Live(_))));
        for _ in 0..2 {
            discard(&lock, &site.disk, one.id()).expect("a removal");
        }
        assert_eq!(list(&site.disk).expect("a list"), [two]);
        assert!(!one.path().exists());
    }

    #[test]
    fn what_a_killed_process_left_is_cleaned_up_and_nothing_else() {
        let site = TestSite::new();
        let lock = site.lock();
        let (one, two) = (sealed(&site, &lock), sealed(&site, &lock));
        let half_made = staged(&site, &lock);
        let aside = site.disk.releases().join(format!("{TRASH}{}", one.id()));
        std::fs::rename(one.path(), &aside).expect("half a discard");
        std::os::unix::fs::symlink("/x", site.disk.root().join(".current.1-2-3")).expect("half a flip");
        std::fs::write(site.disk.records().join(".x.json.1-2-3"), "{").expect("half a record");
        clean_up(&lock, &site.disk).expect("a clean-up");
        assert!(!aside.exists() && !site.disk.record_path(one.id()).exists());
        assert_eq!(names_in(&site.disk.records()).expect("records"), [format!("{}.json", two.id())]);
        assert!(site.disk.root().join(".current.1-2-3").symlink_metadata().is_err());
        assert_eq!(list(&site.disk).expect("a list"), [two]);
        assert!(half_made.path().is_dir(), "what the journal knows is the journal's to take back");
    }
}
