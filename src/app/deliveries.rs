//! What was sent to us and what became of it, and doing it again with the very same bytes.
//!
//! Absent: anything secret. What is kept of a delivery has none, so whoever may read the store may read and replay it all.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use crate::config::Site;
use crate::domain::deployment::{DeploymentId, StateName};
use crate::domain::name::{RepositoryName, SiteName};
use crate::domain::push::Change;
use crate::domain::revision::Revision;
use crate::site::current;
use crate::store::{Delivery, DeliveryFilter, DeliverySite, Replay};
use crate::webhook::{self, Record};

use super::orders::Asker;
use super::receive::{Envelope, Note, Receipt, submission};
use super::{App, AppError, setup, unknown_repository};

/// A delivery, and why it did (not) deploy.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryReport {
    /// Our number of it.
    pub id: i64,
    /// Whose webhook it is.
    pub repository: RepositoryName,
    /// The forge's id of it.
    pub key: String,
    /// 1, or more when the same id came again.
    pub attempt: i64,
    /// The forge's word for the event.
    pub event: String,
    /// The refs that moved.
    pub refs: Vec<RefReport>,
    /// What became of the whole.
    pub status: &'static str,
    /// Why, if the whole was decided at once.
    pub reason: Option<String>,
    /// What was decided for each site of the repository: who matched, and why who did not.
    pub sites: Vec<SiteDecision>,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// How long it took from its arrival to the decision, in microseconds; without the time its commit took.
    pub latency_us: Option<i64>,
    /// The address that sent it; none of a replay.
    pub source: Option<String>,
    /// How long its body was, in bytes.
    pub body_size: Option<i64>,
    /// SHA-256 of the body as it was sent, in hex.
    pub digest: String,
    /// The stored delivery that an operator sent again.
    pub replay_of: Option<i64>,
    /// That operator.
    pub asked_by: Option<String>,
}

/// A ref that moved.
#[derive(Debug, Clone, Serialize)]
pub struct RefReport {
    /// Its full name.
    #[serde(rename = "ref")]
    pub ref_name: String,
    /// Where it was; none when it was created.
    pub before: Option<Revision>,
    /// Where it is now; none when it was deleted.
    pub after: Option<Revision>,
}

/// What was decided for a site, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct SiteDecision {
    /// The site.
    pub site: SiteName,
    /// What was decided.
    pub status: &'static str,
    /// Why, if it is not obvious.
    pub reason: Option<String>,
    /// Which of the refs was for the site.
    #[serde(rename = "ref")]
    pub ref_name: Option<String>,
    /// The deployment it led to, or is a duplicate of.
    pub deployment: Option<LedTo>,
}

/// A deployment as far as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct LedTo {
    /// Its number.
    pub id: DeploymentId,
    /// How far it is.
    pub state: StateName,
}

/// Everything there is about a delivery.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryDetails {
    /// What the list says of it.
    #[serde(flatten)]
    pub delivery: DeliveryReport,
    /// Its headers by name; what is secret is redacted.
    pub headers: Vec<Header>,
    /// Its body; what is secret is redacted. None if it is not kept.
    pub body: Option<Body>,
    /// Every arrival of the same id, this one too, newest first.
    pub attempts: Vec<Attempt>,
}

/// A header of a delivery.
#[derive(Debug, Clone, Serialize)]
pub struct Header {
    /// Lower-case.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The bytes of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// UTF-8.
    Text(String),
    /// Anything else.
    #[serde(serialize_with = "base64")]
    Base64(Vec<u8>),
}

/// One arrival of a delivery.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// Our number of it.
    pub id: i64,
    /// Counted from 1.
    pub attempt: i64,
    /// What became of it.
    pub status: &'static str,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// The stored delivery that an operator sent again.
    pub replay_of: Option<i64>,
    /// That operator.
    pub asked_by: Option<String>,
}

impl App {
    /// Deliveries of one repository or of all, newest first. A repository that is not configured any more has still a past.
    pub fn deliveries(&self, repository: Option<&RepositoryName>, limit: i64) -> Result<Vec<DeliveryReport>, AppError> {
        let filter = DeliveryFilter { repository: repository.cloned(), key: None, limit };
        let found = self.store.deliveries(&filter)?;
        match repository {
            Some(name) if found.is_empty() && !self.config.repositories.contains_key(name) => {
                Err(unknown_repository(&self.config, name))
            }
            _ => Ok(found.into_iter().map(DeliveryReport::from).collect()),
        }
    }

    /// Everything there is about a delivery.
    pub fn delivery(&self, id: i64) -> Result<DeliveryDetails, AppError> {
        let mut kept = self.kept(id)?;
        let same_key = DeliveryFilter {
            repository: Some(kept.repository.clone()),
            key: Some(kept.key.clone()),
            limit: MOST_ATTEMPTS,
        };
        let attempts = self.store.deliveries(&same_key)?.into_iter().map(Attempt::from).collect();
        let body = self.store.body(&kept.digest)?.map(Body::from);
        let mut headers = std::mem::take(&mut kept.headers);
        // The HTTP server does not keep their order. Of one that was sent twice it does.
        headers.sort_by(|(name, _), (other, _)| name.cmp(other));
        let headers = headers.into_iter().map(|(name, value)| Header { name, value }).collect();
        Ok(DeliveryDetails { delivery: kept.into(), headers, body, attempts })
    }

    /// Decides over a stored delivery anew, by the configuration and the state of now, as if the forge had sent it again.
    /// It is stored as a delivery of its own, with who asked.
    pub fn redeliver(&self, id: i64, asker: Asker<'_>) -> Result<Receipt, AppError> {
        let kept = self.kept(id)?;
        let repository = &kept.repository;
        let configured = self.config.repositories.get(repository);
        let forge = configured.map(|configured| configured.forge).ok_or_else(|| {
            AppError::NotFound(format!(
                "delivery {id} has nowhere to go: {}",
                unknown_repository(&self.config, repository)
            ))
        })?;
        let body = self.store.body(&kept.digest)?.ok_or_else(|| {
            AppError::Refused(format!(
                "the body of delivery {id} is not kept, so it cannot be sent again\n{SEND_AGAIN}"
            ))
        })?;
        let verified = webhook::replay(forge, Record { headers: kept.headers.clone(), body: body.clone() });
        let parsed = webhook::parse(&verified).map_err(|malformed| {
            AppError::Refused(format!(
                "delivery {id} makes no sense to forge `{forge}`, which is configured now: {malformed}\n{SEND_AGAIN}"
            ))
        })?;
        // What was redacted has another digest, and what came without an id would have another key.
        let parsed = webhook::Parsed { key: kept.key, digest: kept.digest, ..parsed };
        let replay = Replay { of: id, asked_by: asker.name.to_owned() };
        let envelope = Envelope { source: None, received_at: asker.now, replay: Some(replay) };
        let record = Record { headers: kept.headers, body };
        let submission = submission(&self.config, &self.rules(), repository, parsed, record, envelope);
        let note = Note::of(&submission.delivery);
        let disk = |(name, site): (&SiteName, &Site)| (name.clone(), setup::disk(&self.config, name, site));
        let disks: BTreeMap<_, _> = self.config.sites.iter().map(disk).collect();
        let live = move |site: &SiteName| current::live_commit(disks.get(site)?);
        let receipt = Receipt::from(self.store.accept(submission, &live)?);
        note.tell(&receipt);
        Ok(receipt)
    }

    fn kept(&self, id: i64) -> Result<Delivery, AppError> {
        self.store.delivery(id)?.ok_or_else(|| {
            AppError::NotFound(format!(
                "there is no delivery {id}\nhelp: `landfall deliveries` lists those that are kept"
            ))
        })
    }
}

impl From<Delivery> for DeliveryReport {
    fn from(delivery: Delivery) -> Self {
        let Delivery {
            id,
            repository,
            key,
            attempt,
            event,
            digest,
            changes,
            status,
            reason,
            received_at,
            latency_us,
            source,
            headers: _,
            body_size,
            replay,
            sites,
        } = delivery;
        let (replay_of, asked_by) = replay.map(|Replay { of, asked_by }| (of, asked_by)).unzip();
        Self {
            id,
            repository,
            key: key.to_string(),
            attempt,
            event,
            refs: changes.into_iter().map(RefReport::from).collect(),
            status: status.as_str(),
            reason,
            sites: sites.into_iter().map(SiteDecision::from).collect(),
            received_at,
            latency_us,
            source,
            body_size,
            digest,
            replay_of,
            asked_by,
        }
    }
}

impl From<Change> for RefReport {
    fn from(Change { ref_name, before, after, message: _ }: Change) -> Self {
        Self { ref_name: ref_name.to_string(), before, after }
    }
}

impl From<DeliverySite> for SiteDecision {
    fn from(DeliverySite { site, status, reason, ref_name, deployment }: DeliverySite) -> Self {
        Self {
            site,
            status: status.as_str(),
            reason,
            ref_name: ref_name.map(|name| name.to_string()),
            deployment: deployment.map(|(id, state)| LedTo { id, state }),
        }
    }
}

impl From<Delivery> for Attempt {
    fn from(delivery: Delivery) -> Self {
        let DeliveryReport { id, attempt, status, received_at, replay_of, asked_by, .. } = delivery.into();
        Self { id, attempt, status, received_at, replay_of, asked_by }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Base64(error.into_bytes()), Self::Text)
    }
}

fn base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// What helps when we cannot.
const SEND_AGAIN: &str = "help: redeliver it in the forge, or `landfall deploy` the site";

/// Nobody reads more of them.
const MOST_ATTEMPTS: i64 = 50;
