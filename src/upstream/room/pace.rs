//! How fast an upstream works its waiting room off: completions per second while every worker is taken.
//!
//! Two windows of [`WINDOW`] each, the one before and the present one, so that the rate follows a change within seconds
//! and one slow request does not decide it. Nothing is known before a full second and [`ENOUGH`] completions.

use std::time::Duration;

use tokio::time::Instant;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(5);
/// Fewer completions say nothing.
const ENOUGH: u32 = 8;
/// What clients are told while nothing is known.
const UNKNOWN: u32 = 5;
/// The longest that clients are told to wait: things change.
const LONGEST: u32 = 60;

/// Completions while somebody waits.
#[derive(Debug, Default)]
pub(super) struct Pace {
    present: Option<Window>,
    before: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    lasted: Duration,
    completed: u32,
}

impl Pace {
    /// A worker came free while somebody waited.
    pub(super) fn completed(&mut self, now: Instant) {
        let mut window = self.present.unwrap_or(Window { since: now, lasted: Duration::ZERO, completed: 0 });
        window.lasted = now.saturating_duration_since(window.since);
        window.completed = window.completed.saturating_add(1);
        if window.lasted >= WINDOW {
            self.before = Some(window);
            window = Window { since: now, lasted: Duration::ZERO, completed: 0 };
        }
        self.present = Some(window);
    }

    /// Something else than the workers' speed decides for a while: what was seen of the present window is void.
    pub(super) fn interrupt(&mut self) {
        self.present = None;
    }

    /// Nobody waits any more: what was seen so far says nothing about the next rush but its rate.
    pub(super) fn rest(&mut self) {
        if let Some(window) = self.present.take()
            && window.completed >= ENOUGH
            && window.lasted >= Duration::from_secs(1)
        {
            self.before = Some(window);
        }
    }

    /// How long `turns` take. `None`: not known, or not any more.
    pub(super) fn estimate(&self, turns: usize, now: Instant) -> Option<Duration> {
        let is_fresh = |window: &Window| now.saturating_duration_since(window.since + window.lasted) < 2 * WINDOW;
        let windows = [self.before, self.present].map(|window| window.filter(is_fresh));
        let completed: u32 = windows.iter().flatten().map(|window| window.completed).sum();
        let lasted: Duration = windows.iter().flatten().map(|window| window.lasted).sum();
        if completed < ENOUGH || lasted < Duration::from_secs(1) {
            return None;
        }
        let turns = u32::try_from(turns).unwrap_or(u32::MAX);
        Some(Duration::from_secs_f64(lasted.as_secs_f64() / f64::from(completed) * f64::from(turns)))
    }

    /// Seconds after which a request that finds `turns` ahead of it may try again: when those have been worked off.
    pub(super) fn retry_after(&self, turns: usize, now: Instant) -> u32 {
        let Some(estimate) = self.estimate(turns, now) else { return UNKNOWN };
        u32::try_from(estimate.as_secs() + 1).unwrap_or(LONGEST).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pace of one completion every `every`, `count` times, and when the last one was.
    fn paced(every: Duration, count: u32) -> (Pace, Instant) {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        for number in 0..count {
            pace.completed(begin + every * number);
        }
        (pace, begin + every * (count - 1))
    }

    #[test]
    fn a_steady_pace_is_measured() {
        // 40 a second.
        let (pace, now) = paced(Duration::from_millis(25), 1000);
        let estimate = pace.estimate(400, now).unwrap();
        assert!((9.5..10.5).contains(&estimate.as_secs_f64()), "{estimate:?}");
        assert_eq!(pace.retry_after(100, now), 3);
        assert_eq!(pace.retry_after(1_000_000, now), LONGEST);
    }

    #[test]
    fn a_few_completions_say_nothing() {
        for (every, count) in [(Duration::from_secs(1), ENOUGH - 1), (Duration::from_micros(10), 100)] {
            let (pace, now) = paced(every, count);
            assert_eq!(pace.estimate(100, now), None, "{every:?}");
        }
        assert_eq!(Pace::default().retry_after(100, Instant::now()), UNKNOWN);
    }

    #[test]
    fn a_rush_of_long_ago_says_nothing_of_this_one() {
        let (mut pace, now) = paced(Duration::from_millis(500), 40);
        pace.rest();
        assert!(pace.estimate(40, now + Duration::from_secs(5)).is_some());
        let later = now + Duration::from_secs(60);
        assert_eq!((pace.estimate(40, later), pace.retry_after(40, later)), (None, UNKNOWN));
        for number in 0..100 {
            pace.completed(later + Duration::from_millis(25) * number);
        }
        let estimate = pace.estimate(40, later + Duration::from_millis(2500)).unwrap();
        assert!((0.9..1.1).contains(&estimate.as_secs_f64()), "{estimate:?}");
    }

    #[test]
    fn an_outage_is_not_taken_for_slowness() {
        let (mut pace, now) = paced(Duration::from_millis(25), 100);
        pace.interrupt();
        let later = now + Duration::from_secs(8);
        for number in 0..100 {
            pace.completed(later + Duration::from_millis(25) * number);
        }
        let estimate = pace.estimate(40, later + Duration::from_millis(2500)).unwrap();
        assert!((0.9..1.1).contains(&estimate.as_secs_f64()), "{estimate:?}");
    }
}
