//! While no endpoint takes exchanges: everybody waits, for `hold` from the moment it began; then everybody fails at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, Room, Rules};
use crate::error::{Error, Reason};
use crate::upstream::endpoint::{Condition, Endpoint, Mark};

/// Since when no endpoint takes exchanges, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) since: Instant,
    pub(super) reason: Reason,
    /// Whether the operator has been told that it lasts longer than `hold`.
    is_told: bool,
}

/// What the operator hears of.
pub(super) enum Change {
    Out { reason: Reason, hold: Duration },
    Back { lasted: Duration, waiting: usize },
}

/// What [`crate::upstream::watch`] does with a room.
impl Room {
    /// The rules in force, and for how long the outage has lasted; `None` when there is nothing left to watch.
    pub(in crate::upstream) fn watched(&self) -> Option<(Arc<Rules>, Option<Duration>)> {
        let mut inner = self.lock();
        // Under one lock: what happens from now on finds nobody, and begins anew.
        inner.is_watched = inner.needs_watch();
        inner.is_watched.then(|| (Arc::clone(&inner.rules), inner.outage.map(|outage| outage.since.elapsed())))
    }

    /// Nobody watches any more: the next who has a reason begins anew.
    pub(in crate::upstream) fn unwatched(&self) {
        self.lock().is_watched = false;
    }

    /// Tells everybody who waits when the outage has lasted longer than `hold`.
    pub(in crate::upstream) fn end_hold(&self) {
        let now = Instant::now();
        let mut told = Vec::new();
        let is_first = {
            let mut inner = self.lock();
            if !inner.is_failing(now) {
                return;
            }
            while let Some(waiter) = inner.queue.pop() {
                told.extend(inner.outage_error(&self.name, now).map(|error| (waiter.sender, error)));
            }
            self.rest(&mut inner);
            inner.outage.as_mut().is_some_and(|outage| !std::mem::replace(&mut outage.is_told, true))
        };
        if is_first {
            tracing::error!(
                upstream = %self.name,
                failed = told.len(),
                "nothing has answered for longer than `hold`: requests fail at once until a probe succeeds"
            );
        }
        for (sender, error) in told {
            self.metrics.waiting.dec();
            // Its client may have left.
            drop(sender.send(Err(error)));
        }
    }

    pub(super) fn tell(&self, change: Change) {
        match change {
            Change::Out { reason, hold } => {
                self.alarm.notify_one();
                tracing::warn!(
                    upstream = %self.name,
                    reason = reason.as_str(),
                    "no endpoint answers: requests wait up to {hold:?} for one (upstreams.{}.hold)",
                    self.name
                );
            }
            Change::Back { lasted, waiting } => {
                tracing::info!(upstream = %self.name, waiting, "answers again after {lasted:?}");
            }
        }
    }
}

impl Inner {
    pub(super) fn update_outage(&mut self, reason: Option<Reason>) -> Option<Change> {
        let now = Instant::now();
        // What an endpoint did a moment ago weighs less than that there is no other.
        let is_up = self.rules.balance.is_up() || self.rules.balance.pardon();
        match (is_up, &mut self.outage) {
            (true, Some(outage)) => {
                let lasted = now.saturating_duration_since(outage.since);
                self.was_out += lasted;
                self.outage = None;
                self.pace.interrupt();
                Some(Change::Back { lasted, waiting: self.queue.len() })
            }
            (false, None) if !self.rules.balance.endpoints.is_empty() => {
                let reason = reason.unwrap_or(Reason::NoEndpoint);
                self.outage = Some(Outage { since: now, reason, is_told: false });
                self.is_recovering = true;
                self.pace.interrupt();
                Some(Change::Out { reason, hold: self.rules.hold })
            }
            (false, Some(outage)) => {
                outage.reason = reason.unwrap_or(outage.reason);
                None
            }
            _ => None,
        }
    }

    /// Whether somebody has to look after it from time to time.
    pub(super) fn needs_watch(&self) -> bool {
        let is_out = |endpoint: &Arc<Endpoint>| {
            endpoint.state.has(Mark::Silent) || endpoint.state.condition() == Condition::Ejected
        };
        self.outage.is_some() || self.rules.balance.endpoints.iter().any(is_out)
    }

    pub(super) fn is_failing(&self, now: Instant) -> bool {
        self.hold_left(now).is_some_and(|left| left.is_zero())
    }

    /// How much longer requests are held; `None`: there is no outage.
    pub(super) fn hold_left(&self, now: Instant) -> Option<Duration> {
        let outage = self.outage?;
        Some(self.rules.hold.saturating_sub(now.saturating_duration_since(outage.since)))
    }

    /// All the time until now during which the upstream was out.
    pub(super) fn out_until(&self, now: Instant) -> Duration {
        self.was_out + self.outage.map_or(Duration::ZERO, |outage| now.saturating_duration_since(outage.since))
    }

    pub(super) fn outage_error(&self, name: &str, now: Instant) -> Option<Error> {
        let outage = self.outage?;
        let lasted = now.saturating_duration_since(outage.since);
        let detail = format!(
            "upstream {name} has not answered for {} s, longer than `hold` ({:?})",
            lasted.as_secs(),
            self.rules.hold
        );
        Some(Error::new(outage.reason).detail(detail).retry_after(self.pace.retry_after(0, now)))
    }
}
