//! The grammar that request and response heads share: where a head ends, and its field lines (RFC 9112, 2-5).
//!
//! Strict on purpose: lines end with CRLF, names are tokens right before their colon, values hold no control bytes,
//! nothing is folded. What is refused here is what another reader of the same bytes might read differently.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

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

/// The field lines from `at` to the end of `head`, which ends with the empty line.
///
/// # Errors
/// The rule that a line breaks, or [`Reason::TooManyHeaders`].
pub(crate) fn fields(head: &Bytes, at: usize, max: usize) -> Result<HeaderMap, Reason> {
    let lines = memchr::memchr_iter(b'\n', &head[at..]).count().saturating_sub(1);
    if lines > max {
        return Err(Reason::TooManyHeaders);
    }
    // Room for the few fields that layers add: a map that grows is built twice.
    let mut map = fields::take_map(lines + 4);
    let mut start = at;
    loop {
        let length = memchr::memchr(b'\n', &head[start..]).ok_or(Reason::BadHeaderName)?;
        let line = head[start..start + length].strip_suffix(b"\r").ok_or(Reason::BareLf)?;
        if line.is_empty() {
            return Ok(map);
        }
        let (name, value) = split(line)?;
        let value = head.slice(start + value.start..start + value.end);
        map.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| Reason::BadHeaderValue)?);
        start += length + 1;
    }
}

/// One field line: the name, and where the value without its surrounding white space lies.
fn split(line: &[u8]) -> Result<(HeaderName, std::ops::Range<usize>), Reason> {
    if matches!(line[0], b' ' | b'\t') {
        return Err(Reason::ObsFold);
    }
    let colon = memchr::memchr(b':', line).ok_or(Reason::BadHeaderName)?;
    let name = &line[..colon];
    if name.is_empty() || !name.iter().all(|b| is_tchar(*b)) {
        return Err(Reason::BadHeaderName);
    }
    let name = HeaderName::from_bytes(name).map_err(|_| Reason::BadHeaderName)?;
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let value = &line[colon + 1..];
    let start = colon + 1 + value.iter().take_while(|b| is_space(b)).count();
    let end = line.len() - line[start..].iter().rev().take_while(|b| is_space(b)).count();
    Ok((name, start..end))
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
    let mut lines = headers.get_all(http::header::CONTENT_LENGTH).iter();
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
    let mut lines = headers.get_all(http::header::TRANSFER_ENCODING).iter();
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
