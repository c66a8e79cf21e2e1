//! The slot of a probe: never the last one that users could have.
//!
//! | the endpoint | the probe takes |
//! |---|---|
//! | exchanges are sent there | a slot, if two are free or nothing is in flight, and nobody waits |
//! | left out, or a backup that is not needed | the same if it can, else none: its workers are idle, and users are none the worse |

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Room, in_use};
use crate::upstream::endpoint::Endpoint;

/// What a probe holds while a worker is busy with it.
pub(in crate::upstream) struct ProbePermit {
    room: Arc<Room>,
    endpoint: Arc<Endpoint>,
    /// Whether it counts among the exchanges of the upstream.
    has_slot: bool,
}

impl Room {
    /// A slot for a probe of this endpoint. `None`: it has to be left out.
    pub(in crate::upstream) fn try_probe(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> Option<ProbePermit> {
        // To the end: whoever gives slots to those who wait holds it, too, and no wake-up gets lost meanwhile.
        let inner = self.lock();
        let is_used = inner.rules.balance.is_used(endpoint);
        if inner.is_paused || (is_used && inner.queue.len() > 0) {
            return None;
        }
        let slots = self.slots.load(Ordering::Acquire);
        if !endpoint.acquire_for_probe(is_used, slots) {
            return None;
        }
        let take = |state: u64| {
            let taken = in_use(state);
            (taken < slots && (taken == 0 || taken + 2 <= slots)).then_some(state + 1)
        };
        let has_slot = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok();
        if !has_slot && is_used {
            endpoint.release();
            return None;
        }
        if has_slot {
            self.metrics.in_flight.inc();
        }
        Some(ProbePermit { room: Arc::clone(self), endpoint: Arc::clone(endpoint), has_slot })
    }
}

impl Drop for ProbePermit {
    fn drop(&mut self) {
        self.endpoint.release();
        if self.has_slot {
            self.room.metrics.in_flight.dec();
            self.room.give_back(false);
        } else {
            // The endpoint's own workers may be what somebody waits for by now.
            self.room.grant();
        }
    }
}
