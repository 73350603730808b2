//! How much may be tried for one request: whoever sends rubbish decides how long it is, and how deep.

use std::cell::Cell;

/// What may be spent on one request.
#[derive(Debug)]
pub struct Allowance {
    longest_body: usize,
    left: Cell<usize>,
}

impl Allowance {
    /// For a request of somebody unknown: as many bytes as the caller has left for it.
    pub fn for_strangers(bytes: usize) -> Self {
        Self { longest_body: LONGEST_OF_STRANGERS, left: Cell::new(bytes) }
    }

    /// For an operator who asks and waits.
    pub fn for_operators() -> Self {
        Self { longest_body: LONGEST_OF_OPERATORS, left: Cell::new(usize::MAX) }
    }

    /// What is left of the bytes.
    pub fn left(&self) -> usize {
        self.left.get()
    }

    /// Longer bodies are not looked at.
    pub(super) fn longest_body(&self) -> usize {
        self.longest_body
    }

    /// Takes what it costs to sign or write this many bytes. If that much is not left, the rest is forfeited, so that nothing
    /// cheaper is tried out of its order.
    pub(super) fn spend(&self, bytes: usize) -> bool {
        let left = self.left.get().checked_sub(bytes.max(SMALLEST_ATTEMPT));
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// Pushes have some kilobytes.
const LONGEST_OF_STRANGERS: usize = 128 << 10;

/// The attempts over this take less than a second.
const LONGEST_OF_OPERATORS: usize = 1 << 20;

/// A short body is not for nothing.
const SMALLEST_ATTEMPT: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_spent() {
        let allowance = Allowance::for_strangers(10_000);
        assert!(allowance.spend(5_000) && allowance.spend(0));
        assert_eq!(allowance.left(), 5_000 - SMALLEST_ATTEMPT);
        assert!(!allowance.spend(5_000) && !allowance.spend(0), "nothing cheaper afterwards");
        assert_eq!(allowance.left(), 0);
    }
}
