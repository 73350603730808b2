//! The form in which each forge asks for a webhook, in its own words: so that what `webhook` prints can be found there.

use crate::domain::forge::Forge;
use crate::domain::secret::Secret;

/// A forge's form.
#[derive(Debug)]
pub(super) struct Form {
    /// The way to it, in the repository.
    pub(super) place: &'static str,
    /// What it calls the URL.
    pub(super) url_field: &'static str,
    /// What it calls the media type; none if there is no choice.
    pub(super) content_type_field: Option<&'static str>,
    /// What it calls the secret.
    pub(super) secret_field: &'static str,
    /// What it calls the choice of events.
    pub(super) events_field: &'static str,
    /// The choice: what tells of pushes to branches and tags.
    pub(super) events: &'static str,
}

/// The form for a webhook with this secret: with some forges the kind of secret says which field it belongs into.
pub(super) fn form_of(forge: Forge, secret: Option<&Secret>) -> Form {
    match forge {
        Forge::Github => Form {
            place: "Settings > Webhooks > Add webhook",
            url_field: "Payload URL",
            content_type_field: Some("Content type"),
            secret_field: "Secret",
            events_field: "Which events",
            events: "Just the push event",
        },
        Forge::Gitlab => Form {
            place: "Settings > Webhooks > Add new webhook",
            url_field: "URL",
            content_type_field: None,
            secret_field: if secret.is_some_and(is_signing_secret) { "Signing token" } else { "Secret token" },
            events_field: "Trigger",
            events: "Push events; for sites with tags also Tag push events",
        },
        Forge::Gitea => Form { place: "Settings > Webhooks > Add Webhook > Gitea", ..gitea() },
        Forge::Forgejo => Form { place: "Settings > Webhooks > Add webhook > Forgejo", ..gitea() },
        Forge::Gogs => Form {
            place: "Settings > Webhooks > Add a new webhook > Gogs",
            url_field: "Payload URL",
            content_type_field: Some("Content Type"),
            secret_field: "Secret",
            events_field: "When should this webhook be triggered",
            // Gogs tells of tags by this event only.
            events: "Just the push event; for sites with tags: Let me choose, Push and Create",
        },
    }
}

/// A branch filter would hide tags, and other branches of other sites.
fn gitea() -> Form {
    Form {
        place: "",
        url_field: "Target URL",
        content_type_field: Some("POST Content Type"),
        secret_field: "Secret",
        events_field: "Trigger On",
        events: "Push Events, without a branch filter",
    }
}

fn is_signing_secret(secret: &Secret) -> bool {
    secret.expose().starts_with(b"whsec_")
}
