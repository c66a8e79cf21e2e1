//! What is counted per upstream.

use std::sync::{Mutex, PoisonError};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

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
    endpoint_up: IntGaugeVec,
    endpoint_in_flight: IntGaugeVec,
    probes: IntCounterVec,
    /// Names that have gauges.
    reported: Mutex<Vec<String>>,
    failures: ReasonCounters,
    retries: ReasonCounters,
}

/// An endpoint as its gauges show it.
#[derive(Debug, Clone, Copy)]
pub struct EndpointReport<'a> {
    /// The address as the operator wrote it.
    pub name: &'a str,
    /// Whether it takes exchanges.
    pub is_up: bool,
    /// Exchanges and probes in flight there.
    pub in_flight: u32,
}

/// What came of a probe that was due: the `result` of `hostler_probes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// It was answered as expected.
    Good,
    /// It was not.
    Failed,
    /// No worker was to spare, and an exchange had ended well instead.
    Served,
    /// No worker was to spare, or the endpoint does not answer anyway.
    Skipped,
}

impl ProbeResult {
    const ALL: [Self; 4] = [Self::Good, Self::Failed, Self::Served, Self::Skipped];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Failed => "failed",
            Self::Served => "served",
            Self::Skipped => "skipped",
        }
    }
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
            endpoint_up: families.endpoint_up.clone(),
            endpoint_in_flight: families.endpoint_in_flight.clone(),
            probes: families.probes.clone(),
            reported: Mutex::default(),
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

    /// Sets the gauges of these endpoints. Those of others disappear, and so do their probes.
    pub fn report_endpoints<'a>(&self, endpoints: impl Iterator<Item = EndpointReport<'a>>) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *reported);
        for EndpointReport { name, is_up, in_flight } in endpoints {
            let labels = [self.name.as_str(), name];
            self.endpoint_up.with_label_values(&labels).set(is_up.into());
            self.endpoint_in_flight.with_label_values(&labels).set(in_flight.into());
            gone.retain(|known| known != name);
            reported.push(name.to_owned());
        }
        for name in &gone {
            let labels = [self.name.as_str(), name];
            // Errors mean that they were not there.
            let _ = self.endpoint_up.remove_label_values(&labels);
            let _ = self.endpoint_in_flight.remove_label_values(&labels);
            for result in ProbeResult::ALL {
                let _ = self.probes.remove_label_values(&[labels[0], labels[1], result.as_str()]);
            }
        }
    }

    /// Counts a probe that was due.
    pub fn probe(&self, endpoint: &str, result: ProbeResult) {
        self.probes.with_label_values(&[self.name.as_str(), endpoint, result.as_str()]).inc();
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
