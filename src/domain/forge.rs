//! Which Git host sends the webhooks of a repository.

use std::fmt;

/// A kind of Git host, chosen by the configuration of the repository and never by what a request's headers suggest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forge {
    /// github.com and GitHub Enterprise Server: `X-Hub-Signature-256`.
    Github,
    /// gitlab.com and self-managed GitLab: `X-Gitlab-Token`, or the signing token of Standard Webhooks.
    Gitlab,
    /// Gitea: `X-Gitea-Signature`.
    Gitea,
    /// Forgejo, such as Codeberg: `X-Forgejo-Signature`.
    Forgejo,
    /// Gogs: `X-Gogs-Signature`.
    Gogs,
}

impl Forge {
    /// Every forge, for messages that list what is allowed.
    pub const ALL: [Self; 5] = [Self::Github, Self::Gitlab, Self::Gitea, Self::Forgejo, Self::Gogs];

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
            Self::Gogs => "gogs",
        }
    }

    /// Reads the word in the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|forge| forge.as_str() == text)
    }

    /// Whether `Acme/Blog` and `acme/blog` are one repository there.
    pub fn ignores_case(self) -> bool {
        match self {
            Self::Github | Self::Gitlab | Self::Gitea | Self::Forgejo | Self::Gogs => true,
        }
    }

    /// Knows the well-known hosts; anything else has to be configured.
    pub fn of_host(host: &str) -> Option<Self> {
        match host {
            "github.com" | "ssh.github.com" => Some(Self::Github),
            "gitlab.com" | "altssh.gitlab.com" => Some(Self::Gitlab),
            "gitea.com" => Some(Self::Gitea),
            "codeberg.org" | "code.forgejo.org" => Some(Self::Forgejo),
            _ => None,
        }
    }
}

impl fmt::Display for Forge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
