//! The rule: the generic cell rate algorithm (ITU-T I.371), which is a bucket of requests that fills up again evenly.
//!
//! All that it keeps of a client is one moment, when its bucket will be full again. Whoever takes a request moves it by one
//! interval; it may not lie further ahead than a whole bucket takes to fill. Pure arithmetic over nanoseconds since the
//! table began.

use std::time::Duration;

use crate::config::Rate;

/// A rate and how much may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gcra {
    /// In which one request comes back. Rounded up, so that no rate is exceeded.
    interval: u64,
    /// In which an empty bucket is full again.
    span: u64,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may go on.
    Granted {
        /// So many more may follow at once.
        remaining: u64,
        /// Until the bucket is full.
        full_in: Duration,
    },
    /// It is one too many, and has taken nothing.
    Refused {
        /// Until one more is granted.
        retry_in: Duration,
    },
}

impl Gcra {
    /// `rate` in the long run, `burst` at once, which is at least 1.
    pub(super) fn new(rate: Rate, burst: u32) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(u64::from(rate.count.max(1))).max(1);
        Self { interval, span: interval.saturating_mul(u64::from(burst.max(1))) }
    }

    /// In how long an empty bucket is full again.
    pub(super) fn span(&self) -> Duration {
        Duration::from_nanos(self.span)
    }

    /// One request at `now`, of somebody whose bucket is full at `full_at` (any time that has passed, if it is full). With
    /// the verdict the moment that it will be full now.
    pub(super) fn take(&self, full_at: u64, now: u64) -> (Verdict, u64) {
        // Under another rule, before a reload, a bucket may have been larger.
        let full_at = full_at.clamp(now, now.saturating_add(self.span));
        let after = full_at.saturating_add(self.interval);
        let ahead = after - now;
        if ahead > self.span {
            return (Verdict::Refused { retry_in: Duration::from_nanos(ahead - self.span) }, full_at);
        }
        let remaining = (self.span - ahead) / self.interval;
        (Verdict::Granted { remaining, full_in: Duration::from_nanos(ahead) }, after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rule(rate: &str, burst: u32) -> Gcra {
        Gcra::new(rate.parse().unwrap(), burst)
    }

    #[test]
    fn a_burst_goes_through_at_once_and_then_one_an_interval() {
        let rule = rule("10/s", 3);
        let mut full_at = 0;
        let mut take = |now| {
            let (verdict, after) = rule.take(full_at, now);
            full_at = after;
            verdict
        };
        for remaining in [2, 1, 0] {
            let full_in = Duration::from_millis((3 - remaining) * 100);
            assert_eq!(take(SECOND), Verdict::Granted { remaining, full_in });
        }
        assert_eq!(take(SECOND), Verdict::Refused { retry_in: Duration::from_millis(100) });
        assert_eq!(take(SECOND + SECOND / 20), Verdict::Refused { retry_in: Duration::from_millis(50) });
        assert!(matches!(take(SECOND + SECOND / 10), Verdict::Granted { remaining: 0, .. }));
        assert!(matches!(take(SECOND + SECOND / 10), Verdict::Refused { .. }));
        assert!(matches!(take(9 * SECOND), Verdict::Granted { remaining: 2, .. }), "no more than a bucket is saved up");
    }

    #[test]
    fn sixty_a_minute_is_not_one_a_second() {
        assert_eq!(rule("60/m", 60).span(), Duration::from_secs(60));
        assert_eq!(rule("1/s", 1).span(), Duration::from_secs(1));
    }

    #[test]
    fn a_bucket_that_was_larger_before_a_reload_is_empty_and_not_in_debt() {
        let before = rule("1/h", 1_000);
        let (_, full_at) = before.take(before.span, 0);
        let (verdict, _) = rule("10/s", 3).take(full_at, 0);
        assert_eq!(verdict, Verdict::Refused { retry_in: Duration::from_millis(100) });
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let slow = Gcra::new(Rate { count: 1, per: Duration::from_secs(3_600) }, u32::MAX);
        assert_eq!(slow.span, u64::MAX);
        assert!(matches!(slow.take(u64::MAX, u64::MAX), (Verdict::Granted { .. }, u64::MAX)));
        assert_eq!(Gcra::new(Rate { count: u32::MAX, per: Duration::from_secs(1) }, 1).interval, 1);
    }
}
