//! A disk that fails, hangs, or stops at one step, when it is told to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicI32;
use std::sync::{Condvar, Mutex};

use super::*;
use crate::cache::store::disk::{Folder, Medium, Temporary};

/// A step at which it can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes are written to the beginning of a file: of a large one, the last.
    Head,
    /// A file is given its name.
    Name,
    /// The file system is synced.
    Sync,
}

#[derive(Debug, Default)]
struct Stop {
    at: Option<Step>,
    is_held: bool,
}

#[derive(Debug, Default)]
pub(super) struct Bad {
    /// The error of the next writes. 0: none.
    pub(super) write_error: AtomicI32,
    /// Writes that succeed before.
    pub(super) good_writes: AtomicI32,
    pub(super) read_error: AtomicI32,
    pub(super) remove_error: AtomicI32,
    pub(super) copy_error: AtomicI32,
    pub(super) reads: AtomicU64,
    pub(super) syncs: AtomicU64,
    hangs: Mutex<bool>,
    goes_on: Condvar,
    stop: Mutex<Stop>,
    stopped: Condvar,
}

fn failing(error: &AtomicI32) -> io::Result<()> {
    match error.load(Relaxed) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

impl Bad {
    /// Whether all who read or copy wait.
    pub(super) fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.goes_on.notify_all();
    }

    /// Stops the next who comes to this step, and nobody else.
    pub(super) fn catch(&self, step: Step) {
        self.stop.lock().unwrap().at = Some(step);
    }

    /// Waits until he is there.
    pub(super) fn until_caught(&self) {
        until(|| self.stop.lock().unwrap().is_held);
    }

    pub(super) fn let_go(&self) {
        self.stop.lock().unwrap().is_held = false;
        self.stopped.notify_all();
    }

    fn wait_while_it_hangs(&self) {
        let hangs = self.hangs.lock().unwrap();
        drop(self.goes_on.wait_while(hangs, |hangs| *hangs).unwrap());
    }

    fn come_to(&self, step: Step) {
        let mut stop = self.stop.lock().unwrap();
        if stop.at == Some(step) {
            *stop = Stop { at: None, is_held: true };
            drop(self.stopped.wait_while(stop, |stop| stop.is_held).unwrap());
        }
    }
}

impl Medium for Bad {
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if at == 0 {
            self.come_to(Step::Head);
        }
        match self.write_error.load(Relaxed) {
            0 => file.write_all_at(bytes, at),
            _ if self.good_writes.fetch_sub(1, Relaxed) > 0 => file.write_all_at(bytes, at),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.reads.fetch_add(1, Relaxed);
        self.wait_while_it_hangs();
        failing(&self.read_error)?;
        file.read_exact_at(bytes, at)
    }

    fn read_cached(&self, file: &File, bytes: &mut [u8], at: u64) -> bool {
        !*self.hangs.lock().unwrap() && System.read_cached(file, bytes, at)
    }

    fn publish(&self, folder: &Folder, name: Temporary, key: &Key) -> io::Result<()> {
        self.come_to(Step::Name);
        folder.publish(name, key)
    }

    fn remove(&self, folder: &Folder, key: &Key) -> io::Result<()> {
        failing(&self.remove_error)?;
        folder.remove(key)
    }

    fn copy(&self, from: &File, from_at: u64, to: &File, to_at: u64, length: u64) -> io::Result<()> {
        self.wait_while_it_hangs();
        failing(&self.copy_error)?;
        System.copy(from, from_at, to, to_at, length)
    }

    fn sync(&self, folder: &Folder) -> io::Result<()> {
        self.syncs.fetch_add(1, Relaxed);
        self.come_to(Step::Sync);
        folder.sync()
    }
}

pub(super) fn open_bad(settings: &Settings) -> (Arc<Store>, Arc<Bad>) {
    open_as_bad(settings, Bad::default())
}

pub(super) fn open_as_bad(settings: &Settings, bad: Bad) -> (Arc<Store>, Arc<Bad>) {
    let bad = Arc::new(bad);
    let mut store = None;
    // Threads of the one before may have it still.
    until(|| {
        store = Store::open_on(settings, Arc::clone(&bad) as _).ok();
        store.is_some()
    });
    let store = store.unwrap();
    until(|| store.numbers().is_indexed);
    (store, bad)
}

/// How many there are, with those that are being written.
pub(super) fn files(path: &Path) -> usize {
    let count = |name: &Path| std::fs::read_dir(name).map_or(0, Iterator::count);
    let outer = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    outer
        .map(|outer| match outer.ends_with("tmp") {
            true => count(&outer),
            false => std::fs::read_dir(outer).unwrap().map(|inner| count(&inner.unwrap().path())).sum(),
        })
        .sum()
}
