//! What an exchange with a worker holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Arrived, GUARDED, Room, Seek, wait};
use crate::error::Error;
use crate::upstream::balance::{Balance, Wish};
use crate::upstream::endpoint::Endpoint;

/// One worker's slot at one endpoint. Dropping it frees the slot.
pub(in crate::upstream) struct Permit {
    pub(super) room: Arc<Room>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) seek: Seek,
    pub(super) arrived: Arrived,
    /// When it was got.
    since: Instant,
    ended: Option<Instant>,
    /// Whether a worker has been asked for anything under it.
    is_used: bool,
}

/// The right to keep a worker for as long as a client reads. Dropping it gives it back.
pub(in crate::upstream) struct StreamPermit(Arc<Room>);

impl Permit {
    pub(super) fn new(room: &Arc<Room>, endpoint: Arc<Endpoint>, seek: Seek, arrived: Arrived, since: Instant) -> Self {
        room.metrics.in_flight.inc();
        Self { room: Arc::clone(room), endpoint, seek, arrived, since, ended: None, is_used: false }
    }

    /// When the slot was got.
    #[must_use]
    pub(in crate::upstream) fn since(&self) -> Instant {
        self.since
    }

    /// When its request came to the waiting room.
    #[must_use]
    pub(in crate::upstream) fn arrived(&self) -> Instant {
        self.arrived.at
    }

    /// How long it was waited for.
    #[must_use]
    pub(in crate::upstream) fn waited(&self) -> Duration {
        self.since.saturating_duration_since(self.arrived.at)
    }

    /// Where the exchange takes place.
    #[must_use]
    pub(in crate::upstream) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The worker was done at this moment, which has hardly passed.
    pub(in crate::upstream) fn ended(&mut self, at: Instant) {
        self.ended = Some(at);
    }

    /// From now on its time is a worker's.
    pub(in crate::upstream) fn used(&mut self) {
        self.is_used = true;
    }

    /// Goes to another endpoint of the same upstream, keeping the upstream's slot. Whether there is one that is free.
    pub(in crate::upstream) fn move_on(&mut self, balance: &Balance) -> bool {
        let wish = Wish { avoid: Some(self.endpoint.id), ..self.seek.wish };
        let Some(other) = balance.acquire(wish) else { return false };
        std::mem::replace(&mut self.endpoint, other).release();
        // Somebody may wait for just that one.
        self.room.grant_if_guarded();
        true
    }

    /// Back into the room, before all others: the endpoint does not answer, and nothing has been sent.
    ///
    /// # Errors
    /// As [`Room::enter`].
    pub(in crate::upstream) async fn rejoin(self) -> Result<Self, Error> {
        wait::rejoin(self).await
    }

    /// Takes one of `streaming.max`. `None`: they are all taken.
    pub(in crate::upstream) fn pin(&self) -> Option<StreamPermit> {
        self.pin_of(self.room.streams_max.load(Ordering::Relaxed))
    }

    /// The same for a body that waits for room in the spool, when less than half of them are taken: the other half is for
    /// those who are meant to have them. Never for the last worker.
    pub(in crate::upstream) fn pin_without_room(&self) -> Option<StreamPermit> {
        let half = self.room.streams_max.load(Ordering::Relaxed).div_ceil(2);
        self.pin_of(half.min(self.room.slots.load(Ordering::Relaxed).saturating_sub(1)))
    }

    /// Whether somebody waits for a worker.
    #[must_use]
    pub(in crate::upstream) fn is_wanted(&self) -> bool {
        self.room.state.load(Ordering::Relaxed) & GUARDED != 0
    }

    fn pin_of(&self, max: u32) -> Option<StreamPermit> {
        let room = &self.room;
        let take = |streams: u32| (streams < max).then_some(streams + 1);
        room.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        room.metrics.streams.inc();
        Some(StreamPermit(Arc::clone(room)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let metrics = &self.room.metrics;
        metrics.in_flight.dec();
        if self.is_used {
            let ended = self.ended.unwrap_or_else(Instant::now);
            metrics.worker_seconds.observe(ended.saturating_duration_since(self.since).as_secs_f64());
        }
        self.endpoint.release();
        self.room.give_back(self.is_used);
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.streams.dec();
    }
}
