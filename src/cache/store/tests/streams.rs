//! Followers of what is being written.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::http::Source;

/// As many bytes as are there now.
pub(super) fn there(follower: &mut Follower, all: &mut Vec<u8>) -> Option<Result<(), Reason>> {
    loop {
        match follower.poll_data(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(data))) => all.extend_from_slice(&data),
            Poll::Ready(Some(Err(error))) => return Some(Err(error.reason)),
            Poll::Ready(None) => return Some(Ok(())),
            Poll::Pending => return None,
        }
    }
}

pub(super) async fn rest(mut follower: Follower, mut all: Vec<u8>) -> Result<Vec<u8>, Reason> {
    while let Some(data) = poll_fn(|cx| follower.poll_data(cx)).await {
        all.extend_from_slice(&data.map_err(|error| error.reason)?);
    }
    Ok(all)
}

#[test]
fn who_follows_has_every_byte_when_it_comes_and_the_end_when_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for (settings, length) in
        [(in_memory(16 * MIB), 100_000), (in_memory(64 * MIB), 4_000_000), (on_disk(&folder.path().join("a")), 100_000)]
    {
        let store = open(&settings);
        let told = Told { length: Some(length as u64), ..Told::new(&store, 1) };
        let (mut writer, content) = (told.begin(&store, 1), content(1, length));
        let (mut follower, mut all) = (writer.follow().unwrap(), Vec::new());
        assert!(there(&mut follower, &mut all).is_none());
        for at in (0..length).step_by(length / 7) {
            let end = length.min(at + length / 7);
            push(&mut writer, &content.slice(at..end));
            assert!(there(&mut follower, &mut all).is_none());
            assert_eq!((all.len(), follower.remaining()), (end, Some((length - end) as u64)));
        }
        let feed = writer.feed();
        outcome(writer.finish()).unwrap();
        assert_eq!(there(&mut follower, &mut all), Some(Ok(())));
        assert!(all == content);
        let late = feed.follow().unwrap();
        assert!(block_on(rest(late, Vec::new())).unwrap() == content, "who comes late has all of it");
    }
}

#[test]
fn followers_on_other_threads_are_woken() {
    let store = open(&in_memory(64 * MIB));
    let content = content(1, 3_000_000);
    let mut writer = Told::new(&store, 1).begin(&store, 1);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let follower = writer.follow().unwrap();
            std::thread::spawn(move || block_on(rest(follower, Vec::new())))
        })
        .collect();
    push(&mut writer, &content);
    outcome(writer.finish()).unwrap();
    for thread in threads {
        assert!(thread.join().unwrap().unwrap() == content);
    }
}

#[test]
fn a_leader_that_fails_cuts_its_followers_which_is_never_an_end() {
    let folder = tempfile::tempdir().unwrap();
    for settings in [in_memory(64 * MIB), on_disk(folder.path())] {
        let store = open(&settings);
        let mut writer = Told::new(&store, 1).begin(&store, 1);
        let (mut follower, mut all) = (writer.follow().unwrap(), Vec::new());
        push(&mut writer, &content(1, 3_000_000));
        let feed = writer.feed();
        writer.fail(Reason::HeadTimeout);
        assert_eq!(there(&mut follower, &mut all), Some(Err(Reason::HeadTimeout)));
        assert!(feed.follow().is_none());
        let mut writer = Told::new(&store, 1).begin(&store, 1);
        let mut other = writer.follow().unwrap();
        push(&mut writer, &content(1, 10));
        drop(writer);
        assert_eq!(there(&mut other, &mut Vec::new()), Some(Err(Reason::EofInBody)));
        drop((feed, follower, other));
        assert!(store.settle(Duration::from_secs(60)));
        until(|| store.numbers().memory_bytes == 0 && store.numbers().disk_bytes == 0);
        assert!(store.get(&key(1)).is_none());
    }
}

#[test]
fn without_a_disk_who_is_too_far_behind_a_body_that_is_not_stored_is_cut() {
    let store = open(&in_memory(8 * MIB));
    let (content, mut writer) = (content(1, 6_000_000), Told::new(&store, 1).begin(&store, 1));
    let (mut swift, mut slow, mut all) = (writer.follow().unwrap(), writer.follow().unwrap(), Vec::new());
    for at in (0..content.len()).step_by(50_000) {
        push(&mut writer, &content.slice(at..content.len().min(at + 50_000)));
        assert!(there(&mut swift, &mut all).is_none());
        assert!(store.numbers().memory_bytes <= 4 * MIB, "{}", store.numbers().memory_bytes);
    }
    assert!(!writer.is_stored() && writer.follow().is_none());
    assert_eq!(there(&mut slow, &mut Vec::new()), Some(Err(Reason::ClientStalled)));
    assert_eq!(outcome(writer.finish()).unwrap_err(), NotStored::TooLarge);
    assert_eq!(there(&mut swift, &mut all), Some(Ok(())));
    assert!(all == content);
    drop((swift, slow));
    assert_eq!(store.numbers().memory_bytes, 0);
}

#[test]
fn a_large_body_lies_on_disk_and_not_in_memory_while_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&on_disk(folder.path()));
    let (length, mut writer) = (30_000_000, Told::new(&store, 1).begin(&store, 1));
    let (content, mut slow) = (content(1, length), writer.follow().unwrap());
    block_on(async {
        for at in (0..length).step_by(100_000) {
            poll_fn(|cx| writer.poll_ready(cx)).await;
            writer.push(&content.slice(at..length.min(at + 100_000)));
            assert!(store.numbers().memory_bytes < 4 * MIB, "{}", store.numbers().memory_bytes);
        }
    });
    let late = writer.follow().unwrap();
    let mut all = Vec::new();
    // It begins while the file is being written.
    let _ = there(&mut slow, &mut all);
    let object = outcome(writer.finish()).unwrap();
    assert!(object.is_on_disk() && object.length() == length as u64);
    assert!(block_on(rest(slow, all)).unwrap() == content);
    assert!(block_on(rest(late, Vec::new())).unwrap() == content);
    assert!(has(&store, 1, length));
    until(|| store.numbers().memory_bytes < 16 << 10);
    let blocks = (length as u64).div_ceil(4096);
    assert!((blocks..blocks + 2).contains(&(store.numbers().disk_bytes / 4096)), "{:?}", store.numbers());
}

#[test]
fn a_flood_of_small_pieces_is_put_together() {
    let store = open(&in_memory(16 * MIB));
    let (content, mut writer) = (content(1, 50_000), Told::new(&store, 1).begin(&store, 1));
    let (mut follower, mut all) = (writer.follow().unwrap(), Vec::new());
    for at in (0..content.len()).step_by(10) {
        writer.push(&content.slice(at..at + 10));
        if at % 170 == 0 {
            assert!(there(&mut follower, &mut all).is_none());
        }
    }
    assert!(writer.feed().0.lock().chunks.len() < 20);
    outcome(writer.finish()).unwrap();
    assert_eq!(there(&mut follower, &mut all), Some(Ok(())));
    assert!(all == content && has(&store, 1, 50_000));
}
