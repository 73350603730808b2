//! A webhook → what becomes of it: proved, read, matched, and stored together with what follows, before it is answered.
//!
//! ```text
//! submit    proves, reads and matches it, and hands it to the store's writer     → Submitted { note, ticket }
//!   …       the door waits for the ticket
//! receipt   tells the log and the workers what was decided
//! ```

use std::net::IpAddr;
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::config::Config;
use crate::domain::admission::{DeliveryStatus, SiteStatus};
use crate::domain::deployment::{DeploymentId, StateName};
use crate::domain::forge::Forge;
use crate::domain::name::RepositoryName;
use crate::domain::push::{Change, DeliveryKey, Event, Push};
use crate::domain::routing::{Route, Routing, SiteRule, route};
use crate::store::{
    Acceptance, NewDelivery, Replay, RepositoryId, SiteAcceptance, StoreError, Submission, Ticket, Verdict, VerdictFor,
};
use crate::webhook::{self, Malformed, Parsed, Record, Refused, Request};

use super::Service;

/// Who sends a webhook, and since when he waits.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The client's address.
    pub source: IpAddr,
    /// When its request came.
    pub at: Instant,
}

/// A delivery on its way into the store.
#[derive(Debug)]
pub struct Submitted {
    /// What [`Service::receipt`] needs to know of it.
    pub note: Note,
    /// What became of it, once that is on disk.
    pub ticket: Ticket,
}

/// What the log tells of a delivery.
#[derive(Debug)]
pub struct Note {
    repository: RepositoryName,
    event: String,
    refs: String,
    key: DeliveryKey,
    source: Option<IpAddr>,
}

/// What the sender is told about an authentic delivery.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Our number of the delivery.
    pub delivery: i64,
    /// The word for the whole.
    pub status: DeliveryStatus,
    /// Why, if the whole was decided at once.
    pub reason: Option<String>,
    /// What was decided for each site of the repository.
    pub sites: Vec<SiteAcceptance>,
}

impl Receipt {
    /// The deployments that it led to, or is a duplicate of.
    pub fn deployments(&self) -> Vec<DeploymentId> {
        self.sites.iter().filter_map(|site| Some(site.deployment?.0)).collect()
    }

    /// Says how far one of its deployments is now.
    pub fn update(&mut self, id: DeploymentId, now: StateName) {
        for (found, state) in self.sites.iter_mut().filter_map(|site| site.deployment.as_mut()) {
            if *found == id {
                *state = now;
            }
        }
    }

    /// The delivery in a line: its number, what became of it, and every reason.
    pub fn headline(&self) -> String {
        format!("delivery {}: {}{}", self.delivery, self.status.as_str(), self.reasons())
    }

    /// Every reason there is, for the operator's log.
    fn reasons(&self) -> String {
        let of_sites = self.sites.iter().filter_map(|site| Some(format!("{}: {}", site.site, site.reason.as_ref()?)));
        let all: Vec<_> = self.reason.iter().cloned().chain(of_sites).collect();
        if all.is_empty() { String::new() } else { format!(" ({})", all.join("; ").replace(char::is_control, " ")) }
    }
}

/// Why a delivery was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// No repository has this name.
    #[error("there is no repository of this name")]
    UnknownRepository,
    /// It is not authentic. Why is in the operator's log, not for the sender.
    #[error("the delivery is not authentic")]
    Refused,
    /// It is authentic, and makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It could not be stored: the sender has to send it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Service {
    /// The repository that a webhook's URL names, and who may send to it.
    pub fn repository(&self, name: &str) -> Option<(RepositoryName, Forge)> {
        let name = RepositoryName::parse(name).ok()?;
        let forge = self.app.config.repositories.get(&name)?.forge;
        Some((name, forge))
    }

    /// Proves, reads and matches a webhook, and hands it to the store's writer.
    pub fn submit(
        &self,
        repository: &RepositoryName,
        request: Request,
        arrival: Arrival,
    ) -> Result<Submitted, ReceiveError> {
        let source = arrival.source;
        let now = self.now();
        let configured = self.app.config.repositories.get(repository).ok_or(ReceiveError::UnknownRepository)?;
        let secrets = self.webhook_secrets.get(repository).map(Vec::as_slice).unwrap_or_default();
        let verified = webhook::authenticate(configured.forge, request, secrets, now)
            .map_err(|Refused { refusal, request }| self.refuse(repository, &refusal, &request, source))?;
        let parsed = webhook::parse(&verified).inspect_err(|malformed| {
            self.tell_malformed(repository, malformed, source);
        })?;
        let envelope = Envelope { source: Some(source), received_at: now, replay: None };
        let submission =
            submission(&self.app.config, &self.rules, repository, parsed, verified.record(secrets), envelope);
        let submission = Submission { arrived: arrival.at, ..submission };
        let note = Note::of(&submission.delivery);
        let ticket = self.acceptor.submit(submission).inspect_err(|error| note.complain(error))?;
        Ok(Submitted { note, ticket })
    }

    /// What the sender is told. When this is a receipt, the delivery, its decision and what it queued are on disk.
    pub fn receipt(&self, note: Note, accepted: Result<Acceptance, StoreError>) -> Result<Receipt, ReceiveError> {
        let receipt = Receipt::from(accepted.inspect_err(|error| note.complain(error))?);
        note.tell(&receipt);
        if receipt.status == DeliveryStatus::Of(SiteStatus::Queued) {
            self.bell.ring();
        }
        Ok(receipt)
    }
}

impl Note {
    pub(super) fn of(delivery: &NewDelivery) -> Self {
        let refs: Vec<_> = delivery.changes.iter().map(|change| change.ref_name.as_str()).collect();
        Self {
            repository: delivery.repository.clone(),
            event: delivery.event.clone(),
            refs: refs.join(" "),
            key: delivery.key.clone(),
            source: delivery.source,
        }
    }

    fn complain(&self, error: &StoreError) {
        log::error!("cannot store a delivery: {error} repository={} key={}", self.repository, self.key);
    }

    pub(super) fn tell(&self, receipt: &Receipt) {
        let Self { repository, event, refs, key, source } = self;
        let source = source.map_or_else(String::new, |source| format!(" source={source}"));
        let headline = receipt.headline();
        log::info!("{headline} repository={repository} event={event:?} ref={refs:?} key={key}{source}");
    }
}

/// What of a delivery does not stand in it.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) source: Option<IpAddr>,
    pub(super) received_at: DateTime<Utc>,
    pub(super) replay: Option<Replay>,
}

/// A delivery with its verdict, as the store takes it.
pub(super) fn submission(
    config: &Config,
    rules: &[SiteRule],
    repository: &RepositoryName,
    parsed: Parsed,
    record: Record,
    envelope: Envelope,
) -> Submission {
    let Parsed { key, event_name: event, event: said, digest } = parsed;
    let configured = config.repositories.get(repository);
    let said = match said {
        Event::Push(push) if configured.is_some_and(|configured| !configured.forge.proves_what_it_tells()) => {
            Event::Push(without_claims(push))
        }
        said => said,
    };
    let verdict = judge(config, rules, repository, &said);
    let Envelope { source, received_at, replay } = envelope;
    let Record { headers, body } = record;
    let (id, changes) = match said {
        Event::Push(Push { repository: _, repository_id, changes }) => (repository_id, changes),
        Event::Ping | Event::Other(_) | Event::Incomplete(_) => (None, Vec::new()),
    };
    // Only a push that the configured name belongs to may teach the store which repository has that name.
    let is_ours = matches!(verdict, Verdict::Sites(_));
    let learner = configured.filter(|configured| is_ours && configured.forge_id.is_none());
    let repository_id = learner
        .zip(id)
        .map(|(configured, id)| RepositoryId { of: format!("{} {}", configured.forge, configured.identity), id });
    let delivery = NewDelivery {
        repository: repository.clone(),
        repository_id,
        key,
        event,
        digest,
        changes,
        headers,
        body,
        source,
        replay,
        received_at,
    };
    Submission { delivery, verdict, arrived: Instant::now() }
}

/// What is left of a push when anybody may have made it up: that one should look at these refs. An id would keep the real
/// repository out from then on, and where a ref was makes a deployment wait until it is elsewhere.
fn without_claims(push: Push) -> Push {
    let changes = push.changes.into_iter().map(|change| Change { before: None, ..change });
    Push { repository_id: None, changes: changes.collect(), ..push }
}

/// What the configuration says to an event.
pub(super) fn judge(config: &Config, rules: &[SiteRule], repository: &RepositoryName, event: &Event) -> Verdict {
    let ignored = |reason| Verdict::Whole { status: DeliveryStatus::Of(SiteStatus::Ignored), reason: Some(reason) };
    let push = match event {
        Event::Ping => return Verdict::Whole { status: DeliveryStatus::Pong, reason: None },
        Event::Other(name) => return ignored(format!("event `{name}` is no push")),
        Event::Incomplete(reason) => return ignored(reason.clone()),
        Event::Push(push) => push,
    };
    let Some(configured) = config.repositories.get(repository) else {
        return ignored(format!("repository `{repository}` is not configured any more"));
    };
    let other = match (&configured.forge_id, &push.repository_id) {
        (Some(pinned), Some(sent)) if pinned != sent => {
            Some(format!("the forge's id of the repository is `{sent}`, not the configured `{pinned}`"))
        }
        (Some(_) | None, _) => None,
    };
    match route(rules, repository, &configured.identity, push) {
        Routing::Ignore(reason) => ignored(reason),
        Routing::Sites(sites) => {
            let verdict = |(site, route): (_, Route)| VerdictFor {
                site,
                node: config.node.clone(),
                route: match &other {
                    Some(reason) => route.refused(reason),
                    None => route,
                },
            };
            Verdict::Sites(sites.into_iter().map(verdict).collect())
        }
    }
}

impl From<Acceptance> for Receipt {
    fn from(accepted: Acceptance) -> Self {
        let Acceptance { delivery, status, reason, sites } = accepted;
        Self { delivery, status, reason, sites }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::push::RefName;
    use crate::domain::revision::Revision;

    #[test]
    fn of_what_anybody_can_have_signed_only_the_refs_are_left() {
        let commit = |digit: &str| Revision::parse(&digit.repeat(40)).ok();
        let ref_name = RefName::of_branch("main").expect("a branch");
        let message = Some("[skip deploy]".to_owned());
        let change = Change { ref_name, before: commit("1"), after: commit("2"), message };
        let push = Push {
            repository: "~acme/blog".into(),
            repository_id: Some("42".into()),
            changes: vec![change.clone(), change.clone()],
        };
        let left = without_claims(push.clone());
        assert_eq!((left.repository, left.repository_id), (push.repository, None));
        assert_eq!(left.changes, [Change { before: None, ..change.clone() }, Change { before: None, ..change }]);
    }
}
