//! A webhook → what becomes of it: proved, read, matched, and stored together with what follows, before it is answered.

use std::net::IpAddr;

use crate::domain::admission::{DeliveryStatus, SiteStatus};
use crate::domain::forge::Forge;
use crate::domain::identity::Identity;
use crate::domain::name::{RepositoryName, SiteName};
use crate::domain::push::{Event, Push};
use crate::domain::revision::Revision;
use crate::domain::routing::{Routing, route};
use crate::store::{Acceptance, NewDelivery, SiteAcceptance, StoreError, Verdict, VerdictFor};
use crate::webhook::{self, Malformed, Parsed, Request};

use super::Service;

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

    /// Takes a webhook. When this returns a receipt, the delivery, its decision and what it queued are on disk.
    pub fn receive(
        &self,
        repository: &RepositoryName,
        request: Request,
        source: IpAddr,
    ) -> Result<Receipt, ReceiveError> {
        let now = self.now();
        let configured = self.app.config.repositories.get(repository).ok_or(ReceiveError::UnknownRepository)?;
        let secrets = self.webhook_secrets.get(repository).map(Vec::as_slice).unwrap_or_default();
        let verified = webhook::authenticate(configured.forge, request, secrets, now).map_err(|refusal| {
            self.refusals.log(repository, &refusal, source, now);
            ReceiveError::Refused
        })?;
        let parsed = webhook::parse(&verified).inspect_err(|malformed| {
            log::warn!("a delivery makes no sense: {malformed} repository={repository} source={source}");
        })?;
        let verdict = self.judge(repository, &configured.identity, &parsed.event);
        let delivery = delivery_of(repository, parsed);
        let is_live = |site: &SiteName, commit: &Revision| self.is_live(site, commit);
        let accepted = self.engine.store.accept(&delivery, &verdict, &is_live, now).inspect_err(|error| {
            log::error!("cannot store a delivery: {error} repository={repository} key={}", delivery.key);
        })?;
        let receipt = receipt_of(accepted, verdict);
        log::info!(
            "delivery {}: {}{} repository={repository} event={:?} ref={:?} key={} source={source}",
            receipt.delivery,
            receipt.status.as_str(),
            receipt.reasons(),
            delivery.event,
            delivery.changes.iter().map(|change| change.ref_name.as_str()).collect::<Vec<_>>().join(" "),
            delivery.key
        );
        if receipt.status == DeliveryStatus::Of(SiteStatus::Queued) {
            self.bell.ring();
        }
        Ok(receipt)
    }

    fn judge(&self, repository: &RepositoryName, identity: &Identity, event: &Event) -> Verdict {
        let ignored = |reason| Verdict::Whole { status: DeliveryStatus::Of(SiteStatus::Ignored), reason: Some(reason) };
        match event {
            Event::Ping => Verdict::Whole { status: DeliveryStatus::Pong, reason: None },
            Event::Other(name) => ignored(format!("event `{name}` is no push")),
            Event::Push(push) => match route(&self.rules, repository, identity, push) {
                Routing::Ignore(reason) => ignored(reason),
                Routing::Sites(sites) => {
                    let node = &self.engine.node;
                    let verdict = |(site, route)| VerdictFor { site, node: node.clone(), route };
                    Verdict::Sites(sites.into_iter().map(verdict).collect())
                }
            },
        }
    }

    fn is_live(&self, site: &SiteName, commit: &Revision) -> bool {
        self.engine.targets.get(site).is_some_and(|target| target.is_live(commit))
    }
}

fn delivery_of(repository: &RepositoryName, parsed: Parsed) -> NewDelivery {
    let Parsed { key, event_name, event, digest } = parsed;
    let changes = match event {
        Event::Push(Push { repository: _, repository_id: _, changes }) => changes,
        Event::Ping | Event::Other(_) => Vec::new(),
    };
    NewDelivery { repository: repository.clone(), key, event: event_name, digest, changes }
}

fn receipt_of(accepted: Acceptance, verdict: Verdict) -> Receipt {
    let Acceptance { delivery, status, sites } = accepted;
    let reason = match verdict {
        Verdict::Whole { reason, .. } => reason,
        Verdict::Sites(_) => None,
    };
    Receipt { delivery, status, reason, sites }
}
