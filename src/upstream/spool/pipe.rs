//! A response on its way from a fast worker to a slow client: read-ahead, never delay.
//!
//! The writer is the task that reads from the worker, the reader is the body that the client's connection polls; both
//! run in one thread. Bytes are there for the reader the moment they are written. What it does not take goes first to
//! memory, then to a file (see [`Behind`]); when both are full the writer waits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;

use super::Share;
use super::behind::Behind;
use super::budget::{Budget, Lease};
use super::file;
use super::pieces::{Pieces, Small};
use crate::error::{Error, Reason};
use crate::http::Source;
use crate::runtime::{PieceReader, Span};

/// A pipe for a body of `length` bytes, where that is known.
#[must_use]
pub fn pipe(length: Option<u64>, share: Share, budget: &Arc<Budget>) -> (Writer, Reader) {
    let shared = Rc::new(RefCell::new(Shared {
        memory: Pieces::default(),
        behind: Behind::default(),
        result: None,
        ended: false,
        reader_is_gone: false,
        reader: None,
        writer: None,
        lease: Lease::new(Arc::clone(budget), share.client),
    }));
    (
        Writer { shared: Rc::clone(&shared), share, is_short: Cell::new(false), is_taken: Cell::new(false) },
        Reader { shared, pieces: PieceReader::default(), length },
    )
}

/// Bytes in the order of their age: `memory`, then what is `behind`.
struct Shared {
    memory: Pieces,
    behind: Behind,
    /// Set when the writer is done, until the reader has taken it.
    result: Option<Result<(), Error>>,
    ended: bool,
    reader_is_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    lease: Lease,
}

/// The reader is gone: nobody wants the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The end that the worker's bytes go into.
pub struct Writer {
    shared: Rc<RefCell<Shared>>,
    share: Share,
    /// Whether the last piece would have found room in its own share, and found none in the budget.
    is_short: Cell<bool>,
    /// Whether the last piece is in the spool already, and its push waits for the disk alone.
    is_taken: Cell<bool>,
}

/// The end that the client's connection reads.
pub struct Reader {
    shared: Rc<RefCell<Shared>>,
    pieces: PieceReader,
    length: Option<u64>,
}

/// Where the next bytes go.
enum Room {
    Memory,
    Disk,
    None,
}

impl Shared {
    fn keep(&mut self, data: Bytes) {
        self.memory.push(data, Small::WhereAlone);
        wake(&mut self.reader);
    }

    /// Whether there is more in memory than has been leased: a first piece is always let in, for a reader that keeps up.
    fn is_beyond_lease(&self) -> bool {
        self.memory.length() > self.lease.memory()
    }

    /// Where memory is scarce, what nobody has taken from it goes to the file with what comes after it. With many readers
    /// that do not keep up, their first pieces are what they cost.
    fn move_behind(&mut self, share: Share) {
        let length = self.memory.length();
        let is_for_disk = self.is_beyond_lease() || self.lease.is_too_much(length);
        let fits = self.lease.disk() + length <= share.disk;
        if self.behind.is_empty() && is_for_disk && fits && self.lease.take_disk(length) {
            self.lease.give_memory(length);
            self.memory.take().into_iter().for_each(|piece| self.behind.keep(piece));
        }
    }

    fn read_from_file(&mut self, bytes: u64) {
        self.behind.read(bytes, &mut self.lease);
        wake(&mut self.writer);
    }

    /// The oldest of what has not been written to the file, for a reader that has read all that has.
    fn take_behind(&mut self) -> Option<Bytes> {
        let data = self.behind.take(&mut self.lease)?;
        wake(&mut self.writer);
        Some(data)
    }

    /// Ready when nothing is being written. For the writer alone, who sees to it whatever else it waits for: a reader may
    /// leave its body unpolled for long.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.behind.is_being_written() {
            ready!(self.behind.poll_written(&mut self.lease, cx));
            wake(&mut self.reader);
            wake(&mut self.writer);
        }
        Poll::Ready(())
    }
}

impl Writer {
    /// Before a push of so many bytes: lets the reader run, if they would not find room in memory.
    ///
    /// It is in the same thread, and cannot have read while we wrote. One that is as fast as we are makes room now; without
    /// this all of a large body would take the way through the file.
    pub async fn let_reader_run(&self, length: u64) {
        if !self.has_memory_for(length) {
            tokio::task::yield_now().await;
        }
    }

    /// Hands bytes to the reader. Waits only when memory and disk are full.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn push(&self, data: Bytes) -> Result<(), Gone> {
        self.is_taken.set(false);
        loop {
            match self.room(data.len() as u64)? {
                Room::Memory => {
                    self.shared.borrow_mut().keep(data);
                    return Ok(());
                }
                Room::Disk => {
                    self.keep_behind(data);
                    self.is_taken.set(true);
                    return self.write_behind().await;
                }
                Room::None => self.changed().await,
            }
        }
    }

    fn room(&self, length: u64) -> Result<Room, Gone> {
        let shared = &mut *self.shared.borrow_mut();
        if shared.reader_is_gone {
            return Err(Gone);
        }
        // An empty queue always takes one piece, so that a full budget slows the body but never stops it.
        let is_first = shared.behind.is_empty() && shared.memory.is_empty();
        let has_share = shared.behind.is_empty() && shared.memory.length() + length <= self.share.memory;
        let fits_on_disk = !shared.behind.disk_has_failed() && shared.lease.disk() + length <= self.share.disk;
        let is_for_disk = fits_on_disk && shared.lease.is_for_disk(length);
        let may_lease = is_first || (has_share && !is_for_disk);
        let is_leased = may_lease && shared.lease.take_memory(length);
        self.is_short.set(false);
        if is_leased || is_first {
            return Ok(Room::Memory);
        }
        if fits_on_disk && shared.lease.take_disk(length) {
            return Ok(Room::Disk);
        }
        if has_share && is_for_disk && shared.lease.take_memory(length) {
            return Ok(Room::Memory);
        }
        self.is_short.set(fits_on_disk);
        Ok(Room::None)
    }

    /// Whether so many bytes find room in memory.
    fn has_memory_for(&self, length: u64) -> bool {
        let shared = self.shared.borrow();
        shared.behind.is_empty()
            && shared.memory.length() + length <= self.share.memory
            && !shared.lease.is_for_disk(length)
            && !shared.is_beyond_lease()
    }

    /// Whether a push that waits waits for our own disk, and not for the reader.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.is_taken.get()
    }

    /// Whether it is for want of room in the budget, and not by the size of the body, that a push waits.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_short.get()
    }

    fn keep_behind(&self, data: Bytes) {
        let shared = &mut *self.shared.borrow_mut();
        shared.move_behind(self.share);
        shared.behind.keep(data);
        if shared.behind.is_read_up() {
            wake(&mut shared.reader);
        }
    }

    /// Writes what is behind, once it is a batch. Waits while the one before is being written.
    async fn write_behind(&self) -> Result<(), Gone> {
        while self.shared.borrow().behind.has_batch() {
            self.written().await?;
            let shared = &mut *self.shared.borrow_mut();
            // The reader may have taken some meanwhile.
            if shared.behind.has_batch() {
                shared.behind.write(&shared.lease);
            }
        }
        Ok(())
    }

    /// Writes all that is behind.
    async fn write_all_behind(&self) -> Result<(), Gone> {
        loop {
            self.written().await?;
            let shared = &mut *self.shared.borrow_mut();
            if !shared.behind.has_any() {
                return Ok(());
            }
            shared.behind.write(&shared.lease);
        }
    }

    /// Waits until nothing is being written.
    async fn written(&self) -> Result<(), Gone> {
        poll_fn(|cx| {
            let shared = &mut *self.shared.borrow_mut();
            if shared.reader_is_gone {
                return Poll::Ready(Err(Gone));
            }
            let written = shared.poll_written(cx);
            shared.writer = Some(cx.waker().clone());
            written.map(Ok)
        })
        .await
    }

    /// Waits for the reader's next step, or for any other reason to look again.
    async fn changed(&self) {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            let shared = &mut *self.shared.borrow_mut();
            let is_written = shared.behind.is_being_written() && shared.poll_written(cx).is_ready();
            shared.writer = Some(cx.waker().clone());
            if is_written { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Ready when the reader is gone.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.shared.borrow_mut();
        if shared.reader_is_gone {
            return Poll::Ready(());
        }
        let _ = shared.poll_written(cx);
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Says how the body ended, once what is on its way to the file is there.
    pub async fn end(self, result: Result<(), Error>) {
        // Who has gone needs neither.
        let _ = self.write_all_behind().await;
        let mut shared = self.shared.borrow_mut();
        shared.result.get_or_insert(result);
        shared.ended = true;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        // A writer that has not said how the body ended was cut itself.
        if !shared.ended {
            shared.result.get_or_insert(Err(Error::new(Reason::Internal)));
            shared.ended = true;
        }
        shared.behind.let_go();
        wake(&mut shared.reader);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Reader {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let shared = &mut *self.shared.borrow_mut();
        if let Some(data) = shared.memory.pop() {
            shared.lease.give_memory(data.len() as u64);
            wake(&mut shared.writer);
            return Poll::Ready(Some(Ok(data)));
        }
        if shared.behind.is_awaited() {
            shared.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some((file, start, end)) = shared.behind.unread() {
            let piece = match ready!(self.pieces.poll(&file, start, end, cx)) {
                Ok(piece) => piece,
                Err(error) => return Poll::Ready(Some(Err(file::failed(error)))),
            };
            shared.read_from_file(piece.len() as u64);
            return Poll::Ready(Some(Ok(piece)));
        }
        if let Some(data) = shared.take_behind() {
            return Poll::Ready(Some(Ok(data)));
        }
        match shared.result.take() {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Source for Reader {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let next = ready!(self.poll_next(cx));
        if let (Some(Ok(data)), Some(length)) = (&next, &mut self.length) {
            *length = length.saturating_sub(data.len() as u64);
        }
        Poll::Ready(next)
    }

    fn remaining(&self) -> Option<u64> {
        self.length
    }

    fn span(&self) -> Option<Span> {
        let shared = self.shared.borrow();
        let (file, start, end) = shared.behind.unread().filter(|_| shared.memory.is_empty())?;
        self.pieces.span(&file, start, end)
    }

    fn sent(&mut self, bytes: u64) {
        self.shared.borrow_mut().read_from_file(bytes);
        if let Some(length) = &mut self.length {
            *length = length.saturating_sub(bytes);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.reader_is_gone = true;
        let queued = shared.memory.length();
        shared.memory.clear();
        shared.behind.clear();
        shared.lease.give_memory(queued);
        wake(&mut shared.writer);
    }
}

#[cfg(test)]
mod tests;
