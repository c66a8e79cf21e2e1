//! What the store's threads do to files: write, publish, remove, mark, load. All of it blocks.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use super::super::Key;
use super::super::Store;
use super::super::counters::count;
use super::super::index::{Account, BLOCK, Level};
use super::super::object::{Content, Object};
use super::super::record::Record;
use super::layout::{self, MARK_AT, PRELUDE, Prelude};
use super::{Disk, OnFile, Unfinished, is_full, parse};
use crate::observe::throttle::Throttle;

/// How many are driven out at once when the disk itself is full.
const WHEN_FULL: usize = 16;
/// Beyond the room that somebody needs for himself, he drives out so many at once.
const MORE: u64 = 64;

/// A file that was read: what stands before the body, and the response.
pub(in super::super) struct Loaded {
    pub(in super::super) prelude: Prelude,
    pub(in super::super) record: Record,
    pub(in super::super) content: Content,
}

/// Why an object is not on disk.
#[derive(Debug)]
pub(in super::super) enum NotWritten {
    /// Something younger is there, or it was purged meanwhile.
    Overtaken,
    /// The disk rests, or has no room for it.
    Skipped,
    /// It has failed.
    Failed(io::Error),
}

impl From<io::Error> for NotWritten {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Room on disk that counts as taken until this is dropped.
pub(in super::super) struct Taken<'a> {
    account: &'a Account,
    blocks: u64,
}

impl Taken<'_> {
    /// How many blocks it is: they are given back by whoever asks for this.
    pub(in super::super) fn keep(mut self) -> u64 {
        std::mem::take(&mut self.blocks)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.account.subtract(self.blocks);
    }
}

impl Store {
    /// Makes room on disk for so many bytes more, of something that has so many blocks already.
    pub(in super::super) fn take_disk(&self, disk: &Disk, bytes: u64, already: u64) -> Result<Taken<'_>, NotWritten> {
        let (account, blocks) = (self.index.account(Level::Disk), bytes.div_ceil(BLOCK));
        // One that is larger would drive out everybody before it is given up.
        if disk.rests() || already + blocks > account.limit() / 2 {
            return Err(NotWritten::Skipped);
        }
        account.add(blocks);
        let taken = Taken { account, blocks };
        // Each gives back a block at least. Where there is more to do, somebody else does it.
        for _ in 0..blocks + MORE {
            if !account.is_over() {
                return Ok(taken);
            }
            if !self.evict_file(disk) {
                break;
            }
        }
        if account.is_over() { Err(NotWritten::Skipped) } else { Ok(taken) }
    }

    /// Drives somebody off the disk. Whether there was anybody.
    pub(in super::super) fn evict_file(&self, disk: &Disk) -> bool {
        // Until it is removed, a purge does not find it, and whoever takes the folder next does: the journal stays as it is.
        let _gate = disk.pass_gate();
        let Some(gone) = self.index.evict(Level::Disk) else { return false };
        count(&self.counters.evicted_disk);
        let key = gone.key;
        self.forget(gone);
        self.remove_file(disk, &key);
        true
    }

    /// Removes the file of a key, if it is nobody's.
    pub(in super::super) fn remove_file(&self, disk: &Disk, key: &Key) -> bool {
        let _held = disk.hold(key);
        if self.index.look(key).is_some_and(|(_, has_file)| has_file) {
            return true;
        }
        self.unlink(disk, key)
    }

    /// Removes the file of a key, whoever's it is. The key is held.
    fn unlink(&self, disk: &Disk, key: &Key) -> bool {
        let removed = disk.medium.remove(&disk.folder, key);
        if let Err(error) = &removed {
            disk.owed.note_undone();
            self.complain("a file cannot be removed", error);
        }
        removed.is_ok()
    }

    /// Marks the file of an object as stale, since when it is.
    pub(in super::super) fn mark_file(&self, disk: &Disk, key: &Key, id: u64) -> bool {
        let _held = disk.hold(key);
        let Some(stale_from) = self.index.stale_from(key, id).filter(|from| from.is_stale()) else { return true };
        if self.index.look(key) != Some((id, true)) {
            return true;
        }
        let marked = disk.folder.open(key, true).and_then(|file| match file {
            Some(file) => disk.medium.write_at(&file, &layout::mark(stale_from), MARK_AT),
            None => Ok(()),
        });
        if let Err(error) = &marked {
            disk.owed.note_undone();
            self.complain("a file cannot be marked as stale", error);
        }
        marked.is_ok()
    }

    /// What goes wrong with the disk is told, once a second at most.
    pub(in super::super) fn complain(&self, what: &str, error: &io::Error) {
        static THROTTLE: Throttle = Throttle::new();
        if let Some((left_out, disk)) = THROTTLE.pass().zip(self.disk.as_ref()) {
            tracing::warn!(left_out, "the cache's folder {}: {what}: {error}", disk.folder.path().display());
        }
    }

    /// What was to be written was not: it is counted, and a disk that has failed gets a rest.
    pub(in super::super) fn note_unwritten(&self, disk: &Disk, why: &NotWritten) {
        match why {
            NotWritten::Overtaken => {}
            NotWritten::Skipped => count(&self.counters.writes_skipped),
            NotWritten::Failed(error) => {
                count(&self.counters.write_failures);
                disk.rest();
                if is_full(error) {
                    // Others have filled it: we can give back only what is ours.
                    let _ = (0..WHEN_FULL).take_while(|_| self.evict_file(disk)).count();
                }
                self.complain("a response cannot be written", error);
            }
        }
    }

    /// Writes an object that is in memory, whole.
    pub(in super::super) fn write_object(
        self: &Arc<Self>,
        disk: &Disk,
        key: Key,
        primary: Option<Key>,
        object: &Object,
    ) {
        let written = self.try_write_object(disk, key, primary, object);
        if let Err(why) = &written {
            self.note_unwritten(disk, why);
            // What lies there is older than what it would have been.
            self.remove_file(disk, &key);
        }
    }

    fn try_write_object(
        self: &Arc<Self>,
        disk: &Disk,
        key: Key,
        primary: Option<Key>,
        object: &Object,
    ) -> Result<(), NotWritten> {
        if object.is_gone() {
            return Err(NotWritten::Overtaken);
        }
        let record = object.record();
        let mut summing = layout::Summing::new(key);
        let pieces: &[Bytes] = match object.content() {
            Content::Behind => &[record.block().slice(record.end()..)],
            Content::Pieces(pieces, _) => pieces,
            Content::File(_) => return Ok(()),
        };
        pieces.iter().for_each(|piece| summing.update(piece));
        let sums = summing.finish();
        let prelude = parse::prelude(key, primary, object.since(), record, object.length(), &sums, object.stale_from());
        let _taken = self.take_disk(disk, prelude.file(), 0)?;
        let unfinished = self.write_parts(disk, &prelude, record, pieces, &sums)?;
        let published = self.publish(disk, &unfinished, &prelude, record, object);
        disk.discard(&unfinished);
        published
    }

    fn write_parts(
        &self,
        disk: &Disk,
        prelude: &Prelude,
        record: &Record,
        pieces: &[Bytes],
        sums: &[u32],
    ) -> Result<Unfinished, NotWritten> {
        let unfinished = disk.create()?;
        let mut parts = Vec::with_capacity(PRELUDE + record.end() + 64);
        parts.extend(prelude.to_bytes());
        parts.extend_from_slice(record.as_bytes());
        let sums = layout::sums_to_bytes(sums);
        // A small one in one call.
        let is_small = prelude.body <= layout::PIECE;
        if is_small {
            pieces.iter().for_each(|piece| parts.extend_from_slice(piece));
            parts.extend_from_slice(&sums);
        }
        let write = |bytes: &[u8], at| disk.medium.write_at(&unfinished.file, bytes, at);
        let mut at = parts.len() as u64;
        let mut written = write(&parts, 0);
        if !is_small {
            for part in pieces.iter().map(|piece| &piece[..]).chain([&sums[..]]) {
                written = written.and_then(|()| write(part, at));
                at += part.len() as u64;
            }
        }
        written.map_err(|error| {
            disk.discard(&unfinished);
            NotWritten::Failed(error)
        })?;
        Ok(unfinished)
    }

    /// Gives the file of an object in memory its name, and enters it.
    fn publish(
        &self,
        disk: &Disk,
        unfinished: &Unfinished,
        prelude: &Prelude,
        record: &Record,
        object: &Object,
    ) -> Result<(), NotWritten> {
        let (_gate, held) = (disk.pass_gate(), disk.hold(&prelude.key));
        let is_overtaken = self.index.look(&prelude.key).is_some_and(|(id, _)| id > object.id());
        if is_overtaken || object.is_gone() || self.is_struck(object.since(), record) {
            return Err(NotWritten::Overtaken);
        }
        disk.publish(unfinished, &prelude.key)?;
        let Some((id, stale_from)) = self.enter_file(prelude, record, object) else {
            self.unlink(disk, &prelude.key);
            return Err(NotWritten::Overtaken);
        };
        drop(held);
        if stale_from < prelude.stale_from {
            self.mark_file(disk, &prelude.key, id);
        }
        Ok(())
    }

    /// Reads the file of a key. `Ok(None)`: there is none.
    pub(in super::super) fn read_file(self: &Arc<Self>, disk: &Disk, key: &Key, id: u64) -> io::Result<Option<Loaded>> {
        let Some(file) = disk.open_file(key)? else { return Ok(None) };
        let length = file.metadata()?.len();
        let mut bytes = Vec::new();
        read_up_to(disk, &file, &mut bytes, length.min(FIRST))?;
        let prelude = parse::head(key, &bytes, length)?;
        if prelude.body <= self.limits.behind() && !self.is_crowded() {
            read_up_to(disk, &file, &mut bytes, length)?;
            let (prelude, record) = parse::whole(key, &bytes, &self.blocks)?;
            return Ok(Some(Loaded { prelude, record, content: Content::Behind }));
        }
        let record_end = PRELUDE + prelude.record as usize;
        read_up_to(disk, &file, &mut bytes, record_end as u64)?;
        let record = parse::record_of(&prelude, &bytes[PRELUDE..record_end], &self.blocks)?;
        let mut sums = vec![0; usize::try_from(4 * layout::pieces(prelude.body)).map_err(|_| parse::bad())?];
        disk.medium.read_at(&file, &mut sums, prelude.body_at() + prelude.body)?;
        let sums = parse::sums_of(&prelude, &sums)?;
        let content = Content::File(self.on_file(&prelude, id, Arc::new(file), sums));
        Ok(Some(Loaded { prelude, record, content }))
    }

    /// Reads what is known of a file before its body, to find out whether it is one.
    pub(super) fn read_head(
        &self,
        disk: &Disk,
        key: &Key,
        room: &mut Vec<u8>,
    ) -> io::Result<Option<(Prelude, Record)>> {
        let Some(file) = disk.open_file(key)? else { return Ok(None) };
        let length = file.metadata()?.len();
        room.clear();
        read_up_to(disk, &file, room, length.min(HEAD))?;
        let prelude = parse::head(key, room, length)?;
        let end = PRELUDE + prelude.record as usize;
        read_up_to(disk, &file, room, end as u64)?;
        Ok(Some((prelude, parse::record_of(&prelude, &room[PRELUDE..end], &self.blocks)?)))
    }

    pub(in super::super) fn on_file(
        self: &Arc<Self>,
        prelude: &Prelude,
        id: u64,
        file: Arc<File>,
        sums: Box<[u32]>,
    ) -> Arc<OnFile> {
        self.note_opened();
        Arc::new(OnFile {
            key: prelude.key,
            id,
            file,
            at: prelude.body_at(),
            length: prelude.body,
            sums,
            store: Arc::downgrade(self),
            asked: AtomicU32::new(0),
            is_going_up: AtomicBool::new(false),
            is_being_copied: AtomicBool::new(false),
        })
    }

    /// Gives a file that was written while its body came its name, if that is wanted still, and has it entered: what is not
    /// entered after all leaves no file.
    #[allow(clippy::too_many_arguments)]
    pub(in super::super) fn publish_streamed<T>(
        &self,
        disk: &Disk,
        unfinished: &Unfinished,
        prelude: &Prelude,
        record: &Record,
        sums: &[u32],
        is_wanted: impl FnOnce() -> bool,
        enter: impl FnOnce() -> Result<T, NotWritten>,
    ) -> Result<T, NotWritten> {
        let head = [&prelude.to_bytes()[..], record.as_bytes()].concat();
        disk.medium.write_at(&unfinished.file, &layout::sums_to_bytes(sums), prelude.body_at() + prelude.body)?;
        disk.medium.write_at(&unfinished.file, &head, 0)?;
        let (_gate, _held) = (disk.pass_gate(), disk.hold(&prelude.key));
        if !is_wanted() || self.is_struck(prelude.since, record) {
            return Err(NotWritten::Overtaken);
        }
        disk.publish(unfinished, &prelude.key)?;
        let entered = enter();
        if entered.is_err() {
            // A purge, or something younger, has come since. While the name is held, whatever has it is this.
            self.unlink(disk, &prelude.key);
        }
        entered
    }

    /// A file to be written to as its body comes.
    pub(in super::super) fn create_file(&self, disk: &Disk) -> Result<Unfinished, NotWritten> {
        Ok(disk.create()?)
    }

    /// Removes a file that did not get its name.
    pub(in super::super) fn discard_file(&self, disk: &Disk, unfinished: &Unfinished) {
        disk.discard(unfinished);
    }

    /// Somebody takes out what may have a file, which is removed later: meanwhile purges do not find it.
    pub(in super::super) fn begin_strike(&self) -> Option<Strike> {
        let (disk, store) = self.disk.as_ref().zip(self.me.upgrade())?;
        disk.strikes.fetch_add(1, SeqCst);
        Some(Strike(store))
    }

    /// Empties the journal, if all of its work is done. One does at a time: a file system takes its time to be synced, and the
    /// other threads have other things to do.
    pub(super) fn settle_journal(&self, disk: &Disk, at_any_rate: bool) {
        // What has not been found may be undone when it is: looked at first.
        let is_done = || disk.is_indexed() && disk.strikes.load(SeqCst) == 0 && disk.owed.is_done();
        let Some(length) = disk.journal.length(at_any_rate).filter(|_| is_done()) else { return };
        if disk.settling.fetch_add(1, SeqCst) > 0 {
            return;
        }
        let settling = Settling { store: self, disk };
        let synced = disk.medium.sync(&disk.folder);
        // Who has looked for purges and has not entered his file yet is waited for.
        let gate = disk.gate.write().unwrap_or_else(PoisonError::into_inner);
        let cleared = synced.and_then(|()| if is_done() { disk.journal.clear(length) } else { Ok(()) });
        drop(gate);
        if let Err(error) = cleared {
            self.complain("the journal of purges cannot be emptied", &error);
        }
        drop(settling);
    }
}

/// Held by the one who empties the journal.
struct Settling<'a> {
    store: &'a Store,
    disk: &'a Disk,
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        if self.disk.settling.swap(0, SeqCst) > 1 {
            self.store.owe_a_look(self.disk);
        }
    }
}

/// Held by who strikes files, until it is known which of them have to be removed, or until one is that is nobody's.
#[derive(Debug)]
pub(in super::super) struct Strike(Arc<Store>);

impl Drop for Strike {
    fn drop(&mut self) {
        let Some(disk) = &self.0.disk else { return };
        let is_last = disk.strikes.fetch_sub(1, SeqCst) == 1;
        if is_last && disk.journal.length(false).is_some() && !disk.owed.is_undone() {
            self.0.owe_a_look(disk);
        }
    }
}

/// Reads on until there are so many bytes of a file, at least.
fn read_up_to(disk: &Disk, file: &File, bytes: &mut Vec<u8>, length: u64) -> io::Result<()> {
    let (there, length) = (bytes.len(), usize::try_from(length).map_err(|_| parse::bad())?);
    if length <= there {
        return Ok(());
    }
    bytes.resize(length, 0);
    disk.medium.read_at(file, &mut bytes[there..], there as u64)
}

/// What of a file is read at first, to serve it.
const FIRST: u64 = 16 << 10;
/// And to find it.
const HEAD: u64 = 1024;
