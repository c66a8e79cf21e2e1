//! How many of something each client has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many locks, that threads do not meet at one.
const SHARDS: usize = 16;

/// How many of something each client has, by [`network`](super::network()), over all threads. Of those alone who have any.
#[derive(Default)]
pub struct PerClient {
    shards: [Mutex<HashMap<u64, u32>>; SHARDS],
}

impl PerClient {
    /// One more for `client`, unless it has `limit` of them. Whoever got it gives it back ([`Self::give_back`]).
    #[must_use = "what was taken has to be given back"]
    pub fn take(&self, client: u64, limit: usize) -> bool {
        match self.shard(client).entry(client) {
            Entry::Occupied(mut entry) if (*entry.get() as usize) < limit => {
                *entry.get_mut() += 1;
                true
            }
            Entry::Vacant(entry) if limit > 0 => {
                entry.insert(1);
                true
            }
            _ => false,
        }
    }

    /// One less for `client`, who has taken it.
    pub fn give_back(&self, client: u64) {
        let mut clients = self.shard(client);
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            // Nobody is remembered: a table that only grows would be a place to fill.
            if *count == 0 {
                clients.remove(&client);
            }
        }
        if clients.capacity() > 1024 && clients.len() < clients.capacity() / 8 {
            clients.shrink_to_fit();
        }
    }

    fn shard(&self, client: u64) -> MutexGuard<'_, HashMap<u64, u32>> {
        // Neighbours in one network go different ways, and so do networks.
        let shard = (client ^ (client >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60;
        let shard = usize::try_from(shard).unwrap_or(0) % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many clients are known.
    #[cfg(test)]
    pub(crate) fn clients(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_as_many_as_the_limit_says_at_the_time() {
        let counts = PerClient::default();
        assert!(!counts.take(1, 0) && counts.clients() == 0, "who gets nothing is not known");
        assert!(counts.take(1, 2) && counts.take(1, 2) && !counts.take(1, 2) && counts.take(2, 2));
        assert!(counts.take(1, 3) && !counts.take(1, 1));
        counts.give_back(1);
        assert!(!counts.take(1, 2) && counts.take(1, 3));
        (0..3).for_each(|_| counts.give_back(1));
        assert_eq!(counts.clients(), 1);
        counts.give_back(2);
        assert_eq!(counts.clients(), 0, "nothing is left of anybody");
    }

    #[test]
    fn what_many_have_filled_is_small_again_when_they_have_gone() {
        let counts = PerClient::default();
        assert!((0..50_000).all(|client| counts.take(client, 1)));
        assert_eq!(counts.clients(), 50_000);
        (0..50_000).for_each(|client| counts.give_back(client));
        assert!(counts.shards.iter().all(|shard| shard.lock().unwrap().capacity() <= 1024));
    }
}
