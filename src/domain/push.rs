//! What a forge tells us: that refs moved, or something we have no use for.

use std::fmt;

use super::revision::Revision;

/// A full ref name, `refs/heads/main`: compared byte for byte, never trimmed, normalised or given to a shell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

/// Why a text is no ref name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no full ref name, such as `refs/heads/main`", .text.escape_debug())]
pub struct RefNameError {
    text: String,
}

impl RefName {
    /// Checks what `git check-ref-format` checks of a name below `refs/`; the only way in.
    pub fn parse(text: &str) -> Result<Self, RefNameError> {
        let error = || RefNameError { text: text.chars().take(LONGEST_REF).collect() };
        let below = text.strip_prefix("refs/").ok_or_else(error)?;
        let parts_are_sound = below.split('/').count() >= 2
            && below.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"));
        let text_is_sound = text.len() <= LONGEST_REF
            && !text.ends_with('.')
            && !text.contains("..")
            && !text.contains("@{")
            && !text.chars().any(|letter| letter.is_ascii_control() || " ~^:?*[\\".contains(letter));
        if parts_are_sound && text_is_sound {
            return Ok(Self(text.to_owned()));
        }
        Err(error())
    }

    /// The ref of a branch: `main` is `refs/heads/main`.
    pub fn of_branch(branch: &str) -> Result<Self, RefNameError> {
        Self::parse(&format!("{BRANCHES}{branch}"))
    }

    /// The branch, if the ref is one.
    pub fn branch(&self) -> Option<&str> {
        self.0.strip_prefix(BRANCHES)
    }

    /// The tag, if the ref is one.
    pub fn tag(&self) -> Option<&str> {
        self.0.strip_prefix(TAGS)
    }

    /// The branch or tag name, as people write it.
    pub fn short(&self) -> &str {
        self.branch().or(self.tag()).unwrap_or(&self.0)
    }

    /// The full name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What was pushed to a repository, as the forge reports it: some forges tell of several refs at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The repository's identity as the forge writes it: `acme/blog`.
    pub repository: String,
    /// The forge's own number or id of the repository, if it says one: the name can be given to another repository.
    pub repository_id: Option<String>,
    /// The refs that moved, in the forge's order; may be empty.
    pub changes: Vec<Change>,
}

/// A ref that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The ref.
    pub ref_name: RefName,
    /// Where the ref was; none when it was created.
    pub before: Option<Revision>,
    /// Where the ref is now; none when it was deleted. Of an annotated tag the commit, if the forge says it.
    pub after: Option<Revision>,
    /// The message of the commit that the ref names now, if the forge says it.
    pub message: Option<String>,
}

impl Push {
    /// Refs that moved from a commit to itself: forges without a ping send this as a test.
    pub fn is_test(&self) -> bool {
        let stands_still = |change: &Change| change.before.is_some() && change.before == change.after;
        !self.changes.is_empty() && self.changes.iter().all(stands_still)
    }
}

/// What an authentic delivery says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The forge asks whether somebody listens.
    Ping,
    /// Refs moved.
    Push(Push),
    /// Something else; the word is the forge's.
    Other(String),
    /// A ref may have moved, but the forge does not say enough about it; the text says what is missing, and what helps.
    Incomplete(String),
}

/// The forge's own id of a delivery, as it sent it; a redelivery repeats it on most forges.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryKey(String);

impl DeliveryKey {
    /// Takes printable ASCII of a sane length; anything else is no id, and the caller falls back to the body's digest.
    pub fn parse(text: &str) -> Option<Self> {
        let sound = !text.is_empty() && text.len() <= LONGEST_KEY && text.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

const BRANCHES: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

/// File systems stop at 255 bytes a name and 4096 a path; git's own limit for a ref is a path.
const LONGEST_REF: usize = 1024;

/// The longest id seen is a 36 byte UUID.
const LONGEST_KEY: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ref_names_follow_git() {
        for good in [
            "refs/heads/main",
            "refs/heads/--upload-pack=x",
            "refs/heads/$(id)",
            "refs/heads/refs/heads/main",
            "refs/heads/a;b",
            "refs/heads/<script>",
            "refs/tags/v1.0",
            "refs/heads/ümläut",
            "refs/pull/7/head",
        ] {
            assert!(RefName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "main",
            "heads/main",
            "refs/heads",
            "refs/heads/",
            "refs//main",
            "refs/heads/a..b",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a ",
            "refs/heads/a\n",
            "refs/heads/a~1",
            "refs/heads/a:b",
            "refs/heads/a.",
            "refs/heads/a@{0}",
            " refs/heads/main",
            "refs/heads/*",
        ] {
            assert!(RefName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_branch_named_like_a_ref_keeps_its_name() {
        let name = RefName::parse("refs/heads/refs/heads/main").ok();
        assert_eq!(name.as_ref().and_then(RefName::branch), Some("refs/heads/main"));
    }
}
