//! The head of a request, as it goes to a worker.

use http::Method;
use http::header::{self, HeaderMap, HeaderName};

use crate::http::{Target, fields};
use crate::http1::write;

/// A request, as far as its head goes.
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub target: &'a Target,
    /// The client's fields; what may not pass is dropped while they are written.
    pub headers: &'a HeaderMap,
    /// Further names under which the client's may not pass, because the edge tells the app who asks by them.
    pub identity: &'a [HeaderName],
    /// Sent instead of the client's Host.
    pub host: Option<&'a [u8]>,
    /// Content-Length, where the method has one.
    pub length: Option<u64>,
}

/// Writes a request head: the client's fields but those that `fields::request_field_beside` drops, then `own`, then the length.
///
/// `dropped` is told of every field that was forged or has an underscore.
pub fn write_head(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    own: impl FnOnce(&mut Vec<u8>),
    mut dropped: impl FnMut(fields::Dropped),
) {
    let headers = request.headers;
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(host) = request.host {
        write::field(out, &header::HOST, host);
    }
    let named =
        if headers.contains_key(header::CONNECTION) { fields::named_by_connection(headers) } else { Vec::new() };
    let mut cookies = 0;
    for (name, value) in headers {
        match fields::request_field_beside(name, request.identity) {
            Some(fields::Dropped::Hop) => {}
            Some(why) => dropped(why),
            None if named.contains(name) || (*name == header::HOST && request.host.is_some()) => {}
            None if *name == header::COOKIE => cookies += 1,
            None => write::field(out, name, value.as_bytes()),
        }
    }
    if cookies > 0 {
        write_cookies(out, headers);
    }
    own(out);
    if let Some(length) = request.length {
        write::append_length(out, length);
    }
    out.extend_from_slice(b"\r\n");
}

/// One Cookie line: HTTP/2 clients split it, and a WSGI server would join the parts with a comma (RFC 9113, 8.2.3).
fn write_cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    const COOKIE: HeaderName = header::COOKIE;
    out.extend_from_slice(b"cookie: ");
    for (index, value) in headers.get_all(COOKIE).iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
