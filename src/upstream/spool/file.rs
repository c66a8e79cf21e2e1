//! The file of one spooled body: without a name from the start, so that nothing is left behind however we end.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::budget::Budget;
use crate::error::{Error, Reason};
use crate::runtime::Span;
use crate::runtime::buffers::{self, Piece};

/// The most that is read at once.
const PIECE: u64 = buffers::PIECE as u64;

/// Less than this is copied out of the room that it was read into.
const SMALL: usize = buffers::PIECE / 4;
/// Whoever closes a file without a name waits until its blocks have been given back (on ext4 0.7 ms for 16 MiB, 60 ms for 1 GiB,
/// 0.8 s for 4 GiB): from this size on that is another thread's work.
const LARGE: u64 = 16 << 20;
/// How much is read from the page cache before the thread's other tasks have their turn.
const TURN: usize = 4 * buffers::PIECE;

fn unnamed(folder: &std::path::Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // A file system without O_TMPFILE (overlayfs before Linux 6.3, NFS): a name for a moment.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => named_for_a_moment(folder),
        Err(error) => Err(error.into()),
    }
}

fn named_for_a_moment(folder: &std::path::Path) -> io::Result<File> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!(".hostler-spool-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = folder.join(name);
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    std::fs::remove_file(&path)?;
    Ok(file.into())
}

/// The file of one body, made when it is first written to.
#[derive(Debug, Default)]
pub(super) struct SpoolFile {
    file: Option<Arc<File>>,
    length: u64,
}

impl SpoolFile {
    /// The open file, if there is one.
    pub(super) fn handle(&self) -> Option<Arc<File>> {
        self.file.clone()
    }

    /// Where the next bytes go: the file, or the folder for a new one.
    pub(super) fn place(&self, budget: &Budget) -> Place {
        self.handle().map_or_else(|| Place::In(budget.folder()), Place::File)
    }

    /// Nobody needs its bytes any more. They are gone with the last handle, and where they are many, before: whoever holds
    /// that then closes an empty file.
    pub(super) fn forget(&mut self) {
        let length = std::mem::take(&mut self.length);
        let Some(file) = self.file.take().filter(|_| length >= LARGE) else { return };
        // Without a runtime the process is ending.
        if let Ok(runtime) = Handle::try_current() {
            // An error leaves it to the last handle.
            drop(runtime.spawn_blocking(move || file.set_len(0)));
        }
    }

    /// The file has so many bytes now.
    pub(super) fn keep(&mut self, file: Arc<File>, length: u64) {
        (self.file, self.length) = (Some(file), length);
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A file, or the folder to make one in.
pub(super) enum Place {
    File(Arc<File>),
    In(PathBuf),
}

impl Place {
    /// Blocks.
    fn open(self) -> io::Result<Arc<File>> {
        match self {
            Self::File(file) => Ok(file),
            Self::In(folder) => unnamed(&folder).map(Arc::new),
        }
    }
}

/// Writes all of `bytes` at `offset`. Gives file and bytes back.
pub(super) async fn write<B>(place: Place, bytes: B, offset: u64) -> Result<(Arc<File>, B), Error>
where
    B: AsRef<[u8]> + Send + 'static,
{
    let written = spawn_blocking(move || {
        let file = place.open()?;
        file.write_all_at(bytes.as_ref(), offset).map(|()| (file, bytes))
    });
    outcome(written.await)
}

/// Begins to write all of the pieces, one behind the other, at `offset`. The caller keeps them until that is done: the room
/// that a piece lies in goes back to the thread that lets go of it.
pub(super) fn write_pieces(place: Place, pieces: Vec<Bytes>, offset: u64) -> JoinHandle<io::Result<Arc<File>>> {
    spawn_blocking(move || {
        let (file, mut at) = (place.open()?, offset);
        for piece in &pieces {
            file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(file)
    })
}

/// How it went.
pub(super) fn outcome<T>(joined: Result<io::Result<T>, JoinError>) -> Result<T, Error> {
    joined.unwrap_or_else(|join| Err(io::Error::other(join))).map_err(failed)
}

/// Reads a file in pieces, without blocking the thread.
///
/// What has been written a moment ago is in the page cache still: that is read at once. Only what the kernel has to fetch
/// from the disk is another thread's work, whose way there and back costs more than the copy.
#[derive(Debug, Default)]
pub(super) struct PieceReader {
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// Whether the file system has said that it cannot be asked so.
    is_always_slow: bool,
    /// Bytes that were there at once since something was waited for.
    turn: usize,
}

impl PieceReader {
    /// One for which nothing is in the page cache.
    #[cfg(test)]
    pub(super) fn uncached() -> Self {
        Self { is_always_slow: true, ..Self::default() }
    }

    /// What lies at `start`, to be sent from there. `None`: it has to be read, or is being read.
    pub(super) fn span(&self, file: Arc<File>, start: u64, end: u64) -> Option<Span> {
        if self.reading.is_some() || self.is_always_slow { None } else { Span::at_hand(file, start, end) }
    }

    /// The bytes at `start`, some of them, before `end`. A read under way is finished first, so that between two polls
    /// `start` may not change; `end` may grow.
    pub(super) fn poll(
        &mut self,
        file: &Arc<File>,
        start: u64,
        end: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Error>> {
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
        let read = ready!(std::pin::Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(outcome(read))
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

fn failed(source: io::Error) -> Error {
    let reason = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE) => Reason::SpoolFull,
        _ => Reason::SpoolFailed,
    };
    Error::new(reason).source(source).detail("the spool file in `spool.dir`")
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn file(bytes: usize) -> Arc<File> {
        let file = unnamed(&std::env::temp_dir()).unwrap();
        file.write_all_at(&vec![7; bytes], 0).unwrap();
        Arc::new(file)
    }

    async fn read(mut reader: PieceReader, file: &Arc<File>, end: u64) -> Result<u64, Reason> {
        let mut at = 0;
        while at < end {
            let piece = poll_fn(|cx| reader.poll(file, at, end, cx)).await.map_err(|error| error.reason)?;
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
    async fn a_file_that_is_shorter_than_what_was_written_is_a_failure() {
        for reader in [PieceReader::default(), PieceReader::uncached()] {
            assert_eq!(read(reader, &file(10), 20).await, Err(Reason::SpoolFailed));
        }
    }

    /// How long the file still is once all that other threads had to do is done.
    fn left_of(bytes: u64) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (mut spool_file, handle) = (SpoolFile::default(), file(1));
            // Most of it is a hole.
            handle.set_len(bytes).unwrap();
            spool_file.keep(Arc::clone(&handle), bytes);
            drop(spool_file);
            let before = handle.metadata().unwrap().len();
            assert!(before == bytes || before == 0);
            spawn_blocking(|| ()).await.unwrap();
            handle.metadata().unwrap().len()
        })
    }

    #[test]
    fn a_large_file_is_emptied_by_another_thread_before_it_is_closed() {
        assert_eq!((left_of(LARGE), left_of(1 << 32)), (0, 0));
        assert_eq!(left_of(LARGE - 1), LARGE - 1, "it is as soon closed");
    }

    #[test]
    fn a_file_that_nobody_runs_for_any_more_is_closed_all_the_same() {
        let (mut spool_file, handle) = (SpoolFile::default(), file(1));
        spool_file.keep(Arc::clone(&handle), LARGE);
        drop(spool_file);
        assert_eq!(Arc::strong_count(&handle), 1);
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
