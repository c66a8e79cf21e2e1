//! What of a response goes through the file: written there behind the writer's back, many pieces at a time, so that the
//! worker is read on meanwhile.
//!
//! What is on its way to the file lies in memory that no budget counts; it is two batches at most of each body that a worker is
//! busy with, and what had found room in memory before that became scarce.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::budget::Lease;
use super::file::{self, SpoolFile};
use super::pieces::{Pieces, Small};
use crate::error::Error;
use crate::observe::throttle::Throttle;

/// What is written to the file at once.
pub(super) const BATCH: u64 = 256 << 10;

/// Bytes in the order of their age: the file from `start` to `end`, what is being written to it, `pieces`.
#[derive(Default)]
pub(super) struct Behind {
    file: SpoolFile,
    start: u64,
    end: u64,
    writing: Option<Batch>,
    /// What is to be written to the file next.
    pieces: Pieces,
    /// The file cannot be written: what is in it is good, the rest goes at the reader's speed.
    disk_has_failed: bool,
}

/// Pieces on their way to the file.
struct Batch {
    handle: JoinHandle<io::Result<Arc<File>>>,
    /// Kept until they have arrived.
    pieces: Vec<Bytes>,
    length: u64,
}

impl Behind {
    /// Whether there is nothing: only then do bytes go to memory, so that they keep their order.
    pub(super) fn is_empty(&self) -> bool {
        self.is_read_up() && self.pieces.is_empty()
    }

    /// Whether all that is in the file, or soon will be, has been read.
    pub(super) fn is_read_up(&self) -> bool {
        self.start == self.end && self.writing.is_none()
    }

    /// Whether all that is in the file has been read, and more is on its way there.
    pub(super) fn is_awaited(&self) -> bool {
        self.start == self.end && self.writing.is_some()
    }

    pub(super) fn is_being_written(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether nothing more can be written.
    pub(super) fn disk_has_failed(&self) -> bool {
        self.disk_has_failed
    }

    /// The file, and what of it has not been read.
    pub(super) fn unread(&self) -> Option<(Arc<File>, u64, u64)> {
        let file = self.file.handle().filter(|_| self.start < self.end)?;
        Some((file, self.start, self.end))
    }

    /// So many bytes of the file have been read.
    pub(super) fn read(&mut self, bytes: u64, lease: &mut Lease) {
        self.start += bytes;
        self.settle(lease);
    }

    /// The oldest of what has not been written to the file, for a reader that has read all that has.
    pub(super) fn take(&mut self, lease: &mut Lease) -> Option<Bytes> {
        let data = self.pieces.pop()?;
        if self.disk_has_failed {
            lease.give_memory(data.len() as u64);
        } else {
            lease.give_back_disk(data.len() as u64);
        }
        self.settle(lease);
        Some(data)
    }

    /// When the file has been read to its end and nothing more goes there, the next bytes go to memory again.
    fn settle(&mut self, lease: &mut Lease) {
        if self.is_empty() {
            self.file.forget();
            (self.start, self.end) = (0, 0);
            lease.give_disk();
        }
    }

    pub(super) fn keep(&mut self, data: Bytes) {
        self.pieces.push(data, Small::Joined);
    }

    /// Whether there is as much to be written as is written at once.
    pub(super) fn has_batch(&self) -> bool {
        self.pieces.length() >= BATCH && !self.disk_has_failed
    }

    /// Whether there is anything to be written.
    pub(super) fn has_any(&self) -> bool {
        !self.pieces.is_empty() && !self.disk_has_failed
    }

    /// Begins to write all that is to be written, when nothing is being written.
    pub(super) fn write(&mut self, lease: &Lease) {
        let length = self.pieces.length();
        let pieces = self.pieces.take();
        let handle = file::write_pieces(self.file.place(lease.budget()), pieces.clone(), self.end);
        self.writing = Some(Batch { handle, pieces, length });
    }

    /// Ready when nothing is being written any more.
    pub(super) fn poll_written(&mut self, lease: &mut Lease, cx: &mut Context<'_>) -> Poll<()> {
        let Some(batch) = &mut self.writing else { return Poll::Ready(()) };
        let written = ready!(Pin::new(&mut batch.handle).poll(cx));
        let Some(batch) = self.writing.take() else { return Poll::Ready(()) };
        match file::outcome(written) {
            Ok(file) => {
                self.end += batch.length;
                self.file.keep(file, self.end);
                lease.budget().note_disk(true);
            }
            Err(error) => self.give_up_disk(batch, lease, &error),
        }
        Poll::Ready(())
    }

    /// What was to be written is still here, and is the reader's next.
    fn give_up_disk(&mut self, batch: Batch, lease: &mut Lease, error: &Error) {
        static THROTTLE: Throttle = Throttle::new();
        lease.budget().note_disk(false);
        self.disk_has_failed = true;
        self.pieces.put_back(batch.pieces);
        let length = self.pieces.length();
        lease.give_back_disk(length);
        // Whether the budget has as much or not, it lies there.
        lease.take_memory(length);
        if let Some(left_out) = THROTTLE.pass() {
            tracing::warn!(
                left_out,
                reason = error.reason.as_str(),
                "a response is not read ahead any further: {error}"
            );
        }
    }

    /// Nobody sees any more to what is being written.
    pub(super) fn let_go(&mut self) {
        self.writing = None;
    }

    /// Nobody wants what is to be written.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Bytes that are to be written, and bytes that are being written.
    #[cfg(test)]
    pub(super) fn on_its_way(&self) -> (u64, u64) {
        (self.pieces.length(), self.writing.as_ref().map_or(0, |batch| batch.length))
    }

    /// In how many pieces lies what is to be written.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.pieces.count()
    }
}
