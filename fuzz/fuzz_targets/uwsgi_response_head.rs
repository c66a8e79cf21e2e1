//! The head of a uwsgi response has one framing, and no method or byte makes its reader panic.

#![no_main]

use bytes::Bytes;
use hostler::http1::head::{Framing, find_end};
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
});
