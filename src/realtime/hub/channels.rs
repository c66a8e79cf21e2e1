//! The hub's part that is one for the process: sequence, and the inboxes of the threads that serve.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::sequence::{Names, Outcome, Sequencer};
use super::{Item, limits};
use crate::observe::metrics::RealtimeMetrics;

/// The way of an item to all who share their channels.
///
/// In one process that is the hub itself. With several edges it is whatever carries items to all of them; each hands what
/// arrives to its own hub, by [`Channels::arrive`] and [`Channels::arrive_recover`], and its own items as well: they come back.
pub trait Fanout: Send + Sync {
    /// Takes items for everybody, in their order.
    ///
    /// # Errors
    /// [`Behind`]: nothing of it was taken.
    fn publish(&self, items: Vec<Item>) -> Result<Report, Behind>;

    /// Everybody is to forget where channels are, and to ask the apps.
    fn recover(&self);
}

/// The threads have not delivered what was published before: there is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind;

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of items wait to be delivered already", limits::UNDELIVERED)
    }
}

/// What became of items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// They went out, and perhaps others that had waited for them.
    pub released: usize,
    /// They wait for the item before them.
    pub parked: usize,
    /// They had been here before.
    pub duplicates: usize,
}

/// The channels of the process. Cheap to clone.
#[derive(Clone)]
pub struct Channels {
    hub: Arc<Hub>,
    fanout: Arc<dyn Fanout>,
}

/// What goes into an inbox.
pub(super) enum Post {
    /// An item.
    Item(Arc<Posted>),
    /// Whoever is held has to ask its app.
    Recover,
}

/// An item on its way to the threads.
pub(super) struct Posted {
    pub(super) item: Arc<Item>,
    size: usize,
    undelivered: Arc<AtomicUsize>,
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.undelivered.fetch_sub(self.size, Ordering::Relaxed);
    }
}

struct Hub {
    state: Mutex<State>,
    names: Names,
    undelivered: Arc<AtomicUsize>,
    metrics: RealtimeMetrics,
}

#[derive(Default)]
struct State {
    sequencer: Sequencer,
    inboxes: Vec<UnboundedSender<Post>>,
}

impl Channels {
    /// Of a process that shares its channels with nobody.
    #[must_use]
    pub fn new(metrics: RealtimeMetrics) -> Self {
        let hub =
            Arc::new(Hub { state: Mutex::default(), names: Names::default(), undelivered: Arc::default(), metrics });
        let fanout = Arc::clone(&hub);
        Self { hub, fanout }
    }

    /// The same, whose items go out by another way.
    #[must_use]
    pub fn with_fanout(mut self, fanout: Arc<dyn Fanout>) -> Self {
        self.fanout = fanout;
        self
    }

    /// Publishes items, in their order.
    ///
    /// # Errors
    /// [`Behind`]: nothing was published.
    pub fn publish(&self, items: Vec<Item>) -> Result<Report, Behind> {
        self.fanout.publish(items)
    }

    /// Forgets where channels are, and has everybody who is held ask its app.
    pub fn recover(&self) {
        self.fanout.recover();
    }

    /// Items that have come by the fan-out.
    ///
    /// # Errors
    /// [`Behind`]: nothing was taken.
    pub fn arrive(&self, items: Vec<Item>) -> Result<Report, Behind> {
        self.hub.publish(items)
    }

    /// Another edge wants everybody to ask the apps ([`Fanout::recover`]): those who are held here do.
    pub fn arrive_recover(&self) {
        self.hub.recover();
    }

    /// Lets go what has waited long enough. To be called every second or so, by one thread.
    pub fn sweep(&self) {
        let mut state = self.hub.lock();
        let mut out = Vec::new();
        state.sequencer.sweep(Instant::now(), &mut out);
        self.hub.post(&mut state, out);
    }

    /// Counters and gauges.
    #[must_use]
    pub fn metrics(&self) -> &RealtimeMetrics {
        &self.hub.metrics
    }

    /// An inbox for a thread.
    pub(super) fn attach(&self) -> UnboundedReceiver<Post> {
        let (sender, receiver) = unbounded_channel();
        self.hub.lock().inboxes.push(sender);
        receiver
    }

    /// The last ids of these channels, where they are known. `take` empties an inbox: nothing comes into it meanwhile, so
    /// that what was in it leads exactly up to them.
    pub(super) fn last_ids<'a>(
        &self,
        channels: impl Iterator<Item = &'a str>,
        take: impl FnOnce(),
    ) -> Vec<Option<Box<str>>> {
        let state = self.hub.lock();
        take();
        channels.map(|channel| state.sequencer.last(channel).map(Box::from)).collect()
    }

    /// The last id of a channel is not what clients can follow.
    pub(super) fn forget(&self, channel: &str) {
        self.hub.lock().sequencer.forget(channel);
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").finish_non_exhaustive()
    }
}

impl Hub {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To every thread, once.
    fn post(&self, state: &mut State, items: Vec<Arc<Item>>) {
        for item in items {
            let size = item.size();
            self.undelivered.fetch_add(size, Ordering::Relaxed);
            let posted = Arc::new(Posted { item, size, undelivered: Arc::clone(&self.undelivered) });
            // A thread that has ended takes nothing any more.
            state.inboxes.retain(|inbox| inbox.send(Post::Item(Arc::clone(&posted))).is_ok());
        }
    }
}

impl Fanout for Hub {
    fn publish(&self, items: Vec<Item>) -> Result<Report, Behind> {
        if self.undelivered.load(Ordering::Relaxed) > limits::UNDELIVERED {
            return Err(Behind);
        }
        let now = Instant::now();
        let mut report = Report::default();
        let items: Vec<_> = items.into_iter().map(|item| (self.names.of(&item), Arc::new(item))).collect();
        let mut state = self.lock();
        let mut out = Vec::new();
        for (name, item) in items {
            match state.sequencer.offer(item, name, now, &mut out) {
                Outcome::Released => report.released += 1,
                Outcome::Parked => report.parked += 1,
                Outcome::Duplicate => report.duplicates += 1,
            }
        }
        self.post(&mut state, out);
        drop(state);
        self.metrics.published(report.released, report.parked, report.duplicates);
        Ok(report)
    }

    fn recover(&self) {
        let mut state = self.lock();
        let mut out = Vec::new();
        state.sequencer.forget_all(&mut out);
        self.post(&mut state, out);
        state.inboxes.retain(|inbox| inbox.send(Post::Recover).is_ok());
    }
}
