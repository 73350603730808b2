//! A deployment as values: its steps, its journal, its states.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hook_name::HookName;
use super::release_id::ReleaseId;
use super::revision::Revision;

/// The number of a deployment; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentId(pub i64);

impl fmt::Display for DeploymentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Defines an enum of words that are the same in code, SQL, JSON and on the screen.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Reads the word.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a deployment does.
    Kind {
        /// Fetches the tip, makes a release and flips to it.
        Deploy = "deploy",
        /// Flips to an older release: no fetch, no build.
        Rollback = "rollback",
    }
}

words! {
    /// Why a deployment was queued.
    Trigger {
        /// An authentic push webhook.
        Push = "push",
        /// An operator's command.
        Manual = "manual",
        /// A deployment that was interrupted is tried once more.
        Retry = "retry",
        /// The remote shows a tip that is not live, and no push told of it.
        Reconcile = "reconcile",
    }
}

words! {
    /// The steps in their order; a rollback has fewer of them and two of its own.
    Step {
        /// The hook of the current release, before anything is fetched.
        BeforePull = "before.pull",
        /// The remote is asked for the tip.
        Fetch = "fetch",
        /// The commit's tree is written.
        Checkout = "checkout",
        /// `.env` and shared links are placed.
        Link = "link",
        /// The first hook of the new release.
        AfterPull = "after.pull",
        /// The last hook before the release is sealed.
        BeforeDeploy = "before.deploy",
        /// Owner and modes of the whole release.
        Permissions = "permissions",
        /// The release's file system is synced.
        Sync = "sync",
        /// Rollback only: the hook before its flip.
        RollbackBefore = "rollback/before",
        /// From here on a crash is recovered forward.
        Decide = "decide",
        /// `current` is replaced.
        Flip = "flip",
        /// The hook after the flip.
        AfterDeploy = "after.deploy",
        /// The last hook.
        DeploySuccess = "deploy.success",
        /// Rollback only: the hook after its flip.
        RollbackAfter = "rollback/after",
        /// Old releases are removed.
        Prune = "prune",
    }
}

words! {
    /// The state of a deployment as the store, the API and the pages name it.
    StateName {
        /// Waits for a worker.
        Queued = "queued",
        /// A worker is on it, or undoes it.
        Running = "running",
        /// Its release went live.
        Succeeded = "succeeded",
        /// It failed and was undone.
        Failed = "failed",
        /// Nothing to do: the tip was live already.
        Current = "current",
        /// A newer one took its place in the queue.
        Superseded = "superseded",
        /// An operator ended it; it was undone.
        Cancelled = "cancelled",
        /// Its process ended; it was undone.
        Interrupted = "interrupted",
        /// It failed and could not be undone; somebody has to look.
        Stuck = "stuck",
    }
}

impl StateName {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded
            | Self::Failed
            | Self::Current
            | Self::Superseded
            | Self::Cancelled
            | Self::Interrupted
            | Self::Stuck => true,
        }
    }
}

/// How a hook ended when it did not end with 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookEnd {
    /// It exited with this status.
    Exit(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ran longer than this many seconds and was ended.
    TimeLimit(u64),
    /// It could not be started.
    NotStarted(String),
    /// It was ended because its output could not be kept, or because the machine refused to follow it.
    Lost(String),
}

impl fmt::Display for HookEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(formatter, "exited with status {status}"),
            Self::Signal(number) => write!(formatter, "was ended by signal {number}"),
            Self::TimeLimit(seconds) => write!(formatter, "ran into its time limit of {seconds} s"),
            Self::NotStarted(reason) => write!(formatter, "could not be started: {reason}"),
            Self::Lost(reason) => write!(formatter, "could not be followed to its end: {reason}"),
        }
    }
}

/// What made a deployment fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A step could not do its work.
    Error(String),
    /// A hook that may not fail did not end with 0.
    Hook {
        /// Which one.
        hook: HookName,
        /// How it ended.
        end: HookEnd,
    },
    /// An operator ended the deployment.
    Cancelled(String),
    /// The process that ran it ended.
    Interrupted(String),
}

/// That a deployment fails, and where. Error, time limit, cancellation and crash are all this one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step it happened in.
    pub step: Step,
    /// What happened.
    pub cause: Cause,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Error(text) => write!(formatter, "{}: {text}", self.step),
            Cause::Hook { hook, end } => write!(formatter, "hook `{hook}` {end}"),
            Cause::Cancelled(text) => write!(formatter, "cancelled during {}: {text}", self.step),
            Cause::Interrupted(text) => write!(formatter, "interrupted during {}: {text}", self.step),
        }
    }
}

/// What has to be taken back. Written to the journal before the act; doing it twice, or for nothing, is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Removes a release directory.
    Discard(ReleaseId),
    /// Makes `current` what it was, if it names the release of this deployment.
    FlipBack {
        /// The text of the link before; none if there was none.
        from: Option<String>,
        /// The release it was flipped to.
        to: ReleaseId,
    },
}

impl fmt::Display for Undo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discard(release) => write!(formatter, "discard release {release}"),
            Self::FlipBack { from: Some(from), .. } => write!(formatter, "point `current` back at {from}"),
            Self::FlipBack { from: None, .. } => formatter.write_str("remove `current`, which was absent before"),
        }
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its release is live.
    Live,
    /// The tip was live already; no release was made.
    Current,
    /// It failed, and everything was taken back.
    Failed(Failure),
    /// It failed, and something could not be taken back.
    Stuck {
        /// Why it failed.
        failure: Failure,
        /// What is left.
        left: Vec<Undo>,
    },
    /// An operator ended it, and everything was taken back.
    Cancelled(Failure),
    /// Its process ended, and everything was taken back.
    Interrupted(Failure),
}

impl Outcome {
    /// The outcome of a failure after everything was taken back.
    pub fn of(failure: Failure) -> Self {
        match &failure.cause {
            Cause::Error(_) | Cause::Hook { .. } => Self::Failed(failure),
            Cause::Cancelled(_) => Self::Cancelled(failure),
            Cause::Interrupted(_) => Self::Interrupted(failure),
        }
    }

    /// The state's name.
    pub fn state(&self) -> StateName {
        match self {
            Self::Live => StateName::Succeeded,
            Self::Current => StateName::Current,
            Self::Failed(_) => StateName::Failed,
            Self::Stuck { .. } => StateName::Stuck,
            Self::Cancelled(_) => StateName::Cancelled,
            Self::Interrupted(_) => StateName::Interrupted,
        }
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Live | Self::Current => None,
            Self::Failed(failure)
            | Self::Stuck { failure, .. }
            | Self::Cancelled(failure)
            | Self::Interrupted(failure) => Some(failure),
        }
    }
}

/// One line of a deployment's journal: appended before the act it announces, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A worker took it.
    Claimed,
    /// A step begins.
    Entered(Step),
    /// The tip that will be deployed.
    Resolved(Revision),
    /// A hook is about to run.
    Hook(HookName),
    /// A hook that may fail did so.
    HookIgnored {
        /// Which one.
        hook: HookName,
        /// How it ended.
        end: HookEnd,
    },
    /// The act that this takes back is about to happen.
    WillUndo(Undo),
    /// From here on a crash is recovered forward.
    Decided,
    /// It fails; what follows is undoing.
    Failed(Failure),
    /// This was taken back.
    Undone(Undo),
    /// Something an operator should know, such as a prune that did not work.
    Warning(String),
    /// Nothing follows.
    Finished(Outcome),
}

impl Entry {
    /// What it says has to be taken back if the deployment fails from here on.
    pub fn announces(&self) -> Option<&Undo> {
        match self {
            Self::WillUndo(undo) => Some(undo),
            Self::Claimed
            | Self::Entered(_)
            | Self::Resolved(_)
            | Self::Hook(_)
            | Self::HookIgnored { .. }
            | Self::Decided
            | Self::Failed(_)
            | Self::Undone(_)
            | Self::Warning(_)
            | Self::Finished(_) => None,
        }
    }
}

/// Where a deployment stands: a fold of its journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody works on it.
    Queued,
    /// The step that is under way.
    Running(Step),
    /// It failed and is being taken back.
    Undoing(Failure),
    /// It ended.
    Done(Outcome),
}

/// That a journal has a line which cannot follow what is before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a journal in state {state} cannot go on with {entry}")]
pub struct IllegalEntry {
    state: String,
    entry: String,
}

impl State {
    /// The state after one more line.
    pub fn after(self, entry: &Entry) -> Result<Self, IllegalEntry> {
        match (self, entry) {
            (Self::Queued, Entry::Claimed) => Ok(Self::Running(Step::BeforePull)),
            (Self::Running(_), Entry::Entered(step)) => Ok(Self::Running(*step)),
            (Self::Running(_), Entry::Decided) => Ok(Self::Running(Step::Decide)),
            (
                Self::Running(step),
                Entry::Claimed
                | Entry::Resolved(_)
                | Entry::Hook(_)
                | Entry::HookIgnored { .. }
                | Entry::WillUndo(_)
                | Entry::Warning(_),
            ) => Ok(Self::Running(step)),
            (Self::Running(_), Entry::Failed(failure)) => Ok(Self::Undoing(failure.clone())),
            (
                Self::Undoing(failure),
                Entry::Claimed
                | Entry::Hook(_)
                | Entry::HookIgnored { .. }
                | Entry::Undone(_)
                | Entry::Warning(_)
                | Entry::Failed(_),
            ) => Ok(Self::Undoing(failure)),
            (Self::Running(_) | Self::Undoing(_), Entry::Finished(outcome)) => Ok(Self::Done(outcome.clone())),
            // Something that could not be taken back is tried again when the process starts anew.
            (Self::Done(Outcome::Stuck { failure, .. }), Entry::Claimed) => Ok(Self::Undoing(failure)),
            (
                state @ Self::Queued,
                Entry::Entered(_)
                | Entry::Resolved(_)
                | Entry::Hook(_)
                | Entry::HookIgnored { .. }
                | Entry::WillUndo(_)
                | Entry::Decided
                | Entry::Failed(_)
                | Entry::Undone(_)
                | Entry::Warning(_)
                | Entry::Finished(_),
            )
            | (state @ Self::Running(_), Entry::Undone(_))
            | (
                state @ Self::Undoing(_),
                Entry::Entered(_) | Entry::Resolved(_) | Entry::WillUndo(_) | Entry::Decided,
            )
            | (
                state @ Self::Done(_),
                Entry::Claimed
                | Entry::Entered(_)
                | Entry::Resolved(_)
                | Entry::Hook(_)
                | Entry::HookIgnored { .. }
                | Entry::WillUndo(_)
                | Entry::Decided
                | Entry::Failed(_)
                | Entry::Undone(_)
                | Entry::Warning(_)
                | Entry::Finished(_),
            ) => Err(IllegalEntry { state: format!("{state:?}"), entry: format!("{entry:?}") }),
        }
    }

    /// The state a whole journal leads to.
    pub fn of<'a>(journal: impl IntoIterator<Item = &'a Entry>) -> Result<Self, IllegalEntry> {
        journal.into_iter().try_fold(Self::Queued, Self::after)
    }

    /// The state's name in the store.
    pub fn name(&self) -> StateName {
        match self {
            Self::Queued => StateName::Queued,
            Self::Running(_) | Self::Undoing(_) => StateName::Running,
            Self::Done(outcome) => outcome.state(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure { step: Step::AfterPull, cause: Cause::Error("x".into()) }
    }

    #[test]
    fn a_journal_folds_to_its_state() {
        use Entry::{Claimed, Decided, Entered, Failed, Finished, Hook, Undone, WillUndo};
        let release = ReleaseId::parse("2026-11-22T10:15:30.000000.1a2b3c4").expect("a release name");
        let discard = Undo::Discard(release);
        let table: Vec<(Vec<Entry>, Option<State>)> = vec![
            (vec![], Some(State::Queued)),
            (vec![Claimed], Some(State::Running(Step::BeforePull))),
            (vec![Claimed, Entered(Step::Fetch)], Some(State::Running(Step::Fetch))),
            (vec![Claimed, Decided, Entered(Step::Flip)], Some(State::Running(Step::Flip))),
            (vec![Claimed, WillUndo(discard.clone()), Failed(failure())], Some(State::Undoing(failure()))),
            (
                vec![Claimed, Failed(failure()), Hook(HookName::DeployFailure), Undone(discard.clone())],
                Some(State::Undoing(failure())),
            ),
            (vec![Claimed, Finished(Outcome::Live)], Some(State::Done(Outcome::Live))),
            (vec![Claimed, Finished(Outcome::Live), Entered(Step::Flip)], None),
            (vec![Entered(Step::Fetch)], None),
            (vec![Claimed, Undone(discard)], None),
            (vec![Claimed, Failed(failure()), Decided], None),
        ];
        for (journal, expected) in table {
            assert_eq!(State::of(&journal).ok(), expected, "{journal:?}");
        }
    }

    #[test]
    fn entries_keep_their_stored_form() {
        let entry = Entry::Failed(Failure {
            step: Step::AfterPull,
            cause: Cause::Hook { hook: HookName::AfterPull, end: HookEnd::Exit(3) },
        });
        let text = r#"{"failed":{"step":"after.pull","cause":{"hook":{"hook":"after.pull","end":{"exit":3}}}}}"#;
        assert_eq!(serde_json::to_string(&entry).ok().as_deref(), Some(text));
        assert_eq!(serde_json::from_str::<Entry>(text).ok(), Some(entry));
    }
}
