//! Runs one child, and ends everything it started.
//!
//! The end of a child is the exit of its main process, not the end of its output: a daemon it left behind may hold the
//! pipe for ever. What it left behind is found in three ways, and ended (TERM, grace, KILL) before its end is reported:
//!
//! - its session and process group, which the main process leads, and which stay reserved until it is reaped;
//! - the descendants of those, by parent;
//! - orphans that carry the cookie (entries of the environment the child was given), for what left the session
//!   (`setsid`, a double fork). Such a process counts only if it has no foreign parent: `pm2` and its like start
//!   programs with their client's environment, and those belong to the daemon, not to the hook that asked for them.
//!
//! ```text
//! mod   starts a child, follows it to its end, presses it to end     family   who belongs to it, and signals
//! entry between fork and exec: session, identity, privileges
//! ```
//!
//! Absent: `PR_SET_PDEATHSIG` (it fires when the thread that forked ends), any shell, any inherited environment.

mod entry;
mod family;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::stop::Stop;

use entry::Entry;
use family::{Family, Process, open_pidfd};

/// What to run, and how.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The program, by its absolute path.
    pub program: &'a Path,
    /// Its arguments.
    pub args: &'a [OsString],
    /// Its working directory.
    pub directory: &'a Path,
    /// Its whole environment; nothing is inherited.
    pub environment: &'a [(String, OsString)],
    /// Whom it runs as, without capabilities. None: as this process, a plain user's without capabilities.
    pub run_as: Option<&'a Identity>,
    /// Its file mode creation mask.
    pub umask: u32,
    /// How long it may run.
    pub time_limit: Duration,
    /// How long after TERM it is killed.
    pub grace: Duration,
    /// Entries (`KEY=value`) of its environment by which what left its session is found; empty: not looked for.
    pub cookie: &'a [String],
}

/// Whom a child runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// Every group it is in; replaces those of this process.
    pub groups: Vec<u32>,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exit(i32),
    /// This signal ended it, and it was not ours.
    Signal(i32),
    /// It was ended at its time limit.
    TimeLimit,
    /// It was ended because its `Stop` was cancelled, for this reason.
    Cancelled(String),
}

/// Starts a child. An error here means that nothing of it ever ran.
pub fn start<'a>(spec: &Spec<'a>) -> io::Result<Started<'a>> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(&reader)?;
    let mut command = Command::new(spec.program);
    command
        .args(spec.args)
        .current_dir(spec.directory)
        .env_clear()
        .envs(spec.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let entry = Entry::prepare(spec);
    #[expect(unsafe_code, reason = "session, identity and privileges can only be set between fork and exec")]
    // SAFETY: the closure makes async-signal-safe calls only and neither allocates nor locks; see `Entry::enter`.
    unsafe {
        command.pre_exec(move || entry.enter());
    }
    let child = command.spawn()?;
    let pid = pid_of(&child);
    Ok(Started {
        pidfd: open_pidfd(pid),
        pipe: Some(File::from(reader)),
        exited: false,
        reaped: false,
        deadline: Instant::now().checked_add(spec.time_limit),
        grace: spec.grace,
        family: Family { leader: Some(pid), cookie: spec.cookie, known: BTreeMap::new() },
        child,
    })
}

/// Ends every process that carries all these entries in its environment and was not started by a foreign daemon: TERM, up
/// to `grace`, KILL. Returns how many there were. An empty cookie finds nothing.
pub fn end_all(cookie: &[String], grace: Duration) -> io::Result<usize> {
    let mut family = Family { leader: None, cookie, known: BTreeMap::new() };
    let mut phase = Phase::Running;
    loop {
        let living = family.living()?;
        if living.is_empty() {
            return Ok(family.known.len());
        }
        phase = phase.press(&family, &living, grace)?;
        std::thread::sleep(TICK);
    }
}

/// A child that runs. Dropping it kills it and its family.
#[derive(Debug)]
#[must_use = "dropping it kills the child"]
pub struct Started<'a> {
    child: std::process::Child,
    /// None on a kernel without it; then the exit is looked for at every tick.
    pidfd: Option<OwnedFd>,
    /// None after its end.
    pipe: Option<File>,
    exited: bool,
    reaped: bool,
    deadline: Option<Instant>,
    grace: Duration,
    family: Family<'a>,
}

impl Started<'_> {
    /// Takes the child's output until it ended and everything it started is gone. An error means that its output could not be
    /// taken, or that it does not end; nothing that it started lives then either, as far as it can be killed.
    pub fn follow(mut self, stop: &Stop, output: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<End> {
        let mut failed = None;
        let mut take = |bytes: &[u8]| {
            if failed.is_none() {
                failed = output(bytes).err();
            }
            failed.is_some()
        };
        let ended = self.attend(stop, &mut take)?;
        self.pump_rest(&mut take)?;
        // Not before now: until it is reaped, its process group can not become somebody else's.
        let status = self.child.wait()?;
        self.reaped = true;
        match failed {
            Some(error) => Err(error),
            None => Ok(ended.unwrap_or_else(|| end_of(status))),
        }
    }

    /// Returns when the main process has ended and its family is gone; with a value if that was our doing.
    fn attend(&mut self, stop: &Stop, take: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<Option<End>> {
        let mut phase = Phase::Running;
        let mut ended = None;
        let mut next_look = Instant::now() + FAMILY_LOOK;
        loop {
            if Instant::now() >= next_look {
                // A child that leaves the session without the cookie is known by its parent, while that lives.
                self.family.living()?;
                next_look = Instant::now() + FAMILY_LOOK;
            }
            let refused = self.pump(phase.tick(), take)?;
            self.exited = self.exited || has_exited(self.family.leader)?;
            if phase == Phase::Running && !self.exited {
                ended = self.overdue(stop);
                if ended.is_none() && !refused {
                    continue;
                }
            }
            let living = self.family.living()?;
            if living.is_empty() && self.exited {
                return Ok(ended);
            }
            phase = phase.press(&self.family, &living, self.grace)?;
        }
    }

    fn overdue(&self, stop: &Stop) -> Option<End> {
        if let Some(reason) = stop.cancelled() {
            return Some(End::Cancelled(reason));
        }
        self.deadline.filter(|deadline| Instant::now() >= *deadline).map(|_| End::TimeLimit)
    }

    /// Waits for output or the exit, at most a tick, and passes on what there is. True if nobody takes it any more.
    fn pump(&mut self, tick: Duration, take: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<bool> {
        let limit = self.deadline.map_or(tick, |deadline| match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => tick,
            left => left.min(tick),
        });
        let mut waited_for = Vec::with_capacity(2);
        if let Some(pipe) = &self.pipe {
            waited_for.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        }
        if let Some(pidfd) = self.pidfd.as_ref().filter(|_| !self.exited) {
            waited_for.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
        }
        // Rounded up: a wait of 0 ms just before the deadline would spin.
        let timeout = PollTimeout::try_from(limit.as_millis() + 1).unwrap_or(PollTimeout::ZERO);
        match nix::poll::poll(&mut waited_for, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.read(READS_PER_TICK, take)
    }

    /// What is left in the pipe once everyone who wrote to it is gone.
    fn pump_rest(&mut self, take: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        self.read(READS_AT_END, take).map(|_| ())
    }

    fn read(&mut self, times: usize, take: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        let mut refused = false;
        for _ in 0..times {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(length) => refused = take(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        let living = self.family.living().unwrap_or_default();
        self.family.signal(&living, libc::SIGKILL);
        // A bounded wait: a process that can not be killed (a dead network file system) must not stop us as well.
        let give_up = Instant::now() + KILL_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < give_up {
            std::thread::sleep(TICK);
        }
    }
}

/// How hard the family is pressed to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not at all.
    Running,
    /// TERM was sent; KILL follows at this time.
    Asked(Instant),
    /// KILL was sent; at this time we give up.
    Killed(Instant),
}

impl Phase {
    fn tick(self) -> Duration {
        match self {
            Self::Running => LONG_TICK,
            Self::Asked(_) | Self::Killed(_) => TICK,
        }
    }

    /// The next phase, after its signal was sent.
    fn press(self, family: &Family<'_>, living: &[Process], grace: Duration) -> io::Result<Self> {
        let now = Instant::now();
        match self {
            Self::Running => {
                family.signal(living, libc::SIGTERM);
                Ok(Self::Asked(now + grace))
            }
            Self::Asked(until) if now < until => Ok(self),
            Self::Asked(_) => {
                family.signal(living, libc::SIGKILL);
                Ok(Self::Killed(now + KILL_LIMIT))
            }
            Self::Killed(until) if now < until => {
                // Again, for what was forked while we looked.
                family.signal(living, libc::SIGKILL);
                Ok(self)
            }
            Self::Killed(_) => {
                let pids: Vec<_> = living.iter().map(|process| process.pid.to_string()).collect();
                let text = format!("these processes do not end when killed: {}", pids.join(", "));
                Err(io::Error::new(ErrorKind::TimedOut, text))
            }
        }
    }
}

/// Whether our child has ended; it is left to be reaped.
fn has_exited(pid: Option<i32>) -> io::Result<bool> {
    let Some(pid) = pid.and_then(|pid| libc::id_t::try_from(pid).ok()) else { return Ok(true) };
    #[expect(unsafe_code, reason = "nix refuses real-time signals in what waitid returns")]
    // SAFETY: `info` is plain old data that the call fills; it is zeroed, since the call leaves it alone if none ended.
    let (result, ended) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT);
        (result, info.si_pid() != 0)
    };
    if result == 0 {
        return Ok(ended);
    }
    match io::Error::last_os_error() {
        error if error.kind() == ErrorKind::Interrupted => Ok(false),
        error => Err(error),
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::Exit(status.into_raw()),
    }
}

fn pid_of(child: &std::process::Child) -> i32 {
    child.id().cast_signed()
}

fn set_nonblocking(descriptor: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// How soon a cancellation is noticed; output and exit wake us at once.
const LONG_TICK: Duration = Duration::from_millis(50);

/// How often a child that runs is asked for its family; a look at a hundred processes takes a millisecond.
const FAMILY_LOOK: Duration = Duration::from_millis(250);

/// How often we look whether those who were asked to end have done so.
const TICK: Duration = Duration::from_millis(20);

/// A killed process that is not gone by then hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A pipe's usual capacity.
const CHUNK: usize = 64 * 1024;

/// So that a flood does not keep us from the clock.
const READS_PER_TICK: usize = 16;

/// More than a pipe can hold: enough for everything that is left, and an end if a foreign process holds it.
const READS_AT_END: usize = 32;

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::family::{carries, processes, signal_one};
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const NONE: [i32; 0] = [];

    /// A directory, a cookie of its own, and what a script said.
    struct House {
        directory: tempfile::TempDir,
        cookie: Vec<String>,
        limit: Duration,
        grace: Duration,
        run_as: Option<Identity>,
        stop: Stop,
        output: Vec<u8>,
    }

    impl House {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            Self {
                directory: tempfile::tempdir().expect("a directory"),
                cookie: vec![format!("LANDFALL_TEST={}.{number}", std::process::id()), "SECOND=2".into()],
                limit: MINUTE,
                grace: Duration::from_millis(300),
                run_as: None,
                stop: Stop::new(),
                output: Vec::new(),
            }
        }

        fn environment(&self) -> Vec<(String, OsString)> {
            let mut environment = vec![("PATH".to_owned(), OsString::from("/usr/bin:/bin"))];
            let entries = self.cookie.iter().filter_map(|entry| entry.split_once('='));
            environment.extend(entries.map(|(name, value)| (name.to_owned(), value.into())));
            environment
        }

        fn spec<'a>(&'a self, args: &'a [OsString], environment: &'a [(String, OsString)]) -> Spec<'a> {
            Spec {
                program: Path::new("/bin/bash"),
                args,
                directory: self.directory.path(),
                environment,
                run_as: self.run_as.as_ref(),
                umask: 0o002,
                time_limit: self.limit,
                grace: self.grace,
                cookie: &self.cookie,
            }
        }

        fn run(&mut self, script: &str) -> End {
            let mut output = Vec::new();
            let end = self.run_into(script, &mut |bytes| {
                output.extend_from_slice(bytes);
                Ok(())
            });
            self.output = output;
            assert_eq!(self.living(), NONE, "{script}");
            end.expect("an end")
        }

        fn run_into(&self, script: &str, output: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<End> {
            let args = [OsString::from("-c"), script.into()];
            start(&self.spec(&args, &self.environment()))?.follow(&self.stop, output)
        }

        fn text(&self) -> &str {
            std::str::from_utf8(&self.output).expect("UTF-8")
        }

        /// Every process with our cookie, whoever its parent is.
        fn living(&self) -> Vec<i32> {
            let all = processes().expect("the processes");
            all.iter().map(|process| process.pid).filter(|pid| carries(*pid, &self.cookie)).collect()
        }
    }

    #[test]
    fn an_end_is_told_as_it_was() {
        let table = [
            ("exit 0", End::Exit(0)),
            ("exit 3", End::Exit(3)),
            ("kill -9 $$", End::Signal(9)),
            ("kill -TERM $$", End::Signal(15)),
            ("kill -RTMIN $$", End::Signal(34)),
            ("no-such-command-here", End::Exit(127)),
        ];
        for (script, expected) in table {
            assert_eq!(House::new().run(script), expected, "{script}");
        }
    }

    #[test]
    fn output_comes_whole_and_in_order_and_raw() {
        let mut house = House::new();
        house.run("echo one; echo two >&2; echo three");
        assert_eq!(house.output, b"one\ntwo\nthree\n");
        house.run(r"printf '\xff\xfe\x00 no end of line'");
        assert_eq!(house.output, b"\xff\xfe\x00 no end of line");
        assert_eq!(house.run("head -c 31457280 /dev/zero"), End::Exit(0));
        assert_eq!(house.output.len(), 30 << 20);
    }

    #[test]
    fn a_child_that_takes_too_long_is_ended() {
        let table = [
            "sleep 1000",
            "while :; do :; done",
            "trap '' TERM; sleep 1000; sleep 1000",
            "trap '' TERM; while :; do echo flood; done",
            "kill -STOP $$",
            "exec >&- 2>&-; sleep 1000",
            "trap '' TERM; env -i setsid sleep 1000; :",
        ];
        for script in table {
            let mut house = House::new();
            house.limit = Duration::from_millis(300);
            let started = Instant::now();
            assert_eq!(house.run(script), End::TimeLimit, "{script}");
            assert!(started.elapsed() < Duration::from_secs(10), "{script}");
        }
    }

    #[test]
    fn a_child_receives_the_signals_that_we_keep_for_ourselves() {
        let mut kept = nix::sys::signal::SigSet::empty();
        kept.add(nix::sys::signal::Signal::SIGTERM);
        kept.thread_block().expect("a mask");
        assert_eq!(House::new().run("kill -TERM $$; sleep 0.1"), End::Signal(15));
        kept.thread_unblock().expect("a mask");
    }

    #[test]
    fn a_child_has_its_grace_to_tidy_up() {
        let mut house = House::new();
        house.limit = Duration::from_millis(300);
        house.grace = MINUTE;
        assert_eq!(house.run("trap 'echo tidy; exit 0' TERM; while :; do :; done"), End::TimeLimit);
        assert_eq!(house.text(), "tidy\n");
    }

    #[test]
    fn what_a_child_leaves_behind_ends_with_it() {
        let table = [
            ("holds the pipe", "sleep 1000 & echo done"),
            ("holds the pipe and ignores TERM", "(trap '' TERM; sleep 1000; sleep 1000) & echo done"),
            ("own group", "set -m; sleep 1000 & echo done"),
            ("own session", "setsid sleep 1000 & sleep 0.2; echo done"),
            ("own session, no pipe", "setsid sleep 1000 >/dev/null 2>&1 </dev/null & sleep 0.2; echo done"),
            ("double fork", "(setsid bash -c 'sleep 1000 & exit' &); sleep 0.2; echo done"),
            ("writes for ever", "setsid bash -c 'while :; do echo x >/dev/null; done' & sleep 0.2; echo done"),
            ("child without a cookie", "setsid bash -c 'env -i sleep 1234; :' & sleep 0.2; echo done"),
            ("stopped", "setsid bash -c 'kill -STOP $$' & sleep 0.2; echo done"),
        ];
        for (name, script) in table {
            let mut house = House::new();
            let started = Instant::now();
            assert_eq!(house.run(script), End::Exit(0), "{name}");
            assert_eq!(house.text(), "done\n", "{name}");
            assert!(started.elapsed() < Duration::from_secs(10), "{name}");
        }
    }

    #[test]
    fn a_cancellation_ends_a_child_quickly() {
        let mut house = House::new();
        house.grace = MINUTE;
        let (stop, started) = (house.stop.clone(), Instant::now());
        let args = [OsString::from("-c"), "echo ready; sleep 1000 & sleep 1000".into()];
        let mut seen = Vec::new();
        let environment = house.environment();
        let child = start(&house.spec(&args, &environment)).expect("a child");
        let end = child.follow(&house.stop, &mut |bytes| {
            seen.extend_from_slice(bytes);
            stop.cancel("an operator said so");
            Ok(())
        });
        assert_eq!(end.expect("an end"), End::Cancelled("an operator said so".into()));
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!((seen.as_slice(), house.living()), (&b"ready\n"[..], NONE.to_vec()));
    }

    #[test]
    fn output_that_can_not_be_kept_ends_the_child() {
        let house = House::new();
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        let error = house.run_into("while :; do echo x; done", &mut |_| Err(full())).expect_err("an error");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(house.living(), NONE);
    }

    #[test]
    fn a_child_that_can_not_start_is_an_error() {
        let house = House::new();
        let environment = house.environment();
        let absent = Spec { program: Path::new("/no/such/program"), ..house.spec(&[], &environment) };
        let error = start(&absent).map(drop).expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_child_that_is_dropped_is_gone() {
        let house = House::new();
        let (args, environment) = ([OsString::from("-c"), "sleep 1000 & wait".into()], house.environment());
        drop(start(&house.spec(&args, &environment)).expect("a child"));
        assert_eq!(house.living(), NONE);
    }

    #[test]
    fn a_child_starts_from_a_clean_slate() {
        let mut house = House::new();
        let inherited = File::open("/dev/null").expect("a file");
        let number = inherited.as_raw_fd();
        #[expect(unsafe_code, reason = "a descriptor that another library left inheritable")]
        // SAFETY: numbers only; the descriptor is ours.
        unsafe {
            libc::fcntl(number, libc::F_SETFD, 0);
        }
        house.run("cat; umask; ls /proc/self/fd | tr '\\n' ' '; echo; ls -l /proc/self/fd/0 | sed 's/.*-> //'");
        // `ls` itself has the directory open as 3.
        assert_eq!(house.text(), "0002\n0 1 2 3 \n/dev/null\n");
        house.run("echo $PPID; cat /proc/self/status; cat /proc/$$/stat");
        assert_eq!(field(house.text(), "NoNewPrivs"), "1");
        assert_eq!(field(house.text(), "SigIgn"), "0000000000000000");
        assert_eq!(field(house.text(), "SigBlk"), "0000000000000000");
        assert_eq!(field(house.text(), "CapAmb"), "0000000000000000");
        let stat = house.text().lines().last().expect("a line");
        let pid = stat.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        let process = Process::parse(pid, stat.as_bytes()).expect("a process");
        assert_eq!((process.group, process.session), (pid, pid));
    }

    #[test]
    fn root_leaves_everything_behind_when_it_becomes_a_user() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for identity in [
            Identity { uid: 65_534, gid: 65_534, groups: vec![65_534, 4_242] },
            Identity { uid: 65_534, gid: 65_534, groups: vec![] },
            Identity { uid: 0, gid: 0, groups: vec![0] },
        ] {
            let mut house = House::new();
            house.run_as = Some(identity.clone());
            assert_eq!(house.run("cat /proc/self/status"), End::Exit(0));
            let text = house.text();
            let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
            assert_eq!(field(text, "Uid"), four(identity.uid));
            assert_eq!(field(text, "Gid"), four(identity.gid));
            let mut groups = identity.groups.clone();
            groups.sort_unstable();
            assert_eq!(field(text, "Groups"), groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(field(text, set), "0000000000000000", "{set} of {identity:?}");
            }
            assert_eq!(field(text, "NoNewPrivs"), "1");
        }
    }

    #[test]
    fn a_plain_user_may_name_itself() {
        let us = Identity {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            groups: nix::unistd::getgroups().expect("our groups").iter().map(|group| group.as_raw()).collect(),
        };
        let mut house = House::new();
        house.run_as = Some(us);
        assert_eq!(house.run("exit 0"), End::Exit(0));
    }

    #[test]
    fn orphans_of_a_crash_are_found_by_their_cookie() {
        let house = House::new();
        let (args, environment) =
            ([OsString::from("-c"), "trap '' TERM; setsid sleep 1000 & wait; wait".into()], house.environment());
        let mut started = start(&house.spec(&args, &environment)).expect("a child");
        wait_until(|| house.living().len() == 2);
        assert_eq!(end_all(&[], house.grace).expect("none"), 0);
        let other = vec![house.cookie[0].clone(), "SECOND=20".to_owned()];
        assert_eq!(end_all(&other, house.grace).expect("none"), 0);
        assert_eq!(end_all(&house.cookie, house.grace).expect("both"), 2);
        assert_eq!(end_all(&house.cookie, house.grace).expect("none"), 0);
        started.reaped = started.child.wait().is_ok();
    }

    #[test]
    fn a_foreign_daemon_keeps_what_it_started_for_us() {
        // As pm2 does: a daemon that was there before starts a program with the environment of the one who asked.
        let mut house = House::new();
        let cookie = house.cookie.join(" ");
        let program = format!("env {cookie} sleep 1000 & wait");
        let mut daemon = Command::new("/bin/bash").args(["-c", &program]).spawn().expect("a daemon");
        wait_until(|| house.living().len() == 1);
        let kept = house.living();
        let mut living = Vec::new();
        let end = house.run_into("exit 0", &mut |_| Ok(())).expect("an end");
        living.extend(house.living());
        assert_eq!((end, living), (End::Exit(0), kept.clone()));
        assert_eq!(end_all(&house.cookie, house.grace).expect("none"), 0);
        for pid in kept {
            signal_one(&Process::look_up(pid).expect("it lives"), libc::SIGKILL);
        }
        daemon.wait().expect("the daemon's end");
        house.output.clear();
    }

    fn field<'a>(status: &'a str, name: &str) -> &'a str {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.expect("the field").trim()
    }

    fn wait_until(mut condition: impl FnMut() -> bool) {
        let limit = Instant::now() + MINUTE;
        while !condition() {
            assert!(Instant::now() < limit, "the condition never came true");
            std::thread::sleep(TICK);
        }
    }
}
