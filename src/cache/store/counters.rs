//! What the store counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Running counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) evicted_memory: AtomicU64,
    pub(super) evicted_disk: AtomicU64,
    pub(super) corrupted: AtomicU64,
    pub(super) write_failures: AtomicU64,
    pub(super) writes_skipped: AtomicU64,
    pub(super) read_failures: AtomicU64,
    pub(super) reads_skipped: AtomicU64,
    pub(super) abandoned: AtomicU64,
    pub(super) purged: AtomicU64,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// The store in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Bytes in memory, with what objects take beside their own, and what is being written.
    pub memory_bytes: u64,
    /// Bytes of heads and bodies that somebody has: of what is in memory, and of what has been driven out and is being sent
    /// still. Where this is much more than `memory_bytes`, clients are slow, and what comes is not kept in memory.
    pub held_bytes: u64,
    /// Objects, rules and markers in memory.
    pub memory_objects: u64,
    /// Bytes on disk, in whole blocks, with what is being written.
    pub disk_bytes: u64,
    /// Files that are known.
    pub disk_objects: u64,
    /// Driven out of memory by others.
    pub evicted_memory: u64,
    /// Driven off the disk by others.
    pub evicted_disk: u64,
    /// Files that were not as they were written, and were dropped.
    pub corrupted: u64,
    /// Objects that the disk did not take: it is full, read-only, or fails.
    pub write_failures: u64,
    /// Objects that were not written because the disk was behind with its work.
    pub writes_skipped: u64,
    /// Files that could not be read.
    pub read_failures: u64,
    /// Objects on disk that were not asked for because the disk was behind with its work.
    pub reads_skipped: u64,
    /// Objects that were given up while they were being written: too large, or without room.
    pub abandoned: u64,
    /// Objects that purges have struck.
    pub purged: u64,
    /// Whether all files have been found since the start.
    pub is_indexed: bool,
}

impl Counters {
    /// Fills in the running counts.
    pub(super) fn fill(&self, numbers: &mut Numbers) {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        numbers.evicted_memory = read(&self.evicted_memory);
        numbers.evicted_disk = read(&self.evicted_disk);
        numbers.corrupted = read(&self.corrupted);
        numbers.write_failures = read(&self.write_failures);
        numbers.writes_skipped = read(&self.writes_skipped);
        numbers.read_failures = read(&self.read_failures);
        numbers.reads_skipped = read(&self.reads_skipped);
        numbers.abandoned = read(&self.abandoned);
        numbers.purged = read(&self.purged);
    }
}
