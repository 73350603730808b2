//! Whether a push that matches a site is queued, given what is already there.

use super::deployment::{DeploymentId, Kind};
use super::push::{DeliveryKey, RefName};
use super::revision::Revision;
use super::routing::Wanted;

/// What became of a push for a site. Ordered: the first that is present among the sites of a delivery is the whole's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SiteStatus {
    /// It will be deployed.
    Queued,
    /// It is on its way already.
    Duplicate,
    /// It is live already.
    Current,
    /// It is not for this site, or the site refuses.
    Ignored,
}

impl SiteStatus {
    /// The word in answers and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Duplicate => "duplicate",
            Self::Current => "current",
            Self::Ignored => "ignored",
        }
    }

    /// Reads that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Queued, Self::Duplicate, Self::Current, Self::Ignored].into_iter().find(|status| status.as_str() == text)
    }
}

/// What became of a whole delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// A ping was answered.
    Pong,
    /// The same as of the first among its sites; `ignored` if no site was asked.
    Of(SiteStatus),
}

impl DeliveryStatus {
    /// The whole of what became of it for each site.
    pub fn whole(sites: impl Iterator<Item = SiteStatus>) -> Self {
        Self::Of(sites.min().unwrap_or(SiteStatus::Ignored))
    }

    /// The word in answers and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pong => "pong",
            Self::Of(status) => status.as_str(),
        }
    }

    /// Reads that word.
    pub fn parse(text: &str) -> Option<Self> {
        if text == Self::Pong.as_str() { Some(Self::Pong) } else { SiteStatus::parse(text).map(Self::Of) }
    }
}

/// A deployment of the site that waits or runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its number.
    pub id: DeploymentId,
    /// What it does.
    pub kind: Kind,
    /// Whether it still waits.
    pub waits: bool,
    /// The ref it deploys, if it was a push.
    pub ref_name: Option<RefName>,
    /// The commit its push named.
    pub after: Option<Revision>,
    /// The delivery it came from.
    pub delivery: Option<DeliveryKey>,
}

/// What is known of the site when the push arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteNow<'a> {
    /// Why the site refuses pushes, if it does.
    pub hold: Option<&'a str>,
    /// What waits or runs.
    pub pending: &'a [Pending],
    /// Whether the pushed commit is live at this moment.
    pub is_live: bool,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is queued, and takes the place of these waiting ones.
    Queue { supersedes: Vec<DeploymentId> },
    /// The same push waits or runs already.
    Duplicate(DeploymentId),
    /// The pushed commit is live and nothing else is on its way.
    Current,
    /// The site refuses; the text says why.
    Ignore(String),
    /// A rollback waits, after which the site refuses; should it fail, the push is deployed after all.
    GiveWay(DeploymentId),
}

/// Decides over a push. A hold beats everything; a redelivery of what failed is a new attempt, since only waiting and
/// running deployments make a duplicate.
pub fn admit(site: &SiteNow<'_>, wanted: &Wanted, delivery: &DeliveryKey) -> Admission {
    if let Some(reason) = site.hold {
        return Admission::Ignore(format!("hold: {reason}"));
    }
    let same = site.pending.iter().find(|pending| {
        let same_delivery = pending.delivery.as_ref() == Some(delivery);
        let same_commit =
            pending.ref_name.as_ref() == Some(&wanted.ref_name) && pending.after.as_ref() == Some(&wanted.after);
        same_delivery || same_commit
    });
    if let Some(same) = same {
        return Admission::Duplicate(same.id);
    }
    if let Some(rollback) = site.pending.iter().find(|pending| pending.waits && pending.kind == Kind::Rollback) {
        return Admission::GiveWay(rollback.id);
    }
    if site.is_live && site.pending.is_empty() {
        return Admission::Current;
    }
    Admission::Queue { supersedes: waiting(site.pending) }
}

/// The waiting deployments that a newer one replaces: per site at most one waits.
pub fn waiting(pending: &[Pending]) -> Vec<DeploymentId> {
    pending.iter().filter(|pending| pending.waits).map(|pending| pending.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(digit: &str) -> Revision {
        Revision::parse(&digit.repeat(40)).expect("a commit id")
    }

    fn main() -> RefName {
        RefName::parse("refs/heads/main").expect("a ref")
    }

    fn key(text: &str) -> DeliveryKey {
        DeliveryKey::parse(text).expect("a delivery id")
    }

    fn push(id: i64, waits: bool, digit: &str, delivery: &str) -> Pending {
        Pending {
            id: DeploymentId(id),
            kind: Kind::Deploy,
            waits,
            ref_name: Some(main()),
            after: Some(commit(digit)),
            delivery: Some(key(delivery)),
        }
    }

    /// What it shows, the hold, what is pending, whether the commit is live, the verdict.
    type Row = (&'static str, Option<&'static str>, Vec<Pending>, bool, Admission);

    #[test]
    fn the_table_of_the_contract() {
        let wanted = Wanted { ref_name: main(), before: None, after: commit("a") };
        let manual = Pending { ref_name: None, after: None, delivery: None, ..push(7, true, "c", "other") };
        let rollback = Pending { kind: Kind::Rollback, ..manual.clone() };
        let queue = |ids: &[i64]| Admission::Queue { supersedes: ids.iter().map(|id| DeploymentId(*id)).collect() };
        let table: Vec<Row> = vec![
            ("idle", None, vec![], false, queue(&[])),
            ("already live", None, vec![], true, Admission::Current),
            ("hold beats live", Some("freeze"), vec![], true, Admission::Ignore("hold: freeze".into())),
            (
                "hold beats duplicate",
                Some("x"),
                vec![push(1, true, "a", "d1")],
                false,
                Admission::Ignore("hold: x".into()),
            ),
            ("same delivery runs", None, vec![push(1, false, "b", "d1")], false, Admission::Duplicate(DeploymentId(1))),
            ("same commit waits", None, vec![push(1, true, "a", "d0")], false, Admission::Duplicate(DeploymentId(1))),
            ("another waits", None, vec![push(1, true, "b", "d0")], false, queue(&[1])),
            ("another runs", None, vec![push(1, false, "b", "d0")], false, queue(&[])),
            ("live, but another runs", None, vec![push(1, false, "b", "d0")], true, queue(&[])),
            ("runs and waits", None, vec![push(1, false, "b", "d0"), push(2, true, "c", "d9")], false, queue(&[2])),
            ("a manual one waits", None, vec![manual], false, queue(&[7])),
            ("a rollback waits", None, vec![rollback], false, Admission::GiveWay(DeploymentId(7))),
        ];
        for (name, hold, pending, is_live, expected) in table {
            let site = SiteNow { hold, pending: &pending, is_live };
            assert_eq!(admit(&site, &wanted, &key("d1")), expected, "{name}");
        }
    }
}
