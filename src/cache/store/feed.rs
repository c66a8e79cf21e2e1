//! An object that is being written, and those who follow: they have its bytes as they come, at their own pace.
//!
//! In memory lies what has come, until it is stored (a small object) or written to disk (a large one): who is behind that
//! reads the file. An object that is no longer stored keeps the last megabyte for its followers, and as long as it has any:
//! who falls further behind is cut, which is an error, never an end.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};

use super::Key;
use super::Moment;
use super::Store;
use super::disk::layout::{PIECE, Summing};
use super::disk::{Pieces, Unfinished, Wanted, cut};
use super::record::Record;
use super::rules::Fate;
use super::writer::{NotStored, Outcome};
use crate::error::{Error, Reason};
use crate::http::Source;

/// What is kept for followers of an object that is not stored.
pub(super) const WINDOW: u64 = 1 << 20;
/// What is put together with its neighbour, if that is as small.
const SMALL: usize = 4 << 10;

/// What comes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is kept in memory until it is whole.
    Memory,
    /// It goes to disk as it comes.
    Disk,
    /// It is not stored.
    Nowhere(NotStored),
}

/// Whether more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Whole,
    Cut(Reason),
}

/// All that is known of an object while it is written.
pub(super) struct Progress {
    pub(super) store: Arc<Store>,
    pub(super) key: Key,
    pub(super) primary: Option<Key>,
    pub(super) since: u64,
    pub(super) record: Record,
    pub(super) declared: Option<u64>,
    state: Mutex<State>,
}

pub(super) struct State {
    /// With the offset of each in the body.
    pub(super) chunks: VecDeque<(u64, Bytes)>,
    /// Bytes that have come.
    pub(super) length: u64,
    pub(super) way: Way,
    pub(super) phase: Phase,
    /// Of what goes, or may go, to disk.
    pub(super) summing: Option<Summing>,
    /// Once it is whole.
    pub(super) sums: Vec<u32>,
    pub(super) file: Option<Arc<Unfinished>>,
    /// Bytes that are in the file.
    pub(super) written: u64,
    /// Whether a thread writes to the file, or is about to.
    pub(super) is_writing: bool,
    /// Bytes of memory that are counted for this.
    pub(super) memory: u64,
    /// What has come last found no room.
    pub(super) is_short: bool,
    /// It was given up while this piece came: nobody who follows was waited for.
    pub(super) is_just_given_up: bool,
    /// Blocks of the disk that are counted for this.
    pub(super) blocks: u64,
    pub(super) writer: Option<Waker>,
    pub(super) finish: Option<tokio::sync::oneshot::Sender<Outcome>>,
    followers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Progress {
    pub(super) fn new(
        store: Arc<Store>,
        key: Key,
        primary: Option<Key>,
        since: u64,
        record: Record,
        declared: Option<u64>,
        way: Way,
    ) -> Self {
        let state = State {
            chunks: VecDeque::new(),
            length: 0,
            way,
            phase: Phase::Open,
            summing: store.has_disk().then(|| Summing::new(key)),
            sums: Vec::new(),
            file: None,
            written: 0,
            is_writing: false,
            memory: 0,
            is_short: false,
            is_just_given_up: false,
            blocks: 0,
            writer: None,
            finish: None,
            followers: Vec::new(),
            free: Vec::new(),
        };
        Self { store, key, primary, since, record, declared, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Where what is in memory begins.
    pub(super) fn base(&self) -> u64 {
        self.chunks.front().map_or(self.length, |(at, _)| *at)
    }

    /// Adds what has come, made one's `own`. Small pieces are put together: each of its own would cost more than it holds.
    pub(super) fn append(&mut self, data: &Bytes, own: impl FnOnce(&Bytes) -> Bytes) {
        let at = self.length;
        self.length += data.len() as u64;
        if let Some((_, last)) = self.chunks.back_mut()
            && last.len() + data.len() <= SMALL
        {
            let mut both = BytesMut::with_capacity(last.len() + data.len());
            both.extend_from_slice(last);
            both.extend_from_slice(data);
            *last = both.freeze();
            return;
        }
        self.chunks.push_back((at, own(data)));
    }

    /// Drops what lies wholly before this. How many bytes those were.
    pub(super) fn drop_before(&mut self, offset: u64) -> u64 {
        let mut dropped = 0;
        while let Some((at, chunk)) = self.chunks.front()
            && at + chunk.len() as u64 <= offset
        {
            dropped += chunk.len() as u64;
            self.chunks.pop_front();
        }
        dropped
    }

    pub(super) fn is_followed(&self) -> bool {
        self.followers.len() > self.free.len()
    }

    /// What of the memory lies from `start` on, before `end`; the first of it at least, if there is any.
    fn chunk(&self, start: u64, end: u64) -> Option<Bytes> {
        let number = self.chunks.partition_point(|(at, _)| *at <= start).checked_sub(1)?;
        let (at, chunk) = &self.chunks[number];
        let first = usize::try_from(start - at).ok()?;
        let last = chunk.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        (first < last).then(|| chunk.slice(first..last))
    }

    /// All of the memory from `start` to before `end`, in its pieces.
    pub(super) fn chunks(&self, start: u64, end: u64) -> Vec<Bytes> {
        let (mut at, mut chunks) = (start, Vec::new());
        while let Some(chunk) = self.chunk(at, end).filter(|_| at < end) {
            at += chunk.len() as u64;
            chunks.push(chunk);
        }
        chunks
    }

    /// Everybody who waits. To be woken without the lock.
    #[must_use]
    pub(super) fn waiting(&mut self) -> Vec<Waker> {
        self.followers.iter_mut().filter_map(Option::take).chain(self.writer.take()).collect()
    }
}

/// Where an object that is being written can be followed, on any thread: from its beginning, as long as it is stored.
#[derive(Clone)]
pub struct Feed(pub(super) Arc<Progress>);

impl Feed {
    /// Follows. `None`: its beginning is not there any more, because it is not stored, or it was cut, or a purge has struck it,
    /// whose answer whoever asks now may have had.
    #[must_use]
    pub fn follow(&self) -> Option<Follower> {
        if self.is_struck() { None } else { self.attach() }
    }

    /// The same for who has asked at this moment: a purge that came later keeps nothing from him.
    #[must_use]
    pub fn follow_since(&self, asked: Moment) -> Option<Follower> {
        if self.is_for(asked) { self.attach() } else { None }
    }

    /// Whether who has asked at this moment may have it: it was asked for after that, or no purge has struck it.
    #[must_use]
    pub fn is_for(&self, asked: Moment) -> bool {
        asked.0 <= self.0.since || !self.is_struck()
    }

    fn is_struck(&self) -> bool {
        let (since, record) = (self.0.since, &self.0.record);
        self.0.store.rules().verdict(since, record.host(), record.path(), record.tags()) != Fate::UNTOUCHED
    }

    fn attach(&self) -> Option<Follower> {
        let mut state = self.0.lock();
        if matches!(state.way, Way::Nowhere(_)) && state.base() > 0 || matches!(state.phase, Phase::Cut(_)) {
            return None;
        }
        let number = state.free.pop().unwrap_or_else(|| {
            state.followers.push(None);
            state.followers.len() - 1
        });
        Some(Follower { feed: self.clone(), number, at: 0, pieces: Pieces::default() })
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        write!(f, "Feed({:?}, {} bytes, {:?})", state.way, state.length, state.phase)
    }
}

/// The body of an object that is being written.
pub struct Follower {
    feed: Feed,
    number: usize,
    at: u64,
    pieces: Pieces,
}

/// What a follower does next.
enum Next {
    Data(Bytes),
    Read(Arc<std::fs::File>, Wanted),
    End,
    Wait,
    Fail(Error),
}

impl Follower {
    fn next(&self, cx: &mut Context<'_>) -> Next {
        let progress = &self.feed.0;
        let mut state = progress.lock();
        if let Phase::Cut(reason) = state.phase {
            return Next::Fail(Error::new(reason).detail("the response was not read to its end"));
        }
        if let Some(chunk) = state.chunk(self.at, u64::MAX) {
            return Next::Data(chunk);
        }
        if self.at == state.length {
            if state.phase == Phase::Whole {
                return Next::End;
            }
            let waker = &mut state.followers[self.number];
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Next::Wait;
        }
        self.in_file(&state).map_or_else(
            || {
                let detail = "the response is not stored, and goes on at the pace of the client who asked first";
                Next::Fail(Error::new(Reason::ClientStalled).detail(detail))
            },
            |(file, wanted)| Next::Read(file, wanted),
        )
    }

    /// The piece that comes next, if it is in the file.
    fn in_file(&self, state: &State) -> Option<(Arc<std::fs::File>, Wanted)> {
        let progress = &self.feed.0;
        let (number, file) = (self.at / PIECE, state.file.as_ref()?);
        let length = state.written.saturating_sub(number * PIECE).min(PIECE);
        let sums = state.summing.as_ref().map_or(&state.sums[..], Summing::sums);
        let sum = *sums.get(usize::try_from(number).ok()?)?;
        if self.at >= state.written {
            return None;
        }
        let start = (super::disk::layout::PRELUDE + progress.record.end()) as u64 + number * PIECE;
        let length = usize::try_from(length).ok()?;
        Some((Arc::clone(&file.file), Wanted { key: progress.key, number, start, length, sum }))
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        // What has been begun to be read is finished first.
        let data = match self.next(cx) {
            Next::Data(data) => data,
            Next::End => return Poll::Ready(None),
            Next::Wait => return Poll::Pending,
            Next::Fail(error) => return Poll::Ready(Some(Err(error))),
            Next::Read(file, wanted) => {
                let store = Arc::clone(&self.feed.0.store);
                match ready!(self.pieces.poll(&store, &file, &wanted, cx)) {
                    Ok(piece) => piece.slice(usize::try_from(self.at % PIECE).unwrap_or(0)..),
                    Err(error) => return Poll::Ready(Some(Err(self.failed(error)))),
                }
            }
        };
        self.at += data.len() as u64;
        Poll::Ready(Some(Ok(data)))
    }

    fn failed(&self, error: io::Error) -> Error {
        self.feed.0.store.complain("what was written a moment ago cannot be read", &error);
        cut(error)
    }
}

impl Source for Follower {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.step(cx)
    }

    fn remaining(&self) -> Option<u64> {
        let state = self.feed.0.lock();
        let length = self.feed.0.declared.or_else(|| (state.phase == Phase::Whole).then_some(state.length));
        Some(length?.saturating_sub(self.at))
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follower(at {} of {:?})", self.at, self.feed)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.feed.0.lock();
        let waker = state.followers[self.number].take();
        state.free.push(self.number);
        if !state.is_followed() && matches!(state.way, Way::Nowhere(_)) {
            let length = state.length;
            let freed = state.drop_before(length).min(state.memory);
            state.memory -= freed;
            self.feed.0.store.give_memory(freed);
        }
        drop((state, waker));
    }
}
