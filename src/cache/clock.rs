//! The two clocks of the cache (see [`policy::freshness`](super::policy::freshness)).

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// How far the steady clock may be behind what another process wrote before, in milliseconds: more than clocks are corrected by.
pub(super) const SLACK: u64 = 2_000;

/// A clock that says what the wall clock said when it was made, and goes on by itself: whoever sets the wall clock changes no
/// age. What is kept on disk is still as old after a restart as it was.
#[derive(Debug)]
pub struct Clock {
    begun: Instant,
    /// Since 1970.
    at: Duration,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { begun: Instant::now(), at: since_1970() }
    }

    /// The steady clock now, in milliseconds.
    #[must_use]
    pub fn steady(&self) -> u64 {
        self.steady_at(Instant::now())
    }

    /// The same at a moment that was read already, in milliseconds.
    #[must_use]
    pub fn steady_at(&self, moment: Instant) -> u64 {
        let now = self.at + moment.saturating_duration_since(self.begun);
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    /// The wall clock now, in seconds since 1970.
    #[must_use]
    pub fn wall(&self) -> u64 {
        since_1970().as_secs()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_begins_with_the_wall_clock_and_goes_on_by_itself() {
        let clock = Clock::new();
        let begun = clock.steady();
        assert!(begun / 1000 <= clock.wall());
        tokio::time::advance(Duration::from_millis(2_500)).await;
        assert_eq!(clock.steady() - begun, 2_500);
        assert_eq!(clock.steady_at(clock.begun), begun);
    }
}
