//! Talking to the server: who we are, whether it is who it says, and what it has.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;

use git2::{CertificateCheckStatus, Cred, CredentialType, Direction, ErrorClass, ErrorCode, RemoteCallbacks};

use crate::domain::push::RefName;
use crate::domain::remote_url::{RemoteUrl, Scheme};
use crate::domain::revision::Revision;

use super::known_hosts::{self, Verdict};
use super::{GitError, Remote, is_damage};

/// Asks the server for the tip of a ref, as `git ls-remote` does; none if the ref does not exist. A tag gives its commit.
pub fn tip(remote: &Remote<'_>, ref_name: &RefName) -> Result<Option<Revision>, GitError> {
    Ok(tips(remote, std::slice::from_ref(ref_name))?.remove(ref_name))
}

/// Asks the server once for the tips of these refs; those that do not exist are absent. It cannot be interrupted: a server
/// that is silent keeps its caller until libgit2's time limits.
pub fn tips(remote: &Remote<'_>, ref_names: &[RefName]) -> Result<BTreeMap<RefName, Revision>, GitError> {
    let session = Session::default();
    let mut detached = git2::Remote::create_detached(remote.url.as_str()).map_err(GitError::git("ask the remote"))?;
    let connection = detached
        .connect_auth(Direction::Fetch, Some(session.callbacks(remote, &|| false)), None)
        .map_err(|error| session.explain("ask", remote, error))?;
    let heads = connection.list().map_err(|error| session.explain("ask", remote, error))?;
    Ok(ref_names.iter().filter_map(|name| Some((name.clone(), find(heads, name)?.commit))).collect())
}

/// A ref as the server lists it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// What the ref names: a commit, or an annotated tag.
    pub(super) object: git2::Oid,
    /// The commit.
    pub(super) commit: Revision,
}

/// Finds a ref in the server's list. An annotated tag is listed twice, the second time with `^{}` and its commit.
pub(super) fn find(heads: &[git2::RemoteHead<'_>], ref_name: &RefName) -> Option<Listed> {
    let oid_of = |name: &str| heads.iter().find(|head| head.name() == name).map(git2::RemoteHead::oid);
    let object = oid_of(ref_name.as_str())?;
    let commit = oid_of(&format!("{ref_name}^{{}}")).unwrap_or(object);
    Some(Listed { object, commit: Revision::parse(&commit.to_string()).ok()? })
}

/// What happened during one conversation, so that its error can be explained.
#[derive(Debug, Default)]
pub(super) struct Session {
    tried_token: Cell<bool>,
    tried_key: Cell<bool>,
    refused: Cell<bool>,
    host_key: RefCell<Option<String>>,
    cancelled: Cell<bool>,
}

impl Session {
    /// The callbacks of a conversation. Each credential is offered once: a server that refuses it is not asked for ever.
    pub(super) fn callbacks<'a>(
        &'a self,
        remote: &'a Remote<'a>,
        cancelled: &'a dyn Fn() -> bool,
    ) -> RemoteCallbacks<'a> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.credentials(move |url, user, allowed| self.credential(remote, url, user, allowed));
        callbacks.certificate_check(move |certificate, host| self.check_host(remote, certificate, host));
        callbacks.transfer_progress(move |_| self.go_on(cancelled));
        callbacks.sideband_progress(move |_| self.go_on(cancelled));
        callbacks
    }

    fn go_on(&self, cancelled: &dyn Fn() -> bool) -> bool {
        self.cancelled.set(self.cancelled.get() || cancelled());
        !self.cancelled.get()
    }

    fn credential(
        &self,
        remote: &Remote<'_>,
        url: &str,
        user: Option<&str>,
        allowed: CredentialType,
    ) -> Result<Cred, git2::Error> {
        let credentials = remote.credentials;
        let user = user.unwrap_or("git");
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(user);
        }
        if let Some(key) = &credentials.ssh_key
            && allowed.contains(CredentialType::SSH_KEY)
            && !self.tried_key.replace(true)
        {
            return Cred::ssh_key(user, None, key, None);
        }
        if let Some(token) = &credentials.token
            && allowed.contains(CredentialType::USER_PASS_PLAINTEXT)
            && is_at_host(url, remote)
            && !self.tried_token.replace(true)
        {
            let token =
                std::str::from_utf8(token.expose().trim_ascii()).map_err(|_| refusal("the token is no text"))?;
            return Cred::userpass_plaintext(TOKEN_USER, token);
        }
        self.refused.set(true);
        Err(refusal("no credential is left to try"))
    }

    fn check_host(
        &self,
        remote: &Remote<'_>,
        certificate: &git2::cert::Cert<'_>,
        host: &str,
    ) -> Result<CertificateCheckStatus, git2::Error> {
        let Some(key) = certificate.as_hostkey() else { return Ok(CertificateCheckStatus::CertificatePassthrough) };
        let Some(path) = &remote.credentials.known_hosts else {
            return Ok(CertificateCheckStatus::CertificatePassthrough);
        };
        let refused = |reason: String| {
            *self.host_key.borrow_mut() = Some(reason);
            Err(refusal("the host key is not trusted"))
        };
        let Some(key) = key.hostkey() else { return refused("the server showed none".into()) };
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => return refused(format!("cannot read `{}`: {error}", path.display())),
        };
        match known_hosts::check(&String::from_utf8_lossy(&text), host, remote.url.port(), key) {
            Verdict::Trusted => Ok(CertificateCheckStatus::CertificateOk),
            verdict => refused(describe(&verdict, path, host, remote.url.port(), key)),
        }
    }

    /// Makes an error for people out of libgit2's.
    pub(super) fn explain(&self, operation: &'static str, remote: &Remote<'_>, error: git2::Error) -> GitError {
        let url = remote.url.to_string();
        if self.cancelled.get() {
            return GitError::Cancelled;
        }
        if let Some(reason) = self.host_key.take() {
            return GitError::HostKey { url, reason };
        }
        // libgit2 takes a path at which there is no directory for the URL of a protocol that it does not know.
        let is_no_directory = remote.url.scheme() == Scheme::File && error.message() == "unsupported URL protocol";
        let message = if is_no_directory { "there is no such directory" } else { error.message() }.to_owned();
        let is_denied = error.code() == ErrorCode::Auth || self.refused.get() || message.contains("status code: 403");
        if is_denied {
            return GitError::Authentication { operation, url };
        }
        let is_missing = !is_damage(&error)
            && (is_no_directory
                || error.code() == ErrorCode::NotFound
                || message.contains("status code: 404")
                || error.class() == ErrorClass::Repository
                || message.contains("not found"));
        if is_missing {
            return GitError::RepositoryNotFound { operation, url, message };
        }
        GitError::Git { operation: format!("{operation} `{url}`"), source: error }
    }
}

/// A redirect to another host, or to another server of the same one, must not get our token.
fn is_at_host(url: &str, remote: &Remote<'_>) -> bool {
    let asked = RemoteUrl::parse(url).ok();
    asked.is_some_and(|asked| asked.host() == remote.url.host() && own_port(&asked) == own_port(remote.url))
}

/// The port, unless it is the usual one: from http to https of the same host is the same server.
fn own_port(url: &RemoteUrl) -> Option<u16> {
    url.port().filter(|port| !matches!((url.scheme(), port), (Scheme::Http, 80) | (Scheme::Https, 443)))
}

fn describe(verdict: &Verdict, path: &Path, host: &str, port: Option<u16>, key: &[u8]) -> String {
    let line = known_hosts::line(host, port, key);
    match verdict {
        Verdict::Trusted => String::new(),
        Verdict::Revoked => format!("`{}` says that it is revoked", path.display()),
        Verdict::Different => format!("it is not the one in `{}`; somebody may be in between", path.display()),
        Verdict::Unknown => {
            format!(
                "`{}` does not have it, perhaps another type of key of this host\nhelp: if it is the right one, add the \
                 line `{line}`",
                path.display()
            )
        }
    }
}

fn refusal(message: &str) -> git2::Error {
    git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, message)
}

/// GitHub wants this name with an installation token; GitHub and GitLab take any name with other tokens.
const TOKEN_USER: &str = "x-access-token";
