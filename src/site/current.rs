//! The link to the live release. Nothing else touches it.

use std::path::Path;

use crate::domain::release_id::ReleaseId;
use crate::domain::revision::Revision;
use crate::sys::fs::{self, LinkState};

use super::lock::SiteLock;
use super::release::Release;
use super::{CURRENT, SiteDisk, SiteError};

/// That `current` was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a flip has consequences"]
pub struct Flip {
    /// The text of the link before; none if there was none.
    pub from: Option<String>,
    /// The release that is live now.
    pub to: ReleaseId,
}

/// The text of the link; none if there is none. Anything but a link is an error, and stays.
pub fn read(disk: &SiteDisk) -> Result<Option<String>, SiteError> {
    let path = disk.current();
    match fs::read_link(&path).map_err(SiteError::io("read", &path))? {
        LinkState::Absent => Ok(None),
        LinkState::Link(text) => Ok(Some(text)),
        LinkState::Foreign(what) => Err(SiteError::Foreign {
            help: format!(
                "move it away (`mv {0} {0}.before`): Landfall puts a link here and deletes nothing",
                path.display()
            ),
            what: what.into(),
            path,
        }),
    }
}

/// The release that is live, if the link names one of ours.
pub fn live(disk: &SiteDisk) -> Result<Option<ReleaseId>, SiteError> {
    Ok(read(disk)?.and_then(|text| disk.release_named_by(&text)))
}

/// The commit of the live release. A disk that cannot be read has nothing live: the deployment will say.
pub fn live_commit(disk: &SiteDisk) -> Option<Revision> {
    let live = live(disk).ok().flatten()?;
    Some(Release::open(disk, &live).ok().flatten()?.commit().clone())
}

/// Makes a release live, by one rename: a visitor sees the old one or the new one. Survives a power cut when it returns.
pub fn flip(lock: &SiteLock, disk: &SiteDisk, release: &Release) -> Result<Flip, SiteError> {
    let from = read(disk)?;
    point_at(lock, disk, &release.path().to_string_lossy())?;
    Ok(Flip { from, to: release.id().clone() })
}

/// Gives `current` the text it had before, or removes it if there was none; only if it names `to`, so that doing it twice
/// or too late is harmless. Survives a power cut when it returns.
pub fn flip_back(lock: &SiteLock, disk: &SiteDisk, from: Option<&str>, to: &ReleaseId) -> Result<(), SiteError> {
    if live(disk)?.as_ref() != Some(to) {
        // Perhaps it was taken back a moment before a crash, and only in memory.
        return sync(disk);
    }
    match from {
        Some(text) => match disk.release_named_by(text) {
            Some(id) if !disk.release_path(&id).is_dir() => Err(SiteError::Gone(id)),
            Some(_) | None => point_at(lock, disk, text),
        },
        None => {
            fs::remove_link(disk.root(), CURRENT).map_err(SiteError::io("remove", &disk.current()))?;
            sync(disk)
        }
    }
}

/// Removes what a killed flip has left beside the link.
pub(super) fn clean_up(disk: &SiteDisk) -> Result<(), SiteError> {
    match fs::remove_stale_links(disk.root(), CURRENT) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SiteError::io("clean up", disk.root())(error))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn point_at(lock: &SiteLock, disk: &SiteDisk, text: &str) -> Result<(), SiteError> {
    debug_assert_eq!(lock.site(), disk.site(), "the lock of another site");
    fs::replace_symlink(disk.root(), CURRENT, text).map_err(SiteError::io("replace", &disk.current()))?;
    sync(disk)
}

fn sync(disk: &SiteDisk) -> Result<(), SiteError> {
    let root: &Path = disk.root();
    fs::sync_directory(root).map_err(SiteError::io("sync", root))
}

#[cfg(test)]
mod tests {
    use super::super::release::tests::sealed;
    use super::super::support::TestSite;
    use super::*;

    #[test]
    fn a_flip_and_the_way_back() {
        let site = TestSite::new();
        let lock = site.lock();
        let (one, two) = (sealed(&site, &lock), sealed(&site, &lock));
        let first = flip(&lock, &site.disk, &one).expect("a flip");
        assert_eq!((first.from, live(&site.disk).expect("live")), (None, Some(one.id().clone())));
        let second = flip(&lock, &site.disk, &two).expect("a flip");
        assert_eq!(second.from.as_deref(), one.path().to_str());
        for _ in 0..2 {
            flip_back(&lock, &site.disk, second.from.as_deref(), two.id()).expect("the way back");
            assert_eq!(live(&site.disk).expect("live"), Some(one.id().clone()));
        }
        flip_back(&lock, &site.disk, None, two.id()).expect("not ours to take back");
        assert_eq!(live(&site.disk).expect("live"), Some(one.id().clone()));
        flip_back(&lock, &site.disk, None, one.id()).expect("the way back");
        assert_eq!(read(&site.disk).expect("absent"), None);
    }

    #[test]
    fn a_real_directory_in_its_place_is_refused_and_stays() {
        let site = TestSite::new();
        let lock = site.lock();
        let release = sealed(&site, &lock);
        std::fs::create_dir(site.disk.current()).expect("a directory");
        std::fs::write(site.disk.current().join("index.html"), "precious").expect("a file");
        let refused = flip(&lock, &site.disk, &release).expect_err("a refusal").to_string();
        assert!(refused.contains("is a directory") && refused.contains("help: move it away"), "{refused}");
        assert!(site.disk.prepare(&site.ownership).is_err());
        assert!(site.disk.current().join("index.html").is_file());
    }

    #[test]
    fn the_way_back_does_not_lead_to_a_release_that_is_gone() {
        let site = TestSite::new();
        let lock = site.lock();
        let (one, two) = (sealed(&site, &lock), sealed(&site, &lock));
        let _first = flip(&lock, &site.disk, &one).expect("a flip");
        let second = flip(&lock, &site.disk, &two).expect("a flip");
        super::super::release::discard(&lock, &site.disk, one.id()).expect("a removal");
        let refused = flip_back(&lock, &site.disk, second.from.as_deref(), two.id());
        assert!(matches!(refused, Err(SiteError::Gone(_))), "{refused:?}");
        assert_eq!(live(&site.disk).expect("live"), Some(two.id().clone()));
    }

    #[test]
    fn a_relative_link_of_an_operator_names_its_release_too() {
        let site = TestSite::new();
        let lock = site.lock();
        let release = sealed(&site, &lock);
        std::os::unix::fs::symlink(format!("release/{}", release.id()), site.disk.current()).expect("a link");
        assert_eq!(live(&site.disk).expect("live"), Some(release.id().clone()));
    }

    #[test]
    fn a_foreign_link_is_put_back_with_the_same_text() {
        let site = TestSite::new();
        let lock = site.lock();
        let release = sealed(&site, &lock);
        std::os::unix::fs::symlink("../elsewhere", site.disk.current()).expect("a link");
        let flip = flip(&lock, &site.disk, &release).expect("a flip");
        flip_back(&lock, &site.disk, flip.from.as_deref(), release.id()).expect("the way back");
        assert_eq!(read(&site.disk).expect("a link").as_deref(), Some("../elsewhere"));
    }
}
