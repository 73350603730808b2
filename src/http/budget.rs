//! What all bodies in flight may take of the memory.
//!
//! ```text
//! the first 16 KiB of each body     always: there are only so many connections
//! the rest of a body up to 1 MiB    16 MiB together, and what is left for the others
//! a longer body                     64 MiB together, or a single one if more is allowed for it
//! ```
//!
//! A push has some 8 kB: large bodies, also a stranger's with a signature that only looks like one, never keep it out.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::Rejection;

/// The memory for bodies.
#[derive(Debug)]
pub(super) struct Budget {
    medium: Semaphore,
    large: Semaphore,
}

/// What one body has of it; given back when it goes.
#[derive(Debug)]
pub(super) struct Share<'a> {
    budget: &'a Budget,
    permits: Vec<SemaphorePermit<'a>>,
    length: usize,
    is_large: bool,
}

impl Budget {
    /// A budget in which a body of the limit has room.
    pub(super) fn new(body_limit: usize) -> Self {
        let large = LARGE_BODIES.max(body_limit);
        Self { medium: Semaphore::new(MEDIUM_BODIES / UNIT), large: Semaphore::new(large.div_ceil(UNIT)) }
    }

    /// A share for a body of which nothing was read yet.
    pub(super) fn share(&self) -> Share<'_> {
        Share { budget: self, permits: Vec::new(), length: 0, is_large: false }
    }
}

impl Share<'_> {
    /// Takes what a body of this length needs; the caller gives it up if there is no room.
    pub(super) fn grow(&mut self, length: usize) -> Result<(), Rejection> {
        let becomes_large = length > MEDIUM_BODY && !self.is_large;
        let had = if becomes_large { 0 } else { charged(self.length) };
        let more = charged(length).saturating_sub(had);
        let large = &self.budget.large;
        let permit = if length > MEDIUM_BODY {
            large.try_acquire_many(more)
        } else {
            self.budget.medium.try_acquire_many(more).or_else(|_| large.try_acquire_many(more))
        };
        let permit = permit.map_err(|_| Rejection::Busy)?;
        if becomes_large {
            // What the others of its former size share is theirs again.
            self.permits.clear();
            self.is_large = true;
        }
        // A body may come in as many pieces as it has bytes, and most of them need nothing more.
        if more > 0 {
            self.permits.push(permit);
        }
        self.length = length;
        Ok(())
    }
}

/// How many units a body of this length is charged.
fn charged(length: usize) -> u32 {
    u32::try_from(length.saturating_sub(FREE).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// The step in which memory is counted.
const UNIT: usize = 16 << 10;

/// What each body may have in any case: with 1024 connections this is 16 MiB.
const FREE: usize = 16 << 10;

/// Up to here a body may use the reserve.
const MEDIUM_BODY: usize = 1 << 20;

/// What only bodies up to that length may use.
const MEDIUM_BODIES: usize = 16 << 20;

/// What is for all. All three together stay below 100 MiB with the default `body_limit`.
const LARGE_BODIES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn filled(budget: &Budget, length: usize) -> Vec<Share<'_>> {
        let mut shares = Vec::new();
        loop {
            let mut share = budget.share();
            if share.grow(length).is_err() {
                return shares;
            }
            shares.push(share);
        }
    }

    #[test]
    fn large_bodies_share_their_part_and_leave_the_reserve_alone() {
        let budget = Budget::new(25 * MIB);
        let large = filled(&budget, 25 * MIB);
        assert_eq!(large.len(), 2);
        assert_eq!(budget.medium.available_permits() * UNIT, MEDIUM_BODIES);
        let medium = filled(&budget, MIB);
        // The reserve, and what two bodies of 25 MiB left of 64.
        assert_eq!(medium.len(), 16 + 14);
        let small = filled(&budget, FREE + 1);
        assert!(small.len() < MIB / UNIT, "less than another one needs");
        assert!(budget.share().grow(FREE).is_ok(), "a push has room when nothing else has");
        drop((large, medium, small));
        assert_eq!(budget.large.available_permits() * UNIT, LARGE_BODIES);
        assert_eq!(budget.medium.available_permits() * UNIT, MEDIUM_BODIES);
    }

    #[test]
    fn a_body_that_grows_is_charged_for_what_there_is_of_it_and_no_more() {
        let budget = Budget::new(25 * MIB);
        let mut share = budget.share();
        let used = || {
            let medium = MEDIUM_BODIES - budget.medium.available_permits() * UNIT;
            (medium, LARGE_BODIES - budget.large.available_permits() * UNIT)
        };
        let table = [
            (1, (0, 0)),
            (FREE, (0, 0)),
            (FREE + 1, (UNIT, 0)),
            (FREE + UNIT, (UNIT, 0)),
            (FREE + UNIT + 1, (2 * UNIT, 0)),
            (MIB, (MIB - FREE, 0)),
            // It gives its part of the reserve back.
            (MIB + 1, (0, MIB)),
            (25 * MIB, (0, 25 * MIB - FREE)),
        ];
        for (length, expected) in table {
            share.grow(length).expect("room");
            assert_eq!(used(), expected, "{length}");
        }
        drop(share);
        assert_eq!(used(), (0, 0));
    }

    #[test]
    fn a_body_in_pieces_of_a_byte_takes_no_more_than_its_bytes() {
        let budget = Budget::new(25 * MIB);
        let mut share = budget.share();
        for length in 1..=2 * MIB {
            share.grow(length).expect("room");
        }
        assert!(share.permits.len() <= MIB / UNIT, "{}", share.permits.len());
        assert_eq!(LARGE_BODIES - budget.large.available_permits() * UNIT, 2 * MIB - FREE);
    }

    #[test]
    fn the_largest_body_that_is_allowed_has_room() {
        let budget = Budget::new(256 * MIB);
        assert!(budget.share().grow(256 * MIB).is_ok());
    }
}
