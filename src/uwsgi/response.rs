//! Reading the head of a uwsgi response.
//!
//! The status is told in one of three ways, tried in this order: a status line as in HTTP/1.1; a `Status` field, as in
//! CGI (RFC 3875, 6.3.3); none, which means 302 with a `Location` and else 200. The body ends with its Content-Length,
//! and without one when the worker closes.
//!
//! `Transfer-Encoding` is no framing here. uWSGI passes on what an app has written, so that the field says nothing about
//! the bytes: it is dropped, and they are passed on as they are.
//!
//! The grammar is held to as strictly as with HTTP: [`crate::http1::head`] reads the fields.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

use crate::error::Reason;
use crate::http1::head::{self, Framing};
use crate::http1::response::{MAX_FIELDS, ResponseHead, status};

const STATUS: HeaderName = HeaderName::from_static("status");

/// Reads a complete head: `bytes` ends with the empty line.
///
/// # Errors
/// [`Reason::BadHead`], with the rule that it breaks as the second value.
pub fn parse(bytes: &Bytes, method: &Method) -> Result<ResponseHead, (Reason, Reason)> {
    read(bytes, method).map_err(|rule| (Reason::BadHead, rule))
}

fn read(bytes: &Bytes, method: &Method) -> Result<ResponseHead, Reason> {
    let (line, fields_at) = head::first_line(bytes, Reason::BadRequestLine)?;
    let (status, mut headers) = if line.starts_with(b"HTTP/") {
        (status_line(line)?, head::fields(bytes, fields_at, MAX_FIELDS)?.map)
    } else if line.is_empty() {
        // Whoever begins with the empty line has told nothing, and what follows it would be lost.
        return Err(Reason::BadRequestLine);
    } else {
        let headers = head::fields(bytes, 0, MAX_FIELDS)?.map;
        (told(&headers)?, headers)
    };
    headers.remove(STATUS);
    headers.remove(header::TRANSFER_ENCODING);
    Ok(ResponseHead {
        framing: framing(&headers, status, method)?,
        keep_alive: false,
        may_trail: false,
        status,
        headers,
    })
}

/// `HTTP/D.D SP 3DIGIT [SP reason]`. uWSGI repeats the SERVER_PROTOCOL it was sent, so that any version may stand here.
fn status_line(line: &[u8]) -> Result<StatusCode, Reason> {
    match line.split_at_checked(9) {
        Some(([b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b' '], rest))
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            status(rest)
        }
        _ => Err(Reason::BadRequestLine),
    }
}

/// The status of a head without status line. Interim responses do not exist in this form.
fn told(headers: &HeaderMap) -> Result<StatusCode, Reason> {
    let mut lines = headers.get_all(STATUS).iter();
    match (lines.next(), lines.next()) {
        (None, _) if headers.contains_key(header::LOCATION) => Ok(StatusCode::FOUND),
        (None, _) => Ok(StatusCode::OK),
        (Some(line), None) => {
            status(line.as_bytes()).ok().filter(|status| !status.is_informational()).ok_or(Reason::BadRequestLine)
        }
        (Some(_), Some(_)) => Err(Reason::BadRequestLine),
    }
}

fn framing(headers: &HeaderMap, status: StatusCode, method: &Method) -> Result<Framing, Reason> {
    let length = head::content_length(headers)?;
    let bodiless = status.is_informational() || matches!(status.as_u16(), 204 | 304) || *method == Method::HEAD;
    Ok(match (bodiless, length) {
        (true, _) => Framing::None,
        (_, Some(length)) => Framing::Length(length),
        _ => Framing::Close,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_for(method: &Method, text: &str) -> Result<ResponseHead, Reason> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), method).map_err(|(_, rule)| rule)
    }

    #[test]
    fn the_status_is_told_in_one_of_three_ways() {
        for (text, status) in [
            ("HTTP/1.1 201 Created\r\nA: b\r\n\r\n", 201),
            ("HTTP/1.0 404\r\n\r\n", 404),
            ("HTTP/2.0 200 OK\r\nStatus: 500\r\nLocation: /\r\n\r\n", 200),
            ("Status: 404 Not Found\r\nLocation: /\r\n\r\n", 404),
            ("A: b\r\nstatus: 503\r\n\r\n", 503),
            ("Location: /a\r\n\r\n", 302),
            ("Content-Type: text/plain\r\n\r\n", 200),
        ] {
            let head = read_for(&Method::GET, text).unwrap();
            assert_eq!(head.status.as_u16(), status, "{text:?}");
            assert!(!head.headers.contains_key("status") && !head.keep_alive, "{text:?}");
        }
    }

    #[test]
    fn the_body_ends_with_its_length_or_with_the_connection() {
        for (method, text, framing) in [
            (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::Length(5)),
            (Method::GET, "HTTP/1.1 200 OK\r\n\r\n", Framing::Close),
            (Method::GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::Close),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(5),
            ),
            (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::None),
            (Method::HEAD, "HTTP/1.1 200 OK\r\n\r\n", Framing::None),
            (Method::GET, "Status: 204\r\n\r\n", Framing::None),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Framing::None),
            (Method::GET, "HTTP/1.1 103 Early Hints\r\n\r\n", Framing::None),
        ] {
            let head = read_for(&method, text).unwrap();
            assert_eq!(head.framing, framing, "{text:?}");
            assert!(!head.headers.contains_key("transfer-encoding"), "{text:?}");
        }
    }

    #[test]
    fn a_worker_is_held_to_the_grammar() {
        for text in [
            "\r\n",
            "\r\nA: b\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/x.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\n\n",
            "HTTP/1.1: 200\r\n\r\n",
            "Status: 404\r\nStatus: 404\r\n\r\n",
            "Status: 4040\r\n\r\n",
            "Status: OK\r\n\r\n",
            "Status:\r\n\r\n",
            "Status: 103 Early Hints\r\n\r\n",
            "A b: c\r\n\r\n",
            "A: b\n\n",
            "A: b\r\n c\r\n\r\n",
            "A: b\x01\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "Content-Length: +1\r\n\r\n",
            "garbage\r\n\r\n",
        ] {
            assert!(read_for(&Method::GET, text).is_err(), "{text:?}");
        }
    }
}
