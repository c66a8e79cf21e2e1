//! Lines that a flood of equal failures may write: the first at once, then one a second that tells how many were left
//! out. The access log and the metrics have every one of them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// One kind of line, of all threads together.
#[derive(Debug)]
pub struct SharedThrottle {
    begun: std::time::Instant,
    /// In milliseconds since `begun`, and one more: 0 is never.
    last: AtomicU64,
    left_out: AtomicU64,
}

impl Default for SharedThrottle {
    fn default() -> Self {
        Self { begun: std::time::Instant::now(), last: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }
}

impl SharedThrottle {
    /// As [`Throttle::pass`].
    pub fn pass(&self) -> Option<u64> {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let last = self.last.load(Ordering::Relaxed);
        let is_due = last == 0 || now - last.min(now) >= EVERY.as_millis() as u64;
        // Of several threads that are due at once, one writes.
        if is_due && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
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

    #[test]
    fn threads_share_one_line_a_second() {
        let throttle = SharedThrottle::default();
        let passed = || (0..100).filter(|_| throttle.pass().is_some()).count();
        let written: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(passed)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(written >= 1 && written <= 1 + throttle.begun.elapsed().as_secs() as usize, "{written}");
    }

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
