//! Lines that a flood of equal failures may write: the first at once, then one a second that tells how many were left
//! out. The access log and the metrics have every one of them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::error::Reason;

/// In milliseconds.
const EVERY: u64 = 1000;

/// One kind of line, of all threads together.
#[derive(Debug)]
pub struct Throttle {
    /// When one was written, by [`now`]. 0 is never.
    last: AtomicU64,
    left_out: AtomicU64,
}

impl Throttle {
    /// Nothing has been written.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether to write now; with the number of lines left out since the last one.
    pub fn pass(&self) -> Option<u64> {
        let now = now();
        let last = self.last.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= EVERY;
        // Of several threads that are due at once, one writes.
        if is_due && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

/// Milliseconds since the process asked first, and one more.
fn now() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let passed = now.saturating_duration_since(*BEGUN.get_or_init(|| now));
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// One kind of line per reason.
#[derive(Debug)]
pub struct Throttles([Throttle; Reason::ALL.len()]);

impl Throttles {
    /// Nothing has been written.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { Throttle::new() }; Reason::ALL.len()])
    }

    /// As [`Throttle::pass`], for this reason.
    pub fn pass(&self, reason: Reason) -> Option<u64> {
        self.0.get(reason as usize).and_then(Throttle::pass)
    }
}

impl Default for Throttles {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_one_line_a_second() {
        let (throttle, begun) = (Throttle::new(), Instant::now());
        let passed = || (0..100).filter(|_| throttle.pass().is_some()).count();
        let written: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(passed)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(written >= 1 && written <= 1 + begun.elapsed().as_secs() as usize, "{written}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_writes_one_line_a_second_and_tells_the_rest() {
        let throttles = Throttles::default();
        assert_eq!(throttles.pass(Reason::QueueFull), Some(0));
        for _ in 0..10 {
            assert_eq!(throttles.pass(Reason::QueueFull), None);
        }
        assert_eq!(throttles.pass(Reason::HeadTimeout), Some(0), "every reason has its own");
        tokio::time::advance(std::time::Duration::from_millis(EVERY)).await;
        assert_eq!(throttles.pass(Reason::QueueFull), Some(10));
        assert_eq!(throttles.pass(Reason::QueueFull), None);
    }
}
