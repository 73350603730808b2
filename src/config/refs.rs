//! The keys that say which refs a site deploys.

use crate::domain::push::RefName;
use crate::domain::ref_rule::{BranchPattern, RefRule, TagPattern};

use super::reader::{Field, Reader, Table};

/// Reads `branch`, `branches` and `tags`: the rule for pushes, and what is deployed when nobody names a ref.
pub(super) fn read(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Option<(RefRule, Option<RefName>)> {
    let (branches, tags) = (table.take("branches"), table.take("tags"));
    let branch_field = if branches.is_none() && tags.is_none() {
        Some(reader.required(table, "branch", BRANCH)?)
    } else {
        table.take("branch")
    };
    if let (Some(field), true) = (&branches, branch_field.is_some() || tags.is_some()) {
        reader.fail(field, "stands beside `branch` or `tags`; a site deploys one kind of ref");
        return None;
    }
    let branch = match branch_field {
        Some(field) => Some(reader.parsed(&field, BRANCH, |text| RefName::of_branch(text).map_err(|_| String::new()))?),
        None => None,
    };
    if let Some(field) = tags {
        // It wins over a branch beside it, which is then only what a manual deployment takes.
        return Some((RefRule::Tags(reader.parsed(&field, TAGS, TagPattern::parse)?), branch));
    }
    if let Some(field) = branches {
        return Some((RefRule::Branches(read_patterns(reader, field)?), None));
    }
    Some((RefRule::Branch(branch.clone()?), branch))
}

fn read_patterns(reader: &mut Reader<'_>, field: Field<'_>) -> Option<Vec<BranchPattern>> {
    let elements = reader.list(field.clone(), BRANCHES);
    if elements.is_empty() {
        reader.fail(&field, format!("matches no branch; allowed: {BRANCHES}"));
    }
    elements.iter().map(|element| reader.parsed(element, PATTERN, BranchPattern::parse)).collect()
}

/// Reads the texts that keep a commit from being deployed.
pub(super) fn read_skip_markers(reader: &mut Reader<'_>, field: Field<'_>) -> Vec<String> {
    let elements = reader.list(field, MARKERS);
    let parse = |text: &str| {
        let sound = text.trim() == text && text.len() >= SHORTEST_MARKER && !text.contains('\n');
        if sound { Ok(text.to_owned()) } else { Err(String::new()) }
    };
    elements.iter().filter_map(|element| reader.parsed(element, MARKER, parse)).collect()
}

/// A shorter one would be found in any message.
const SHORTEST_MARKER: usize = 4;

const BRANCH: &str = "the name of a branch, such as \"main\"";
const BRANCHES: &str = "a list of patterns for branches, such as [\"release/*\"]";
const PATTERN: &str = "a pattern for the name of a branch, such as \"release/*\"";
const TAGS: &str = "a regular expression for the names of tags, such as \"^v\\\\d+\"";
const MARKERS: &str = "a list of texts, such as [\"[skip deploy]\"]";
const MARKER: &str = "a text of 4 letters or more in one line, such as \"[skip deploy]\"";
