//! What is counted of clients that are held, and of what is published to them.

use prometheus::{IntCounter, IntGauge};

use super::families::Families;

/// How a client is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldKind {
    /// Until there is an answer (long-poll).
    Response,
    /// With a body that goes on.
    Stream,
    /// With a WebSocket that ends here.
    WebSocket,
}

/// Why something that was published did not come to a client that is held, or a client was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldLoss {
    /// The client took too little, and its buffer was full.
    BufferFull,
    /// The app could not be asked what the client has missed.
    Unrecovered,
}

/// Counters and gauges. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RealtimeMetrics {
    holds: [IntGauge; 3],
    published: [IntCounter; 3],
    refused: IntCounter,
    deliveries: IntCounter,
    lost: [IntCounter; 2],
    links: [IntCounter; 3],
}

/// What came of the question whether a client has missed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOutcome {
    /// The app was asked.
    Asked,
    /// It was asked, and did not answer as it should.
    Failed,
    /// It was not asked: the gateway itself could tell.
    Skipped,
}

impl RealtimeMetrics {
    pub(super) fn new(families: &Families) -> Self {
        let hold = |kind| families.holds.with_label_values(&[kind]);
        let item = |outcome| families.published.with_label_values(&[outcome]);
        let lost = |reason| families.hold_losses.with_label_values(&[reason]);
        let link = |outcome| families.links.with_label_values(&[outcome]);
        Self {
            holds: [hold("response"), hold("stream"), hold("websocket")],
            published: [item("released"), item("parked"), item("duplicate")],
            refused: item("refused"),
            deliveries: families.deliveries.clone(),
            lost: [lost("buffer_full"), lost("unrecovered")],
            links: [link("asked"), link("failed"), link("skipped")],
        }
    }

    /// Counts a client as held until what is returned is dropped.
    #[must_use]
    pub fn hold(&self, kind: HoldKind) -> HoldGuard {
        let gauge = self.holds[kind as usize].clone();
        gauge.inc();
        HoldGuard(gauge)
    }

    /// Counts items that were published.
    pub fn published(&self, released: usize, parked: usize, duplicates: usize) {
        for (counter, count) in self.published.iter().zip([released, parked, duplicates]) {
            counter.inc_by(count as u64);
        }
    }

    /// Counts requests to publish that were refused.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// Counts items that have come to clients.
    pub fn delivered(&self, count: u64) {
        if count > 0 {
            self.deliveries.inc_by(count);
        }
    }

    /// Counts clients that were given up.
    pub fn lost(&self, why: HoldLoss, count: u64) {
        if count > 0 {
            self.lost[why as usize].inc_by(count);
        }
    }

    /// Counts a `Grip-Link`.
    pub fn link(&self, outcome: LinkOutcome) {
        self.links[outcome as usize].inc();
    }
}

/// A client that is held.
#[derive(Debug)]
pub struct HoldGuard(IntGauge);

impl Drop for HoldGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
