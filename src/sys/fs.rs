//! Files and links, with what survives a power cut said at each.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::AccessFlags;

/// What is at the place of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Nothing.
    Absent,
    /// A symbolic link with this text.
    Link(String),
    /// Something that is no link; the word says what.
    Foreign(&'static str),
}

/// What is at this path, without following it.
pub fn read_link(path: &Path) -> io::Result<LinkState> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(LinkState::Absent),
        Err(error) => return Err(error),
    };
    if found.is_symlink() {
        let target = std::fs::read_link(path)?.into_os_string();
        return match target.into_string() {
            Ok(text) => Ok(LinkState::Link(text)),
            Err(_) => Ok(LinkState::Foreign("a link whose text is not UTF-8")),
        };
    }
    Ok(LinkState::Foreign(match (found.is_dir(), found.is_file()) {
        (true, _) => "a directory",
        (_, true) => "a file",
        (_, _) => "a special file",
    }))
}

/// Makes `name` in the directory a link to `target`, by one rename: whoever looks sees the old one or the new one.
/// Not synced; see [`sync_directory`]. After an error the old one is there.
pub fn replace_symlink(directory: &Path, name: &str, target: &str) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.{}", unique()));
    std::os::unix::fs::symlink(target, &temporary)?;
    let renamed = std::fs::rename(&temporary, directory.join(name));
    if renamed.is_err() {
        std::fs::remove_file(&temporary)?;
    }
    renamed
}

/// Removes what a killed [`replace_symlink`] left: links named `.{name}.…`. Gives back how many.
pub fn remove_stale_links(directory: &Path, name: &str) -> io::Result<usize> {
    let prefix = format!(".{name}.");
    let mut removed = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|text| text.starts_with(&prefix));
        if ours && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes the link `name`; an absent one is fine, something else is an error and stays.
pub fn remove_link(directory: &Path, name: &str) -> io::Result<()> {
    let path = directory.join(name);
    match read_link(&path)? {
        LinkState::Absent => Ok(()),
        LinkState::Link(_) => std::fs::remove_file(path),
        LinkState::Foreign(what) => Err(io::Error::new(ErrorKind::InvalidInput, format!("is {what}, not a link"))),
    }
}

/// Makes what was renamed, made or removed in the directory survive a power cut.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes everything written to the file system of `path` survive a power cut. Waits for other writers' data too. An
/// error means that data may be lost for good: the files must not be used, and the call must not be repeated on them.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    let directory = File::open(path)?;
    #[expect(unsafe_code, reason = "nix has no syncfs for this target set")]
    // SAFETY: the descriptor is open for the whole call.
    let result = unsafe { libc::syncfs(directory.as_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Writes a file whole or not at all: beside, given to its owner, synced, renamed, the directory synced. Survives a power cut
/// when it returns.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "names no file"));
    };
    let temporary = directory.join(format!(".{}.{}", name.to_string_lossy(), unique()));
    let written = write_new(&temporary, bytes, mode, owner).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        remove_file(&temporary)?;
        return Err(error);
    }
    sync_directory(directory)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // By the descriptor: in a directory that others can write, the name may mean something else a moment later.
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes a file; an absent one is fine.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes the files of a directory whose names are picked, and gives them back; a directory that is not there has none.
pub fn sweep(directory: &Path, is_picked: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&is_picked) && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

/// Makes a directory with its parents. A new one gets exactly this mode, whatever the umask; one that is there stays.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        make_directory(parent, PARENT_MODE)?;
    }
    match std::fs::DirBuilder::new().mode(mode & 0o777).create(path) {
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// From now on what this process makes is for its user alone, unless it says otherwise: the database and the logs may lie
/// in a directory that hooks pass through to their home.
pub fn keep_to_ourselves() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Makes a directory that must not be there yet, with this mode and owner. They are set by its descriptor: what has taken its
/// name meanwhile is not touched.
pub fn create_directory(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = nix::fcntl::open(path, flags, Mode::empty())?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(&made, Some(uid), Some(gid))?;
    }
    Ok(nix::sys::stat::fchmod(&made, Mode::from_bits_truncate(mode))?)
}

/// Whether entries of the directory belong to their owners alone (the sticky bit), whoever may write there.
pub fn is_sticky(directory: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(directory)?.mode() & 0o1000 != 0)
}

/// Sets owner and group of a path without following a link.
pub fn set_owner(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
}

/// Adds mode bits to a directory in one that is ours.
pub fn add_mode(path: &Path, bits: u32) -> io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o7777;
    if mode & bits == bits {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | bits))
}

/// Whose the path is.
pub fn owner_of(path: &Path) -> io::Result<u32> {
    Ok(std::fs::metadata(path)?.uid())
}

/// The file system a path is on; none if nothing is there.
pub fn device_of(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some(found.dev())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether that user, in those groups, may make files in the directory, by its mode.
pub fn may_write(directory: &Path, uid: u32, groups: &[u32]) -> io::Result<bool> {
    let found = std::fs::metadata(directory)?;
    let shift = match (found.uid() == uid, groups.contains(&found.gid())) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    Ok(found.is_dir() && (uid == 0 || (found.mode() >> shift) & 0o3 == 0o3))
}

/// Where a path really is: without links, also if its last parts are not there yet.
pub fn real_path(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    let Some((existing, real)) = found else { return path.to_owned() };
    path.strip_prefix(existing).map_or_else(|_| path.to_owned(), |rest| real.join(rest))
}

/// Whether this process may make files in the directory, or make the directory itself if it is not there yet.
pub fn is_writable(directory: &Path) -> io::Result<bool> {
    let existing = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(directory);
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    match nix::unistd::faccessat(AT_FDCWD, existing, wanted, AtFlags::AT_EACCESS) {
        Ok(()) => Ok(existing.is_dir()),
        Err(nix::Error::EACCES | nix::Error::EROFS | nix::Error::EPERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What is left on a file system for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub free_bytes: u64,
    /// Inodes; `u64::MAX` where the file system does not count them.
    pub free_inodes: u64,
}

/// Asks the file system of `path` what is left.
pub fn space(path: &Path) -> io::Result<Space> {
    let found = nix::sys::statvfs::statvfs(path)?;
    let counts_inodes = found.files() > 0;
    Ok(Space {
        free_bytes: found.blocks_available() * found.fragment_size(),
        free_inodes: if counts_inodes { found.files_available() } else { u64::MAX },
    })
}

/// A lock held through a file. The kernel lets go of it when the process ends, however it ends; threads of one process
/// exclude each other too.
#[derive(Debug)]
#[must_use = "dropping it lets go of the lock"]
pub struct LockFile {
    _file: Flock<File>,
}

impl LockFile {
    /// Takes the lock, or gives back none if somebody else holds it.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Whether somebody holds the lock. Those who ask do not exclude each other, but for a moment whoever wants to take it.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(false),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(true),
            Err((_, error)) => Err(error.into()),
        }
    }
}

/// A word nobody else uses for a temporary name: the process, a counter, the clock.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos());
    format!("{:x}-{count:x}-{nanos:x}", std::process::id())
}

/// Directories on the way to one that was asked for.
const PARENT_MODE: u32 = 0o755;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).expect("a directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_link_is_replaced_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        replace_symlink(directory.path(), "current", "/one").expect("a link");
        replace_symlink(directory.path(), "current", "/two").expect("a link");
        assert_eq!(read_link(&directory.path().join("current")).expect("a link"), LinkState::Link("/two".into()));
        assert_eq!(names(directory.path()), ["current"]);
    }

    #[test]
    fn a_directory_in_the_place_of_a_link_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("current")).expect("a directory");
        assert!(replace_symlink(directory.path(), "current", "/one").is_err());
        assert!(remove_link(directory.path(), "current").is_err());
        assert_eq!(names(directory.path()), ["current"]);
        let state = read_link(&directory.path().join("current")).expect("a look");
        assert_eq!(state, LinkState::Foreign("a directory"));
    }

    #[test]
    fn stale_links_go_and_other_files_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("/x", directory.path().join(".current.1-2-3")).expect("a link");
        std::fs::write(directory.path().join(".current.txt"), "x").expect("a file");
        assert_eq!(remove_stale_links(directory.path(), "current").expect("a clean-up"), 1);
        assert_eq!(names(directory.path()), [".current.txt"]);
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("record");
        write_atomic(&path, b"one", 0o600, None).expect("a file");
        write_atomic(&path, b"two", 0o640, None).expect("a file");
        assert_eq!(std::fs::read(&path).expect("a file"), b"two");
        assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o7777, 0o640);
        assert_eq!(names(directory.path()), ["record"]);
    }

    #[test]
    fn a_lock_excludes_and_is_free_again_when_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        let held = LockFile::try_acquire(&path).expect("a lock");
        assert!(held.is_some());
        assert!(LockFile::try_acquire(&path).expect("a question").is_none());
        drop(held);
        assert!(LockFile::try_acquire(&path).expect("a lock").is_some());
    }
}
