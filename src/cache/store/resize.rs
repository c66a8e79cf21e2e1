//! Other bounds than before, while the store is in service.

use std::sync::Weak;
use std::thread;

use rustix::process::setpriority_process;

use super::index::Level;
use super::{Store, limits};

/// How many are driven out before the store may go.
const AT_ONCE: usize = 1024;
/// How far behind others this is, where there is work for all.
const NICE: i32 = 10;

impl Store {
    /// Changes the bounds, in bytes: of memory, of the disk, and of the largest body that is stored. Returns at once. What is too
    /// much then is driven out by a thread of its own: of a million that would be a long time for whoever has something to
    /// serve.
    pub fn resize(&self, memory: u64, disk: u64, max_object: u64) {
        self.limits.set(memory, self.has_disk().then_some(disk), max_object);
        self.index.resize(memory, disk);
        if let Some(disk) = &self.disk {
            disk.threads.set_most_write_bytes(limits::waiting(memory));
        }
        let store = Weak::clone(&self.me);
        let shrink = move || {
            // Of the calling thread, on Linux. Where it is not allowed, it is as well done without.
            let _ = setpriority_process(None, NICE);
            while store.upgrade().is_some_and(|store| store.shrink()) {}
        };
        if self.is_over() && thread::Builder::new().name("cache-shrink".to_owned()).spawn(shrink).is_err() {
            tracing::warn!("no thread can be started to make the cache smaller: what is too much goes as others come");
        }
    }

    fn is_over(&self) -> bool {
        [Level::Memory, Level::Disk].into_iter().any(|level| self.index.account(level).is_over())
    }

    /// Drives out some of what is too much. Whether there is more. Blocks.
    fn shrink(&self) -> bool {
        let is_over = self.evict_memory(AT_ONCE);
        let Some(disk) = &self.disk else { return is_over };
        let account = self.index.account(Level::Disk);
        let left = (0..AT_ONCE).take_while(|_| account.is_over() && self.evict_file(disk)).count();
        is_over || left == AT_ONCE
    }
}
