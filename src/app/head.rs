//! What can be said about a webhook before any of its body is read: who sent it, and whether it can be authentic at all.
//!
//! Absent: the store. To refuse costs a look at a few headers and a number in memory.

use std::net::IpAddr;

use crate::domain::name::RepositoryName;
use crate::webhook::{self, Request};

use super::Service;
use super::receive::ReceiveError;

impl Service {
    /// Refuses a source that the repository does not take webhooks from.
    pub fn check_source(&self, repository: &RepositoryName, source: IpAddr) -> Result<(), ReceiveError> {
        let configured = self.app.config.repositories.get(repository).ok_or(ReceiveError::UnknownRepository)?;
        match &configured.allow_from {
            Some(networks) if !networks.iter().any(|network| network.contains(source)) => {
                Err(self.refuse_source(repository, source))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a request whose proof is missing or malformed, whatever its body is, which is not looked at.
    pub fn check_head(
        &self,
        repository: &RepositoryName,
        request: &Request,
        source: IpAddr,
    ) -> Result<(), ReceiveError> {
        let configured = self.app.config.repositories.get(repository).ok_or(ReceiveError::UnknownRepository)?;
        let secrets = self.webhook_secrets.get(repository).map(Vec::as_slice).unwrap_or_default();
        webhook::check_head(configured.forge, request, secrets)
            .map_err(|refusal| self.refuse(repository, &refusal, request, source))
    }
}
