//! The layout of a file: what stands before a body, and what is known of it.
//!
//! ```text
//!   0  magic, version          16  bytes of the body        32  key             64  primary key, or zeros
//!  12  bytes of the record     24  moment                   96  CRC of record   100  CRC of the sums
//! 104  zeros                  108  CRC of all before        112  mark            120  zeros
//! 128  record | body | sums: a CRC for each piece of 64 KiB of the body
//! ```
//! All numbers are little-endian. The mark alone may be written later: it is [`FRESH`], or says since when the response is stale,
//! six bytes of milliseconds and two by which they are known to be that. Anything else is a response that was marked as stale, as
//! it was before the moment was written, and nobody knows when. Every other byte is under a checksum, which holds the key or the number of the piece as well, so that neither a
//! file in another's place nor a piece in another's is taken for its own.

use crc32fast::Hasher;

use super::super::Key;
use super::super::record;
use super::super::stale::StaleFrom;

/// Bytes before the record.
pub(in super::super) const PRELUDE: usize = 128;
/// Bytes of a body that have a checksum together.
pub(in super::super) const PIECE: u64 = 64 << 10;
/// Where the mark stands.
pub(in super::super) const MARK_AT: u64 = 112;
/// The mark of a response that nobody has purged.
const FRESH: [u8; 8] = *b"as it is";

const MAGIC: [u8; 8] = *b"hostlerC";
const VERSION: u32 = 1;

/// What stands before the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Prelude {
    pub(in super::super) key: Key,
    pub(in super::super) primary: Option<Key>,
    /// When the app was asked, in the store's order of events.
    pub(in super::super) since: u64,
    /// Bytes.
    pub(in super::super) record: u32,
    /// Bytes.
    pub(in super::super) body: u64,
    pub(in super::super) record_sum: u32,
    pub(in super::super) sums_sum: u32,
    /// Since when it is stale.
    pub(in super::super) stale_from: StaleFrom,
}

impl Prelude {
    pub(in super::super) fn to_bytes(self) -> [u8; PRELUDE] {
        let mut bytes = [0; PRELUDE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &self.record.to_le_bytes());
        put(16, &self.body.to_le_bytes());
        put(24, &self.since.to_le_bytes());
        put(32, self.key.as_bytes());
        put(64, &self.primary.map_or([0; Key::LENGTH], |key| *key.as_bytes()));
        put(96, &self.record_sum.to_le_bytes());
        put(100, &self.sums_sum.to_le_bytes());
        put(112, &mark(self.stale_from));
        let sum = crc32fast::hash(&bytes[..108]);
        bytes[108..112].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None`: these are not the first bytes of a file of ours, or not as they were written.
    pub(in super::super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; PRELUDE] = bytes.get(..PRELUDE)?.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let key_at = |at: usize| Key::from_bytes(std::array::from_fn(|number| bytes[at + number]));
        let is_ours = bytes[..8] == MAGIC
            && u32_at(8) == VERSION
            && u32_at(104) == 0
            && u64_at(120) == 0
            && u32_at(108) == crc32fast::hash(&bytes[..108]);
        let prelude = Self {
            key: key_at(32),
            primary: Some(key_at(64)).filter(|key| *key.as_bytes() != [0; Key::LENGTH]),
            since: u64_at(24),
            record: u32_at(12),
            body: u64_at(16),
            record_sum: u32_at(96),
            sums_sum: u32_at(100),
            stale_from: read_mark(std::array::from_fn(|number| bytes[112 + number])),
        };
        (is_ours && prelude.record as usize <= record::LARGEST && prelude.body < 1 << 62).then_some(prelude)
    }

    /// Where the body begins.
    pub(in super::super) fn body_at(&self) -> u64 {
        PRELUDE as u64 + u64::from(self.record)
    }

    /// Bytes of the whole file.
    pub(in super::super) fn file(&self) -> u64 {
        self.body_at() + self.body + 4 * pieces(self.body)
    }
}

/// The mark of a response that is stale since then.
pub(in super::super) fn mark(from: StaleFrom) -> [u8; 8] {
    let Some(milliseconds) = from.milliseconds() else { return FRESH };
    let mut mark = milliseconds.to_le_bytes();
    let check = mark_check(&mark);
    mark[6..].copy_from_slice(&check);
    mark
}

fn read_mark(mark: [u8; 8]) -> StaleFrom {
    if mark == FRESH {
        return StaleFrom::NEVER;
    }
    if mark[6..] != mark_check(&mark) {
        return StaleFrom::EVER;
    }
    let [milliseconds @ .., _, _] = mark;
    let [a, b, c, d, e, f] = milliseconds;
    StaleFrom::at(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
}

/// What stands behind the moment in a mark.
fn mark_check(mark: &[u8; 8]) -> [u8; 2] {
    let [first, second, ..] = crc32fast::hash(&mark[..6]).to_le_bytes();
    [first, second]
}

/// How many pieces a body has.
pub(in super::super) fn pieces(body: u64) -> u64 {
    body.div_ceil(PIECE)
}

/// The checksum of a record.
pub(in super::super) fn record_sum(key: &Key, record: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(record);
    hasher.finalize()
}

/// The checksum of the checksums.
pub(in super::super) fn sums_sum(key: &Key, sums: &[u32]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(key.as_bytes());
    sums.iter().for_each(|sum| hasher.update(&sum.to_le_bytes()));
    hasher.finalize()
}

/// The checksum of a piece.
pub(in super::super) fn piece_sum(key: &Key, number: u64, piece: &[u8]) -> u32 {
    let mut hasher = piece_hasher(key, number);
    hasher.update(piece);
    hasher.finalize()
}

fn piece_hasher(key: &Key, number: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&number.to_le_bytes());
    hasher
}

/// Makes the checksums of a body that comes by, in any cut.
pub(in super::super) struct Summing {
    key: Key,
    hasher: Hasher,
    /// Bytes in the piece that is not whole yet.
    partial: u64,
    sums: Vec<u32>,
}

impl Summing {
    pub(in super::super) fn new(key: Key) -> Self {
        Self { key, hasher: piece_hasher(&key, 0), partial: 0, sums: Vec::new() }
    }

    pub(in super::super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(PIECE - self.partial).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.hasher.update(now);
            self.partial += now.len() as u64;
            bytes = later;
            if self.partial == PIECE {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let next = piece_hasher(&self.key, self.sums.len() as u64 + 1);
        self.sums.push(std::mem::replace(&mut self.hasher, next).finalize());
        self.partial = 0;
    }

    /// Of the pieces that are whole.
    pub(in super::super) fn sums(&self) -> &[u32] {
        &self.sums
    }

    pub(in super::super) fn finish(mut self) -> Vec<u32> {
        if self.partial > 0 {
            self.close();
        }
        self.sums
    }
}

/// As they lie behind the body.
pub(in super::super) fn sums_to_bytes(sums: &[u32]) -> Vec<u8> {
    sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()
}

/// What was written so.
pub(in super::super) fn sums_from_bytes(bytes: &[u8]) -> Box<[u32]> {
    bytes.chunks_exact(4).map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]])).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prelude() -> Prelude {
        Prelude {
            key: Key::from_bytes([7; 32]),
            primary: Some(Key::from_bytes([9; 32])),
            since: 1 << 40,
            record: 300,
            body: 200_000,
            record_sum: 1,
            sums_sum: 2,
            stale_from: StaleFrom::NEVER,
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed_and_one_in_the_mark_means_stale() {
        let bytes = prelude().to_bytes();
        assert_eq!(Prelude::read(&bytes), Some(prelude()));
        for bit in 0..PRELUDE * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = Prelude::read(&flipped);
            let is_mark = (112..120).contains(&(bit / 8));
            let expected = is_mark.then_some(Prelude { stale_from: StaleFrom::EVER, ..prelude() });
            assert_eq!(read, expected, "bit {bit}");
        }
        assert_eq!(Prelude::read(&bytes[..PRELUDE - 1]), None);
    }

    #[test]
    fn a_mark_says_since_when_and_one_that_does_not_means_since_ever() {
        for milliseconds in [0, 1, 1_700_000_000_000, (1 << 48) - 1] {
            let from = StaleFrom::at(milliseconds);
            let written = mark(from);
            assert_eq!(read_mark(written), from, "{milliseconds}");
            for bit in 0..64 {
                let mut flipped = written;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read_mark(flipped), StaleFrom::EVER, "bit {bit} of {milliseconds}");
            }
        }
        assert_eq!(read_mark(mark(StaleFrom::at(u64::MAX - 1))), StaleFrom::at(1 << 48), "the latest there is");
        assert_eq!(read_mark(mark(StaleFrom::NEVER)), StaleFrom::NEVER);
        assert_eq!(read_mark(*b"is stale"), StaleFrom::EVER, "written before the moment was");
        let stale = Prelude { stale_from: StaleFrom::at(1_700_000_000_000), ..prelude() };
        assert_eq!(Prelude::read(&stale.to_bytes()), Some(stale));
    }

    #[test]
    fn a_file_is_as_long_as_its_parts() {
        assert_eq!(prelude().file(), 128 + 300 + 200_000 + 4 * 4);
        assert_eq!((pieces(0), pieces(1), pieces(PIECE), pieces(PIECE + 1)), (0, 1, 1, 2));
    }

    proptest! {
        #[test]
        fn any_cut_of_a_body_has_the_same_sums(cuts in proptest::collection::vec(0_usize..100_000, 0..6)) {
            let key = Key::from_bytes([3; 32]);
            let body: Vec<u8> = (0..cuts.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
            let (mut summing, mut rest) = (Summing::new(key), &body[..]);
            for cut in cuts {
                summing.update(&rest[..cut]);
                rest = &rest[cut..];
            }
            let expected: Vec<u32> =
                (0..).zip(body.chunks(PIECE as usize)).map(|(number, piece)| piece_sum(&key, number, piece)).collect();
            let sums = summing.finish();
            prop_assert_eq!(&sums, &expected);
            prop_assert_eq!(&*sums_from_bytes(&sums_to_bytes(&sums)), &expected[..]);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Prelude::read(&bytes), None);
        }
    }

    #[test]
    fn a_piece_in_another_place_or_of_another_key_has_another_sum() {
        let sums =
            [(1, 0), (1, 1), (2, 0)].map(|(key, number)| piece_sum(&Key::from_bytes([key; 32]), number, b"same"));
        assert!(sums[0] != sums[1] && sums[0] != sums[2]);
    }
}
