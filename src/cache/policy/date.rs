//! Dates as a cache reads them (RFC 9111, 4.2): in any case, and of a field with one line.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::http::conditional::parse_date;

/// Bytes of the longest form, that of RFC 850: `Wednesday, 09-Nov-94 08:49:37 GMT`.
const LONGEST: usize = 33;

/// The date of the only line of a field, in seconds since 1970.
pub(super) fn only(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut lines = headers.get_all(name).iter();
    let value = lines.next()?;
    if lines.next().is_some() { None } else { parse(value) }
}

/// Reads a date in any of its forms and in any case.
pub(super) fn parse(value: &HeaderValue) -> Option<u64> {
    parse_date(value).or_else(|| in_any_case(value.as_bytes()))
}

fn in_any_case(text: &[u8]) -> Option<u64> {
    let mut usual = [0; LONGEST];
    let usual = usual.get_mut(..text.len())?;
    usual.copy_from_slice(text);
    for word in usual.split_mut(|byte| !byte.is_ascii_alphabetic()) {
        match word {
            zone if zone.eq_ignore_ascii_case(b"gmt") => zone.make_ascii_uppercase(),
            [first, rest @ ..] => {
                first.make_ascii_uppercase();
                rest.make_ascii_lowercase();
            }
            [] => {}
        }
    }
    parse_date(&HeaderValue::from_bytes(usual).ok()?)
}
