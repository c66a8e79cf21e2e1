//! How objects come into the index, and what has to be done about those that have to go.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Key;
use super::catalogue::{Labels, Named};
use super::counters::count;
use super::disk::layout::Prelude;
use super::disk::{NotWritten, Strike};
use super::index::{Gone, Hit, Level, New, Value};
use super::object::{Content, Names, Object};
use super::record::{Kind, Record};
use super::rules::Fate;
use super::stale::StaleFrom;
use super::writer::NotStored;
use super::{Moment, Store};

/// What a rule or a marker takes in memory beside its record, in bytes.
pub(super) const PER_MARKER: u64 = 320;
/// How many are driven out of memory at once, at most: more than what comes at once needs.
const MOST_AT_ONCE: usize = 1024;
/// How often a large object on disk has to be asked for to go up to memory.
const OFTEN: u32 = 3;

impl Store {
    /// Enters the labels of an object that is about to be entered.
    pub(super) fn label(&self, key: &Key, id: u64, record: &Record, primary: Option<&Key>) -> Labels {
        let named = Named { hash: self.index.hash(key), id };
        self.catalogue.enter(named, record.host(), record.path(), record.tags(), primary)
    }

    /// An object has gone, or has never come.
    pub(super) fn unlabel(&self, key: &Key, id: u64, labels: Option<Labels>) {
        if let Some(labels) = labels {
            self.catalogue.leave(Named { hash: self.index.hash(key), id }, labels);
        }
    }

    /// Somebody has been driven out, or has lost a part.
    pub(super) fn forget(&self, gone: Gone) {
        self.unlabel(&gone.key, gone.id, gone.labels);
    }

    /// Somebody was taken out, and may not come back. Whether it was an object, and the key of a file that has to go.
    pub(super) fn expel(&self, gone: Gone) -> (bool, Option<Key>) {
        if let Some(Value::Object(object)) = &gone.value {
            object.mark_gone();
        }
        let outcome = (gone.labels.is_some(), gone.has_file.then_some(gone.key));
        self.forget(gone);
        outcome
    }

    /// Makes room in memory, if it is over its bound. Where very many have to go, that is not one's own doing: somebody else
    /// sees to the rest.
    pub(super) fn make_memory(&self) {
        self.evict_memory(MOST_AT_ONCE);
    }

    /// Drives so many out of memory at most, as long as it is over its bound. Whether it still is.
    pub(super) fn evict_memory(&self, most: usize) -> bool {
        let account = self.index.account(Level::Memory);
        for _ in 0..most {
            if !account.is_over() {
                return false;
            }
            let Some(gone) = self.index.evict(Level::Memory) else { return false };
            count(&self.counters.evicted_memory);
            self.forget(gone);
        }
        account.is_over()
    }

    /// Whether clients who take their time have so much of what was driven out that nothing more is kept in memory for them.
    pub(super) fn is_crowded(&self) -> bool {
        let limit = self.index.account(Level::Memory).limit();
        self.blocks.bytes() > limit.saturating_add(limit / 2)
    }

    /// Counts so many bytes of something that is being written, if there is room for it: half of the memory at most is for
    /// such.
    pub(super) fn take_memory(&self, bytes: u64) -> bool {
        let account = self.index.account(Level::Memory);
        let writing = self.writing.fetch_add(bytes, Relaxed) + bytes;
        if writing > account.limit() / 2 {
            self.writing.fetch_sub(bytes, Relaxed);
            return false;
        }
        account.add(bytes);
        self.make_memory();
        true
    }

    pub(super) fn give_memory(&self, bytes: u64) {
        self.writing.fetch_sub(bytes, Relaxed);
        self.index.account(Level::Memory).subtract(bytes);
    }

    /// Whether a purge that has come since then strikes this.
    pub(super) fn is_struck(&self, since: u64, record: &Record) -> bool {
        self.rules().verdict(since, record.host(), record.path(), record.tags()) == Fate::Gone
    }

    /// Whether a purge that has come since then has taken this out, or would have.
    #[must_use]
    pub fn is_purged_since(&self, since: super::Moment, object: &Object) -> bool {
        self.is_struck(since.0, object.record())
    }

    /// Enters an object in memory, in the place of whatever is there that is older, or of this one alone: from now on it is found,
    /// and told from others by its id. Then has it written to disk.
    pub(super) fn admit(
        self: &Arc<Self>,
        key: &Key,
        primary: Option<Key>,
        since: u64,
        record: Record,
        content: Content,
        instead_of: Option<u64>,
    ) -> Result<Arc<Object>, NotStored> {
        let strike = self.begin_strike();
        // Held until it is entered: a purge comes before, and is heard of, or after, and finds it.
        let rules = self.rules();
        let fate = rules.verdict(since, record.host(), record.path(), record.tags());
        let Some(stale_from) = fate.stays() else {
            count(&self.counters.purged);
            return Err(NotStored::Purged);
        };
        let id = self.tick();
        let labels = Some(self.label(key, id, &record, primary.as_ref()));
        let object = Arc::new(Object::new(id, since, record, content));
        object.mark_stale(stale_from);
        let new = New { key: *key, id, since, labels, stale_from, instead_of };
        let entered = self.index.put(new, Value::Object(Arc::clone(&object)), object.weight());
        drop(rules);
        let had_file = self.replaced(entered).ok_or(NotStored::Overtaken)?;
        self.make_memory();
        self.bound_variants(primary.as_ref(), id);
        self.write_behind(*key, primary, Arc::clone(&object), strike, had_file);
        Ok(object)
    }

    /// Sees to what was there before. Whether that had a file, which is to be overwritten, or removed by whoever cannot do that;
    /// `None`: nothing was entered, because something younger is there.
    fn replaced(&self, entered: Result<Option<Gone>, New>) -> Option<bool> {
        match entered {
            Ok(None) => Some(false),
            Ok(Some(gone)) => Some(self.expel(gone).1.is_some()),
            Err(new) => {
                self.unlabel(&new.key, new.id, new.labels);
                None
            }
        }
    }

    /// Whether there may be a file of a key of which the index knows nothing.
    fn may_have_file(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| !disk.is_indexed())
    }

    /// Tells that an object that is, or was, in memory has a file now. The id under which it is found, and since when it is stale;
    /// `None`: it was struck, or something younger is there.
    pub(super) fn enter_file(&self, prelude: &Prelude, record: &Record, object: &Object) -> Option<(u64, StaleFrom)> {
        let rules = self.rules();
        if let Some(stale_from) = self.index.add_file(&prelude.key, object.id(), prelude.file()) {
            return Some((object.id(), stale_from));
        }
        // It has left memory, so that no purge has found it.
        let fate = rules.verdict(prelude.since, record.host(), record.path(), record.tags());
        let purged = fate.stays().filter(|_| !object.is_gone())?;
        let stale_from = purged.min(object.stale_from());
        // Another id: whoever has driven it out of memory may be about to take the labels of the one that it had.
        let id = self.tick();
        let labels =
            (record.kind() == Kind::Object).then(|| self.label(&prelude.key, id, record, prelude.primary.as_ref()));
        let new = New { key: prelude.key, id, since: prelude.since, labels, stale_from, instead_of: None };
        let entered = self.index.put_file(new, prelude.file());
        drop(rules);
        self.replaced(entered).map(|_| (id, stale_from))
    }

    /// Enters an object whose body was written to disk as it came, in the place of whatever is there that is older, or of this
    /// one alone.
    pub(super) fn enter_streamed(
        self: &Arc<Self>,
        prelude: &Prelude,
        record: Record,
        instead_of: Option<u64>,
        open: impl FnOnce(u64) -> Content,
    ) -> Result<Arc<Object>, NotWritten> {
        let rules = self.rules();
        let fate = rules.verdict(prelude.since, record.host(), record.path(), record.tags());
        let purged = fate.stays().ok_or(NotWritten::Overtaken)?;
        let id = self.tick();
        let labels = Some(self.label(&prelude.key, id, &record, prelude.primary.as_ref()));
        let stale_from = purged.min(prelude.stale_from);
        let new = New { key: prelude.key, id, since: prelude.since, labels, stale_from, instead_of };
        let entered = self.index.put_file(new, prelude.file());
        drop(rules);
        self.replaced(entered).ok_or(NotWritten::Overtaken)?;
        let object = Arc::new(Object::new(id, prelude.since, record, open(id)));
        object.mark_stale(stale_from);
        self.keep_open(&prelude.key, &object);
        self.bound_variants(prelude.primary.as_ref(), id);
        Ok(object)
    }

    /// A file of an object was opened.
    pub(super) fn note_opened(&self) {
        self.open_now.fetch_add(1, Relaxed);
    }

    /// It was closed.
    pub(super) fn note_closed(&self) {
        self.open_now.fetch_sub(1, Relaxed);
    }

    /// Keeps an object in memory that has been read from disk, or knows where it is there.
    pub(super) fn keep_open(&self, key: &Key, object: &Arc<Object>) {
        let is_kept = !object.is_on_disk() || self.open_now.load(Relaxed) <= self.open_files;
        if is_kept {
            self.index.set_value(key, object.id(), Value::Object(Arc::clone(object)), object.weight());
            self.make_memory();
        }
    }

    /// A primary key has more variants than it may have: those go that were asked for least, and are young. Each time all of
    /// them count for less, so that what is asked for stays, and what was asked for does not.
    fn bound_variants(&self, primary: Option<&Key>, newest: u64) {
        let Some(primary) = primary else { return };
        let all = self.catalogue.variants(primary, self.variants);
        let too_many = all.len().saturating_sub(self.variants);
        let others = all.into_iter().filter(|named| named.id != newest);
        let mut asked: Vec<_> = others.filter_map(|named| Some((self.index.cool(named.hash)?, named))).collect();
        asked.sort_unstable_by_key(|(asked, named)| (*asked, std::cmp::Reverse(named.id)));
        for (_, named) in asked.into_iter().take(too_many) {
            self.remove_named(named);
        }
    }

    /// Takes out one object, if it is there still.
    fn remove_named(&self, named: Named) {
        let _strike = self.begin_strike();
        let Some(gone) = self.index.remove_hashed(named.hash, |id| id == named.id) else { return };
        if let (_, Some(key)) = self.expel(gone) {
            self.remove_later(key, true);
        }
    }

    /// Has a file removed, if it is nobody's by then. `is_known`: there is one.
    pub(super) fn remove_later(&self, key: Key, is_known: bool) {
        if let Some(disk) = &self.disk {
            self.owe_removal(disk, std::iter::once(key), is_known);
        }
    }

    /// Writes down by which fields of the request the responses of a primary key differ, with what the policy wants to know of
    /// it. Whether that could be kept.
    pub fn put_vary<'n>(
        self: &Arc<Self>,
        primary: &Key,
        names: impl Iterator<Item = &'n http::HeaderName>,
        facts: &[u8],
    ) -> bool {
        static NOTHING: http::HeaderValue = http::HeaderValue::from_static("");
        let parts = super::record::Parts { kind: Kind::Vary, status: 200, facts, host: b"", path: b"", tags: &[] };
        let Some(bytes) = super::record::write(&parts, names.map(|name| (name, &NOTHING))) else { return false };
        if let Some(Hit::Memory(Value::Vary(names))) = self.index.get(primary)
            && names.0.as_bytes() == bytes
        {
            // As nearly always, where one variant is stored after the other.
            return true;
        }
        let length = bytes.len();
        let Some(record) = Record::read(self.blocks.of(bytes), length) else { return false };
        let strike = self.begin_strike();
        let rules = self.rules();
        let (id, since) = (self.tick(), self.now());
        let names = Value::Vary(Arc::new(Names(record.clone())));
        let new = New { key: *primary, id, since, labels: None, stale_from: StaleFrom::NEVER, instead_of: None };
        let entered = self.index.put(new, names, PER_MARKER + length as u64);
        drop(rules);
        let Some(had_file) = self.replaced(entered) else { return false };
        self.make_memory();
        let object = Arc::new(Object::new(id, since, record, Content::Behind));
        self.write_behind(*primary, None, object, strike, had_file);
        true
    }

    /// Remembers for a while that the response to a key was not to be stored, so that nobody waits for another's. `since`: when
    /// the app was asked for it. In memory alone. Whether that is remembered: it is not, where something younger is stored, or
    /// a rule.
    pub fn put_uncacheable(&self, key: &Key, until: std::time::Duration, since: Moment) -> bool {
        let until = self.milliseconds().saturating_add(u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
        let _strike = self.begin_strike();
        // A rule that is put later is younger.
        if self.index.is_rule(key) {
            return false;
        }
        let new = New {
            key: *key,
            id: self.tick(),
            since: since.0,
            labels: None,
            stale_from: StaleFrom::NEVER,
            instead_of: None,
        };
        let entered = self.index.put(new, Value::Uncacheable(until), PER_MARKER);
        let Some(had_file) = self.replaced(entered) else { return false };
        if had_file || self.may_have_file() {
            self.remove_later(*key, had_file);
        }
        self.make_memory();
        true
    }

    /// Has an object that is in memory written to disk, if there is one, and it is not behind with its work. `strike` is held
    /// until that is done, if what was there before had a file: nobody else would find it.
    fn write_behind(
        &self,
        key: Key,
        primary: Option<Key>,
        object: Arc<Object>,
        strike: Option<Strike>,
        had_file: bool,
    ) {
        let Some((disk, store)) = self.disk.as_ref().zip(self.me.upgrade()) else { return };
        let bytes = object.weight();
        let may_have_file = had_file || self.may_have_file();
        let strike = strike.filter(|_| may_have_file).map(Arc::new);
        let held = strike.clone();
        let job = move || {
            if let Some(disk) = &store.disk {
                store.write_object(disk, key, primary, &object);
            }
            drop(held);
        };
        if disk.threads.write(bytes, job).is_err() {
            count(&self.counters.writes_skipped);
            if may_have_file {
                // What lies there is older.
                self.remove_later(key, had_file);
            }
        }
        drop(strike);
    }

    /// A large object that is asked for often goes up to memory, if it fits there.
    pub(super) fn asked_for(self: &Arc<Self>, key: &Key, object: &Arc<Object>) {
        let Content::File(file) = object.content() else { return };
        let is_often = file.asked.fetch_add(1, Relaxed) + 1 >= OFTEN;
        let fits = file.length() <= self.limits.memory() && !self.is_crowded();
        if !is_often || !fits || file.is_going_up.swap(true, Relaxed) {
            return;
        }
        let again = file;
        let (store, object, key, file) = (Arc::clone(self), Arc::clone(object), *key, Arc::clone(file));
        let Some(disk) = &self.disk else { return };
        let asked = disk.threads.write(file.length(), move || {
            let pieces: io::Result<Vec<_>> =
                (0..file.sums.len() as u64).map(|number| file.read(&store, number)).collect();
            match pieces {
                Ok(pieces) => {
                    let content = Content::Pieces(pieces.into(), file.length());
                    let up = Object::new(object.id(), object.since(), object.record().clone(), content);
                    up.mark_stale(object.stale_from());
                    store.keep_open(&key, &Arc::new(up));
                }
                Err(error) => store.found_bad(&key, object.id(), &error),
            }
        });
        if asked.is_err() {
            // The disk is busy: another time.
            again.is_going_up.store(false, Relaxed);
        }
    }

    /// A file could not be read: one that is not as it was written is dropped.
    pub(super) fn found_bad(&self, key: &Key, id: u64, error: &io::Error) {
        if !super::disk::is_bad(error) {
            count(&self.counters.read_failures);
            return;
        }
        count(&self.counters.corrupted);
        let _strike = self.begin_strike();
        if let Some(gone) = self.index.remove(key, |there| there == id) {
            self.expel(gone);
            self.remove_later(*key, true);
        }
    }
}
