//! The identity of a request in headers, logs and traces: a UUID of version 7 (RFC 9562).
//!
//! Made without a system call and without allocation: the caller brings the time, a generator of the thread the rest.
//! Ids of one thread are strictly increasing, also within a millisecond and when the clock steps back a little. They
//! are unique, not secret: nothing may take one as a proof of anything.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// The text form of a version 7 UUID: 36 bytes of lower-case hexadecimal digits and hyphens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId([u8; Self::LEN]);

impl RequestId {
    /// Bytes of the text.
    pub const LEN: usize = 36;

    /// A new id that tells `unix_millis`, the wall clock's milliseconds since 1970, as its time.
    #[must_use]
    pub fn new(unix_millis: u64) -> Self {
        thread_local! {
            static GENERATOR: Cell<Generator> = Cell::new(Generator::seeded());
        }
        GENERATOR.with(|cell| {
            let mut generator = cell.get();
            let id = generator.next(unix_millis);
            cell.set(generator);
            Self(text(id))
        })
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // always ASCII
    }

    /// The id as bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A clock that goes back further than this is followed; below it, ids keep the later time.
const STEP_BACK: u64 = 10_000;

/// Bits of the counter that orders the ids of one millisecond (`rand_a`).
const COUNTER_MAX: u16 = 0xfff;

#[derive(Clone, Copy)]
struct Generator {
    /// xoshiro256++.
    state: [u64; 4],
    millis: u64,
    counter: u16,
}

impl Generator {
    fn seeded() -> Self {
        // The standard library's hasher keys come from the system's random source; it needs no further crate.
        let keys = RandomState::new();
        let state = [1u64, 2, 3, 4].map(|n| keys.hash_one(n));
        Self { state, millis: 0, counter: 0 }
    }

    fn next(&mut self, unix_millis: u64) -> u128 {
        self.advance(unix_millis);
        const VERSION: u128 = 7 << 76;
        const VARIANT: u128 = 0b10 << 62;
        let millis = u128::from(self.millis & 0xffff_ffff_ffff) << 80;
        let counter = u128::from(self.counter) << 64;
        millis | VERSION | counter | VARIANT | u128::from(self.random() >> 2)
    }

    /// Moves to the next millisecond or the next count of this one.
    fn advance(&mut self, unix_millis: u64) {
        let forward = unix_millis > self.millis || unix_millis.saturating_add(STEP_BACK) < self.millis;
        if forward || self.counter == COUNTER_MAX {
            self.millis = if forward { unix_millis } else { self.millis + 1 };
            self.counter = (self.random() >> 53) as u16; // 11 bits: at least half of the range is left to count
        } else {
            self.counter += 1;
        }
    }

    fn random(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }
}

/// Two digits of each byte, in one step.
const PAIRS: [[u8; 2]; 256] = {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [HEX[byte >> 4], HEX[byte & 0xf]];
        byte += 1;
    }
    pairs
};

/// Where the digits of each byte stand.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

fn text(id: u128) -> [u8; RequestId::LEN] {
    let mut text = [b'-'; RequestId::LEN];
    for (place, byte) in PLACES.into_iter().zip(id.to_be_bytes()) {
        text[place..place + 2].copy_from_slice(&PAIRS[usize::from(byte)]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const NOW: u64 = 1_795_381_380_123;

    #[test]
    fn an_id_has_the_form_version_and_variant_of_rfc_9562() {
        for _ in 0..1000 {
            let id = RequestId::new(NOW);
            let groups: Vec<&str> = id.as_str().split('-').collect();
            assert_eq!(groups.iter().map(|g| g.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
            assert!(groups.concat().bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
            assert!(groups[2].starts_with('7'), "{id}");
            assert!(groups[3].starts_with(['8', '9', 'a', 'b']), "{id}");
        }
    }

    #[test]
    fn an_id_tells_its_time() {
        let text = std::thread::spawn(|| RequestId::new(NOW).to_string()).join().unwrap();
        assert_eq!(u64::from_str_radix(&text.replace('-', "")[..12], 16), Ok(NOW));
    }

    #[test]
    fn ids_of_a_thread_increase_whatever_the_clock_does() {
        let mut last = RequestId::new(NOW);
        for i in 0..100_000u64 {
            let clock = NOW + i / 10_000 - (i % 7);
            let id = RequestId::new(clock);
            assert!(id > last, "{id} after {last}");
            last = id;
        }
    }

    #[test]
    fn a_clock_set_back_far_is_followed() {
        let mut generator = Generator::seeded();
        generator.next(NOW);
        assert_eq!((generator.next(NOW - 3_600_000) >> 80) as u64, NOW - 3_600_000);
    }

    #[test]
    fn threads_do_not_repeat_each_other() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..25_000).map(|_| RequestId::new(NOW)).collect::<Vec<_>>()))
            .collect();
        let ids: HashSet<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ids.len(), 100_000);
    }
}
