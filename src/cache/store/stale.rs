//! Since when something is stale because a purge has struck it softly.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::super::clock::SLACK;

/// A moment of the cache's steady clock ([`super::Store::clock`]), in milliseconds. Of several the earliest counts: a second
/// purge makes nothing younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StaleFrom(u64);

impl StaleFrom {
    /// It was not purged.
    pub(super) const NEVER: Self = Self(u64::MAX);
    /// It was purged, and nobody knows when: as early as can be.
    pub(super) const EVER: Self = Self(0);
    /// The latest that is written down: some thousands of years.
    const LATEST: u64 = (1 << 48) - 1;

    /// From that moment on, in milliseconds.
    pub(super) fn at(milliseconds: u64) -> Self {
        Self(milliseconds.min(Self::LATEST))
    }

    /// The same where an earlier process may have written it: if that is in what is the future `now`, by the steady clock, in
    /// milliseconds, the clock has been set back, and nobody knows when it was.
    pub(super) fn told(self, now: u64) -> Self {
        let is_of_the_future = self.milliseconds().is_some_and(|from| from > now.saturating_add(SLACK));
        if is_of_the_future { Self::EVER } else { self }
    }

    /// Whether it is stale at all.
    pub(super) fn is_stale(self) -> bool {
        self != Self::NEVER
    }

    /// In milliseconds. `None`: it was not purged.
    pub(super) fn milliseconds(self) -> Option<u64> {
        self.is_stale().then_some(self.0)
    }

    /// What stands in a place where this is kept.
    pub(super) fn of(place: &AtomicU64) -> Self {
        Self(place.load(Relaxed))
    }

    /// Enters it in such a place, if that has no earlier one.
    pub(super) fn enter(self, place: &AtomicU64) {
        place.fetch_min(self.0, Relaxed);
    }

    /// Such a place.
    pub(super) fn place(self) -> AtomicU64 {
        AtomicU64::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_purged_in_the_future_was_purged_at_any_time_and_stays_so() {
        let now = 1_700_000_000_000;
        for from in [StaleFrom::NEVER, StaleFrom::EVER, StaleFrom::at(now), StaleFrom::at(now + SLACK)] {
            assert_eq!(from.told(now), from, "{from:?}");
        }
        assert_eq!(StaleFrom::at(now + SLACK + 1).told(now), StaleFrom::EVER);
        assert_eq!(StaleFrom::at(now + SLACK + 1).told(now).told(now + 3 * SLACK), StaleFrom::EVER);
    }
}
