//! Reading the head of a worker's response (RFC 9112, 4): as strict as with clients, because what a worker says reaches
//! clients in our name.

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};

use super::head::{self, Fields, Framing, Seen};
use crate::error::Reason;
use crate::http::fields;

/// A response head whose framing is settled.
#[derive(Debug)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: StatusCode,
    /// As received.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the worker lets the connection live on.
    pub keep_alive: bool,
    /// Whether a body may come that the answer must not have: some servers send one a moment later, and who got the
    /// connection next would read it as his answer.
    pub may_trail: bool,
}

/// The most field lines a worker may send.
pub(crate) const MAX_FIELDS: usize = 256;

/// Reads a complete head: `bytes` ends with the empty line.
///
/// # Errors
/// [`Reason::BadHead`], with the rule that it breaks as the second value.
pub fn parse(bytes: &Bytes, method: &Method) -> Result<ResponseHead, (Reason, Reason)> {
    read(bytes, method).map_err(|rule| (Reason::BadHead, rule))
}

fn read(bytes: &Bytes, method: &Method) -> Result<ResponseHead, Reason> {
    let (line, fields_at) = head::first_line(bytes, Reason::BadRequestLine)?;
    let (status, is_1_1) = status_line(line)?;
    let Fields { map: headers, seen } = head::fields(bytes, fields_at, MAX_FIELDS)?;
    let framing = framing(&headers, seen, status, method, is_1_1)?;
    Ok(ResponseHead {
        framing,
        may_trail: framing == Framing::None && (*method == Method::HEAD || announces_body(&headers)),
        keep_alive: if seen.connection { keep_alive(&headers, is_1_1) } else { is_1_1 },
        status,
        headers,
    })
}

/// `HTTP/1.x SP 3DIGIT [SP reason]`.
fn status_line(line: &[u8]) -> Result<(StatusCode, bool), Reason> {
    let is_1_1 = match line.get(..9) {
        Some(b"HTTP/1.1 ") => true,
        Some(b"HTTP/1.0 ") => false,
        _ => return Err(Reason::BadRequestLine),
    };
    Ok((status(&line[9..])?, is_1_1))
}

/// `3DIGIT [SP reason]`.
pub(crate) fn status(text: &[u8]) -> Result<StatusCode, Reason> {
    let (code, phrase) = text.split_at_checked(3).ok_or(Reason::BadRequestLine)?;
    let phrase_is_fine = match phrase {
        [] => true,
        [b' ', text @ ..] => text.iter().all(|b| matches!(b, b'\t' | 0x20..=0x7E | 0x80..)),
        _ => false,
    };
    let status = StatusCode::from_bytes(code).map_err(|_| Reason::BadRequestLine)?;
    if phrase_is_fine { Ok(status) } else { Err(Reason::BadRequestLine) }
}

/// RFC 9112, 6.3: what a response to this method with this status has for a body.
fn framing(
    headers: &HeaderMap,
    seen: Seen,
    status: StatusCode,
    method: &Method,
    is_1_1: bool,
) -> Result<Framing, Reason> {
    let length = if seen.content_length { head::content_length(headers)? } else { None };
    let chunked = seen.transfer_encoding && head::is_chunked(headers)?;
    if chunked && length.is_some() {
        return Err(Reason::LengthConflict);
    }
    // A version without chunked coding: whoever wrote this does not know what it says.
    if chunked && !is_1_1 {
        return Err(Reason::BadTransferEncoding);
    }
    let bodiless = status.is_informational() || matches!(status.as_u16(), 204 | 304) || *method == Method::HEAD;
    Ok(match (bodiless, chunked, length) {
        (true, ..) => Framing::None,
        (_, true, _) => Framing::Chunked,
        (_, _, Some(length)) => Framing::Length(length),
        _ => Framing::Close,
    })
}

/// Whether fields speak of a body, whatever the status says.
fn announces_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

fn keep_alive(headers: &HeaderMap, is_1_1: bool) -> bool {
    !fields::has_token(headers, &header::CONNECTION, "close")
        && (is_1_1 || fields::has_token(headers, &header::CONNECTION, "keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_for(method: &Method, text: &str) -> Result<ResponseHead, Reason> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), method).map_err(|(_, rule)| rule)
    }

    #[test]
    fn the_framing_follows_status_and_method() {
        for (method, text, framing) in [
            (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::Length(5)),
            (Method::GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::Chunked),
            (Method::GET, "HTTP/1.0 200\r\n\r\n", Framing::Close),
            (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::None),
            (Method::GET, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Framing::None),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\n\r\n", Framing::None),
            (Method::GET, "HTTP/1.1 103 Early Hints\r\n\r\n", Framing::None),
        ] {
            assert_eq!(read_for(&method, text).unwrap().framing, framing, "{text:?}");
        }
    }

    #[test]
    fn a_worker_is_held_to_the_grammar_too() {
        for text in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 200 O\rK\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\n\n",
            "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "garbage\r\n\r\n",
        ] {
            assert!(read_for(&Method::GET, text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_announced_body_that_must_not_be_may_come_all_the_same() {
        for (method, text, may_trail) in [
            (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", true),
            (Method::GET, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            (Method::GET, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", false),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\n\r\n", false),
            (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false),
        ] {
            assert_eq!(read_for(&method, text).unwrap().may_trail, may_trail, "{text:?}");
        }
    }

    #[test]
    fn http_1_1_lives_on_unless_it_says_close() {
        let lives = |text: &str| read_for(&Method::GET, text).unwrap().keep_alive;
        assert!(lives("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!lives("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"));
        assert!(!lives("HTTP/1.0 200 OK\r\n\r\n"));
    }
}
