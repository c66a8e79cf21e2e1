//! Who has taken how much: one moment for each key, for all threads together.
//!
//! A key whose bucket is full again is as good as unknown and is forgotten. So the table holds those alone who have been
//! here within the time that a bucket takes to fill, and of these no more than [`KEYS`]. Beyond that the one who is
//! nearest to full gives way, who loses least by it: a flood of keys makes the table no larger, keeps no newcomer out, and
//! does not wash away those who have been refused.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::gcra::{Gcra, Verdict};

/// Keys that one table knows at most: some 6 MiB.
pub(super) const KEYS: usize = 1 << 17;
/// So many locks, that threads do not meet at one.
const SHARDS: usize = 16;
/// How many that are full again are forgotten with each request: one more than it may add.
const FORGOTTEN: usize = 2;

/// The buckets of one route. Keys are known by a hash that nobody outside can foresee.
pub(super) struct Table {
    began: Instant,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    keys_per_shard: usize,
}

#[derive(Default)]
struct Shard {
    /// When each bucket is full again.
    full_at: HashMap<u64, u64>,
    /// The same, the nearest first.
    by_time: BTreeSet<(u64, u64)>,
    /// The latest moment that any request has come with: threads read the clock before they come here.
    now: u64,
}

impl Table {
    /// A table in which everybody's bucket is full.
    pub(super) fn new() -> Self {
        Self::with_keys(KEYS)
    }

    fn with_keys(keys: usize) -> Self {
        Self {
            began: Instant::now(),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            keys_per_shard: (keys / SHARDS).max(1),
        }
    }

    /// One request of `key` at `now`.
    pub(super) fn take(&self, key: impl Hash, rule: &Gcra, now: Instant) -> Verdict {
        let key = self.hasher.hash_one(key);
        let now = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        let shard = &self.shards[(key % SHARDS as u64) as usize];
        // A panic elsewhere leaves at worst one key in one of the two lists.
        shard.lock().unwrap_or_else(PoisonError::into_inner).take(key, rule, now, self.keys_per_shard)
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().full_at.len()).sum()
    }
}

impl Shard {
    fn take(&mut self, key: u64, rule: &Gcra, now: u64, limit: usize) -> Verdict {
        self.now = self.now.max(now);
        self.forget_the_full();
        let before = self.full_at.get(&key).copied();
        let (verdict, after) = rule.take(before.unwrap_or(0), self.now);
        // A refusal changes something only where the rule has changed.
        if before != Some(after) {
            match before {
                Some(before) => _ = self.by_time.remove(&(before, key)),
                None if self.full_at.len() >= limit => self.give_way(),
                None => {}
            }
            self.full_at.insert(key, after);
            self.by_time.insert((after, key));
        }
        verdict
    }

    fn forget_the_full(&mut self) {
        for _ in 0..FORGOTTEN {
            match self.by_time.first() {
                Some((full_at, _)) if *full_at <= self.now => self.give_way(),
                _ => return,
            }
        }
    }

    /// Forgets the one who is nearest to full.
    fn give_way(&mut self) {
        if let Some((_, key)) = self.by_time.pop_first() {
            self.full_at.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rule(rate: &str, burst: u32) -> Gcra {
        Gcra::new(rate.parse().unwrap(), burst)
    }

    fn is_granted(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Granted { .. })
    }

    #[test]
    fn threads_together_are_granted_exactly_the_burst() {
        let (table, rule, now) = (Table::new(), rule("1/h", 1_000), Instant::now());
        let granted: usize = std::thread::scope(|scope| {
            let take = || (0..1_000).filter(|_| is_granted(table.take("one", &rule, now))).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 1_000);
    }

    #[test]
    fn a_thread_whose_clock_was_read_earlier_gives_nothing_away() {
        let (table, rule) = (Table::new(), rule("10/s", 1));
        let (earlier, later) = (table.began, table.began + Duration::from_secs(5));
        assert!(is_granted(table.take("one", &rule, later)));
        assert!(!is_granted(table.take("one", &rule, earlier)));
        assert!(!is_granted(table.take("one", &rule, later)));
    }

    #[test]
    fn a_flood_of_keys_grows_nothing_locks_nobody_out_and_forgives_nobody() {
        const LIMIT: usize = 1_600;
        let (table, rule, now) = (Table::with_keys(LIMIT), rule("1/m", 10), Instant::now());
        while is_granted(table.take("greedy", &rule, now)) {}
        for key in 0..20 * LIMIT {
            assert!(is_granted(table.take(key, &rule, now)), "a newcomer is let in");
            assert!(table.keys() <= LIMIT);
        }
        assert!(!is_granted(table.take("greedy", &rule, now)), "who has been refused stays refused");
        assert!(is_granted(table.take("honest", &rule, now)));
    }

    #[test]
    fn who_is_full_again_is_forgotten() {
        let (table, rule, now) = (Table::new(), rule("10/s", 5), Instant::now());
        (0..10_000).for_each(|key| _ = table.take(key, &rule, now));
        assert_eq!(table.keys(), 10_000);
        let later = now + Duration::from_secs(1);
        for _ in 0..40 {
            (10_000..10_500).for_each(|key| _ = table.take(key, &rule, later));
        }
        assert_eq!(table.keys(), 500);
    }

    /// The naive rule: everything that was granted is kept, and poured into a leaking bucket again each time.
    struct Naive {
        granted: HashMap<u8, Vec<u64>>,
        interval: u64,
        span: u64,
    }

    impl Naive {
        fn take(&mut self, key: u8, now: u64) -> bool {
            let granted = self.granted.entry(key).or_default();
            let (mut level, mut last) = (0_u64, 0);
            for at in granted.iter().chain([&now]) {
                level = level.saturating_sub(at - last) + self.interval;
                last = *at;
            }
            let fits = level <= self.span;
            if fits {
                granted.push(now);
            }
            fits
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_decides_as_a_leaking_bucket_does(
            count in 1_u32..200,
            burst in 1_u32..8,
            steps in prop::collection::vec((0_u8..4, 0_u64..200), 1..200),
        ) {
            let rate = crate::config::Rate { count, per: Duration::from_secs(1) };
            let (table, rule) = (Table::new(), Gcra::new(rate, burst));
            let interval = 1_000_000_000_u64.div_ceil(u64::from(count));
            let mut naive = Naive { granted: HashMap::new(), interval, span: interval * u64::from(burst) };
            let mut now = 0;
            for (key, millis) in steps {
                now += millis * 1_000_000 / 4;
                let verdict = table.take(key, &rule, table.began + Duration::from_nanos(now));
                prop_assert_eq!(is_granted(verdict), naive.take(key, now), "{} at {}", key, now);
            }
        }

        #[test]
        fn retry_in_is_when_it_is_granted_and_not_earlier(count in 1_u32..1_000, burst in 1_u32..20, taken in 1_usize..40) {
            let rate = crate::config::Rate { count, per: Duration::from_secs(60) };
            let (table, rule) = (Table::new(), Gcra::new(rate, burst));
            let now = table.began;
            for _ in 0..taken {
                if let Verdict::Refused { retry_in } = table.take(0, &rule, now) {
                    let just_before = now + retry_in - Duration::from_nanos(1);
                    prop_assert!(!is_granted(table.take(0, &rule, just_before)));
                    prop_assert!(is_granted(table.take(0, &rule, now + retry_in)));
                    return Ok(());
                }
            }
            prop_assert!(taken <= burst as usize);
        }
    }
}
