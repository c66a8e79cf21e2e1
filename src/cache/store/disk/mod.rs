//! The store's disk: its folder, its threads, and what is written where.
//!
//! # Why no wrong byte is served
//! A file gets its name when it is whole, so that a process that is killed leaves no part of one: what it has written is the
//! kernel's. Where the system itself goes down, a name may be there before its bytes are. Syncing each file before would cost a
//! turn of the disk for each; instead its length, and a checksum over every part of it, are looked at with each reading, before
//! any byte goes out. A file that fails is dropped and counted. Only purges are synced, before they are answered for.

mod body;
mod folder;
mod journal;
pub(super) mod layout;
mod medium;
mod name;
mod owed;
pub(super) mod parse;
mod threads;
mod walk;
mod write;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use rustix::io::Errno;

pub(super) use self::body::{FileBody, OnFile, Pieces, Wanted, cut};
pub use self::folder::OpenError;
pub(super) use self::folder::{Folder, Temporary};
use self::journal::Journal;
pub(super) use self::medium::{Medium, System};
use self::owed::Owed;
pub use self::parse::body_of_file;
pub(super) use self::threads::Threads;
pub(super) use self::walk::is_bad;
pub(super) use self::write::{Loaded, NotWritten, Strike};
use super::Key;
use super::rules::Rule;

/// How long nothing is written to a disk that has failed.
const REST: Duration = Duration::from_secs(1);
/// For how long nothing has happened, where a disk will not go on: who has begun to read a body is cut.
const DEAD: Duration = Duration::from_secs(30);
const STRIPES: usize = 64;
/// Of a moment, the bits that count within one run.
pub(super) const EPOCH: u32 = 38;

/// The disk.
#[derive(Debug)]
pub(super) struct Disk {
    folder: Folder,
    pub(super) medium: Arc<dyn Medium>,
    pub(super) threads: Threads,
    journal: Journal,
    /// Held by one thread while it does something to the name of a key.
    stripes: [Mutex<()>; STRIPES],
    /// Held by many while they give a file its name, and by one while the journal is emptied.
    gate: RwLock<()>,
    /// What has to be done to files, and to the journal.
    pub(super) owed: Owed,
    /// Who is about to strike files, or knows of one that is nobody's and has not been removed.
    strikes: AtomicUsize,
    is_indexed: AtomicBool,
    /// Files that are being copied, or will be.
    pub(super) copies: AtomicUsize,
    /// How many want to empty the journal: one does, and looks again if there were others.
    settling: AtomicUsize,
    /// In milliseconds since `begun`.
    rests_until: AtomicU64,
    /// Jobs that were done when somebody had waited for too long, and one more.
    hung_at: AtomicU64,
    /// When that was, in milliseconds since `begun`.
    hung_since: AtomicU64,
    begun: Instant,
}

impl Disk {
    /// Takes a folder. With the first moment of this run, and the purges whose work may not be done.
    pub(super) fn open(
        path: &Path,
        medium: Arc<dyn Medium>,
        waiting: u64,
    ) -> Result<(Self, u64, Vec<Rule>), OpenError> {
        let (folder, epoch) = Folder::take(path)?;
        let now = epoch << EPOCH;
        let failed = |what| move |error| OpenError::new(path, what, error);
        let (journal, rules) = Journal::open(&folder, now).map_err(failed("its file `purges` cannot be used"))?;
        let threads = Threads::start(waiting).map_err(failed("no threads can be started for it"))?;
        let disk = Self {
            folder,
            medium,
            threads,
            journal,
            stripes: std::array::from_fn(|_| Mutex::default()),
            gate: RwLock::default(),
            owed: Owed::default(),
            strikes: AtomicUsize::new(0),
            is_indexed: AtomicBool::new(false),
            copies: AtomicUsize::new(0),
            settling: AtomicUsize::new(0),
            rests_until: AtomicU64::new(0),
            hung_at: AtomicU64::new(0),
            hung_since: AtomicU64::new(0),
            begun: Instant::now(),
        };
        Ok((disk, now, rules))
    }

    /// Whether all files have been found: who sees that sees what has come of each.
    pub(super) fn is_indexed(&self) -> bool {
        self.is_indexed.load(Acquire)
    }

    /// Whatever is done to the name of this key, nobody else does anything to it meanwhile.
    fn hold(&self, key: &Key) -> MutexGuard<'_, ()> {
        self.stripes[usize::from(key.as_bytes()[31]) % STRIPES].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_gate(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it has failed a moment ago: nothing is written to it.
    fn rests(&self) -> bool {
        self.now() < self.rests_until.load(Relaxed)
    }

    fn rest(&self) {
        self.rests_until.store(self.now() + REST.as_millis() as u64, Relaxed);
    }

    /// Whether somebody has waited for too long, and nothing has happened since.
    pub(super) fn hangs(&self) -> bool {
        self.hung_at.load(Relaxed) == self.threads.done() + 1
    }

    /// Somebody has waited for too long, since so many jobs were done.
    pub(super) fn note_hung(&self, done: u64) {
        if self.hung_at.swap(done + 1, Relaxed) != done + 1 {
            self.hung_since.store(self.now(), Relaxed);
        }
    }

    /// Whether nothing has happened for so long that nothing will.
    fn is_dead(&self) -> bool {
        self.hangs() && self.now().saturating_sub(self.hung_since.load(Relaxed)) >= DEAD.as_millis() as u64
    }

    /// Opens the file of a key.
    fn open_file(&self, key: &Key) -> io::Result<Option<File>> {
        self.folder.open(key, false)
    }
}

/// A file that has no name of its own yet. Dropped so, it is removed; never on a runtime's thread.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) file: Arc<File>,
    name: Temporary,
    /// It has its name, or has been removed.
    is_settled: AtomicBool,
}

impl Disk {
    fn create(&self) -> io::Result<Unfinished> {
        let (file, name) = self.folder.create()?;
        Ok(Unfinished { file: Arc::new(file), name, is_settled: AtomicBool::new(false) })
    }

    /// Blocks.
    fn publish(&self, unfinished: &Unfinished, key: &Key) -> io::Result<()> {
        self.medium.publish(&self.folder, unfinished.name, key)?;
        unfinished.is_settled.store(true, Relaxed);
        Ok(())
    }

    /// Blocks.
    fn discard(&self, unfinished: &Unfinished) {
        if !unfinished.is_settled.swap(true, Relaxed) {
            self.folder.discard(unfinished.name);
        }
    }
}

/// Whether the disk takes nothing more, and may when there is room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOSPC | Errno::DQUOT))
}
