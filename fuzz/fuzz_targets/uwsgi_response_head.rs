//! The head of a uwsgi response has one framing, which no Transfer-Encoding has a part in; with a status line it is read as that
//! of HTTP/1.1 is, and without one as the same fields under the status line that they stand for.

#![no_main]

use bytes::Bytes;
use hostler::http1::head::{Framing, find_end};
use hostler::http1::response;
use hostler::uwsgi::response::parse;
use http::Method;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(end) = find_end(bytes, &mut 0) else { return };
    let head = Bytes::copy_from_slice(&bytes[..end]);
    let (Ok(to_get), Ok(to_head)) = (parse(&head, &Method::GET), parse(&head, &Method::HEAD)) else { return };
    assert_eq!(to_head.framing, Framing::None);
    assert!(to_get.framing != Framing::Chunked && !to_get.keep_alive);
    assert!(!to_get.headers.contains_key("transfer-encoding") && !to_get.headers.contains_key("status"));
    assert!(to_get.headers.get_all("content-length").iter().count() <= 1);
    // The same fields as an HTTP/1.1 worker would send them.
    let status = to_get.status.as_u16();
    let fields_at = if head.starts_with(b"HTTP/") { memchr(b'\n', &head) + 1 } else { 0 };
    let as_http = Bytes::from([format!("HTTP/1.1 {status} x\r\n").as_bytes(), &head[fields_at..]].concat());
    let Ok(mut read) = response::parse(&as_http, &Method::GET) else {
        // It has a Transfer-Encoding, which here is an app's word and no framing.
        assert!(head.to_ascii_lowercase().windows(18).any(|text| text.starts_with(b"transfer-encoding")));
        return;
    };
    if !read.headers.contains_key("transfer-encoding") {
        assert_eq!(read.framing, to_get.framing);
    }
    read.headers.remove("status");
    read.headers.remove("transfer-encoding");
    assert_eq!((read.status, read.headers), (to_get.status, to_get.headers));
});

fn memchr(wanted: u8, bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == wanted).unwrap_or(bytes.len())
}
