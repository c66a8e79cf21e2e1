//! Finding all files after a start, while the store is in service.
//!
//! Several threads go through the folders, behind everybody else, and read the beginning of each file. What somebody asks for
//! meanwhile is looked for under its name. Whatever was purged before the last run ended is struck now, at the latest; a file
//! that is not as it was written is removed and counted. That a body is as it was written, nobody looks at before it is read.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::{Arc, Weak};
use std::thread;

use rustix::process::setpriority_process;

use super::super::Key;
use super::super::Store;
use super::super::counters::count;
use super::super::index::{Level, New};
use super::super::record::{Kind, Record};
use super::super::rules::FEW;
use super::super::stale::StaleFrom;
use super::layout::Prelude;
use super::{Disk, EPOCH};

/// Folders of the first level.
const FOLDERS: usize = 256;
/// How far behind others these threads are, where there is work for all.
const NICE: i32 = 10;

/// What the threads share.
struct Walk {
    next: AtomicUsize,
    left: AtomicUsize,
}

/// One of the threads, however it ends.
struct Walker {
    store: Weak<Store>,
    walk: Arc<Walk>,
}

impl Drop for Walker {
    fn drop(&mut self) {
        let Some(store) = self.store.upgrade() else { return };
        if thread::panicking()
            && let Some(disk) = &store.disk
        {
            disk.owed.note_undone();
        }
        if self.walk.left.fetch_sub(1, AcqRel) == 1 {
            store.end_walk();
        }
    }
}

impl Store {
    /// Starts to find all files.
    pub(in super::super) fn start_walk(self: &Arc<Self>, threads: usize) -> io::Result<()> {
        let walk = Arc::new(Walk { next: AtomicUsize::new(0), left: AtomicUsize::new(threads) });
        for number in 0..threads {
            let (store, walk) = (Arc::downgrade(self), Arc::clone(&walk));
            thread::Builder::new().name(format!("cache-index-{number}")).spawn(move || {
                // Of the calling thread, on Linux. Where it is not allowed, it is as well done without.
                let _ = setpriority_process(None, NICE);
                let _walker = Walker { store: Weak::clone(&store), walk: Arc::clone(&walk) };
                let mut room = Vec::new();
                loop {
                    let folder = walk.next.fetch_add(1, Relaxed);
                    // Nobody needs it any more, once the store is gone.
                    let Some(store) = store.upgrade().filter(|_| folder < FOLDERS) else { break };
                    store.walk_folder(folder as u8, &mut room);
                }
            })?;
        }
        Ok(())
    }

    /// Enters what is in one of the folders. Blocks.
    pub(in super::super) fn walk_folder(&self, number: u8, room: &mut Vec<u8>) {
        let Some(disk) = &self.disk else { return };
        let mut keys = Vec::new();
        if let Err(error) = disk.folder.keys_in(number, |key| keys.push(key)) {
            // What is in it may have been purged, and is found by whoever comes next.
            disk.owed.note_undone();
            self.complain("a folder cannot be read", &error);
        }
        for key in keys {
            self.find_file(disk, &key, room);
            // Room is made by those threads that write: here, nobody has written.
            while self.index.account(Level::Disk).is_over() && self.evict_file(disk) {}
        }
    }

    fn find_file(&self, disk: &Disk, key: &Key, room: &mut Vec<u8>) {
        match self.read_head(disk, key, room) {
            Ok(None) => {}
            Ok(Some((prelude, record))) => {
                self.enter_found(disk, &prelude, &record);
            }
            Err(error) if is_bad(&error) => {
                count(&self.counters.corrupted);
                self.complain("a file is not as it was written, and is removed", &error);
                self.remove_file(disk, key);
            }
            Err(error) => {
                disk.owed.note_undone();
                count(&self.counters.read_failures);
                self.complain("a file cannot be read", &error);
            }
        }
    }

    /// Enters a file that was found. Its id, and since when it is stale; `None`: it is not to be served.
    pub(in super::super) fn enter_found(
        &self,
        disk: &Disk,
        prelude: &Prelude,
        record: &Record,
    ) -> Option<(u64, StaleFrom)> {
        let rules = self.rules();
        let fate = rules.verdict(prelude.since, record.host(), record.path(), record.tags());
        // It was written by somebody who has counted further: this count began anew.
        let is_of_the_future = prelude.since >> EPOCH > self.now() >> EPOCH;
        let Some(purged) = fate.stays().filter(|_| !is_of_the_future) else {
            drop(rules);
            self.remove_file(disk, &prelude.key);
            return None;
        };
        let (id, stale_from) = (self.tick(), purged.min(prelude.stale_from.told(self.steady.steady())));
        let labels =
            (record.kind() == Kind::Object).then(|| self.label(&prelude.key, id, record, prelude.primary.as_ref()));
        let new = New { key: prelude.key, id, since: prelude.since, labels, stale_from, instead_of: None };
        let entered = self.index.put_found(new, prelude.file());
        drop(rules);
        if let Err(new) = entered {
            self.unlabel(&new.key, new.id, new.labels);
            return None;
        }
        if stale_from < prelude.stale_from {
            self.mark_file(disk, &prelude.key, id);
        }
        Some((id, stale_from))
    }

    fn end_walk(&self) {
        let Some(disk) = &self.disk else { return };
        self.rules_mut().keep(FEW);
        disk.is_indexed.store(true, Release);
        self.settle_journal(disk, true);
    }
}

/// Whether an error means that a file is not as it was written, rather than that it cannot be read.
pub(in super::super) fn is_bad(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
