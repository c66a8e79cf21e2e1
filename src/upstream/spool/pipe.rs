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
mod tests {
    use super::super::behind::BATCH;
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
        writer.end(Ok(())).await;
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

    /// With memory, and without any. Each in a task of its own, as in an exchange.
    #[test]
    fn a_reader_that_keeps_up_is_spared_the_file() {
        for (most, memory) in [(100_000, 50), (0, 100_000)] {
            crate::runtime::paused(async || {
                let budget = budget(most, 100_000);
                let (writer, mut reader) = pipe(None, Share { memory, disk: 10_000, client: None }, &budget);
                let writing = tokio::task::spawn_local(async move {
                    for number in 0..100 {
                        writer.let_reader_run(10).await;
                        writer.push(piece(number)).await.unwrap();
                    }
                    writer.end(Ok(())).await;
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
    }

    #[tokio::test]
    async fn bytes_that_are_not_in_the_page_cache_come_from_another_thread_in_the_same_order() {
        let budget = budget(100_000, 100_000);
        let (writer, mut reader) = pipe(None, Share { memory: 10, disk: 10_000, client: None }, &budget);
        reader.pieces = PieceReader::default().uncached();
        let ((), all) = tokio::join!(write_all(writer, 100), read_all(reader));
        assert_eq!(all, (0..100).flat_map(|number| piece(number).to_vec()).collect::<Vec<u8>>());
    }

    /// As whoever sends from the file does, and now and then reads all the same.
    #[tokio::test]
    async fn bytes_sent_from_the_file_and_bytes_read_are_one_sequence() {
        let budget = budget(10 << 20, 10 << 20);
        let (writer, mut reader) = pipe(None, Share { memory: 100, disk: 10 << 20, client: None }, &budget);
        let expected: Vec<u8> = (0..40_u8).flat_map(|number| vec![number; 30_000]).collect();
        for piece in expected.chunks(30_000) {
            writer.push(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        writer.end(Ok(())).await;
        let (mut all, mut spans) = (Vec::new(), 0);
        loop {
            let part = reader.span().filter(|_| !all.len().is_multiple_of(3)).map(|span| {
                let mut bytes = vec![0; span.length.min(50_000)];
                std::os::unix::fs::FileExt::read_exact_at(&*span.file, &mut bytes, span.start).unwrap();
                bytes
            });
            if let Some(bytes) = part {
                spans += 1;
                reader.sent(bytes.len() as u64);
                all.extend(bytes);
                continue;
            }
            let Some(piece) = poll_fn(|cx| reader.poll_data(cx)).await else { break };
            all.extend_from_slice(&piece.unwrap());
        }
        assert!(all == expected, "{} of {}", all.len(), expected.len());
        assert!(spans > 3, "{spans}");
        assert_eq!((budget.memory_used(), budget.disk_used()), (0, 0));
    }

    /// A budget of which more than a sixteenth is in use.
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
    async fn when_it_is_crowded_what_nobody_takes_goes_to_disk_with_what_comes_after_it() {
        const LENGTH: usize = 64 << 10;
        let (budget, _held) = crowded(1 << 30);
        let before = budget.memory_used();
        let used = || (budget.memory_used() - before, budget.disk_used());
        let (writer, reader) = pipe(None, Share { memory: 256 << 10, disk: 1 << 30, client: None }, &budget);
        let push = async |number: u8| writer.push(Bytes::from(vec![number; LENGTH])).await.unwrap();
        push(0).await;
        assert_eq!(used(), (LENGTH as u64, 0), "for a reader that keeps up");
        for number in 1..30 {
            push(number).await;
            assert_eq!(used(), (0, (u64::from(number) + 1) * LENGTH as u64));
        }
        let ((), all) = tokio::join!(writer.end(Ok(())), read_all(reader));
        assert!(all.chunks(LENGTH).zip(0..30).all(|(piece, number)| piece.iter().all(|byte| *byte == number)));
        assert_eq!((all.len(), used(), budget.files_used()), (30 * LENGTH, (0, 0), 0));
    }

    /// Whatever the others do: a client has a sixteenth of the memory, and no first pieces beside it.
    #[tokio::test]
    async fn a_client_who_has_his_part_of_memory_keeps_no_more_of_many_bodies_there() {
        const LENGTH: usize = 64 << 10;
        for (memory, bodies) in [(4 << 20, 40), (0, 3)] {
            let budget = budget(memory, 1 << 30);
            let share = Share { memory: 256 << 10, disk: 1 << 30, client: Some([192, 0, 2, 1].into()) };
            let mut pipes = Vec::new();
            for _ in 0..bodies {
                let (writer, reader) = pipe(None, share, &budget);
                for number in 0..6 {
                    writer.push(Bytes::from(vec![number; LENGTH])).await.unwrap();
                }
                writer.end(Ok(())).await;
                pipes.push(reader);
            }
            let in_memory: u64 = pipes.iter().map(|reader| reader.shared.borrow().memory.length()).sum();
            assert_eq!(in_memory, budget.memory_used(), "nothing is there that was not leased");
            assert!(in_memory <= memory / 16, "{in_memory}");
            for reader in pipes {
                let all = read_all(reader).await;
                assert!(all.chunks(LENGTH).zip(0..6).all(|(piece, number)| piece.iter().all(|byte| *byte == number)));
                assert_eq!(all.len(), 6 * LENGTH);
            }
            assert_eq!((budget.memory_used(), budget.disk_used(), budget.files_used()), (0, 0, 0));
        }
    }

    #[tokio::test]
    async fn when_it_is_crowded_what_has_no_room_on_disk_stays_where_it_is() {
        const LENGTH: u64 = 64 << 10;
        let (budget, _held) = crowded(1 << 30);
        let before = budget.memory_used();
        // The second piece has room there, and the first one has not.
        let (writer, _reader) = pipe(None, Share { memory: 256 << 10, disk: LENGTH + 1, client: None }, &budget);
        for _ in 0..2 {
            writer.push(Bytes::from(vec![1; LENGTH as usize])).await.unwrap();
        }
        assert_eq!((budget.memory_used() - before, budget.disk_used()), (LENGTH, LENGTH));
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
        let nowhere = config::Spool { dir: "/nonexistent".into(), memory: 100_000, disk: 100 << 20 };
        for length in [10, 30_000, 300_000] {
            let budget = Budget::new(&nowhere);
            let (writer, reader) = pipe(None, Share { memory: 20, disk: 100 << 20, client: None }, &budget);
            let writing = async {
                for number in 0..50 {
                    writer.push(Bytes::from(vec![number; length])).await.unwrap();
                }
                writer.end(Ok(())).await;
            };
            let ((), all) = tokio::join!(writing, read_all(reader));
            let expected: Vec<u8> = (0..50).flat_map(|number| vec![number; length]).collect();
            assert!(all == expected, "pieces of {length}");
            assert_eq!((budget.memory_used(), budget.disk_used(), budget.files_used()), (0, 0, 0));
        }
    }

    #[tokio::test]
    async fn a_byte_at_a_time_goes_to_the_file_in_few_pieces() {
        let budget = budget(1 << 20, 10 << 20);
        let (writer, reader) = pipe(None, Share { memory: 10, disk: 10 << 20, client: None }, &budget);
        for number in 0..100_000_u32 {
            writer.push(Bytes::from(vec![(number % 251) as u8])).await.unwrap();
        }
        assert!(writer.shared.borrow().behind.count() <= 100_000 / (16 << 10) + 1);
        let ((), all) = tokio::join!(writer.end(Ok(())), read_all(reader));
        assert!(all.len() == 100_000 && all.iter().zip(0_u32..).all(|(byte, number)| u32::from(*byte) == number % 251));
        assert_eq!((budget.memory_used(), budget.disk_used(), budget.files_used()), (0, 0, 0));
    }

    /// The reader takes nothing before all has been written, or leaves in the middle.
    #[tokio::test]
    async fn what_is_on_its_way_to_the_file_is_accounted_for_until_it_is_read_or_unwanted() {
        for reads in [true, false] {
            let budget = budget(1 << 20, 10 << 20);
            let (writer, reader) = pipe(None, Share { memory: 1000, disk: 10 << 20, client: None }, &budget);
            for number in 0..30 {
                writer.push(Bytes::from(vec![number; 100_000])).await.unwrap();
                assert_eq!(budget.disk_used() + budget.memory_used(), (u64::from(number) + 1) * 100_000);
                let (next, writing) = writer.shared.borrow().behind.on_its_way();
                assert!(next < BATCH && writing < 2 * BATCH, "{next} + {writing}");
            }
            if reads {
                let ((), all) = tokio::join!(writer.end(Ok(())), read_all(reader));
                assert!(all.chunks(100_000).zip(0..).all(|(piece, number)| piece.iter().all(|byte| *byte == number)));
                assert_eq!(all.len(), 3_000_000);
            } else {
                drop(reader);
                assert_eq!(writer.push(piece(1)).await, Err(Gone));
                drop(writer);
            }
            assert_eq!((budget.memory_used(), budget.disk_used(), budget.files_used()), (0, 0, 0), "{reads}");
        }
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
        assert_eq!(reader.shared.borrow().memory.count(), 2, "the first one, and all others");
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
        writer.end(Err(Reason::EofInBody.into())).await;
        let mut body = Body::Stream(Box::new(reader));
        assert!(body.data().await.unwrap().is_ok());
        assert_eq!(body.data().await.unwrap().unwrap_err().reason, Reason::EofInBody);
    }
}
