//! Reading a file in pieces, without blocking the thread.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Span;
use super::buffers::{self, Piece};

/// The most that is read at once.
const PIECE: u64 = buffers::PIECE as u64;

/// Less than this is copied out of the room that it was read into.
const SMALL: usize = buffers::PIECE / 4;
/// How much is read from the page cache before the thread's other tasks have their turn.
const TURN: usize = 4 * buffers::PIECE;

/// Reads a file in pieces.
///
/// What has been written or read a moment ago is in the page cache still: that is read at once. Only what the kernel has to
/// fetch from the disk is another thread's work, whose way there and back costs more than the copy.
#[derive(Debug, Default)]
pub struct PieceReader {
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// Whether the file system has said that it cannot be asked so.
    is_always_slow: bool,
    /// Bytes that were there at once since something was waited for.
    turn: usize,
}

impl PieceReader {
    /// One for which nothing is in the page cache.
    #[cfg(test)]
    pub(crate) fn uncached() -> Self {
        Self { is_always_slow: true, ..Self::default() }
    }

    /// What lies at `start`, to be sent from there. `None`: it has to be read, or is being read.
    #[must_use]
    pub fn span(&self, file: &Arc<File>, start: u64, end: u64) -> Option<Span> {
        if self.reading.is_some() || self.is_always_slow { None } else { Span::at_hand(file, start, end) }
    }

    /// The bytes at `start`, some of them, before `end`, which is behind it. A read under way is finished first, so that
    /// between two polls `start` may not change; `end` may grow.
    ///
    /// # Errors
    /// What the system said; [`io::ErrorKind::UnexpectedEof`] where the file ends before `end`.
    pub fn poll(&mut self, file: &Arc<File>, start: u64, end: u64, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let length = usize::try_from((end - start).min(PIECE)).unwrap_or(0);
        if self.turn >= TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.reading.is_none() && !self.is_always_slow {
            match read_cached(file, start, length) {
                Ok(Some(piece)) => {
                    self.turn += piece.len();
                    return Poll::Ready(Ok(piece));
                }
                Ok(None) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => self.is_always_slow = true,
                // It is told again, in full, by the thread that waits for it.
                Err(_) => {}
            }
        }
        let reading = self.reading.get_or_insert_with(|| {
            let file = Arc::clone(file);
            spawn_blocking(move || {
                let mut piece = vec![0; length];
                file.read_exact_at(&mut piece, start).map(|()| Bytes::from(piece))
            })
        });
        self.turn = 0;
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read.unwrap_or_else(|join| Err(io::Error::other(join))))
    }
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
    Ok(match read {
        0 => None,
        // A few bytes do not keep all of the room.
        1..SMALL => Some(Bytes::copy_from_slice(&piece.bytes_mut()[..read])),
        _ => Some(piece.into_bytes(read)),
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn file(bytes: usize) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; bytes], 0).unwrap();
        Arc::new(file)
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
            for reader in [PieceReader::default(), PieceReader::uncached()] {
                assert_eq!(read(reader, &file(bytes), bytes as u64).await, Ok(bytes as u64));
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_than_what_was_promised_is_a_failure() {
        for reader in [PieceReader::default(), PieceReader::uncached()] {
            assert_eq!(read(reader, &file(10), 20).await, Err(io::ErrorKind::UnexpectedEof));
        }
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
