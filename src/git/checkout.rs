//! A commit's tree as files: written below descriptors that were just made, with final modes and owner.
//!
//! Single-threaded for now. A hostile tree can hold any name and any mode; what could lead out of the directory, or be
//! taken for git's own, is refused before anything of it is written. Nothing is ever written through a link.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use git2::{ObjectType, Oid, Repository, Tree, TreeEntry};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid};

use crate::domain::revision::Revision;

use super::{GitError, Mirror};

/// Whose the files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Files and links.
    pub files: u64,
    /// Their content.
    pub bytes: u64,
}

/// Writes the tree of a commit into an empty directory: directories 2775, files 0664 or 0775, links as they are.
pub fn checkout(
    mirror: &Mirror,
    revision: &Revision,
    into: &Path,
    owner: Option<Owner>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Written, GitError> {
    let repository = &mirror.repository;
    let tree = Oid::from_str(revision.as_str())
        .and_then(|oid| repository.find_commit(oid))
        .and_then(|commit| commit.tree())
        .map_err(GitError::git(format!("read commit `{revision}`")))?;
    let root = nix::fcntl::open(into, DIRECTORY, Mode::empty()).map_err(write_error(&into.to_string_lossy()))?;
    let mut writer = Writer { repository, owner, cancelled, written: Written::default(), entries: 0 };
    match writer.write_tree(&tree, &root, "", 0) {
        Ok(()) => Ok(writer.written),
        Err(error) => {
            if let GitError::Git { source, .. } = &error {
                mirror.remove_if_damaged(source);
            }
            Err(error)
        }
    }
}

struct Writer<'a> {
    repository: &'a Repository,
    owner: Option<Owner>,
    cancelled: &'a dyn Fn() -> bool,
    written: Written,
    entries: u64,
}

impl Writer<'_> {
    fn write_tree(&mut self, tree: &Tree<'_>, directory: &OwnedFd, path: &str, depth: usize) -> Result<(), GitError> {
        if depth > DEEPEST {
            return Err(hostile(path, "it is nested too deep"));
        }
        for entry in tree {
            if (self.cancelled)() {
                return Err(GitError::Cancelled);
            }
            let shown = String::from_utf8_lossy(entry.name_bytes());
            let entry_path = if path.is_empty() { shown.into_owned() } else { format!("{path}/{shown}") };
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(hostile(&entry_path, "the tree has too many entries"));
            }
            let name = check_name(entry.name_bytes(), &entry_path)?;
            self.write_entry(&entry, directory, &name, &entry_path, depth)?;
        }
        Ok(())
    }

    fn write_entry(
        &mut self,
        entry: &TreeEntry<'_>,
        directory: &OwnedFd,
        name: &CStr,
        path: &str,
        depth: usize,
    ) -> Result<(), GitError> {
        match (entry.filemode_raw() & KIND_BITS, entry.kind()) {
            (KIND_DIRECTORY, Some(ObjectType::Tree)) => {
                let tree = self.repository.find_tree(entry.id()).map_err(GitError::git(format!("read `{path}`")))?;
                let made = self.make_directory(directory, name).map_err(write_error(path))?;
                self.write_tree(&tree, &made, path, depth + 1)
            }
            (KIND_FILE, Some(ObjectType::Blob)) => {
                let executable = entry.filemode_raw() & 0o100 != 0;
                self.write_blob(entry.id(), path, |writer, content| {
                    writer.write_file(directory, name, executable, content)
                })
            }
            (KIND_LINK, Some(ObjectType::Blob)) => {
                self.write_blob(entry.id(), path, |writer, target| writer.make_link(directory, name, target))
            }
            (KIND_SUBMODULE, _) => Err(GitError::Submodule(path.to_owned())),
            (_, _) => Err(hostile(path, "it is neither a file, a link nor a directory")),
        }
    }

    fn write_blob(
        &mut self,
        id: Oid,
        path: &str,
        write: impl FnOnce(&Self, &[u8]) -> nix::Result<()>,
    ) -> Result<(), GitError> {
        let blob = self.repository.find_blob(id).map_err(GitError::git(format!("read `{path}`")))?;
        if blob.content().starts_with(LFS_POINTER) {
            return Err(GitError::LfsPointer(path.to_owned()));
        }
        write(self, blob.content()).map_err(write_error(path))?;
        self.written.files += 1;
        self.written.bytes += blob.content().len() as u64;
        Ok(())
    }

    fn make_directory(&self, directory: &OwnedFd, name: &CStr) -> nix::Result<OwnedFd> {
        nix::sys::stat::mkdirat(directory, name, Mode::from_bits_truncate(0o700))?;
        let made = nix::fcntl::openat(directory, name, DIRECTORY, Mode::empty())?;
        self.give(&made)?;
        fchmod(&made, Mode::from_bits_truncate(0o2775))?;
        Ok(made)
    }

    fn write_file(&self, directory: &OwnedFd, name: &CStr, executable: bool, content: &[u8]) -> nix::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = nix::fcntl::openat(directory, name, flags, Mode::from_bits_truncate(0o600))?;
        self.give(&made)?;
        fchmod(&made, Mode::from_bits_truncate(if executable { 0o775 } else { 0o664 }))?;
        File::from(made).write_all(content).map_err(|error| match error.raw_os_error() {
            Some(number) => nix::Error::from_raw(number),
            None => nix::Error::EIO,
        })
    }

    fn make_link(&self, directory: &OwnedFd, name: &CStr, target: &[u8]) -> nix::Result<()> {
        nix::unistd::symlinkat(target, directory, name)?;
        match self.owner {
            Some(Owner { uid, gid }) => nix::unistd::fchownat(
                directory,
                name,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            ),
            None => Ok(()),
        }
    }

    fn give(&self, made: impl AsFd) -> nix::Result<()> {
        match self.owner {
            Some(Owner { uid, gid }) => nix::unistd::fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            None => Ok(()),
        }
    }
}

/// Refuses what git itself refuses: names that lead elsewhere, and every spelling of `.git` that some file system folds
/// into it, since the tree may be copied there.
fn check_name(name: &[u8], path: &str) -> Result<CString, GitError> {
    let folded: String = String::from_utf8_lossy(name)
        .chars()
        .filter(|letter| !IGNORED_BY_HFS.contains(letter))
        .flat_map(char::to_lowercase)
        .collect();
    let trimmed = folded.trim_end_matches(['.', ' ']);
    let first_stream = trimmed.split(':').next().unwrap_or_default();
    if matches!(name, b"" | b"." | b"..") {
        return Err(hostile(path, "it leads out of its directory"));
    }
    if name.contains(&b'/') {
        return Err(hostile(path, "its name has a slash"));
    }
    if matches!(first_stream, ".git" | "git~1") {
        return Err(hostile(path, "its name is one of git's own"));
    }
    CString::new(name).map_err(|_| hostile(path, "its name has a zero byte"))
}

fn hostile(path: &str, reason: &'static str) -> GitError {
    GitError::HostileTree { path: path.to_owned(), reason }
}

fn write_error(path: &str) -> impl FnOnce(nix::Error) -> GitError {
    let path = path.to_owned();
    move |error| match error {
        // The directory was empty, so the tree itself has the name twice.
        nix::Error::EEXIST => GitError::HostileTree { path, reason: "the tree has it twice" },
        other => GitError::Write { path, source: io::Error::from(other) },
    }
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

const KIND_BITS: i32 = 0o170_000;
const KIND_DIRECTORY: i32 = 0o040_000;
const KIND_FILE: i32 = 0o100_000;
const KIND_LINK: i32 = 0o120_000;
const KIND_SUBMODULE: i32 = 0o160_000;

/// Each level holds a descriptor, and no real repository comes near.
const DEEPEST: usize = 64;

/// A git bomb is a few objects that unfold to billions of files.
const MOST_ENTRIES: u64 = 1_000_000;

/// How a pointer file begins, by the specification of Git LFS.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";

/// Code points that HFS+ leaves out when it compares names (git's `utf8.c`, `next_hfs_char`).
const IGNORED_BY_HFS: [char; 17] = [
    '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{206a}', '\u{206b}', '\u{206c}', '\u{206d}', '\u{206e}', '\u{206f}', '\u{feff}', '\u{0}',
];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::super::tests::{Origin, main_branch, mirror_path};
    use super::super::{Credentials, Remote};
    use super::*;

    struct Place {
        directory: tempfile::TempDir,
        into: PathBuf,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().expect("a directory");
        let into = directory.path().join("release");
        std::fs::create_dir(&into).expect("a directory");
        Place { directory, into }
    }

    fn check_out(origin: &Origin, place: &Place) -> Result<Written, GitError> {
        let mut mirror = Mirror::open_or_create(&mirror_path(&place.directory), &|| false).expect("a mirror");
        let (url, credentials) = (origin.url(), Credentials::default());
        let remote = Remote { url: &url, credentials: &credentials };
        let tip = mirror.fetch(&remote, &main_branch(), &|| false).expect("a fetch").expect("a tip").commit;
        checkout(&mirror, &tip, &place.into, None, &|| false)
    }

    #[test]
    fn the_tree_is_the_commits() {
        let (origin, place) = (Origin::new(), place());
        let outside = place.directory.path().join("outside");
        std::fs::write(&outside, "victim").expect("a file");
        std::fs::set_permissions(&outside, PermissionsExt::from_mode(0o600)).expect("a mode");
        symlink("nowhere", origin.path().join("dangling")).expect("a link");
        symlink(&outside, origin.path().join("away")).expect("a link");
        std::fs::write(origin.path().join("run.sh"), "#!/bin/sh\n").expect("a file");
        std::fs::set_permissions(origin.path().join("run.sh"), PermissionsExt::from_mode(0o755)).expect("a mode");
        std::fs::write(origin.path().join(".gitattributes"), "secret.txt export-ignore\n").expect("a file");
        origin.commit(&[("index.html", "hello"), ("a/b/c.txt", "deep"), ("secret.txt", "kept"), ("empty", "")]);
        let written = check_out(&origin, &place).expect("a checkout");
        assert_eq!(written.files, 8);
        let compared = std::process::Command::new("diff")
            .args(["-r", "--no-dereference", "-x", ".git"])
            .args([origin.path(), &place.into])
            .output()
            .expect("diff");
        assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
        let mode = |name: &str| {
            std::fs::symlink_metadata(place.into.join(name)).expect("an entry").permissions().mode() & 0o7777
        };
        assert_eq!((mode("index.html"), mode("run.sh"), mode("a/b")), (0o664, 0o775, 0o2775));
        assert_eq!(std::fs::metadata(&outside).expect("the victim").permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn what_would_not_be_whole_is_refused() {
        let (origin, first, second) = (Origin::new(), place(), place());
        origin.commit(&[("big.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")]);
        assert!(matches!(check_out(&origin, &first), Err(GitError::LfsPointer(path)) if path == "big.bin"));
        let commit = origin.head();
        origin.git(&["rm", "-q", "big.bin"]);
        origin.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},vendor/lib")]);
        origin.git(&["commit", "-q", "-m", "a submodule"]);
        assert!(matches!(check_out(&origin, &second), Err(GitError::Submodule(path)) if path == "vendor/lib"));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in
            ["", ".", "..", "a/b", ".git", ".GIT", ".Git ", ".git.", "git~1", "GIT~1", ".g\u{200c}it", ".git:x", "a\0b"]
        {
            assert!(check_name(bad.as_bytes(), bad).is_err(), "{bad:?}");
        }
        for good in [".gitignore", ".github", "git", "...", "-rf", "a b", "\u{fc}.txt", ".git-x"] {
            assert!(check_name(good.as_bytes(), good).is_ok(), "{good:?}");
        }
        assert!(check_name(b"\xff\xfe", "?").is_ok(), "names are bytes");
    }

    #[test]
    fn a_tree_with_hostile_entries_writes_nothing_outside() {
        for hostile in ["../escaped", ".git/hooks/post-checkout", "a"] {
            let (origin, place) = (Origin::new(), place());
            origin.commit(&[("a", "x")]);
            let blob = origin.git(&["rev-parse", "HEAD:a"]);
            let raw: Vec<u8> = hex::decode(&blob).expect("an id");
            let mut tree = Vec::new();
            for name in ["a", hostile] {
                tree.extend(format!("100644 {name}\0").bytes());
                tree.extend(&raw);
            }
            std::fs::write(place.directory.path().join("tree"), tree).expect("a file");
            let file = place.directory.path().join("tree").to_string_lossy().into_owned();
            let tree = origin.git(&["hash-object", "-t", "tree", "-w", "--literally", &file]);
            let commit = origin.git(&["commit-tree", "-m", "hostile", &tree]);
            origin.git(&["update-ref", "refs/heads/main", &commit]);
            let result = check_out(&origin, &place);
            assert!(result.is_err(), "{hostile}");
            assert!(!place.directory.path().join("escaped").exists());
            assert!(!place.into.join(".git").exists());
        }
    }
}
