//! The keys that say how much of the past deliveries is kept.

use std::time::Duration;

use crate::store::DeliveryRetention;

use super::reader::{Reader, Table};
use super::units;

/// Reads `[deliveries]`; what it does not say is as if it were not there.
pub(super) fn read(reader: &mut Reader<'_>, root: &mut Table<'_>) -> DeliveryRetention {
    let mut retention =
        DeliveryRetention { keep: KEEP_DELIVERIES, keep_count: MOST_DELIVERIES, keep_bodies: MOST_BODY_BYTES };
    let Some(mut table) = root.take("deliveries").and_then(|field| reader.table(field)) else { return retention };
    let keep = table.take("keep").and_then(|field| {
        reader.parsed(&field, "a duration from \"1h\" to \"36500d\", such as \"30d\"", |text| {
            let keep = units::duration(text).filter(|keep| (SHORTEST_KEEP..=LONGEST_KEEP).contains(keep));
            keep.ok_or_else(String::new)
        })
    });
    let count = table.take("keep_count").and_then(|field| reader.number(&field, 1, 10_000_000));
    let bodies = table.take("keep_bodies").and_then(|field| {
        let allowed = "a size such as \"256MiB\", or \"0B\" for none";
        reader.parsed(&field, allowed, |text| units::size(text).ok_or_else(String::new))
    });
    reader.finish(table);
    retention.keep = keep.unwrap_or(retention.keep);
    retention.keep_count = count.and_then(|count| i64::try_from(count).ok()).unwrap_or(retention.keep_count);
    retention.keep_bodies = bodies.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(retention.keep_bodies);
    retention
}

/// What a forge can send again after that long is none of anybody's interest any more: GitHub lets three days pass at most.
const KEEP_DELIVERIES: Duration = Duration::from_secs(30 * 24 * 3600);
const SHORTEST_KEEP: Duration = Duration::from_secs(3600);

/// A hundred years. Calendars end, and so would whoever reckons back from today.
const LONGEST_KEEP: Duration = Duration::from_secs(36_500 * 24 * 3600);
const MOST_DELIVERIES: i64 = 10_000;
const MOST_BODY_BYTES: i64 = 256 << 20;
