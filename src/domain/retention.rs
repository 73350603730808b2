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

/// Picks the release a bare rollback goes to: the newest one older than the live one that nobody rolled away from.
/// Without a live release, the newest good one.
pub fn rollback_target(sealed: &[ReleaseId], live: Option<&ReleaseId>, bad: &BTreeSet<ReleaseId>) -> Option<ReleaseId> {
    sealed.iter().filter(|release| live.is_none_or(|live| *release < live) && !bad.contains(release)).max().cloned()
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

    #[test]
    fn a_bare_rollback_skips_what_was_rolled_away_from() {
        let all: Vec<ReleaseId> = (0..4).map(release).collect();
        let bad = |seconds: &[u32]| seconds.iter().map(|second| release(*second)).collect::<BTreeSet<_>>();
        let table = [
            (Some(3), vec![], Some(2)),
            (Some(3), vec![2], Some(1)),
            (Some(1), vec![3], Some(0)),
            (Some(0), vec![], None),
            (None, vec![3], Some(2)),
        ];
        for (live, marked, expected) in table {
            let live = live.map(release);
            assert_eq!(
                rollback_target(&all, live.as_ref(), &bad(&marked)),
                expected.map(release),
                "{live:?} {marked:?}"
            );
        }
    }
}
