//! What is left to chance, so that what began at the same moment does not go on so.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// Shorter than `most`, by chance.
#[must_use]
pub fn some_of(most: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish();
    most.mul_f64((chance % 1024) as f64 / 1024.0)
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
