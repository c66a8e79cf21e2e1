//! The waiting room: as many exchanges in flight as there are workers, whatever the number of threads; the rest wait.
//!
//! ```text
//! enter ── a slot is free, nobody waits ──────────────► Permit      one compare-and-swap
//!   └───── else ─► Queue (priority, turns by client) ─► Permit      handed over by whoever leaves
//! ```
//! A [`Permit`] belongs to the exchange with the worker, not to the client's future: it comes back when the worker is
//! free, whether or not the client is still there. It names the endpoint, so that the upstream's number of workers and
//! an endpoint's own hold together.
//!
//! While no endpoint answers (an *outage*), everybody waits, for `hold` from the moment it began; after that requests
//! fail at once until a probe succeeds. [`super::watch`] sees to both.

mod marks;
mod outage;
mod pace;
mod permit;
mod probe;
mod queue;
mod wait;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub(super) use permit::{Permit, StreamPermit};
pub(super) use probe::ProbePermit;

use self::outage::Outage;
use self::pace::Pace;
use self::queue::Queue;
use super::balance::{Balance, Wish};
use super::demand::{Demand, Needed, Sample};
use super::endpoint::Endpoint;
use crate::config::{self, Workers};
use crate::error::{Error, Reason};
use crate::observe::metrics::UpstreamMetrics;

/// More slots than any upstream can use: what `unlimited` means.
const UNLIMITED: u32 = 1 << 30;
/// Set in [`Room::state`] while newcomers and leavers have to take the lock: somebody waits, the room is paused, or no
/// endpoint answers.
const GUARDED: u64 = 1 << 63;
/// How many times `waiting_room.limit` may wait while the app restarts, and until those have been served: a deploy
/// shorter than `hold` is to lose nothing.
const OUTAGE_FACTOR: usize = 10;

/// The slots of one upstream and the requests that wait for them, shared by all threads.
pub struct Room {
    pub(super) name: Arc<str>,
    /// Slots in use in the low half, and [`GUARDED`].
    state: AtomicU64,
    slots: AtomicU32,
    streams: AtomicU32,
    streams_max: AtomicU32,
    inner: Mutex<Inner>,
    /// Told when an outage begins.
    pub(super) alarm: Notify,
    metrics: Arc<UpstreamMetrics>,
}

/// What the configuration in force says of it.
pub(super) struct Rules {
    pub(super) balance: Arc<Balance>,
    pub(super) limit: usize,
    pub(super) timeout: Duration,
    pub(super) hold: Duration,
    pub(super) connect_timeout: Duration,
}

struct Inner {
    queue: Queue<Waiter>,
    pace: Pace,
    rules: Arc<Rules>,
    is_paused: bool,
    outage: Option<Outage>,
    /// How long all outages before the present one lasted together.
    was_out: Duration,
    /// Whether to say, once, that somebody waits for a number of workers that was never written down.
    hint: bool,
    is_watched: bool,
    /// Whether more wait than usually may, because of an outage that is over.
    is_recovering: bool,
    /// Whether the process is ending: nobody is let in or through any more.
    is_closed: bool,
    demand: Demand,
}

/// Who asks for a slot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seek {
    /// Higher goes first.
    pub(super) priority: i32,
    /// Clients take turns by this.
    pub(super) client: u64,
    pub(super) wish: Wish,
}

/// One request that waits.
struct Waiter {
    seek: Seek,
    arrived: Arrived,
    sender: oneshot::Sender<Result<Permit, Error>>,
}

/// When a request came to the room.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    at: Instant,
    /// All the time until then during which the upstream was out, which counts towards nobody's timeout. `None`: it has
    /// not waited yet.
    was_out: Option<Duration>,
}

/// A room as an operator reads it.
#[derive(Debug, Clone, Copy)]
pub struct RoomStatus {
    /// Exchanges in flight.
    pub in_flight: u32,
    /// Slots; `None`: unlimited.
    pub workers: Option<u32>,
    /// Requests that wait.
    pub waiting: usize,
    /// Workers pinned by streams.
    pub streams: u32,
    /// Whether the operator has paused it.
    pub is_paused: bool,
    /// For how long no endpoint has taken exchanges, and why.
    pub outage: Option<(Duration, Reason)>,
    /// Whether that is longer than `hold`: requests fail at once.
    pub is_failing: bool,
    /// What the last minute would need; `None`: nothing was served.
    pub needed: Option<Needed>,
}

impl Room {
    /// A room without slots; [`Self::configure`] gives it some.
    pub(super) fn new(name: &str, metrics: Arc<UpstreamMetrics>) -> Self {
        let nothing = Rules {
            balance: Arc::new(Balance::new(Vec::new(), &config::Balance::LeastBusy, Duration::ZERO)),
            limit: 0,
            timeout: Duration::ZERO,
            hold: Duration::ZERO,
            connect_timeout: Duration::ZERO,
        };
        Self {
            name: name.into(),
            state: AtomicU64::new(0),
            slots: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            streams_max: AtomicU32::new(0),
            inner: Mutex::new(Inner {
                queue: Queue::default(),
                pace: Pace::default(),
                rules: Arc::new(nothing),
                is_paused: false,
                outage: None,
                was_out: Duration::ZERO,
                hint: false,
                is_watched: false,
                is_recovering: false,
                is_closed: false,
                demand: Demand::default(),
            }),
            alarm: Notify::new(),
            metrics,
        }
    }

    /// Puts new rules in force. Exchanges in flight keep the slots they have, and those who wait their places.
    pub(super) fn configure(self: &Arc<Self>, workers: Workers, streams_max: u32, rules: Rules) {
        self.slots.store(workers.slots().unwrap_or(UNLIMITED), Ordering::Release);
        self.streams_max.store(streams_max, Ordering::Relaxed);
        self.metrics.set_workers(workers.slots());
        {
            let mut inner = self.lock();
            inner.rules = Arc::new(rules);
            inner.hint = workers == Workers::Unset;
        }
        self.changed(None);
    }

    /// Waits for a slot of the upstream and of one of its endpoints.
    ///
    /// # Errors
    /// [`Reason::QueueFull`] at once, [`Reason::QueueTimeout`] after the waiting room's timeout, and what keeps every
    /// endpoint from answering once that has lasted longer than `hold`.
    pub(super) async fn enter(self: &Arc<Self>, balance: &Balance, seek: Seek) -> Result<Permit, Error> {
        self.enter_at(Instant::now(), balance, seek).await
    }

    /// The same for who comes at this moment, which has hardly passed.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(super) async fn enter_at(
        self: &Arc<Self>,
        now: Instant,
        balance: &Balance,
        seek: Seek,
    ) -> Result<Permit, Error> {
        match self.try_enter(balance, seek.wish) {
            Some(endpoint) => {
                self.metrics.waiting_seconds.observe(0.0);
                Ok(Permit::new(self, endpoint, seek, Arrived { at: now, was_out: None }, now))
            }
            None => wait::wait(self, seek).await,
        }
    }

    /// A slot, if one is free and nobody waits for it.
    pub(super) fn try_enter(self: &Arc<Self>, balance: &Balance, wish: Wish) -> Option<Arc<Endpoint>> {
        let slots = self.slots.load(Ordering::Acquire);
        let take = |state: u64| (state & GUARDED == 0 && in_use(state) < slots).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        let endpoint = balance.acquire(wish);
        if endpoint.is_none() {
            self.give_back(false);
        }
        endpoint
    }

    /// Why a request that comes now would be refused, before its body has been received. `None`: it would not.
    pub(super) fn refusal(&self, seek: Seek) -> Option<Error> {
        if self.state.load(Ordering::Acquire) & GUARDED == 0 && !self.is_full() {
            return None;
        }
        self.lock().refusal(&self.name, self.is_full(), seek)
    }

    fn is_full(&self) -> bool {
        in_use(self.state.load(Ordering::Acquire)) >= self.slots.load(Ordering::Acquire)
    }

    /// Whether as many workers are pinned by streams as may be.
    pub(super) fn is_streams_full(&self) -> bool {
        self.streams.load(Ordering::Relaxed) >= self.streams_max.load(Ordering::Relaxed)
    }

    /// Something has changed that decides who may go: an endpoint's state, the rules, the operator's hand. `reason` is
    /// what an endpoint has just failed with.
    pub(super) fn changed(self: &Arc<Self>, reason: Option<Reason>) {
        let (change, watch) = {
            let mut inner = self.lock();
            let change = inner.update_outage(reason);
            self.set_guard(&inner);
            (change, inner.needs_watch() && !std::mem::replace(&mut inner.is_watched, true))
        };
        if let Some(change) = change {
            self.tell(change);
        }
        if watch {
            super::watch::spawn(self);
        }
        self.grant();
    }

    /// Lets nobody through, or goes on. Whether that changed anything.
    pub(super) fn pause(self: &Arc<Self>, paused: bool) -> bool {
        let changed = {
            let mut inner = self.lock();
            // What is done in between says nothing of how fast the workers are.
            inner.pace.interrupt();
            std::mem::replace(&mut inner.is_paused, paused) != paused
        };
        self.changed(None);
        changed
    }

    /// The state as it is now.
    #[must_use]
    pub fn status(&self) -> RoomStatus {
        let inner = self.lock();
        let slots = self.slots.load(Ordering::Acquire);
        let now = Instant::now();
        RoomStatus {
            in_flight: in_use(self.state.load(Ordering::Acquire)),
            workers: (slots < UNLIMITED).then_some(slots),
            waiting: inner.queue.len(),
            streams: self.streams.load(Ordering::Relaxed),
            is_paused: inner.is_paused,
            outage: inner.outage.map(|outage| (now.saturating_duration_since(outage.since), outage.reason)),
            is_failing: inner.is_failing(now),
            needed: inner.demand.needed(),
        }
    }

    /// Takes note of the counters, unless that has been done within `age`.
    pub(super) fn sample(&self, age: Duration) {
        if self.lock().demand.newest().is_some_and(|newest| newest.elapsed() < age) {
            return;
        }
        let metrics = &self.metrics;
        let refused = metrics.failures_of(Reason::QueueFull) + metrics.failures_of(Reason::QueueTimeout);
        let sample = Sample {
            at: Instant::now(),
            asked: metrics.waiting_seconds.get_sample_count() + refused,
            served: metrics.worker_seconds.get_sample_count(),
            busy_seconds: metrics.worker_seconds.get_sample_sum(),
        };
        self.lock().demand.add(sample);
    }

    /// The same for an endpoint's slot that has come free, if anybody waits.
    pub(super) fn grant_if_guarded(self: &Arc<Self>) {
        if self.state.load(Ordering::Acquire) & GUARDED != 0 {
            self.grant();
        }
    }

    /// Hands free slots to those who wait.
    fn grant(self: &Arc<Self>) {
        // Outside the lock: waking another thread is a system call.
        while let Some((sender, permit)) = self.next() {
            // Its client may have left just now: then the slot goes to the next.
            drop(sender.send(Ok(permit)));
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Result<Permit, Error>>, Permit)> {
        let mut inner = self.lock();
        let seek = inner.queue.peek()?.seek;
        if inner.is_paused || inner.is_closed || self.is_full() {
            return None;
        }
        let endpoint = inner.rules.balance.acquire(seek.wish)?;
        let waiter = inner.queue.pop()?;
        self.state.fetch_add(1, Ordering::AcqRel);
        self.metrics.waiting.dec();
        self.rest(&mut inner);
        drop(inner);
        Some((waiter.sender, Permit::new(self, endpoint, waiter.seek, waiter.arrived, Instant::now())))
    }

    /// A slot comes back. `is_done`: a worker has finished with an exchange.
    fn give_back(self: &Arc<Self>, is_done: bool) {
        let give = |state: u64| (state & GUARDED == 0).then(|| state - 1);
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, give).is_ok() {
            return;
        }
        {
            let mut inner = self.lock();
            self.state.fetch_sub(1, Ordering::AcqRel);
            if is_done && inner.queue.len() > 0 {
                inner.pace.completed(Instant::now());
            }
        }
        self.grant();
    }

    /// Ends all waiting, because the process is ending: everybody is told.
    pub(super) fn close(&self) {
        let told = {
            let mut inner = self.lock();
            inner.is_closed = true;
            let told: Vec<_> = std::iter::from_fn(|| inner.queue.pop()).collect();
            self.set_guard(&inner);
            told
        };
        for waiter in told {
            self.metrics.waiting.dec();
            // Its client may have left.
            drop(waiter.sender.send(Err(Error::new(Reason::ShuttingDown))));
        }
    }

    /// After somebody has left the queue.
    fn rest(&self, inner: &mut Inner) {
        // Well below the limit: newcomers are not to meet it again at once.
        inner.is_recovering &= inner.outage.is_some() || inner.queue.len() >= inner.rules.limit / 2;
        if inner.queue.len() == 0 {
            inner.pace.rest();
            self.set_guard(inner);
        }
    }

    fn set_guard(&self, inner: &Inner) {
        let has_reason = inner.is_paused || inner.is_closed || inner.outage.is_some();
        if has_reason || inner.queue.len() > 0 {
            self.state.fetch_or(GUARDED, Ordering::AcqRel);
        } else {
            self.state.fetch_and(!GUARDED, Ordering::AcqRel);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn limit(&self) -> usize {
        self.rules.limit.saturating_mul(if self.is_recovering { OUTAGE_FACTOR } else { 1 })
    }

    /// Makes room for a newcomer that has been told it may wait: who gives way, and what it is told.
    fn make_room(&mut self, name: &str, seek: Seek) -> Option<(oneshot::Sender<Result<Permit, Error>>, Error)> {
        if self.queue.len() < self.limit() {
            return None;
        }
        let retry_after = self.pace.retry_after(self.queue.len(), Instant::now());
        let waiter = self.queue.take_yielding(seek.priority, seek.client)?;
        let detail = format!(
            "the waiting room of upstream {name} is full, and this client has the most there: it gave way to another"
        );
        Some((waiter.sender, Error::new(Reason::QueueFull).detail(detail).retry_after(retry_after)))
    }

    /// Why a request that comes now is refused. `is_full`: whether it would have to wait.
    fn refusal(&self, name: &str, is_full: bool, seek: Seek) -> Option<Error> {
        let now = Instant::now();
        if self.is_closed {
            return Some(Error::new(Reason::ShuttingDown));
        }
        if self.is_failing(now) {
            return self.outage_error(name, now);
        }
        if !is_full && self.outage.is_none() && self.queue.len() == 0 {
            return None;
        }
        let (limit, timeout, waiting) = (self.limit(), self.rules.timeout, self.queue.len());
        let full = |detail: String, turns| {
            Some(Error::new(Reason::QueueFull).detail(detail).retry_after(self.pace.retry_after(turns, now)))
        };
        if waiting >= limit && !self.queue.has_yielding(seek.priority, seek.client) {
            return full(format!("{waiting} requests already wait for upstream {name} (waiting_room.limit)"), waiting);
        }
        // Of those that wait only some may be served before it: the exact number is asked for only when it matters.
        let is_longer = |turns: usize| self.pace.estimate(turns, now).filter(|estimate| *estimate > timeout);
        if self.outage.is_some() || self.is_paused || is_longer(waiting).is_none() {
            return None;
        }
        let ahead = self.queue.ahead(seek.priority, seek.client);
        let estimate = is_longer(ahead)?;
        full(
            format!(
                "{ahead} requests go first at upstream {name}, which takes about {} s, longer than waiting_room.timeout",
                estimate.as_secs()
            ),
            ahead,
        )
    }
}

fn in_use(state: u64) -> u32 {
    // The lower half.
    (state & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests;
