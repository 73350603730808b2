//! What happens when a deployment fails, or is found without its process: one decision over its journal.

use super::deployment::{Cause, Entry, Failure, Kind, Step, Undo};
use super::hook_name::HookName;
use super::release_id::ReleaseId;
use super::revision::Revision;

/// What to do with a deployment whose process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// Take everything back; this is the failure to record.
    Undo(Failure),
    /// It was decided: flip to this release if it is not live, and run the later steps (at least once).
    Forward(ReleaseId),
}

/// What still has to be taken back, newest first, and whether `deploy.failure` is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The undos that are not done yet, in the order to do them.
    pub undos: Vec<Undo>,
    /// Whether `deploy.failure` has not been started yet. It runs at most once, also after a crash.
    pub failure_hook_due: bool,
}

/// Decides from the journal of a deployment whose process ended. After the decision the way is forward, unless it had
/// failed already, or its process has ended in a hook twice on this way: a hook that takes the service down must not do so
/// at every start.
pub fn recovery(journal: &[Entry]) -> Recovery {
    let mut step = Step::BeforePull;
    let mut release = None;
    let mut decided = false;
    let mut stuck = None;
    let (mut in_hook, mut ends_in_hook) = (false, 0);
    for entry in journal {
        match entry {
            Entry::Entered(entered) => {
                step = *entered;
                in_hook = false;
            }
            Entry::WillUndo(Undo::FlipBack { to, .. } | Undo::Discard(to)) => release = Some(to.clone()),
            Entry::Decided => decided = true,
            Entry::Failed(failure) => return Recovery::Undo(failure.clone()),
            Entry::Finished(outcome) => stuck = outcome.failure().cloned(),
            Entry::Hook(_) => in_hook = decided,
            Entry::Claimed => {
                ends_in_hook += u32::from(in_hook);
                in_hook = false;
            }
            Entry::Resolved(_) | Entry::HookIgnored { .. } | Entry::Undone(_) | Entry::Warning(_) => {}
        }
    }
    match (stuck, release, decided) {
        (Some(failure), _, _) => Recovery::Undo(failure),
        (None, Some(release), true) if ends_in_hook < MOST_ENDS_IN_HOOK => Recovery::Forward(release),
        (None, Some(_) | None, _) => {
            Recovery::Undo(Failure { step, cause: Cause::Interrupted("the process that ran it ended".into()) })
        }
    }
}

/// What is left to take back after a failure.
pub fn plan(kind: Kind, journal: &[Entry]) -> Plan {
    let done: Vec<&Undo> = journal
        .iter()
        .filter_map(|entry| match entry {
            Entry::Undone(undo) => Some(undo),
            Entry::Claimed
            | Entry::Entered(_)
            | Entry::Resolved(_)
            | Entry::Hook(_)
            | Entry::HookIgnored { .. }
            | Entry::WillUndo(_)
            | Entry::Decided
            | Entry::Failed(_)
            | Entry::Warning(_)
            | Entry::Finished(_) => None,
        })
        .collect();
    let mut undos: Vec<_> = announced(journal).filter(|undo| !done.contains(undo)).cloned().collect();
    undos.reverse();
    let ran = journal.contains(&Entry::Hook(HookName::DeployFailure));
    Plan { undos, failure_hook_due: kind == Kind::Deploy && !ran }
}

/// The flip that a journal announces last: the text of the link before, and the release it goes to.
pub fn announced_flip(journal: &[Entry]) -> Option<(Option<&str>, &ReleaseId)> {
    announced(journal)
        .filter_map(|undo| match undo {
            Undo::FlipBack { from, to } => Some((from.as_deref(), to)),
            Undo::Discard(_) => None,
        })
        .last()
}

/// The release that a journal announces to make.
pub fn announced_release(journal: &[Entry]) -> Option<&ReleaseId> {
    announced(journal).find_map(|undo| match undo {
        Undo::Discard(release) => Some(release),
        Undo::FlipBack { .. } => None,
    })
}

/// The commit that a journal says will be deployed.
pub fn resolved_commit(journal: &[Entry]) -> Option<&Revision> {
    journal.iter().find_map(|entry| match entry {
        Entry::Resolved(commit) => Some(commit),
        Entry::Claimed
        | Entry::Entered(_)
        | Entry::Hook(_)
        | Entry::HookIgnored { .. }
        | Entry::WillUndo(_)
        | Entry::Decided
        | Entry::Failed(_)
        | Entry::Undone(_)
        | Entry::Warning(_)
        | Entry::Finished(_) => None,
    })
}

fn announced(journal: &[Entry]) -> impl Iterator<Item = &Undo> {
    journal.iter().filter_map(Entry::announces)
}

/// Whether an interruption counts against the one new attempt: only when a hook had begun. `deploy.failure` is a
/// consequence.
pub fn interruption_counts(journal: &[Entry]) -> bool {
    journal.iter().any(|entry| matches!(entry, Entry::Hook(hook) if *hook != HookName::DeployFailure))
}

/// As with a deployment that is interrupted before the decision: what was interrupted is tried once more.
const MOST_ENDS_IN_HOOK: u32 = 2;

#[cfg(test)]
mod tests {
    use super::super::deployment::Outcome;
    use super::*;

    fn release() -> ReleaseId {
        ReleaseId::parse("2026-11-22T10:15:30.000000.1a2b3c4").expect("a release name")
    }

    fn failure() -> Failure {
        Failure { step: Step::AfterDeploy, cause: Cause::Error("x".into()) }
    }

    #[test]
    fn before_the_decision_undo_after_it_forward_unless_it_failed() {
        let discard = Entry::WillUndo(Undo::Discard(release()));
        let died =
            |step| Recovery::Undo(Failure { step, cause: Cause::Interrupted("the process that ran it ended".into()) });
        let table = [
            (vec![Entry::Claimed], died(Step::BeforePull)),
            (vec![Entry::Claimed, Entry::Entered(Step::Checkout), discard.clone()], died(Step::Checkout)),
            (vec![Entry::Claimed, discard.clone(), Entry::Decided], Recovery::Forward(release())),
            (
                vec![Entry::Claimed, discard.clone(), Entry::Decided, Entry::Failed(failure())],
                Recovery::Undo(failure()),
            ),
            (
                vec![
                    Entry::Claimed,
                    discard,
                    Entry::Finished(Outcome::Stuck { failure: failure(), left: vec![Undo::Discard(release())] }),
                    Entry::Claimed,
                ],
                Recovery::Undo(failure()),
            ),
        ];
        for (journal, expected) in table {
            assert_eq!(recovery(&journal), expected, "{journal:?}");
        }
    }

    #[test]
    fn the_way_forward_is_left_when_its_process_ended_in_a_hook_twice() {
        let decided = [Entry::WillUndo(Undo::Discard(release())), Entry::Decided];
        let in_hook = [Entry::Entered(Step::AfterDeploy), Entry::Hook(HookName::AfterDeploy), Entry::Claimed];
        let in_flip = [Entry::Entered(Step::Flip), Entry::Claimed];
        let in_prune = [Entry::Hook(HookName::DeploySuccess), Entry::Entered(Step::Prune), Entry::Claimed];
        let undone = Recovery::Undo(Failure {
            step: Step::AfterDeploy,
            cause: Cause::Interrupted("the process that ran it ended".into()),
        });
        let forward = Recovery::Forward(release());
        let table: [(&[&[Entry]], &Recovery); 4] = [
            (&[&in_hook], &forward),
            (&[&in_hook, &in_flip, &in_flip], &forward),
            (&[&in_hook, &in_prune, &in_prune], &forward),
            (&[&in_hook, &in_hook], &undone),
        ];
        for (deaths, expected) in table {
            let journal: Vec<_> = decided.iter().chain(deaths.iter().copied().flatten()).cloned().collect();
            assert_eq!(recovery(&journal), *expected, "{journal:?}");
        }
    }

    #[test]
    fn an_interruption_counts_once_a_hook_of_the_deployment_had_begun() {
        let table = [
            (vec![Entry::Claimed, Entry::Entered(Step::Fetch)], false),
            (vec![Entry::Claimed, Entry::Hook(HookName::BeforePull)], true),
            (vec![Entry::Claimed, Entry::Failed(failure()), Entry::Hook(HookName::DeployFailure)], false),
        ];
        for (journal, expected) in table {
            assert_eq!(interruption_counts(&journal), expected, "{journal:?}");
        }
    }

    #[test]
    fn undos_are_taken_newest_first_and_only_once() {
        let discard = Undo::Discard(release());
        let back = Undo::FlipBack { from: None, to: release() };
        let mut journal =
            vec![Entry::WillUndo(discard.clone()), Entry::WillUndo(back.clone()), Entry::Failed(failure())];
        assert_eq!(
            plan(Kind::Deploy, &journal),
            Plan { undos: vec![back.clone(), discard.clone()], failure_hook_due: true }
        );
        journal.extend([Entry::Undone(back), Entry::Hook(HookName::DeployFailure)]);
        assert_eq!(plan(Kind::Deploy, &journal), Plan { undos: vec![discard], failure_hook_due: false });
        assert!(!plan(Kind::Rollback, &[]).failure_hook_due);
    }
}
