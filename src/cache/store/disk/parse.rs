//! From the bytes of a file to what was stored: all of it is held against its checksums.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::super::Key;
use super::super::blocks::Blocks;
use super::super::record::Record;
use super::super::stale::StaleFrom;
use super::layout::{self, PRELUDE, Prelude};

/// It is not as it was written.
pub(super) fn bad() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// What stands before a record and a body, whose sums these are.
pub(in super::super) fn prelude(
    key: Key,
    primary: Option<Key>,
    since: u64,
    record: &Record,
    body: u64,
    sums: &[u32],
    stale_from: StaleFrom,
) -> Prelude {
    Prelude {
        key,
        primary,
        since,
        record: record.end() as u32,
        body,
        record_sum: layout::record_sum(&key, record.as_bytes()),
        sums_sum: layout::sums_sum(&key, sums),
        stale_from,
    }
}

/// What stands at the beginning of a file of this key, which has so many bytes.
pub(super) fn head(key: &Key, bytes: &[u8], length: u64) -> io::Result<Prelude> {
    let prelude = Prelude::read(bytes).filter(|prelude| prelude.key == *key && prelude.file() == length);
    prelude.ok_or_else(bad)
}

/// The record at the beginning of these bytes, which are all of a block.
pub(super) fn record_of(prelude: &Prelude, block: &[u8], blocks: &Arc<Blocks>) -> io::Result<Record> {
    let length = prelude.record as usize;
    let is_good = |block: &&[u8]| {
        block.get(..length).is_some_and(|record| layout::record_sum(&prelude.key, record) == prelude.record_sum)
    };
    let record = Some(block).filter(is_good).and_then(|block| Record::read(blocks.of(block.to_vec()), length));
    record.ok_or_else(bad)
}

/// The checksums of the body's pieces.
pub(super) fn sums_of(prelude: &Prelude, bytes: &[u8]) -> io::Result<Box<[u32]>> {
    let sums = layout::sums_from_bytes(bytes);
    let is_good = layout::sums_sum(&prelude.key, &sums) == prelude.sums_sum;
    if is_good { Ok(sums) } else { Err(bad()) }
}

/// All of a file: the body lies behind its record.
pub(super) fn whole(key: &Key, bytes: &[u8], blocks: &Arc<Blocks>) -> io::Result<(Prelude, Record)> {
    let prelude = head(key, bytes, bytes.len() as u64)?;
    let body_at = usize::try_from(prelude.body_at()).map_err(|_| bad())?;
    let body_end = body_at + usize::try_from(prelude.body).map_err(|_| bad())?;
    let sums = sums_of(&prelude, &bytes[body_end..])?;
    let pieces = bytes[body_at..body_end].chunks(layout::PIECE as usize).zip(&sums);
    let is_good = |(number, (piece, sum)): (u64, (&[u8], &u32))| layout::piece_sum(key, number, piece) == *sum;
    if !(0..).zip(pieces).all(is_good) {
        return Err(bad());
    }
    let record = record_of(&prelude, &bytes[PRELUDE..body_end], blocks)?;
    Ok((prelude, record))
}

/// The body of a file with these bytes, if that is a whole one of this key, as it was written.
#[must_use]
pub fn body_of_file(key: &Key, bytes: &[u8]) -> Option<Bytes> {
    let (_, record) = whole(key, bytes, &Arc::default()).ok()?;
    Some(record.block().slice(record.end()..))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::super::super::record::{self, Kind, Parts};
    use super::*;

    fn file(key: Key, body: &[u8]) -> Vec<u8> {
        let parts = Parts { kind: Kind::Object, status: 200, facts: b"f", host: b"h", path: b"/", tags: &[b"t"] };
        let record = record::write(&parts, HeaderMap::new().iter()).unwrap();
        let length = record.len();
        let record = Record::read(record.into(), length).unwrap();
        let mut summing = layout::Summing::new(key);
        summing.update(body);
        let sums = summing.finish();
        let prelude = prelude(key, None, 5, &record, body.len() as u64, &sums, StaleFrom::NEVER);
        [&prelude.to_bytes()[..], record.as_bytes(), body, &layout::sums_to_bytes(&sums)].concat()
    }

    #[test]
    fn any_flipped_bit_outside_the_mark_is_noticed_and_so_is_any_cut() {
        let key = Key::from_bytes([5; 32]);
        for body in [&b""[..], b"a body", &[7; 66_000]] {
            let bytes = file(key, body);
            assert_eq!(body_of_file(&key, &bytes).unwrap(), body);
            assert!(body_of_file(&Key::from_bytes([6; 32]), &bytes).is_none(), "it is another's");
            // Each byte of the small ones, some of the large one.
            for at in (0..bytes.len()).step_by(bytes.len().div_ceil(500)) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                let is_mark = (112..120).contains(&at);
                assert_eq!(body_of_file(&key, &flipped).is_some(), is_mark, "byte {at} of {}", bytes.len());
                assert!(body_of_file(&key, &bytes[..at]).is_none(), "cut at {at}");
            }
            assert!(body_of_file(&key, &[&bytes[..], b"x"].concat()).is_none(), "longer");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_behind_a_good_beginning_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), kept in 0_usize..500,
        ) {
            let key = Key::from_bytes([5; 32]);
            let good = file(key, b"a body");
            let bytes = [&good[..kept.min(good.len())], &bytes].concat();
            let read = body_of_file(&key, &bytes);
            prop_assert_eq!(read.is_some(), bytes == good);
        }
    }
}
