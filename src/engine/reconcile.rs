//! Lost pushes heal: at start, and then at an interval, each site's ref is compared with what its remote shows.
//!
//! Only the question happens here. Whether a tip was lost is decided in `domain::reconcile`, within the transaction that
//! queues it; deploying it is the workers' business.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::name::RepositoryName;
use crate::domain::push::RefName;
use crate::domain::reconcile::{Sighting, ref_to_ask};
use crate::domain::revision::Revision;
use crate::git::{self, GitError, Remote};
use crate::store::{Reconciled, StoreError};
use crate::sys::bell::Bell;
use crate::sys::stop::Stop;

use super::worker::Engine;
use super::{Source, Target};

type Tips = BTreeMap<RefName, Revision>;

/// Compares, again and again, until the stop says so. Ends at once then, also while a remote is silent.
pub(super) fn reconcile_loop(engine: &Engine, interval: Duration, stop: &Stop, bell: &Bell) {
    let mut rounds = Rounds { engine, stop, bell, troubles: Troubles::default(), silent: BTreeMap::new() };
    while !stop.is_draining() {
        rounds.round();
        stop.wait(interval);
    }
}

struct Rounds<'a> {
    engine: &'a Engine,
    stop: &'a Stop,
    bell: &'a Bell,
    troubles: Troubles,
    /// Questions that were given up, and may still be answered.
    silent: BTreeMap<RepositoryName, JoinHandle<Result<Tips, GitError>>>,
}

/// What became of a question.
enum Answer {
    /// What the remote shows of the refs that it was asked for.
    Tips(Tips),
    /// It did not say.
    Trouble(String),
    /// Nobody wants to know any more.
    Stopping,
}

impl Rounds<'_> {
    /// Asks one repository after the other, so that no forge sees a burst. One that fails does not stop the others.
    fn round(&mut self) {
        let mut repositories: BTreeMap<&RepositoryName, Vec<&Target>> = BTreeMap::new();
        for target in self.engine.targets.values() {
            repositories.entry(&target.source.name).or_default().push(target);
        }
        for targets in repositories.values() {
            if self.stop.is_draining() {
                return;
            }
            if let Err(error) = self.compare(targets) {
                log::error!("cannot look for lost pushes: {error}");
            }
            self.stop.wait(SPACING);
        }
    }

    /// Compares the sites of one repository with it.
    fn compare(&mut self, targets: &[&Target]) -> Result<(), StoreError> {
        let mut wanted = Vec::new();
        for target in targets {
            let last = self.engine.store.last_ref(&target.site, &self.engine.node)?;
            wanted.extend(ref_to_ask(&target.refs, last.as_ref()).map(|name| (*target, name.clone())));
        }
        let Some((Target { source, .. }, _)) = wanted.first() else { return Ok(()) };
        let asked_at = (self.engine.clock)();
        let names = wanted.iter().map(|(_, name)| name.clone()).collect();
        let tips = match self.ask(source, names) {
            Answer::Tips(tips) => tips,
            Answer::Trouble(trouble) => {
                self.warn(format!("repository={}", source.name), &trouble);
                return Ok(());
            }
            Answer::Stopping => return Ok(()),
        };
        self.troubles.end(&format!("repository={}", source.name));
        for (target, ref_name) in wanted {
            let about = format!("site={}", target.site);
            let Some(tip) = tips.get(&ref_name) else {
                self.warn(about, &format!("`{}` has no `{ref_name}`", source.url));
                continue;
            };
            self.troubles.end(&about);
            self.heal(target, Sighting { ref_name, tip: tip.clone(), asked_at })?;
        }
        Ok(())
    }

    /// Queues what was lost. A site that is up to date, as it nearly always is, costs the store nothing.
    fn heal(&self, target: &Target, seen: Sighting) -> Result<(), StoreError> {
        if target.live_commit().as_ref() == Some(&seen.tip) {
            return Ok(());
        }
        let Engine { store, node, clock, .. } = self.engine;
        let site = &target.site;
        let Sighting { ref_name, tip, .. } = &seen;
        match store.reconcile(site, node, &seen, &|_| target.live_commit(), clock())? {
            Reconciled::Queued(id) => {
                log::info!(
                    "reconcile: queued {tip}, the tip of `{ref_name}`, whose push was lost site={site} deployment={id}"
                );
                self.bell.ring();
            }
            Reconciled::Left(reason) => {
                log::debug!("reconcile: leaves {tip}, the tip of `{ref_name}`, alone: {reason} site={site}");
            }
        }
        Ok(())
    }

    /// Asks on a thread of its own, since libgit2 cannot be interrupted while a server is silent. One that was given up
    /// ends by libgit2's time limits, or with the process; until then its remote is not asked again.
    fn ask(&mut self, source: &Source, names: Vec<RefName>) -> Answer {
        if let Some(earlier) = self.silent.remove(&source.name) {
            if !earlier.is_finished() {
                self.silent.insert(source.name.clone(), earlier);
                return Answer::Trouble(format!("`{}` has still not answered", source.url));
            }
            // Its answer is too old, and its trouble was told.
            drop(earlier.join());
        }
        let (url, credentials) = (source.url.clone(), source.credentials.clone());
        let question = std::thread::Builder::new()
            .name("ask".into())
            .spawn(move || git::tips(&Remote { url: &url, credentials: &credentials }, &names));
        let question = match question {
            Ok(question) => question,
            Err(error) => return Answer::Trouble(format!("cannot start a thread: {error}")),
        };
        let deadline = Instant::now() + ANSWER_LIMIT;
        while !question.is_finished() {
            let is_late = Instant::now() >= deadline;
            if self.stop.is_draining() || is_late {
                self.silent.insert(source.name.clone(), question);
                let trouble = Answer::Trouble(format!("`{}` did not answer within {ANSWER_LIMIT:?}", source.url));
                return if is_late { trouble } else { Answer::Stopping };
            }
            self.stop.wait(ANSWER_POLL);
        }
        match question.join() {
            Ok(Ok(tips)) => Answer::Tips(tips),
            Ok(Err(error)) => Answer::Trouble(error.to_string()),
            Err(_) => Answer::Trouble(format!("a bug: asking `{}` panicked", source.url)),
        }
    }

    fn warn(&mut self, about: String, trouble: &str) {
        if self.troubles.is_news(&about, trouble, (self.engine.clock)()) {
            log::warn!("cannot look for lost pushes: {trouble} {about}");
        }
    }
}

/// What went wrong the last time, so that a remote that is down for a day is not told of at each interval.
#[derive(Debug, Default)]
struct Troubles(BTreeMap<String, (String, DateTime<Utc>)>);

impl Troubles {
    /// Whether it was not told yet, or an hour ago; from now on it was.
    fn is_news(&mut self, about: &str, trouble: &str, now: DateTime<Utc>) -> bool {
        let is_known = self.0.get(about).is_some_and(|(told, at)| told == trouble && now - *at < SAY_AGAIN);
        if !is_known {
            self.0.insert(about.to_owned(), (trouble.to_owned(), now));
        }
        !is_known
    }

    /// It works. Says so if there was trouble.
    fn end(&mut self, about: &str) {
        if self.0.remove(about).is_some() {
            log::info!("looks for lost pushes again {about}");
        }
    }
}

/// Between the questions of a round.
const SPACING: Duration = Duration::from_millis(200);

/// Above libgit2's own limits for a server that is silent: its errors say more than ours.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

const ANSWER_POLL: Duration = Duration::from_millis(20);

/// How long a trouble that stays the same is told once.
const SAY_AGAIN: TimeDelta = TimeDelta::hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_when_it_is_new_changes_or_lasts() {
        let at = |minute: i64| DateTime::from_timestamp(1_800_000_000 + minute * 60, 0).expect("a time");
        let mut troubles = Troubles::default();
        let table = [
            ("repository=a", "down", 0, true),
            ("repository=a", "down", 5, false),
            ("repository=b", "down", 5, true),
            ("repository=a", "down", 59, false),
            ("repository=a", "down", 60, true),
            ("repository=a", "down", 65, false),
            ("repository=a", "denied", 66, true),
            ("repository=a", "down", 67, true),
        ];
        for (about, trouble, minute, expected) in table {
            assert_eq!(troubles.is_news(about, trouble, at(minute)), expected, "{about} {trouble} {minute}");
        }
        troubles.end("repository=a");
        assert!(troubles.is_news("repository=a", "down", at(68)), "it had worked in between");
    }
}
