//! The file of one spooled body: without a name from the start, so that nothing is left behind however we end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::budget::Budget;
use crate::error::{Error, Reason};

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

/// A failure of the file has the spool's reason.
pub(super) fn failed(source: io::Error) -> Error {
    let reason = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE) => Reason::SpoolFull,
        _ => Reason::SpoolFailed,
    };
    Error::new(reason).source(source).detail("the spool file in `spool.dir`")
}
