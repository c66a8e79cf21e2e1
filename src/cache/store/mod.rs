//! Where responses are kept: in memory and on disk, behind one interface.
//!
//! One for the process, shared by its threads. What is done to it on the way of a request holds one lock of many for a moment;
//! everything that waits for a disk is done by threads of its own ([`disk`](self)). A response is written by a [`Writer`] while
//! it passes to its client, may be followed meanwhile ([`Feed`]), and is there for others when it is whole, or never.
//!
//! - memory: bounded in bytes, with what each object takes beside its own. Who asks once for everything drives out little of
//!   what is asked for again (S3-FIFO).
//! - disk: a file for each object, bounded in bytes, in the same manner. Small objects are written behind, large ones as they
//!   come. What is asked for on disk goes up to memory: small ones at once, larger ones when they are asked for again.
//! - purges strike what is there, what is being written, and files that have not been found yet. They are as old as the moment
//!   at which they came, and responses as old as the moment at which the app was asked ([`Store::moment`]).
//!
//! What the bytes of a response mean, when it is fresh, and what its key is, is not known here.

mod admit;
mod blocks;
mod catalogue;
mod counters;
mod disk;
mod feed;
mod freshen;
mod index;
mod limits;
mod load;
mod object;
mod purge;
mod record;
mod resize;
mod rules;
mod stale;
mod stream;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

use self::blocks::Blocks;
use self::catalogue::Catalogue;
use self::counters::Counters;
pub use self::counters::Numbers;
use self::disk::{Disk, Medium, System};
pub use self::disk::{OpenError, body_of_file};
pub use self::feed::{Feed, Follower};
pub use self::freshen::Update;
use self::index::{BLOCK, Hit, Index, Level, Value};
use self::limits::Limits;
pub use self::load::OnDisk;
pub use self::object::{Names, Object};
pub use self::purge::{Invalidating, NotDurable};
pub use self::record::{LARGEST as LARGEST_HEAD, MOST_TAGS};
use self::rules::{FEW, MANY, Rules};
pub use self::rules::{Manner, Purge};
pub use self::writer::{Finish, Meta, NotStored, Outcome, Writer};
use super::clock::Clock;
use super::key::Key;

/// How much the store may keep, and where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of memory. What is known of files that are not in memory comes beside it, some hundred bytes for each; of a file
    /// for every 256 bytes of memory at most, or of a million if that is more.
    pub memory: u64,
    /// Bytes of the largest body that is stored.
    pub max_object: u64,
    /// How many variants of one primary key are kept.
    pub variants: usize,
    /// Files that are kept open.
    pub open_files: usize,
    /// Where else responses are kept.
    pub disk: Option<DiskSettings>,
}

/// A folder for responses.
#[derive(Debug, Clone)]
pub struct DiskSettings {
    /// The folder, which is made if it is not there.
    pub path: PathBuf,
    /// Bytes that its files may take.
    pub size: u64,
    /// Threads that look for what is there after a start.
    pub walkers: usize,
}

/// A moment in the store's own order of events: later ones are larger, whatever clocks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// What is stored under a key.
#[derive(Debug)]
pub enum Found {
    /// A response.
    Object(Arc<Object>),
    /// Responses are stored under keys of their own, by these fields of the request.
    Vary(Arc<Names>),
    /// The last response was not to be stored, and this is to be remembered so much longer.
    Uncacheable(Duration),
    /// Something that has to be read first.
    OnDisk(OnDisk),
}

/// The store.
#[derive(Debug)]
pub struct Store {
    me: Weak<Self>,
    index: Index,
    catalogue: Catalogue,
    rules: RwLock<Rules>,
    /// The last moment.
    clock: AtomicU64,
    counters: Counters,
    limits: Limits,
    /// Bytes in memory of what is being written.
    writing: AtomicU64,
    /// Heads and bodies in memory, and with clients.
    blocks: Arc<Blocks>,
    variants: usize,
    open_files: usize,
    open_now: AtomicUsize,
    disk: Option<Disk>,
    opening: load::Opening,
    begun: Instant,
    steady: Clock,
}

impl Store {
    /// Makes a store, and begins to find what is in its folder.
    ///
    /// # Errors
    /// The folder cannot be made, written to or locked, or another process has it.
    pub fn open(settings: &Settings) -> Result<Arc<Self>, OpenError> {
        Self::open_on(settings, Arc::new(System))
    }

    fn open_on(settings: &Settings, medium: Arc<dyn Medium>) -> Result<Arc<Self>, OpenError> {
        let store = Self::open_unwalked(settings, medium)?;
        if let Some(on) = &settings.disk {
            let failed = |error| OpenError::new(&on.path, "no threads can be started to look through it", error);
            store.start_walk(on.walkers.max(1)).map_err(failed)?;
        }
        Ok(store)
    }

    fn open_unwalked(settings: &Settings, medium: Arc<dyn Medium>) -> Result<Arc<Self>, OpenError> {
        let (mut rules, mut clock, mut disk, steady) = (Rules::new(FEW), 1, None, Clock::new());
        if let Some(on) = &settings.disk {
            let (opened, now, mut purges) = Disk::open(&on.path, medium, limits::waiting(settings.memory))?;
            // Later than those of this run's beginning, if there are any.
            clock = now + 1;
            rules = Rules::new(MANY);
            purges.iter_mut().for_each(|rule| rule.fate = rule.fate.told(steady.steady()));
            purges.iter().for_each(|rule| rules.push(rule));
            disk = Some(opened);
        }
        Ok(Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            index: Index::new(settings.memory, settings.disk.as_ref().map_or(0, |disk| disk.size)),
            catalogue: Catalogue::default(),
            rules: RwLock::new(rules),
            clock: AtomicU64::new(clock),
            counters: Counters::default(),
            limits: Limits::of(settings.memory, settings.disk.as_ref().map(|disk| disk.size), settings.max_object),
            writing: AtomicU64::new(0),
            blocks: Arc::default(),
            variants: settings.variants.max(1),
            open_files: settings.open_files,
            open_now: AtomicUsize::new(0),
            disk,
            opening: load::Opening::default(),
            begun: Instant::now(),
            steady,
        }))
    }

    /// What there is under a key. Takes one lock for a moment, and allocates nothing for what is in memory.
    #[must_use]
    pub fn get(self: &Arc<Self>, key: &Key) -> Option<Found> {
        match self.index.get(key) {
            Some(Hit::Memory(Value::Object(object))) => {
                self.asked_for(key, &object);
                Some(Found::Object(object))
            }
            Some(Hit::Memory(Value::Vary(names))) => Some(Found::Vary(names)),
            Some(Hit::Memory(Value::Uncacheable(until))) => {
                let left = until.saturating_sub(self.milliseconds());
                (left > 0).then(|| Found::Uncacheable(Duration::from_millis(left)))
            }
            Some(Hit::Disk { id, stale_from }) => Some(Found::OnDisk(self.on_disk(*key, Some((id, stale_from))))),
            // It may be there, under its name.
            None if self.disk.as_ref().is_some_and(|disk| !disk.is_indexed()) => {
                Some(Found::OnDisk(self.on_disk(*key, None)))
            }
            None => None,
        }
    }

    /// Bytes of the largest body that is stored.
    #[must_use]
    pub fn largest(&self) -> u64 {
        if self.has_disk() { self.limits.object() } else { self.limits.memory() }
    }

    /// The present moment: to be taken before the app is asked, and told with its response ([`Meta::since`]). A purge that
    /// comes meanwhile strikes the response.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.now())
    }

    /// The clock by which it remembers when it was told to purge softly ([`Object::purged_at`]): that of the cache.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.steady
    }

    /// The store in numbers.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let (memory, disk) = (self.index.account(Level::Memory), self.index.account(Level::Disk));
        let mut numbers = Numbers {
            memory_bytes: memory.used(),
            held_bytes: self.blocks.bytes(),
            memory_objects: memory.count() as u64,
            disk_bytes: disk.used() * BLOCK,
            disk_objects: disk.count() as u64,
            is_indexed: self.disk.as_ref().is_none_or(Disk::is_indexed),
            ..Numbers::default()
        };
        self.counters.fill(&mut numbers);
        numbers
    }

    /// Waits until all that is to be written is on disk, so long at most. Whether it is. Blocks.
    pub fn settle(&self, patience: Duration) -> bool {
        self.disk.as_ref().is_none_or(|disk| disk.threads.wait_until_idle(patience))
    }

    fn now(&self) -> u64 {
        self.clock.load(Relaxed)
    }

    /// The next moment, which is nobody else's.
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed) + 1
    }

    /// Of the store's own clock, which nobody sets.
    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules_mut(&self) -> RwLockWriteGuard<'_, Rules> {
        self.rules.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    fn medium(&self) -> Arc<dyn Medium> {
        self.disk.as_ref().map_or_else(|| Arc::new(System) as _, |disk| Arc::clone(&disk.medium))
    }

    /// Has a thread of the disk do this; without one, it is done here.
    fn surely(&self, job: impl FnOnce() + Send + 'static) {
        match &self.disk {
            Some(disk) => disk.threads.surely(job),
            None => job(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
