//! The URL of a repository, as the operator writes it.

use std::fmt;

use super::forge::Forge;

/// A URL git may be given: https, ssh, http, git or file; never a helper such as `ext::`, never an option in disguise.
/// It holds no password: credentials have keys of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    text: String,
    scheme: Scheme,
    host: Option<String>,
    port: Option<u16>,
    path: String,
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Encrypted, server known by its certificate.
    Https,
    /// Encrypted, server known by its host key.
    Ssh,
    /// Readable and changeable on the way.
    Http,
    /// Readable and changeable on the way, without credentials.
    Git,
    /// A directory of this machine.
    File,
}

/// Why a text is no URL for a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteUrlError {
    /// A scheme that is not one of the five.
    #[error("use https://, ssh://, git@host:path, http://, git:// or file:///absolute/path")]
    Scheme,
    /// A password in the text would end in logs and process lists.
    #[error("holds a password; use `token` or `ssh_key`")]
    Password,
    /// White space, control characters, or a part that starts with `-`.
    #[error("has a part that git could take for an option, or a character no URL has")]
    Hostile,
    /// No host, or no path.
    #[error("names no host or no path")]
    Incomplete,
}

impl RemoteUrl {
    /// Checks the text; the only way in.
    pub fn parse(text: &str) -> Result<Self, RemoteUrlError> {
        if text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) || text.starts_with('-') {
            return Err(RemoteUrlError::Hostile);
        }
        let (scheme, authority, path) = Self::split(text)?;
        let host = match scheme {
            Scheme::File => None,
            Scheme::Https | Scheme::Ssh | Scheme::Http | Scheme::Git => Some(Self::host_of(scheme, authority)?),
        };
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let name = path.trim_matches('/');
        if name.is_empty() {
            return Err(RemoteUrlError::Incomplete);
        }
        if path.starts_with('-') || path.split('/').any(|part| part == "..") {
            return Err(RemoteUrlError::Hostile);
        }
        Ok(Self { text: text.to_owned(), scheme, host, port, path: path.to_owned() })
    }

    fn split(text: &str) -> Result<(Scheme, &str, &str), RemoteUrlError> {
        let schemes = [("https", Scheme::Https), ("ssh", Scheme::Ssh), ("http", Scheme::Http), ("git", Scheme::Git)];
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') { Ok((Scheme::File, "", path)) } else { Err(RemoteUrlError::Scheme) };
        }
        if text.starts_with('/') {
            return Ok((Scheme::File, "", text));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let (_, scheme) = schemes.into_iter().find(|(word, _)| *word == scheme).ok_or(RemoteUrlError::Scheme)?;
            let (authority, path) = rest.split_once('/').ok_or(RemoteUrlError::Incomplete)?;
            return Ok((scheme, authority, path));
        }
        match text.split_once(':') {
            Some((authority, path)) if authority.contains('@') && !path.starts_with(':') => {
                Ok((Scheme::Ssh, authority, path))
            }
            Some(_) | None => Err(RemoteUrlError::Scheme),
        }
    }

    fn host_of(scheme: Scheme, authority: &str) -> Result<String, RemoteUrlError> {
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        match (scheme, user) {
            (_, Some(user)) if user.contains(':') => return Err(RemoteUrlError::Password),
            (Scheme::Https | Scheme::Http, Some(_)) => return Err(RemoteUrlError::Password),
            (_, Some(user)) if user.starts_with('-') || user.is_empty() => return Err(RemoteUrlError::Hostile),
            (_, Some(_) | None) => {}
        }
        let bare = match host.strip_prefix('[') {
            Some(literal) => literal.split(']').next().unwrap_or(literal),
            None => host.split(':').next().unwrap_or(host),
        };
        if bare.is_empty() {
            return Err(RemoteUrlError::Incomplete);
        }
        if bare.starts_with('-') {
            return Err(RemoteUrlError::Hostile);
        }
        Ok(bare.to_ascii_lowercase())
    }

    /// The text for git.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How the repository is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, lower-case; none for a directory.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The port, if the URL names one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The forge of a well-known host.
    pub fn forge(&self) -> Option<Forge> {
        Forge::of_host(self.host()?)
    }

    /// The path without slashes at its ends and without `.git`, its `%20` decoded (`acme/blog`, `group/sub/project`);
    /// of a directory its last two parts.
    pub fn name(&self) -> String {
        let path = self.path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        match self.scheme {
            Scheme::File => {
                let parts: Vec<&str> = path.rsplit('/').take(2).collect();
                parts.into_iter().rev().collect::<Vec<_>>().join("/")
            }
            Scheme::Https | Scheme::Ssh | Scheme::Http | Scheme::Git => decoded(path),
        }
    }
}

/// Decodes `%20` and the like. A path that is not encoded after all is taken as it is.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else { return path.to_owned() };
        bytes.push(byte);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap_or_else(|_| path.to_owned())
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_write() {
        let table = [
            ("https://github.com/acme/blog.git", Scheme::Https, Some("github.com"), "acme/blog"),
            ("git@github.com:acme/blog.git", Scheme::Ssh, Some("github.com"), "acme/blog"),
            ("ssh://git@git.example.com:2222/acme/blog", Scheme::Ssh, Some("git.example.com"), "acme/blog"),
            ("https://gitlab.com/group/sub/project", Scheme::Https, Some("gitlab.com"), "group/sub/project"),
            ("http://[::1]:8080/x/y.git", Scheme::Http, Some("::1"), "x/y"),
            ("git://127.0.0.1/x.git", Scheme::Git, Some("127.0.0.1"), "x"),
            ("file:///srv/git/acme/blog.git", Scheme::File, None, "acme/blog"),
            ("/srv/git/acme/blog.git", Scheme::File, None, "acme/blog"),
        ];
        for (text, scheme, host, identity) in table {
            let url = RemoteUrl::parse(text).expect(text);
            assert_eq!((url.scheme(), url.host(), url.name().as_str()), (scheme, host, identity), "{text}");
        }
        assert_eq!(RemoteUrl::parse("git@github.com:a/b").ok().and_then(|url| url.forge()), Some(Forge::Github));
    }

    #[test]
    fn what_git_must_never_see() {
        for bad in [
            "",
            "-u",
            "--upload-pack=x",
            "ext::sh -c id",
            "ext::id",
            "../x",
            "x/y",
            "https://",
            "https://github.com",
            "https:///a/b",
            "https://user:pw@github.com/a/b",
            "https://token@github.com/a/b",
            "ssh://-oProxyCommand=id/x/y",
            "git@-oProxyCommand=id:x/y",
            "git@host:-x",
            "file://relative/x",
            "https://host/a/../b",
            "https://host/a b",
            "https://host/a\n",
            "fd::7",
            "ftp://h/x",
        ] {
            assert!(RemoteUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
