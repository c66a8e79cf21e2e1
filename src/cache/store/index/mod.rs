//! What there is, in memory and on disk: one entry for each key, in shards.
//!
//! An entry has a value in memory, a file on disk, or both. Each level has its own bound, in bytes, over all shards, and its own
//! queues. Whatever is done holds the lock of one shard, for a moment, and does no I/O; what has to be done because of it (a
//! file to be removed, labels that are no longer anybody's) is the caller's.

mod queues;
mod shard;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::queues::{MOST, Place};
use self::shard::{Refused, Shard};
use super::Key;
use super::catalogue::Labels;
use super::object::{Names, Object};
use super::stale::StaleFrom;

const SHARDS: usize = 64;
/// What disks give out, in bytes.
pub(super) const BLOCK: u64 = 4096;

/// How many files may be known where there are so many bytes of memory: each has an entry, of some hundred bytes, which is
/// there whether anybody asks for it or not, and would have no bound but the disk's.
fn most_files(memory: u64) -> usize {
    const LEAST: usize = 1 << 20;
    usize::try_from(memory / 256).unwrap_or(usize::MAX).max(LEAST)
}

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
    Disk { id: u64, stale_from: StaleFrom },
}

/// What is to be entered.
#[derive(Debug)]
pub(super) struct New {
    pub(super) key: Key,
    pub(super) id: u64,
    /// When the app was asked.
    pub(super) since: u64,
    pub(super) labels: Option<Labels>,
    pub(super) stale_from: StaleFrom,
    /// It is entered in the place of this one, or not at all.
    pub(super) instead_of: Option<u64>,
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

/// What a level holds.
#[derive(Debug, Default)]
pub(super) struct Account {
    limit: AtomicU64,
    used: AtomicU64,
    /// How many entries it may hold.
    most: AtomicUsize,
    count: AtomicUsize,
}

impl Account {
    /// What it may hold, in the level's weights.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// So much, in so many entries at most.
    pub(super) fn set_limit(&self, limit: u64, most: usize) {
        self.limit.store(limit, Relaxed);
        self.most.store(most, Relaxed);
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
        self.used() > self.limit() || self.count() > self.most.load(Relaxed)
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
        index.resize(memory, disk);
        index
    }

    /// Changes the bounds.
    pub(super) fn resize(&self, memory: u64, disk: u64) {
        self.account(Level::Memory).set_limit(memory, usize::MAX);
        self.account(Level::Disk).set_limit(disk / BLOCK, most_files(memory));
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
            None => Some(Hit::Disk { id: entry.id, stale_from: entry.stale_from }),
        }
    }

    /// Which object is under a key; whether it has a file.
    pub(super) fn look(&self, key: &Key) -> Option<(u64, bool)> {
        let hash = self.hash(key);
        self.shard(hash).entry(hash, key).map(|entry| (entry.id, entry.has_file))
    }

    /// Whether the file of a key is another's that is younger.
    pub(super) fn is_younger(&self, key: &Key, since: u64) -> bool {
        let hash = self.hash(key);
        self.shard(hash).entry(hash, key).is_some_and(|entry| entry.since > since)
    }

    /// Whether what is under a key says by which fields of the request responses differ.
    pub(super) fn is_rule(&self, key: &Key) -> bool {
        let hash = self.hash(key);
        self.shard(hash).entry(hash, key).is_some_and(|entry| match &entry.value {
            Some(value) => matches!(value, Value::Vary(_)),
            // What has no labels is no object, and of those only rules are on disk.
            None => entry.labels.is_none(),
        })
    }

    /// Since when an object is stale. `None`: it is not there, or is another.
    pub(super) fn stale_from(&self, key: &Key, id: u64) -> Option<StaleFrom> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        let slot = shard.slot(hash, key, Some(id))?;
        shard.at(slot).map(|entry| entry.stale_from)
    }

    /// Enters a value in memory in the place of whatever was there. `Err`: what is there is younger, or is another.
    pub(super) fn put(&self, mut new: New, value: Value, weight: u64) -> Result<Option<Gone>, New> {
        let hash = self.hash(&new.key);
        let mut shard = self.shard(hash);
        let is_marker = matches!(value, Value::Uncacheable(_));
        // What was entered after the app was asked may have been asked for at the same moment, or is a marker already.
        if is_marker && shard.entry(hash, &new.key).is_some_and(|entry| entry.id > new.since) {
            return Err(new);
        }
        let old = match shard.make_way(hash, &new, self) {
            Ok(old) => old,
            Err(Refused) => return Err(new),
        };
        if is_marker {
            // Whatever proves worth to be stored after all takes its place, whenever it was asked for.
            new.since = 0;
        }
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
        if let (Value::Object(object), Some(entry)) = (&value, shard.at(slot)) {
            object.mark_stale(entry.stale_from);
        }
        let old = shard.set_value(slot, Some((value, weight)), self);
        drop((shard, old));
        true
    }

    /// Tells that an object has a file of so many bytes. Since when it is stale; `None`: it is not there, or is another.
    pub(super) fn add_file(&self, key: &Key, id: u64, bytes: u64) -> Option<StaleFrom> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        let slot = shard.slot(hash, key, Some(id))?;
        shard.set_file(slot, Some(bytes), self);
        shard.at(slot).map(|entry| entry.stale_from)
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

    /// Marks an object as stale from then on, if it is one of these, and is not yet: of two purges that come at the same time, the later
    /// may be the first to come by. Which it is, and whether it has a file.
    pub(super) fn mark(
        &self,
        hash: u64,
        from: StaleFrom,
        is_one: impl FnOnce(u64) -> bool,
    ) -> Option<(Key, u64, bool)> {
        let mut shard = self.shard(hash);
        let slot = *shard.slots.get(&hash)?;
        let entry = shard.at(slot)?;
        // What has no labels is no object.
        if !is_one(entry.id) || entry.stale_from <= from || entry.labels.is_none() {
            return None;
        }
        entry.stale_from = from;
        if let Some(Value::Object(object)) = &entry.value {
            object.mark_stale(from);
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
        // What was asked for in one shard may be worth more than what was not in another: as often as that is counted.
        let rounds = usize::from(MOST) + 2;
        for turn in 0..SHARDS * rounds {
            let number = self.hands[level as usize].fetch_add(1, Relaxed) % SHARDS;
            let mut shard = self.shards[number].lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(gone) = shard.evict(level, self, turn >= SHARDS * (rounds - 1)) {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
