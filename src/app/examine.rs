//! Why a request was (not) believed, and what would become of it: for a person who saved it.
//!
//! Absent: the store. Holds, duplicates and what is live already are not looked at.

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::{Config, Secrets};
use crate::domain::forge::Forge;
use crate::domain::name::RepositoryName;
use crate::store::Verdict;
use crate::webhook::{self, Allowance, Hint, Malformed, Parsed, Refusal, Refused, Request, Verified};

use super::receive::judge;
use super::{AppError, Variables, refusals, rules, unknown_repository};

/// What there is to say about a saved request.
#[derive(Debug)]
pub struct Examination {
    /// The repository it is taken to be for.
    pub repository: RepositoryName,
    /// That repository's forge.
    pub forge: Forge,
    /// Whether it is believed.
    pub proof: Proof,
    /// Why the server would refuse it before it looks at the proof.
    pub obstacle: Option<&'static str>,
    /// What it says, if it is believed.
    pub meaning: Option<Result<Meaning, Malformed>>,
}

/// Whether a saved request is believed.
#[derive(Debug)]
pub enum Proof {
    /// It is.
    Right,
    /// It was, so long ago: a saved request is old by nature. Negative if it comes from the future.
    RightThen(TimeDelta),
    /// It is not.
    Wrong {
        /// Why.
        refusal: Refusal,
        /// What to look at.
        hints: Vec<Hint>,
    },
}

/// What an authentic request says, and what the configuration says to it.
#[derive(Debug)]
pub struct Meaning {
    /// What it says.
    pub parsed: Parsed,
    /// What would become of it.
    pub verdict: Verdict,
}

impl Proof {
    /// Whether secret and body are right, whatever the time.
    pub fn is_right(&self) -> bool {
        match self {
            Self::Right | Self::RightThen(_) => true,
            Self::Wrong { .. } => false,
        }
    }
}

/// Examines a saved request as the server would have, had it come now.
pub fn examine(
    config: &Config,
    repository: &RepositoryName,
    request: Request,
    variables: Variables<'_>,
    now: DateTime<Utc>,
) -> Result<Examination, AppError> {
    let configured = config.repositories.get(repository).ok_or_else(|| unknown_repository(config, repository))?;
    let secrets = Secrets::read(config, variables).map_err(AppError::Config)?.webhook;
    let obstacle = webhook::obstacle(configured.forge, &request);
    let own = secrets.get(repository).map(Vec::as_slice).unwrap_or_default();
    let (proof, verified) = match authenticate_then(configured.forge, request, own, now) {
        Ok((proof, verified)) => (proof, Some(verified)),
        Err(Refused { refusal, request }) => {
            let hints = refusals::hints(config, &secrets, repository, (&request, now), &Allowance::for_operators());
            (Proof::Wrong { refusal, hints }, None)
        }
    };
    let meaning = verified.map(|verified| {
        let parsed = webhook::parse(&verified)?;
        let verdict = judge(config, &rules(config), repository, &parsed.event);
        Ok(Meaning { parsed, verdict })
    });
    Ok(Examination { repository: repository.clone(), forge: configured.forge, proof, obstacle, meaning })
}

/// If it is only the time that is wrong, as if it came when it was sent.
fn authenticate_then(
    forge: Forge,
    request: Request,
    secrets: &[crate::domain::secret::Secret],
    now: DateTime<Utc>,
) -> Result<(Proof, Verified), Refused> {
    let Refused { refusal, request } = match webhook::authenticate(forge, request, secrets, now) {
        Ok(verified) => return Ok((Proof::Right, verified)),
        Err(refused) => refused,
    };
    let age = match refusal {
        Refusal::TooOld(secs) => i64::try_from(secs).ok(),
        Refusal::FromTheFuture(secs) => i64::try_from(secs).ok().map(|secs| -secs),
        _ => None,
    };
    let then = age.and_then(TimeDelta::try_seconds).and_then(|age| Some((age, now.checked_sub_signed(age)?)));
    let Some((age, then)) = then else { return Err(Refused { refusal, request }) };
    Ok((Proof::RightThen(age), webhook::authenticate(forge, request, secrets, then)?))
}
