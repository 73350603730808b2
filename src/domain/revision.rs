//! A commit id: 40 hex digits (SHA-1) or 64 (SHA-256), never all zeros.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A full commit id, lower-case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision(String);

/// Why a text is no commit id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    /// Neither 40 nor 64 digits.
    #[error("a commit id has 40 or 64 hex digits, not {0}")]
    Length(usize),
    /// A character that is no hex digit.
    #[error("a commit id has hex digits only")]
    NotHex,
    /// All zeros: how forges write "no commit".
    #[error("a commit id of zeros names no commit")]
    Zero,
}

impl Revision {
    /// Checks the text and lower-cases it; the only way in.
    pub fn parse(text: &str) -> Result<Self, RevisionError> {
        match Self::parse_or_zero(text)? {
            Some(revision) => Ok(revision),
            None => Err(RevisionError::Zero),
        }
    }

    /// As forges write it: all zeros, of either length, mean "no commit" (a branch that was created or deleted).
    pub fn parse_or_zero(text: &str) -> Result<Option<Self>, RevisionError> {
        if !matches!(text.len(), 40 | 64) {
            return Err(RevisionError::Length(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(RevisionError::NotHex);
        }
        if text.bytes().all(|byte| byte == b'0') {
            return Ok(None);
        }
        Ok(Some(Self(text.to_ascii_lowercase())))
    }

    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 7 digits, as people and release names write it.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Revision {
    type Error = RevisionError;

    fn try_from(text: String) -> Result<Self, RevisionError> {
        Self::parse(&text)
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hash_lengths_and_nothing_else() {
        let table = [
            ("a".repeat(40), Ok(true)),
            ("A".repeat(64), Ok(true)),
            ("0".repeat(40), Ok(false)),
            ("0".repeat(64), Ok(false)),
            ("a".repeat(39), Err(RevisionError::Length(39))),
            ("a".repeat(41), Err(RevisionError::Length(41))),
            (String::new(), Err(RevisionError::Length(0))),
            ("g".repeat(40), Err(RevisionError::NotHex)),
        ];
        for (text, expected) in table {
            assert_eq!(Revision::parse_or_zero(&text).map(|found| found.is_some()), expected, "{text}");
        }
        assert_eq!(Revision::parse(&"0".repeat(40)), Err(RevisionError::Zero));
        assert_eq!(Revision::parse(&"ABCDEF1".repeat(6)[..40]).map(|id| id.short().to_owned()), Ok("abcdef1".into()));
    }
}
