//! Keys that were made of late: what is asked for again and again is not hashed with SHA-256 each time.
//!
//! A key is taken from here only for the very bytes that it was made of, all of which are compared. The hash that tells in which place
//! they are looked for is a quick one: two that meet drive each other out, and are as slow as they would be without. Each
//! thread has a seed of its own, so that nobody can tell which those are.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::Key;

/// Keys of a thread: more than a site's busiest pages.
const PLACES: usize = 512;
/// Longer ones are hashed each time: all that is kept is at most 256 KiB for each thread, and 32 KiB for the table.
const LONGEST: usize = 512;

/// The keys of one thread.
pub(super) struct Memo {
    seed: u64,
    /// Empty until the first key: threads that make none take no memory.
    places: Vec<Place>,
}

/// A key, and what it was made of. No bytes: nothing has come here yet.
struct Place {
    bytes: Vec<u8>,
    key: Key,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self { seed: RandomState::new().hash_one(0), places: Vec::new() }
    }

    /// The key of these bytes: the one that is known, or what `make` makes of them.
    pub(super) fn key(&mut self, bytes: &[u8], make: impl FnOnce(&[u8]) -> Key) -> Key {
        if bytes.is_empty() || bytes.len() > LONGEST {
            return make(bytes);
        }
        let place = self.place(bytes);
        if place.bytes == bytes {
            return place.key;
        }
        let key = make(bytes);
        place.remember(bytes, key);
        key
    }

    fn place(&mut self, bytes: &[u8]) -> &mut Place {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, Place::empty);
        }
        let at = hash(self.seed, bytes) as usize % PLACES;
        &mut self.places[at]
    }
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().chain([&last]).fold(seed, |state, word| mixed(state ^ u64::from_le_bytes(*word)))
}

/// Each bit of a number in many of another: both halves of its product with an odd one that has no pattern.
fn mixed(number: u64) -> u64 {
    let product = u128::from(number) * 0x9E37_79B9_7F4A_7C15;
    product as u64 ^ (product >> 64) as u64
}

impl Place {
    const fn empty() -> Self {
        Self { bytes: Vec::new(), key: Key([0; Key::LENGTH]) }
    }

    fn remember(&mut self, bytes: &[u8], key: Key) {
        self.bytes.clear();
        // No more than there are, rather than twice as many as there were.
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.key = key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sha256;
    use super::*;

    fn known(memo: &mut Memo, bytes: &[u8]) -> bool {
        let mut is_known = true;
        let key = memo.key(bytes, |bytes| {
            is_known = false;
            sha256(bytes)
        });
        assert_eq!(key, sha256(bytes), "{bytes:?}");
        is_known
    }

    /// Has what is known of the one stand where the other is looked for: it must not be taken for it.
    fn assert_meet(memo: &mut Memo, one: &[u8], other: &[u8]) {
        known(memo, one);
        let place = std::mem::replace(memo.place(one), Place::empty());
        assert_eq!(place.bytes, one);
        *memo.place(other) = place;
        assert!(!known(memo, other), "{other:?}");
    }

    #[test]
    fn what_is_asked_for_again_is_known_and_what_differs_in_one_byte_is_not() {
        let mut memo = Memo::new();
        let bytes = b"4:host12:shop.example".to_vec();
        assert!(!known(&mut memo, &bytes));
        assert!(known(&mut memo, &bytes));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_meet(&mut memo, &bytes, &other);
        }
        for other in [&bytes[1..], &bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat()[..]] {
            assert_meet(&mut memo, &bytes, other);
        }
    }

    #[test]
    fn it_takes_no_more_memory_than_it_may_however_many_there_are() {
        let mut memo = Memo::new();
        for number in 0..20 * PLACES {
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.resize(8 + number % (2 * LONGEST), b'x');
            known(&mut memo, &bytes);
        }
        assert_eq!(memo.places.len(), PLACES);
        assert!(memo.places.iter().all(|place| place.bytes.capacity() <= LONGEST));
        assert!(!known(&mut memo, &[b'x'; LONGEST + 1]));
        assert!(!known(&mut memo, &[b'x'; LONGEST + 1]), "it is too long to be kept");
    }

    #[test]
    fn what_differs_in_one_byte_is_looked_for_in_places_all_over() {
        let seed = RandomState::new().hash_one(0);
        let mut counts = vec![0_u32; PLACES];
        for number in 0..16 * PLACES {
            let bytes = format!("a route's name, a host, /page/{number:08}/of/a/shop");
            counts[hash(seed, bytes.as_bytes()) as usize % PLACES] += 1;
        }
        assert!(counts.iter().all(|count| *count < 64), "16 on average: {counts:?}");
    }

    #[test]
    fn a_memo_takes_no_memory_before_the_first_key() {
        assert_eq!(Memo::new().places.capacity(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_have_the_key_that_sha_256_makes_of_them(
            all in proptest::collection::vec(proptest::collection::vec(0_u8..3, 0..8), 1..400),
        ) {
            let mut memo = Memo::new();
            for bytes in &all {
                prop_assert_eq!(memo.key(bytes, sha256), sha256(bytes));
            }
        }
    }
}
