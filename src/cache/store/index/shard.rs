//! The entries of one shard, and where they are queued.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::atomic::Ordering::Relaxed;

use super::queues::{Place, Places, Queues};
use super::{BLOCK, Gone, Index, Key, Labels, Level, New, StaleFrom, Value};

/// What there is under a key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) id: u64,
    pub(super) since: u64,
    pub(super) labels: Option<Labels>,
    pub(super) value: Option<Value>,
    pub(super) places: [Place; 2],
    pub(super) has_file: bool,
    /// Since when it is stale.
    pub(super) stale_from: StaleFrom,
}

/// Hashes what is a hash already.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Identity(u64);

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

/// Some of the entries.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) slots: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    pub(super) entries: Vec<Option<Entry>>,
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

/// What is there is younger, or is another.
pub(super) struct Refused;

impl Shard {
    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn slot(&mut self, hash: u64, key: &Key, id: Option<u64>) -> Option<u32> {
        let slot = *self.slots.get(&hash)?;
        let entry = self.at(slot)?;
        (entry.key == *key && id.is_none_or(|id| id == entry.id)).then_some(slot)
    }

    pub(super) fn entry(&mut self, hash: u64, key: &Key) -> Option<&mut Entry> {
        let slot = self.slot(hash, key, None)?;
        self.at(slot)
    }

    /// Takes out what is in the place of a new one, if that is older, and the one that has to be there.
    pub(super) fn make_way(&mut self, hash: u64, new: &New, index: &Index) -> Result<Option<Gone>, Refused> {
        let slot = self.slots.get(&hash).copied();
        let there = slot.and_then(|slot| self.at(slot)).map(|entry| (entry.id, entry.since));
        let is_younger = there.is_some_and(|(id, since)| id > new.id || since > new.since);
        let is_another = new.instead_of.is_some_and(|id| there.is_none_or(|(there, _)| there != id));
        if is_younger || is_another {
            return Err(Refused);
        }
        Ok(slot.and_then(|slot| self.take(hash, slot, index)))
    }

    pub(super) fn enter(&mut self, hash: u64, new: New) -> u32 {
        let New { key, id, since, labels, stale_from, .. } = new;
        let places = Default::default();
        let entry = Entry { key, id, since, labels, value: None, places, has_file: false, stale_from };
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

    pub(super) fn take(&mut self, hash: u64, slot: u32, index: &Index) -> Option<Gone> {
        for level in [Level::Memory, Level::Disk] {
            self.unqueue(level, slot, index);
        }
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        self.slots.remove(&hash);
        self.free.push(slot);
        let Entry { key, id, labels, value, has_file, .. } = entry;
        Some(Gone { key, id, labels, value, has_file })
    }

    /// Gives an entry this value, or none. The one that it had, which is better dropped without the lock.
    pub(super) fn set_value(&mut self, slot: u32, value: Option<(Value, u64)>, index: &Index) -> Option<Value> {
        self.unqueue(Level::Memory, slot, index);
        let (value, weight) = value.unzip();
        let old = self.at(slot).and_then(|entry| std::mem::replace(&mut entry.value, value));
        if let Some(weight) = weight {
            self.queue(Level::Memory, slot, weight, index);
        }
        old
    }

    pub(super) fn set_file(&mut self, slot: u32, bytes: Option<u64>, index: &Index) {
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

    pub(super) fn evict(&mut self, level: Level, index: &Index, has_to: bool) -> Option<Gone> {
        let places = &mut OnLevel(&mut self.entries, level, &index.hash);
        let slot = self.queues[level as usize].pick(places, has_to)?;
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
                let value = self.set_value(slot, None, index);
                Some(Gone { key, id, labels: None, value, has_file: false })
            }
            Level::Disk => {
                self.set_file(slot, None, index);
                Some(Gone { key, id, labels: None, value: None, has_file })
            }
        }
    }
}
