//! What to paste into a forge's form: where the form is, what its fields are called there, and what one has to know.

use serde_json::json;

use crate::config::Repository;
use crate::domain::forge::Forge;
use crate::webhook::{SOURCEHUT_QUERY, STANDARD_SCRIPT};

/// A form of a forge, filled in.
#[derive(Debug)]
pub(super) struct Form {
    /// The forge's word for the events that are needed.
    pub(super) events: &'static str,
    place: String,
    fields: Vec<(&'static str, String)>,
    notes: Vec<String>,
}

impl Form {
    /// For a repository, reached at this URL and with this secret.
    pub(super) fn of(repository: &Repository, url: &str, secret: &str) -> Self {
        match repository.forge {
            Forge::Github => github(url, secret),
            Forge::Gitlab => gitlab(url, secret),
            Forge::Gitea => gitea(repository.forge, "Settings > Webhooks > Add Webhook > Gitea", url, secret),
            Forge::Forgejo => gitea(repository.forge, "Settings > Webhooks > Add webhook > Forgejo", url, secret),
            Forge::Gogs => gogs(url, secret),
            Forge::Bitbucket => bitbucket(url, secret),
            Forge::BitbucketDc => bitbucket_dc(url, secret),
            Forge::Azure => azure(repository, url, secret),
            Forge::Sourcehut => sourcehut(repository, url, secret),
            Forge::Standard => standard(repository, url, secret),
        }
    }

    /// As text.
    pub(super) fn lines(self) -> Vec<String> {
        let Self { events: _, place, fields, notes } = self;
        let widest = fields.iter().map(|(label, _)| label.len()).max().unwrap_or_default() + 1;
        let fields = fields.into_iter().map(|(label, value)| format!("  {:widest$}  {value}", format!("{label}:")));
        [place].into_iter().chain(fields).chain(notes).collect()
    }
}

fn github(url: &str, secret: &str) -> Form {
    Form {
        events: "Just the push event",
        place: "In the repository on github: Settings > Webhooks > Add webhook".into(),
        fields: vec![
            ("Payload URL", url.into()),
            ("Content type", JSON.into()),
            ("Secret", secret.into()),
            ("Which events", "Just the push event".into()),
        ],
        notes: Vec::new(),
    }
}

fn gitlab(url: &str, secret: &str) -> Form {
    // The kind of secret says which field it belongs into.
    let label = if secret.starts_with("whsec_") { "Signing token" } else { "Secret token" };
    let events = "Push events; for sites with tags also Tag push events";
    Form {
        events,
        place: "In the repository on gitlab: Settings > Webhooks > Add new webhook".into(),
        fields: vec![("URL", url.into()), (label, secret.into()), ("Trigger", events.into())],
        notes: Vec::new(),
    }
}

/// A branch filter would hide tags, and other branches of other sites.
fn gitea(forge: Forge, place: &str, url: &str, secret: &str) -> Form {
    let events = "Push Events, without a branch filter";
    Form {
        events,
        place: format!("In the repository on {forge}: {place}"),
        fields: vec![
            ("Target URL", url.into()),
            ("POST Content Type", JSON.into()),
            ("Secret", secret.into()),
            ("Trigger On", events.into()),
        ],
        notes: Vec::new(),
    }
}

fn gogs(url: &str, secret: &str) -> Form {
    // Gogs tells of tags by this event only.
    let events = "Just the push event; for sites with tags: Let me choose, Push and Create";
    Form {
        events,
        place: "In the repository on gogs: Settings > Webhooks > Add a new webhook > Gogs".into(),
        fields: vec![
            ("Payload URL", url.into()),
            ("Content Type", JSON.into()),
            ("Secret", secret.into()),
            ("When should this webhook be triggered", events.into()),
        ],
        notes: Vec::new(),
    }
}

fn bitbucket(url: &str, secret: &str) -> Form {
    Form {
        events: "repo:push",
        place: "In the repository on Bitbucket: Repository settings > Webhooks > Add webhook".into(),
        fields: vec![
            ("Title", "Landfall".into()),
            ("URL", url.into()),
            ("Secret", secret.into()),
            ("Status", "Active".into()),
            ("Triggers", "Repository push".into()),
        ],
        notes: vec![
            "Bitbucket sends no push whose payload is larger than 256 kB, and does not say so: `landfall deploy` deploys it.".into(),
        ],
    }
}

fn bitbucket_dc(url: &str, secret: &str) -> Form {
    Form {
        events: "repo:refs_changed",
        place: "In the repository on Bitbucket Data Center: Repository settings > Webhooks > Create webhook".into(),
        fields: vec![
            ("Name", "Landfall".into()),
            ("URL", url.into()),
            ("Secret", secret.into()),
            ("Authentication", "None".into()),
            ("Status", "Active".into()),
            ("Events", "Repository: Push".into()),
        ],
        notes: vec![
            "`Test connection` is answered 200 if it is signed. A server that sends it without a signature gets 401, and its \
             pushes work all the same."
                .into(),
        ],
    }
}

fn azure(repository: &Repository, url: &str, secret: &str) -> Form {
    let (user, password) = secret.split_once(':').unwrap_or(("landfall", secret));
    let identity = repository.identity.as_str();
    let name = identity.split_once('/').map_or(identity, |(_, name)| name);
    Form {
        events: "git.push",
        place: "In the project on Azure DevOps: Project settings > Service hooks > + > Web Hooks".into(),
        fields: vec![
            ("Trigger", "Code pushed".into()),
            ("Repository", name.into()),
            ("URL", url.into()),
            ("Basic authentication username", user.into()),
            ("Basic authentication password", password.into()),
            ("Resource details to send", "All".into()),
        ],
        notes: vec![
            "Azure signs nothing: use https up to this machine.".into(),
            "`Test` sends a sample about another repository, which is answered 200 `ignored`.".into(),
        ],
    }
}

/// There is no form, but an interface to ask.
fn sourcehut(repository: &Repository, url: &str, key: &str) -> Form {
    let host = repository.url.host().unwrap_or("git.sr.ht");
    let identity = repository.identity.as_str();
    let name = identity.split_once('/').map_or(identity, |(_, name)| name);
    let find = json!({
        "query": "query ($name: String!) { me { repository(name: $name) { id } } }",
        "variables": { "name": name },
    });
    let create = json!({
        "query": "mutation ($id: Int!, $url: String!, $query: String!) { createGitWebhook(config: { repositoryID: $id, \
                  url: $url, events: [GIT_POST_RECEIVE], query: $query }) { id } }",
        "variables": { "id": "REPOSITORY_ID", "url": url, "query": SOURCEHUT_QUERY },
    });
    let ask = |body: String| {
        let body = body.replace("\"REPOSITORY_ID\"", "REPOSITORY_ID").replace('\'', r"'\''");
        format!(
            "  curl --oauth2-bearer \"$TOKEN\" -H 'content-type: application/json' https://{host}/query -d '{body}'"
        )
    };
    Form {
        events: "GIT_POST_RECEIVE",
        place: format!("SourceHut has no form for {identity}. It is asked with a personal access token (`meta` > OAuth 2.0):"),
        fields: vec![
            ("Scopes of the token", "git.sr.ht/REPOSITORIES:RW git.sr.ht/OBJECTS:RO git.sr.ht/PROFILE:RO".into()),
            ("URL", url.into()),
            ("Public key", key.into()),
            ("Events", "GIT_POST_RECEIVE".into()),
            ("Query", SOURCEHUT_QUERY.into()),
        ],
        notes: vec![
            format!("This tells the number of the repository:\n{}", ask(find.to_string())),
            format!("And this makes the webhook, with that number for REPOSITORY_ID:\n{}", ask(create.to_string())),
            "The signature proves that SourceHut has sent a delivery, not that there was a push: others can make it sign what \
             they like. All they gain is that Landfall looks at the remote; only the tip of the configured ref is ever deployed."
                .into(),
            "help: `allow_from`, or a name of the repository in deploy.toml that nobody guesses, keeps others away".into(),
            "SourceHut does not name new branches and tags: push to a new branch twice, or `landfall deploy` it once.".into(),
        ],
    }
}

/// There is no form either: whoever sends has to sign.
fn standard(repository: &Repository, url: &str, secret: &str) -> Form {
    let mut form = Form {
        events: "push",
        place: "Where the push is known (a CI job, a script, a server's hook):".into(),
        fields: vec![("URL", url.into()), ("Content type", JSON.into())],
        notes: Vec::new(),
    };
    let body = json!({ "type": "push", "data": {
        "repository": repository.identity.as_str(), "ref": "refs/heads/main", "before": "…", "after": "…" } });
    if secret.starts_with("whpk_") {
        form.fields.push(("Public key", secret.into()));
        form.notes.push("Whoever has the private key signs as Standard Webhooks has it, with version `v1a`.".into());
    } else {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let identity = json!(repository.identity.as_str()).to_string();
        let (url, identity) = (quoted(url), quoted(&identity));
        let variables =
            format!("URL={url}\nREPOSITORY={identity}\nREF=refs/heads/main\nCOMMIT=$(git rev-parse HEAD)\n");
        let script: String = (variables + STANDARD_SCRIPT).lines().map(|line| format!("  {line}\n")).collect();
        form.fields.push(("Secret", secret.into()));
        form.notes.push(
            "Sign as Standard Webhooks has it, with a library or with this, the secret in the variable SECRET:".into(),
        );
        form.notes.push(script.trim_end().into());
    }
    form.fields.push(("Body", body.to_string()));
    form
}

const JSON: &str = "application/json";
