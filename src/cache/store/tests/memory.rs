//! Objects, rules and markers in memory.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[test]
fn a_response_is_found_as_it_was_stored() {
    let store = open(&in_memory(16 * MIB));
    for (number, length) in (0..).zip([0, 1, 1024, 100 << 10, 256 << 10, (256 << 10) + 1, 3 << 20]) {
        let told = Told::new(&store, number).tagged(&["a", "b"]);
        let stored = told.store(&store, number, length).unwrap();
        let object = block_on(find_object(&store, number)).unwrap();
        assert!(Arc::ptr_eq(&stored, &object));
        assert_eq!((object.status().as_u16(), object.facts()), (200, &b"some facts"[..]));
        assert_eq!((object.host(), object.path()), (&b"shop.example"[..], path(number).as_bytes()));
        assert_eq!((object.headers(), object.length()), (fields(), length as u64));
        assert!(object.tags().eq([b"a", b"b"]) && !object.is_purged());
        assert!(has(&store, number, length));
        for (start, end) in
            [(0, 1), (length as u64 / 3, length as u64 / 2), (length as u64 - length as u64 / 5, u64::MAX)]
        {
            let part = block_on(read(object.part(start, end))).unwrap();
            let end = (end as usize).min(length);
            assert!(part == content(number, length)[(start as usize).min(end)..end], "{start}-{end} of {length}");
        }
    }
    assert!(store.get(&key(99)).is_none());
}

#[test]
fn what_is_not_finished_leaves_nothing() {
    let store = open(&in_memory(16 * MIB));
    let before = store.numbers();
    for is_told in [true, false] {
        let mut writer = Told::new(&store, 1).begin(&store, 1);
        push(&mut writer, &content(1, 100_000));
        assert!(store.numbers().memory_bytes > 100_000, "what is being written counts");
        if is_told {
            writer.fail(Reason::HeadTimeout);
        } else {
            drop(writer);
        }
        assert_eq!(store.numbers(), before);
        assert!(store.get(&key(1)).is_none() && store.catalogue.is_empty());
    }
}

#[test]
fn a_body_of_another_length_than_was_said_is_never_stored() {
    let store = open(&in_memory(16 * MIB));
    for length in [0, 99, 101] {
        let told = Told { length: Some(100), ..Told::new(&store, 1) };
        assert_eq!(told.store(&store, 1, length).unwrap_err(), NotStored::WrongLength);
        assert!(store.get(&key(1)).is_none());
    }
    let told = Told { length: Some(100), ..Told::new(&store, 1) };
    told.store(&store, 1, 100).unwrap();
    assert!(has(&store, 1, 100));
}

#[test]
fn what_is_too_large_is_not_stored_and_drives_nobody_out() {
    let settings = Settings { max_object: MIB, ..in_memory(16 * MIB) };
    let store = open(&settings);
    put(&store, 1, 1000).unwrap();
    let told = Told { length: Some(MIB + 1), ..Told::new(&store, 2) };
    assert_eq!(told.try_begin(&store, 2).unwrap_err(), NotStored::TooLarge);
    assert_eq!(put(&store, 2, MIB as usize + 1).unwrap_err(), NotStored::TooLarge);
    assert!(put(&store, 2, MIB as usize).is_ok());
    assert!(has(&store, 1, 1000) && has(&store, 2, MIB as usize));
    let mut told = Told::new(&store, 3);
    told.fields.insert("x-large", "x".repeat(LARGEST_HEAD).parse().unwrap());
    assert_eq!(told.try_begin(&store, 3).unwrap_err(), NotStored::TooLarge);
}

#[test]
fn no_more_is_written_at_once_than_half_of_the_memory_holds() {
    let store = open(&in_memory(8 * MIB));
    let mut writers: Vec<_> = (0..10).map(|number| Told::new(&store, number).begin(&store, number)).collect();
    for writer in &mut writers {
        push(writer, &content(1, MIB as usize));
        assert!(store.numbers().memory_bytes <= 8 * MIB);
    }
    assert_eq!(writers.iter().filter(|writer| writer.is_stored()).count(), 3);
    let outcomes: Vec<_> = writers.into_iter().map(|writer| outcome(writer.finish())).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3);
    assert_eq!(store.numbers().abandoned, 7);
}

#[test]
fn rules_and_markers_are_found_where_objects_are() {
    let store = open(&in_memory(16 * MIB));
    let names = [http::header::ACCEPT_ENCODING, http::header::COOKIE, http::HeaderName::from_static("x-own")];
    assert!(store.put_vary(&key(1), names.iter(), b"facts"));
    let Some(Found::Vary(found)) = store.get(&key(1)) else { panic!("no rule") };
    assert!(found.iter().eq(names) && found.facts() == b"facts");
    put(&store, 2, 10).unwrap();
    assert!(store.put_uncacheable(&key(2), Duration::from_secs(60), store.moment()));
    let Some(Found::Uncacheable(left)) = store.get(&key(2)) else { panic!("no marker") };
    assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(30));
    assert!(store.catalogue.is_empty(), "the object has gone with its labels");
    assert!(store.put_uncacheable(&key(2), Duration::ZERO, store.moment()));
    assert!(store.get(&key(2)).is_none(), "its time is over");
    for number in 0..200_000 {
        store.put_uncacheable(&key(number), Duration::from_secs(60), store.moment());
    }
    assert!(store.numbers().memory_bytes <= 16 * MIB);
}

#[test]
fn a_flood_of_variants_leaves_those_that_are_asked_for() {
    let store = open(&in_memory(16 * MIB));
    let primary = Some(key(1_000_000));
    let variant =
        |number| Told { primary, path: "/".to_owned(), ..Told::new(&store, number) }.store(&store, number, 100);
    variant(0).unwrap();
    for number in 1..200 {
        assert!(has(&store, 0, 100), "{number}");
        variant(number).unwrap();
        let count = store.catalogue.at(b"shop.example", b"/").len();
        assert_eq!(count, 4.min(number as usize + 1));
    }
    assert!(has(&store, 0, 100) && has(&store, 199, 100));
}

#[test]
fn a_response_that_was_found_good_has_its_new_fields_and_its_old_body() {
    let store = open(&in_memory(64 * MIB));
    for (number, length) in [(1, 1000), (2, 1_000_000)] {
        let old = Told::new(&store, number).tagged(&["t"]).store(&store, number, length).unwrap();
        let mut fields = fields();
        fields.insert("etag", HeaderValue::from_static("\"2\""));
        let update = Update { fields: &fields, facts: b"new", since: store.moment(), primary: None };
        store.freshen(&key(number), &old, &update).unwrap();
        let object = block_on(find_object(&store, number)).unwrap();
        assert_eq!((object.headers(), object.facts()), (fields, &b"new"[..]));
        assert!(has(&store, number, length));
        assert!(!Arc::ptr_eq(&old, &object) && old.facts() == b"some facts");
        assert_eq!(block_on(store.purge(Purge::Tag(b"t".as_slice().into()), Manner::Hard)).unwrap(), 1);
    }
}

#[test]
fn what_slow_clients_have_of_what_was_driven_out_is_bounded_and_what_they_have_they_keep() {
    for length in [200_000, 1_000_000] {
        let store = open(&in_memory(8 * MIB));
        let mut bodies = Vec::new();
        for number in 0..100 {
            if let Ok(object) = put(&store, number, length) {
                bodies.push((number, object.body()));
            }
            assert!(store.numbers().held_bytes <= 13 * MIB, "{:?}", store.numbers());
        }
        assert!(bodies.len() > 8 * MIB as usize / length, "{}", bodies.len());
        for (number, body) in bodies {
            assert!(block_on(read(body)).unwrap() == content(number, length), "{number}");
        }
        put(&store, 1000, length).unwrap();
        assert!(has(&store, 1000, length), "there is room again");
        block_on(store.purge(Purge::All, Manner::Hard)).unwrap();
        assert_eq!(store.numbers().held_bytes, 0);
    }
}

#[test]
fn a_rule_that_is_as_it_was_is_not_stored_again() {
    let store = open(&in_memory(16 * MIB));
    let names = [http::header::ACCEPT_ENCODING];
    assert!(store.put_vary(&key(1), names.iter(), b"facts"));
    let first = store.index.look(&key(1)).unwrap();
    assert!(store.put_vary(&key(1), names.iter(), b"facts"));
    assert_eq!(store.index.look(&key(1)), Some(first));
    assert!(store.put_vary(&key(1), names.iter(), b"others"));
    assert_ne!(store.index.look(&key(1)), Some(first));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_stored_replaced_and_driven_out_what_is_found_is_what_was_stored_last_and_memory_is_bounded(
        steps in proptest::collection::vec((0_u64..30, 0_usize..60_000, 0_u8..10), 1..150),
    ) {
        let store = open(&in_memory(MIB));
        let mut last: HashMap<u64, usize> = HashMap::new();
        for (number, length, what) in steps {
            match what {
                0 => {
                    let host = b"shop.example";
                    drop(store.invalidate(host, path(number).as_bytes(), Manner::Hard));
                    last.remove(&number);
                    prop_assert!(!has(&store, number, 0));
                }
                1..5 => {
                    put(&store, number, length).unwrap();
                    last.insert(number, length);
                    prop_assert!(has(&store, number, length), "what is new is there");
                }
                _ => {
                    let length = last.get(&number).copied();
                    prop_assert!(!has(&store, number, length.unwrap_or(0)) || length.is_some());
                }
            }
            prop_assert!(store.numbers().memory_bytes <= MIB);
        }
        block_on(store.purge(Purge::All, Manner::Hard)).unwrap();
        prop_assert!(store.catalogue.is_empty());
        prop_assert_eq!(store.numbers().memory_bytes, 0);
    }
}
