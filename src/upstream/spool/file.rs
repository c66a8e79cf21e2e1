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
use tokio::task::{JoinHandle, spawn_blocking};

use super::budget::Budget;
use crate::error::{Error, Reason};
use crate::runtime::buffers::{self, Piece};

/// The most that is read at once.
const PIECE: u64 = buffers::PIECE as u64;

/// Makes a file without a name in `folder`.
async fn create(folder: PathBuf) -> io::Result<Arc<File>> {
    join(spawn_blocking(move || unnamed(&folder))).await.map(Arc::new)
}

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
pub(super) struct SpoolFile(Option<Arc<File>>);

impl SpoolFile {
    /// The open file, if there is one.
    pub(super) fn handle(&self) -> Option<Arc<File>> {
        self.0.clone()
    }

    /// Where the next bytes go: the file, or the folder for a new one.
    pub(super) fn place(&self, budget: &Budget) -> Place {
        self.handle().map_or_else(|| Place::In(budget.folder()), Place::File)
    }

    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    pub(super) fn keep(&mut self, file: Arc<File>) {
        self.0 = Some(file);
    }
}

/// A file, or the folder to make one in.
pub(super) enum Place {
    File(Arc<File>),
    In(PathBuf),
}

/// Writes all of `bytes` at `offset`. Gives file and bytes back.
pub(super) async fn write<B>(place: Place, bytes: B, offset: u64) -> Result<(Arc<File>, B), Error>
where
    B: AsRef<[u8]> + Send + 'static,
{
    let written = async {
        let file = match place {
            Place::File(file) => file,
            Place::In(folder) => create(folder).await?,
        };
        join(spawn_blocking(move || file.write_all_at(bytes.as_ref(), offset).map(|()| (file, bytes)))).await
    };
    written.await.map_err(failed)
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
}

impl PieceReader {
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
        if self.reading.is_none() && !self.is_always_slow {
            match read_cached(file, start, length) {
                Ok(Some(piece)) => return Poll::Ready(Ok(piece)),
                Ok(None) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.is_always_slow = true,
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
        let read = ready!(std::pin::Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read.unwrap_or_else(|join| Err(io::Error::other(join))).map_err(failed))
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
    Ok((read > 0).then(|| piece.into_bytes(read)))
}

async fn join<T>(handle: JoinHandle<io::Result<T>>) -> io::Result<T> {
    handle.await.unwrap_or_else(|join| Err(io::Error::other(join)))
}

fn failed(source: io::Error) -> Error {
    let reason = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE) => Reason::SpoolFull,
        _ => Reason::SpoolFailed,
    };
    Error::new(reason).source(source).detail("the spool file in `spool.dir`")
}
