//! How running work is asked to stop: drain (begin nothing new) or cancel (end what runs, for a reason).
//!
//! Absent: signals and processes. Whoever catches a signal calls [`Stop::drain`]; whoever runs a child looks here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bell::Bell;

/// A shared request to stop. Clones are the same request.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    shared: Arc<Shared>,
    /// How long after a cancellation this one counts as cancelled.
    delay: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    bell: Bell,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    draining: bool,
    cancelled: Option<(String, Instant)>,
}

impl Stop {
    /// Nobody has asked for anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same request for work that may go on for a while after a cancellation.
    pub fn delayed(&self, by: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), delay: self.delay + by }
    }

    /// Asks to begin nothing new.
    pub fn drain(&self) {
        self.state().draining = true;
        self.shared.bell.ring();
    }

    /// Whether nothing new should begin.
    pub fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// Asks to end what runs. The first reason stays.
    pub fn cancel(&self, reason: &str) {
        self.state().cancelled.get_or_insert_with(|| (reason.to_owned(), Instant::now()));
        self.shared.bell.ring();
    }

    /// Why what runs should end, if it should.
    pub fn cancelled(&self) -> Option<String> {
        let state = self.state();
        let (reason, since) = state.cancelled.as_ref()?;
        (since.elapsed() >= self.delay).then(|| reason.clone())
    }

    /// Waits until something changes, at most this long. Returns at once when draining or cancelled; true if draining.
    pub fn wait(&self, limit: Duration) -> bool {
        let heard = self.shared.bell.rings();
        if !self.is_draining() && self.cancelled().is_none() {
            self.shared.bell.wait(heard, limit);
        }
        self.is_draining()
    }

    /// Lets this time pass, whether or not the process is draining. False if a cancellation cut it short.
    pub fn pause(&self, time: Duration) -> bool {
        let start = Instant::now();
        loop {
            let heard = self.shared.bell.rings();
            if self.cancelled().is_some() {
                return false;
            }
            let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else { return true };
            self.shared.bell.wait(heard, left);
        }
    }

    /// No code under this lock can leave its value half-changed, so poison says nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn the_first_reason_stays_and_all_clones_hear_it() {
        let stop = Stop::new();
        let other = stop.clone();
        stop.cancel("first");
        other.cancel("second");
        assert_eq!(other.cancelled().as_deref(), Some("first"));
        assert!(!other.is_draining());
        other.drain();
        assert!(stop.is_draining());
    }

    #[test]
    fn one_that_is_delayed_is_cancelled_later() {
        let stop = Stop::new();
        let (soon, late) = (stop.delayed(Duration::from_millis(20)), stop.delayed(LONG));
        stop.cancel("enough");
        assert!(stop.cancelled().is_some() && late.cancelled().is_none());
        let started = Instant::now();
        while soon.cancelled().is_none() {
            assert!(started.elapsed() < LONG);
            std::thread::yield_now();
        }
        assert!(started.elapsed() >= Duration::from_millis(15), "it had its time");
    }

    #[test]
    fn a_wait_ends_with_any_change() {
        let stop = Stop::new();
        let started = Instant::now();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.wait(LONG));
            stop.drain();
            assert!(waiting.join().expect("the waiting thread"));
        });
        assert!(stop.wait(LONG));
        assert!(started.elapsed() < LONG);
        assert!(!Stop::new().wait(Duration::from_millis(1)));
    }

    #[test]
    fn a_pause_outlasts_draining_but_not_a_cancellation() {
        let stop = Stop::new();
        stop.drain();
        assert!(stop.pause(Duration::from_millis(5)));
        std::thread::scope(|scope| {
            let paused = scope.spawn(|| stop.pause(LONG));
            stop.cancel("enough");
            assert!(!paused.join().expect("the paused thread"));
        });
    }
}
