//! Drops deliveries and bodies that are older, or more, than is to be kept. Deployments, their journals and their logs stay.

use std::time::Duration;

use crate::store::{DeliveryRetention, StoreError};
use crate::sys::stop::Stop;

use super::worker::Engine;

/// At once, and again from time to time, until the stop says so.
pub(super) fn forget_loop(engine: &Engine, retention: &DeliveryRetention, stop: &Stop) {
    while !stop.is_draining() {
        match forget(engine, retention, stop) {
            Ok(0) => {}
            Ok(dropped) => log::info!("dropped {dropped} deliveries and bodies, older or more than is kept"),
            Err(error) => log::error!("cannot drop old deliveries: {error}"),
        }
        stop.wait(INTERVAL);
    }
}

/// In parts: pushes have to be stored in between, and a stop is not kept waiting. Gives back how much it was.
fn forget(engine: &Engine, retention: &DeliveryRetention, stop: &Stop) -> Result<u64, StoreError> {
    let mut dropped = 0;
    while !stop.is_draining() {
        let part = engine.store.prune_deliveries(retention, (engine.clock)())?;
        if part == 0 {
            break;
        }
        dropped += part;
    }
    Ok(dropped)
}

/// A day more or less does not matter, a disk that fills does.
const INTERVAL: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use chrono::DateTime;

    use super::*;
    use crate::domain::admission::DeliveryStatus;
    use crate::domain::name::{NodeName, RepositoryName};
    use crate::domain::push::DeliveryKey;
    use crate::store::{DeliveryFilter, NewDelivery, Store, Submission, Verdict};

    const NOW: fn() -> DateTime<chrono::Utc> = || DateTime::from_timestamp(1_700_000_000, 0).expect("a time");

    fn engine(directory: &tempfile::TempDir) -> Engine {
        Engine {
            store: Store::open(&format!("sqlite:{}", directory.path().join("landfall.db").display())).expect("a store"),
            targets: BTreeMap::new(),
            node: NodeName::parse("web1").expect("a name"),
            owner: "web1:1".into(),
            clock: NOW,
        }
    }

    fn accept(engine: &Engine, key: i64) {
        let delivery = NewDelivery {
            repository: RepositoryName::parse("blog").expect("a name"),
            repository_id: None,
            key: DeliveryKey::parse(&key.to_string()).expect("an id"),
            event: "ping".into(),
            digest: "0".repeat(64),
            changes: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            source: None,
            replay: None,
            received_at: NOW(),
        };
        let verdict = Verdict::Whole { status: DeliveryStatus::Pong, reason: None };
        let submission = Submission { delivery, verdict, arrived: Instant::now() };
        engine.store.accept(submission, &|_| None).expect("an answer");
    }

    #[test]
    fn part_after_part_is_dropped_until_the_stop_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = engine(&directory);
        // The store drops 500 at once.
        (0..503).for_each(|key| accept(&engine, key));
        let retention = DeliveryRetention { keep: Duration::from_secs(3600), keep_count: 1, keep_bodies: 1 << 20 };
        let (stop, drained) = (Stop::new(), Stop::new());
        drained.drain();
        assert_eq!(forget(&engine, &retention, &drained).expect("an answer"), 0);
        assert_eq!(forget(&engine, &retention, &stop).expect("an answer"), 502);
        let left = engine.store.deliveries(&DeliveryFilter { limit: 9, ..DeliveryFilter::default() });
        assert_eq!(left.expect("an answer").iter().map(|kept| kept.id).collect::<Vec<_>>(), [503]);
        assert_eq!(forget(&engine, &retention, &stop).expect("an answer"), 0);
    }
}
