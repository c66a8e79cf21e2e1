//! How many workers an upstream would need, by Little's law: requests a second times the seconds each keeps a worker.
//!
//! Samples of the counters that exist anyway, taken now and then outside the way of requests, over the last minute.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How far back the present demand reaches.
const WINDOW: Duration = Duration::from_secs(60);
/// How busy workers may be on average: beyond that, waiting grows steeply.
const UTILISATION: f64 = 0.8;

/// Counters at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// Requests that were let through or refused a place, so far.
    pub(super) asked: u64,
    /// Exchanges that workers have ended, so far.
    pub(super) served: u64,
    /// Seconds that those took together.
    pub(super) busy_seconds: f64,
}

/// What the last minute asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needed {
    /// Requests a second, those included that got no place.
    pub arrivals_per_second: f64,
    /// Seconds that a request keeps a worker, on average.
    pub service_seconds: f64,
    /// Workers that would be four fifths busy with that.
    pub workers_hint: u32,
}

/// The samples of the last minute.
#[derive(Debug, Default)]
pub(super) struct Demand(VecDeque<Sample>);

impl Demand {
    /// Remembers a sample, and forgets those that are older than a minute.
    pub(super) fn add(&mut self, sample: Sample) {
        while self.0.get(1).is_some_and(|second| sample.at.saturating_duration_since(second.at) >= WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// When the newest sample was taken.
    pub(super) fn newest(&self) -> Option<Instant> {
        self.0.back().map(|sample| sample.at)
    }

    /// What is needed. `None`: nothing has been served, or for too short a time.
    pub(super) fn needed(&self) -> Option<Needed> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
        let served = last.served.checked_sub(first.served).filter(|served| *served > 0)?;
        if seconds < 1.0 {
            return None;
        }
        // Counts of a minute are far below where a float becomes coarse.
        #[allow(clippy::cast_precision_loss)]
        let (asked, served) = (last.asked.saturating_sub(first.asked) as f64, served as f64);
        let (arrivals_per_second, service_seconds) =
            (asked / seconds, (last.busy_seconds - first.busy_seconds) / served);
        let workers = (arrivals_per_second * service_seconds / UTILISATION).ceil().clamp(1.0, 100_000.0);
        // Clamped above.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let workers_hint = workers as u32;
        Some(Needed { arrivals_per_second, service_seconds, workers_hint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(begin: Instant, second: u64, per_second: u64, service: f64) -> Sample {
        let served = second * per_second;
        #[allow(clippy::cast_precision_loss)]
        let busy_seconds = served as f64 * service;
        Sample { at: begin + Duration::from_secs(second), asked: served, served, busy_seconds }
    }

    #[test]
    fn forty_requests_a_second_of_a_tenth_of_a_second_want_five_workers() {
        let (mut demand, begin) = (Demand::default(), Instant::now());
        for second in (0..300).step_by(5) {
            demand.add(sample(begin, second, 40, 0.1));
        }
        let needed = demand.needed().unwrap();
        assert_eq!(needed.workers_hint, 5);
        assert!((needed.arrivals_per_second - 40.0).abs() < 0.01 && (needed.service_seconds - 0.1).abs() < 0.001);
        assert!(demand.0.len() <= 14, "only a minute is kept");
    }

    #[test]
    fn refused_requests_are_demand_as_well() {
        let (mut demand, begin) = (Demand::default(), Instant::now());
        demand.add(sample(begin, 0, 40, 0.1));
        demand.add(Sample { asked: 8000, ..sample(begin, 50, 40, 0.1) });
        assert_eq!(demand.needed().unwrap().workers_hint, 20);
    }

    #[test]
    fn nothing_served_asks_for_nothing() {
        let (mut demand, begin) = (Demand::default(), Instant::now());
        assert_eq!(demand.needed(), None);
        demand.add(sample(begin, 0, 0, 0.1));
        demand.add(sample(begin, 10, 0, 0.1));
        assert_eq!(demand.needed(), None);
    }
}
