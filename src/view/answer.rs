//! The answer to a webhook, which people read in their forge's list of deliveries.

use serde::Serialize;

use crate::app::receive::Receipt;
use crate::domain::deployment::{DeploymentId, StateName};
use crate::store::SiteAcceptance;

/// The body of an answer.
#[derive(Debug, Serialize)]
pub struct Answer<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    delivery: i64,
    sites: Vec<SiteAnswer<'a>>,
    deployments: Vec<DeploymentAnswer<'a>>,
}

#[derive(Debug, Serialize)]
struct SiteAnswer<'a> {
    site: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct DeploymentAnswer<'a> {
    id: DeploymentId,
    site: &'a str,
    state: StateName,
}

impl<'a> Answer<'a> {
    /// The answer that a receipt leads to. Where one site was asked, its reason is the whole's.
    pub fn of(receipt: &'a Receipt) -> Self {
        let Receipt { delivery, status, reason, sites } = receipt;
        let only = match sites.as_slice() {
            [only] => only.reason.as_deref(),
            _ => None,
        };
        let site = |SiteAcceptance { site, status, reason, .. }: &'a SiteAcceptance| SiteAnswer {
            site: site.as_str(),
            status: status.as_str(),
            reason: reason.as_deref(),
        };
        let deployment = |found: &'a SiteAcceptance| {
            found.deployment.map(|(id, state)| DeploymentAnswer { id, site: found.site.as_str(), state })
        };
        Self {
            status: status.as_str(),
            reason: reason.as_deref().or(only),
            delivery: *delivery,
            sites: sites.iter().map(site).collect(),
            deployments: sites.iter().filter_map(deployment).collect(),
        }
    }
}
