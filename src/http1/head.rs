//! The grammar that request and response heads share: where a head ends, and its field lines (RFC 9112, 2-5).
//!
//! Strict on purpose: lines end with CRLF, names are tokens right before their colon, values hold no control bytes,
//! nothing is folded. What is refused here is what another reader of the same bytes might read differently.

use std::ops::Range;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::error::Reason;
use crate::http::fields;

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes, start line and final empty line included.
    pub size: usize,
    /// Field lines.
    pub count: usize,
}

/// How the body after a head is delimited (RFC 9112, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Exactly this many bytes.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// Until the sender closes; responses only.
    Close,
}

/// Heads up to these sizes are copied with their counter into one allocation.
const SMALL: usize = 256;
const MEDIUM: usize = 1024;

struct Head<const SIZE: usize> {
    bytes: [u8; SIZE],
    length: usize,
}

impl<const SIZE: usize> AsRef<[u8]> for Head<SIZE> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn owned<const SIZE: usize>(head: &[u8]) -> Bytes {
    let mut owned = Head { bytes: [0; SIZE], length: head.len() };
    owned.bytes[..head.len()].copy_from_slice(head);
    Bytes::from_owner(owned)
}

/// A head of its own, which field values then share.
pub(crate) fn copy(head: &[u8]) -> Bytes {
    if head.len() <= SMALL {
        owned::<SMALL>(head)
    } else if head.len() <= MEDIUM {
        owned::<MEDIUM>(head)
    } else {
        Bytes::copy_from_slice(head)
    }
}

/// A part of `whole`, shared with it.
pub(crate) fn share(whole: &Bytes, part: &[u8]) -> Bytes {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    match start.checked_add(part.len()) {
        Some(end) if end <= whole.len() => whole.slice(start..end),
        _ => Bytes::copy_from_slice(part),
    }
}

/// Looks for the empty line that ends a head. Returns the length of the head with that line.
///
/// `scanned` is where the last look ended; it starts at 0 and makes a head that dribbles in cost no more than one look
/// at each byte. A bare LF ends a line here, so that a head which uses them is found, and then refused.
pub fn find_end(buffer: &[u8], scanned: &mut usize) -> Option<usize> {
    let from = *scanned;
    for at in memchr::memchr_iter(b'\n', &buffer[from..]).map(|at| at + from) {
        match &buffer[at + 1..] {
            [b'\n', ..] => return Some(at + 2),
            [b'\r', b'\n', ..] => return Some(at + 3),
            [] | [b'\r'] => {
                *scanned = at;
                return None;
            }
            _ => {}
        }
    }
    *scanned = buffer.len();
    None
}

/// The first line of a head, without its CRLF, and where the next one begins.
///
/// # Errors
/// [`Reason::BareLf`] when it ends with LF alone; `malformed` when it does not end.
pub(crate) fn first_line(head: &[u8], malformed: Reason) -> Result<(&[u8], usize), Reason> {
    let end = memchr::memchr(b'\n', head).ok_or(malformed)?;
    let line = head[..end].strip_suffix(b"\r").ok_or(Reason::BareLf)?;
    Ok((line, end + 1))
}

/// The field lines of a head.
pub(crate) struct Fields {
    /// As received.
    pub(crate) map: HeaderMap,
    /// Which fields there are that decide how the message is read.
    pub(crate) seen: Seen,
}

/// Which fields there are that decide how a message is read: most heads have few of them, and are not asked for the others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) connection: bool,
    pub(crate) content_length: bool,
    pub(crate) content_type: bool,
    pub(crate) expect: bool,
    pub(crate) host: bool,
    pub(crate) transfer_encoding: bool,
    pub(crate) upgrade: bool,
    /// More than one line of Content-Type.
    pub(crate) repeats_content_type: bool,
}

impl Seen {
    fn note(&mut self, name: &HeaderName) {
        match *name {
            header::CONNECTION => self.connection = true,
            header::CONTENT_LENGTH => self.content_length = true,
            header::CONTENT_TYPE => self.repeats_content_type |= std::mem::replace(&mut self.content_type, true),
            header::EXPECT => self.expect = true,
            header::HOST => self.host = true,
            header::TRANSFER_ENCODING => self.transfer_encoding = true,
            header::UPGRADE => self.upgrade = true,
            _ => {}
        }
    }
}

/// The shortest field line, with its CRLF.
const SHORTEST_LINE: usize = 4;
/// Room that is made for fields at once, those that layers add included: a map that grows is built twice.
const USUAL_FIELDS: usize = 16;

/// The field lines from `at` to the end of `head`, which ends with the empty line.
///
/// # Errors
/// The rule that a line breaks, or [`Reason::TooManyHeaders`].
pub(crate) fn fields(head: &Bytes, at: usize, max: usize) -> Result<Fields, Reason> {
    // What is too short for too many lines need not be counted.
    let is_counted = (head.len() - at) / SHORTEST_LINE > max;
    if is_counted && memchr::memchr_iter(b'\n', &head[at..]).count().saturating_sub(1) > max {
        return Err(Reason::TooManyHeaders);
    }
    let mut map = fields::take_map(USUAL_FIELDS);
    let mut seen = Seen::default();
    let mut start = at;
    loop {
        let rest = &head[start..];
        if rest.starts_with(b"\r\n") {
            return Ok(Fields { map, seen });
        }
        let line = split(rest).ok_or_else(|| broken_rule(rest))?;
        let name = HeaderName::from_bytes(&rest[..line.name]).map_err(|_| Reason::BadHeaderName)?;
        seen.note(&name);
        let value = field_value(head.slice(start + line.value.start..start + line.value.end));
        map.append(name, value);
        start += line.length;
    }
}

/// Where in a field line its parts lie.
struct Line {
    /// Bytes of the name.
    name: usize,
    /// The value without its surrounding white space.
    value: Range<usize>,
    /// Bytes of the whole line, CRLF included.
    length: usize,
}

/// One field line at the beginning of `rest`, read in one pass. `None`: it breaks a rule.
fn split(rest: &[u8]) -> Option<Line> {
    let name = rest.iter().position(|byte| !is_tchar(*byte))?;
    if name == 0 || rest[name] != b':' {
        return None;
    }
    let end = name + 1 + control_at(&rest[name + 1..])?;
    if !rest[end..].starts_with(b"\r\n") {
        return None;
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let value = &rest[name + 1..end];
    let before = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let after = value[before..].iter().rev().position(|byte| !is_space(byte)).unwrap_or(0);
    Some(Line { name, value: name + 1 + before..end - after, length: end + 2 })
}

/// Which rule the line breaks that `rest` begins with.
#[cold]
fn broken_rule(rest: &[u8]) -> Reason {
    let Some(line) = memchr::memchr(b'\n', rest).map(|end| &rest[..end]) else { return Reason::BadHeaderName };
    let Some(line) = line.strip_suffix(b"\r") else { return Reason::BareLf };
    let Some(colon) = memchr::memchr(b':', line) else {
        return if matches!(line.first(), Some(b' ' | b'\t')) { Reason::ObsFold } else { Reason::BadHeaderName };
    };
    match line[0] {
        b' ' | b'\t' => Reason::ObsFold,
        _ if colon == 0 || !line[..colon].iter().all(|byte| is_tchar(*byte)) => Reason::BadHeaderName,
        _ => Reason::BadHeaderValue,
    }
}

/// Where the first byte is that no field value may have: a control character but the tab (RFC 9110, 5.5), eight bytes at a
/// time.
fn control_at(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + first_control(&bytes[from..])?;
        if bytes[at] != b'\t' {
            return Some(at);
        }
        from = at + 1;
    }
}

/// The same, the tab among them.
fn first_control(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A borrow reaches only the bytes behind the first that is found.
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = word ^ (ONES * 0x7F);
        let found = (below_space | (delete.wrapping_sub(ONES) & !delete)) & HIGH;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| matches!(byte, 0..0x20 | 0x7F))?;
    Some(words.len() * 8 + at)
}

/// A value in which [`split`] has found no control character but tabs.
fn field_value(value: Bytes) -> HeaderValue {
    debug_assert!(value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7E | 0x80..)), "{value:?}");
    // SAFETY: the bytes must be what `HeaderValue::from_bytes` takes, which is 0x20-0x7E, 0x80-0xFF and the tab. They lie
    // before the first byte that `control_at` has found, which finds every other one (held against the library's own check,
    // byte for byte, in the tests below).
    #[allow(unsafe_code)]
    unsafe {
        HeaderValue::from_maybe_shared_unchecked(value)
    }
}

/// RFC 9110, 5.6.2: a byte of a token.
#[must_use]
pub fn is_tchar(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut at = 0;
        while at < 256 {
            let b = at as u8;
            table[at] = b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
            at += 1;
        }
        table
    };
    TABLE[usize::from(byte)]
}

/// Content-Length: one field line, one decimal number (RFC 9110, 8.6). `None`: no such field.
///
/// Equal repetitions, which the RFC would let pass, are refused as well: nobody honest sends them.
///
/// # Errors
/// [`Reason::BadContentLength`].
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Reason> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = lines.next() else { return Ok(None) };
    let digits = value.as_bytes();
    if lines.next().is_some() || digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Reason::BadContentLength);
    }
    Ok(Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))))
}

/// Transfer-Encoding: absent, or exactly `chunked` (RFC 9112, 6.1).
///
/// # Errors
/// [`Reason::BadTransferEncoding`] for every other value or a repetition.
pub(crate) fn is_chunked(headers: &HeaderMap) -> Result<bool, Reason> {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(value) = lines.next() else { return Ok(false) };
    if lines.next().is_some() || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Reason::BadTransferEncoding);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_wherever_the_bytes_are_split() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for cut in 0..head.len() {
            let mut scanned = 0;
            let early = find_end(&head[..cut], &mut scanned);
            assert_eq!(early, (cut >= 27).then_some(27), "at {cut}");
            assert_eq!(find_end(head, &mut scanned), Some(27), "after {cut}");
        }
    }

    #[test]
    fn no_byte_is_taken_for_a_value_that_the_library_would_refuse() {
        for length in 0..40 {
            for at in 0..=length {
                for byte in 0..=u8::MAX {
                    let mut value = vec![b'a'; length];
                    if let Some(place) = value.get_mut(at) {
                        *place = byte;
                    }
                    assert_eq!(control_at(&value).is_none(), HeaderValue::from_bytes(&value).is_ok(), "{value:?}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_first_control_byte_is_found(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let first = bytes.iter().position(|byte| HeaderValue::from_bytes(&[*byte]).is_err());
            proptest::prop_assert_eq!(control_at(&bytes), first);
        }
    }

    #[test]
    fn content_length_is_one_number() {
        for (lines, expected) in [
            (vec![], Ok(None)),
            (vec!["0"], Ok(Some(0))),
            (vec!["1234567890123456789"], Ok(Some(1_234_567_890_123_456_789))),
            (vec!["+1"], Err(())),
            (vec!["-1"], Err(())),
            (vec!["1 1"], Err(())),
            (vec!["1, 1"], Err(())),
            (vec!["0x1"], Err(())),
            (vec![""], Err(())),
            (vec!["99999999999999999999"], Err(())),
            (vec!["5", "5"], Err(())),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append("content-length", line.parse().unwrap());
            }
            assert_eq!(content_length(&headers).map_err(|_| ()), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_plain_chunked_is_a_transfer_encoding() {
        for (lines, expected) in [
            (vec![], Ok(false)),
            (vec!["chunked"], Ok(true)),
            (vec!["Chunked"], Ok(true)),
            (vec!["gzip, chunked"], Err(())),
            (vec!["chunked", "chunked"], Err(())),
            (vec!["identity"], Err(())),
            (vec!["chunked;a"], Err(())),
            (vec!["\"chunked\""], Err(())),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append("transfer-encoding", line.parse().unwrap());
            }
            assert_eq!(is_chunked(&headers).map_err(|_| ()), expected, "{lines:?}");
        }
    }
}
