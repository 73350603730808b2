//! Secrets: values that are compared and handed on, but never shown.

use std::fmt;

/// A secret value. `Debug` does not show it, and there is no `Display`, no `PartialEq` and no `Serialize`.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// Why a value is no secret to rely on. Never shows the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Nothing, or white space only.
    #[error("is empty")]
    Empty,
    /// Fewer bytes than `SHORTEST_SECRET`.
    #[error("has {0} bytes; use {SHORTEST_SECRET} or more, such as the output of `openssl rand -hex 32`")]
    Short(usize),
    /// A value from a manual.
    #[error("is a placeholder; use a random one, such as the output of `openssl rand -hex 32`")]
    Placeholder,
}

impl Secret {
    /// Takes a value as it is: for a value that its user chose (a token, a hook's secret).
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Takes the content of a secret file: exactly one trailing newline is dropped.
    pub fn of_file(mut bytes: Vec<u8>) -> Self {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        Self(bytes)
    }

    /// Refuses what would let anyone in as a webhook secret: an HMAC with an empty or guessable key proves nothing.
    pub fn check_strength(&self) -> Result<(), SecretError> {
        let trimmed = self.0.trim_ascii();
        if trimmed.is_empty() {
            return Err(SecretError::Empty);
        }
        let lower = String::from_utf8_lossy(trimmed).to_ascii_lowercase();
        let repeats_one_byte = trimmed.iter().all(|byte| *byte == trimmed[0]);
        if repeats_one_byte || PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
            return Err(SecretError::Placeholder);
        }
        if trimmed.len() < SHORTEST_SECRET {
            return Err(SecretError::Short(trimmed.len()));
        }
        Ok(())
    }

    /// The value. Whoever calls this sees to it that it is not printed.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Shorter ones can be guessed; GitHub and GitLab suggest far longer ones.
const SHORTEST_SECRET: usize = 16;

/// Words found in manuals and examples.
const PLACEHOLDERS: [&str; 8] =
    ["changeme", "change-me", "change_me", "placeholder", "your-secret", "your_secret", "yoursecret", "password1234"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_are_refused() {
        let table: [(&str, Result<(), SecretError>); 8] = [
            ("", Err(SecretError::Empty)),
            ("   \n ", Err(SecretError::Empty)),
            ("short", Err(SecretError::Short(5))),
            ("123456789012345", Err(SecretError::Short(15))),
            ("ChangeMe-ChangeMe-ChangeMe", Err(SecretError::Placeholder)),
            ("aaaaaaaaaaaaaaaaaaaaaaaa", Err(SecretError::Placeholder)),
            ("your-secret-goes-here-now", Err(SecretError::Placeholder)),
            ("5f2b8c1d9e3a7f60", Ok(())),
        ];
        for (text, expected) in table {
            assert_eq!(Secret::of_file(text.into()).check_strength(), expected, "{text:?}");
        }
    }

    #[test]
    fn one_trailing_newline_of_a_file_is_dropped_and_nothing_shows_the_value() {
        assert_eq!(Secret::of_file(b"abc\n\n".to_vec()).expose(), b"abc\n");
        assert_eq!(Secret::of_file(b"abc\r\n".to_vec()).expose(), b"abc");
        assert_eq!(Secret::of_file(b" abc ".to_vec()).expose(), b" abc ");
        assert_eq!(format!("{:?}", Secret::new(b"abc".to_vec())), "Secret(…)");
    }
}
