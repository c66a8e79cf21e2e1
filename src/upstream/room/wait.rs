//! Waiting: a place in the queue, until a permit is handed over, the time is over, or the client leaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::Ticket;
use super::{Arrived, Permit, Room, Seek, Waiter};
use crate::config::Workers;
use crate::error::{Error, Reason};
use crate::runtime::Deadline;
use crate::upstream::balance::Wish;

/// Those who were let through and met a closed door come before everybody else, in the order they had.
const RETURNED: Seek = Seek { priority: i32::MAX, client: 0, wish: Wish { key: None, avoid: None } };
/// How much longer than the outage a request is held whose own time is over: the watch tells it first.
const SLACK: Duration = Duration::from_millis(500);

/// A place in the queue. Given up when it is dropped, unless a permit was handed over before.
struct Place {
    room: Arc<Room>,
    ticket: Ticket,
}

/// Waits for a slot.
pub(super) async fn wait(room: &Arc<Room>, seek: Seek) -> Result<Permit, Error> {
    let now = Instant::now();
    let is_first_hint;
    let (place, receiver, arrived, yielding) = {
        let mut inner = room.lock();
        if let Some(refusal) = inner.refusal(&room.name, true, seek) {
            return Err(refusal);
        }
        let arrived = Arrived { at: now, was_out: Some(inner.out_until(now)) };
        let yielding = inner.make_room(&room.name, seek);
        let (sender, receiver) = oneshot::channel();
        let ticket = inner.queue.push(seek.priority, seek.client, Waiter { seek, arrived, sender });
        room.set_guard(&inner);
        is_first_hint = inner.outage.is_none() && !inner.is_paused && std::mem::take(&mut inner.hint);
        (Place { room: Arc::clone(room), ticket }, receiver, arrived, yielding)
    };
    if is_first_hint {
        hint(&room.name);
    }
    match yielding {
        // One goes, one comes. It may have left just now.
        Some((sender, error)) => drop(sender.send(Err(error))),
        None => room.metrics.waiting.inc(),
    }
    // A slot may have come free before the mark was seen that somebody waits.
    room.grant();
    let permit = wait_for(&place, receiver, arrived).await?;
    room.metrics.waiting_seconds.observe(permit.waited().as_secs_f64());
    Ok(permit)
}

/// Gives the slot up and waits for one again, in front.
pub(super) async fn rejoin(permit: Permit) -> Result<Permit, Error> {
    let room = Arc::clone(&permit.room);
    let mut arrived = permit.arrived;
    let seek = Seek { wish: permit.seek.wish, ..RETURNED };
    let (place, receiver) = {
        let mut inner = room.lock();
        let now = Instant::now();
        let is_failing = inner.is_failing(now);
        if let Some(error) = inner.outage_error(&room.name, now).filter(|_| is_failing) {
            // Before the permit, which takes it as well.
            drop(inner);
            return Err(error);
        }
        // It met the outage at hand: only what went before does not count for it.
        arrived.was_out.get_or_insert(inner.was_out);
        let (sender, receiver) = oneshot::channel();
        let ticket = inner.queue.push(seek.priority, seek.client, Waiter { seek, arrived, sender });
        room.set_guard(&inner);
        (Place { room: Arc::clone(&room), ticket }, receiver)
    };
    room.metrics.waiting.inc();
    drop(permit);
    room.grant();
    wait_for(&place, receiver, arrived).await
}

async fn wait_for(
    place: &Place,
    mut receiver: oneshot::Receiver<Result<Permit, Error>>,
    arrived: Arrived,
) -> Result<Permit, Error> {
    let deadline = Deadline::new();
    loop {
        let left = place.room.left(arrived)?;
        match deadline.bound(left, &mut receiver).await {
            Ok(Ok(granted)) => return granted,
            Ok(Err(_)) => return Err(Error::new(Reason::Internal).detail("a place in the waiting room was lost")),
            Err(_) => {}
        }
    }
}

impl Room {
    /// How long a request may still wait: the time during which the upstream was out does not count.
    fn left(&self, arrived: Arrived) -> Result<Duration, Error> {
        let now = Instant::now();
        let inner = self.lock();
        let timeout = inner.rules.timeout;
        let was_out = arrived.was_out.map_or(Duration::ZERO, |before| inner.out_until(now).saturating_sub(before));
        let waited = now.saturating_duration_since(arrived.at).saturating_sub(was_out);
        let left = timeout.saturating_sub(waited);
        if !left.is_zero() {
            return Ok(left);
        }
        if let Some(held) = inner.hold_left(now) {
            return match inner.outage_error(&self.name, now).filter(|_| held.is_zero()) {
                Some(error) => Err(error),
                None => Ok(held + SLACK),
            };
        }
        Err(Error::new(Reason::QueueTimeout)
            .detail(format!("waited {timeout:?} for a worker of upstream {} (waiting_room.timeout)", self.name))
            .retry_after(inner.pace.retry_after(inner.queue.len(), now)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.room.lock();
        // Nothing is there when a permit has been handed over: if nobody took it, it frees its slot by itself.
        if inner.queue.remove(self.ticket).is_some() {
            self.room.metrics.waiting.dec();
            self.room.rest(&mut inner);
        }
    }
}

fn hint(name: &str) {
    tracing::warn!(
        upstream = name,
        "requests wait for a worker, and `workers` is not set: {} are assumed. Set upstreams.{name}.workers to processes x threads of the app's server",
        Workers::DEFAULT,
    );
}
