//! Owner and modes of a whole release, after the hooks and before the flip.

use std::io;
use std::path::Path;

use crate::sys::tree::{self, FileKind, Pinned};

use super::release::Staging;
use super::shared::{ENV, ENV_MODE};
use super::{DIRECTORY_MODE, Ownership, SiteError};

/// What becomes of executable bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executable {
    /// A file that anybody may execute stays executable, 0775.
    Keep,
    /// Every file becomes 0664.
    Strip,
}

/// What the pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries whose owner or mode was not right.
    pub changed: u64,
    /// Files with several hard links: another name may lie outside of the release, so they stay as they are.
    pub skipped_hard_links: u64,
    /// Sockets, fifos and devices: left alone.
    pub skipped_special: u64,
    /// What belongs to somebody else: a hook can move it here, but it is not a hook's to give away.
    pub skipped_foreign: u64,
}

/// Makes every directory 2775, every file 0664 or 0775 and the `.env` at the top 0640, whoever made it, all of owner and
/// group. What belongs to neither the owner nor the hooks' user stays as it is. Follows no
/// link, leaves the tree nowhere, and goes on in a tree that somebody still changes.
pub fn apply(staging: &Staging, ownership: &Ownership, executable: Executable) -> Result<Report, SiteError> {
    let mut report = Report::default();
    let pass = Pass { ownership, executable };
    tree::walk(staging.path(), &mut |entry| pass.visit(entry, &mut report))
        .map_err(SiteError::io("set owner and modes of", staging.path()))?;
    Ok(report)
}

struct Pass<'a> {
    ownership: &'a Ownership,
    executable: Executable,
}

impl Pass<'_> {
    fn visit(&self, entry: &Pinned<'_>, report: &mut Report) -> io::Result<()> {
        let Ownership { owner, run_as, change, .. } = *self.ownership;
        if change && entry.uid != run_as && entry.uid != owner {
            report.skipped_foreign += 1;
            return Ok(());
        }
        let mode = match entry.kind {
            FileKind::Directory => Some(DIRECTORY_MODE),
            FileKind::File if entry.links > 1 => {
                report.skipped_hard_links += 1;
                return Ok(());
            }
            FileKind::File => Some(self.mode_of_file(entry)),
            FileKind::Symlink => None,
            FileKind::Other => {
                report.skipped_special += 1;
                return Ok(());
            }
        };
        let owner_is_wrong =
            self.ownership.change && (entry.uid, entry.gid) != (self.ownership.owner, self.ownership.group);
        if owner_is_wrong {
            entry.set_owner(self.ownership.owner, self.ownership.group)?;
        }
        // Owner first, mode second: a change of owner clears bits of the mode.
        let wrong_mode = mode.filter(|mode| owner_is_wrong || *mode != entry.mode);
        if let Some(mode) = wrong_mode {
            entry.set_mode(mode)?;
        }
        report.changed += u64::from(owner_is_wrong || wrong_mode.is_some());
        Ok(())
    }

    fn mode_of_file(&self, entry: &Pinned<'_>) -> u32 {
        if entry.path == Path::new(".").join(ENV) {
            return ENV_MODE;
        }
        match self.executable {
            Executable::Keep if entry.mode & 0o111 != 0 => 0o775,
            Executable::Keep | Executable::Strip => 0o664,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

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

    fn file(path: &Path, mode: u32) {
        std::fs::write(path, "x").expect("a file");
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).expect("an entry").permissions().mode() & 0o7777
    }

    #[test]
    fn the_table_of_modes() {
        let table = [
            (0o600, Executable::Keep, 0o664),
            (0o644, Executable::Keep, 0o664),
            (0o755, Executable::Keep, 0o775),
            (0o700, Executable::Keep, 0o775),
            (0o4755, Executable::Keep, 0o775),
            (0o2664, Executable::Keep, 0o664),
            (0o777, Executable::Strip, 0o664),
            (0o664, Executable::Strip, 0o664),
        ];
        for (before, executable, after) in table {
            let site = TestSite::new();
            let staging = staged(&site);
            file(&staging.path().join("file"), before);
            apply(&staging, &site.ownership, executable).expect("a pass");
            assert_eq!(mode(&staging.path().join("file")), after, "{before:o} {executable:?}");
        }
    }

    #[test]
    fn directories_env_links_fifos_and_hard_links() {
        let site = TestSite::new();
        let staging = staged(&site);
        let (tree, outside) = (staging.path(), site.directory.path().join("outside"));
        file(&outside, 0o600);
        std::fs::create_dir(tree.join("closed")).expect("a directory");
        std::fs::set_permissions(tree.join("closed"), PermissionsExt::from_mode(0o700)).expect("a mode");
        file(&tree.join(".env"), 0o600);
        file(&tree.join("closed/.env"), 0o600);
        symlink(&outside, tree.join("link")).expect("a link");
        std::fs::hard_link(&outside, tree.join("hard")).expect("a hard link");
        nix::unistd::mkfifo(&tree.join("fifo"), nix::sys::stat::Mode::S_IRUSR).expect("a fifo");
        let report = apply(&staging, &site.ownership, Executable::Keep).expect("a pass");
        assert_eq!((report.skipped_hard_links, report.skipped_special), (1, 1));
        assert_eq!((mode(tree), mode(&tree.join("closed"))), (0o2775, 0o2775));
        assert_eq!((mode(&tree.join(".env")), mode(&tree.join("closed/.env"))), (0o640, 0o664));
        assert_eq!((mode(&outside), mode(&tree.join("fifo"))), (0o600, 0o400));
        let again = apply(&staging, &site.ownership, Executable::Keep).expect("a pass");
        assert_eq!(again.changed, 0);
    }

    #[test]
    fn a_race_of_links_never_reaches_outside() {
        let site = TestSite::new();
        let staging = staged(&site);
        let outside = site.directory.path().join("outside");
        std::fs::create_dir(&outside).expect("a directory");
        file(&outside.join("victim"), 0o600);
        let (real, spare) = (staging.path().join("swapped"), staging.path().join("spare"));
        std::fs::create_dir(&real).expect("a directory");
        file(&real.join("victim"), 0o644);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Each may fail while the other side is at work: that is what a race is.
                    std::fs::rename(&real, &spare).and_then(|()| symlink(&outside, &real)).ok();
                    std::fs::remove_file(&real).and_then(|()| std::fs::rename(&spare, &real)).ok();
                }
            });
            for _ in 0..500 {
                // An entry that vanishes under the walk may end it; it must only never act outside.
                apply(&staging, &site.ownership, Executable::Keep).ok();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(mode(&outside.join("victim")), 0o600);
        assert_eq!(mode(&outside) & 0o7000, 0, "the directory outside keeps its mode");
    }
}
