//! The file of one spooled body: without a name from the start, so that nothing is left behind however we end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::budget::Budget;
use crate::error::{Error, Reason};

/// Whoever closes a file without a name waits until its blocks have been given back (on ext4 0.7 ms for 16 MiB, 60 ms for 1 GiB,
/// 0.8 s for 4 GiB): from this size on that is another thread's work.
const LARGE: u64 = 16 << 20;

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

/// A failure of the file has the spool's reason.
pub(super) fn failed(source: io::Error) -> Error {
    let reason = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE) => Reason::SpoolFull,
        _ => Reason::SpoolFailed,
    };
    Error::new(reason).source(source).detail("the spool file in `spool.dir`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: usize) -> Arc<File> {
        let file = unnamed(&std::env::temp_dir()).unwrap();
        file.write_all_at(&vec![7; bytes], 0).unwrap();
        Arc::new(file)
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
}
