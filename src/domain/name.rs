//! Names that appear in paths, URLs, SQL and log lines. Text becomes one of these at the door and stays one.

use std::fmt;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no name: use 1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or a digit")]
pub struct NameError {
    text: String,
}

/// Letters, digits, `.`, `_` and `-` only, the first a letter or digit: harmless in a path, a URL and a shell.
fn check(text: &str) -> Result<(), NameError> {
    let first_is_plain = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let all_allowed = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if first_is_plain && all_allowed && text.len() <= LONGEST_NAME {
        return Ok(());
    }
    Err(NameError { text: text.chars().take(LONGEST_NAME).collect() })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks the text; the only way in.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A site: a branch of a repository, deployed under a root directory.
    SiteName
}
name! {
    /// A repository as the configuration calls it; also the last part of its webhook URL.
    RepositoryName
}
name! {
    /// One machine that runs Landfall.
    NodeName
}

/// Long enough for a host name label, short enough for a file name with a suffix.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_harmless_words() {
        for good in ["a", "blog", "9lives", "shop.example.com", "a_b-c", &"x".repeat(64)] {
            assert!(SiteName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-x", "a/b", "a b", "ä", "a\n", "a:b", "$(id)", &"x".repeat(65)] {
            assert!(SiteName::parse(bad).is_err(), "{bad}");
        }
    }
}
