//! The folder of the files: who has it, what its names are, and nothing else in it is touched.
//!
//! `lock` is held by the one process that has the folder; `purges` is the journal; `tmp/` has files that are being written;
//! `ab/cd/abcd…` are the stored responses, named by their keys.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, fdatasync, flock, mkdirat, openat, renameat, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::super::Key;
use super::name::{from_hex, hex, path_of};

const LOCK: &str = "lock";
const TEMPORARY: &str = "tmp";
const FOLDER: Mode = Mode::RWXU;
const FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// How often a folder may be taken: of a moment, so much is left beside what counts within one run.
const MOST_EPOCHS: u64 = (1 << (u64::BITS - super::EPOCH)) - 8;
/// Letters of the name of a temporary file.
const TEMPORARY_NAME: usize = 16;

/// Why a folder cannot be used.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    what: &'static str,
    source: Option<io::Error>,
}

impl OpenError {
    pub(in super::super) fn new(path: &Path, what: &'static str, source: io::Error) -> Self {
        Self { path: path.to_owned(), what, source: Some(source) }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the cache's folder {}: {}", self.path.display(), self.what)?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// The folder, which is ours as long as this is held.
#[derive(Debug)]
pub(in super::super) struct Folder {
    root: OwnedFd,
    path: PathBuf,
    /// Locked.
    _lock: File,
    names: AtomicU64,
}

/// The name of a file that is being written.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Temporary(u64);

impl Temporary {
    fn name(self) -> String {
        format!("{TEMPORARY}/{:0TEMPORARY_NAME$x}", self.0)
    }
}

fn open_folder(from: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(from, name, flags, Mode::empty())
}

/// Makes a folder that may be there.
fn make_folder(from: impl AsFd, name: impl rustix::path::Arg) -> Result<(), Errno> {
    match mkdirat(from, name, FOLDER) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

impl Folder {
    /// Opens it, or makes it; takes it. With the number of times it was taken before, or a larger one.
    pub(super) fn take(path: &Path) -> Result<(Self, u64), OpenError> {
        let failed = |what| move |error: Errno| OpenError::new(path, what, error.into());
        make_folder(CWD, path).map_err(failed("cannot be made"))?;
        // The operator's own path: links may lead to it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(failed("cannot be opened"))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock: File =
            openat(&root, LOCK, flags, FILE).map_err(failed("its file `lock` cannot be opened for writing"))?.into();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::AGAIN => OpenError {
                path: path.to_owned(),
                what: "another process has it: two cannot share one folder, so give each its own `cache.disk.path`",
                source: None,
            },
            error => OpenError::new(path, "its file `lock` cannot be locked", error.into()),
        })?;
        let epoch = next_epoch(&lock).map_err(|error| OpenError::new(path, "cannot be written to", error))?;
        make_folder(&root, TEMPORARY).map_err(failed("a folder cannot be made in it"))?;
        let folder = Self { root, path: path.to_owned(), _lock: lock, names: AtomicU64::new(0) };
        folder.remove_temporary().map_err(failed("what was being written cannot be removed"))?;
        Ok((folder, epoch))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// What somebody was writing who had the folder before.
    fn remove_temporary(&self) -> Result<(), Errno> {
        let folder = open_folder(&self.root, TEMPORARY)?;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.len() == TEMPORARY_NAME && name.iter().all(u8::is_ascii_hexdigit) {
                unlinkat(&folder, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// A new file under a temporary name.
    pub(super) fn create(&self) -> io::Result<(File, Temporary)> {
        let name = Temporary(self.names.fetch_add(1, Relaxed));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok((openat(&self.root, name.name(), flags, FILE)?.into(), name))
    }

    /// Gives a file its name, in the place of whatever had it.
    pub(in super::super) fn publish(&self, temporary: Temporary, key: &Key) -> io::Result<()> {
        let (from, to) = (temporary.name(), path_of(key));
        match renameat(&self.root, &from, &self.root, &to) {
            Err(Errno::NOENT) => {}
            renamed => return Ok(renamed?),
        }
        make_folder(&self.root, &to[..2])?;
        make_folder(&self.root, &to[..5])?;
        Ok(renameat(&self.root, &from, &self.root, &to)?)
    }

    /// Removes what was not given its name.
    pub(super) fn discard(&self, temporary: Temporary) {
        // What is left is removed at the next start.
        let _ = unlinkat(&self.root, temporary.name(), AtFlags::empty());
    }

    /// Opens the file of a key. `None`: there is none.
    pub(super) fn open(&self, key: &Key, writable: bool) -> io::Result<Option<File>> {
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(&self.root, path_of(key), flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the file of a key, if there is one.
    pub(in super::super) fn remove(&self, key: &Key) -> io::Result<()> {
        match unlinkat(&self.root, path_of(key), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the system write whatever it has not written yet of the whole file system.
    pub(in super::super) fn sync(&self) -> io::Result<()> {
        Ok(syncfs(&self.root)?)
    }

    /// The keys of the files in one of the 256 folders, by folder.
    pub(super) fn keys_in(&self, number: u8, mut found: impl FnMut(Key)) -> io::Result<()> {
        let first = format!("{number:02x}");
        let outer = match open_folder(&self.root, first.as_str()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            outer => outer?,
        };
        for entry in Dir::read_from(&outer)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.len() != 2 || !name.iter().all(u8::is_ascii_hexdigit) {
                continue;
            }
            let inner = match open_folder(&outer, entry.file_name()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                inner => inner?,
            };
            for entry in Dir::new(inner)? {
                let entry = entry?;
                let key = from_hex(entry.file_name().to_bytes());
                let is_at_home = |key: &Key| {
                    let hex = hex(key);
                    hex[..2] == *first.as_bytes() && hex[2..4] == *name
                };
                if let Some(key) = key.filter(is_at_home) {
                    found(key);
                }
            }
        }
        Ok(())
    }
}

/// How often the folder has been taken, this time included: so that what happens later has a larger number, whatever clocks say.
/// A count that cannot be read is taken from the clock, which is larger.
fn next_epoch(lock: &File) -> io::Result<u64> {
    let mut text = String::new();
    let read = (&mut (&*lock)).take(64).read_to_string(&mut text);
    let minutes = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60);
    let before = match read {
        Ok(0) => 0,
        // One that is larger than there is room for was not counted by us.
        Ok(_) => text.trim().parse().ok().filter(|count| *count < MOST_EPOCHS).unwrap_or_else(minutes),
        Err(_) => minutes(),
    };
    // A gap, for whoever has counted further than he had room for.
    let epoch: u64 = before + 4;
    lock.write_all_at(format!("{epoch:<20}\n").as_bytes(), 0)?;
    fdatasync(lock)?;
    Ok(epoch)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(first: u8) -> Key {
        let mut key = [0; 32];
        key[0] = first;
        Key::from_bytes(key)
    }

    #[test]
    fn a_folder_is_one_process_own_and_nobody_elses_to_read() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("cache");
        let (folder, first) = Folder::take(&path).unwrap();
        let error = Folder::take(&path).unwrap_err().to_string();
        assert!(error.contains("another process has it"), "{error}");
        let (file, name) = folder.create().unwrap();
        folder.publish(name, &key(0xab)).unwrap();
        let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(["", "ab", "ab/00", "tmp"].map(|name| mode(path.join(name))), [0o700; 4]);
        drop(folder);
        let (_folder, second) = Folder::take(&path).unwrap();
        assert!(second > first, "what happens later has a larger number");
    }

    #[test]
    fn a_count_that_cannot_be_read_is_larger_than_any_before() {
        let path = tempfile::tempdir().unwrap();
        for damaged in ["\0\0\0\0", "-1", "x", "67108864", "18446744073709551615", "99999999999999999999999"] {
            std::fs::write(path.path().join(LOCK), damaged).unwrap();
            let (_, epoch) = Folder::take(path.path()).unwrap();
            assert!(epoch > 1_000_000 && epoch < 1 << 26, "{epoch}");
        }
    }

    #[test]
    fn only_what_has_a_name_of_ours_is_found_or_removed() {
        let path = tempfile::tempdir().unwrap();
        let (folder, _) = Folder::take(path.path()).unwrap();
        let (_, left) = folder.create().unwrap();
        let (_, name) = folder.create().unwrap();
        folder.publish(name, &key(0xab)).unwrap();
        let strange = ["tmp/notes.txt", "ab/00/notes.txt", "ab/notes", "notes"];
        for name in strange {
            std::fs::write(path.path().join(name), b"precious").unwrap();
        }
        // In a folder that is not its own.
        std::fs::write(path.path().join("ab/00").join(String::from_utf8_lossy(&hex(&key(1))).as_ref()), b"").unwrap();
        std::os::unix::fs::symlink("ab", path.path().join("cd")).unwrap();
        drop(folder);
        let (folder, _) = Folder::take(path.path()).unwrap();
        assert!(!path.path().join(left.name()).exists(), "what was being written is gone");
        let mut found = Vec::new();
        for number in 0..=255 {
            folder.keys_in(number, |key| found.push(key)).unwrap();
        }
        assert_eq!(found, [key(0xab)]);
        assert!(folder.open(&key(0xab), false).unwrap().is_some());
        folder.remove(&key(0xab)).unwrap();
        folder.remove(&key(0xab)).unwrap();
        assert!(folder.open(&key(0xab), false).unwrap().is_none());
        assert!(strange.iter().all(|name| path.path().join(name).exists()));
    }
}
