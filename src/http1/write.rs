//! Writing heads: every byte from the parsed form, none copied from the other side's wire.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::http::text::{append_decimal, append_hex};
use crate::http::{Exchange, fields};

/// How the body of a response is delimited on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// No body follows; a Content-Length of the app, which speaks of the body there would be, is passed on.
    NoBody,
    /// Content-Length.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// The end of the connection.
    Close,
}

/// A response head, up to and including the empty line.
pub(super) fn response_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    delimiter: Delimiter,
    connection: Option<&str>,
    exchange: &Exchange,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    let named =
        if fields::has(headers, &header::CONNECTION) { fields::named_by_connection(headers) } else { Vec::new() };
    let mut has_date = false;
    for (name, value) in headers {
        if *name == header::CONTENT_LENGTH && delimiter != Delimiter::NoBody {
            continue;
        }
        if fields::response_field_is_dropped(name) || named.contains(name) {
            continue;
        }
        has_date |= *name == header::DATE;
        field(out, name, value.as_bytes());
    }
    if !has_date {
        out.extend_from_slice(b"date: ");
        with_date(exchange.wall_clock().as_secs(), |date| out.extend_from_slice(date.as_bytes()));
        out.extend_from_slice(b"\r\n");
    }
    if let Some(id) = exchange.id.get() {
        out.extend_from_slice(b"x-request-id: ");
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    match delimiter {
        Delimiter::Length(length) => append_length(out, length),
        Delimiter::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Delimiter::NoBody | Delimiter::Close => {}
    }
    if let Some(connection) = connection {
        out.extend_from_slice(b"connection: ");
        out.extend_from_slice(connection.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// `name: value CRLF`.
pub(super) fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A Content-Length field line.
pub(super) fn append_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    append_decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

/// The line that begins a chunk.
pub(super) fn append_chunk_size(out: &mut Vec<u8>, size: usize) {
    append_hex(out, size as u64);
    out.extend_from_slice(b"\r\n");
}

/// The time, in seconds since 1970, as RFC 9110, 5.6.7 wants it: formatted once a second.
pub fn with_date<T>(now: u64, take: impl FnOnce(&HeaderValue) -> T) -> T {
    thread_local! {
        static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    DATE.with_borrow_mut(|(at, value)| {
        if *at != now || value.is_empty() {
            *at = now;
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
            // A date has nothing in it that a value may not have.
            *value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        }
        take(value)
    })
}
