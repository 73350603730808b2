//! Walks over trees that somebody else may be changing at the same time.
//!
//! Every entry is pinned first (`openat` with `O_PATH|O_NOFOLLOW`), looked at through the descriptor, and acted on through
//! it. A name is used once; what it means a moment later does not matter. A link is never followed, a fifo never opened,
//! another file system never entered. It does not need openat2, which some sandboxes refuse.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::{Gid, Uid, UnlinkatFlags};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A fifo, a socket or a device.
    Other,
}

/// An entry that cannot be exchanged any more for something else.
#[derive(Debug)]
pub struct Pinned<'a> {
    /// Its path below the root; `.` for the root itself. For messages only.
    pub path: &'a Path,
    /// What it is.
    pub kind: FileKind,
    /// Its permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// How many names it has.
    pub links: u64,
    descriptor: &'a OwnedFd,
}

impl Pinned<'_> {
    /// Sets owner and group of this very inode; of a link, the link's own.
    pub fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        nix::unistd::fchownat(self.descriptor, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
        Ok(())
    }

    /// Sets the mode of this very inode and reads it back: the kernel may drop the setgid bit without a word.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        // The descriptor is pinned, so what this link in /proc names is the inode and never a path.
        let itself = PathBuf::from(format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()));
        std::fs::set_permissions(itself, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        let now = nix::sys::stat::fstat(self.descriptor)?.st_mode & MODE_BITS;
        if now == mode {
            return Ok(());
        }
        Err(io::Error::other(format!("mode {mode:04o} became {now:04o}; is the group one that this process may use?")))
    }
}

/// Visits the root (as `.`) and everything below it, a directory before its entries. Ends at the first error, which
/// names the path.
pub fn walk(root: &Path, visit: &mut dyn FnMut(&Pinned<'_>) -> io::Result<()>) -> io::Result<()> {
    let descriptor = nix::fcntl::open(root, PIN, Mode::empty())?;
    let stat = nix::sys::stat::fstat(&descriptor)?;
    visit_entry(&descriptor, &stat, Path::new("."), mount_of(&descriptor)?, 0, visit)
}

fn visit_entry(
    descriptor: &OwnedFd,
    stat: &FileStat,
    path: &Path,
    mount: u64,
    depth: usize,
    visit: &mut dyn FnMut(&Pinned<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let pinned = Pinned {
        path,
        kind: kind_of(stat),
        mode: stat.st_mode & MODE_BITS,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: stat.st_nlink,
        descriptor,
    };
    // Something mounted in the tree is not of it, whatever its path says.
    if mount_of(descriptor).map_err(|error| at(path, &error))? != mount {
        return Ok(());
    }
    visit(&pinned).map_err(|error| at(path, &error))?;
    if pinned.kind != FileKind::Directory {
        return Ok(());
    }
    if depth == DEEPEST {
        return Err(at(path, &io::Error::other(format!("is nested deeper than {DEEPEST} directories"))));
    }
    for name in names_in(descriptor).map_err(|error| at(path, &error))? {
        let child = match nix::fcntl::openat(descriptor, name.as_c_str(), PIN, Mode::empty()) {
            Ok(child) => child,
            // Removed since its name was read.
            Err(Errno::ENOENT) => continue,
            Err(error) => return Err(at(&path.join(os(&name)), &error.into())),
        };
        let stat = nix::sys::stat::fstat(&child)?;
        visit_entry(&child, &stat, &path.join(os(&name)), mount, depth + 1, visit)?;
    }
    Ok(())
}

/// Removes a whole tree; an absent one is fine. Directories that their owner closed are opened first. What links point at
/// stays.
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "names no entry of a directory"));
    };
    let parent = nix::fcntl::open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let name = CString::new(name.as_bytes())?;
    remove_at(&parent, &name).map_err(|error| at(path, &error))
}

/// Removes the entry of a directory that is already open, with everything below it; an absent one is fine.
pub fn remove_at(parent: &OwnedFd, name: &CStr) -> io::Result<()> {
    // What is too deep for the descriptors of a process is brought to the top, and removed in the next round.
    while remove_entry(parent, name, 0, None)? == Removal::TopIsNotEmpty {}
    Ok(())
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// It is gone.
    Done,
    /// Directories from far below were moved into the topmost one.
    TopIsNotEmpty,
}

fn remove_entry(parent: &OwnedFd, name: &CStr, depth: usize, top: Option<&OwnedFd>) -> io::Result<Removal> {
    let refused = match nix::unistd::unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(Removal::Done),
        Err(refused @ (Errno::EISDIR | Errno::EPERM | Errno::EACCES)) => refused,
        Err(error) => return Err(error.into()),
    };
    let directory = match nix::fcntl::openat(parent, name, PIN | OFlag::O_DIRECTORY, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::ENOENT) => return Ok(Removal::Done),
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(refused.into()),
        Err(error) => return Err(error.into()),
    };
    // A bind mount is on the same device, so it is the mount that counts.
    let mount = mount_of(&directory)?;
    if top.map(mount_of).transpose()?.is_some_and(|expected| expected != mount) {
        return Err(io::Error::other(format!("a file system is mounted at `{}` in it", name.to_string_lossy())));
    }
    let stat = nix::sys::stat::fstat(&directory)?;
    if stat.st_mode & 0o700 != 0o700 {
        let itself = format!("/proc/self/fd/{}", directory.as_raw_fd());
        std::fs::set_permissions(itself, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    if let Some(top) = top.filter(|_| depth == DEEPEST) {
        return bring_up(parent, name, top);
    }
    let mut removal = Removal::Done;
    for child in names_in(&directory)? {
        if remove_entry(&directory, &child, depth + 1, Some(top.unwrap_or(&directory)))? == Removal::TopIsNotEmpty {
            removal = Removal::TopIsNotEmpty;
        }
    }
    if removal == Removal::TopIsNotEmpty && top.is_none() {
        return Ok(removal);
    }
    match nix::unistd::unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(removal),
        Err(error) => Err(error.into()),
    }
}

/// Moves a directory into the topmost one, under a name that is free there.
fn bring_up(parent: &OwnedFd, name: &CStr, top: &OwnedFd) -> io::Result<Removal> {
    for number in 0..u32::MAX {
        let free = CString::new(format!(".deep-{number}"))?;
        match nix::fcntl::renameat(parent, name, top, free.as_c_str()) {
            Ok(()) => return Ok(Removal::TopIsNotEmpty),
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Which mount a descriptor is on; where a kernel (before Linux 5.8) or a sandbox does not tell, which device.
fn mount_of(descriptor: &OwnedFd) -> io::Result<u64> {
    #[expect(unsafe_code, reason = "nix knows no statx")]
    // SAFETY: the path is an empty C string, and `found` is plain old data that the call fills.
    let found = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let empty = c"".as_ptr();
        let wanted = libc::STATX_MNT_ID;
        libc::statx(descriptor.as_raw_fd(), empty, libc::AT_EMPTY_PATH, wanted, &raw mut found);
        found
    };
    // A call that failed has filled nothing in.
    if found.stx_mask & libc::STATX_MNT_ID != 0 {
        return Ok(found.stx_mnt_id);
    }
    Ok(nix::sys::stat::fstat(descriptor)?.st_dev)
}

/// The names in a directory that is pinned, without `.` and `..`.
fn names_in(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let readable = nix::fcntl::openat(
        directory.as_fd(),
        c".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(readable)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn kind_of(stat: &FileStat) -> FileKind {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => FileKind::Directory,
        SFlag::S_IFREG => FileKind::File,
        SFlag::S_IFLNK => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

/// Opens anything without touching it: no fifo waits, no device wakes, no link is followed.
const PIN: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

const MODE_BITS: u32 = 0o7777;

/// Each level holds a descriptor; the usual limit for a process is 1,024 of them.
const DEEPEST: usize = 400;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).expect("an entry").permissions().mode() & 0o7777
    }

    #[test]
    fn a_walk_sees_links_and_fifos_and_goes_through_neither() {
        let directory = tempfile::tempdir().expect("a directory");
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("outside"));
        std::fs::create_dir_all(tree.join("sub")).expect("a directory");
        std::fs::create_dir(&outside).expect("a directory");
        std::fs::write(outside.join("victim"), "x").expect("a file");
        std::fs::write(tree.join("sub/file"), "x").expect("a file");
        symlink(&outside, tree.join("link")).expect("a link");
        nix::unistd::mkfifo(&tree.join("fifo"), Mode::S_IRWXU).expect("a fifo");
        let mut seen = Vec::new();
        walk(&tree, &mut |entry| {
            seen.push((entry.path.to_owned(), entry.kind));
            Ok(())
        })
        .expect("a walk");
        seen.sort_by(|left, right| left.0.cmp(&right.0));
        let expected = [
            (".", FileKind::Directory),
            ("./fifo", FileKind::Other),
            ("./link", FileKind::Symlink),
            ("./sub", FileKind::Directory),
            ("./sub/file", FileKind::File),
        ];
        assert_eq!(seen, expected.map(|(path, kind)| (PathBuf::from(path), kind)));
    }

    #[test]
    fn removing_opens_closed_directories_and_spares_what_links_point_at() {
        let directory = tempfile::tempdir().expect("a directory");
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("outside"));
        std::fs::create_dir_all(tree.join("closed/deep")).expect("a directory");
        std::fs::create_dir(&outside).expect("a directory");
        std::fs::write(outside.join("victim"), "x").expect("a file");
        std::fs::write(tree.join("closed/deep/file"), "x").expect("a file");
        symlink(&outside, tree.join("closed/link")).expect("a link");
        nix::unistd::mkfifo(&tree.join("fifo"), Mode::S_IRWXU).expect("a fifo");
        std::fs::set_permissions(tree.join("closed/deep"), PermissionsExt::from_mode(0o000)).expect("a mode");
        std::fs::set_permissions(tree.join("closed"), PermissionsExt::from_mode(0o555)).expect("a mode");
        remove(&tree).expect("a removal");
        remove(&tree).expect("a removal of nothing");
        assert!(!tree.exists());
        assert_eq!(std::fs::read(outside.join("victim")).expect("the victim"), b"x");
    }

    #[test]
    fn a_tree_of_any_depth_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = directory.path().join("tree");
        std::fs::create_dir(&tree).expect("a directory");
        let mut below = nix::fcntl::open(&tree, PIN, Mode::empty()).expect("a descriptor");
        for _ in 0..3 * DEEPEST {
            nix::sys::stat::mkdirat(&below, c"d", Mode::S_IRWXU).expect("a directory");
            below = nix::fcntl::openat(&below, c"d", PIN, Mode::empty()).expect("a descriptor");
        }
        remove(&tree).expect("a removal");
        assert!(!tree.exists());
    }

    #[test]
    fn a_mode_is_set_on_the_inode() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "x").expect("a file");
        walk(directory.path(), &mut |entry| match entry.kind {
            FileKind::File => entry.set_mode(0o4755),
            FileKind::Directory => entry.set_mode(0o2775),
            FileKind::Symlink | FileKind::Other => Ok(()),
        })
        .expect("a walk");
        assert_eq!((mode(&file), mode(directory.path())), (0o4755, 0o2775));
    }
}
