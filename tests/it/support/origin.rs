//! A real repository to push to: bare, with a work tree beside it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A bare repository and the work tree of whoever pushes to it.
#[derive(Debug)]
pub struct Origin {
    pub bare: PathBuf,
    work: PathBuf,
}

impl Origin {
    /// Makes an empty one, `<directory>/<name>.git`.
    pub fn new(directory: &Path, name: &str) -> Self {
        let (bare, work) = (directory.join(format!("{name}.git")), directory.join(format!("{name}.work")));
        git(directory, &["init", "--quiet", "--bare", "--initial-branch=main", &bare.to_string_lossy()]);
        git(directory, &["init", "--quiet", "--initial-branch=main", &work.to_string_lossy()]);
        Self { bare, work }
    }

    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Commits these files on `main` and pushes; an empty content removes the file. Gives back the commit.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            self.write(path, content);
        }
        self.push("main")
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.work.join(path);
        if content.is_empty() {
            std::fs::remove_file(path).expect("a file to remove");
            return;
        }
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }

    pub fn make_executable(&self, path: &str) {
        std::fs::set_permissions(self.work.join(path), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Commits the work tree and pushes it as this branch, by force.
    pub fn push(&self, branch: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "a change"]);
        self.git(&["push", "--quiet", "--force", &self.bare.to_string_lossy(), &format!("HEAD:refs/heads/{branch}")]);
        self.head()
    }

    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in the work tree; gives back its output.
    pub fn git(&self, args: &[&str]) -> String {
        git(&self.work, args)
    }

    /// Runs git in the bare repository.
    pub fn git_bare(&self, args: &[&str]) -> String {
        git(&self.bare, args)
    }
}

/// Git with nothing of this machine's configuration.
pub fn git(directory: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(args)
        .current_dir(directory)
        .env_remove("GIT_DIR")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")])
        .envs([("GIT_COMMITTER_NAME", "ada"), ("GIT_COMMITTER_EMAIL", "ada@example.org")])
        .output()
        .expect("git");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}
