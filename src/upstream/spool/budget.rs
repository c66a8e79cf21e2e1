//! The one budget for all bodies of the process.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config;

/// The one budget for all bodies of the process, in memory and on disk.
#[derive(Debug, Default)]
pub struct Budget {
    memory: Account,
    disk: Account,
    files: Account,
    folder: Mutex<PathBuf>,
}

#[derive(Debug, Default)]
struct Account {
    used: AtomicU64,
    limit: AtomicU64,
}

impl Account {
    fn take(&self, bytes: u64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Budget {
    /// A budget with these bounds.
    #[must_use]
    pub fn new(config: &config::Spool) -> Arc<Self> {
        let budget = Self::default();
        budget.configure(config);
        budget.allow_files(usize::MAX);
        Arc::new(budget)
    }

    /// Changes the bounds. What is in use stays in use.
    pub fn configure(&self, config: &config::Spool) {
        self.memory.limit.store(config.memory, Ordering::Relaxed);
        self.disk.limit.store(config.disk, Ordering::Relaxed);
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&config.dir);
    }

    /// Changes how many files there may be. Each is a descriptor that somebody else may need.
    pub fn allow_files(&self, limit: usize) {
        self.files.limit.store(limit as u64, Ordering::Relaxed);
    }

    /// Files now.
    #[must_use]
    pub fn files_used(&self) -> u64 {
        self.files.used.load(Ordering::Relaxed)
    }

    /// Bytes in memory now.
    #[must_use]
    pub fn memory_used(&self) -> u64 {
        self.memory.used.load(Ordering::Relaxed)
    }

    /// Bytes in files now.
    #[must_use]
    pub fn disk_used(&self) -> u64 {
        self.disk.used.load(Ordering::Relaxed)
    }

    /// Where files are made.
    pub(super) fn folder(&self) -> PathBuf {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one body has of the budget. Dropping it gives all of it back.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Arc<Budget>,
    memory: u64,
    disk: u64,
    has_file: bool,
}

impl Lease {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, memory: 0, disk: 0, has_file: false }
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(super) fn disk(&self) -> u64 {
        self.disk
    }

    /// Takes more memory, if there is any.
    pub(super) fn take_memory(&mut self, bytes: u64) -> bool {
        let taken = self.budget.memory.take(bytes);
        if taken {
            self.memory += bytes;
        }
        taken
    }

    pub(super) fn give_memory(&mut self, bytes: u64) {
        let bytes = bytes.min(self.memory);
        self.memory -= bytes;
        self.budget.memory.give(bytes);
    }

    /// Takes more disk, if there is any; with it a file, to begin with.
    pub(super) fn take_disk(&mut self, bytes: u64) -> bool {
        if !self.has_file && !self.budget.files.take(1) {
            return false;
        }
        let taken = self.budget.disk.take(bytes);
        if taken {
            self.disk += bytes;
            self.has_file = true;
        } else if !self.has_file {
            self.budget.files.give(1);
        }
        taken
    }

    pub(super) fn give_back_disk(&mut self, bytes: u64) {
        let bytes = bytes.min(self.disk);
        self.disk -= bytes;
        self.budget.disk.give(bytes);
    }

    pub(super) fn give_disk(&mut self) {
        self.budget.disk.give(self.disk);
        self.disk = 0;
        self.give_file();
    }

    fn give_file(&mut self) {
        if std::mem::take(&mut self.has_file) {
            self.budget.files.give(1);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.memory.give(self.memory);
        self.budget.disk.give(self.disk);
        self.give_file();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_lease_gives_everything_back() {
        let budget = Budget::new(&config::Spool { dir: "/tmp".into(), memory: 100, disk: 10 });
        let mut first = Lease::new(Arc::clone(&budget));
        let mut second = Lease::new(Arc::clone(&budget));
        assert!(first.take_memory(60) && first.take_disk(10));
        assert!(!second.take_memory(41) && second.take_memory(40) && !second.take_disk(1));
        drop(first);
        assert_eq!((budget.memory_used(), budget.disk_used(), budget.files_used()), (40, 0, 0));
    }

    #[test]
    fn without_a_file_there_is_no_disk() {
        let budget = Budget::new(&config::Spool { dir: "/tmp".into(), memory: 100, disk: 10 });
        budget.allow_files(1);
        let mut first = Lease::new(Arc::clone(&budget));
        let mut second = Lease::new(Arc::clone(&budget));
        assert!(!first.take_disk(11));
        assert!(first.take_disk(1) && first.take_disk(1) && !second.take_disk(1));
        assert_eq!((budget.disk_used(), budget.files_used()), (2, 1));
        first.give_disk();
        assert!(second.take_disk(1), "a file that has been read to its end is closed");
        assert_eq!((budget.disk_used(), budget.files_used()), (1, 1));
    }
}
