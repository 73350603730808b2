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
    /// bitbucket.org: `X-Hub-Signature` with SHA-256, several refs in one push.
    Bitbucket,
    /// Bitbucket Data Center and Server: the same signature over another payload.
    BitbucketDc,
    /// Azure DevOps, in the cloud and on one's own server: a user and a password, and no signature.
    Azure,
    /// git.sr.ht and one's own SourceHut: Ed25519, by the key of the instance.
    Sourcehut,
    /// Whoever can sign as Standard Webhooks has it: a CI job, a script, a forge that is not in this list.
    Standard,
}

impl Forge {
    /// Every forge, for messages that list what is allowed.
    pub const ALL: [Self; 10] = [
        Self::Github,
        Self::Gitlab,
        Self::Gitea,
        Self::Forgejo,
        Self::Gogs,
        Self::Bitbucket,
        Self::BitbucketDc,
        Self::Azure,
        Self::Sourcehut,
        Self::Standard,
    ];

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
            Self::Gogs => "gogs",
            Self::Bitbucket => "bitbucket",
            Self::BitbucketDc => "bitbucket-dc",
            Self::Azure => "azure",
            Self::Sourcehut => "sourcehut",
            Self::Standard => "standard",
        }
    }

    /// Reads the word in the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|forge| forge.as_str() == text)
    }

    /// Whether a proof says that what a delivery tells has happened. SourceHut signs whatever anybody asks it to.
    pub fn proves_what_it_tells(self) -> bool {
        self != Self::Sourcehut
    }

    /// Whether `Acme/Blog` and `acme/blog` are one repository there.
    pub fn ignores_case(self) -> bool {
        match self {
            Self::Github | Self::Gitlab | Self::Gitea | Self::Forgejo | Self::Gogs => true,
            // Bitbucket's URLs have the project's key in lower case, its payloads in upper case.
            Self::Bitbucket | Self::BitbucketDc | Self::Azure => true,
            Self::Sourcehut | Self::Standard => false,
        }
    }

    /// Knows the well-known hosts; anything else has to be configured.
    pub fn of_host(host: &str) -> Option<Self> {
        match host {
            "github.com" | "ssh.github.com" => Some(Self::Github),
            "gitlab.com" | "altssh.gitlab.com" => Some(Self::Gitlab),
            "gitea.com" => Some(Self::Gitea),
            "codeberg.org" | "code.forgejo.org" => Some(Self::Forgejo),
            "bitbucket.org" | "altssh.bitbucket.org" => Some(Self::Bitbucket),
            "dev.azure.com" | "ssh.dev.azure.com" => Some(Self::Azure),
            "git.sr.ht" => Some(Self::Sourcehut),
            _ if host.ends_with(".visualstudio.com") => Some(Self::Azure),
            _ => None,
        }
    }
}

impl fmt::Display for Forge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_forge_and_a_well_known_host_too() {
        for forge in Forge::ALL {
            assert_eq!(Forge::parse(forge.as_str()), Some(forge));
        }
        assert_eq!(Forge::parse("Github"), None);
        let table = [
            ("github.com", Some(Forge::Github)),
            ("altssh.gitlab.com", Some(Forge::Gitlab)),
            ("bitbucket.org", Some(Forge::Bitbucket)),
            ("altssh.bitbucket.org", Some(Forge::Bitbucket)),
            ("dev.azure.com", Some(Forge::Azure)),
            ("ssh.dev.azure.com", Some(Forge::Azure)),
            ("acme.visualstudio.com", Some(Forge::Azure)),
            ("vs-ssh.visualstudio.com", Some(Forge::Azure)),
            ("git.sr.ht", Some(Forge::Sourcehut)),
            ("visualstudio.com", None),
            ("acme.visualstudio.com.example.com", None),
            ("bitbucket.example.com", None),
            ("hg.sr.ht", None),
        ];
        for (host, forge) in table {
            assert_eq!(Forge::of_host(host), forge, "{host}");
        }
    }
}
