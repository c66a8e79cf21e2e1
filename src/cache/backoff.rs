//! Pauses after refreshes that have failed: an app that cannot answer is not asked by everybody again and again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::key::Key;

/// The first pause; each is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// Locks.
const SHARDS: usize = 16;
/// Keys of one lock: beyond that those are forgotten whose pause is over, or all of them.
const MOST: usize = 1024;

/// What is not asked for again for a while.
#[derive(Debug, Default)]
pub struct Backoff([Mutex<HashMap<Key, Pause>>; SHARDS]);

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Backoff {
    /// Whether a key is in such a pause.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        self.shard(key).get(key).is_some_and(|pause| Instant::now() < pause.until)
    }

    /// A refresh has failed. Those that went on at the same time count once.
    pub fn failed(&self, key: &Key) {
        let now = Instant::now();
        let mut shard = self.shard(key);
        if shard.len() >= MOST && !shard.contains_key(key) {
            shard.retain(|_, pause| now < pause.until);
            if shard.len() >= MOST {
                shard.clear();
            }
        }
        let known = shard.get(key).copied();
        if known.is_some_and(|pause| now < pause.until) {
            return;
        }
        let length = known.map_or(FIRST, |pause| (pause.length * 2).min(LONGEST));
        shard.insert(*key, Pause { until: now + length, length });
    }

    /// A refresh has succeeded.
    pub fn succeeded(&self, key: &Key) {
        self.shard(key).remove(key);
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Pause>> {
        let shard = &self.0[usize::from(key.as_bytes()[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_pause_is_twice_as_long_as_the_one_before_up_to_a_minute() {
        let (backoff, key) = (Backoff::default(), Key::from_bytes([1; 32]));
        assert!(!backoff.has(&key));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.failed(&key);
            // Another that went on at the same time.
            backoff.failed(&key);
            advance(Duration::from_millis(seconds * 1000 - 1)).await;
            assert!(backoff.has(&key), "{seconds}");
            advance(Duration::from_millis(1)).await;
            assert!(!backoff.has(&key), "{seconds}");
        }
        backoff.succeeded(&key);
        backoff.failed(&key);
        advance(FIRST).await;
        assert!(!backoff.has(&key), "it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn it_holds_no_more_than_it_may() {
        let backoff = Backoff::default();
        for number in 0..100_000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            backoff.failed(&Key::from_bytes(key));
        }
        assert!(backoff.0.iter().all(|shard| shard.lock().is_ok_and(|shard| shard.len() <= MOST)));
    }
}
