//! How a row becomes a value. What is in the store was checked on its way in, so anything else is corruption.

use chrono::{DateTime, Utc};

use crate::domain::deployment::{DeploymentId, Kind, StateName, Step, Trigger};
use crate::domain::name::{NodeName, SiteName};
use crate::domain::push::{DeliveryKey, RefName};
use crate::domain::release_id::ReleaseId;
use crate::domain::revision::Revision;
use crate::store::{Deployment, StoreError};

/// The columns of a deployment that people care about.
#[derive(Debug, sqlx::FromRow)]
pub(in crate::store) struct DeploymentRow {
    id: i64,
    site: String,
    node: String,
    kind: String,
    trigger: String,
    state: String,
    step: Option<String>,
    reason: Option<String>,
    ref_name: Option<String>,
    before_id: Option<String>,
    after_id: Option<String>,
    commit_id: Option<String>,
    release: Option<String>,
    rollback_to: Option<String>,
    forced: bool,
    attempt: i64,
    retry_of: Option<i64>,
    superseded_by: Option<i64>,
    requested_by: Option<String>,
    forge_key: Option<String>,
    queued_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

impl TryFrom<DeploymentRow> for Deployment {
    type Error = StoreError;

    fn try_from(row: DeploymentRow) -> Result<Self, StoreError> {
        let DeploymentRow {
            id,
            site,
            node,
            kind,
            trigger,
            state,
            step,
            reason,
            ref_name,
            before_id,
            after_id,
            commit_id,
            release,
            rollback_to,
            forced,
            attempt,
            retry_of,
            superseded_by,
            requested_by,
            forge_key,
            queued_at,
            started_at,
            finished_at,
        } = row;
        Ok(Self {
            id: DeploymentId(id),
            site: read("site", &site, |text| SiteName::parse(text).ok())?,
            node: read("node", &node, |text| NodeName::parse(text).ok())?,
            kind: read("kind", &kind, Kind::parse)?,
            trigger: read("trigger", &trigger, Trigger::parse)?,
            state: read("state", &state, StateName::parse)?,
            step: read_option("step", step, Step::parse)?,
            reason,
            ref_name: read_option("ref_name", ref_name, |text| RefName::parse(text).ok())?,
            before: read_option("before_id", before_id, |text| Revision::parse(text).ok())?,
            after: read_option("after_id", after_id, |text| Revision::parse(text).ok())?,
            commit: read_option("commit_id", commit_id, |text| Revision::parse(text).ok())?,
            release: read_option("release", release, |text| ReleaseId::parse(text).ok())?,
            rollback_to: read_option("rollback_to", rollback_to, |text| ReleaseId::parse(text).ok())?,
            force: forced,
            attempt,
            retry_of: retry_of.map(DeploymentId),
            superseded_by: superseded_by.map(DeploymentId),
            requested_by,
            delivery: read_option("forge_key", forge_key, DeliveryKey::parse)?,
            queued_at: time(queued_at)?,
            started_at: started_at.map(time).transpose()?,
            finished_at: finished_at.map(time).transpose()?,
        })
    }
}

pub(super) fn all(rows: Vec<DeploymentRow>) -> Result<Vec<Deployment>, StoreError> {
    rows.into_iter().map(Deployment::try_from).collect()
}

pub(super) fn read<T>(column: &str, text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(text).ok_or_else(|| StoreError::Corrupt(format!("`{text}` in column {column}")))
}

fn read_option<T>(
    column: &str,
    text: Option<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    text.map(|text| read(column, &text, parse)).transpose()
}

/// Text of others, as both databases can keep it: PostgreSQL refuses NUL.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(super) fn time(millis: i64) -> Result<DateTime<Utc>, StoreError> {
    DateTime::from_timestamp_millis(millis).ok_or_else(|| StoreError::Corrupt(format!("{millis} is no time")))
}
