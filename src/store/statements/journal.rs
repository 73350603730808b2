//! Journals: appended under the lease, with the deployment's row brought up to date in the same transaction.

use chrono::{DateTime, Utc};

use crate::domain::deployment::{DeploymentId, Entry, Kind, Outcome, State, Step, Undo};
use crate::store::{FollowUp, JournalLine, StoreError};

use super::row::{self, read};
use super::{Connection, queue, site};

pub(in crate::store) async fn append(
    connection: &mut Connection,
    id: DeploymentId,
    token: &str,
    entry: &Entry,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    check_token(connection, id, token).await?;
    let lines = lines(connection, id).await?;
    let state = State::of(lines.iter().map(|line| &line.entry).chain([entry]))
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let text = serde_json::to_string(entry).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let seq = lines.last().map_or(1, |line| line.seq + 1);
    sqlx::query("INSERT INTO journal (deployment, seq, at, entry) VALUES ($1, $2, $3, $4)")
        .bind(id.0)
        .bind(seq)
        .bind(now.timestamp_millis())
        .bind(text)
        .execute(&mut *connection)
        .await?;
    update_row(connection, id, &state, entry, now).await
}

async fn check_token(connection: &mut Connection, id: DeploymentId, token: &str) -> Result<(), StoreError> {
    // A write, so that nobody can take it over before this transaction ends.
    let held = sqlx::query("UPDATE deployment SET lease_token = $1 WHERE id = $2 AND lease_token = $1")
        .bind(token)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    if held.rows_affected() == 1 { Ok(()) } else { Err(StoreError::LostLease) }
}

/// The columns are a cache of the journal.
async fn update_row(
    connection: &mut Connection,
    id: DeploymentId,
    state: &State,
    entry: &Entry,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let step: Option<Step> = match state {
        State::Running(step) => Some(*step),
        State::Undoing(failure) => Some(failure.step),
        State::Done(outcome) => outcome.failure().map(|failure| failure.step),
        State::Queued => None,
    };
    let reason = match state {
        State::Undoing(failure) => Some(failure.to_string()),
        State::Done(outcome) => outcome.failure().map(ToString::to_string),
        State::Queued | State::Running(_) => None,
    };
    let finished_at = matches!(state, State::Done(_)).then(|| now.timestamp_millis());
    sqlx::query("UPDATE deployment SET state = $1, step = $2, reason = $3, finished_at = $4 WHERE id = $5")
        .bind(state.name().as_str())
        .bind(step.map(Step::as_str))
        .bind(reason.as_deref().map(row::storable))
        .bind(finished_at)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let (sql, value) = match entry {
        Entry::Resolved(commit) => ("UPDATE deployment SET commit_id = $1 WHERE id = $2", commit.as_str()),
        Entry::WillUndo(Undo::Discard(release) | Undo::FlipBack { to: release, .. }) => {
            ("UPDATE deployment SET release = $1 WHERE id = $2", release.as_str())
        }
        Entry::Claimed
        | Entry::Entered(_)
        | Entry::Hook(_)
        | Entry::HookIgnored { .. }
        | Entry::Decided
        | Entry::Failed(_)
        | Entry::Undone(_)
        | Entry::Warning(_)
        | Entry::Finished(_) => return Ok(()),
    };
    sqlx::query(sql).bind(value).bind(id.0).execute(&mut *connection).await?;
    Ok(())
}

pub(in crate::store) async fn finish(
    connection: &mut Connection,
    id: DeploymentId,
    token: &str,
    outcome: &Outcome,
    follow_up: &FollowUp,
    now: DateTime<Utc>,
) -> Result<Option<DeploymentId>, StoreError> {
    let deployment = queue::deployment(connection, id).await?.ok_or(StoreError::NotFound(id))?;
    site::lock(connection, &deployment.site).await?;
    append(connection, id, token, &Entry::Finished(outcome.clone()), now).await?;
    let FollowUp { hold, bad_release, retry } = follow_up;
    if let Some(hold) = hold {
        site::hold_after(connection, &deployment, hold, now).await?;
    }
    if let Some(release) = bad_release {
        site::mark_bad(connection, &deployment.site, &deployment.node, release, now).await?;
    }
    match retry {
        Some(attempt) => queue::retry(connection, &deployment, *attempt, now).await,
        None if deployment.kind == Kind::Rollback && !matches!(outcome, Outcome::Live) => {
            queue::bring_back(connection, &deployment, now).await
        }
        None => Ok(None),
    }
}

pub(in crate::store) async fn lines(
    connection: &mut Connection,
    id: DeploymentId,
) -> Result<Vec<JournalLine>, StoreError> {
    let rows: Vec<(i64, i64, String)> =
        sqlx::query_as("SELECT seq, at, entry FROM journal WHERE deployment = $1 ORDER BY seq")
            .bind(id.0)
            .fetch_all(&mut *connection)
            .await?;
    rows.into_iter()
        .map(|(seq, at, text)| {
            let entry = read("entry", &text, |text| serde_json::from_str(text).ok())?;
            Ok(JournalLine { seq, at: row::time(at)?, entry })
        })
        .collect()
}
