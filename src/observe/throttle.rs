//! Lines that a flood of equal failures may write: the first at once, then one a second that tells how many were left
//! out. The access log and the metrics have every one of them.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Reason;

const EVERY: Duration = Duration::from_secs(1);

/// One kind of line, of one thread.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Cell<Option<Instant>>,
    left_out: Cell<u64>,
}

impl Throttle {
    /// Whether to write now; with the number of lines left out since the last one.
    pub fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        if self.last.get().is_some_and(|last| now - last < EVERY) {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.left_out.take())
    }
}

/// One kind of line per reason.
#[derive(Debug)]
pub struct Throttles(Vec<Throttle>);

impl Default for Throttles {
    fn default() -> Self {
        Self(Reason::ALL.iter().map(|_| Throttle::default()).collect())
    }
}

impl Throttles {
    /// As [`Throttle::pass`], for this reason.
    pub fn pass(&self, reason: Reason) -> Option<u64> {
        self.0.get(reason as usize).and_then(Throttle::pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_writes_one_line_a_second_and_tells_the_rest() {
        let throttles = Throttles::default();
        assert_eq!(throttles.pass(Reason::QueueFull), Some(0));
        for _ in 0..10 {
            assert_eq!(throttles.pass(Reason::QueueFull), None);
        }
        assert_eq!(throttles.pass(Reason::HeadTimeout), Some(0), "every reason has its own");
        tokio::time::advance(EVERY).await;
        assert_eq!(throttles.pass(Reason::QueueFull), Some(10));
        assert_eq!(throttles.pass(Reason::QueueFull), None);
    }
}
