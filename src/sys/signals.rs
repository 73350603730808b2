//! The signals that ask a process to stop, received by whoever waits for them instead of by a handler.

use std::io;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::AsFd;

/// SIGTERM, SIGINT and SIGHUP, kept for [`Signals::wait`]. Children get their own mask back (`process`).
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Keeps the signals from now on. Call it before any thread is started: a thread inherits the mask.
    pub fn keep() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Waits for one of them, at most this long; gives back its name.
    pub fn wait(&self, limit: Duration) -> io::Result<Option<&'static str>> {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut waiting = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(received) = self.0.read_signal()? else { return Ok(None) };
        let signal = i32::try_from(received.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        Ok(signal.map(Signal::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_signal_is_received_and_does_not_kill() {
        let signals = Signals::keep().expect("a descriptor");
        assert_eq!(signals.wait(Duration::from_millis(1)).expect("a wait"), None);
        nix::sys::signal::raise(Signal::SIGHUP).expect("a signal");
        assert_eq!(signals.wait(Duration::from_secs(10)).expect("a wait"), Some("SIGHUP"));
    }
}
