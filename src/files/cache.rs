//! What is kept of files that were asked for: of small ones the bytes, of large ones the open file, of all of them their fields.
//!
//! One for each thread, so that nobody waits for anybody. What is kept is looked at again when it is a second old and asked
//! for ([`FRESH`]): until then it is answered with what was there, whole, with its own fields. A file that is kept open is held
//! against its stamp with every answer. What is not there is remembered as well, in a room of its own, so that no flood of names
//! drives out what there is.
//!
//! Room is made as a clock does it: the hand goes round, and what was asked for since it came by last may stay. New entries
//! come without that mark, so that whoever asks once for everything drives out little of what is asked for again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::document::{Document, Stamps};
use super::path::Relative;

/// How old what is kept may be when it is answered with.
const FRESH: Duration = Duration::from_secs(1);
/// While somebody looks, others go on with what was there this long ago at most.
const GRACE: Duration = Duration::from_secs(3);
/// What nobody has asked for in this time goes: it may be a large file that is no longer there, whose place on the disk we hold.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Entries that one sweep looks at.
const SWEPT: usize = 64;
/// Longer paths are not kept.
const LONGEST: usize = 1024;
/// What an entry takes beside its bytes, about.
const OVERHEAD: usize = 2048;

/// How much a thread keeps.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Files.
    pub entries: usize,
    /// Bytes of all of them together.
    pub bytes: usize,
    /// Files that are kept open.
    pub open: usize,
    /// Paths at which there is nothing.
    pub missing: usize,
}

impl Room {
    /// For one of so many threads, which together may keep so many files open.
    #[must_use]
    pub fn of_thread(threads: usize, open: usize) -> Self {
        let threads = threads.max(1);
        Self {
            entries: 8192 / threads + 256,
            bytes: (64 << 20) / threads + (4 << 20),
            open: open / threads,
            missing: 1024,
        }
    }
}

/// What was found at a path.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) found: Found,
    is_immutable: Cell<bool>,
    checked: Cell<Instant>,
    is_checked_now: Cell<bool>,
}

#[derive(Debug)]
pub(super) enum Found {
    File(Box<Document>),
    /// A folder, asked for without its slash.
    Folder,
    /// The page of what is in a folder.
    Listing(Bytes),
    Missing,
    Forbidden,
}

impl Entry {
    pub(super) fn new(found: Found, is_immutable: bool, now: Instant) -> Rc<Self> {
        let (is_immutable, checked) = (Cell::new(is_immutable), Cell::new(now));
        Rc::new(Self { found, is_immutable, checked, is_checked_now: Cell::new(false) })
    }

    /// Whether it may be answered with at `now`.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.checked.get());
        age < if self.is_checked_now.get() { GRACE } else { FRESH }
    }

    /// Whether the file never changes.
    pub(super) fn is_immutable(&self) -> bool {
        self.is_immutable.get()
    }

    /// It was found to be so still.
    pub(super) fn confirm(&self, is_immutable: bool, now: Instant) {
        self.is_immutable.set(is_immutable);
        self.checked.set(now);
    }

    /// What is known of the file, if it is one.
    pub(super) fn stamps(&self) -> Option<Stamps> {
        match &self.found {
            Found::File(document) => Some(document.stamps),
            _ => None,
        }
    }

    /// Somebody looks whether it is so still, until that is dropped.
    pub(super) fn looking(self: &Rc<Self>) -> Looking {
        self.is_checked_now.set(true);
        Looking(Rc::clone(self))
    }
}

/// Held while an entry is looked at.
pub(super) struct Looking(Rc<Entry>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.is_checked_now.set(false);
    }
}

/// What one thread keeps.
#[derive(Debug)]
pub struct Cache(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    files: Clock,
    others: Clock,
    /// Where keys are put together.
    key: Vec<u8>,
}

impl Cache {
    /// An empty one.
    #[must_use]
    pub fn new(room: Room) -> Self {
        let files = Clock::new(Weight { entries: room.entries, bytes: room.bytes, open: room.open });
        let others = Clock::new(Weight { entries: room.missing, bytes: usize::MAX, open: 0 });
        Self(RefCell::new(Inner { files, others, key: Vec::new() }))
    }

    /// What is kept of a path in a folder, however old.
    pub(super) fn get(&self, folder: u64, path: &Relative<'_>) -> Option<Rc<Entry>> {
        let inner = &mut *self.0.borrow_mut();
        let key = write_key(&mut inner.key, folder, path)?;
        inner.files.get(key).or_else(|| inner.others.get(key))
    }

    /// Keeps what was found, or forgets what was there before if that is not to be kept.
    pub(super) fn put(&self, folder: u64, path: &Relative<'_>, entry: &Rc<Entry>) {
        let inner = &mut *self.0.borrow_mut();
        let Some(key) = write_key(&mut inner.key, folder, path) else { return };
        inner.files.remove(key);
        inner.others.remove(key);
        match &entry.found {
            Found::File(document) => {
                let (bytes, open) = document.weight();
                if document.is_settled {
                    inner.files.insert(key, entry, Weight { entries: 1, bytes: bytes + key.len() + OVERHEAD, open });
                }
            }
            Found::Listing(page) => {
                let bytes = page.len() + key.len() + OVERHEAD;
                inner.files.insert(key, entry, Weight { entries: 1, bytes, open: 0 });
            }
            Found::Folder | Found::Missing | Found::Forbidden => {
                inner.others.insert(key, entry, Weight { entries: 1, bytes: 0, open: 0 });
            }
        }
    }

    /// Forgets what is kept of a path.
    pub(super) fn remove(&self, folder: u64, path: &Relative<'_>) {
        let inner = &mut *self.0.borrow_mut();
        if let Some(key) = write_key(&mut inner.key, folder, path) {
            inner.files.remove(key);
            inner.others.remove(key);
        }
    }

    /// Lets go of what nobody asks for. To be called now and then.
    pub fn sweep(&self, now: Instant) {
        let inner = &mut *self.0.borrow_mut();
        inner.files.sweep(now);
        inner.others.sweep(now);
    }
}

/// `None`: it is too long to be kept.
fn write_key<'k>(key: &'k mut Vec<u8>, folder: u64, path: &Relative<'_>) -> Option<&'k [u8]> {
    if path.as_bytes().len() > LONGEST {
        return None;
    }
    key.clear();
    key.extend_from_slice(&folder.to_ne_bytes());
    key.extend_from_slice(path.as_bytes());
    if path.is_folder() {
        key.push(b'/');
    }
    Some(key)
}

/// What something takes, or what there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Weight {
    entries: usize,
    bytes: usize,
    open: usize,
}

impl Weight {
    fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            bytes: self.bytes.saturating_add(other.bytes),
            open: self.open + other.open,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self { entries: self.entries - other.entries, bytes: self.bytes - other.bytes, open: self.open - other.open }
    }

    fn fits(self, room: Self) -> bool {
        self.entries <= room.entries && self.bytes <= room.bytes && self.open <= room.open
    }
}

#[derive(Debug)]
struct Slot {
    key: Rc<[u8]>,
    entry: Rc<Entry>,
    weight: Weight,
    /// Whether it was asked for since the hand came by.
    is_used: Cell<bool>,
}

#[derive(Debug)]
struct Clock {
    places: HashMap<Rc<[u8]>, usize>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    /// Where the next sweep begins.
    swept: usize,
    held: Weight,
    room: Weight,
}

impl Clock {
    fn new(room: Weight) -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            swept: 0,
            held: Weight::default(),
            room,
        }
    }

    fn get(&self, key: &[u8]) -> Option<Rc<Entry>> {
        let slot = self.slots.get(*self.places.get(key)?)?.as_ref()?;
        slot.is_used.set(true);
        Some(Rc::clone(&slot.entry))
    }

    /// Nothing has this key.
    fn insert(&mut self, key: &[u8], entry: &Rc<Entry>, weight: Weight) {
        if !weight.fits(self.room) {
            return;
        }
        while !self.held.plus(weight).fits(self.room) {
            self.evict(self.held.open + weight.open > self.room.open);
        }
        let key: Rc<[u8]> = key.into();
        let slot = Slot { key: Rc::clone(&key), entry: Rc::clone(entry), weight, is_used: Cell::new(false) };
        self.held = self.held.plus(weight);
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place] = Some(slot);
                place
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() - 1
            }
        };
        self.places.insert(key, place);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(place) = self.places.get(key) {
            self.take(*place);
        }
    }

    fn take(&mut self, place: usize) {
        if let Some(slot) = self.slots[place].take() {
            self.places.remove(&slot.key);
            self.held = self.held.minus(slot.weight);
            self.free.push(place);
        }
    }

    /// Takes one out that was not asked for since the hand came by; where open files are too many, one of those. There is
    /// one at least, or there would be room.
    fn evict(&mut self, is_open: bool) {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            let may_go = |slot: &Slot| (!is_open || slot.weight.open > 0) && !slot.is_used.replace(false);
            if self.slots.get(place).and_then(Option::as_ref).is_some_and(may_go) {
                self.take(place);
                return;
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT.min(self.slots.len()) {
            self.swept = (self.swept + 1) % self.slots.len();
            let is_forgotten = |slot: &Slot| now.saturating_duration_since(slot.entry.checked.get()) >= FORGOTTEN;
            if self.slots[self.swept].as_ref().is_some_and(is_forgotten) {
                self.take(self.swept);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(now: Instant) -> Rc<Entry> {
        Entry::new(Found::Missing, false, now)
    }

    fn weight(bytes: usize, open: usize) -> Weight {
        Weight { entries: 1, bytes, open }
    }

    fn clock() -> Clock {
        Clock::new(Weight { entries: 3, bytes: 100, open: 2 })
    }

    #[test]
    fn what_was_asked_for_again_stays_and_what_was_not_goes() {
        let (mut clock, now) = (clock(), Instant::now());
        for key in [b"a", b"b", b"c"] {
            clock.insert(key, &entry(now), weight(1, 0));
        }
        assert!(clock.get(b"a").is_some() && clock.get(b"c").is_some());
        clock.insert(b"d", &entry(now), weight(1, 0));
        assert!(clock.get(b"b").is_none());
        assert!(clock.get(b"a").is_some() && clock.get(b"c").is_some() && clock.get(b"d").is_some());
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_drives_nobody_out() {
        let (mut clock, now) = (clock(), Instant::now());
        clock.insert(b"a", &entry(now), weight(50, 1));
        clock.insert(b"b", &entry(now), weight(101, 0));
        clock.insert(b"c", &entry(now), weight(0, 3));
        assert!(clock.get(b"a").is_some() && clock.get(b"b").is_none() && clock.get(b"c").is_none());
        assert_eq!(clock.held, weight(50, 1));
    }

    #[test]
    fn where_open_files_are_too_many_one_of_those_goes() {
        let (mut clock, now) = (clock(), Instant::now());
        clock.insert(b"a", &entry(now), weight(1, 0));
        clock.insert(b"b", &entry(now), weight(1, 2));
        clock.insert(b"c", &entry(now), weight(1, 1));
        assert!(clock.get(b"a").is_some() && clock.get(b"b").is_none() && clock.get(b"c").is_some());
    }

    #[test]
    fn what_nobody_asks_for_is_let_go_of() {
        let (mut clock, now) = (clock(), Instant::now());
        let (old, young) = (entry(now), entry(now + FORGOTTEN));
        clock.insert(b"a", &old, weight(1, 1));
        clock.insert(b"b", &young, weight(1, 1));
        clock.sweep(now + FORGOTTEN);
        assert!(clock.get(b"a").is_none() && clock.get(b"b").is_some());
        assert_eq!(clock.held, weight(1, 1));
    }

    #[test]
    fn an_entry_is_good_for_a_second_and_a_little_longer_while_somebody_looks() {
        let now = Instant::now();
        let entry = entry(now);
        assert!(entry.is_fresh(now) && entry.is_fresh(now + FRESH / 2) && !entry.is_fresh(now + FRESH));
        let looking = entry.looking();
        assert!(entry.is_fresh(now + FRESH) && !entry.is_fresh(now + GRACE));
        drop(looking);
        assert!(!entry.is_fresh(now + FRESH));
        entry.confirm(true, now + FRESH);
        assert!(entry.is_fresh(now + FRESH) && entry.is_immutable());
    }

    #[test]
    fn a_flood_of_names_finds_its_own_room() {
        let cache = Cache::new(Room { entries: 2, bytes: 1 << 20, open: 1, missing: 10 });
        let now = Instant::now();
        for number in 0..1000 {
            let name = number.to_string();
            cache.put(1, &Relative::parse(name.as_bytes()).unwrap(), &entry(now));
        }
        assert_eq!(cache.0.borrow().others.held.entries, 10);
        assert!(cache.0.borrow().others.slots.len() <= 10);
        let long = "x".repeat(LONGEST + 1);
        let long = Relative::parse(long.as_bytes()).unwrap();
        cache.put(1, &long, &entry(now));
        assert!(cache.get(1, &long).is_none());
        let last = |folder, path: &str| cache.get(folder, &Relative::parse(path.as_bytes()).unwrap()).is_some();
        assert_eq!([last(1, "999"), last(2, "999"), last(1, "999/")], [true, false, false]);
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_is_there(
            steps in prop::collection::vec((0..3_u8, 0..8_u8, 0..60_usize, 0..3_usize), 0..60),
        ) {
            let (mut clock, now) = (clock(), Instant::now());
            for (step, key, bytes, open) in steps {
                let key = [key];
                match step {
                    0 => {
                        clock.remove(&key);
                        clock.insert(&key, &entry(now), weight(bytes, open));
                        prop_assert!(clock.get(&key).is_some(), "it fits, so it is there");
                    }
                    1 => clock.remove(&key),
                    _ => drop(clock.get(&key)),
                }
                let there = clock.slots.iter().flatten();
                let sum = there.clone().fold(Weight::default(), |sum, slot| sum.plus(slot.weight));
                prop_assert_eq!(sum, clock.held);
                prop_assert!(clock.held.fits(clock.room));
                prop_assert_eq!(there.count(), clock.places.len());
                prop_assert_eq!(clock.free.len() + clock.places.len(), clock.slots.len());
            }
        }
    }
}
