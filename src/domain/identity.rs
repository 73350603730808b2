//! What a forge calls a repository, and whether two ways of writing it mean the same one.

use std::fmt;

use super::forge::Forge;
use super::remote_url::RemoteUrl;

/// A repository's identity on its forge: `acme/blog`, `group/subgroup/blog`, `~user/blog`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    forge: Forge,
    text: String,
}

impl Identity {
    /// The identity that an operator wrote, or a URL's path. A `.git` at the end is dropped: no forge lets a name end in it.
    pub fn new(forge: Forge, text: &str) -> Self {
        let text = text.trim_matches('/');
        Self { forge, text: text.strip_suffix(".git").unwrap_or(text).to_owned() }
    }

    /// What the forge calls the repository that has this URL, as far as a URL can tell it.
    ///
    /// ```text
    /// bitbucket-dc   https://host/scm/prj/blog.git   ssh://git@host:7999/~ada/blog.git     prj/blog   ~ada/blog
    /// azure          https://dev.azure.com/org/My%20Shop/_git/web                          My Shop/web
    ///                git@ssh.dev.azure.com:v3/org/My%20Shop/web                            My Shop/web
    ///                https://org.visualstudio.com/_git/web (both have one name)            web/web
    /// the others     the path, and of a directory its last two parts                       group/sub/blog
    /// ```
    pub fn of_url(forge: Forge, url: &RemoteUrl) -> Self {
        let path = url.name();
        let text = match forge {
            Forge::BitbucketDc => last_two(&path),
            Forge::Azure => of_azure(url.host().unwrap_or_default(), &path),
            Forge::Github | Forge::Gitlab | Forge::Gitea | Forge::Forgejo | Forge::Gogs => path,
            Forge::Bitbucket | Forge::Sourcehut | Forge::Standard => path,
        };
        Self::new(forge, &text)
    }

    /// Whether a payload means this repository. Most forges keep the case of a name and ignore it in comparisons; what the
    /// payload says is taken as it is.
    pub fn is(&self, payload: &str) -> bool {
        if self.forge.ignores_case() { self.text.eq_ignore_ascii_case(payload) } else { self.text == payload }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Whatever lies before: the path of the server, `scm`.
fn last_two(path: &str) -> String {
    let parts: Vec<&str> = path.rsplit('/').take(2).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// Project and repository, between which https has `_git`; where both have one name, Azure leaves the project out.
fn of_azure(host: &str, path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let Some(middle) = parts.iter().position(|part| *part == "_git") else { return last_two(path) };
    let (before, repository) = (&parts[..middle], parts[middle + 1..].join("/"));
    // The organisation is in the host or comes first, as does the collection of one's own server.
    let before = if host.ends_with(".visualstudio.com") { before } else { before.get(1..).unwrap_or_default() };
    let project = before.last().filter(|part| !part.eq_ignore_ascii_case(DEFAULT_COLLECTION));
    format!("{}/{repository}", project.copied().unwrap_or(&repository))
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// What Azure calls the collection of an organisation that has only one.
const DEFAULT_COLLECTION: &str = "DefaultCollection";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_tells_what_the_forge_calls_the_repository() {
        let table = [
            (Forge::Github, "git@github.com:acme/blog.git", "acme/blog"),
            (Forge::Gitlab, "https://gitlab.com/acme/web/blog.git", "acme/web/blog"),
            (Forge::Bitbucket, "git@bitbucket.org:acme/blog.git", "acme/blog"),
            (Forge::Bitbucket, "ssh://git@altssh.bitbucket.org:443/acme/blog.git", "acme/blog"),
            (Forge::BitbucketDc, "https://git.example.com/scm/acme/blog.git", "acme/blog"),
            (Forge::BitbucketDc, "https://example.com/bitbucket/scm/acme/blog.git", "acme/blog"),
            (Forge::BitbucketDc, "https://git.example.com/scm/~ada/blog.git", "~ada/blog"),
            (Forge::BitbucketDc, "https://git.example.com/scm/%7Eada/blog.git", "~ada/blog"),
            (Forge::BitbucketDc, "https://git.example.com/scm/scm/blog.git", "scm/blog"),
            (Forge::BitbucketDc, "ssh://git@git.example.com:7999/acme/blog.git", "acme/blog"),
            (Forge::Azure, "https://dev.azure.com/acme/shop/_git/blog", "shop/blog"),
            (Forge::Azure, "https://dev.azure.com/acme/My%20Shop/_git/My%20Blog", "My Shop/My Blog"),
            (Forge::Azure, "https://dev.azure.com/acme/_git/blog", "blog/blog"),
            (Forge::Azure, "git@ssh.dev.azure.com:v3/acme/My%20Shop/blog", "My Shop/blog"),
            (Forge::Azure, "https://acme.visualstudio.com/shop/_git/blog", "shop/blog"),
            (Forge::Azure, "https://acme.visualstudio.com/_git/blog", "blog/blog"),
            (Forge::Azure, "https://acme.visualstudio.com/DefaultCollection/_git/blog", "blog/blog"),
            (Forge::Azure, "https://acme.visualstudio.com/DefaultCollection/shop/_git/blog", "shop/blog"),
            (Forge::Azure, "acme@vs-ssh.visualstudio.com:v3/acme/shop/blog", "shop/blog"),
            (Forge::Azure, "https://tfs.example.com/tfs/DefaultCollection/shop/_git/blog", "shop/blog"),
            (Forge::Azure, "https://tfs.example.com/tfs/DefaultCollection/_git/blog", "blog/blog"),
            (Forge::Azure, "https://dev.azure.com/acme/_git_/_git/blog", "_git_/blog"),
            (Forge::Azure, "/srv/git/acme/blog.git", "acme/blog"),
            (Forge::Sourcehut, "https://git.sr.ht/~ada/blog", "~ada/blog"),
            (Forge::Sourcehut, "git@git.sr.ht:~ada/blog", "~ada/blog"),
            (Forge::Standard, "ssh://git@git.example.com/srv/blog.git", "srv/blog"),
            (Forge::Standard, "https://git.example.com/100%/%zz/%ff/blog", "100%/%zz/%ff/blog"),
        ];
        for (forge, url, expected) in table {
            let url = RemoteUrl::parse(url).unwrap();
            assert_eq!(Identity::of_url(forge, &url).as_str(), expected, "{forge} {url}");
        }
    }

    #[test]
    fn only_some_forges_tell_names_apart_by_case() {
        for forge in Forge::ALL {
            let strict = matches!(forge, Forge::Sourcehut | Forge::Standard);
            assert_eq!(Identity::new(forge, "acme/blog").is("ACME/blog"), !strict, "{forge}");
            assert!(Identity::new(forge, "acme/blog").is("acme/blog"), "{forge}");
        }
    }

    #[test]
    fn an_identity_is_what_the_forge_writes() {
        let table = [
            ("acme/blog", "acme/blog", true),
            ("acme/blog", "ACME/Blog", true),
            ("acme/blog.git", "acme/blog", true),
            ("/acme/blog/", "acme/blog", true),
            ("acme/web/blog", "acme/web/blog", true),
            ("acme/web/blog", "acme/blog", false),
            ("acme/blog", "acme/blog.git", false),
            ("acme/blog", "acme/blog ", false),
            ("acme/blog", "acme//blog", false),
            ("acme/blog", "evil/acme/blog", false),
        ];
        for (configured, payload, expected) in table {
            assert_eq!(Identity::new(Forge::Gitlab, configured).is(payload), expected, "{configured} {payload}");
        }
    }
}
