//! How often deliveries were refused, and what of that is told: the first few of each minute are logged, the others counted.
//! So whoever sends rubbish fills neither the log nor the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::name::RepositoryName;

/// The refusals of each repository.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<RepositoryName, Window>>);

/// The refusals of a repository in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    since: DateTime<Utc>,
    count: u64,
}

/// What to do with a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// Log it, after this many earlier ones that were not logged.
    Log { unlogged: u64 },
    /// Only count it.
    Count,
}

impl Refusals {
    /// Counts a refusal, and logs it if it is one of the first.
    pub(super) fn log(
        &self,
        repository: &RepositoryName,
        reason: &dyn fmt::Display,
        source: IpAddr,
        now: DateTime<Utc>,
    ) {
        let telling = {
            let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let window = windows.entry(repository.clone()).or_insert(Window { since: now, count: 0 });
            window.take(now)
        };
        let Telling::Log { unlogged } = telling else { return };
        tell_unlogged(repository, unlogged);
        log::warn!("refused a delivery: {reason} repository={repository} source={source}");
    }

    /// Tells how many were not logged in the minutes that are over.
    pub(super) fn tell_past(&self, now: DateTime<Utc>) {
        self.tell(|window| window.is_over(now));
    }

    /// Tells how many were not logged at all.
    pub(super) fn tell_all(&self) {
        self.tell(|_| true);
    }

    fn tell(&self, is_due: impl Fn(&Window) -> bool) {
        let mut due = Vec::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|repository, window| {
            let keep = !is_due(window);
            if !keep {
                due.push((repository.clone(), window.unlogged()));
            }
            keep
        });
        for (repository, unlogged) in due {
            tell_unlogged(&repository, unlogged);
        }
    }
}

fn tell_unlogged(repository: &RepositoryName, unlogged: u64) {
    if unlogged > 0 {
        log::warn!("refused {unlogged} more deliveries, which were only counted repository={repository}");
    }
}

impl Window {
    fn take(&mut self, now: DateTime<Utc>) -> Telling {
        let mut unlogged = 0;
        if self.is_over(now) {
            unlogged = self.unlogged();
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        if self.count <= LOGGED_PER_WINDOW { Telling::Log { unlogged } } else { Telling::Count }
    }

    /// Also when the clock has stepped back, which must not silence the log.
    fn is_over(&self, now: DateTime<Utc>) -> bool {
        now - self.since >= WINDOW || now < self.since
    }

    fn unlogged(&self) -> u64 {
        self.count.saturating_sub(LOGGED_PER_WINDOW)
    }
}

const WINDOW: TimeDelta = TimeDelta::minutes(1);

/// Enough to see what is wrong with a forge's settings.
const LOGGED_PER_WINDOW: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusals_of_a_minute_are_logged_and_the_others_counted() {
        let start = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let mut window = Window { since: start, count: 0 };
        for _ in 0..LOGGED_PER_WINDOW {
            assert_eq!(window.take(start), Telling::Log { unlogged: 0 });
        }
        for second in 0..7 {
            assert_eq!(window.take(start + TimeDelta::seconds(second)), Telling::Count);
        }
        assert_eq!(window.take(start + WINDOW), Telling::Log { unlogged: 7 });
        assert_eq!(window.take(start + WINDOW), Telling::Log { unlogged: 0 });
    }

    #[test]
    fn a_clock_that_steps_back_does_not_silence_the_log() {
        let start = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let mut window = Window { since: start, count: LOGGED_PER_WINDOW };
        assert_eq!(window.take(start - TimeDelta::hours(1)), Telling::Log { unlogged: 0 });
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let start = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let refusals = Refusals::default();
        let blog = RepositoryName::parse("blog").expect("a name");
        let source = IpAddr::from([192, 0, 2, 1]);
        let windows = || refusals.0.lock().expect("windows").clone();
        for _ in 0..LOGGED_PER_WINDOW + 5 {
            refusals.log(&blog, &"no", source, start);
        }
        refusals.tell_past(start + TimeDelta::seconds(59));
        assert_eq!(windows().values().map(Window::unlogged).collect::<Vec<_>>(), [5]);
        refusals.tell_past(start + WINDOW);
        assert_eq!(windows().len(), 0);
        refusals.log(&blog, &"no", source, start);
        refusals.tell_all();
        assert_eq!(windows().len(), 0);
    }
}
