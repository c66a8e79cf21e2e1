//! Other bounds than before, and what is driven out because of them.

use super::*;

#[test]
fn a_smaller_memory_and_a_smaller_disk_hold_less_though_nobody_comes() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = on_disk(folder.path());
    settings.memory = 64 * MIB;
    let store = open(&settings);
    for number in 0..100 {
        put(&store, number, 100_000).unwrap();
        assert!(store.settle(Duration::from_secs(60)));
    }
    assert_eq!(store.numbers().disk_objects, 100);
    store.resize(4 * MIB, 5 * MIB, 64 * MIB);
    until(|| store.numbers().memory_bytes <= 4 * MIB && store.numbers().disk_bytes <= 5 * MIB);
    let there = (0..100).filter(|number| has(&store, *number, 100_000)).count();
    assert!((40..=90).contains(&there), "{there}");
    // What is asked for is in memory or on disk, and no file is left of the others.
    assert_eq!(super::bad::files(folder.path()) as u64, store.numbers().disk_objects);
}

#[test]
fn the_largest_body_that_is_stored_is_another_at_once() {
    let store = open(&in_memory(16 * MIB));
    assert!(put(&store, 1, 1_000_000).is_ok());
    store.resize(16 * MIB, 0, 100_000);
    assert_eq!(put(&store, 2, 1_000_000).unwrap_err(), NotStored::TooLarge);
    assert!(put(&store, 3, 100_000).is_ok() && has(&store, 1, 1_000_000));
    store.resize(64 * MIB, 0, 10_000_000);
    assert!(put(&store, 2, 10_000_000).is_ok() && has(&store, 2, 10_000_000));
}

#[test]
fn who_stores_something_drives_out_no_more_than_is_his_to_drive_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&on_disk(folder.path()));
    (0..300).for_each(|number| drop(put(&store, number, 100).unwrap()));
    for number in 0..5000 {
        store.put_uncacheable(&key(10_000 + number), Duration::from_secs(60), store.moment());
    }
    assert!(store.settle(Duration::from_secs(60)));
    let numbers = store.numbers();
    assert_eq!((numbers.disk_objects, numbers.memory_objects), (300, 5300));
    // As if it had become smaller just now.
    store.index.account(Level::Memory).set_limit(100_000, usize::MAX);
    store.index.account(Level::Disk).set_limit(100, usize::MAX);
    put(&store, 1000, 100).unwrap();
    assert!(store.settle(Duration::from_secs(60)));
    let numbers = store.numbers();
    assert!((1..=4 * 1024).contains(&numbers.evicted_memory), "{numbers:?}");
    assert!((1..=100).contains(&numbers.evicted_disk) && numbers.writes_skipped == 1, "{numbers:?}");
}

#[test]
fn no_more_files_are_known_than_there_is_memory_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&on_disk(folder.path()));
    store.index.account(Level::Disk).set_limit(1 << 20, 20);
    for number in 0..100 {
        put(&store, number, 100).unwrap();
        assert!(store.settle(Duration::from_secs(60)));
    }
    let known = store.numbers().disk_objects;
    assert!((15..=21).contains(&known), "{known}");
    assert_eq!(super::bad::files(folder.path()) as u64, known);
}
