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
