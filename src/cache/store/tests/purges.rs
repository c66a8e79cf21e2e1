//! Purges of what is there, what is coming, and what has not been found.

use super::super::stale::StaleFrom;
use super::*;

fn url(number: u64) -> Purge {
    Purge::Url { host: b"shop.example".as_slice().into(), path: path(number).into_bytes().into() }
}

fn prefix(path: &str) -> Purge {
    Purge::Prefix { host: b"shop.example".as_slice().into(), path: path.as_bytes().into() }
}

fn tag(tag: &str) -> Purge {
    Purge::Tag(tag.as_bytes().into())
}

fn purge(store: &Arc<Store>, what: Purge, manner: Manner) -> u64 {
    block_on(store.purge(what, manner)).unwrap()
}

/// Twenty objects: of the host and another, half of them tagged, a variant of each of the first five at the same path.
fn fill(store: &Arc<Store>) {
    for number in 0..20 {
        let host = if number < 15 { "shop.example" } else { "other.example" };
        let told = Told { host, path: path(number % 10), ..Told::new(store, number) };
        let tags: &[&str] = if number % 2 == 0 { &["even", "all"] } else { &["all"] };
        told.tagged(tags).store(store, number, 1000 + number as usize).unwrap();
    }
}

fn there(store: &Arc<Store>) -> Vec<u64> {
    (0..20).filter(|number| has(store, *number, 1000 + *number as usize)).collect()
}

#[test]
fn a_purge_strikes_what_it_names_and_says_how_many_in_memory_on_disk_and_after_a_restart() {
    let but = |gone: &dyn Fn(u64) -> bool| (0..20).filter(|number| !gone(*number)).collect::<Vec<u64>>();
    for (what, expected) in [
        (url(3), but(&|number| number == 3 || number == 13)),
        (url(7), but(&|number| number == 7)),
        (prefix("/items/1"), but(&|number| number == 1 || number == 11)),
        (prefix("/items"), but(&|number| number < 15)),
        (Purge::Host(b"other.example".as_slice().into()), but(&|number| number >= 15)),
        (tag("even"), but(&|number| number % 2 == 0)),
        (tag("none"), but(&|_| false)),
        (Purge::All, Vec::new()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for settings in [in_memory(16 * MIB), on_disk(folder.path())] {
            let store = open(&settings);
            fill(&store);
            assert!(store.settle(Duration::from_secs(60)));
            assert_eq!(purge(&store, what.clone(), Manner::Hard), 20 - expected.len() as u64, "{what:?}");
            assert_eq!(there(&store), expected, "{what:?}");
            assert_eq!(purge(&store, what.clone(), Manner::Hard), 0);
        }
        let store = open(&on_disk(folder.path()));
        assert_eq!(there(&store), expected, "{what:?}, after a restart");
    }
}

#[test]
fn a_soft_purge_leaves_what_it_strikes_stale_in_memory_on_disk_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let stale = |store: &Arc<Store>| {
        let is_stale = |number| block_on(find_object(store, number)).unwrap().is_purged();
        (0..20).filter(|number| is_stale(*number)).collect::<Vec<u64>>()
    };
    let even: Vec<u64> = (0..20).step_by(2).collect();
    for settings in [in_memory(16 * MIB), on_disk(folder.path())] {
        let store = open(&settings);
        fill(&store);
        assert!(stale(&store).is_empty());
        // Before they are all on disk, perhaps.
        assert_eq!(purge(&store, tag("even"), Manner::Soft), 10);
        assert_eq!(purge(&store, tag("even"), Manner::Soft), 0);
        assert_eq!((stale(&store), there(&store).len()), (even.clone(), 20));
        assert!(store.settle(Duration::from_secs(60)));
    }
    let store = open(&on_disk(folder.path()));
    assert_eq!((stale(&store), there(&store).len()), (even, 20));
    Told::new(&store, 4).store(&store, 4, 1004).unwrap();
    assert!(!stale(&store).contains(&4), "what is stored anew is not");
    assert_eq!(store.numbers().corrupted, 0);
}

#[test]
fn when_a_soft_purge_came_first_is_remembered_in_memory_on_disk_in_the_journal_and_after_a_restart() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let before = copy.path().join("before");
    let cp = |from: &Path, to: &Path| {
        assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    // Of one in one piece, one that is streamed, and one that is being written when the purge comes.
    let numbers = [(1, 1000), (2, 900_000), (3, 2000)];
    let whens = |store: &Arc<Store>| {
        numbers.map(|(number, _)| block_on(find_object(store, number)).unwrap().purged_at().unwrap())
    };
    let store = open(&on_disk(folder.path()));
    numbers[..2].iter().for_each(|(number, length)| drop(put(&store, *number, *length).unwrap()));
    let told = Told::new(&store, 3);
    let mut writer = told.begin(&store, 3);
    assert!(store.settle(Duration::from_secs(60)));
    cp(folder.path(), &before);
    let earliest = store.clock().steady();
    assert_eq!(purge(&store, prefix("/items"), Manner::Soft), 2);
    let latest = store.clock().steady();
    push(&mut writer, &content(3, 2000));
    outcome(writer.finish()).unwrap();
    let whens_at_first = whens(&store);
    assert!(whens_at_first.iter().all(|when| (earliest..=latest).contains(when)), "{whens_at_first:?}");
    while store.clock().steady() <= latest {
        std::thread::yield_now();
    }
    assert_eq!(purge(&store, Purge::All, Manner::Soft), 0);
    assert_eq!(whens(&store), whens_at_first, "the first counts");
    assert!(store.settle(Duration::from_secs(60)));
    cp(&folder.path().join("purges"), &before.join("purges"));
    drop(store);
    assert_eq!(whens(&open(&on_disk(folder.path()))), whens_at_first, "from its files");
    // As if the process had ended before it marked any of them.
    let store = open(&on_disk(&before));
    let found = numbers[..2].iter().map(|(number, _)| block_on(find_object(&store, *number)).unwrap().purged_at());
    assert!(found.eq(whens_at_first[..2].iter().map(|when| Some(*when))), "from its journal");
}

#[test]
fn a_file_that_was_marked_before_moments_were_written_is_stale_since_ever() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&on_disk(folder.path()));
    put(&store, 1, 1000).unwrap();
    assert!(store.settle(Duration::from_secs(60)));
    drop(store);
    let file = std::fs::File::options().write(true).open(super::failures::path_of(folder.path(), 1)).unwrap();
    file.write_all_at(b"is stale", 112).unwrap();
    let store = open(&on_disk(folder.path()));
    assert_eq!(block_on(find_object(&store, 1)).unwrap().purged_at(), Some(0));
    assert!(has(&store, 1, 1000));
}

#[test]
fn a_response_that_was_asked_for_before_a_purge_is_struck_by_it_when_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    for settings in [in_memory(64 * MIB), on_disk(folder.path())] {
        let store = open(&settings);
        for (number, length) in [(1, 1000), (2, 1_000_000)] {
            assert!(purge(&store, Purge::All, Manner::Hard) <= 1);
            let told = Told::new(&store, number).tagged(&["t"]);
            let mut writer = told.begin(&store, number);
            push(&mut writer, &content(number, length));
            let follower = writer.follow().unwrap();
            assert_eq!(purge(&store, tag("t"), Manner::Hard), 0);
            assert!(writer.follow().is_none(), "whoever asks now may have heard of the purge");
            assert_eq!(outcome(writer.finish()).unwrap_err(), NotStored::Purged);
            assert!(store.get(&key(number)).is_none());
            let body = block_on(read(Body::Stream(Box::new(follower)))).unwrap();
            assert!(body == content(number, length), "who follows has it all the same");
            // The app was asked before; the response began after.
            assert_eq!(told.store(&store, number, length).unwrap_err(), NotStored::Purged);
            let soft = Told::new(&store, number).tagged(&["u"]);
            purge(&store, tag("u"), Manner::Soft);
            assert!(soft.store(&store, number, length).unwrap().is_purged());
            assert!(!Told::new(&store, number).tagged(&["t", "u"]).store(&store, number, length).unwrap().is_purged());
        }
    }
    let store = open(&on_disk(folder.path()));
    assert!(!block_on(find_object(&store, 2)).unwrap().is_purged());
}

#[test]
fn an_invalidated_url_is_gone_at_once_in_all_its_variants() {
    let store = open(&in_memory(16 * MIB));
    fill(&store);
    assert_eq!(block_on(store.invalidate(b"shop.example", path(3).as_bytes(), Manner::Hard)), 2);
    assert_eq!(there(&store).len(), 18);
}

#[test]
fn an_invalidation_of_very_many_gives_others_their_turn_and_is_done_when_it_is_dropped() {
    let store = open(&in_memory(16 * MIB));
    let fill = || {
        for number in 0..2000 {
            Told { path: "/all?*".to_owned(), ..Told::new(&store, number) }.store(&store, number, 10).unwrap();
        }
    };
    fill();
    let mut invalidating = store.invalidate(b"shop.example", b"/all?*", Manner::Hard);
    let mut turns = 0;
    let count = block_on(std::future::poll_fn(|cx| {
        turns += 1;
        std::pin::Pin::new(&mut invalidating).poll(cx)
    }));
    assert!(count == 2000 && turns > 3, "{count} in {turns} turns");
    fill();
    let invalidating = store.invalidate(b"shop.example", b"/all?*", Manner::Hard);
    assert!(store.numbers().memory_objects > 0, "it has only begun");
    drop(invalidating);
    assert_eq!(store.numbers().memory_objects, 0);
}

#[test]
fn what_was_purged_does_not_come_back_though_its_files_are_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path(), copy.path());
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        assert!(std::process::Command::new(program).args(arguments).status().unwrap().success());
    };
    {
        let store = open(&on_disk(from));
        fill(&store);
        assert!(store.settle(Duration::from_secs(60)));
        run("cp", &["-a".as_ref(), from.as_ref(), to.join("before").as_ref()]);
        assert_eq!(purge(&store, tag("even"), Manner::Hard), 10);
        assert_eq!(purge(&store, url(3), Manner::Soft), 2);
        assert!(store.settle(Duration::from_secs(60)));
    }
    // As if the process had ended before it removed any of them.
    run("cp", &[from.join("purges").as_ref(), to.join("before/purges").as_ref()]);
    let store = open(&on_disk(&to.join("before")));
    assert_eq!(there(&store), (0..20).filter(|number| number % 2 == 1).collect::<Vec<_>>());
    let is_stale = |store: &Arc<Store>, number| block_on(find_object(store, number)).unwrap().is_purged();
    assert!(is_stale(&store, 3) && is_stale(&store, 13) && !is_stale(&store, 5));
    // The journal is empty when its work is done.
    until(|| std::fs::metadata(to.join("before/purges")).unwrap().len() == 0);
    drop(store);
    let store = open(&on_disk(&to.join("before")));
    assert!(there(&store).len() == 10 && is_stale(&store, 3));
}

#[test]
fn what_has_not_been_found_is_found_by_its_name_and_struck_by_purges() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(&on_disk(folder.path()));
        fill(&store);
        assert!(store.settle(Duration::from_secs(60)));
    }
    // Nobody looks for files.
    let store = Store::open_unwalked(&on_disk(folder.path()), Arc::new(System)).unwrap();
    assert!(!store.numbers().is_indexed && store.numbers().disk_objects == 0);
    assert!(has(&store, 3, 1003) && !has(&store, 99, 0));
    assert_eq!(store.numbers().disk_objects, 1);
    assert_eq!(purge(&store, tag("even"), Manner::Hard), 0, "they have not been found");
    assert!(!has(&store, 4, 1004) && has(&store, 5, 1005));
    purge(&store, url(7), Manner::Soft);
    assert!(block_on(find_object(&store, 7)).unwrap().is_purged());
    drop(store);
    let store = open(&on_disk(folder.path()));
    assert_eq!(there(&store), (0..20).filter(|number| number % 2 == 1).collect::<Vec<_>>());
    assert!(block_on(find_object(&store, 7)).unwrap().is_purged());
}

#[test]
fn what_is_stored_while_purges_come_is_there_or_struck_and_nothing_is_left_over() {
    let store = open(&in_memory(16 * MIB));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u64)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    for turn in 0..2000 {
                        let number = thread * 100 + turn % 50;
                        let told = Told::new(store, number).tagged(&["t"]);
                        let _ = told.store(store, number, 500);
                        // What is there, is as it was stored.
                        let _ = has(store, number, 500);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                purge(&store, tag("t"), Manner::Hard);
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Relaxed);
    });
    purge(&store, tag("t"), Manner::Hard);
    assert!(store.catalogue.is_empty());
    assert_eq!((store.numbers().memory_bytes, store.numbers().memory_objects), (0, 0));
}

#[test]
fn of_two_soft_purges_at_the_same_time_the_earlier_counts_whichever_comes_by_first() {
    let store = open(&in_memory(16 * MIB));
    Told::new(&store, 1).store(&store, 1, 100).unwrap();
    let named = store.catalogue.at(b"shop.example", path(1).as_bytes())[0];
    for (from, is_told, expected) in [(30, true, 30), (10, true, 10), (20, false, 10), (10, false, 10)] {
        let told = store.index.mark(named.hash, StaleFrom::at(from), |id| id == named.id);
        assert_eq!(told.is_some(), is_told, "{from}");
        assert_eq!(store.index.stale_from(&key(1), named.id), Some(StaleFrom::at(expected)), "after {from}");
        assert_eq!(block_on(find_object(&store, 1)).unwrap().purged_at(), Some(expected));
    }
}
