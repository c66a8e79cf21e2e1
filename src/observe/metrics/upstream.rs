//! What is counted per upstream.

use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec};

use super::families::Families;
use super::reasons::ReasonCounters;
use crate::error::Reason;

/// The metrics of one upstream.
pub struct UpstreamMetrics {
    /// `hostler_waiting_seconds`: how long requests waited for a worker.
    pub waiting_seconds: Histogram,
    /// `hostler_waiting`: requests that wait now.
    pub waiting: IntGauge,
    /// `hostler_in_flight`: workers that are busy now.
    pub in_flight: IntGauge,
    /// `hostler_streams`: workers that are pinned by a response that is not spooled.
    pub streams: IntGauge,
    /// `hostler_worker_seconds`: how long exchanges kept a worker busy.
    pub worker_seconds: Histogram,
    /// `hostler_informational_total`: 1xx answers taken from workers.
    pub informational: IntCounter,
    name: String,
    workers: IntGaugeVec,
    failures: ReasonCounters,
    retries: ReasonCounters,
}

impl UpstreamMetrics {
    pub(super) fn new(families: &Families, name: &str) -> Self {
        Self {
            waiting_seconds: families.waiting_seconds.with_label_values(&[name]),
            waiting: families.waiting.with_label_values(&[name]),
            in_flight: families.in_flight.with_label_values(&[name]),
            streams: families.streams.with_label_values(&[name]),
            worker_seconds: families.worker_seconds.with_label_values(&[name]),
            informational: families.informational.with_label_values(&[name]),
            name: name.to_owned(),
            workers: families.workers.clone(),
            failures: ReasonCounters::new(&families.failures, name),
            retries: ReasonCounters::new(&families.retries, name),
        }
    }

    /// Says how many workers there are, when a configuration is compiled; `None`: unlimited, or the upstream is gone,
    /// and the gauge disappears, so that no ratio is made of it.
    pub fn set_workers(&self, workers: Option<u32>) {
        match workers {
            Some(workers) => self.workers.with_label_values(&[self.name.as_str()]).set(i64::from(workers)),
            // An error means that it was not there.
            None => self.workers.remove_label_values(&[self.name.as_str()]).unwrap_or_default(),
        }
    }

    /// Counts an exchange that failed.
    pub fn failure(&self, reason: Reason) {
        self.failures.inc(reason);
    }

    /// How many exchanges have failed for this reason so far.
    #[must_use]
    pub fn failures_of(&self, reason: Reason) -> u64 {
        self.failures.get(reason)
    }

    /// Counts a request that is sent again because of `reason`.
    pub fn retry(&self, reason: Reason) {
        self.retries.inc(reason);
    }
}
