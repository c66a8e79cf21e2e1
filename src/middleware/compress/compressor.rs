//! What compression may take of the machine: memory and turns, for the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::encoder::Encoder;
use crate::http::Coding;
use crate::observe::metrics::CompressionMetrics;

/// Memory of all encoders at work. An answer beyond it goes out as it is, so that clients who take theirs slowly cost no more
/// than this together.
const MEMORY: usize = 128 << 20;

/// One for the process.
pub struct Compressor {
    memory: AtomicUsize,
    /// Taken by whoever compresses beside the event loops: no more than there are processors.
    pub(super) turns: Arc<Semaphore>,
    pub(super) metrics: CompressionMetrics,
}

impl Compressor {
    /// For a machine with so many processors.
    #[must_use]
    pub fn new(processors: usize, metrics: CompressionMetrics) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(processors.max(1)));
        Arc::new(Self { memory: AtomicUsize::new(0), turns, metrics })
    }

    /// Memory for one more encoder; `None`: there is none, which is counted.
    pub(super) fn room(self: &Arc<Self>, coding: Coding) -> Option<Room> {
        let bytes = Encoder::memory(coding);
        // Counted before it is compared: what is too much goes back with the room.
        let before = self.memory.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { compressor: Arc::clone(self), bytes };
        let fits = before + bytes <= MEMORY;
        if !fits {
            self.metrics.skipped.inc();
        }
        fits.then_some(room)
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }
}

/// Memory that is counted until this is dropped.
pub(super) struct Room {
    compressor: Arc<Compressor>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.compressor.memory.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
