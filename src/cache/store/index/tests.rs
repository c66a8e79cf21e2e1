use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn key(number: u64) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    Key::from_bytes(key)
}

fn new(number: u64, id: u64) -> New {
    New { key: key(number), id, since: id, labels: None, stale_from: StaleFrom::NEVER, instead_of: None }
}

fn put(index: &Index, number: u64, id: u64, weight: u64) {
    index.put(new(number, id), Value::Uncacheable(id), weight).unwrap();
    while index.account(Level::Memory).is_over() {
        index.evict(Level::Memory).unwrap();
    }
}

fn has(index: &Index, number: u64) -> bool {
    index.get(&key(number)).is_some()
}

/// What share of the questions is answered, where popularity falls as its rank grows, and every second question is one of
/// somebody who asks once for everything.
#[test]
fn who_asks_once_for_everything_drives_out_little_of_what_is_asked_for_again() {
    let index = Index::new(5000, 0);
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    };
    let (mut asked, mut found) = (0, 0);
    for turn in 0..300_000_u64 {
        // Ranks of 1 to 50,000, each as likely as its reciprocal.
        let popular = 50_000_f64.powf(random()) as u64;
        let is_there = has(&index, popular);
        if turn > 50_000 {
            asked += 1;
            found += u64::from(is_there);
        }
        if !is_there {
            put(&index, popular, turn, 1);
        }
        put(&index, 1_000_000 + turn, turn, 1);
    }
    let share = found as f64 / asked as f64;
    // The first five thousand ranks are 0.79 of it. With a room of 20,000 and ten times as many ranks, 0.78 were answered
    // here, 0.79 by quick_cache and 0.62 by an LRU; with one of 1,000, 0.64, 0.73 and 0.52.
    assert!(share > 0.7, "{share}");
}

#[test]
fn what_is_evicted_from_one_level_stays_on_the_other() {
    let index = Index::new(10, 100 * BLOCK);
    put(&index, 1, 1, 5);
    assert_eq!(index.add_file(&key(1), 1, BLOCK + 1), Some(StaleFrom::NEVER));
    assert_eq!((index.account(Level::Memory).used(), index.account(Level::Disk).used()), (5, 2));
    let gone = index.evict(Level::Memory).unwrap();
    assert!(gone.labels.is_none() && !gone.has_file && index.evict(Level::Memory).is_none());
    assert!(matches!(index.get(&key(1)), Some(Hit::Disk { id: 1, stale_from: StaleFrom::NEVER })));
    let gone = index.evict(Level::Disk).unwrap();
    assert!(gone.has_file && gone.key == key(1) && index.get(&key(1)).is_none());
    assert_eq!((index.account(Level::Memory).used(), index.account(Level::Disk).used()), (0, 0));
}

#[test]
fn what_is_younger_stays_and_what_is_older_goes() {
    let index = Index::new(1000, 1000 * BLOCK);
    put(&index, 1, 5, 10);
    assert_eq!(index.put(new(1, 4), Value::Uncacheable(0), 10).unwrap_err().id, 4);
    assert_eq!(index.put_file(new(1, 4), 10).unwrap_err().id, 4);
    assert_eq!(index.put_found(new(1, 9), 10).unwrap_err().id, 9, "what is found was there before");
    assert!(index.add_file(&key(1), 4, 10).is_none() && index.add_file(&key(1), 5, 10) == Some(StaleFrom::NEVER));
    let gone = index.put(new(1, 6), Value::Uncacheable(0), 10).unwrap().unwrap();
    assert!(gone.id == 5 && gone.has_file);
    assert!(!index.set_value(&key(1), 5, Value::Uncacheable(0), 10), "it is another");
    assert!(index.remove(&key(1), |id| id == 5).is_none());
    assert!(index.remove(&key(1), |id| id == 6).is_some_and(|gone| !gone.has_file));
    assert_eq!(index.account(Level::Disk).used(), 0);
}

#[test]
fn all_entries_are_found_by_whoever_goes_through_the_shards() {
    let index = Index::new(1 << 20, 0);
    (0..1000).for_each(|number| put(&index, number, number, 1));
    let mut found = 0;
    for shard in 0..index.shards() {
        let mut from = 0;
        while let Some(some) = index.some_of(shard, from, 7) {
            from += 7;
            found += some.into_iter().filter(|hash| index.remove_hashed(*hash, |_| true).is_some()).count();
        }
    }
    assert_eq!((found, index.account(Level::Memory).count()), (1000, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Put(u64, u64),
    File(u64, u64),
    Get(u64),
    Remove(u64),
    EvictMemory,
    EvictDisk,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0_u64..20;
    prop_oneof![
        3 => (key(), 0_u64..500).prop_map(|(key, weight)| Step::Put(key, weight)),
        2 => (key(), 1_u64..20_000).prop_map(|(key, bytes)| Step::File(key, bytes)),
        3 => key().prop_map(Step::Get),
        1 => key().prop_map(Step::Remove),
        1 => Just(Step::EvictMemory),
        1 => Just(Step::EvictDisk),
    ]
}

/// What a plain map would hold: id, weight in memory, weight on disk.
type Held = (u64, Option<u64>, Option<u64>);
type Model = HashMap<u64, Held>;

proptest! {
    #[test]
    fn the_index_holds_what_a_map_would_and_counts_it(steps in proptest::collection::vec(step(), 1..200)) {
        let index = Index::new(2000, 20 * BLOCK);
        let (memory, disk) = (index.account(Level::Memory), index.account(Level::Disk));
        let (mut model, mut ids) = (Model::new(), 0);
        for step in steps {
            ids += 1;
            match step {
                Step::Put(number, weight) => {
                    index.put(new(number, ids), Value::Uncacheable(ids), weight).unwrap();
                    model.insert(number, (ids, Some(weight), None));
                }
                Step::File(number, bytes) => {
                    let id = model.get(&number).map_or(0, |entry| entry.0);
                    let added = index.add_file(&key(number), id, bytes);
                    prop_assert_eq!(added.is_some(), model.contains_key(&number));
                    if let Some(entry) = model.get_mut(&number) {
                        entry.2 = Some(bytes.div_ceil(BLOCK));
                    }
                }
                Step::Get(number) => match (index.get(&key(number)), model.get(&number)) {
                    (Some(Hit::Memory(Value::Uncacheable(id))), Some((expected, Some(_), _))) => prop_assert_eq!(id, *expected),
                    (Some(Hit::Disk { id, .. }), Some((expected, None, Some(_)))) => prop_assert_eq!(id, *expected),
                    (None, None) => {}
                    other => prop_assert!(false, "{:?}", other),
                },
                Step::Remove(number) => {
                    let gone = index.remove(&key(number), |_| true);
                    prop_assert_eq!(gone.is_some(), model.remove(&number).is_some());
                }
                Step::EvictMemory => {
                    let gone = index.evict(Level::Memory);
                    prop_assert_eq!(gone.is_some(), model.values().any(|entry| entry.1.is_some()));
                    if let Some(gone) = gone {
                        let number = u64::from(gone.key.as_bytes()[0]);
                        let entry = model.get_mut(&number).unwrap();
                        entry.1 = None;
                        if entry.2.is_none() {
                            model.remove(&number);
                        }
                    }
                }
                Step::EvictDisk => {
                    let gone = index.evict(Level::Disk);
                    prop_assert_eq!(gone.is_some(), model.values().any(|entry| entry.2.is_some()));
                    if let Some(gone) = gone {
                        let number = u64::from(gone.key.as_bytes()[0]);
                        prop_assert!(gone.has_file);
                        let entry = model.get_mut(&number).unwrap();
                        entry.2 = None;
                        if entry.1.is_none() {
                            model.remove(&number);
                        }
                    }
                }
            }
            let sum = |of: fn(&Held) -> Option<u64>| {
                let all: Vec<u64> = model.values().filter_map(of).collect();
                (all.iter().sum::<u64>(), all.len())
            };
            prop_assert_eq!((memory.used(), memory.count()), sum(|entry| entry.1));
            prop_assert_eq!((disk.used(), disk.count()), sum(|entry| entry.2));
        }
    }
}
