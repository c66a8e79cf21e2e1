//! Reading a file in pieces, without blocking the thread.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, preadv, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Span;
use super::buffers::{self, Piece};

/// The most that is read at once.
const PIECE: u64 = buffers::PIECE as u64;

/// Less than this is copied out of the room that it was read into.
const SMALL: usize = buffers::PIECE / 4;
/// How much is read from the page cache before the thread's other tasks have their turn.
const TURN: usize = 4 * buffers::PIECE;

/// How many pieces another thread reads at once for one reader, who may have as many again read ahead.
const BATCH: usize = 4;
/// How many pieces lie ready, or are being read, for all readers of the process who take their time: 64 MiB. Where there are
/// more, each reader gets one at a time.
const MOST_READY: usize = 1024;

static READY: AtomicUsize = AtomicUsize::new(0);

/// Reads a file in pieces.
///
/// What has been written or read a moment ago is in the page cache still: that is read at once. Only what the kernel has to
/// fetch from the disk is another thread's work, whose way there and back costs more than the copy.
#[derive(Debug)]
pub struct PieceReader {
    reading: Option<JoinHandle<io::Result<Vec<Bytes>>>>,
    /// Read by another thread, and not asked for yet.
    ready: VecDeque<Bytes>,
    /// How many pieces of ours count in [`READY`].
    counted: usize,
    /// How many pieces another thread reads at once.
    batch: usize,
    /// Whether the file system has said that it cannot be asked so.
    is_always_slow: bool,
    /// Bytes that were there at once since something was waited for.
    turn: usize,
}

impl Default for PieceReader {
    fn default() -> Self {
        Self::of(1)
    }
}

impl PieceReader {
    /// One for a file that lies on a disk, and is read from some place on to another: several pieces at once where another
    /// thread has to read them, and ahead where the page cache cannot be asked.
    #[must_use]
    pub fn in_batches() -> Self {
        Self::of(BATCH)
    }

    fn of(batch: usize) -> Self {
        Self { reading: None, ready: VecDeque::new(), counted: 0, batch, is_always_slow: false, turn: 0 }
    }

    /// The same, for which nothing is in the page cache.
    #[cfg(test)]
    pub(crate) fn uncached(mut self) -> Self {
        self.is_always_slow = true;
        self
    }

    /// What lies at `start`, to be sent from there. `None`: it has to be read, or has been.
    #[must_use]
    pub fn span(&self, file: &Arc<File>, start: u64, end: u64) -> Option<Span> {
        let is_read = self.reading.is_some() || !self.ready.is_empty() || self.is_always_slow;
        match is_read {
            true => None,
            // What lies on a disk was read by anybody, in any order.
            false if self.batch > 1 => Span::at_hand_throughout(file, start, end),
            false => Span::at_hand(file, start, end),
        }
    }

    /// The bytes at `start`, some of them, before `end`, which is behind it. What has been begun is finished first, so that
    /// between two polls `start` may not change but by what was read; `end` may grow.
    ///
    /// # Errors
    /// What the system said; [`io::ErrorKind::UnexpectedEof`] where the file ends before `end`.
    pub fn poll(&mut self, file: &Arc<File>, start: u64, end: u64, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.turn >= TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = match self.cached(file, start, end) {
            Some(piece) => piece,
            None => ready!(self.poll_slow(file, start, end, cx))?,
        };
        self.turn += piece.len();
        Poll::Ready(Ok(piece))
    }

    /// What is here, or in the page cache.
    fn cached(&mut self, file: &File, start: u64, end: u64) -> Option<Bytes> {
        if let Some(piece) = self.ready.pop_front() {
            self.count(self.counted - 1);
            return Some(piece);
        }
        if self.reading.is_some() || self.is_always_slow {
            return None;
        }
        match read_cached(file, start, usize::try_from((end - start).min(PIECE)).unwrap_or(0)) {
            Ok(piece) => piece,
            Err(error) => {
                self.is_always_slow = matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM);
                // Any other is told again, in full, by the thread that waits for it.
                None
            }
        }
    }

    /// The next piece, read by another thread.
    fn poll_slow(&mut self, file: &Arc<File>, start: u64, end: u64, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.reading.is_none() {
            self.begin(file, start, end);
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())) };
        self.turn = 0;
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        self.count(0);
        let pieces = read.unwrap_or_else(|join| Err(io::Error::other(join)))?;
        let next = start + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.ready.extend(pieces);
        let Some(piece) = self.ready.pop_front() else { return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())) };
        self.count(self.ready.len());
        // Elsewhere the kernel itself reads ahead, into memory that is not ours.
        if self.batch > 1 && self.is_always_slow && next < end && READY.load(Relaxed) < MOST_READY {
            self.begin(file, next, end);
        }
        Poll::Ready(Ok(piece))
    }

    /// Another thread begins to read.
    fn begin(&mut self, file: &Arc<File>, start: u64, end: u64) {
        let left = end - start;
        let wanted = usize::try_from(left.div_ceil(PIECE)).unwrap_or(usize::MAX);
        let most = if READY.load(Relaxed) < MOST_READY { self.batch } else { 1 };
        let count = wanted.min(most);
        let length = left.min(count as u64 * PIECE);
        self.count(self.counted + count);
        let (file, pieces) = (Arc::clone(file), (0..count).map(|_| Piece::take()).collect());
        self.reading = Some(spawn_blocking(move || read_slow(&file, start, length, pieces)));
    }

    fn count(&mut self, now: usize) {
        if now > self.counted {
            READY.fetch_add(now - self.counted, Relaxed);
        } else {
            READY.fetch_sub(self.counted - now, Relaxed);
        }
        self.counted = now;
    }
}

impl Drop for PieceReader {
    fn drop(&mut self) {
        self.count(0);
    }
}

/// Reads exactly so many bytes into these pieces. Blocks.
fn read_slow(file: &File, start: u64, length: u64, mut pieces: Vec<Piece>) -> io::Result<Vec<Bytes>> {
    let (mut at, end) = (start, start + length);
    while at < end {
        let mut slices: Vec<IoSliceMut<'_>> =
            pieces.iter_mut().map(|piece| IoSliceMut::new(piece.bytes_mut())).collect();
        let mut rest = &mut slices[..];
        IoSliceMut::advance_slices(&mut rest, usize::try_from(at - start).unwrap_or(usize::MAX));
        match preadv(file, rest, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // The last may have more room than is wanted.
            Ok(read) => at = end.min(at + read as u64),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let lengths = (0..pieces.len() as u64).map(|number| (length - number * PIECE).min(PIECE));
    Ok(pieces.into_iter().zip(lengths).map(|(piece, length)| filled(piece, length as usize)).collect())
}

/// A few bytes do not keep all of the room.
fn filled(mut piece: Piece, length: usize) -> Bytes {
    if length < SMALL { Bytes::copy_from_slice(&piece.bytes_mut()[..length]) } else { piece.into_bytes(length) }
}

/// As much of the bytes as is in memory; `None`: nothing.
fn read_cached(file: &File, start: u64, length: usize) -> Result<Option<Bytes>, Errno> {
    let mut piece = Piece::take();
    let read = {
        let into = &mut piece.bytes_mut()[..length];
        match preadv2(file, &mut [IoSliceMut::new(into)], start, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => 0,
            read => read?,
        }
    };
    Ok((read > 0).then(|| filled(piece, read)))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn file(bytes: usize) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; bytes], 0).unwrap();
        Arc::new(file)
    }

    fn readers() -> [PieceReader; 4] {
        let (one, batch) = (PieceReader::default, PieceReader::in_batches);
        [one(), one().uncached(), batch(), batch().uncached()]
    }

    async fn read(mut reader: PieceReader, file: &Arc<File>, end: u64) -> Result<u64, io::ErrorKind> {
        let mut at = 0;
        while at < end {
            let piece = poll_fn(|cx| reader.poll(file, at, end, cx)).await.map_err(|error| error.kind())?;
            assert!(!piece.is_empty() && piece.iter().all(|byte| *byte == 7));
            at += piece.len() as u64;
        }
        Ok(at)
    }

    #[tokio::test]
    async fn a_file_is_read_to_its_end_from_the_page_cache_and_without_it() {
        for bytes in [1, buffers::PIECE - 1, buffers::PIECE, 10 * buffers::PIECE + 1] {
            for reader in readers() {
                assert_eq!(read(reader, &file(bytes), bytes as u64).await, Ok(bytes as u64));
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_than_what_was_promised_is_a_failure() {
        for reader in readers() {
            assert_eq!(read(reader, &file(10), 20).await, Err(io::ErrorKind::UnexpectedEof));
        }
    }

    /// Every place has bytes of its own.
    #[tokio::test]
    async fn what_is_read_in_batches_is_in_order() {
        let content: Vec<u8> = (0..11 * buffers::PIECE as u64 / 8).flat_map(u64::to_be_bytes).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content, 0).unwrap();
        let file = Arc::new(file);
        for (start, end) in [(0, content.len()), (5, content.len() - 3), (buffers::PIECE - 1, 5 * buffers::PIECE + 1)] {
            let mut reader = PieceReader::in_batches().uncached();
            let mut all = Vec::new();
            while all.len() < end - start {
                let at = (start + all.len()) as u64;
                all.extend_from_slice(&poll_fn(|cx| reader.poll(&file, at, end as u64, cx)).await.unwrap());
                assert!(reader.span(&file, at, end as u64).is_none(), "what comes next has been read");
            }
            assert!(all == content[start..end], "from {start} to {end}");
            assert_eq!(reader.counted, 0);
        }
    }

    #[tokio::test]
    async fn what_lies_ready_is_counted_until_it_is_taken() {
        let (file, end) = (file(20 * buffers::PIECE), 20 * buffers::PIECE as u64);
        let mut reader = PieceReader::in_batches().uncached();
        let piece = poll_fn(|cx| reader.poll(&file, 0, end, cx)).await.unwrap();
        assert_eq!(piece.len(), buffers::PIECE);
        assert_eq!((reader.ready.len(), reader.counted), (BATCH - 1, 2 * BATCH - 1), "as many again are being read");
    }

    #[tokio::test]
    async fn who_reads_what_is_there_lets_others_have_their_turn() {
        let (file, mut reader) = (file(20 * buffers::PIECE), PieceReader::default());
        let end = 20 * buffers::PIECE as u64;
        let (mut at, mut waited) = (0, 0);
        while at < end {
            let polled = poll_fn(|cx| Poll::Ready(reader.poll(&file, at, end, cx))).await;
            match polled {
                Poll::Ready(piece) => at += piece.unwrap().len() as u64,
                Poll::Pending => waited += 1,
            }
            if waited > 1000 {
                tokio::task::yield_now().await;
            }
        }
        assert!(waited >= 4, "{waited}");
    }
}
