//! Which refs a site deploys: one branch, branches by patterns, or tags by a regular expression.
//!
//! Names are compared byte for byte with what stands behind `refs/heads/` or `refs/tags/`: nothing is trimmed, folded or
//! normalised, and a tag never matches a rule for branches, whatever it is called.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

use super::push::RefName;

/// What a site listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefRule {
    /// This branch, as a full ref.
    Branch(RefName),
    /// Branches whose name matches one of these patterns.
    Branches(Vec<BranchPattern>),
    /// Tags whose name matches. A site that deploys tags deploys no branch by a push.
    Tags(TagPattern),
}

impl RefRule {
    /// Whether the ref is one of those.
    pub fn matches(&self, ref_name: &RefName) -> bool {
        match self {
            Self::Branch(branch) => branch == ref_name,
            Self::Branches(patterns) => {
                ref_name.branch().is_some_and(|branch| patterns.iter().any(|pattern| pattern.matches(branch)))
            }
            Self::Tags(pattern) => ref_name.tag().is_some_and(|tag| pattern.matches(tag)),
        }
    }
}

/// For the reason why a ref is none of them: "the site's branch `main`".
impl fmt::Display for RefRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(branch) => write!(formatter, "branch `{}`", branch.short()),
            Self::Branches(patterns) => {
                let texts: Vec<_> = patterns.iter().map(|pattern| format!("`{}`", pattern.text)).collect();
                write!(formatter, "branches {}", texts.join(", "))
            }
            Self::Tags(pattern) => write!(formatter, "tags `{}`", pattern.text),
        }
    }
}

/// A pattern for whole names of branches: `*` and `?` stop at a `/`, `**` does not, `{a,b}` and `[a-z]` as in a shell.
///
/// `?` and `[…]` stand for one byte, which globset cannot be told otherwise: a letter beyond ASCII has several, and takes as many.
#[derive(Debug, Clone)]
pub struct BranchPattern {
    text: String,
    matcher: GlobMatcher,
}

impl BranchPattern {
    /// Checks the text; the only way in. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > LONGEST_PATTERN {
            return Err(format!("a pattern has 1 to {LONGEST_PATTERN} bytes"));
        }
        if text.starts_with("refs/") {
            return Err("a pattern is for the name of a branch, such as `release/*`, without `refs/heads/`".into());
        }
        // No name has one, and the reasons below quote the text.
        if text.contains(char::is_control) {
            return Err("a pattern has no control characters".into());
        }
        let glob = GlobBuilder::new(text).literal_separator(true).build().map_err(|error| error.kind().to_string())?;
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() })
    }

    fn matches(&self, branch: &str) -> bool {
        self.matcher.is_match(branch)
    }
}

impl PartialEq for BranchPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for BranchPattern {}

/// A regular expression that is looked for in the names of tags; `^` and `$` stand for their ends.
#[derive(Debug, Clone)]
pub struct TagPattern {
    text: String,
    regex: Regex,
}

impl TagPattern {
    /// Checks the text; the only way in. The error says what is wrong with it. Matching takes time linear in the name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > LONGEST_PATTERN {
            return Err(format!("a regular expression has 1 to {LONGEST_PATTERN} bytes"));
        }
        let regex = Regex::new(text).map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => format!("it would take more than {limit} bytes"),
            // The last line says what, those before draw an arrow for a terminal.
            other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        })?;
        Ok(Self { text: text.to_owned(), regex })
    }

    fn matches(&self, tag: &str) -> bool {
        self.regex.is_match(tag)
    }
}

impl PartialEq for TagPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TagPattern {}

/// Nobody writes longer ones by hand.
const LONGEST_PATTERN: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(rule: &RefRule, name: &str) -> bool {
        rule.matches(&RefName::parse(name).expect("a ref"))
    }

    #[test]
    fn patterns_are_for_whole_names_of_branches() {
        let table = [
            ("release/*", "refs/heads/release/1.0", true),
            ("release/*", "refs/heads/release/1.0/hotfix", false),
            ("release/**", "refs/heads/release/1.0/hotfix", true),
            ("release/*", "refs/heads/prerelease/1.0", false),
            ("release/*", "refs/heads/release", false),
            ("release/*", "refs/heads/Release/1.0", false),
            ("release/*", "refs/tags/release/1.0", false),
            ("release/*", "refs/heads/refs/heads/release/1.0", false),
            ("*", "refs/heads/main", true),
            ("*", "refs/heads/a/b", false),
            ("*", "refs/tags/main", false),
            ("*", "refs/pull/7/head", false),
            ("**", "refs/heads/a/b", true),
            ("**", "refs/tags/a", false),
            ("{main,develop}", "refs/heads/develop", true),
            ("v[0-9]", "refs/heads/v1", true),
            ("v?", "refs/heads/v/", false),
            ("--upload-pack=*", "refs/heads/--upload-pack=x", true),
            ("$(id)", "refs/heads/$(id)", true),
            ("ümläut", "refs/heads/ümläut", true),
            ("v*", "refs/heads/vü", true),
            ("v?", "refs/heads/vü", false),
            ("v??", "refs/heads/vü", true),
            ("v[ü]", "refs/heads/vü", false),
            ("{vü,x}", "refs/heads/vü", true),
        ];
        for (pattern, name, expected) in table {
            let rule = RefRule::Branches(vec![BranchPattern::parse(pattern).expect("a pattern")]);
            let Ok(name) = RefName::parse(name) else { continue };
            assert_eq!(rule.matches(&name), expected, "{pattern} {name}");
        }
        for bad in ["", "release/[", "{a", "refs/heads/main", "a\nb", "[0-\0]", "[\u{9b}-\u{1b}]", &"x".repeat(501)] {
            let reason = BranchPattern::parse(bad).expect_err(bad);
            assert!(!reason.is_empty() && !reason.contains(char::is_control), "{bad:?}: {reason:?}");
        }
    }

    #[test]
    fn a_regular_expression_is_for_tags_only() {
        let table = [
            (r"^v\d+", "refs/tags/v1.2.3", true),
            (r"^v\d+$", "refs/tags/v1.2.3", false),
            (r"\d", "refs/tags/release-1", true),
            (r"^v\d+", "refs/heads/v1", false),
            (r"^v\d+", "refs/tags/nv1", false),
            (r"^refs/", "refs/tags/v1", false),
            (r"(?i)^V", "refs/tags/v1", true),
        ];
        for (text, name, expected) in table {
            let rule = RefRule::Tags(TagPattern::parse(text).expect("a regular expression"));
            assert_eq!(matches(&rule, name), expected, "{text} {name}");
        }
        for bad in ["", "(", "a{2,1}", "(?P<x", r"\d{1000}{1000}{1000}", &"x".repeat(501)] {
            assert!(TagPattern::parse(bad).is_err_and(|reason| !reason.is_empty() && !reason.contains('\n')), "{bad}");
        }
    }
}
