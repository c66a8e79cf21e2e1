//! What becomes of the bytes of a response that is being stored: kept in memory, written to disk as they come, or given up.

use std::sync::Arc;
use std::sync::MutexGuard;
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::blocks::Blocks;
use super::counters::count;
use super::disk::layout::{PIECE, PRELUDE};
use super::disk::{Disk, NotWritten, parse};
use super::feed::{Phase, Progress, State, WINDOW, Way};
use super::index::Level;
use super::object::Content;
use super::stale::StaleFrom;
use super::writer::{Finish, NotStored, Outcome};
use crate::error::Reason;

/// What is written to disk at once, at least, before the end.
const BATCH: u64 = 4 * PIECE;
/// How far the disk may be behind before a response is given up.
const BEHIND: u64 = 8 << 20;
/// Pieces of a body in memory that are smaller are put together.
const SMALL_PIECE: usize = 16 << 10;
const LARGE_PIECE: usize = 64 << 10;

impl Progress {
    pub(super) fn push(self: &Arc<Self>, data: &Bytes) {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        let (bytes, after) = (data.len() as u64, state.length + data.len() as u64);
        let is_known = !matches!(state.way, Way::Nowhere(_));
        if is_known && self.declared.is_some_and(|length| after > length) {
            self.give_up(&mut state, NotStored::WrongLength);
        } else if is_known && after > self.store.limits.object() {
            self.give_up(&mut state, NotStored::TooLarge);
        }
        if state.way == Way::Memory {
            self.leave_memory(&mut state, after);
        }
        match state.way {
            Way::Nowhere(_) => self.pass_on(&mut state, data),
            Way::Memory | Way::Disk => {
                if self.store.take_memory(bytes) {
                    state.memory += bytes;
                    if let Some(summing) = &mut state.summing {
                        summing.update(data);
                    }
                    // What stays is copied: it may lie in a room that is much larger.
                    let is_copied = state.way == Way::Memory;
                    let blocks = &self.store.blocks;
                    state.append(data, |data| if is_copied { blocks.of(data.to_vec()) } else { data.clone() });
                } else {
                    self.give_up(&mut state, NotStored::NoRoom);
                    self.pass_on(&mut state, data);
                }
            }
        }
        if state.way == Way::Disk {
            self.begin_writing(&mut state);
        }
        wake(state);
    }

    /// Where a body goes that gets larger than what is kept in memory, or has to make way for what clients keep there.
    fn leave_memory(&self, state: &mut State, after: u64) {
        let (limits, is_crowded) = (&self.store.limits, self.store.is_crowded());
        if self.store.has_disk() {
            if after > limits.behind() || is_crowded {
                state.way = Way::Disk;
            }
        } else if after > limits.memory() {
            self.give_up(state, NotStored::TooLarge);
        } else if is_crowded {
            self.give_up(state, NotStored::NoRoom);
        }
    }

    /// It is not stored: only followers are interested, if there are any.
    fn pass_on(&self, state: &mut State, data: &Bytes) {
        if state.is_followed() {
            let bytes = data.len() as u64;
            // Who pushes has waited for those who follow, so that they have what goes here; but not if it is given up only now.
            let floor = if state.is_short { state.length } else { (state.length + bytes).saturating_sub(WINDOW) };
            if !std::mem::take(&mut state.is_just_given_up) {
                self.free(state, floor);
            }
            state.is_short = false;
            if self.store.take_memory(bytes) {
                state.memory += bytes;
                state.append(data, Bytes::clone);
            } else {
                // This one piece is kept over the bound: nobody has had it.
                state.is_short = true;
                state.chunks.push_back((state.length, data.clone()));
                state.length += bytes;
            }
        } else {
            self.free(state, u64::MAX);
            state.length += data.len() as u64;
        }
    }

    /// Lets go of what lies before this.
    fn free(&self, state: &mut State, before: u64) {
        let freed = state.drop_before(before).min(state.memory);
        state.memory -= freed;
        self.store.give_memory(freed);
    }

    fn give_up(&self, state: &mut State, why: NotStored) {
        if matches!(state.way, Way::Nowhere(_)) {
            return;
        }
        count(&self.store.counters.abandoned);
        state.way = Way::Nowhere(why);
        // Whoever reads what is in the file already goes on.
        if let Some(summing) = state.summing.take() {
            state.sums = summing.sums().to_vec();
        }
        // Who follows has had no chance yet to read what there is: it goes with the pieces that come.
        state.is_just_given_up = true;
        if !state.is_followed() {
            self.free(state, u64::MAX);
        }
    }

    /// Has a thread write what there is, if it is enough.
    fn begin_writing(self: &Arc<Self>, state: &mut State) {
        let waiting = state.length - state.written;
        if waiting > BEHIND {
            return self.give_up(state, NotStored::Disk);
        }
        let is_due = waiting / PIECE * PIECE >= BATCH || state.phase == Phase::Whole;
        let Some(disk) = self.store.disk.as_ref().filter(|_| is_due && !state.is_writing) else { return };
        let progress = Arc::clone(self);
        let job = move || {
            let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| progress.write_all_there_is()));
            if written.is_err() {
                progress.end_writing();
            }
        };
        // The bytes count as memory of their own.
        state.is_writing = disk.threads.write_on(job).is_ok();
        if !state.is_writing && state.phase == Phase::Whole {
            self.give_up(state, NotStored::Disk);
        }
    }

    /// The thread that wrote has panicked.
    fn end_writing(&self) {
        let mut state = self.lock();
        state.is_writing = false;
        self.give_up(&mut state, NotStored::Disk);
        // Whoever waits for its end hears of it.
        state.finish = None;
        wake(state);
    }

    /// Writes as long as there is enough. Blocks.
    fn write_all_there_is(self: &Arc<Self>) {
        let Some(disk) = &self.store.disk else { return };
        loop {
            let (chunks, at, target) = {
                let mut state = self.lock();
                let is_whole = state.phase == Phase::Whole;
                let waiting = state.length - state.written;
                let target = if is_whole { state.length } else { state.length / PIECE * PIECE };
                let is_wanted = state.way == Way::Disk && !matches!(state.phase, Phase::Cut(_));
                if !is_wanted || (!is_whole && waiting / PIECE * PIECE < BATCH) {
                    state.is_writing = false;
                    let file = if is_wanted { None } else { self.unwanted(&mut state) };
                    let told = state.finish.take();
                    let why = if let Way::Nowhere(why) = state.way { why } else { NotStored::Disk };
                    wake(state);
                    if let Some(file) = file {
                        self.store.discard_file(disk, &file);
                    }
                    if let Some(told) = told {
                        let _ = told.send(Err(why));
                    }
                    return;
                }
                if is_whole && waiting == 0 {
                    break;
                }
                (state.chunks(state.written, target), state.written, target)
            };
            let written = self.write_chunks(disk, &chunks, at, target - at);
            let mut state = self.lock();
            match written {
                Ok(()) => {
                    if state.phase == Phase::Whole && target == state.length {
                        // Who is behind reads the last piece from the file from here on.
                        finish_sums(&mut state);
                    }
                    state.written = target;
                    self.free(&mut state, target);
                }
                Err(why) => {
                    self.give_up(&mut state, NotStored::Disk);
                    drop(state);
                    self.store.note_unwritten(disk, &why);
                    continue;
                }
            }
            wake(state);
        }
        let outcome = self.publish(disk);
        let mut state = self.lock();
        state.is_writing = false;
        self.store.index.account(Level::Disk).subtract(std::mem::take(&mut state.blocks));
        let told = state.finish.take();
        wake(state);
        if let Some(told) = told {
            // Nobody may wait.
            let _ = told.send(outcome);
        }
    }

    /// The file of what is not stored, if nobody reads it.
    fn unwanted(&self, state: &mut State) -> Option<Arc<super::disk::Unfinished>> {
        let blocks = std::mem::take(&mut state.blocks);
        self.store.index.account(Level::Disk).subtract(blocks);
        if state.is_followed() { None } else { state.file.take() }
    }

    fn write_chunks(&self, disk: &Disk, chunks: &[Bytes], at: u64, length: u64) -> Result<(), NotWritten> {
        let already = self.lock().blocks;
        let blocks = self.store.take_disk(disk, length, already)?.keep();
        let file = {
            let mut state = self.lock();
            state.blocks += blocks;
            state.file.as_ref().map(|file| Arc::clone(&file.file))
        };
        let file = match file {
            Some(file) => file,
            None => {
                let made = Arc::new(self.store.create_file(disk)?);
                let file = Arc::clone(&made.file);
                self.lock().file = Some(made);
                file
            }
        };
        let mut at = (PRELUDE + self.record.end()) as u64 + at;
        for chunk in chunks {
            disk.medium.write_at(&file, chunk, at)?;
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// The body is whole, and in the file: gives that its name.
    fn publish(self: &Arc<Self>, disk: &Disk) -> Outcome {
        let (file, sums, length) = {
            let mut state = self.lock();
            finish_sums(&mut state);
            // It stays where it is: those who are behind read on meanwhile.
            (state.file.clone(), state.sums.clone(), state.length)
        };
        let Some(file) = file else { return Err(NotStored::Disk) };
        let prelude = parse::prelude(self.key, self.primary, self.since, &self.record, length, &sums, StaleFrom::NEVER);
        let store = &self.store;
        let handle = Arc::clone(&file.file);
        let on_file = |id| Content::File(store.on_file(&prelude, id, handle, sums.clone().into()));
        let is_wanted = || !store.index.is_younger(&self.key, self.since);
        let enter = || store.enter_streamed(&prelude, self.record.clone(), None, on_file);
        let entered = store.publish_streamed(disk, &file, &prelude, &self.record, &sums, is_wanted, enter);
        store.discard_file(disk, &file);
        match entered {
            Ok(object) => {
                if object.is_purged() {
                    store.mark_file(disk, &self.key, object.id());
                }
                Ok(object)
            }
            Err(why) => {
                store.note_unwritten(disk, &why);
                Err(if matches!(why, NotWritten::Overtaken) { NotStored::Purged } else { NotStored::Disk })
            }
        }
    }

    /// The body is whole.
    pub(super) fn finish(self: &Arc<Self>) -> Finish {
        let mut state = self.lock();
        if self.declared.is_some_and(|length| length != state.length) {
            self.give_up(&mut state, NotStored::WrongLength);
            drop(state);
            self.cut(Reason::EofInBody);
            return Finish::Now(Err(NotStored::WrongLength));
        }
        state.phase = Phase::Whole;
        match state.way {
            Way::Nowhere(why) => {
                wake(state);
                Finish::Now(Err(why))
            }
            Way::Memory => {
                finish_sums(&mut state);
                let chunks: Vec<Bytes> = state.chunks.iter().map(|(_, chunk)| chunk.clone()).collect();
                let length = state.length;
                let counted = std::mem::take(&mut state.memory);
                wake(state);
                self.store.give_memory(counted);
                Finish::Now(self.admit(&chunks, length))
            }
            Way::Disk => {
                let (told, outcome) = oneshot::channel();
                state.finish = Some(told);
                self.begin_writing(&mut state);
                if !state.is_writing {
                    // It is too far behind.
                    state.finish = None;
                }
                wake(state);
                Finish::Later(outcome)
            }
        }
    }

    /// Enters what is in memory.
    fn admit(self: &Arc<Self>, chunks: &[Bytes], length: u64) -> Outcome {
        let (record, content) = if length <= self.store.limits.behind() {
            let all: Vec<u8> = [self.record.as_bytes()]
                .into_iter()
                .chain(chunks.iter().map(|chunk| &chunk[..]))
                .collect::<Vec<_>>()
                .concat();
            (self.record.with(self.store.blocks.of(all)), Content::Behind)
        } else {
            (self.record.clone(), Content::Pieces(join(chunks, &self.store.blocks), length))
        };
        self.store.admit(&self.key, self.primary, self.since, record, content, None)
    }

    /// No more comes, and it is not whole.
    pub(super) fn cut(self: &Arc<Self>, reason: Reason) {
        let mut state = self.lock();
        state.phase = Phase::Cut(reason);
        self.free(&mut state, u64::MAX);
        let file = if state.is_writing { None } else { self.unwanted_after_cut(&mut state) };
        wake(state);
        if let Some(file) = file {
            let store = Arc::clone(&self.store);
            self.store.surely(move || {
                if let Some(disk) = &store.disk {
                    store.discard_file(disk, &file);
                }
            });
        }
    }

    fn unwanted_after_cut(&self, state: &mut State) -> Option<Arc<super::disk::Unfinished>> {
        let blocks = std::mem::take(&mut state.blocks);
        self.store.index.account(Level::Disk).subtract(blocks);
        state.file.take()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let (memory, blocks, file) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.memory), std::mem::take(&mut state.blocks), state.file.take())
        };
        self.store.give_memory(memory);
        if blocks > 0 {
            self.store.index.account(Level::Disk).subtract(blocks);
        }
        if let Some(file) = file {
            let store = Arc::clone(&self.store);
            self.store.surely(move || {
                if let Some(disk) = &store.disk {
                    store.discard_file(disk, &file);
                }
                drop(file);
            });
        }
    }
}

/// The body is whole, and so are the checksums of its pieces.
fn finish_sums(state: &mut State) {
    if let Some(summing) = state.summing.take() {
        state.sums = summing.finish();
    }
}

/// Wakes all who wait, without the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let waiting = state.waiting();
    drop(state);
    waiting.into_iter().for_each(Waker::wake);
}

/// The same bytes in pieces that are not small.
fn join(chunks: &[Bytes], blocks: &Arc<Blocks>) -> Box<[Bytes]> {
    let mut joined: Vec<Bytes> = Vec::new();
    let mut small: Vec<u8> = Vec::new();
    for chunk in chunks {
        if !small.is_empty() && small.len() + chunk.len() > LARGE_PIECE {
            joined.push(blocks.of(std::mem::take(&mut small)));
        }
        if chunk.len() >= SMALL_PIECE && small.is_empty() {
            joined.push(chunk.clone());
        } else {
            small.extend_from_slice(chunk);
        }
    }
    if !small.is_empty() {
        joined.push(blocks.of(small));
    }
    joined.into()
}
