//! What is left to chance, so that what began at the same moment does not go on so.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

/// Shorter than `most`, by chance.
#[must_use]
pub fn some_of(most: Duration) -> Duration {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    // SplitMix64: every value once, in an order that looks like none.
    let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    STATE.set(state);
    let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let part = (mixed >> 40) as u32;
    most.mul_f64(f64::from(part) / f64::from(1_u32 << 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_stays_within_its_bounds_and_is_not_always_the_same() {
        let most = Duration::from_secs(10);
        let all: Vec<Duration> = (0..100).map(|_| some_of(most)).collect();
        assert!(all.iter().all(|one| *one < most));
        assert!(all.iter().any(|one| *one < most / 4) && all.iter().any(|one| *one > most * 3 / 4));
        assert_eq!(some_of(Duration::ZERO), Duration::ZERO);
    }
}
