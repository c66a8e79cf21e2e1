//! What comes between the steps of what the disk's threads do: each is stopped where it hurts most.

use std::sync::mpsc;

use super::bad::{Bad, Step, files, open_as_bad, open_bad};
use super::streams::rest;
use super::*;

const EIO: i32 = 5;

fn settled(store: &Arc<Store>) {
    assert!(store.settle(Duration::from_secs(60)));
}

fn purge(store: &Arc<Store>, what: Purge) -> u64 {
    block_on(store.purge(what, Manner::Hard)).unwrap()
}

fn tag(tag: &str) -> Purge {
    Purge::Tag(tag.as_bytes().into())
}

/// So many purges of nothing that the journal is emptied, if it may be.
fn purge_much(store: &Arc<Store>) {
    (0..30).for_each(|number| assert_eq!(purge(store, tag(&format!("nothing has number {number}"))), 0));
}

fn journal(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("purges")).unwrap().len()
}

fn freshen(store: &Arc<Store>, number: u64, old: &Arc<Object>, facts: &[u8]) -> Result<(), NotStored> {
    let update = Update { fields: &fields(), facts, since: store.moment(), primary: None };
    store.freshen(&key(number), old, &update)
}

fn queued(store: &Store) -> ([usize; 4], usize) {
    store.disk.as_ref().unwrap().threads.queued()
}

#[test]
fn a_journal_is_emptied_when_it_is_large_and_its_work_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&on_disk(folder.path()));
    put(&store, 1, 1000).unwrap();
    settled(&store);
    assert_eq!(purge(&store, Purge::All), 1);
    purge_much(&store);
    until(|| journal(folder.path()) < 256);
}

#[test]
fn one_thread_at_a_time_waits_for_the_file_system_to_be_synced() {
    let folder = tempfile::tempdir().unwrap();
    let (store, bad) = open_bad(&on_disk(folder.path()));
    settled(&store);
    bad.catch(Step::Sync);
    purge_much(&store);
    bad.until_caught();
    purge_much(&store);
    until(|| queued(&store) == ([0; 4], 1));
    assert_eq!(bad.syncs.load(Relaxed), 1, "the others have other things to do");
    bad.let_go();
    // What has come meanwhile is not forgotten.
    until(|| journal(folder.path()) < 256);
}

#[test]
fn a_copy_that_comes_late_does_not_take_the_place_of_what_was_stored_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (store, bad) = open_bad(&on_disk(folder.path()));
        let old = put(&store, 1, 3_000_000).unwrap();
        bad.catch(Step::Head);
        freshen(&store, 1, &old, b"copy").unwrap();
        bad.until_caught();
        put(&store, 1, 2000).unwrap();
        until(|| store.index.look(&key(1)).is_some_and(|(_, has_file)| has_file));
        bad.let_go();
        settled(&store);
        assert!(has(&store, 1, 2000));
    }
    let store = open(&on_disk(folder.path()));
    assert!(has(&store, 1, 2000) && files(folder.path()) == 1);
}

#[test]
fn a_copy_of_what_was_taken_out_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (store, bad) = open_bad(&on_disk(folder.path()));
        // Purged before the app was asked again.
        let old = put(&store, 1, 3_000_000).unwrap();
        assert_eq!(purge(&store, Purge::All), 1);
        freshen(&store, 1, &old, b"copy").unwrap();
        settled(&store);
        assert_eq!(files(folder.path()), 0);
        // Driven out while it is copied.
        let old = put(&store, 2, 3_000_000).unwrap();
        bad.catch(Step::Head);
        freshen(&store, 2, &old, b"copy").unwrap();
        bad.until_caught();
        assert!(store.disk.as_ref().is_some_and(|disk| store.evict_file(disk)));
        bad.let_go();
        settled(&store);
        assert_eq!((files(folder.path()), store.numbers().disk_bytes), (0, 0));
    }
    assert!(open(&on_disk(folder.path())).get(&key(2)).is_none());
}

#[test]
fn a_response_that_is_purged_while_its_file_is_named_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    for length in [1000, 3_000_000] {
        let (store, bad) = open_bad(&on_disk(folder.path()));
        let mut writer = Told::new(&store, 1).begin(&store, 1);
        push(&mut writer, &content(1, length));
        bad.catch(Step::Name);
        let finish = writer.finish();
        bad.until_caught();
        purge(&store, Purge::All);
        bad.let_go();
        let stored = outcome(finish);
        settled(&store);
        assert!(stored.is_ok() == (length == 1000), "a small one was there before it was written");
        assert!(store.get(&key(1)).is_none() && store.numbers().disk_bytes == 0);
        assert_eq!(files(folder.path()), 0, "{length}");
    }
}

#[test]
fn what_is_driven_out_of_memory_while_its_file_is_named_is_found_by_purges() {
    let folder = tempfile::tempdir().unwrap();
    let (store, bad) = open_bad(&on_disk(folder.path()));
    bad.catch(Step::Name);
    Told::new(&store, 1).tagged(&["t"]).store(&store, 1, 1000).unwrap();
    bad.until_caught();
    // It has left the index; its labels are taken a moment later.
    let gone = store.index.evict(Level::Memory).unwrap();
    bad.let_go();
    settled(&store);
    store.forget(gone);
    assert!(has(&store, 1, 1000));
    assert_eq!(purge(&store, tag("t")), 1);
    settled(&store);
    assert!(store.get(&key(1)).is_none() && store.catalogue.is_empty() && files(folder.path()) == 0);
}

#[test]
fn a_purge_stays_written_down_while_files_cannot_be_removed_or_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let is_gone = |store: &Arc<Store>| (0..5).all(|number| !has(store, number, 1000));
    let (store, bad) = open_bad(&on_disk(folder.path()));
    for number in 0..5 {
        Told::new(&store, number).tagged(&["t"]).store(&store, number, 1000).unwrap();
    }
    settled(&store);
    bad.remove_error.store(EIO, Relaxed);
    assert_eq!(purge(&store, tag("t")), 5);
    purge_much(&store);
    settled(&store);
    assert!(journal(folder.path()) > 256 && files(folder.path()) == 5);
    drop(store);
    // They are found, but cannot be read.
    let bad = Bad::default();
    bad.read_error.store(EIO, Relaxed);
    let (store, bad) = open_as_bad(&on_disk(folder.path()), bad);
    settled(&store);
    assert!(store.numbers().read_failures >= 5 && is_gone(&store) && journal(folder.path()) > 256);
    bad.read_error.store(0, Relaxed);
    drop(store);
    let store = open(&on_disk(folder.path()));
    assert!(is_gone(&store));
    settled(&store);
    assert_eq!(files(folder.path()), 0);
    until(|| journal(folder.path()) == 0);
}

#[test]
fn a_purge_stays_written_down_while_an_old_file_waits_for_a_new_one_in_its_place() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, bad) = open_bad(&on_disk(folder.path()));
    put(&store, 1, 1000).unwrap();
    settled(&store);
    bad.catch(Step::Head);
    put(&store, 1, 1500).unwrap();
    bad.until_caught();
    assert_eq!(purge(&store, Purge::All), 1);
    purge_much(&store);
    until(|| queued(&store) == ([0; 4], 1));
    // As if the process were killed now.
    let killed = copy.path().join("killed");
    let copied = std::process::Command::new("cp").arg("-a").args([folder.path(), &killed]).status();
    assert!(copied.unwrap().success() && files(&killed) == 2);
    bad.let_go();
    settled(&store);
    assert_eq!(files(folder.path()), 0);
    assert!(open(&on_disk(&killed)).get(&key(1)).is_none(), "it has come back");
}

#[test]
fn who_is_behind_reads_on_while_a_response_is_given_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for step in [Step::Head, Step::Name] {
        let (store, bad) = open_bad(&on_disk(folder.path()));
        let mut writer = Told::new(&store, 1).begin(&store, 1);
        let slow = writer.follow().unwrap();
        let content = content(1, 3_000_001);
        push(&mut writer, &content);
        bad.catch(step);
        let finish = writer.finish();
        bad.until_caught();
        assert!(block_on(rest(slow, Vec::new())).is_ok_and(|all| all == content), "{step:?}");
        bad.let_go();
        outcome(finish).unwrap();
        assert!(has(&store, 1, content.len()));
    }
}

#[test]
fn a_disk_that_hangs_has_no_more_to_do_than_there_are_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&on_disk(folder.path()));
    (0..10).for_each(|number| drop(put(&store, number, 1000).unwrap()));
    let large = put(&store, 10, 1_000_000).unwrap();
    settled(&store);
    let disk = store.disk.as_ref().unwrap();
    let held: Vec<_> = (0..4)
        .map(|_| {
            let (hold, held) = mpsc::channel::<()>();
            disk.threads.surely(move || {
                let _ = held.recv();
            });
            hold
        })
        .collect();
    until(|| queued(&store) == ([0; 4], 4));
    assert_eq!((0..100).filter(|_| freshen(&store, 10, &large, b"copy").is_ok()).count(), 1);
    for turn in 0..20_000 {
        put(&store, turn % 10, 1000).unwrap();
        drop(store.invalidate(b"shop.example", b"/nothing", Manner::Hard));
        store.put_uncacheable(&key(turn % 10 + 100), Duration::from_secs(1), store.moment());
    }
    let ([reads, pieces, writes, sure], _) = queued(&store);
    let [removals, marks, notes, _] = disk.owed.count();
    assert!(reads + pieces + marks + notes == 0 && sure <= 1, "{reads} {pieces} {sure} {marks} {notes}");
    assert!(writes <= 4096 && removals <= 10, "{writes} {removals}");
    for turn in 0..20_000 {
        put(&store, turn % 10, 1000).unwrap();
        assert_eq!(block_on(store.invalidate(b"shop.example", path(turn % 10).as_bytes(), Manner::Hard)), 1);
    }
    let [removals, _, notes, _] = disk.owed.count();
    assert!(removals <= 10 && notes <= 8192, "{removals} {notes}");
    for _ in 0..1000 {
        let path: Box<[u8]> = vec![b'x'; 60_000].into();
        drop(store.purge(Purge::Prefix { host: b"nowhere".as_slice().into(), path }, Manner::Soft));
        assert!(disk.owed.count()[3] <= 8 << 20, "bytes");
    }
    assert_eq!(queued(&store).0[3], 1);
    drop(held);
    settled(&store);
    assert_eq!(files(folder.path()), 1, "the large one");
}

#[test]
fn what_was_read_before_a_purge_is_not_given_to_who_asks_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { open_files: 0, ..on_disk(folder.path()) };
    for manner in [Manner::Hard, Manner::Soft] {
        put(&open(&settings), 1, 1_000_000).unwrap();
        let (store, bad) = open_bad(&settings);
        let ask = || match store.get(&key(1)) {
            Some(Found::OnDisk(place)) => place.open(),
            other => panic!("{other:?}"),
        };
        bad.hang(true);
        let first = ask();
        until(|| queued(&store) == ([0; 4], 1));
        assert_eq!(block_on(store.purge(Purge::All, manner)).unwrap(), 1);
        if manner == Manner::Hard {
            put(&store, 1, 900_000).unwrap();
        }
        let second = ask();
        bad.hang(false);
        block_on(async {
            drop(first.await);
            match second.await {
                Some(Found::Object(object)) => assert!(object.is_purged() || object.length() == 900_000, "{manner:?}"),
                None => assert_eq!(manner, Manner::Hard),
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn a_read_that_takes_too_long_costs_those_who_come_later_nothing() {
    let folder = tempfile::tempdir().unwrap();
    put(&open(&on_disk(folder.path())), 1, 1000).unwrap();
    put(&open(&on_disk(folder.path())), 2, 1000).unwrap();
    let (store, bad) = open_bad(&on_disk(folder.path()));
    bad.hang(true);
    let ask = |number| match store.get(&key(number)) {
        Some(Found::OnDisk(place)) => place.open(),
        other => panic!("{other:?}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        assert!(ask(1).await.is_none());
        // Somebody else's work is done: the disk does not hang.
        let disk = store.disk.as_ref().unwrap();
        let done = disk.threads.done();
        disk.threads.surely(|| ());
        until(|| disk.threads.done() > done && !disk.hangs());
        let begun = tokio::time::Instant::now();
        for _ in 0..1000 {
            assert!(ask(1).await.is_none());
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits");
    });
    bad.hang(false);
    until(|| has(&store, 1, 1000));
    assert!(has(&store, 2, 1000));
}

#[test]
fn a_response_that_was_found_good_too_late_does_not_come_back() {
    let store = open(&in_memory(16 * MIB));
    for length in [1000, 1_000_000] {
        let old = put(&store, 1, length).unwrap();
        put(&store, 1, length + 1).unwrap();
        assert_eq!(freshen(&store, 1, &old, b"new").unwrap_err(), NotStored::Overtaken);
        assert!(has(&store, 1, length + 1), "what is younger stays");
        purge(&store, Purge::All);
        assert_eq!(freshen(&store, 1, &old, b"new").unwrap_err(), NotStored::Overtaken);
        assert!(store.get(&key(1)).is_none() && store.catalogue.is_empty());
        // What was asked for before does not take the place of what was asked for later.
        let told = Told::new(&store, 2);
        assert!(store.put_uncacheable(&key(2), Duration::from_secs(60), store.moment()));
        purge(&store, tag("t"));
        told.store(&store, 2, length).unwrap();
        put(&store, 2, length + 1).unwrap();
        purge(&store, tag("t"));
        put(&store, 2, length + 2).unwrap();
        assert_eq!(told.store(&store, 2, length).unwrap_err(), NotStored::Overtaken);
        assert!(has(&store, 2, length + 2));
        purge(&store, Purge::All);
    }
}

#[test]
fn a_marker_takes_the_place_of_nothing_younger_and_of_no_rule() {
    let folder = tempfile::tempdir().unwrap();
    let minute = Duration::from_secs(60);
    for settings in [in_memory(16 * MIB), on_disk(folder.path())] {
        let store = open(&settings);
        // At the same moment as that of the object.
        let early = store.moment();
        put(&store, 1, 1000).unwrap();
        assert!(!store.put_uncacheable(&key(1), minute, early), "the object is younger");
        assert!(has(&store, 1, 1000));
        assert!(store.put_vary(&key(2), [http::header::ACCEPT].iter(), b"") && store.settle(minute));
        assert!(!store.put_uncacheable(&key(2), minute, store.moment()));
        // A rule that is on disk alone.
        while store.index.evict(Level::Memory).is_some() {}
        assert!(!store.has_disk() || !store.put_uncacheable(&key(2), minute, store.moment()));
        assert!(store.put_uncacheable(&key(1), minute, store.moment()));
        assert!(matches!(store.get(&key(1)), Some(Found::Uncacheable(_))));
    }
}

#[test]
fn a_body_that_is_too_large_for_the_disk_drives_nobody_off_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = on_disk(folder.path());
    settings.disk.as_mut().unwrap().size = 10 * MIB;
    let store = open(&settings);
    (0..15).for_each(|number| drop(put(&store, number, 300_000).unwrap()));
    settled(&store);
    assert!(put(&store, 99, 20_000_000).is_err());
    settled(&store);
    // All but half of it.
    assert!(store.numbers().disk_objects >= 15 - 2, "{:?}", store.numbers());
}
