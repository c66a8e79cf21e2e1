//! What is on disk, over restarts.

use super::bad::open_bad;
use super::*;

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [0, 1, 5000, 100 << 10, 256 << 10, (256 << 10) + 1, 1 << 20, 5_000_000];
    let names = [http::header::ACCEPT_ENCODING];
    {
        let store = open(&on_disk(folder.path()));
        for (number, length) in (0..).zip(lengths) {
            Told::new(&store, number).tagged(&["t"]).store(&store, number, length).unwrap();
        }
        assert!(store.put_vary(&key(99), names.iter(), b"f"));
        assert!(store.settle(Duration::from_secs(60)));
        assert_eq!(store.numbers().disk_objects, lengths.len() as u64 + 1);
    }
    for round in 0..2 {
        let store = open(&on_disk(folder.path()));
        let numbers = store.numbers();
        assert_eq!((numbers.memory_objects, numbers.disk_objects), (0, lengths.len() as u64 + 1), "round {round}");
        for (number, length) in (0..).zip(lengths) {
            let object = block_on(find_object(&store, number)).unwrap();
            assert_eq!(
                (object.headers(), object.facts(), object.length()),
                (fields(), &b"some facts"[..], length as u64)
            );
            assert_eq!((object.path(), object.is_purged()), (path(number).as_bytes(), false));
            assert_eq!(object.is_on_disk(), length > 256 << 10);
            assert!(has(&store, number, length));
            let part = block_on(read(object.part(length as u64 / 3, length as u64 / 2))).unwrap();
            assert!(part == content(number, length)[length / 3..length / 2]);
            assert!(matches!(store.get(&key(number)), Some(Found::Object(_))), "it has gone up");
        }
        let Some(Found::Vary(found)) = block_on(find(&store, 99)) else { panic!("no rule") };
        assert!(found.iter().eq(names.clone()) && found.facts() == b"f");
        assert_eq!(store.numbers().corrupted, 0);
    }
}

#[test]
fn many_who_ask_at_once_have_it_read_once() {
    let folder = tempfile::tempdir().unwrap();
    put(&open(&on_disk(folder.path())), 1, 1000).unwrap();
    until(|| {
        Store::open(&on_disk(folder.path())).is_ok_and(|store| {
            until(|| store.numbers().is_indexed);
            store.numbers().disk_objects == 1
        })
    });
    let (store, bad) = open_bad(&on_disk(folder.path()));
    let reads = bad.reads.load(Relaxed);
    bad.hang(true);
    let places: Vec<_> = (0..1000)
        .map(|_| match store.get(&key(1)) {
            Some(Found::OnDisk(place)) => place,
            other => panic!("{other:?}"),
        })
        .collect();
    block_on(async {
        let opening: Vec<_> = places.into_iter().map(OnDisk::open).collect();
        bad.hang(false);
        for opening in opening {
            assert!(matches!(opening.await, Some(Found::Object(_))));
        }
    });
    assert_eq!(bad.reads.load(Relaxed) - reads, 1, "they came together");
    assert_eq!(store.numbers().reads_skipped, 0);
}

#[test]
fn the_disk_is_bounded_and_what_was_asked_for_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = on_disk(folder.path());
    settings.memory = 4 * MIB;
    settings.disk.as_mut().unwrap().size = 10 * MIB;
    let store = open(&settings);
    for number in 0..500 {
        put(&store, number, 100_000).unwrap();
        assert!(number == 0 || has(&store, 0, 100_000), "{number}");
        assert!(store.settle(Duration::from_secs(60)));
        assert!(store.numbers().disk_bytes <= 10 * MIB);
    }
    let on_disk = walkdir(folder.path());
    assert!(
        on_disk.len() as u64 == store.numbers().disk_objects && on_disk.len() > 80,
        "{} {:?}",
        on_disk.len(),
        store.numbers()
    );
    assert!(store.numbers().evicted_disk > 300);
    drop(store);
    // A smaller one, after a restart.
    settings.disk.as_mut().unwrap().size = 5 * MIB;
    let store = open(&settings);
    assert!(store.numbers().disk_bytes <= 5 * MIB && store.numbers().disk_objects > 40);
    until(|| walkdir(folder.path()).len() as u64 == store.numbers().disk_objects);
}

/// The files of objects.
fn walkdir(path: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for outer in std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()) {
        if outer.file_name().unwrap().len() != 2 {
            continue;
        }
        for inner in std::fs::read_dir(outer).unwrap().map(|entry| entry.unwrap().path()) {
            found.extend(std::fs::read_dir(inner).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn what_is_stored_anew_takes_the_place_of_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    for length in [2000, 1_000_000, 3000, 2_000_000] {
        let store = open(&on_disk(folder.path()));
        put(&store, 1, length).unwrap();
        assert!(has(&store, 1, length) && store.settle(Duration::from_secs(60)));
        drop(store);
        let store = open(&on_disk(folder.path()));
        assert!(has(&store, 1, length) && store.numbers().disk_objects == 1);
    }
    assert_eq!(walkdir(folder.path()).len(), 1);
}

#[test]
fn variants_that_are_too_many_after_a_restart_go_when_another_comes() {
    let folder = tempfile::tempdir().unwrap();
    let variant = |store: &Arc<Store>, number| {
        let told = Told { primary: Some(key(1_000_000)), path: "/".to_owned(), ..Told::new(store, number) };
        told.store(store, number, 100).unwrap();
        store.catalogue.at(b"shop.example", b"/").len()
    };
    {
        let store = open(&Settings { variants: 20, ..on_disk(folder.path()) });
        let counts: Vec<_> = (0..10).map(|number| variant(&store, number)).collect();
        assert_eq!(counts, (1..=10).collect::<Vec<_>>());
        assert!(store.settle(Duration::from_secs(60)));
    }
    let store = open(&Settings { variants: 4, ..on_disk(folder.path()) });
    assert_eq!(store.numbers().disk_objects, 10);
    assert_eq!(variant(&store, 10), 4);
    assert!(has(&store, 10, 100));
}

#[test]
fn a_large_object_that_is_asked_for_often_goes_up_to_memory_if_it_fits() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&on_disk(folder.path()));
    put(&store, 1, 1_000_000).unwrap();
    put(&store, 2, 10_000_000).unwrap();
    let is_on_disk = |number| block_on(find_object(&store, number)).unwrap().is_on_disk();
    assert!(is_on_disk(1) && is_on_disk(2));
    until(|| !is_on_disk(1));
    assert!(has(&store, 1, 1_000_000) && has(&store, 2, 10_000_000));
    assert!((0..10).all(|_| is_on_disk(2)), "it is larger than a share of the memory");
}

#[test]
fn what_is_read_while_slow_clients_fill_the_memory_is_sent_from_where_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = on_disk(folder.path());
    settings.memory = 4 * MIB;
    let store = open(&settings);
    for number in 0..100 {
        put(&store, number, 200_000).unwrap();
        assert!(store.settle(Duration::from_secs(60)));
    }
    let objects: Vec<_> = (0..100).map(|number| block_on(find_object(&store, number)).unwrap()).collect();
    let bodies: Vec<_> = objects.iter().map(Object::body).collect();
    assert!(objects.iter().any(|object| object.is_on_disk()));
    drop(objects);
    assert!(store.numbers().held_bytes <= 7 * MIB, "{:?}", store.numbers());
    // What comes now goes to the disk as it comes.
    put(&store, 100, 5000).unwrap();
    assert!(has(&store, 100, 5000) && store.numbers().held_bytes <= 7 * MIB);
    for (number, body) in (0..).zip(bodies) {
        assert!(block_on(read(body)).unwrap() == content(number, 200_000), "{number}");
    }
}

#[test]
fn who_has_begun_to_read_a_file_reads_it_to_its_end_though_the_store_is_let_go_of() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&on_disk(folder.path()));
    let object = put(&store, 1, 3_000_000).unwrap();
    let body = object.body();
    drop((store, object));
    assert!(block_on(read(body)).unwrap() == content(1, 3_000_000));
}

#[test]
fn where_the_kernel_cannot_copy_a_response_that_was_found_good_is_copied_by_hand() {
    let (folder, xdev) = (tempfile::tempdir().unwrap(), 18);
    let (store, bad) = open_bad(&on_disk(folder.path()));
    bad.copy_error.store(xdev, Relaxed);
    let old = put(&store, 1, 3_000_001).unwrap();
    let update = Update { fields: &fields(), facts: b"new", since: store.moment(), primary: None };
    store.freshen(&key(1), &old, &update).unwrap();
    assert!(store.settle(Duration::from_secs(60)) && store.numbers().write_failures == 0);
    assert_eq!(block_on(find_object(&store, 1)).unwrap().facts(), b"new");
    assert!(has(&store, 1, 3_000_001));
}

#[test]
fn few_are_copied_at_once_so_that_others_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let (store, bad) = open_bad(&on_disk(folder.path()));
    let olds: Vec<_> = (0..10).map(|number| put(&store, number, 1_000_000).unwrap()).collect();
    let freshen = |number: u64| {
        let update = Update { fields: &fields(), facts: b"new", since: store.moment(), primary: None };
        store.freshen(&key(number), &olds[number as usize], &update).is_ok()
    };
    bad.hang(true);
    assert_eq!((0..10).filter(|number| freshen(*number)).count(), 2);
    bad.hang(false);
    assert!(store.settle(Duration::from_secs(60)));
    assert_eq!((0..10).filter(|number| block_on(find_object(&store, *number)).unwrap().facts() == b"new").count(), 2);
    assert!(freshen(9) && store.settle(Duration::from_secs(60)), "others may, later");
}

#[test]
fn a_large_response_that_was_found_good_is_stored_anew_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&on_disk(folder.path()));
    let old = put(&store, 1, 3_000_000).unwrap();
    let mut fields = fields();
    fields.insert("x-much", "x".repeat(20_000).parse().unwrap());
    let update = Update { fields: &fields, facts: b"new", since: store.moment(), primary: None };
    store.freshen(&key(1), &old, &update).unwrap();
    until(|| block_on(find_object(&store, 1)).unwrap().facts() == b"new");
    assert!(block_on(read(old.body())).unwrap() == content(1, 3_000_000), "whoever has the old one reads on");
    drop((old, store));
    let store = open(&on_disk(folder.path()));
    let object = block_on(find_object(&store, 1)).unwrap();
    assert_eq!((object.headers(), object.facts()), (fields, &b"new"[..]));
    assert!(has(&store, 1, 3_000_000) && store.numbers().corrupted == 0);
}

#[test]
fn only_so_many_files_are_kept_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&Settings { open_files: 3, ..on_disk(folder.path()) });
    for number in 0..10 {
        put(&store, number, 500_000).unwrap();
    }
    assert_eq!(store.open_now.load(Relaxed), 3);
    assert!((0..10).all(|number| has(&store, number, 500_000)));
    assert!(store.open_now.load(Relaxed) <= 3);
}
