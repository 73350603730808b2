//! What a forge calls a repository, and whether two ways of writing it mean the same one.

use std::fmt;

use super::forge::Forge;

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

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
