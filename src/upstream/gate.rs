//! Exactly as many exchanges in flight as there are workers; the rest wait, first come first served.
//!
//! A [`Permit`] belongs to the exchange with the worker, not to the client's future: it comes back when the worker is
//! free, whether or not the client is still there.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{WaitingRoom, Workers};
use crate::error::{Error, Reason};
use crate::observe::metrics::UpstreamMetrics;
use crate::runtime::Deadline;

/// The slots of one upstream, shared by all threads.
pub struct Gate {
    name: Box<str>,
    slots: Semaphore,
    /// How many slots exist, and how many of those given out are not to come back, because the number was lowered.
    size: Mutex<Size>,
    excess: AtomicU32,
    waiting: AtomicUsize,
    limit: AtomicUsize,
    timeout_ms: AtomicU64,
    /// Whether to say, once, that somebody waits for a number of workers that was never written down.
    hint: AtomicBool,
    metrics: Arc<UpstreamMetrics>,
}

#[derive(Debug, Default)]
struct Size {
    slots: u32,
}

/// More slots than any upstream can use: what `unlimited` means.
const UNLIMITED: u32 = 1 << 20;

/// One worker's slot. Dropping it frees the slot.
pub struct Permit {
    gate: Arc<Gate>,
    /// When it was got.
    since: Instant,
    /// How long that took.
    waited: Duration,
}

impl Gate {
    /// A gate without slots; [`Self::configure`] gives it some.
    #[must_use]
    pub fn new(name: &str, metrics: Arc<UpstreamMetrics>) -> Self {
        Self {
            name: name.into(),
            slots: Semaphore::new(0),
            size: Mutex::default(),
            excess: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            timeout_ms: AtomicU64::new(0),
            hint: AtomicBool::new(false),
            metrics,
        }
    }

    /// Sets the number of slots and the waiting room's bounds. Exchanges in flight keep the slots they have.
    pub fn configure(&self, workers: Workers, room: &WaitingRoom) {
        let wanted = workers.slots().unwrap_or(UNLIMITED);
        self.limit.store(room.limit, Ordering::Relaxed);
        self.timeout_ms.store(u64::try_from(room.timeout.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.hint.store(workers == Workers::Unset, Ordering::Relaxed);
        self.metrics.set_workers(workers.slots());
        let mut size = self.size.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if wanted > size.slots {
            self.grow(wanted - size.slots);
        } else {
            self.shrink(size.slots - wanted);
        }
        size.slots = wanted;
    }

    fn grow(&self, by: u32) {
        // Slots that were to disappear when they come back stay instead.
        let mut left = by;
        let _ = self.excess.fetch_update(Ordering::AcqRel, Ordering::Acquire, |excess| {
            left = by.saturating_sub(excess);
            Some(excess.saturating_sub(by))
        });
        self.slots.add_permits(left as usize);
    }

    fn shrink(&self, by: u32) {
        let free = self.slots.forget_permits(by as usize);
        self.excess.fetch_add(by - u32::try_from(free).unwrap_or(by), Ordering::AcqRel);
    }

    /// Waits for a slot.
    ///
    /// # Errors
    /// [`Reason::QueueFull`] at once, [`Reason::QueueTimeout`] after the waiting room's timeout.
    pub async fn enter(self: &Arc<Self>) -> Result<Permit, Error> {
        let arrived = Instant::now();
        let mut since = arrived;
        match self.slots.try_acquire() {
            Ok(slot) => slot.forget(),
            Err(_) => {
                self.wait().await?;
                since = Instant::now();
            }
        }
        let waited = since - arrived;
        self.metrics.waiting_seconds.observe(waited.as_secs_f64());
        self.metrics.in_flight.inc();
        Ok(Permit { gate: Arc::clone(self), since, waited })
    }

    async fn wait(&self) -> Result<(), Error> {
        let place = Place::take(self)?;
        if self.hint.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                upstream = %self.name,
                "requests wait for a worker, and `workers` is not set: {} are assumed. Set upstreams.{}.workers to processes x threads of the app's server",
                Workers::DEFAULT,
                self.name,
            );
        }
        let timeout = Duration::from_millis(self.timeout_ms.load(Ordering::Relaxed));
        let slot = Deadline::new().bound(timeout, self.slots.acquire()).await;
        drop(place);
        match slot {
            Ok(Ok(slot)) => {
                slot.forget();
                Ok(())
            }
            Ok(Err(_)) => Err(Error::new(Reason::ShuttingDown)),
            Err(_) => Err(Error::new(Reason::QueueTimeout)
                .detail(format!("waited {timeout:?} for a worker of upstream {}", self.name))),
        }
    }
}

impl Permit {
    /// When the slot was got.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// How long it was waited for.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

/// One place in the waiting room, given back when the client leaves, too.
struct Place<'a>(&'a Gate);

impl<'a> Place<'a> {
    fn take(gate: &'a Gate) -> Result<Self, Error> {
        let limit = gate.limit.load(Ordering::Relaxed);
        let taken = gate.waiting.fetch_add(1, Ordering::AcqRel);
        gate.metrics.waiting.inc();
        let place = Self(gate);
        if taken < limit {
            return Ok(place);
        }
        Err(Error::new(Reason::QueueFull).detail(format!("{limit} requests already wait for upstream {}", gate.name)))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.waiting.dec();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let gate = &self.gate;
        gate.metrics.in_flight.dec();
        gate.metrics.worker_seconds.observe(self.since.elapsed().as_secs_f64());
        let gone = gate.excess.fetch_update(Ordering::AcqRel, Ordering::Acquire, |excess| excess.checked_sub(1));
        if gone.is_err() {
            gate.slots.add_permits(1);
        }
    }
}
