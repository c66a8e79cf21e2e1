//! What follows from the settings.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a shard can weigh is counted in 32 bits, and an object is more than its body.
const HEAVIEST: u64 = 1 << 30;

/// How large bodies may be, in bytes.
#[derive(Debug, Default)]
pub(super) struct Limits {
    object: AtomicU64,
    memory: AtomicU64,
    behind: AtomicU64,
}

impl Limits {
    /// Of so many bytes of memory, and of disk, if there is one; `max_object` is what the operator lets be stored.
    pub(super) fn of(memory: u64, disk: Option<u64>, max_object: u64) -> Self {
        let limits = Self::default();
        limits.set(memory, disk, max_object);
        limits
    }

    /// Changes them. Each is good with each that was there before.
    pub(super) fn set(&self, memory: u64, disk: Option<u64>, max_object: u64) {
        let share = match disk {
            Some(_) => (memory / 64).max(1 << 20),
            None => memory / 4,
        };
        let memory = share.min(memory / 4).min(HEAVIEST);
        // What is larger would drive everybody off the disk.
        let most = disk.map_or(u64::MAX, |disk| (disk / 2).max(memory));
        let object = max_object.min(most);
        self.object.store(object, Relaxed);
        self.memory.store(memory.min(object), Relaxed);
        self.behind.store(memory.min(256 << 10), Relaxed);
    }

    /// The largest body that is stored.
    pub(super) fn object(&self) -> u64 {
        self.object.load(Relaxed)
    }

    /// The largest that is kept in memory.
    pub(super) fn memory(&self) -> u64 {
        self.memory.load(Relaxed)
    }

    /// The largest that lies behind its record, in one block. With a disk, what is larger goes there as it comes.
    pub(super) fn behind(&self) -> u64 {
        self.behind.load(Relaxed)
    }
}

/// Bytes that may wait to be written to disk, where there are so many of memory.
pub(super) fn waiting(memory: u64) -> u64 {
    (memory / 8).max(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn nothing_is_kept_in_memory_that_would_drive_all_others_out_or_cannot_be_weighed() {
        for disk in [None, Some(10), Some(u64::MAX)] {
            for memory in [0, 1, MIB, 256 * MIB, 64 << 30, u64::MAX] {
                for max_object in [0, 1, MIB, u64::MAX] {
                    let limits = Limits::of(memory, disk, max_object);
                    let (object, in_memory) = (limits.object(), limits.memory());
                    assert!(in_memory <= object && object <= max_object && in_memory <= memory / 4);
                    assert!(in_memory <= u64::from(u32::MAX) / 2, "{in_memory} of {memory}");
                    assert!(limits.behind() <= 256 << 10);
                }
            }
        }
        assert_eq!(Limits::of(256 * MIB, Some(1 << 30), 64 * MIB).object(), 64 * MIB);
    }
}
