//! Whether the push of a tip that a remote shows was lost: the answer to "why is this site (not) brought up to date".
//!
//! Lost is a tip that is not live and that the site has not tried yet. What was tried, held, cancelled or chosen otherwise
//! stays as it is: to try again is what a redelivery and a manual deploy are for.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::deployment::{StateName, Trigger};
use super::push::RefName;
use super::ref_rule::RefRule;
use super::revision::Revision;

/// The ref that a site asks its remote for: its branch, or of several the one whose push it was last asked to deploy. A tag
/// does not move; which of many was pushed and not told of, nobody can say.
pub fn ref_to_ask<'a>(rule: &'a RefRule, last: Option<&'a RefName>) -> Option<&'a RefName> {
    match rule {
        RefRule::Branch(branch) => Some(branch),
        RefRule::Branches(_) => last.filter(|name| rule.matches(name)),
        RefRule::Tags(_) => None,
    }
}

/// What a remote showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The ref.
    pub ref_name: RefName,
    /// Its tip.
    pub tip: Revision,
    /// The time before it was asked: whatever ended later knows more.
    pub asked_at: DateTime<Utc>,
}

/// A deploy of the site that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The ref it was for.
    pub ref_name: Option<RefName>,
    /// Why it was queued.
    pub trigger: Trigger,
    /// Whether it is what a person asked for.
    pub ordered: bool,
    /// How it ended.
    pub state: StateName,
    /// The commit that was announced.
    pub after: Option<Revision>,
    /// The tip it found; none if it did not come so far.
    pub commit: Option<Revision>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// What is known of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteNow<'a> {
    /// Whether it refuses pushes.
    pub is_held: bool,
    /// Whether anything waits or runs.
    pub is_busy: bool,
    /// Whether the tip is live.
    pub is_live: bool,
    /// Whether a push told of the tip and was ignored, for a reason that its delivery tells.
    pub is_refused: bool,
    /// Its latest deploys that have ended, newest first, without those that were superseded.
    pub attempts: &'a [Attempt],
}

/// What to do about a tip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Its push was lost: it is deployed.
    Queue {
        /// What the ref was when the site looked last. A remote that still shows it has not caught up with itself.
        before: Option<Revision>,
    },
    /// There is nothing to do, or not for us.
    Leave(Reason),
}

/// Why a tip is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The site refuses pushes.
    Held,
    /// Something waits or runs: it finds the tip by itself.
    Busy,
    /// It is live.
    Live,
    /// A deployment has ended since the remote was asked, and found what is newer.
    Overtaken,
    /// It was seen before what was deployed a moment ago: not every replica of the remote shows the newest.
    Stale,
    /// What is live is another ref, because a person wanted that.
    OtherRef,
    /// The last deployment of the ref was of this very tip; it did not stay live.
    Tried,
    /// A deployment that was queued for this reason did not even find the tip.
    InVain,
    /// A person ended its deployment.
    Cancelled,
    /// Its push came, and was ignored.
    Refused,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Held => "the site is held",
            Self::Busy => "something waits or runs",
            Self::Live => "it is live",
            Self::Overtaken => "a deployment has ended since the remote was asked",
            Self::Stale => "the remote may not show yet what was deployed a moment ago",
            Self::OtherRef => "somebody has deployed another ref",
            Self::Tried => "it was tried",
            Self::InVain => "it was tried in vain",
            Self::Cancelled => "its deployment was cancelled",
            Self::Refused => "its push was ignored",
        })
    }
}

/// Decides over the tip of a site's ref.
pub fn judge(seen: &Sighting, site: &SiteNow<'_>) -> Decision {
    let Sighting { ref_name, tip, asked_at } = seen;
    let of_ref: Vec<_> = site.attempts.iter().filter(|attempt| attempt.ref_name.as_ref() == Some(ref_name)).collect();
    let newest_found = of_ref.iter().position(|attempt| attempt.commit.is_some()).unwrap_or(of_ref.len());
    let (blind, found) = of_ref.split_at(newest_found);
    let before = found.first().and_then(|attempt| attempt.commit.as_ref());
    let is_for_tip = |attempt: &&&Attempt| attempt.after.as_ref() == Some(tip);
    let was_queued = blind.iter().any(|attempt| is_for_tip(&attempt));
    let checks = [
        (site.is_held, Reason::Held),
        (site.is_busy, Reason::Busy),
        (site.is_live, Reason::Live),
        (site.attempts.iter().any(|attempt| attempt.ended_at >= Some(*asked_at)), Reason::Overtaken),
        (is_of_other_ref(site.attempts, ref_name), Reason::OtherRef),
        (before == Some(tip), Reason::Tried),
        (blind.iter().filter(is_for_tip).any(|attempt| attempt.trigger == Trigger::Reconcile), Reason::InVain),
        (blind.iter().filter(is_for_tip).any(|attempt| attempt.state == StateName::Cancelled), Reason::Cancelled),
        (site.is_refused && !was_queued, Reason::Refused),
        (is_stale(found, seen), Reason::Stale),
    ];
    match checks.iter().find(|(applies, _)| *applies) {
        Some((_, reason)) => Decision::Leave(*reason),
        None => Decision::Queue { before: before.cloned() },
    }
}

/// Whether what went live last is another ref, by a person's order. Their next push, or order, changes that.
fn is_of_other_ref(attempts: &[Attempt], ref_name: &RefName) -> bool {
    let went_live = attempts.iter().find(|attempt| matches!(attempt.state, StateName::Succeeded | StateName::Current));
    went_live.is_some_and(|attempt| attempt.ordered && attempt.ref_name.as_ref() != Some(ref_name))
}

/// A tip that was found before the one that was found last: a push by force whose delivery was lost, or, for a while, a
/// replica that has not caught up.
fn is_stale(found: &[&Attempt], seen: &Sighting) -> bool {
    let Some((newest, older)) = found.split_first() else { return false };
    let is_known = older.iter().any(|attempt| attempt.commit.as_ref() == Some(&seen.tip));
    is_known && newest.ended_at.is_some_and(|ended_at| seen.asked_at - ended_at < PROPAGATION)
}

/// As long as a deployment waits for a remote to show what was pushed.
const PROPAGATION: TimeDelta = TimeDelta::seconds(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ref_rule::{BranchPattern, TagPattern};

    fn commit(digit: char) -> Revision {
        Revision::parse(&String::from(digit).repeat(40)).expect("a commit id")
    }

    fn branch(name: &str) -> RefName {
        RefName::of_branch(name).expect("a branch")
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("a time")
    }

    /// A deployment of `main` by a push of this commit, which found and deployed it a day ago.
    fn pushed(digit: char) -> Attempt {
        Attempt {
            ref_name: Some(branch("main")),
            trigger: Trigger::Push,
            ordered: false,
            state: StateName::Succeeded,
            after: Some(commit(digit)),
            commit: Some(commit(digit)),
            ended_at: Some(at(-86_400)),
        }
    }

    fn ended(state: StateName, attempt: Attempt) -> Attempt {
        Attempt { state, ..attempt }
    }

    /// It did not come so far as to find the tip.
    fn blind(trigger: Trigger, digit: char) -> Attempt {
        Attempt { trigger, commit: None, state: StateName::Failed, ..pushed(digit) }
    }

    /// What an operator asked for.
    fn ordered(name: &str, attempt: Attempt) -> Attempt {
        let (trigger, ref_name) = (Trigger::Manual, Some(branch(name)));
        Attempt { ref_name, trigger, ordered: true, after: None, ..attempt }
    }

    fn ended_at(second: i64, attempt: Attempt) -> Attempt {
        Attempt { ended_at: Some(at(second)), ..attempt }
    }

    fn idle(attempts: &[Attempt]) -> SiteNow<'_> {
        SiteNow { is_held: false, is_busy: false, is_live: false, is_refused: false, attempts }
    }

    /// The remote shows `f` at `main`.
    fn decide(site: &SiteNow<'_>) -> Decision {
        judge(&Sighting { ref_name: branch("main"), tip: commit('f'), asked_at: at(0) }, site)
    }

    fn queue(before: Option<char>) -> Decision {
        Decision::Queue { before: before.map(commit) }
    }

    #[test]
    fn what_the_site_has_tried_decides() {
        use StateName::{Cancelled, Current, Failed, Interrupted};
        let leave = Decision::Leave;
        let table: Vec<(&str, Vec<Attempt>, Decision)> = vec![
            ("nothing was ever deployed", vec![], queue(None)),
            ("the push was lost", vec![pushed('a')], queue(Some('a'))),
            ("the same after a failure of an older commit", vec![ended(Failed, pushed('a'))], queue(Some('a'))),
            ("the tip failed", vec![ended(Failed, pushed('f')), pushed('a')], leave(Reason::Tried)),
            ("the tip was cancelled", vec![ended(Cancelled, pushed('f'))], leave(Reason::Tried)),
            ("the tip was interrupted for good", vec![ended(Interrupted, pushed('f'))], leave(Reason::Tried)),
            ("the tip was rolled away from, then resumed", vec![pushed('f'), pushed('a')], leave(Reason::Tried)),
            ("the tip was live already when tried", vec![ended(Current, pushed('f'))], leave(Reason::Tried)),
            (
                "the tip failed, and so did a new try that found nothing",
                vec![ordered("main", blind(Trigger::Manual, 'e')), ended(Failed, pushed('f'))],
                leave(Reason::Tried),
            ),
            (
                "an older push found the tip",
                vec![Attempt { after: Some(commit('b')), ..pushed('f') }],
                leave(Reason::Tried),
            ),
            ("a push by force back to an older commit was lost", vec![pushed('b'), pushed('f')], queue(Some('b'))),
            ("the remote was down", vec![blind(Trigger::Push, 'f'), pushed('a')], queue(Some('a'))),
            (
                "the remote was down, also for an operator",
                vec![ordered("main", blind(Trigger::Manual, 'e')), blind(Trigger::Push, 'f')],
                queue(None),
            ),
            ("the remote was down for another commit", vec![blind(Trigger::Reconcile, 'b')], queue(None)),
            (
                "the remote was down again",
                vec![blind(Trigger::Reconcile, 'f'), blind(Trigger::Push, 'f')],
                leave(Reason::InVain),
            ),
            (
                "the same with a new attempt after an interruption",
                vec![blind(Trigger::Retry, 'f'), ended(Interrupted, blind(Trigger::Reconcile, 'f'))],
                leave(Reason::InVain),
            ),
            (
                "cancelled while it waited",
                vec![ended(Cancelled, blind(Trigger::Push, 'f')), pushed('a')],
                leave(Reason::Cancelled),
            ),
            ("another one was cancelled", vec![ended(Cancelled, blind(Trigger::Push, 'b'))], queue(None)),
            (
                "an order of the moment was cancelled",
                vec![ended(Cancelled, ordered("main", blind(Trigger::Manual, 'e'))), pushed('a')],
                queue(Some('a')),
            ),
            ("an operator wants another ref", vec![ordered("v1", pushed('b')), pushed('a')], leave(Reason::OtherRef)),
            ("the same as the first of all", vec![ordered("v1", pushed('b'))], leave(Reason::OtherRef)),
            ("the other ref failed", vec![ended(Failed, ordered("v1", pushed('b'))), pushed('a')], queue(Some('a'))),
            ("a push came after the other ref", vec![pushed('c'), ordered("v1", pushed('b'))], queue(Some('c'))),
            ("an operator deployed the branch", vec![ordered("main", pushed('a'))], queue(Some('a'))),
            (
                "the site's branch was another one",
                vec![Attempt { ref_name: Some(branch("old")), ..pushed('a') }],
                queue(None),
            ),
            ("ended meanwhile", vec![ended_at(0, pushed('b'))], leave(Reason::Overtaken)),
            (
                "ended meanwhile, with another ref",
                vec![ended_at(1, Attempt { ref_name: Some(branch("old")), ..pushed('b') })],
                leave(Reason::Overtaken),
            ),
            ("a new tip right after a deployment", vec![ended_at(-1, pushed('b'))], queue(Some('b'))),
            (
                "an old tip right after a deployment",
                vec![ended_at(-29, pushed('b')), pushed('f')],
                leave(Reason::Stale),
            ),
            ("an old tip later on", vec![ended_at(-30, pushed('b')), pushed('f')], queue(Some('b'))),
        ];
        for (name, attempts, expected) in table {
            assert_eq!(decide(&idle(&attempts)), expected, "{name}");
        }
    }

    #[test]
    fn a_site_that_is_held_busy_or_up_to_date_is_left_alone() {
        let lost = [pushed('a')];
        let site = idle(&lost);
        assert_eq!(decide(&site), queue(Some('a')));
        let table = [
            (SiteNow { is_held: true, is_busy: true, ..site }, Reason::Held),
            (SiteNow { is_busy: true, ..site }, Reason::Busy),
            (SiteNow { is_live: true, ..site }, Reason::Live),
        ];
        for (site, expected) in table {
            assert_eq!(decide(&site), Decision::Leave(expected));
        }
    }

    #[test]
    fn a_push_that_was_ignored_was_not_lost_unless_it_was_queued_after_all() {
        let brought_back = [blind(Trigger::Retry, 'f')];
        let refused = |attempts| decide(&SiteNow { is_refused: true, ..idle(attempts) });
        assert_eq!(refused(&[]), Decision::Leave(Reason::Refused));
        assert_eq!(refused(&brought_back), queue(None));
    }

    #[test]
    fn a_site_asks_for_its_branch_or_for_the_one_it_had_last() {
        let (main, feature, fix) = (branch("main"), branch("feature/a"), branch("fix/a"));
        let tag = RefName::parse("refs/tags/v1").expect("a ref");
        let own = RefRule::Branch(main.clone());
        let several = RefRule::Branches(vec![BranchPattern::parse("feature/*").expect("a pattern")]);
        let tags = RefRule::Tags(TagPattern::parse("^v").expect("an expression"));
        let table = [
            (&own, None, Some(&main)),
            (&own, Some(&feature), Some(&main)),
            (&several, Some(&feature), Some(&feature)),
            (&several, Some(&fix), None),
            (&several, None, None),
            (&tags, Some(&tag), None),
            (&tags, Some(&main), None),
        ];
        for (rule, last, expected) in table {
            assert_eq!(ref_to_ask(rule, last), expected, "{rule} {last:?}");
        }
    }
}
