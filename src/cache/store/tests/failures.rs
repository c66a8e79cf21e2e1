//! A disk that is full, fails, hangs, or gives back other bytes than it was given.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::bad::{files, open_bad};
use super::streams::there;
use super::*;

#[test]
fn a_disk_that_takes_nothing_costs_what_was_to_be_written_and_nothing_else() {
    const ENOSPC: i32 = 28;
    const EROFS: i32 = 30;
    const EIO: i32 = 5;
    for error in [ENOSPC, EROFS, EIO] {
        for good in 0..4 {
            let folder = tempfile::tempdir().unwrap();
            let (store, bad) = open_bad(&on_disk(folder.path()));
            put(&store, 9, 2000).unwrap();
            assert!(store.settle(Duration::from_secs(60)));
            bad.good_writes.store(good, Relaxed);
            bad.write_error.store(error, Relaxed);
            // A large one fails while it comes, or at its end; who follows has it all the same.
            let mut writer = Told::new(&store, 1).begin(&store, 1);
            let (mut follower, mut all, content) = (writer.follow().unwrap(), Vec::new(), content(1, 3_000_000));
            for at in (0..content.len()).step_by(100_000) {
                push(&mut writer, &content.slice(at..at + 100_000));
                until(|| {
                    assert!(there(&mut follower, &mut all).is_none(), "{error} after {good}, at {at}");
                    all.len() == at + 100_000
                });
            }
            assert!(outcome(writer.finish()).is_err(), "{error} after {good}");
            assert_eq!(there(&mut follower, &mut all), Some(Ok(())));
            assert!(all == content, "{error} after {good}");
            drop(follower);
            bad.good_writes.store(0, Relaxed);
            // A small one is in memory all the same.
            put(&store, 2, 3000).unwrap();
            assert!(has(&store, 2, 3000) && store.settle(Duration::from_secs(60)));
            let numbers = store.numbers();
            assert!(numbers.write_failures >= 1, "{numbers:?}");
            assert_eq!(files(folder.path()) as u64, numbers.disk_objects, "nothing is left over, {error} after {good}");
            bad.write_error.store(0, Relaxed);
            until(|| {
                put(&store, 3, 3000).unwrap();
                assert!(store.settle(Duration::from_secs(60)));
                matches!(store.index.look(&key(3)), Some((_, true)))
            });
            assert_eq!(store.numbers().corrupted, 0);
        }
    }
}

#[test]
fn an_older_response_does_not_come_back_where_a_younger_one_could_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (store, bad) = open_bad(&on_disk(folder.path()));
        put(&store, 1, 2000).unwrap();
        assert!(store.settle(Duration::from_secs(60)));
        bad.write_error.store(28, Relaxed);
        put(&store, 1, 2500).unwrap();
        assert!(store.settle(Duration::from_secs(60)) && has(&store, 1, 2500));
    }
    assert!(open(&on_disk(folder.path())).get(&key(1)).is_none());
}

#[test]
fn a_disk_that_hangs_is_waited_for_a_second_and_then_not_asked_until_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(&on_disk(folder.path()));
        (0..2000).for_each(|number| drop(put(&store, number, 100).unwrap()));
        assert!(store.settle(Duration::from_secs(60)));
    }
    let (store, bad) = open_bad(&on_disk(folder.path()));
    bad.hang(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let begun = tokio::time::Instant::now();
        assert!(find(&store, 1).await.is_none());
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let begun = tokio::time::Instant::now();
        for number in 0..2000 {
            assert!(find(&store, number).await.is_none());
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits");
    });
    assert_eq!(store.numbers().reads_skipped, 2000);
    // What is in memory goes on.
    put(&store, 5000, 100).unwrap();
    assert!(has(&store, 5000, 100));
    bad.hang(false);
    until(|| !store.disk.as_ref().unwrap().hangs());
    assert!((0..2000).all(|number| has(&store, number, 100)));
}

#[test]
fn a_disk_that_hangs_for_a_moment_cuts_nobody_who_has_begun_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let (store, bad) = open_bad(&on_disk(folder.path()));
    let object = put(&store, 1, 1_000_000).unwrap();
    let Body::Stream(mut body) = object.body() else { panic!("it is in memory") };
    block_on(async {
        let first = std::future::poll_fn(|cx| body.poll_data(cx)).await.unwrap().unwrap();
        bad.hang(true);
        // Somebody else has waited for as long as anybody does.
        let disk = store.disk.as_ref().unwrap();
        disk.note_hung(disk.threads.done());
        assert!(disk.hangs());
        let next = std::future::poll_fn(|cx| std::task::Poll::Ready(body.poll_data(cx))).await;
        assert!(next.is_pending(), "{next:?}");
        bad.hang(false);
        let rest = read(Body::Stream(body)).await.unwrap();
        assert!([&first[..], &rest].concat() == content(1, 1_000_000));
    });
}

#[test]
fn no_more_wait_for_a_disk_than_may_wait() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(&on_disk(folder.path()));
        (0..1000).for_each(|number| drop(put(&store, number, 100).unwrap()));
        assert!(store.settle(Duration::from_secs(60)));
    }
    let (store, bad) = open_bad(&on_disk(folder.path()));
    bad.hang(true);
    let opening: Vec<_> = (0..1000)
        .filter_map(|number| match store.get(&key(number)) {
            Some(Found::OnDisk(place)) => Some(place.open()),
            _ => None,
        })
        .collect();
    assert!((600..1000).contains(&store.numbers().reads_skipped), "{:?}", store.numbers());
    bad.hang(false);
    let found = block_on(async {
        let mut found = 0;
        for opening in opening {
            found += u64::from(opening.await.is_some());
        }
        found
    });
    assert_eq!(found, 1000 - store.numbers().reads_skipped);
}

pub(super) fn path_of(folder: &Path, number: u64) -> std::path::PathBuf {
    let hex = format!("{:?}", key(number));
    folder.join(&hex[..2]).join(&hex[2..4]).join(hex)
}

#[test]
fn a_file_that_was_changed_is_never_served_wrong_and_is_dropped_and_counted() {
    for (length, is_restarted) in [(3000_usize, true), (700_000, true), (700_000, false)] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&on_disk(folder.path()));
        put(&store, 1, length).unwrap();
        assert!(store.settle(Duration::from_secs(60)));
        let good = std::fs::read(path_of(folder.path(), 1)).unwrap();
        drop(store);
        for at in (0..good.len()).step_by(good.len() / 40) {
            let (flip, cut) = (at % 3 < 2, at % 3 == 2);
            let mut store = None;
            if !is_restarted {
                std::fs::write(path_of(folder.path(), 1), &good).unwrap();
                store = Some(open(&on_disk(folder.path())));
                assert!(get(store.as_ref().unwrap(), 1).is_some());
            }
            let file =
                File::options().write(true).create(true).truncate(false).open(path_of(folder.path(), 1)).unwrap();
            file.write_all_at(&good, 0).unwrap();
            if flip {
                file.write_all_at(&[good[at] ^ 1], at as u64).unwrap();
            }
            file.set_len(if cut { at } else { good.len() } as u64).unwrap();
            let store = store.unwrap_or_else(|| open(&on_disk(folder.path())));
            let answer = block_on(async {
                let object = find_object(&store, 1).await?;
                Some((object.is_purged(), read(object.body()).await))
            });
            let is_in_mark = flip && (112..120).contains(&at);
            match answer {
                Some((is_stale, Ok(body))) => {
                    assert!(body == content(1, length), "wrong bytes, {at} of {}", good.len());
                    // A head that was read before is in memory.
                    assert!(is_stale && is_in_mark || !is_restarted, "{at} was not noticed");
                    continue;
                }
                Some((_, Err(reason))) => assert_eq!(reason, Reason::FileFailed),
                None => {}
            }
            assert!(store.settle(Duration::from_secs(60)));
            assert_eq!(store.numbers().corrupted, 1, "{at}");
            assert!(store.get(&key(1)).is_none() && !path_of(folder.path(), 1).exists(), "{at}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_an_error_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let error = Store::open(&on_disk(Path::new("/proc/no-such-folder"))).unwrap_err().to_string();
    assert!(error.contains("cannot be made"), "{error}");
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let error = Store::open(&on_disk(&folder.path().join("file"))).unwrap_err().to_string();
    assert!(error.contains("cannot be opened"), "{error}");
    let store = open(&on_disk(folder.path()));
    let error = Store::open(&on_disk(folder.path())).unwrap_err().to_string();
    assert!(error.contains("another process has it"), "{error}");
    drop(store);
}

#[test]
fn a_file_of_another_key_is_not_taken_for_its_own() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(&on_disk(folder.path()));
        put(&store, 1, 1000).unwrap();
        put(&store, 2, 1000).unwrap();
        assert!(store.settle(Duration::from_secs(60)));
    }
    std::fs::copy(path_of(folder.path(), 1), path_of(folder.path(), 2)).unwrap();
    let store = open(&on_disk(folder.path()));
    assert!(has(&store, 1, 1000) && !has(&store, 2, 1000));
    assert_eq!(store.numbers().corrupted, 1);
}

#[test]
fn a_file_that_is_found_by_another_while_it_is_read_is_dropped_when_it_proves_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let length = 3 * MIB as usize;
    {
        let store = open(&on_disk(folder.path()));
        put(&store, 1, length).unwrap();
        assert!(store.settle(Duration::from_secs(60)));
    }
    let file = File::options().read(true).write(true).open(path_of(folder.path(), 1)).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let store = Store::open_unwalked(&on_disk(folder.path()), Arc::new(System)).unwrap();
    let Some(Found::OnDisk(place)) = store.get(&key(1)) else { panic!("it may be there") };
    (0..=u8::MAX).for_each(|number| store.walk_folder(number, &mut Vec::new()));
    assert_eq!(store.numbers().disk_objects, 1, "another has found it");
    let Some(Found::Object(object)) = block_on(place.open()) else { panic!("it can be opened") };
    assert!(block_on(read(object.body())).is_err());
    // Until it is removed, it is found again by its name.
    assert!(store.settle(Duration::from_secs(60)));
    assert!(!has(&store, 1, length));
    assert_eq!((store.numbers().disk_objects, store.numbers().corrupted), (0, 1));
}
