//! A request body, received whole before a worker is touched.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::Share;
use super::budget::{Budget, Lease};
use super::file::{self, SpoolFile};
use crate::error::{Error, Reason};
use crate::http::{Body, Source};
use crate::runtime::{PieceReader, Span};

/// Where no memory can be leased, small pieces are written to the file once there are so many bytes of them: a body that
/// comes byte by byte costs no write for each.
///
/// Until then they lie in memory that no budget counts, while their room on disk is taken: one batch at most of each request
/// that is being received and has its place among the files.
const BATCH: usize = 16 << 10;

/// A whole request body. Can be sent any number of times.
#[derive(Debug)]
pub struct Spooled {
    /// The bytes behind those in the file; all of them when there is no file.
    memory: Bytes,
    file: SpoolFile,
    in_file: u64,
    /// Gives the budget back when the last sender is done.
    _lease: Lease,
}

/// Reads `body` to its end. `limit` bounds its length, `share` what it may take of the budget.
///
/// # Errors
/// [`Reason::BodyTooLarge`] (before a byte is read where the length is known), [`Reason::SpoolFull`],
/// [`Reason::SpoolFailed`], or what the client did.
pub async fn receive(
    mut body: Body,
    limit: u64,
    share: Share,
    budget: &Arc<Budget>,
) -> Result<Option<Rc<Spooled>>, Error> {
    if matches!(body, Body::Empty) {
        return Ok(None);
    }
    let mut receiving = Receiving::new(limit, share, budget);
    receiving.check(body.remaining().unwrap_or(0))?;
    while let Some(data) = body.data().await {
        receiving.push(&data?).await?;
    }
    receiving.finish().await.map(|spooled| Some(Rc::new(spooled)))
}

/// Where bytes are put for which there is room in both places.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefer {
    /// Disk, where they are better off there.
    Disk,
    /// Memory: there is no room for them on disk.
    Memory,
}

struct Receiving {
    limit: u64,
    share: Share,
    /// What is in memory: the whole body, or what is to be written next.
    buffer: Vec<u8>,
    leased: u64,
    file: SpoolFile,
    in_file: u64,
    lease: Lease,
}

impl Receiving {
    fn new(limit: u64, share: Share, budget: &Arc<Budget>) -> Self {
        Self {
            limit,
            share,
            buffer: Vec::new(),
            leased: 0,
            file: SpoolFile::default(),
            in_file: 0,
            lease: Lease::new(Arc::clone(budget), share.client),
        }
    }

    /// Whether `more` bytes may still come.
    fn check(&self, more: u64) -> Result<(), Error> {
        let length = self.in_file + self.buffer.len() as u64 + more;
        if length <= self.limit {
            return Ok(());
        }
        Err(Error::new(Reason::BodyTooLarge).detail(format!("the limit is {} bytes: see `body_limit`", self.limit)))
    }

    async fn push(&mut self, data: &[u8]) -> Result<(), Error> {
        let more = data.len();
        self.check(more as u64)?;
        if !self.has_room(more, Prefer::Disk) && !self.can_collect(more) {
            if self.book(0) {
                self.flush().await?;
            }
            // After a flush the buffer's memory is leased or, when the budget has none left, goes with this piece.
            if !self.has_room(more, Prefer::Disk) && !self.book(more) && !self.has_room(more, Prefer::Memory) {
                return Err(super::full());
            }
        }
        self.buffer.extend_from_slice(data);
        if self.leased < self.buffer.len() as u64 && self.buffer.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    /// Whether `more` bytes can wait in memory, leased or not, for the rest of a batch.
    fn can_collect(&mut self, more: usize) -> bool {
        let length = self.buffer.len() + more;
        if length > BATCH || !self.book(more) {
            return false;
        }
        self.reserve(length.next_power_of_two());
        true
    }

    /// Takes room on disk for what is in memory and `more` bytes, if there is any. A batch that has begun is then sure of
    /// its room, and a piece that has none is refused when it comes.
    fn book(&mut self, more: usize) -> bool {
        let length = self.in_file + (self.buffer.len() + more) as u64;
        let missing = length.saturating_sub(self.lease.disk());
        // Where nothing is missing no file is taken either.
        length <= self.share.disk && (missing == 0 || self.lease.take_disk(missing))
    }

    /// Gives back the room on disk of what is in memory, which is leased now; with it the file, where nothing is in it.
    fn unbook(&mut self) {
        if self.in_file == 0 {
            self.lease.give_disk();
        } else {
            let booked = self.lease.disk().saturating_sub(self.in_file);
            self.lease.give_back_disk(booked);
        }
    }

    /// Makes the buffer so large, and no larger: it is what has been leased, or a batch.
    fn reserve(&mut self, capacity: usize) {
        self.buffer.reserve_exact(capacity.saturating_sub(self.buffer.len()));
    }

    /// Whether the buffer can take `more` bytes within its share and the budget.
    fn has_room(&mut self, more: usize, prefer: Prefer) -> bool {
        let length = self.buffer.len() + more;
        if length as u64 <= self.leased {
            return true;
        }
        if length as u64 > self.share.memory {
            return false;
        }
        // What a Vec that doubles will take, but never more than the share.
        let wanted = (length.next_power_of_two().max(1 << 10) as u64).min(self.share.memory);
        let is_for_disk = prefer == Prefer::Disk && self.lease.is_for_disk(wanted - self.leased);
        if is_for_disk || !self.lease.take_memory(wanted - self.leased) {
            return false;
        }
        self.leased = wanted;
        if self.lease.disk() > self.in_file {
            self.unbook();
        }
        self.reserve(usize::try_from(wanted).unwrap_or(length));
        true
    }

    /// Moves what is in memory to the file.
    async fn flush(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let length = self.buffer.len() as u64;
        if !self.book(0) {
            return Err(super::full());
        }
        let place = self.file.place(self.lease.budget());
        let written = file::write(place, std::mem::take(&mut self.buffer), self.in_file).await;
        self.lease.budget().note_disk(written.is_ok());
        let (file, mut buffer) = written?;
        buffer.clear();
        // What a large piece took beyond the lease goes with it.
        if buffer.capacity() as u64 <= self.leased.max(BATCH as u64) {
            self.buffer = buffer;
        }
        self.in_file += length;
        self.file.keep(file, self.in_file);
        Ok(())
    }

    async fn finish(mut self) -> Result<Spooled, Error> {
        // What was collected and is a whole body may find memory now.
        if self.in_file > 0 || !self.has_room(0, Prefer::Memory) {
            self.flush().await?;
            self.buffer = Vec::new();
            self.lease.give_memory(self.leased);
        }
        Ok(Spooled { memory: self.buffer.into(), file: self.file, in_file: self.in_file, _lease: self.lease })
    }
}

impl Spooled {
    /// Bytes of the body.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.in_file + self.memory.len() as u64
    }

    /// The body, from its beginning.
    #[must_use]
    pub fn body(self: &Rc<Self>) -> Body {
        match self.in_file {
            0 => Body::Full(self.memory.clone()),
            _ => Body::Stream(Box::new(Replay { spooled: Rc::clone(self), at: 0, reader: PieceReader::default() })),
        }
    }
}

/// Reads a body from its file.
struct Replay {
    spooled: Rc<Spooled>,
    at: u64,
    reader: PieceReader,
}

impl Source for Replay {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let end = self.spooled.in_file;
        let Some(file) = self.spooled.file.handle().filter(|_| self.at < end) else { return Poll::Ready(None) };
        let piece = ready!(self.reader.poll(&file, self.at, end, cx)).map_err(file::failed);
        if let Ok(piece) = &piece {
            self.at += piece.len() as u64;
        }
        Poll::Ready(Some(piece))
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.spooled.in_file - self.at)
    }

    fn span(&self) -> Option<Span> {
        self.reader.span(&self.spooled.file.handle()?, self.at, self.spooled.in_file)
    }

    fn sent(&mut self, bytes: u64) {
        self.at += bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::config;

    struct Pieces(Vec<&'static [u8]>);

    impl Source for Pieces {
        fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
            Poll::Ready(if self.0.is_empty() { None } else { Some(Ok(Bytes::from_static(self.0.remove(0)))) })
        }

        fn remaining(&self) -> Option<u64> {
            None
        }
    }

    fn budget(memory: u64, disk: u64) -> Arc<Budget> {
        Budget::new(&config::Spool { dir: std::env::temp_dir(), memory, disk })
    }

    async fn spool(limit: u64, share: (u64, u64), budget: &Arc<Budget>) -> Result<Rc<Spooled>, Reason> {
        let body = Body::Stream(Box::new(Pieces(vec![b"hello ", b"", b"big ", b"world"])));
        let share = Share { memory: share.0, disk: share.1, client: None };
        receive(body, limit, share, budget).await.map(|spooled| spooled.unwrap()).map_err(|error| error.reason)
    }

    async fn read(body: &mut Body) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(data) = body.data().await {
            all.extend_from_slice(&data.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn a_body_is_the_same_from_memory_and_from_disk_and_again() {
        for memory in [0, 1, 7, 8, 100] {
            let budget = budget(1000, 1000);
            let spooled = spool(15, (memory, 100), &budget).await.unwrap();
            assert_eq!(spooled.length(), 15);
            for _ in 0..2 {
                assert_eq!(read(&mut spooled.body()).await, b"hello big world", "{memory} bytes in memory");
            }
            drop(spooled);
            assert_eq!((budget.memory_used(), budget.disk_used()), (0, 0));
        }
    }

    #[tokio::test]
    async fn limits_have_their_reasons() {
        assert_eq!(spool(14, (100, 100), &budget(100, 100)).await.unwrap_err(), Reason::BodyTooLarge);
        assert_eq!(spool(100, (5, 14), &budget(2000, 100)).await.unwrap_err(), Reason::SpoolFull);
        assert_eq!(spool(100, (5, 100), &budget(2000, 14)).await.unwrap_err(), Reason::SpoolFull);
        let full = budget(0, 100);
        assert_eq!(spool(100, (100, 100), &full).await.unwrap().length(), 15, "without memory the disk is used");
    }

    #[tokio::test]
    async fn when_it_is_crowded_a_body_that_cannot_go_to_disk_stays_in_memory() {
        let body = || Body::Full(Bytes::from(vec![b'x'; 100 << 10]));
        for (budget_disk, disk, on_disk) in [(1 << 30, 1 << 30, true), (1 << 30, 0, false), (10, 1 << 30, false)] {
            let budget = budget(1 << 20, budget_disk);
            let mut other = Lease::new(Arc::clone(&budget), None);
            assert!(other.take_memory(200 << 10));
            let share = Share { memory: 256 << 10, disk, client: None };
            let spooled = receive(body(), 1 << 20, share, &budget).await.unwrap().unwrap();
            assert_eq!(spooled.length(), 100 << 10);
            assert_eq!(budget.disk_used() > 0, on_disk, "{budget_disk} in all, {disk} for the body");
            assert_eq!(budget.files_used(), u64::from(on_disk), "what stays in memory takes no file");
            assert_eq!(read(&mut spooled.body()).await.len(), 100 << 10);
        }
    }

    const CLIENT: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    const PART: u64 = 64 << 10;

    /// A budget of which a client has all the memory that it may have, and what has it.
    fn used_up() -> (Arc<Budget>, Lease) {
        let budget = budget(16 * PART, 1 << 20);
        let mut other = Lease::new(Arc::clone(&budget), CLIENT);
        assert!(other.take_memory(PART) && !other.take_memory(1));
        (budget, other)
    }

    fn receiving(disk: u64, budget: &Arc<Budget>) -> Receiving {
        Receiving::new(1 << 20, Share { memory: PART, disk, client: CLIENT }, budget)
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at % 251) as u8).collect()
    }

    fn used(budget: &Budget) -> (u64, u64, u64) {
        (budget.memory_used(), budget.disk_used(), budget.files_used())
    }

    fn file_length(file: &SpoolFile) -> u64 {
        file.handle().map_or(0, |file| file.metadata().unwrap().len())
    }

    #[tokio::test]
    async fn single_bytes_for_which_there_is_no_memory_are_written_in_batches() {
        let (budget, other) = used_up();
        let (mut receiving, bytes) = (receiving(1 << 20, &budget), bytes(40_000));
        let mut lengths = vec![0];
        for piece in bytes.chunks(1) {
            receiving.push(piece).await.unwrap();
            lengths.push(file_length(&receiving.file));
        }
        lengths.dedup();
        assert_eq!(lengths.len(), 3, "two writes");
        assert_eq!(lengths, [0, BATCH as u64, 2 * BATCH as u64]);
        assert_eq!(used(&budget), (PART, 40_000, 1), "what is to be written has its room");
        let spooled = Rc::new(receiving.finish().await.unwrap());
        assert_eq!((file_length(&spooled.file), spooled.length()), (40_000, 40_000));
        assert_eq!(read(&mut spooled.body()).await, bytes);
        drop((spooled, other));
        assert_eq!(used(&budget), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_was_collected_ends_in_memory_where_there_is_some_by_then_and_in_a_file_where_not() {
        for (is_free, expected) in [(false, (PART, 3, 1)), (true, (1 << 10, 0, 0))] {
            let (budget, mut other) = used_up();
            let mut receiving = receiving(1 << 20, &budget);
            for piece in b"abc".chunks(1) {
                receiving.push(piece).await.unwrap();
            }
            assert_eq!((file_length(&receiving.file), used(&budget)), (0, (PART, 3, 1)));
            if is_free {
                other.give_memory(PART);
            }
            let spooled = Rc::new(receiving.finish().await.unwrap());
            assert_eq!(used(&budget), expected);
            assert_eq!(read(&mut spooled.body()).await, b"abc");
            drop((spooled, other));
            assert_eq!(used(&budget), (0, 0, 0));
        }
    }

    #[tokio::test]
    async fn memory_that_comes_free_takes_what_was_collected_and_its_room_on_disk_is_given_back() {
        let (budget, mut other) = used_up();
        let (mut receiving, bytes) = (receiving(1 << 20, &budget), bytes(BATCH + 3));
        for piece in bytes[..=BATCH].chunks(1) {
            receiving.push(piece).await.unwrap();
        }
        other.give_memory(PART);
        receiving.push(&bytes[BATCH + 1..]).await.unwrap();
        assert_eq!(used(&budget), (1 << 10, BATCH as u64, 1), "the file has a batch, memory the rest");
        let spooled = Rc::new(receiving.finish().await.unwrap());
        assert_eq!(used(&budget), (0, BATCH as u64 + 3, 1));
        assert_eq!(read(&mut spooled.body()).await, bytes);
    }

    #[tokio::test]
    async fn pieces_of_all_sizes_keep_their_order_and_no_more_than_a_batch_waits_without_a_lease() {
        let (budget, _other) = used_up();
        let sizes = [1, BATCH - 1, 1, BATCH, 9000, 100, 0, 9000, 5, 3 * BATCH, 7];
        let (mut receiving, bytes) = (receiving(1 << 20, &budget), bytes(sizes.iter().sum()));
        let mut rest = &bytes[..];
        for size in sizes {
            let (piece, behind) = rest.split_at(size);
            receiving.push(piece).await.unwrap();
            assert!(receiving.buffer.len() < BATCH && receiving.buffer.capacity() <= BATCH, "after {size} bytes");
            rest = behind;
        }
        assert_eq!(receiving.leased, 0);
        let spooled = Rc::new(receiving.finish().await.unwrap());
        assert_eq!(read(&mut spooled.body()).await, bytes);
    }

    #[tokio::test]
    async fn the_first_byte_that_finds_no_room_is_refused_though_no_batch_is_full() {
        let (budget, other) = used_up();
        let mut receiving = receiving(3, &budget);
        for piece in b"abc".chunks(1) {
            receiving.push(piece).await.unwrap();
        }
        assert_eq!(receiving.push(b"d").await.unwrap_err().reason, Reason::SpoolFull);
        drop((receiving, other));
        assert_eq!(used(&budget), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_was_collected_and_cannot_be_written_is_a_failure() {
        let budget = Budget::new(&config::Spool { dir: "/nowhere/at/all".into(), memory: 0, disk: 1000 });
        assert_eq!(spool(100, (100, 100), &budget).await.unwrap_err(), Reason::SpoolFailed);
        assert_eq!(used(&budget), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_body_that_is_not_in_the_page_cache_is_replayed_by_another_thread() {
        let budget = budget(1000, 1000);
        let spooled = spool(15, (0, 100), &budget).await.unwrap();
        let replay = Replay { spooled: Rc::clone(&spooled), at: 0, reader: PieceReader::default().uncached() };
        assert_eq!(read(&mut Body::Stream(Box::new(replay))).await, b"hello big world");
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_than_what_was_written_is_a_failure() {
        let spooled = spool(15, (0, 100), &budget(1000, 1000)).await.unwrap();
        spooled.file.handle().unwrap().set_len(10).unwrap();
        let mut body = spooled.body();
        assert_eq!(body.data().await.unwrap().unwrap().len(), 10);
        assert_eq!(body.data().await.unwrap().unwrap_err().reason, Reason::SpoolFailed);
    }

    #[tokio::test]
    async fn a_known_length_over_the_limit_is_refused_before_a_byte_is_read() {
        let body = Body::Full(Bytes::from_static(b"12345"));
        let error = receive(body, 4, Share { memory: 10, disk: 0, client: None }, &budget(10, 0)).await.unwrap_err();
        assert_eq!(error.reason, Reason::BodyTooLarge);
    }
}
