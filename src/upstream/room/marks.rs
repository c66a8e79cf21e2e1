//! What is learnt of an endpoint, and whom that lets through.

use std::sync::Arc;
use std::time::Duration;

use super::Room;
use crate::error::Reason;
use crate::upstream::endpoint::{Endpoint, Mark};

impl Room {
    /// An endpoint refuses connections, or its socket is missing.
    pub(in crate::upstream) fn silent(self: &Arc<Self>, endpoint: &Endpoint, reason: Reason) {
        if endpoint.state.set(Mark::Silent, true) {
            tracing::warn!(
                upstream = %self.name,
                endpoint = endpoint.name(),
                reason = reason.as_str(),
                "the endpoint does not answer: it is left out until a probe connects"
            );
        }
        self.changed(Some(reason));
    }

    /// Leaves an endpoint that has failed too often out for a while, unless it is the last. Whether it did.
    pub(in crate::upstream) fn eject(self: &Arc<Self>, endpoint: &Endpoint, duration: Duration) -> bool {
        {
            // Under the lock: two that fail at once are not both left out.
            let inner = self.lock();
            if inner.rules.balance.is_last(endpoint) {
                return false;
            }
            endpoint.state.eject(duration);
        }
        self.changed(None);
        true
    }

    /// Probes call an endpoint down, or up again. Whether that changed anything.
    pub(in crate::upstream) fn unhealthy(self: &Arc<Self>, endpoint: &Endpoint, is_down: bool) -> bool {
        let changed = endpoint.state.set(Mark::Unhealthy, is_down);
        if changed {
            self.changed(is_down.then_some(Reason::NoEndpoint));
        }
        changed
    }
}
