//! Whether a push could be taken and deployed at this moment.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::threads::Pulse;
use crate::sys::fs::{self, Space};
use crate::sys::stop::Stop;

use super::Service;

/// The answer for a load balancer, with the reasons for a person. Names sites, but no path of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether every check is fine.
    pub ready: bool,
    /// Each check by its name.
    pub checks: BTreeMap<&'static str, Check>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether it is fine.
    pub ok: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Service {
    /// Asks everything that taking and deploying a push needs. Writes to the store, and changes nothing.
    pub fn readiness(&self, pulse: &Pulse, stop: &Stop) -> Readiness {
        let store = self.engine.store.check_writable().map_err(|error| error.to_string());
        let workers = if pulse.is_steady() { Ok(()) } else { Err("a worker thread has ended".to_owned()) };
        let draining = if stop.is_draining() { Err("the service stops".to_owned()) } else { Ok(()) };
        let results = [
            ("store", store),
            ("workers", workers),
            ("roots", self.check_roots()),
            ("disk", self.check_disk()),
            ("draining", draining),
        ];
        let checks: BTreeMap<_, _> = results
            .into_iter()
            .map(|(name, result)| (name, Check { ok: result.is_ok(), reason: result.err() }))
            .collect();
        Readiness { ready: checks.values().all(|check| check.ok), checks }
    }

    fn check_roots(&self) -> Result<(), String> {
        for (name, target) in &self.engine.targets {
            match fs::is_writable(target.disk.root()) {
                Ok(true) if target.disk.refuse_foreign().is_ok() => {}
                Ok(true) => {
                    return Err(format!("something is in the way in the root of site `{name}`; see `landfall check`"));
                }
                Ok(false) => return Err(format!("the root of site `{name}` is not writable")),
                Err(error) => return Err(format!("cannot look at the root of site `{name}`: {error}")),
            }
        }
        Ok(())
    }

    fn check_disk(&self) -> Result<(), String> {
        let roots = self.engine.targets.iter().map(|(name, target)| (format!("site `{name}`"), target.disk.root()));
        let state = ("the state directory".to_owned(), self.app.config.state_dir.as_path());
        for (what, path) in roots.chain([state]) {
            let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
            let space = fs::space(existing).map_err(|error| format!("cannot ask the disk of {what}: {error}"))?;
            if let Some(reason) = why_short(space) {
                return Err(format!("the disk of {what} {reason}"));
            }
        }
        Ok(())
    }
}

fn why_short(space: Space) -> Option<String> {
    let Space { free_bytes, free_inodes } = space;
    if free_bytes < LEAST_FREE_BYTES {
        return Some(format!("has {} MiB left, fewer than {}", free_bytes >> 20, LEAST_FREE_BYTES >> 20));
    }
    (free_inodes < LEAST_FREE_INODES).then(|| format!("has {free_inodes} inodes left, fewer than {LEAST_FREE_INODES}"))
}

/// A small release with its dependencies; with less, the next deployment is likely to fail.
const LEAST_FREE_BYTES: u64 = 100 << 20;
const LEAST_FREE_INODES: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_short_of_bytes_or_of_inodes() {
        let table = [
            (Space { free_bytes: LEAST_FREE_BYTES, free_inodes: LEAST_FREE_INODES }, None),
            (
                Space { free_bytes: LEAST_FREE_BYTES - 1, free_inodes: u64::MAX },
                Some("has 99 MiB left, fewer than 100"),
            ),
            (Space { free_bytes: u64::MAX, free_inodes: 999 }, Some("has 999 inodes left, fewer than 1000")),
        ];
        for (space, expected) in table {
            assert_eq!(why_short(space).as_deref(), expected, "{space:?}");
        }
    }
}
