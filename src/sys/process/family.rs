//! Who belongs to a child: found in `/proc`, by group, session, parent and cookie; and how they are signalled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::libc;
use nix::unistd::{Gid, Uid};

/// The processes that belong to a child or to a cookie.
#[derive(Debug)]
pub(super) struct Family<'a> {
    /// The main process: leader of its session and group, and not reaped yet.
    pub(super) leader: Option<i32>,
    pub(super) cookie: &'a [String],
    /// Everyone seen so far by start time: a member stays one when its parent dies.
    pub(super) known: BTreeMap<i32, u64>,
}

impl Family<'_> {
    /// The members that live now.
    pub(super) fn living(&mut self) -> io::Result<Vec<Process>> {
        let all = processes()?;
        let own = std::process::id().cast_signed();
        let adopters = adopters(&all, own);
        let mut members: BTreeSet<i32> =
            all.iter().filter(|process| self.is_root(process, &adopters)).map(|process| process.pid).collect();
        while let Some(next) = all.iter().find(|one| members.contains(&one.parent) && !members.contains(&one.pid)) {
            members.insert(next.pid);
        }
        members.remove(&own);
        let living: Vec<_> = all.into_iter().filter(|process| members.contains(&process.pid)).collect();
        self.known.extend(living.iter().map(|process| (process.pid, process.started)));
        Ok(living)
    }

    /// Whether it is a member for its own sake, not for its parent's.
    fn is_root(&self, process: &Process, adopters: &BTreeSet<i32>) -> bool {
        self.leader.is_some_and(|leader| process.group == leader || process.session == leader)
            || self.known.get(&process.pid) == Some(&process.started)
            || adopters.contains(&process.parent) && carries(process.pid, self.cookie)
    }

    /// Sends a signal to each once: the group in one go, as a fork could otherwise slip through, the others one by one.
    pub(super) fn signal(&self, living: &[Process], signal: i32) {
        if let Some(leader) = self.leader {
            send(leader, signal, Target::Group);
        }
        for process in living.iter().filter(|process| Some(process.group) != self.leader) {
            signal_one(process, signal);
        }
    }
}

/// Who becomes the parent of an orphan: the init process, a service manager, or one of those above us (subreapers).
fn adopters(all: &[Process], own: i32) -> BTreeSet<i32> {
    let mut adopters = BTreeSet::from([0, 1, own]);
    adopters.extend(all.iter().filter(|process| process.is_service_manager).map(|process| process.pid));
    let mut next = own;
    while let Some(process) = all.iter().find(|process| process.pid == next) {
        next = process.parent;
        if !adopters.insert(next) && next <= 1 {
            break;
        }
    }
    adopters
}

/// What the kernel tells of a process that lives (not of a zombie).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// In clock ticks since boot; with the pid it names a process for ever.
    started: u64,
    is_service_manager: bool,
}

impl Process {
    pub(super) fn look_up(pid: i32) -> Option<Self> {
        // A process that is gone by now is not an error: it lives no more.
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads `pid (name) state ppid pgrp session … starttime …`; the name may hold anything, parentheses too.
    pub(super) fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let open = stat.iter().position(|byte| *byte == b'(')?;
        let close = stat.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<_> = std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
        if matches!(*fields.first()?, "Z" | "X" | "x") {
            return None;
        }
        let number = |index: usize| fields.get(index)?.parse().ok();
        Some(Self {
            pid,
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
            started: fields.get(19)?.parse().ok()?,
            is_service_manager: stat.get(open + 1..close) == Some(b"systemd"),
        })
    }
}

pub(super) fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(pid.and_then(Process::look_up));
    }
    Ok(found)
}

/// Whether all these entries are in the environment that the process was given. Not if we may not read it.
pub(super) fn carries(pid: i32, cookie: &[String]) -> bool {
    if cookie.is_empty() {
        return false;
    }
    let Ok(environment) = environment_of(pid) else { return false };
    let entries: BTreeSet<_> = environment.split(|byte| *byte == 0).collect();
    cookie.iter().all(|entry| entries.contains(entry.as_bytes()))
}

/// Without CAP_SYS_PTRACE, as in a container, root may not look into the processes of other users, but each user into its
/// own: this thread looks as that user.
fn environment_of(pid: i32) -> io::Result<Vec<u8>> {
    let path = format!("/proc/{pid}/environ");
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && nix::unistd::geteuid().is_root() => {}
        read => return read,
    }
    let owner = fs::metadata(format!("/proc/{pid}"))?;
    let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    nix::unistd::setfsgid(gid);
    nix::unistd::setfsuid(uid);
    let read = fs::read(&path);
    nix::unistd::setfsuid(Uid::from_raw(0));
    nix::unistd::setfsgid(nix::unistd::getegid());
    read
}

/// Signals exactly this process: the descriptor is opened first, the start time compared then, so a reused pid is safe.
pub(super) fn signal_one(process: &Process, signal: i32) {
    let pidfd = open_pidfd(process.pid);
    if Process::look_up(process.pid).is_none_or(|now| now.started != process.started) {
        return;
    }
    match pidfd {
        Some(pidfd) => send(pidfd.as_raw_fd(), signal, Target::Descriptor),
        None => send(process.pid, signal, Target::Process),
    }
}

enum Target {
    Group,
    Process,
    Descriptor,
}

/// An error is not looked at: whether the signal worked is seen by who still lives.
fn send(number: i32, signal: i32, target: Target) {
    #[expect(unsafe_code, reason = "nix knows no pidfd_send_signal")]
    // SAFETY: numbers and a null pointer, which the call allows for its `info`.
    unsafe {
        match target {
            Target::Group => libc::kill(-number, signal),
            Target::Process => libc::kill(number, signal),
            Target::Descriptor => {
                let info = std::ptr::null::<libc::siginfo_t>();
                i32::from(libc::syscall(libc::SYS_pidfd_send_signal, number, signal, info, 0) != 0)
            }
        };
    }
}

pub(super) fn open_pidfd(pid: i32) -> Option<OwnedFd> {
    #[expect(unsafe_code, reason = "nix knows no pidfd_open")]
    // SAFETY: the call takes two numbers, and what it returns if not negative is a new descriptor that nobody else owns.
    unsafe {
        let descriptor = RawFd::try_from(libc::syscall(libc::SYS_pidfd_open, pid, 0)).ok()?;
        (descriptor >= 0).then(|| OwnedFd::from_raw_fd(descriptor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_about_a_process_whatever_its_name() {
        let stat = b"42 (a) Z (b) S 1 40 41 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1";
        let process = Process::parse(42, stat).expect("a process");
        let expected =
            Process { pid: 42, parent: 1, group: 40, session: 41, started: 987_654, is_service_manager: false };
        assert_eq!(process, expected);
        assert_eq!(Process::parse(42, b"42 (a) Z 1 40 41 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654"), None);
        assert_eq!(Process::parse(42, b"nonsense"), None);
    }
}
