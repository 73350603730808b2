//! How running work is asked to stop: drain (begin nothing new) or cancel (end what runs, for a reason).
//!
//! Absent: signals and processes. Whoever catches a signal calls [`Stop::drain`]; whoever runs a child looks here.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A shared request to stop. Clones are the same request; a [`Stop::child`] sees its parent's state and has its own.
#[derive(Clone)]
pub struct Stop(Arc<Node>);

struct Node {
    parent: Option<Stop>,
    bell: Arc<Bell>,
    state: Mutex<State>,
}

/// One for a whole family, so that a wait on a child wakes for its parent too.
#[derive(Default)]
struct Bell {
    changes: Mutex<u64>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    draining: bool,
    cancelled: Option<String>,
}

impl Stop {
    /// Nobody has asked for anything yet.
    pub fn new() -> Self {
        Self(Arc::new(Node { parent: None, bell: Arc::default(), state: Mutex::default() }))
    }

    /// One that is stopped by its parent or alone: a deployment's, below the process's.
    pub fn child(&self) -> Self {
        let bell = Arc::clone(&self.0.bell);
        Self(Arc::new(Node { parent: Some(self.clone()), bell, state: Mutex::default() }))
    }

    /// Asks to begin nothing new.
    pub fn drain(&self) {
        self.change(|state| state.draining = true);
    }

    /// Whether nothing new should begin.
    pub fn is_draining(&self) -> bool {
        locked(&self.0.state).draining || self.0.parent.as_ref().is_some_and(Self::is_draining)
    }

    /// Asks to end what runs. The first reason stays.
    pub fn cancel(&self, reason: &str) {
        self.change(|state| {
            state.cancelled.get_or_insert_with(|| reason.to_owned());
        });
    }

    /// Why what runs should end, if it should.
    pub fn cancelled(&self) -> Option<String> {
        let own = locked(&self.0.state).cancelled.clone();
        own.or_else(|| self.0.parent.as_ref().and_then(Self::cancelled))
    }

    /// Waits until something changes, at most this long. Returns at once when draining or cancelled; true if draining.
    pub fn wait(&self, limit: Duration) -> bool {
        let before = *locked(&self.0.bell.changes);
        if !self.is_draining() && self.cancelled().is_none() {
            self.wait_for_change(before, limit);
        }
        self.is_draining()
    }

    /// Lets this time pass, whether or not the process is draining. False if a cancellation cut it short.
    pub fn pause(&self, time: Duration) -> bool {
        let start = Instant::now();
        loop {
            let before = *locked(&self.0.bell.changes);
            if self.cancelled().is_some() {
                return false;
            }
            let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else { return true };
            self.wait_for_change(before, left);
        }
    }

    fn wait_for_change(&self, before: u64, limit: Duration) {
        let changes = locked(&self.0.bell.changes);
        // What the wait returns is looked up anew by the caller; a poisoned lock holds a number that is still right.
        drop(self.0.bell.rung.wait_timeout_while(changes, limit, |changes| *changes == before));
    }

    fn change(&self, set: impl FnOnce(&mut State)) {
        set(&mut locked(&self.0.state));
        *locked(&self.0.bell.changes) += 1;
        self.0.bell.rung.notify_all();
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Stop")
            .field("draining", &self.is_draining())
            .field("cancelled", &self.cancelled())
            .finish()
    }
}

/// No code under these locks can leave their values half-changed, so poison says nothing.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_child_sees_its_parent_and_not_the_other_way_round() {
        let parent = Stop::new();
        let (one, other) = (parent.child(), parent.child());
        one.cancel("first");
        one.cancel("second");
        assert_eq!(one.cancelled().as_deref(), Some("first"));
        assert_eq!((other.cancelled(), parent.cancelled()), (None, None));
        parent.drain();
        assert!(one.is_draining() && other.is_draining());
        parent.cancel("all");
        assert_eq!(other.cancelled().as_deref(), Some("all"));
        assert_eq!(one.cancelled().as_deref(), Some("first"));
    }

    #[test]
    fn a_wait_ends_with_any_change_in_the_family() {
        let parent = Stop::new();
        let child = parent.child();
        let started = Instant::now();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| child.wait(LONG));
            parent.drain();
            assert!(waiting.join().expect("the waiting thread"));
        });
        assert!(child.wait(LONG));
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
