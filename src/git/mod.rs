//! The only room that knows git: what a remote has, the local copy of it, and a commit's tree as files.
//!
//! Absent: which commit is deployed, retries, and any credential in a URL, a file or a message. Filters and `eol`
//! attributes are not applied: what is written is what the commit holds.

mod checkout;
mod known_hosts;
mod mirror;
mod remote;

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::domain::push::RefName;
use crate::domain::remote_url::RemoteUrl;
use crate::domain::secret::Secret;

pub use checkout::{Owner, Written, checkout};
pub use mirror::{Fetched, Mirror};
pub use remote::{tip, tips};

/// What opens a repository.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// A private key for ssh.
    pub ssh_key: Option<PathBuf>,
    /// The host keys that are trusted; without it, those in the home directory.
    pub known_hosts: Option<PathBuf>,
    /// A token for https.
    pub token: Option<Secret>,
}

/// A repository on its server.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    /// Where it is.
    pub url: &'a RemoteUrl,
    /// What opens it.
    pub credentials: &'a Credentials,
}

/// Why git did not do as it was asked. No message holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The server does not let us in.
    #[error(
        "cannot {operation} `{url}`: access denied\nhelp: check `token` or `ssh_key` of the repository, and that it may read it"
    )]
    Authentication {
        /// What was tried.
        operation: &'static str,
        /// On what.
        url: String,
    },
    /// The server has no such repository, or does not show it to us.
    #[error("cannot {operation} `{url}`: the repository does not exist or is not visible: {message}")]
    RepositoryNotFound {
        /// What was tried.
        operation: &'static str,
        /// On what.
        url: String,
        /// What the server said.
        message: String,
    },
    /// The server's host key is not the one we trust.
    #[error("cannot trust the host key of `{url}`: {reason}")]
    HostKey {
        /// Of what.
        url: String,
        /// Why not, with the line to add if the key is new.
        reason: String,
    },
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The tree has a submodule, whose files would be missing.
    #[error("cannot check out `{0}`: it is a submodule, and submodules are not supported yet")]
    Submodule(String),
    /// The tree has a Git LFS pointer instead of a file.
    #[error("cannot check out `{0}`: it is a Git LFS pointer, and LFS is not supported yet")]
    LfsPointer(String),
    /// The tree has an entry that must not be written.
    #[error("cannot check out `{path}`: {reason}")]
    HostileTree {
        /// Which entry.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file could not be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// Which one.
        path: String,
        /// What the machine said.
        source: std::io::Error,
    },
    /// Anything else.
    #[error("cannot {operation}: {}", .source.message())]
    Git {
        /// What was tried, and on what.
        operation: String,
        /// What libgit2 said.
        source: git2::Error,
    },
    /// The lock of a mirror could not be taken, or a damaged one not be removed.
    #[error("cannot use the mirror `{}`: {source}", path.display())]
    Mirror {
        /// Which one.
        path: PathBuf,
        /// What the machine said.
        source: std::io::Error,
    },
}

impl GitError {
    fn git(operation: impl Into<String>) -> impl FnOnce(git2::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Git { operation, source }
    }
}

/// Whether libgit2 stumbled over our own files, not over the network.
fn is_damage(error: &git2::Error) -> bool {
    matches!(
        error.class(),
        git2::ErrorClass::Odb
            | git2::ErrorClass::Object
            | git2::ErrorClass::Zlib
            | git2::ErrorClass::Reference
            | git2::ErrorClass::Indexer
            | git2::ErrorClass::Tree
    )
}

/// Sets what libgit2 keeps for the whole process; call it first in `main`. Afterwards no configuration outside of the
/// mirrors is read, and no server can keep us waiting for ever.
pub fn configure_process() -> Result<(), GitError> {
    let levels =
        [git2::ConfigLevel::System, git2::ConfigLevel::Global, git2::ConfigLevel::XDG, git2::ConfigLevel::ProgramData];
    for level in levels {
        #[expect(unsafe_code, reason = "libgit2 keeps its options in globals")]
        // SAFETY: called first in main, before any other thread exists.
        unsafe { git2::opts::set_search_path(level, "") }.map_err(GitError::git("set libgit2's search path"))?;
    }
    #[expect(unsafe_code, reason = "libgit2 keeps its options in globals")]
    // SAFETY: called first in main, before any other thread exists.
    let set = unsafe {
        git2::opts::set_server_connect_timeout_in_milliseconds(CONNECT_TIMEOUT_MS)
            .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(SERVER_TIMEOUT_MS))
            // The operator's configuration names the paths; who owns them is the operator's business.
            .and_then(|()| git2::opts::set_verify_owner_validation(false))
    };
    set.map_err(GitError::git("set libgit2's time limits"))?;
    // Only Landfall writes the mirrors, and what arrives in a pack is hashed on arrival.
    git2::opts::strict_hash_verification(false);
    Ok(())
}

/// Where a fetched ref is kept in a mirror: below a name of ours, so that no ref of a remote can collide with another.
fn local_ref(ref_name: &RefName) -> String {
    // Hashed: hex of a long name is more than a file's name may have.
    format!("refs/landfall/{}", hex::encode(Sha256::digest(ref_name.as_str())))
}

/// A server that does not even accept a connection within this time is down.
const CONNECT_TIMEOUT_MS: i32 = 15_000;

/// A server that is silent for this long in the middle of an answer is down. Large repositories take a while to count.
const SERVER_TIMEOUT_MS: i32 = 60_000;

#[cfg(test)]
pub(crate) mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use crate::domain::push::RefName;
    use crate::domain::remote_url::RemoteUrl;
    use crate::domain::revision::Revision;

    /// A real repository, made by the git program with nobody's configuration.
    #[derive(Debug)]
    pub(crate) struct Origin {
        pub(crate) directory: tempfile::TempDir,
    }

    impl Origin {
        pub(crate) fn new() -> Self {
            let origin = Self { directory: tempfile::tempdir().expect("a directory") };
            origin.git(&["init", "-q", "-b", "main", "."]);
            origin
        }

        pub(crate) fn path(&self) -> &Path {
            self.directory.path()
        }

        pub(crate) fn url(&self) -> RemoteUrl {
            RemoteUrl::parse(&format!("file://{}", self.path().display())).expect("a URL")
        }

        pub(crate) fn git(&self, arguments: &[&str]) -> String {
            let output = Command::new("git")
                .args(arguments)
                .current_dir(self.path())
                .env_clear()
                .env("PATH", std::env::var_os("PATH").expect("a PATH"))
                .env("HOME", self.path())
                .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
                .envs([("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@example.com")])
                .envs([("GIT_COMMITTER_NAME", "A"), ("GIT_COMMITTER_EMAIL", "a@example.com")])
                .output()
                .expect("git");
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
        }

        pub(crate) fn commit(&self, files: &[(&str, &str)]) -> Revision {
            for (name, content) in files {
                let path = self.path().join(name);
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                std::fs::write(path, content).expect("a file");
            }
            self.git(&["add", "-A"]);
            self.git(&["commit", "-q", "--allow-empty", "-m", "a commit"]);
            self.head()
        }

        pub(crate) fn head(&self) -> Revision {
            Revision::parse(&self.git(&["rev-parse", "HEAD"])).expect("a commit id")
        }
    }

    pub(crate) fn main_branch() -> RefName {
        RefName::parse("refs/heads/main").expect("a ref")
    }

    pub(crate) fn mirror_path(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("mirror.git")
    }
}
