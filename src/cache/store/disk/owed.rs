//! What has to be done to the folder, however long it takes: files to be removed or marked, purges to be written down.
//!
//! Kept as what it is rather than as jobs, so that a disk that hangs costs no more than there are files: what is owed twice is
//! done once. One thread at a time does it, a part at a time, and purges first: their answers wait for that, and those that have
//! come together are synced together.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::super::Key;
use super::super::Store;
use super::super::rules::{Fate, Purge, Rule};
use super::Disk;

/// Files that are seen to at once.
const AT_ONCE: usize = 64;
/// Names that may have a file, though nobody knows: beyond so many they are left alone.
const MOST_UNKNOWN: usize = 65_536;
/// Purges that may wait to be written down: more become one of everything.
const MOST_NOTES: usize = 8192;
/// Bytes of the names in those.
const MOST_NOTE_BYTES: usize = 8 << 20;

/// Who waits until a purge is written down.
type Told = oneshot::Sender<io::Result<()>>;

/// What is owed.
#[derive(Debug, Default)]
pub(in super::super) struct Owed {
    inner: Mutex<Inner>,
    /// Something could not be done, and may be found by whoever takes the folder next: the purges have to be there then.
    is_undone: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    removals: BTreeSet<Key>,
    /// The object of each key.
    marks: BTreeMap<Key, u64>,
    notes: Vec<Rule>,
    /// Of the names in those.
    note_bytes: usize,
    is_synced: bool,
    told: Vec<Told>,
    /// A thread has been asked to do it.
    is_asked: bool,
    is_at_work: bool,
}

/// Some of it.
struct Part {
    notes: Vec<Rule>,
    is_synced: bool,
    told: Vec<Told>,
    removals: Vec<Key>,
    marks: Vec<(Key, u64)>,
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.removals.is_empty() && self.marks.is_empty() && self.notes.is_empty()
    }

    fn take(&mut self) -> Part {
        self.note_bytes = 0;
        Part {
            notes: std::mem::take(&mut self.notes),
            is_synced: std::mem::take(&mut self.is_synced),
            told: std::mem::take(&mut self.told),
            removals: std::iter::from_fn(|| self.removals.pop_first()).take(AT_ONCE).collect(),
            marks: std::iter::from_fn(|| self.marks.pop_first()).take(AT_ONCE).collect(),
        }
    }
}

impl Owed {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of it has been done.
    pub(super) fn is_done(&self) -> bool {
        let inner = self.lock();
        inner.is_empty() && !inner.is_at_work && !self.is_undone()
    }

    /// Something could not be done.
    pub(super) fn note_undone(&self) {
        self.is_undone.store(true, SeqCst);
    }

    pub(super) fn is_undone(&self) -> bool {
        self.is_undone.load(SeqCst)
    }

    /// How many files to be removed, and to be marked; how many purges, and the bytes of their names.
    #[cfg(test)]
    pub(in super::super) fn count(&self) -> [usize; 4] {
        let inner = self.lock();
        let names = inner.notes.iter().map(|rule| rule.what.bytes()).sum();
        [inner.removals.len(), inner.marks.len(), inner.notes.len(), names]
    }
}

impl Store {
    /// Has files removed, if they are nobody's by then. `is_known`: there are files of these names.
    pub(in super::super) fn owe_removal(&self, disk: &Disk, keys: impl Iterator<Item = Key>, is_known: bool) {
        let mut inner = disk.owed.lock();
        for key in keys {
            if !is_known && inner.removals.len() >= MOST_UNKNOWN {
                disk.owed.note_undone();
            } else {
                inner.removals.insert(key);
            }
        }
        self.ask(disk, inner);
    }

    /// Has files of objects marked as stale.
    pub(in super::super) fn owe_marks(&self, disk: &Disk, all: impl Iterator<Item = (Key, u64)>) {
        let mut inner = disk.owed.lock();
        inner.marks.extend(all);
        self.ask(disk, inner);
    }

    /// Has a purge written down; `told` is told when it is synced.
    pub(in super::super) fn owe_note(&self, disk: &Disk, rule: Rule, told: Option<Told>) {
        let mut inner = disk.owed.lock();
        inner.note_bytes += rule.what.bytes();
        if inner.notes.len() >= MOST_NOTES || inner.note_bytes > MOST_NOTE_BYTES {
            inner.notes = vec![Rule { at: rule.at, what: Purge::All, fate: Fate::Gone }];
            inner.note_bytes = 0;
            inner.told.retain(|told| !told.is_closed());
        } else {
            inner.notes.push(rule);
        }
        inner.is_synced |= told.is_some();
        inner.told.extend(told);
        self.ask(disk, inner);
    }

    /// Has somebody look whether the journal can be emptied.
    pub(super) fn owe_a_look(&self, disk: &Disk) {
        self.ask(disk, disk.owed.lock());
    }

    fn ask(&self, disk: &Disk, mut inner: MutexGuard<'_, Inner>) {
        if std::mem::replace(&mut inner.is_asked, true) {
            return;
        }
        drop(inner);
        let Some(store) = self.me.upgrade() else { return };
        disk.threads.surely(move || {
            if let Some(disk) = &store.disk {
                store.pay(disk);
            }
        });
    }

    /// Does some of what is owed. Blocks.
    fn pay(&self, disk: &Disk) {
        let part = {
            let mut inner = disk.owed.lock();
            inner.is_at_work = true;
            inner.take()
        };
        let paying = Paying { store: self, disk };
        let noted = if part.notes.is_empty() { Ok(()) } else { disk.journal.append(&part.notes, part.is_synced) };
        if let Err(error) = &noted {
            self.complain("a purge cannot be noted down", error);
        }
        for told in part.told {
            // Nobody may wait for it. An error of the system can be told to several.
            let again = |error: &io::Error| match error.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => error.kind().into(),
            };
            let _ = told.send(noted.as_ref().copied().map_err(again));
        }
        for key in &part.removals {
            self.remove_file(disk, key);
        }
        for (key, id) in &part.marks {
            self.mark_file(disk, key, *id);
        }
        drop(paying);
        self.settle_journal(disk, false);
    }
}

/// Held while a part is done.
struct Paying<'a> {
    store: &'a Store,
    disk: &'a Disk,
}

impl Drop for Paying<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.disk.owed.note_undone();
        }
        let mut inner = self.disk.owed.lock();
        (inner.is_at_work, inner.is_asked) = (false, false);
        if !inner.is_empty() {
            self.store.ask(self.disk, inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_seen_to_a_part_at_a_time_and_what_is_owed_twice_is_done_once() {
        let mut inner = Inner::default();
        for number in (0..1000_u16).chain(0..1000) {
            let mut key = [0; Key::LENGTH];
            key[..2].copy_from_slice(&number.to_le_bytes());
            inner.removals.insert(Key::from_bytes(key));
            inner.marks.insert(Key::from_bytes(key), 1);
        }
        let mut done = [0; 2];
        while !inner.is_empty() {
            let part = inner.take();
            assert!(part.removals.len() <= AT_ONCE && part.marks.len() <= AT_ONCE, "purges wait for this");
            done = [done[0] + part.removals.len(), done[1] + part.marks.len()];
        }
        assert_eq!(done, [1000; 2]);
    }
}
