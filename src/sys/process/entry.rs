//! What a child does to itself between fork and exec: session, signals, descriptors, identity, privileges.
//!
//! Only async-signal-safe calls and no allocation here: other threads of the parent may have held any lock at the fork.

use std::io;
use std::os::fd::RawFd;

use nix::libc;

use super::{Identity, Spec};

/// What the child does to itself between fork and exec; prepared before the fork, where memory may still be allocated.
pub(super) struct Entry {
    umask: libc::mode_t,
    become_user: Option<Identity>,
    keep_capabilities: bool,
    highest_descriptor: RawFd,
}

impl Entry {
    pub(super) fn prepare(spec: &Spec<'_>) -> Self {
        let is_root = nix::unistd::geteuid().is_root();
        // A plain user may not even set the groups it has.
        let is_us = |identity: &&Identity| {
            !is_root
                && identity.uid == nix::unistd::geteuid().as_raw()
                && identity.gid == nix::unistd::getegid().as_raw()
        };
        Self {
            umask: spec.umask,
            become_user: spec.run_as.filter(|identity| !is_us(identity)).cloned(),
            keep_capabilities: spec.run_as.is_none() && is_root,
            highest_descriptor: highest_descriptor(),
        }
    }

    /// Only async-signal-safe calls, no allocation: other threads of the parent may have held any lock at the fork.
    pub(super) fn enter(&self) -> io::Result<()> {
        #[expect(unsafe_code, reason = "these calls concern the process that is about to be replaced")]
        // SAFETY: async-signal-safe system calls over numbers and memory that was allocated before the fork.
        unsafe {
            check(libc::setsid())?;
            libc::umask(self.umask);
            // What our own parent ignored would stay ignored. Not through libc, which refuses the two signals it uses itself.
            let default = [0_u64; KERNEL_SIGACTION_WORDS];
            for signal in 1..=LAST_SIGNAL {
                libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, size_of::<u64>());
            }
            // A server that keeps TERM for itself has it blocked in every thread, and std hands the mask down.
            let none = 0_u64;
            let no_old = std::ptr::null::<u64>();
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, no_old, size_of::<u64>());
            self.keep_descriptors_from_the_child();
            if !self.keep_capabilities {
                drop_bounding_set();
            }
            if let Some(identity) = &self.become_user {
                become_user(identity)?;
            }
            if !self.keep_capabilities {
                drop_capabilities()?;
            }
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        }
    }

    /// Marks, not closes: std still needs its own one to report that exec failed.
    #[expect(unsafe_code, reason = "system calls without a safe form")]
    unsafe fn keep_descriptors_from_the_child(&self) {
        // SAFETY: numbers only.
        unsafe {
            if libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) == 0 {
                return;
            }
            // Before Linux 5.11.
            for descriptor in 3..self.highest_descriptor {
                libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

/// Groups, group, user, in this order, and then makes sure that there is no way back.
#[expect(unsafe_code, reason = "the identity of the process that is about to be replaced")]
unsafe fn become_user(identity: &Identity) -> io::Result<()> {
    let Identity { uid, gid, groups } = identity;
    let (mut real, mut effective, mut saved) = (u32::MAX, u32::MAX, u32::MAX);
    // SAFETY: async-signal-safe system calls; the pointers are to live memory of the right length.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(*gid, *gid, *gid))?;
        check(libc::setresuid(*uid, *uid, *uid))?;
        check(libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved))?;
    }
    if (real, effective, saved) == (*uid, *uid, *uid) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// So that not even a program with file capabilities could have any. Needs a capability itself; without it, no_new_privs
/// says the same.
#[expect(unsafe_code, reason = "a system call without a safe form")]
unsafe fn drop_bounding_set() {
    for capability in 0..=HIGHEST_CAPABILITY {
        // SAFETY: numbers only.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Becoming another user from root clears most of them, from a plain user with capabilities none.
#[expect(unsafe_code, reason = "a system call without a safe form")]
unsafe fn drop_capabilities() -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let none = [CapabilitySet { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: the kernel reads a header and two sets, as version 3 has them; both live until it returns.
    unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        if libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilitySet {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn highest_descriptor() -> RawFd {
    let limit =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    RawFd::try_from(limit).unwrap_or(RawFd::MAX).min(65_536)
}

const LAST_SIGNAL: i32 = 64;

/// Handler, flags, restorer and mask, each a word at most; all zero is the default action.
const KERNEL_SIGACTION_WORDS: usize = 8;

/// The kernel has a few more than 40 and refuses numbers it does not know.
const HIGHEST_CAPABILITY: libc::c_ulong = 63;

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
