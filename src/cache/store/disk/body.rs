//! A body that is on disk, read in pieces, each of which is held against its checksum before anybody gets a byte of it.
//!
//! What is in the page cache is read where the body is polled, as for other files; the rest is the work of the store's own
//! threads. Bytes are never sent from where they lie: nobody would have looked at them.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::Key;
use super::super::Store;
use super::layout::{PIECE, piece_sum};
use crate::error::{Error, Reason};
use crate::http::Source;
use crate::observe::throttle::Throttle;
use crate::runtime::buffers::{self, Piece};

/// How much is read from the page cache before the thread's other tasks have their turn.
const TURN: u64 = 4 * PIECE;
/// A file that has been removed, and is as large as this, takes a while to close.
const LONG_TO_CLOSE: u64 = 16 << 20;

const _: () = assert!(buffers::PIECE as u64 == PIECE);

/// An open file with a stored response.
pub(in super::super) struct OnFile {
    pub(in super::super) key: Key,
    pub(in super::super) id: u64,
    pub(in super::super) file: Arc<File>,
    /// Where the body begins.
    pub(in super::super) at: u64,
    pub(in super::super) length: u64,
    pub(in super::super) sums: Box<[u32]>,
    pub(in super::super) store: Weak<Store>,
    /// How often somebody has asked for it.
    pub(in super::super) asked: AtomicU32,
    /// Whether it is on its way to memory.
    pub(in super::super) is_going_up: AtomicBool,
    /// Whether it is being copied behind another record.
    pub(in super::super) is_being_copied: AtomicBool,
}

impl OnFile {
    pub(in super::super) fn length(&self) -> u64 {
        self.length
    }

    /// What it takes in memory, in bytes.
    pub(in super::super) fn weight(&self) -> u64 {
        // The kernel's part of an open file is about this.
        512 + 4 * self.sums.len() as u64
    }

    /// A whole piece, which blocks until it is there.
    pub(in super::super) fn read(&self, store: &Store, number: u64) -> io::Result<Bytes> {
        let Some((start, length, sum)) = self.piece(number) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let mut bytes = vec![0; length];
        store.medium().read_at(&self.file, &mut bytes, start)?;
        if piece_sum(&self.key, number, &bytes) != sum {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(store.blocks.of(bytes))
    }

    /// Where a piece lies, how long it is, and its checksum.
    fn piece(&self, number: u64) -> Option<(u64, usize, u32)> {
        let sum = *self.sums.get(usize::try_from(number).ok()?)?;
        let start = number * PIECE;
        Some((self.at + start, usize::try_from((self.length - start).min(PIECE)).ok()?, sum))
    }
}

impl Drop for OnFile {
    fn drop(&mut self) {
        let Some(store) = self.store.upgrade() else { return };
        store.note_closed();
        if self.length >= LONG_TO_CLOSE {
            let file = Arc::clone(&self.file);
            store.surely(move || drop(file));
        }
    }
}

/// A piece that a thread reads, or will.
struct Reading {
    answer: oneshot::Receiver<io::Result<Bytes>>,
    /// Dropped when nobody waits for it.
    wanted: Option<Arc<()>>,
    store: Weak<Store>,
}

impl Reading {
    /// Has a thread read a piece.
    fn begin(store: &Arc<Store>, file: &Arc<File>, piece: &Wanted) -> io::Result<Self> {
        let hangs = || io::Error::new(io::ErrorKind::TimedOut, "the disk hangs");
        // A disk that stops for a moment costs nobody the rest of what he has begun to read.
        let disk = store.disk.as_ref().filter(|disk| !disk.is_dead()).ok_or_else(hangs)?;
        let (told, answer) = oneshot::channel();
        let (file, medium, start, length) = (Arc::clone(file), store.medium(), piece.start, piece.length);
        let wanted = Arc::new(());
        let job = move || {
            let mut piece = Piece::take();
            let read = medium.read_at(&file, &mut piece.bytes_mut()[..length], start);
            // Nobody may want it any more.
            let _ = told.send(read.map(|()| piece.into_bytes(length)));
        };
        disk.threads.piece(&wanted, job).map_err(|_| hangs())?;
        Ok(Self { answer, wanted: Some(wanted), store: Arc::downgrade(store) })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let is_queued = self.wanted.take().is_some_and(|wanted| Arc::weak_count(&wanted) > 0);
        if let Some(store) = self.store.upgrade().filter(|_| is_queued)
            && let Some(disk) = &store.disk
        {
            disk.threads.forget_unwanted();
        }
    }
}

/// Reads whole pieces of one file, one at a time.
#[derive(Default)]
pub(in super::super) struct Pieces {
    reading: Option<Reading>,
    /// Bytes that were there at once since something was waited for.
    turn: u64,
}

/// A piece: where it lies, and what it has to be.
pub(in super::super) struct Wanted {
    pub(in super::super) key: Key,
    pub(in super::super) number: u64,
    pub(in super::super) start: u64,
    pub(in super::super) length: usize,
    pub(in super::super) sum: u32,
}

impl Pieces {
    /// The piece. What has been begun is finished first: between two polls it stays the same until it is there.
    pub(in super::super) fn poll(
        &mut self,
        store: &Arc<Store>,
        file: &Arc<File>,
        wanted: &Wanted,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        if self.turn >= TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = match self.cached(store, file, wanted) {
            Some(piece) => piece,
            None => ready!(self.poll_slow(store, file, wanted, cx))?,
        };
        self.turn += piece.len() as u64;
        let is_as_written = piece_sum(&wanted.key, wanted.number, &piece) == wanted.sum;
        Poll::Ready(if is_as_written { Ok(piece) } else { Err(io::ErrorKind::InvalidData.into()) })
    }

    /// All of it, if it is in the page cache.
    fn cached(&self, store: &Store, file: &File, wanted: &Wanted) -> Option<Bytes> {
        let disk = store.disk.as_ref().filter(|_| self.reading.is_none())?;
        let mut piece = Piece::take();
        let is_there = disk.medium.read_cached(file, &mut piece.bytes_mut()[..wanted.length], wanted.start);
        is_there.then(|| piece.into_bytes(wanted.length))
    }

    fn poll_slow(
        &mut self,
        store: &Arc<Store>,
        file: &Arc<File>,
        wanted: &Wanted,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            None => self.reading.insert(Reading::begin(store, file, wanted)?),
        };
        self.turn = 0;
        let read = ready!(Pin::new(&mut reading.answer).poll(cx));
        self.reading = None;
        Poll::Ready(read.unwrap_or_else(|_| Err(io::Error::other("the reading thread has panicked"))))
    }
}

/// The body of a stored response, or a part of it.
pub(in super::super) struct FileBody {
    file: Arc<OnFile>,
    /// Whoever began to read it may read it to its end, though another store has taken the place of this.
    store: Option<Arc<Store>>,
    at: u64,
    end: u64,
    pieces: Pieces,
}

impl FileBody {
    pub(in super::super) fn new(file: Arc<OnFile>, at: u64, end: u64) -> Self {
        Self { store: file.store.upgrade(), file, at, end, pieces: Pieces::default() }
    }
}

impl Source for FileBody {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if self.at == self.end {
            return Poll::Ready(None);
        }
        let (file, number) = (&self.file, self.at / PIECE);
        let Some(store) = &self.store else {
            return Poll::Ready(Some(Err(Error::new(Reason::ShuttingDown))));
        };
        let Some((start, length, sum)) = file.piece(number) else {
            return Poll::Ready(Some(Err(Error::new(Reason::Internal).detail("a piece without a checksum"))));
        };
        let wanted = Wanted { key: file.key, number, start, length, sum };
        let read = ready!(self.pieces.poll(store, &file.file, &wanted, cx));
        Poll::Ready(Some(match read {
            Ok(piece) => {
                let first = usize::try_from(self.at - number * PIECE).unwrap_or(usize::MAX);
                let last = piece.len().min(usize::try_from(self.end - number * PIECE).unwrap_or(usize::MAX));
                self.at += (last - first) as u64;
                Ok(piece.slice(first..last))
            }
            Err(error) => {
                store.found_bad(&file.key, file.id, &error);
                Err(cut(error))
            }
        }))
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.end - self.at)
    }
}

/// Why an answer ends early. Told here, where the cause is known.
pub(in super::super) fn cut(source: io::Error) -> Error {
    static THROTTLE: Throttle = Throttle::new();
    let detail = match source.kind() {
        io::ErrorKind::InvalidData => {
            "a stored response is not as it was written: it is dropped, and its answer is cut"
        }
        io::ErrorKind::UnexpectedEof => {
            "a stored response is shorter than it was: it is dropped, and its answer is cut"
        }
        _ => "a stored response could not be read to its end",
    };
    let error = Error::new(Reason::FileFailed).detail(detail).source(source);
    if let Some(left_out) = THROTTLE.pass() {
        tracing::warn!(left_out, reason = error.reason.as_str(), "{error}");
    }
    error
}
