//! The name of a release directory: when it was made, to the microsecond, and from which commit.

use std::fmt;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::revision::Revision;

/// How the time in a release's name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseStyle {
    /// `YYYY-MM-DDTHH:MM:SS.mmmmmm.<short sha>`.
    Timestamp,
    /// `YYYY-MM-DDTHHMMSS.mmmmmm.<short sha>`: no colons, which break `PATH`-like lists.
    Compact,
}

/// A release directory's name. Ordered by the time in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId {
    made_at: DateTime<Utc>,
    text: String,
}

/// Why a text names no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no release name, such as `2026-11-22T10:15:30.123456.1a2b3c4`")]
pub struct ReleaseIdError {
    text: String,
}

impl ReleaseId {
    /// Names a release made at `now`, or a microsecond after `newest` if the clock stands or went back.
    pub fn after(newest: Option<&Self>, now: DateTime<Utc>, commit: &Revision, style: ReleaseStyle) -> Self {
        let now = DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now);
        let made_at = match newest {
            Some(newest) if newest.made_at >= now => newest.made_at + TimeDelta::microseconds(1),
            Some(_) | None => now,
        };
        let format = match style {
            ReleaseStyle::Timestamp => TIMESTAMP,
            ReleaseStyle::Compact => COMPACT,
        };
        let text = format!("{}.{}", made_at.format(format), commit.short());
        Self { made_at, text }
    }

    /// Reads a directory's name in either style; the only way in for text.
    pub fn parse(text: &str) -> Result<Self, ReleaseIdError> {
        let error = || ReleaseIdError { text: text.chars().take(80).collect() };
        let (time, commit) = text.rsplit_once('.').ok_or_else(error)?;
        let commit_is_short = commit.len() == 7 && commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let made_at = NaiveDateTime::parse_from_str(time, TIMESTAMP)
            .or_else(|_| NaiveDateTime::parse_from_str(time, COMPACT))
            .map_err(|_| error())?
            .and_utc();
        let written_alike = [TIMESTAMP, COMPACT].iter().any(|format| made_at.format(format).to_string() == time);
        if !commit_is_short || !written_alike {
            return Err(error());
        }
        Ok(Self { made_at, text: text.to_owned() })
    }

    /// The directory's name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Ord for ReleaseId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.made_at.cmp(&other.made_at).then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for ReleaseId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = ReleaseIdError;

    fn try_from(text: String) -> Result<Self, ReleaseIdError> {
        Self::parse(&text)
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.text
    }
}

const TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.6f";
const COMPACT: &str = "%Y-%m-%dT%H%M%S%.6f";

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Revision {
        Revision::parse(&"1a2b3c4d5e".repeat(4)).expect("a commit id")
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn six_digits_always_in_both_styles() {
        let now = at("2026-11-22T10:15:30Z");
        let named = |style| ReleaseId::after(None, now, &commit(), style).to_string();
        assert_eq!(named(ReleaseStyle::Timestamp), "2026-11-22T10:15:30.000000.1a2b3c4");
        assert_eq!(named(ReleaseStyle::Compact), "2026-11-22T101530.000000.1a2b3c4");
    }

    #[test]
    fn strictly_increasing_also_when_the_clock_steps_back() {
        let first = ReleaseId::after(None, at("2026-11-22T10:15:30.5Z"), &commit(), ReleaseStyle::Timestamp);
        let second = ReleaseId::after(Some(&first), at("2026-11-22T09:00:00Z"), &commit(), ReleaseStyle::Compact);
        assert!(second > first);
        assert_eq!(second.as_str(), "2026-11-22T101530.500001.1a2b3c4");
    }

    #[test]
    fn only_its_own_names_are_read() {
        for good in ["2026-11-22T10:15:30.000000.1a2b3c4", "2026-11-22T101530.123456.abcdef0"] {
            assert_eq!(ReleaseId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "current",
            "..",
            "2026-11-22T10:15:30.1a2b3c4",
            "2026-11-22T10:15:30.000.1a2b3c4",
            "2026-11-22T10:15:30.000000.1A2B3C4",
            "2026-11-22T10:15:30.000000.1a2b3c",
            "2026-13-22T10:15:30.000000.1a2b3c4",
            "2026-11-22T10:15:30.000000.1a2b3c4/..",
            " 2026-11-22T10:15:30.000000.1a2b3c4",
        ] {
            assert!(ReleaseId::parse(bad).is_err(), "{bad}");
        }
    }
}
