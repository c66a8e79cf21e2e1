//! What there is, in memory and on disk: one entry for each key, in shards.
//!
//! An entry has a value in memory, a file on disk, or both. Each level has its own bound, in bytes, over all shards, and its own
//! queues. Whatever is done holds the lock of one shard, for a moment, and does no I/O; what has to be done because of it (a
//! file to be removed, labels that are no longer anybody's) is the caller's.

mod queues;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::queues::{Place, Places, Queues};
use super::catalogue::Labels;
use super::key::Key;
use super::object::{Names, Object};

const SHARDS: usize = 64;
/// What disks give out, in bytes.
pub(super) const BLOCK: u64 = 4096;

/// One of the two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Weights in bytes.
    Memory = 0,
    /// Weights in blocks.
    Disk = 1,
}

/// What is in memory under a key.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Object(Arc<Object>),
    Vary(Arc<Names>),
    /// Until then, in milliseconds of the store's clock.
    Uncacheable(u64),
}

/// What was found.
#[derive(Debug)]
pub(super) enum Hit {
    Memory(Value),
    Disk { id: u64, is_stale: bool },
}

/// What is to be entered.
#[derive(Debug)]
pub(super) struct New {
    pub(super) key: Key,
    pub(super) id: u64,
    pub(super) labels: Option<Labels>,
    pub(super) is_stale: bool,
}

/// An entry that has gone, or has lost one of its parts.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) key: Key,
    pub(super) id: u64,
    /// Where the whole entry has gone.
    pub(super) labels: Option<Labels>,
    pub(super) value: Option<Value>,
    /// There is a file that nobody looks for any more.
    pub(super) has_file: bool,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    id: u64,
    labels: Option<Labels>,
    value: Option<Value>,
    places: [Place; 2],
    has_file: bool,
    is_stale: bool,
}

/// Hashes what is a hash already.
#[derive(Debug, Default, Clone, Copy)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    queues: [Queues; 2],
}

/// The places of one level.
struct OnLevel<'a>(&'a mut [Option<Entry>], Level, &'a RandomState);

impl Places for OnLevel<'_> {
    fn place(&mut self, slot: u32) -> Option<&mut Place> {
        let entry = self.0.get_mut(slot as usize)?.as_mut()?;
        Some(&mut entry.places[self.1 as usize])
    }

    fn print(&self, slot: u32) -> u32 {
        let entry = self.0.get(slot as usize).and_then(Option::as_ref);
        entry.map_or(0, |entry| (self.2.hash_one(entry.key) >> 16) as u32 | 1 << 31)
    }
}

/// What a level holds.
#[derive(Debug, Default)]
pub(super) struct Account {
    limit: AtomicU64,
    used: AtomicU64,
    count: AtomicUsize,
}

impl Account {
    /// What it may hold, in the level's weights.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    /// What it holds, with what is being written.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Entries.
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.used() > self.limit()
    }

    /// Counts what is not an entry yet.
    pub(super) fn add(&self, weight: u64) {
        self.used.fetch_add(weight, Relaxed);
    }

    pub(super) fn subtract(&self, weight: u64) {
        self.used.fetch_sub(weight, Relaxed);
    }
}

/// All entries.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[Mutex<Shard>]>,
    /// Keyed by the system's random source: nobody can make many keys meet in one place.
    hash: RandomState,
    accounts: [Account; 2],
    /// Where room is made next.
    hands: [AtomicUsize; 2],
}

impl Index {
    /// With so many bytes of memory, and of disk.
    pub(super) fn new(memory: u64, disk: u64) -> Self {
        let index = Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hash: RandomState::new(),
            accounts: Default::default(),
            hands: Default::default(),
        };
        index.account(Level::Memory).set_limit(memory);
        index.account(Level::Disk).set_limit(disk / BLOCK);
        index
    }

    pub(super) fn account(&self, level: Level) -> &Account {
        &self.accounts[level as usize]
    }

    /// What stands for a key where it is told from others only within its shard.
    pub(super) fn hash(&self, key: &Key) -> u64 {
        self.hash.hash_one(key)
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The lowest bits are the map's, and the highest.
        self.shards[(hash >> 40) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is under a key; it counts as asked for.
    pub(super) fn get(&self, key: &Key) -> Option<Hit> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        let entry = shard.entry(hash, key)?;
        entry.places.iter_mut().for_each(Place::touch);
        match &entry.value {
            Some(value) => Some(Hit::Memory(value.clone())),
            None => Some(Hit::Disk { id: entry.id, is_stale: entry.is_stale }),
        }
    }

    /// Which object is under a key; whether it has a file.
    pub(super) fn look(&self, key: &Key) -> Option<(u64, bool)> {
        let hash = self.hash(key);
        self.shard(hash).entry(hash, key).map(|entry| (entry.id, entry.has_file))
    }

    /// Enters a value in memory in the place of whatever was there. `Err`: what is there is younger.
    pub(super) fn put(&self, new: New, value: Value, weight: u64) -> Result<Option<Gone>, New> {
        let hash = self.hash(&new.key);
        let mut shard = self.shard(hash);
        let old = match shard.make_way(hash, &new, self) {
            Ok(old) => old,
            Err(Refused) => return Err(new),
        };
        let slot = shard.enter(hash, new);
        shard.set_value(slot, Some((value, weight)), self);
        Ok(old)
    }

    /// Gives an entry a value in memory, if it still is the same. Whether it has it.
    pub(super) fn set_value(&self, key: &Key, id: u64, value: Value, weight: u64) -> bool {
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        let Some(slot) = shard.slot(hash, key, Some(id)) else { return false };
        // It may have been marked since the value was made.
        if let (Value::Object(object), Some(true)) = (&value, shard.at(slot).map(|entry| entry.is_stale)) {
            object.mark_stale();
        }
        shard.set_value(slot, Some((value, weight)), self);
        true
    }

    /// Tells that an object has a file of so many bytes. Whether it is stale; `None`: it is not there, or is another.
    pub(super) fn add_file(&self, key: &Key, id: u64, bytes: u64) -> Option<bool> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        let slot = shard.slot(hash, key, Some(id))?;
        shard.set_file(slot, Some(bytes), self);
        shard.at(slot).map(|entry| entry.is_stale)
    }

    /// Enters an object that is on disk alone in the place of whatever was there. `Err`: what is there is younger.
    pub(super) fn put_file(&self, new: New, bytes: u64) -> Result<Option<Gone>, New> {
        let hash = self.hash(&new.key);
        let mut shard = self.shard(hash);
        let old = match shard.make_way(hash, &new, self) {
            Ok(old) => old,
            Err(Refused) => return Err(new),
        };
        let slot = shard.enter(hash, new);
        shard.set_file(slot, Some(bytes), self);
        Ok(old)
    }

    /// The same for a file that was found: where there is anything under its key, that is younger.
    pub(super) fn put_found(&self, new: New, bytes: u64) -> Result<(), New> {
        let hash = self.hash(&new.key);
        let mut shard = self.shard(hash);
        if shard.slots.contains_key(&hash) {
            return Err(new);
        }
        let slot = shard.enter(hash, new);
        shard.set_file(slot, Some(bytes), self);
        Ok(())
    }

    /// Takes an entry out, if it is one of these.
    pub(super) fn remove(&self, key: &Key, is_one: impl FnOnce(u64) -> bool) -> Option<Gone> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        let slot = shard.slot(hash, key, None)?;
        let is_one = is_one(shard.at(slot)?.id);
        is_one.then(|| shard.take(hash, slot, self)).flatten()
    }

    /// The same by what stands for the key.
    pub(super) fn remove_hashed(&self, hash: u64, is_one: impl FnOnce(u64) -> bool) -> Option<Gone> {
        let mut shard = self.shard(hash);
        let slot = *shard.slots.get(&hash)?;
        let is_one = is_one(shard.at(slot)?.id);
        is_one.then(|| shard.take(hash, slot, self)).flatten()
    }

    /// Marks an entry as stale, if it is one of these. Which it is, and whether it has a file.
    pub(super) fn mark(&self, hash: u64, is_one: impl FnOnce(u64) -> bool) -> Option<(Key, u64, bool)> {
        let mut shard = self.shard(hash);
        let slot = *shard.slots.get(&hash)?;
        let entry = shard.at(slot)?;
        if !is_one(entry.id) || entry.is_stale {
            return None;
        }
        entry.is_stale = true;
        if let Some(Value::Object(object)) = &entry.value {
            object.mark_stale();
        }
        Some((entry.key, entry.id, entry.has_file))
    }

    /// How often a key was asked for, as far as that is counted; it counts for less from now on.
    pub(super) fn cool(&self, hash: u64) -> Option<u8> {
        let mut shard = self.shard(hash);
        let slot = *shard.slots.get(&hash)?;
        let entry = shard.at(slot)?;
        let asked = entry.places.iter().map(|place| place.asked()).max();
        entry.places.iter_mut().for_each(Place::cool);
        asked
    }

    /// Drives somebody out of a level. `None`: nobody is there.
    pub(super) fn evict(&self, level: Level) -> Option<Gone> {
        for _ in 0..SHARDS {
            let number = self.hands[level as usize].fetch_add(1, Relaxed) % SHARDS;
            let mut shard = self.shards[number].lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(gone) = shard.evict(level, self) {
                return Some(gone);
            }
        }
        None
    }

    /// How many shards there are, for whoever goes through all of them.
    pub(super) fn shards(&self) -> usize {
        SHARDS
    }

    /// What stands for some of the keys of a shard: those of `count` slots from `from` on. `None`: there are no more slots.
    pub(super) fn some_of(&self, shard: usize, from: usize, count: usize) -> Option<Vec<u64>> {
        let shard = self.shards.get(shard)?.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = shard.entries.get(from..)?;
        let slots = slots.get(..count).unwrap_or(slots);
        let entries = slots.iter().flatten();
        (!slots.is_empty()).then(|| entries.map(|entry| self.hash(&entry.key)).collect())
    }
}

/// What is there is younger.
struct Refused;

impl Shard {
    fn at(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    fn slot(&mut self, hash: u64, key: &Key, id: Option<u64>) -> Option<u32> {
        let slot = *self.slots.get(&hash)?;
        let entry = self.at(slot)?;
        (entry.key == *key && id.is_none_or(|id| id == entry.id)).then_some(slot)
    }

    fn entry(&mut self, hash: u64, key: &Key) -> Option<&mut Entry> {
        let slot = self.slot(hash, key, None)?;
        self.at(slot)
    }

    /// Takes out what is in the place of a new one, if that is older.
    fn make_way(&mut self, hash: u64, new: &New, index: &Index) -> Result<Option<Gone>, Refused> {
        let Some(slot) = self.slots.get(&hash).copied() else { return Ok(None) };
        if self.at(slot).is_some_and(|entry| entry.id > new.id) {
            return Err(Refused);
        }
        Ok(self.take(hash, slot, index))
    }

    fn enter(&mut self, hash: u64, new: New) -> u32 {
        let New { key, id, labels, is_stale } = new;
        let entry = Entry { key, id, labels, value: None, places: Default::default(), has_file: false, is_stale };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = Some(entry);
                slot
            }
            None => {
                // A quarter more at a time: doubling would leave half of it unused.
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact(self.entries.len() / 4 + 16);
                }
                self.entries.push(Some(entry));
                (self.entries.len() - 1) as u32
            }
        };
        self.slots.insert(hash, slot);
        slot
    }

    fn take(&mut self, hash: u64, slot: u32, index: &Index) -> Option<Gone> {
        for level in [Level::Memory, Level::Disk] {
            self.unqueue(level, slot, index);
        }
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        self.slots.remove(&hash);
        self.free.push(slot);
        let Entry { key, id, labels, value, has_file, .. } = entry;
        Some(Gone { key, id, labels, value, has_file })
    }

    fn set_value(&mut self, slot: u32, value: Option<(Value, u64)>, index: &Index) {
        self.unqueue(Level::Memory, slot, index);
        let (value, weight) = value.unzip();
        if let Some(entry) = self.at(slot) {
            entry.value = value;
        }
        if let Some(weight) = weight {
            self.queue(Level::Memory, slot, weight, index);
        }
    }

    fn set_file(&mut self, slot: u32, bytes: Option<u64>, index: &Index) {
        self.unqueue(Level::Disk, slot, index);
        if let Some(entry) = self.at(slot) {
            entry.has_file = bytes.is_some();
        }
        if let Some(bytes) = bytes {
            self.queue(Level::Disk, slot, bytes.div_ceil(BLOCK), index);
        }
    }

    fn queue(&mut self, level: Level, slot: u32, weight: u64, index: &Index) {
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let places = &mut OnLevel(&mut self.entries, level, &index.hash);
        self.queues[level as usize].enter(slot, weight, places);
        let account = index.account(level);
        account.add(u64::from(weight));
        account.count.fetch_add(1, Relaxed);
    }

    fn unqueue(&mut self, level: Level, slot: u32, index: &Index) {
        let Some(entry) = self.entries.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let place = &mut entry.places[level as usize];
        if place.is_queued() {
            let account = index.account(level);
            account.subtract(u64::from(place.weight()));
            account.count.fetch_sub(1, Relaxed);
            self.queues[level as usize].leave(place);
        }
    }

    fn evict(&mut self, level: Level, index: &Index) -> Option<Gone> {
        let places = &mut OnLevel(&mut self.entries, level, &index.hash);
        let slot = self.queues[level as usize].pick(places)?;
        let entry = self.at(slot)?;
        let has_file = entry.has_file;
        let stays = match level {
            Level::Memory => has_file,
            // What only knows where its file is goes with that.
            Level::Disk => {
                matches!(&entry.value, Some(Value::Object(object)) if !object.is_on_disk())
                    || matches!(&entry.value, Some(Value::Vary(_) | Value::Uncacheable(_)))
            }
        };
        let (key, id) = (entry.key, entry.id);
        if !stays {
            return self.take(index.hash(&key), slot, index);
        }
        match level {
            Level::Memory => {
                let value = entry.value.take();
                self.set_value(slot, None, index);
                Some(Gone { key, id, labels: None, value, has_file: false })
            }
            Level::Disk => {
                self.set_file(slot, None, index);
                Some(Gone { key, id, labels: None, value: None, has_file })
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
