//! Which releases are old enough to go.

use std::collections::BTreeSet;

use super::release_id::ReleaseId;

/// Picks the releases to remove: all but the newest `keep`, and never one that is protected (live, previous, in use).
/// `succeeded` are the releases whose deployment succeeded; failed ones never count and are not here.
pub fn prunable(succeeded: &[ReleaseId], keep: usize, protected: &BTreeSet<ReleaseId>) -> Vec<ReleaseId> {
    let mut newest_first = succeeded.to_vec();
    newest_first.sort_by(|left, right| right.cmp(left));
    newest_first.dedup();
    newest_first.into_iter().skip(keep).filter(|release| !protected.contains(release)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(second: u32) -> ReleaseId {
        ReleaseId::parse(&format!("2026-11-22T10:15:{second:02}.000000.1a2b3c4")).expect("a release name")
    }

    #[test]
    fn keeps_the_newest_and_whatever_is_protected() {
        let all: Vec<ReleaseId> = (0..6).map(release).collect();
        let protected = |seconds: &[u32]| seconds.iter().map(|second| release(*second)).collect::<BTreeSet<_>>();
        assert_eq!(prunable(&all, 2, &protected(&[])), [3, 2, 1, 0].map(release));
        assert_eq!(prunable(&all, 2, &protected(&[0, 3])), [2, 1].map(release));
        assert_eq!(prunable(&all, 9, &protected(&[])), []);
        assert_eq!(prunable(&[], 1, &protected(&[])), []);
    }
}
