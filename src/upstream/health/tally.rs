//! The pure part: which answers are good, how many in a row change an endpoint's state, and when the next probe is due.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::config::Health;

/// Whether a status is one of `expect`.
pub(super) fn is_expected(expect: &[(u16, u16)], status: StatusCode) -> bool {
    expect.iter().any(|(first, last)| (*first..=*last).contains(&status.as_u16()))
}

/// Probes in a row that speak against the present state of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Tally(u32);

impl Tally {
    /// Takes note of a probe. Whether the state changes with it: `fall` bad ones call an endpoint down, `rise` good ones
    /// up again.
    pub(super) fn note(&mut self, is_down: bool, is_good: bool, health: &Health) -> bool {
        if is_good != is_down {
            self.0 = 0;
            return false;
        }
        self.0 += 1;
        let is_enough = self.0 >= if is_down { health.rise } else { health.fall };
        if is_enough {
            self.0 = 0;
        }
        is_enough
    }
}

/// A number from 0 to 1.
pub(super) fn random() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    // A float holds 52 bits.
    #[allow(clippy::cast_precision_loss)]
    let part = (random >> 12) as f64 / (1_u64 << 52) as f64;
    part
}

/// When the first probe of an endpoint is due: each at its own moment within the first interval, and in every process,
/// which has a number from 0 to 1 of its own, at another one. So neither the endpoints of an upstream nor the edges
/// before one endpoint probe all at once.
pub(super) fn first_after(interval: Duration, index: usize, count: usize, random: f64) -> Duration {
    // There are few endpoints.
    #[allow(clippy::cast_precision_loss)]
    let part = (index as f64 + random) / count.max(1) as f64;
    interval.mul_f64(part.clamp(0.0, 1.0))
}

/// When the next one is, after one that was due at `due`. None is made up for.
pub(super) fn next_due(due: Instant, now: Instant, interval: Duration) -> Instant {
    let next = due + interval;
    if next > now { next } else { now + interval }
}

#[cfg(test)]
pub(super) fn test_health(path: &str) -> Health {
    Health {
        path: path.into(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        fall: 3,
        rise: 2,
        host: None,
        scheme: None,
        expect: vec![(200, 399)],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_is_what_is_written() {
        let expect = [(200, 204), (301, 301)];
        let good: Vec<u16> =
            (100..600).filter(|status| is_expected(&expect, StatusCode::from_u16(*status).unwrap())).collect();
        assert_eq!(good, [200, 201, 202, 203, 204, 301]);
    }

    #[test]
    fn so_many_in_a_row_change_the_state() {
        let (health, mut tally) = (test_health("/"), Tally::default());
        let mut note = |is_down, probes: &[bool]| -> Vec<bool> {
            probes.iter().map(|is_good| tally.note(is_down, *is_good, &health)).collect()
        };
        assert_eq!(note(false, &[false, false, true, false, false, false]), [false, false, false, false, false, true]);
        assert_eq!(note(true, &[true, false, true, true]), [false, false, false, true]);
    }

    #[test]
    fn every_endpoint_has_its_own_part_of_the_interval() {
        let interval = Duration::from_secs(9);
        for index in 0..3_u32 {
            let first = first_after(interval, index as usize, 3, random());
            assert!(interval / 3 * index <= first && first <= interval / 3 * (index + 1), "{index}: {first:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_state_follows_the_last_probes_and_nothing_else(
            probes in prop::collection::vec(any::<bool>(), 0..60), fall in 1_u32..5, rise in 1_u32..5,
        ) {
            let health = Health { fall, rise, ..test_health("/") };
            let (mut tally, mut is_down, mut changed_at) = (Tally::default(), false, 0);
            for (at, is_good) in probes.iter().enumerate() {
                let limit = if is_down { rise } else { fall } as usize;
                let since = &probes[changed_at..=at];
                let wanted = since.len() >= limit && since[since.len() - limit..].iter().all(|good| *good == is_down);
                prop_assert_eq!(tally.note(is_down, *is_good, &health), wanted);
                if wanted {
                    (is_down, changed_at) = (!is_down, at + 1);
                }
            }
        }
    }
}
