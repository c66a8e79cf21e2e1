//! The encoding that all of them have: DER (X.690), as far as certificates use it.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Why a certificate, or what speaks of one, cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// What is left of a DER encoding.
pub(super) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next element: its tag and contents.
    pub(super) fn any(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        const CUT: Malformed = Malformed("its encoding is cut short");
        const LENGTH: Malformed = Malformed("its encoding has a length that DER does not allow");
        let (&tag, rest) = self.0.split_first().ok_or(CUT)?;
        if tag & 0x1f == 0x1f {
            return Err(Malformed("its encoding has a tag that is not known there"));
        }
        let (&first, mut rest) = rest.split_first().ok_or(CUT)?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let width = usize::from(first & 0x7f);
            if !(1..=3).contains(&width) {
                return Err(LENGTH); // indefinite, or 16 MiB and more
            }
            let (bytes, after) = rest.split_at_checked(width).ok_or(CUT)?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            if length < 0x80 || bytes[0] == 0 {
                return Err(LENGTH); // not the shortest form
            }
            rest = after;
        }
        let (contents, rest) = rest.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok((tag, contents))
    }

    /// The contents of the next element, if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.0.first() == Some(&tag) { self.any().map(|(_, contents)| Some(contents)) } else { Ok(None) }
    }

    /// The contents of the next element, which has this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        self.optional(tag)?.ok_or(Malformed("its encoding has another element than it must have there"))
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("its encoding has more than it may have")) }
    }

    /// A time of either form.
    pub(super) fn time(&mut self) -> Result<SystemTime, Malformed> {
        const TIME: Malformed = Malformed("one of its dates is not a date");
        let (tag, text) = self.any()?;
        let (year, rest) = match tag {
            // Two digits: 1950 to 2049.
            UTC_TIME => text.split_at_checked(2).and_then(|(yy, rest)| {
                let yy = number(yy)?;
                Some((if yy < 50 { 2000 + yy } else { 1900 + yy }, rest))
            }),
            GENERALIZED_TIME => text.split_at_checked(4).and_then(|(yyyy, rest)| Some((number(yyyy)?, rest))),
            _ => None,
        }
        .ok_or(TIME)?;
        let rest = rest.strip_suffix(b"Z").filter(|rest| rest.len() == 10).ok_or(TIME)?;
        let part = |at: usize| number(&rest[at..at + 2]).ok_or(TIME);
        let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return Err(TIME);
        }
        let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        };
        time.ok_or(TIME)
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn unix(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_before_1970_and_the_century_of_two_digits_are_understood() {
        let time = |tag: u8, text: &str| Der(&[&[tag, text.len() as u8], text.as_bytes()].concat()).time();
        assert_eq!(time(UTC_TIME, "700101000000Z"), Ok(unix(0)));
        assert_eq!(time(UTC_TIME, "500101000000Z"), Ok(SystemTime::UNIX_EPOCH - Duration::from_secs(631_152_000)));
        assert_eq!(time(UTC_TIME, "491231235959Z"), Ok(unix(2_524_607_999)));
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), Ok(unix(253_402_300_799)));
        for text in ["701301000000Z", "700100000000Z", "7001010000Z", "700101000000+0100", "70010100000xZ", ""] {
            assert!(time(UTC_TIME, text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_that_der_does_not_allow_are_refused() {
        for bytes in
            [&[0x30, 0x80, 0, 0][..], &[0x30, 0x81, 0x01, 0], &[0x30, 0x82, 0, 0x80], &[0x30, 0x84, 0, 0, 0, 0]]
        {
            assert!(Der(bytes).any().is_err(), "{bytes:?}");
        }
        assert!(Der(&[0x3f, 0x01, 0x00]).any().is_err());
    }
}
