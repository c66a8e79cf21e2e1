//! One end writes, the other reads: what lies in memory, what goes to disk, and when a writer waits.

use super::*;
use crate::config;
use crate::http::Body;
use crate::upstream::spool::behind::BATCH;

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
    for (budget, disk, in_memory) in [(&good, 1 << 30, 1), (&good, 0, 4), (&full, 1 << 30, 4), (&nowhere, 1 << 30, 4)] {
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
