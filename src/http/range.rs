//! `Range: bytes=…` against a body of known length (RFC 9110, 14.1 and 14.2). Pure.
//!
//! Static files and stored responses answer with it. Both hold If-Range and the preconditions themselves; here a field
//! value becomes the parts of the body to send.
//!
//! | the field | becomes |
//! |---|---|
//! | another unit, a list that breaks the grammar, two fields | ignored: the whole body (14.2) |
//! | more than [`MAX_RANGES`] ranges, more than two that overlap | ignored: what only an attack asks for (17.15) |
//! | no range that has a byte of the body | 416 |
//! | ranges that overlap or touch | one, where the first of them stood |
//! | the rest | as asked, in the order asked; ends beyond the body are its end |

use http::HeaderValue;

/// More ranges than this are not served one by one.
pub const MAX_RANGES: usize = 16;
/// Bytes of a field value: far more than [`MAX_RANGES`] ranges need.
const MAX_LENGTH: usize = 1024;

/// Bytes of a body, from the first to the last, both included. `first <= last`, and both are within the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte, counted from 0.
    pub first: u64,
    /// The last byte.
    pub last: u64,
}

impl ByteRange {
    /// How many bytes it has: never 0. A body has fewer than 2^64 bytes, so this does not overflow.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// What `Content-Range` says of it, as a part of a body of `length` bytes (14.4).
    #[must_use]
    pub fn content_range(self, length: u64) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("bytes {}-{}/{length}", self.first, self.last)).ok()
    }

    /// Whether a byte belongs to both, or one begins right after the other.
    fn touches(self, other: Self) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    fn join(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// What `Content-Range` says of a body of `length` bytes that has nothing of what was asked for (14.4).
#[must_use]
pub fn unsatisfied(length: u64) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("bytes */{length}")).ok()
}

/// What to answer with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// 200 and all of the body: the field asks for nothing that we serve.
    Whole,
    /// 206 and one part, with `Content-Range`.
    One(ByteRange),
    /// 206 and `multipart/byteranges`: two parts at least, none of which touches another.
    Many(Vec<ByteRange>),
    /// 416 with `Content-Range: bytes */length`.
    Unsatisfiable,
}

/// Reads the value of a Range field, the only one of its request, for a body of `length` bytes.
#[must_use]
pub fn parse(value: &[u8], length: u64) -> Ranges {
    match read(value, length) {
        None => Ranges::Whole,
        Some(ranges) => match ranges[..] {
            [] => Ranges::Unsatisfiable,
            [one] => Ranges::One(one),
            _ => Ranges::Many(ranges),
        },
    }
}

/// The parts that the body has of those asked for; `None` when the field is to be ignored.
fn read(value: &[u8], length: u64) -> Option<Vec<ByteRange>> {
    if value.len() > MAX_LENGTH {
        return None;
    }
    let (unit, set) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut asked = 0;
    let mut ranges: Vec<ByteRange> = Vec::new();
    for spec in set.split(|byte| *byte == b',') {
        let spec = trim(spec);
        if spec.is_empty() {
            continue; // an empty element of a list (RFC 9110, 5.6.1)
        }
        asked += 1;
        if asked > MAX_RANGES {
            return None;
        }
        if let Some(range) = resolve(Spec::read(spec)?, length) {
            ranges.push(range);
        }
    }
    let is_abuse = asked == 0 || overlapping(&ranges) > 2;
    (!is_abuse).then(|| coalesce(ranges))
}

/// One element of the list (RFC 9110, 14.1.2).
#[derive(Debug, Clone, Copy)]
enum Spec {
    /// `first-` or `first-last`
    From(u64, Option<u64>),
    /// `-count`: so many at the end.
    Suffix(u64),
}

impl Spec {
    fn read(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        match (&text[..dash], &text[dash + 1..]) {
            (b"", count) => number(count).map(Self::Suffix),
            (first, b"") => Some(Self::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }
}

/// Digits and nothing else. What does not fit is beyond every body, and so is the largest number that does.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    Some(digits.iter().try_fold(0, value).unwrap_or(u64::MAX))
}

fn resolve(spec: Spec, length: u64) -> Option<ByteRange> {
    let end = length.checked_sub(1)?;
    match spec {
        Spec::From(first, last) if first <= end => {
            Some(ByteRange { first, last: last.map_or(end, |last| last.min(end)) })
        }
        Spec::Suffix(count @ 1..) => Some(ByteRange { first: length.saturating_sub(count), last: end }),
        Spec::From(..) | Spec::Suffix(0) => None,
    }
}

/// How many ranges share a byte with an earlier one.
fn overlapping(ranges: &[ByteRange]) -> usize {
    let shares = |at: &usize| ranges[..*at].iter().any(|earlier| earlier.overlaps(ranges[*at]));
    (0..ranges.len()).filter(shares).count()
}

/// Makes one of those that touch. There are few, so each is held against all.
fn coalesce(ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    let mut apart: Vec<ByteRange> = Vec::with_capacity(ranges.len());
    for mut range in ranges {
        let mut place = apart.len();
        // What has grown may touch others that it did not touch before.
        while let Some(at) = apart.iter().position(|other| other.touches(range)) {
            range = range.join(apart.remove(at));
            place = place.min(at);
        }
        apart.insert(place.min(apart.len()), range);
    }
    apart
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(value: &str, length: u64) -> Ranges {
        parse(value.as_bytes(), length)
    }

    fn ranges(list: &[(u64, u64)]) -> Ranges {
        let list: Vec<_> = list.iter().map(|(first, last)| ByteRange { first: *first, last: *last }).collect();
        if let [one] = list[..] { Ranges::One(one) } else { Ranges::Many(list) }
    }

    #[test]
    fn what_is_asked_for_is_sent() {
        for (value, expected) in [
            ("bytes=0-0", &[(0, 0)][..]),
            ("bytes=0-499", &[(0, 499)]),
            ("bytes=500-", &[(500, 999)]),
            ("bytes=-500", &[(500, 999)]),
            ("bytes=-5000", &[(0, 999)]),
            ("bytes=0-99999999999999999999999", &[(0, 999)]),
            ("Bytes=990-2000", &[(990, 999)]),
            ("bytes= 0-1 ,\t3-4,,", &[(0, 1), (3, 4)]),
            ("bytes=500-600,0-1", &[(500, 600), (0, 1)]),
            // Beyond the body: left out while others are within.
            ("bytes=1000-,0-1", &[(0, 1)]),
            ("bytes=-0,0-1", &[(0, 1)]),
        ] {
            assert_eq!(parts(value, 1000), ranges(expected), "{value}");
        }
    }

    #[test]
    fn what_touches_is_sent_once() {
        for (value, expected) in [
            ("bytes=0-9,10-19", &[(0, 19)][..]),
            ("bytes=0-9,5-19", &[(0, 19)]),
            ("bytes=10-19,0-9,30-", &[(0, 19), (30, 999)]),
            // The third closes the gap between the first two.
            ("bytes=0-9,20-29,10-19", &[(0, 29)]),
            ("bytes=0-1,0-1", &[(0, 1)]),
        ] {
            assert_eq!(parts(value, 1000), ranges(expected), "{value}");
        }
    }

    #[test]
    fn what_is_no_range_of_bytes_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=1- 2",
            "bytes =1-2",
            "items=0-1",
            "bytes:0-1",
            "bytes=0-1;2-3",
            "bytes=0x1-2",
            "bytes=--1",
        ] {
            assert_eq!(parts(value, 1000), Ranges::Whole, "{value:?}");
        }
    }

    #[test]
    fn what_no_body_has_is_said_so() {
        for (value, length) in
            [("bytes=1000-", 1000), ("bytes=1000-2000,5000-", 1000), ("bytes=-0", 1000), ("bytes=0-", 0)]
        {
            assert_eq!(parts(value, length), Ranges::Unsatisfiable, "{value} of {length}");
        }
        assert_eq!(parts("bytes=18446744073709551614-", u64::MAX), ranges(&[(u64::MAX - 1, u64::MAX - 1)]));
    }

    #[test]
    fn lists_that_only_an_attack_has_are_ignored() {
        let list = |count: u64| {
            let specs: Vec<String> = (0..count).map(|n| format!("{}-{}", 10 * n, 10 * n + 1)).collect();
            format!("bytes={}", specs.join(","))
        };
        assert!(matches!(parts(&list(16), 1000), Ranges::Many(parts) if parts.len() == 16));
        assert_eq!(parts(&list(17), 1000), Ranges::Whole);
        assert_eq!(parts("bytes=0-,0-,0-", 1000), ranges(&[(0, 999)]));
        assert_eq!(parts("bytes=0-,0-,0-,0-", 1000), Ranges::Whole, "the same bytes four times over");
        assert_eq!(parts(&format!("bytes=0-1{}", " ".repeat(MAX_LENGTH)), 1000), Ranges::Whole);
    }

    fn bytes_of(ranges: &Ranges, length: u64) -> Vec<u64> {
        let list = match ranges {
            Ranges::Whole => vec![ByteRange { first: 0, last: length - 1 }],
            Ranges::One(one) => vec![*one],
            Ranges::Many(many) => many.clone(),
            Ranges::Unsatisfiable => vec![],
        };
        list.iter().flat_map(|range| range.first..=range.last).collect()
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_leave_the_body(value in "(bytes=)?[-0-9, \tx]{0,40}", length in 0..300_u64) {
            let read = parts(&value, length);
            if let Ranges::One(one) = &read {
                prop_assert!(one.first <= one.last && one.last < length);
            }
            if let Ranges::Many(many) = &read {
                prop_assert!((2..=MAX_RANGES).contains(&many.len()));
                for (at, range) in many.iter().enumerate() {
                    prop_assert!(range.first <= range.last && range.last < length && range.len() <= length);
                    prop_assert!(!many[..at].iter().any(|other| other.touches(*range)));
                }
            }
        }

        #[test]
        fn the_bytes_are_those_asked_for(asked in prop::collection::vec((0..60_u64, 0..60_u64), 1..6), length in 1..50_u64) {
            let specs: Vec<String> = asked.iter().map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))).collect();
            let read = parts(&format!("bytes={}", specs.join(", ")), length);
            if read == Ranges::Whole {
                // Ignored: some byte is asked for more than once.
                let times = |byte: u64| asked.iter().filter(|(a, b)| (*a.min(b)..=*a.max(b)).contains(&byte)).count();
                prop_assert!((0..length).any(|byte| times(byte) > 1));
                return Ok(());
            }
            let mut sent = bytes_of(&read, length);
            sent.sort_unstable();
            let wanted: Vec<u64> =
                (0..length).filter(|byte| asked.iter().any(|(a, b)| (*a.min(b)..=*a.max(b)).contains(byte))).collect();
            prop_assert_eq!(sent, wanted, "each once");
        }
    }
}
