//! How often deliveries were refused and why, and what of that is told: the first few of each minute are logged, with what the
//! operator should look at; the others are counted, and told when the minute is over. So whoever sends rubbish fills neither the
//! log nor the disk, and costs no more than a number.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Config;
use crate::domain::name::RepositoryName;
use crate::domain::secret::Secret;
use crate::webhook::{Allowance, Doubt, Hint, Malformed, Other, Refusal, Request, explain};

use super::Service;
use super::receive::ReceiveError;

/// How many refusals there were, by the word for their reason.
pub type Counts = BTreeMap<&'static str, u64>;

/// The refusals of each repository since the start.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    tallies: Mutex<BTreeMap<RepositoryName, Tally>>,
    effort: Mutex<Effort>,
}

/// What was spent in this minute on hints for all repositories together.
#[derive(Debug, Default)]
struct Effort {
    since: DateTime<Utc>,
    /// What was signed and written, and what is reserved by those who are at it.
    bytes: usize,
}

/// What one refusal may spend.
#[derive(Debug)]
struct Reserved {
    /// The minute that it is taken from.
    since: DateTime<Utc>,
    bytes: usize,
}

/// The refusals of one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tally {
    /// When the minute began.
    since: DateTime<Utc>,
    /// How many of it were logged.
    logged: u64,
    /// Those that nobody was told about.
    untold: Counts,
    /// All since the start.
    total: Counts,
}

/// What to do with a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Telling {
    /// Log it, after these earlier ones that were not logged.
    Log { untold: Counts },
    /// Only count it.
    Count,
}

impl Service {
    /// Counts a refusal and logs it, if it is one of the first, with the best hint there is. The sender is told nothing.
    pub(super) fn refuse(
        &self,
        repository: &RepositoryName,
        refusal: &Refusal,
        request: &Request,
        source: IpAddr,
    ) -> ReceiveError {
        let now = self.now();
        self.refusals.log(repository, refusal.word(), source, now, || match self.hint(repository, request, now) {
            Some(hint) => format!("{refusal} (help: {hint})"),
            None => refusal.to_string(),
        });
        ReceiveError::Refused
    }

    /// Tells of a delivery that is authentic and makes no sense. Where anybody may have one signed, this is as cheap as a
    /// refusal, and is told as seldom.
    pub(super) fn tell_malformed(&self, repository: &RepositoryName, malformed: &Malformed, source: IpAddr) {
        let reason = || format!("it is authentic, and makes no sense: {malformed}");
        self.refusals.log(repository, "malformed", source, self.now(), reason);
    }

    /// The same for a source that the repository does not take webhooks from.
    pub(super) fn refuse_source(&self, repository: &RepositoryName, source: IpAddr) -> ReceiveError {
        let reason = || "its source is in no network of `allow_from`".to_owned();
        self.refusals.log(repository, "source", source, self.now(), reason);
        ReceiveError::Refused
    }

    fn hint(&self, repository: &RepositoryName, request: &Request, now: DateTime<Utc>) -> Option<Hint> {
        let effort = || self.refusals.effort.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved = effort().reserve(now);
        let allowance = Allowance::for_strangers(reserved.bytes);
        let hints = hints(&self.app.config, &self.webhook_secrets, repository, (request, now), &allowance);
        effort().give_back(&reserved, allowance.left());
        hints.into_iter().next()
    }

    /// How often deliveries were refused since the start.
    pub fn refusal_counts(&self) -> BTreeMap<RepositoryName, Counts> {
        self.refusals.tallies().iter().map(|(name, tally)| (name.clone(), tally.total.clone())).collect()
    }

    /// Tells the operator of the refusals of past minutes that were only counted.
    pub fn tell_past_refusals(&self) {
        let now = self.now();
        self.refusals.tell(|tally| tally.is_over(now));
    }

    /// Tells the operator of all refusals since the start, which is all that is left of them after the end.
    pub fn tell_all_refusals(&self) {
        self.refusals.tell(|_| true);
        for (repository, counts) in self.refusal_counts() {
            let count: u64 = counts.values().sum();
            log::info!("refused deliveries since the start: {count} ({}) repository={repository}", listed(&counts));
        }
    }
}

/// What an operator should look at when this repository refuses this request.
pub(super) fn hints(
    config: &Config,
    secrets: &BTreeMap<RepositoryName, Vec<Secret>>,
    repository: &RepositoryName,
    (request, now): (&Request, DateTime<Utc>),
    allowance: &Allowance,
) -> Vec<Hint> {
    let Some(configured) = config.repositories.get(repository) else { return Vec::new() };
    let secrets_of = |name| secrets.get(name).map(Vec::as_slice).unwrap_or_default();
    let others = config.repositories.iter().filter(|(name, _)| *name != repository);
    let others = others.map(|(name, other)| Other { name, forge: other.forge, secrets: secrets_of(name) });
    let others: Vec<_> = others.collect();
    let secrets = secrets_of(repository);
    explain(&Doubt { forge: configured.forge, request, secrets, others: &others, now, allowance })
}

impl Refusals {
    /// Counts a refusal; `say` is asked for its text only if it is logged.
    fn log(
        &self,
        repository: &RepositoryName,
        word: &'static str,
        source: IpAddr,
        now: DateTime<Utc>,
        say: impl FnOnce() -> String,
    ) {
        let telling = self.tallies().entry(repository.clone()).or_insert_with(|| Tally::new(now)).take(word, now);
        let Telling::Log { untold } = telling else { return };
        tell_untold(repository, &untold);
        let said = say();
        log::warn!("refused a delivery: {said} repository={repository} source={source}");
    }

    /// Tells of those that were only counted, where that is due.
    fn tell(&self, is_due: impl Fn(&Tally) -> bool) {
        let mut due = Vec::new();
        for (repository, tally) in self.tallies().iter_mut().filter(|(_, tally)| is_due(tally)) {
            due.push((repository.clone(), std::mem::take(&mut tally.untold)));
        }
        for (repository, untold) in due {
            tell_untold(&repository, &untold);
        }
    }

    fn tallies(&self) -> MutexGuard<'_, BTreeMap<RepositoryName, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_untold(repository: &RepositoryName, untold: &Counts) {
    let count: u64 = untold.values().sum();
    if count > 0 {
        let reasons = listed(untold);
        log::warn!("refused {count} more deliveries, which were only counted ({reasons}) repository={repository}");
    }
}

fn listed(counts: &Counts) -> String {
    let each: Vec<_> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
    each.join(", ")
}

impl Tally {
    fn new(since: DateTime<Utc>) -> Self {
        Self { since, logged: 0, untold: Counts::new(), total: Counts::new() }
    }

    fn take(&mut self, word: &'static str, now: DateTime<Utc>) -> Telling {
        *self.total.entry(word).or_default() += 1;
        let mut untold = Counts::new();
        if self.is_over(now) {
            untold = std::mem::take(&mut self.untold);
            (self.since, self.logged) = (now, 0);
        }
        if self.logged < LOGGED_PER_WINDOW {
            self.logged += 1;
            return Telling::Log { untold };
        }
        *self.untold.entry(word).or_default() += 1;
        Telling::Count
    }

    fn is_over(&self, now: DateTime<Utc>) -> bool {
        is_over(self.since, now)
    }
}

impl Effort {
    /// Takes what one refusal may cost at most, or what is left of the minute's effort.
    fn reserve(&mut self, now: DateTime<Utc>) -> Reserved {
        if is_over(self.since, now) {
            *self = Self { since: now, bytes: 0 };
        }
        let bytes = EFFORT_PER_WINDOW.saturating_sub(self.bytes).min(EFFORT_PER_REFUSAL);
        self.bytes += bytes;
        Reserved { since: self.since, bytes }
    }

    /// Takes back what was not spent, if it is still the same minute.
    fn give_back(&mut self, reserved: &Reserved, unspent: usize) {
        if self.since == reserved.since {
            self.bytes = self.bytes.saturating_sub(unspent.min(reserved.bytes));
        }
    }
}

/// Whether the minute is over; also when the clock has stepped back, which must not silence the log.
fn is_over(since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - since >= WINDOW || now < since
}

const WINDOW: TimeDelta = TimeDelta::minutes(1);

/// Enough to see what is wrong with a forge's settings.
const LOGGED_PER_WINDOW: u64 = 10;

/// The bytes that are signed and written for hints in a minute: less than a second's work. Without this, whoever knows the names
/// of many repositories could keep the machine busy.
const EFFORT_PER_WINDOW: usize = 64 << 20;

/// Enough for all that is tried for the longest real body with one secret; one of some kilobytes takes less than a mebibyte.
const EFFORT_PER_REFUSAL: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).expect("a time")
    }

    /// A tally of a minute in which as many were logged as may be.
    fn full() -> Tally {
        let mut tally = Tally::new(start());
        for _ in 0..LOGGED_PER_WINDOW {
            assert_eq!(tally.take("absent", start()), Telling::Log { untold: Counts::new() });
        }
        tally
    }

    #[test]
    fn the_first_refusals_of_a_minute_are_logged_and_the_others_counted_by_their_reason() {
        let mut tally = full();
        for second in 0..7 {
            let word = if second < 2 { "prefix" } else { "mismatch" };
            assert_eq!(tally.take(word, start() + TimeDelta::seconds(second)), Telling::Count);
        }
        let untold = Counts::from([("prefix", 2), ("mismatch", 5)]);
        assert_eq!(listed(&untold), "mismatch 5, prefix 2");
        assert_eq!(tally.take("absent", start() + WINDOW), Telling::Log { untold });
        assert_eq!(tally.take("absent", start() + WINDOW), Telling::Log { untold: Counts::new() });
        assert_eq!(tally.total, Counts::from([("absent", LOGGED_PER_WINDOW + 2), ("prefix", 2), ("mismatch", 5)]));
    }

    #[test]
    fn a_clock_that_steps_back_does_not_silence_the_log() {
        let earlier = start() - TimeDelta::hours(1);
        assert_eq!(full().take("absent", earlier), Telling::Log { untold: Counts::new() });
    }

    #[test]
    fn what_is_told_is_told_once_and_stays_counted() {
        let refusals = Refusals::default();
        let blog = RepositoryName::parse("blog").expect("a name");
        let source = IpAddr::from([192, 0, 2, 1]);
        let mut said = 0;
        for _ in 0..LOGGED_PER_WINDOW + 5 {
            refusals.log(&blog, "absent", source, start(), || {
                said += 1;
                String::new()
            });
        }
        assert_eq!(said, LOGGED_PER_WINDOW, "a text is made for those that are logged only");
        let untold = || refusals.tallies()[&blog].untold.clone();
        refusals.tell(|tally| tally.is_over(start() + TimeDelta::seconds(59)));
        assert_eq!(untold(), Counts::from([("absent", 5)]));
        refusals.tell(|tally| tally.is_over(start() + WINDOW));
        assert_eq!(untold(), Counts::new());
        assert_eq!(refusals.tallies()[&blog].total, Counts::from([("absent", LOGGED_PER_WINDOW + 5)]));
    }

    #[test]
    fn hints_for_all_repositories_together_take_a_bounded_effort() {
        let mut effort = Effort::default();
        let all: Vec<_> = (0..10_000).map(|_| effort.reserve(start())).collect();
        assert_eq!(all.iter().map(|reserved| reserved.bytes).sum::<usize>(), EFFORT_PER_WINDOW);
        assert!(all[0].bytes == EFFORT_PER_REFUSAL && all[9_999].bytes == 0);
        effort.give_back(&all[0], 5);
        assert_eq!(effort.reserve(start() + TimeDelta::seconds(59)).bytes, 5, "what is not spent is for others");
        effort.give_back(&all[9_999], 7);
        assert_eq!(effort.reserve(start()).bytes, 0, "nobody gives back more than was taken");
        let next = effort.reserve(start() + WINDOW);
        assert_eq!(next.bytes, EFFORT_PER_REFUSAL, "the next minute is a new one");
        effort.give_back(&all[1], EFFORT_PER_REFUSAL);
        assert_eq!(effort.bytes, EFFORT_PER_REFUSAL, "and gets nothing of the one before");
        assert_eq!(effort.reserve(start()).bytes, EFFORT_PER_REFUSAL, "the clock has stepped back");
    }
}
