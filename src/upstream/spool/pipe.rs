//! A response on its way from a fast worker to a slow client: read-ahead, never delay.
//!
//! The writer is the task that reads from the worker, the reader is the body that the client's connection polls; both
//! run in one thread. Bytes are there for the reader the moment they are written. What it does not take goes first to
//! memory, then to a file; when both are full the writer waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};

use super::Share;
use super::budget::{Budget, Lease};
use super::file::{self, PieceReader, SpoolFile};
use crate::error::{Error, Reason};
use crate::http::Source;
use crate::observe::throttle::Throttle;

/// A piece that is copied beside its neighbours when the reader is behind, and how many bytes lie side by side at most.
const SMALL: usize = 4 << 10;
const TAIL: usize = 16 << 10;

/// A pipe for a body of `length` bytes, where that is known.
#[must_use]
pub fn pipe(length: Option<u64>, share: Share, budget: &Arc<Budget>) -> (Writer, Reader) {
    let shared = Rc::new(RefCell::new(Shared {
        queue: VecDeque::new(),
        tail: BytesMut::new(),
        queued: 0,
        file: SpoolFile::default(),
        start: 0,
        end: 0,
        result: None,
        ended: false,
        reader_is_gone: false,
        reader: None,
        writer: None,
        lease: Lease::new(Arc::clone(budget), share.client),
    }));
    (
        Writer { shared: Rc::clone(&shared), share, has_disk: Cell::new(true), is_short: Cell::new(false) },
        Reader { shared, pieces: PieceReader::default(), length },
    )
}

/// Bytes in the order of their age: `queue`, `tail`, then the file from `start` to `end`.
struct Shared {
    queue: VecDeque<Bytes>,
    /// Small pieces that the reader has not kept up with, side by side: each on its own would cost more than it holds.
    tail: BytesMut,
    queued: u64,
    file: SpoolFile,
    start: u64,
    end: u64,
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
    /// Whether the file can be written, as far as we know.
    has_disk: Cell<bool>,
    /// Whether the last piece would have found room in its own share, and found none in the budget.
    is_short: Cell<bool>,
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
    /// Whether the file has been read to its end: only then do bytes go to memory, so that they keep their order.
    fn is_in_order(&self) -> bool {
        self.start == self.end
    }

    fn keep(&mut self, data: Bytes) {
        self.queued += data.len() as u64;
        let is_behind = !self.queue.is_empty() || !self.tail.is_empty();
        if is_behind && data.len() < SMALL {
            self.tail.extend_from_slice(&data);
        } else {
            self.close_tail();
            self.queue.push_back(data);
        }
        if self.tail.len() >= TAIL {
            self.close_tail();
        }
        wake(&mut self.reader);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    /// The oldest bytes in memory.
    fn take(&mut self) -> Option<Bytes> {
        if self.queue.is_empty() {
            self.close_tail();
        }
        self.queue.pop_front()
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
        loop {
            match self.room(data.len() as u64)? {
                Room::Memory => {
                    self.shared.borrow_mut().keep(data);
                    return Ok(());
                }
                Room::Disk => match self.spill(data.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(error) => self.give_up_disk(data.len() as u64, &error),
                },
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
        let is_first = shared.is_in_order() && shared.queued == 0;
        let has_share = shared.is_in_order() && shared.queued + length <= self.share.memory;
        let fits_on_disk = self.has_disk.get() && shared.end + length <= self.share.disk;
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
        shared.is_in_order() && shared.queued + length <= self.share.memory && !shared.lease.is_for_disk(length)
    }

    /// Whether it is for want of room in the budget, and not by the size of the body, that a push waits.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_short.get()
    }

    async fn spill(&self, data: Bytes) -> Result<(), Error> {
        let (place, offset) = {
            let shared = self.shared.borrow();
            (shared.file.place(shared.lease.budget()), shared.end)
        };
        let length = data.len() as u64;
        let written = file::write(place, data, offset).await;
        let mut shared = self.shared.borrow_mut();
        shared.lease.budget().note_disk(written.is_ok());
        let (file, _) = written?;
        shared.file.keep(file);
        shared.end += length;
        wake(&mut shared.reader);
        Ok(())
    }

    /// The file cannot be written: what is in it is good, the rest goes at the reader's speed.
    fn give_up_disk(&self, length: u64, error: &Error) {
        static THROTTLE: Throttle = Throttle::new();
        self.shared.borrow_mut().lease.give_back_disk(length);
        self.has_disk.set(false);
        if let Some(left_out) = THROTTLE.pass() {
            tracing::warn!(
                left_out,
                reason = error.reason.as_str(),
                "a response is not read ahead any further: {error}"
            );
        }
    }

    /// Waits for the reader's next step, or for any other reason to look again.
    async fn changed(&self) {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            self.shared.borrow_mut().writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Ready when the reader is gone.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.shared.borrow_mut();
        if shared.reader_is_gone {
            return Poll::Ready(());
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Says how the body ended.
    pub fn end(self, result: Result<(), Error>) {
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
        if let Some(data) = shared.take() {
            shared.queued -= data.len() as u64;
            shared.lease.give_memory(data.len() as u64);
            wake(&mut shared.writer);
            return Poll::Ready(Some(Ok(data)));
        }
        if let Some(file) = shared.file.handle().filter(|_| shared.start < shared.end) {
            let piece = match ready!(self.pieces.poll(&file, shared.start, shared.end, cx)) {
                Ok(piece) => piece,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            shared.start += piece.len() as u64;
            if shared.start == shared.end && shared.lease.disk() == shared.end {
                // Read to its end, and nothing more is being written: the next bytes go to memory again.
                shared.file.forget();
                (shared.start, shared.end) = (0, 0);
                shared.lease.give_disk();
            }
            wake(&mut shared.writer);
            return Poll::Ready(Some(Ok(piece)));
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
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.reader_is_gone = true;
        shared.queue.clear();
        shared.tail = BytesMut::new();
        let queued = std::mem::take(&mut shared.queued);
        shared.lease.give_memory(queued);
        wake(&mut shared.writer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::http::Body;

    fn budget(memory: u64, disk: u64) -> Arc<Budget> {
        Budget::new(&config::Spool { dir: std::env::temp_dir(), memory, disk })
    }

    fn piece(number: u8) -> Bytes {
        Bytes::from(vec![number; 10])
    }

    async fn write_all(writer: Writer, count: u8) {
        for number in 0..count {
            writer.push(piece(number)).await.unwrap();
        }
        writer.end(Ok(()));
    }

    async fn read_all(reader: Reader) -> Vec<u8> {
        let mut body = Body::Stream(Box::new(reader));
        let mut all = Vec::new();
        while let Some(data) = body.data().await {
            all.extend_from_slice(&data.unwrap());
            // The writer runs between two reads, so that every mixture of memory and file occurs.
            tokio::task::yield_now().await;
        }
        all
    }

    #[tokio::test]
    async fn bytes_keep_their_order_through_memory_and_file() {
        let expected: Vec<u8> = (0..100).flat_map(|number| piece(number).to_vec()).collect();
        for (memory, disk) in [(10_000, 0), (10, 10_000), (35, 40), (0, 0), (0, 10_000), (10, 10)] {
            let budget = budget(100_000, 100_000);
            let (writer, reader) = pipe(None, Share { memory, disk, client: None }, &budget);
            let ((), all) = tokio::join!(write_all(writer, 100), read_all(reader));
            assert_eq!(all, expected, "memory {memory}, disk {disk}");
            assert_eq!((budget.memory_used(), budget.disk_used()), (0, 0));
        }
    }

    /// Each in a task of its own, as in an exchange.
    #[test]
    fn a_reader_that_keeps_up_is_spared_the_file() {
        crate::runtime::paused(async || {
            let budget = budget(100_000, 100_000);
            let (writer, mut reader) = pipe(None, Share { memory: 50, disk: 10_000, client: None }, &budget);
            let writing = tokio::task::spawn_local(async move {
                for number in 0..100 {
                    writer.let_reader_run(10).await;
                    writer.push(piece(number)).await.unwrap();
                }
                writer.end(Ok(()));
            });
            let reading = tokio::task::spawn_local(async move {
                let mut all = 0;
                while let Some(data) = poll_fn(|cx| reader.poll_data(cx)).await {
                    all += data.unwrap().len();
                    assert_eq!(budget.disk_used(), 0, "after {all} bytes");
                }
                all
            });
            writing.await.unwrap();
            assert_eq!(reading.await.unwrap(), 1000);
        });
    }

    #[tokio::test]
    async fn bytes_that_are_not_in_the_page_cache_come_from_another_thread_in_the_same_order() {
        let budget = budget(100_000, 100_000);
        let (writer, mut reader) = pipe(None, Share { memory: 10, disk: 10_000, client: None }, &budget);
        reader.pieces = PieceReader::uncached();
        let ((), all) = tokio::join!(write_all(writer, 100), read_all(reader));
        assert_eq!(all, (0..100).flat_map(|number| piece(number).to_vec()).collect::<Vec<u8>>());
    }

    /// A budget of which more than an eighth is in use.
    fn crowded(disk: u64) -> (Arc<Budget>, Lease) {
        let budget = budget(1 << 20, disk);
        let mut other = Lease::new(Arc::clone(&budget), None);
        assert!(other.take_memory(200 << 10));
        (budget, other)
    }

    #[tokio::test]
    async fn when_it_is_crowded_a_body_that_cannot_go_to_disk_stays_in_memory() {
        let large = || Bytes::from(vec![b'x'; 30 << 10]);
        let nowhere = Budget::new(&config::Spool { dir: "/nonexistent".into(), memory: 1 << 20, disk: 1 << 30 });
        let mut other = Lease::new(Arc::clone(&nowhere), None);
        assert!(other.take_memory(200 << 10));
        nowhere.note_disk(false);
        let (good, _held) = crowded(1 << 30);
        let (full, _held_too) = crowded(10);
        for (budget, disk, in_memory) in
            [(&good, 1 << 30, 1), (&good, 0, 4), (&full, 1 << 30, 4), (&nowhere, 1 << 30, 4)]
        {
            let before = budget.memory_used();
            let (writer, _reader) = pipe(None, Share { memory: 128 << 10, disk, client: None }, budget);
            for _ in 0..4 {
                writer.push(large()).await.unwrap();
            }
            assert_eq!(budget.memory_used() - before, in_memory * (30 << 10), "{disk} of disk, {budget:?}");
        }
    }

    #[tokio::test]
    async fn a_fast_writer_is_free_before_a_slow_reader_has_begun() {
        let budget = budget(100_000, 100_000);
        let (writer, reader) = pipe(Some(1000), Share { memory: 50, disk: 10_000, client: None }, &budget);
        write_all(writer, 100).await;
        assert_eq!(budget.memory_used(), 50);
        assert_eq!(read_all(reader).await.len(), 1000);
    }

    #[tokio::test]
    async fn a_full_budget_slows_the_writer_and_stops_nobody() {
        let budget = budget(0, 0);
        let (writer, reader) = pipe(None, Share { memory: 1000, disk: 1000, client: None }, &budget);
        let ((), all) = tokio::join!(write_all(writer, 20), read_all(reader));
        assert_eq!(all.len(), 200);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_slows_the_body_and_does_not_cut_it() {
        let nowhere = config::Spool { dir: "/nonexistent".into(), memory: 100_000, disk: 100_000 };
        let budget = Budget::new(&nowhere);
        let (writer, reader) = pipe(None, Share { memory: 20, disk: 10_000, client: None }, &budget);
        let ((), all) = tokio::join!(write_all(writer, 50), read_all(reader));
        let expected: Vec<u8> = (0..50).flat_map(|number| piece(number).to_vec()).collect();
        assert_eq!(all, expected);
        assert_eq!((budget.memory_used(), budget.disk_used()), (0, 0));
    }

    #[tokio::test]
    async fn the_writer_learns_that_the_reader_has_gone() {
        let (writer, reader) = pipe(None, Share { memory: 10, disk: 0, client: None }, &budget(100, 100));
        writer.push(piece(1)).await.unwrap();
        let waiting = writer.push(piece(2));
        let leaving = async { drop(reader) };
        let (pushed, ()) = tokio::join!(waiting, leaving);
        assert_eq!(pushed, Err(Gone));
    }

    #[tokio::test]
    async fn small_pieces_lie_side_by_side_when_the_reader_is_behind() {
        let (writer, reader) = pipe(None, Share { memory: 100_000, disk: 0, client: None }, &budget(100_000, 0));
        write_all(writer, 200).await;
        assert_eq!(reader.shared.borrow().queue.len(), 1);
        let expected: Vec<u8> = (0..200).flat_map(|number| piece(number).to_vec()).collect();
        assert_eq!(read_all(reader).await, expected);
    }

    #[tokio::test]
    async fn a_writer_that_vanishes_has_not_ended_the_body() {
        let (writer, reader) = pipe(None, Share { memory: 100, disk: 0, client: None }, &budget(100, 100));
        drop(writer);
        let mut body = Body::Stream(Box::new(reader));
        assert_eq!(body.data().await.unwrap().unwrap_err().reason, Reason::Internal);
    }

    #[tokio::test]
    async fn a_cut_body_is_not_taken_for_a_whole_one() {
        let (writer, reader) = pipe(None, Share { memory: 100, disk: 0, client: None }, &budget(100, 100));
        writer.push(piece(1)).await.unwrap();
        writer.end(Err(Reason::EofInBody.into()));
        let mut body = Body::Stream(Box::new(reader));
        assert!(body.data().await.unwrap().is_ok());
        assert_eq!(body.data().await.unwrap().unwrap_err().reason, Reason::EofInBody);
    }
}
