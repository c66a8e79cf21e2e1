//! A request head that we take says the same after it has been written for a worker, and asks for nothing else.

#![no_main]

use bytes::Bytes;
use hostler::http1::client::{Request, write_head};
use hostler::http1::head::{Framing, HeadLimits, find_end};
use hostler::http1::request::parse;
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { size: 64 << 10, count: 1_000 };

fuzz_target!(|bytes: &[u8]| {
    let Some(end) = find_end(bytes, &mut 0) else { return };
    let Ok(received) = parse(&Bytes::copy_from_slice(&bytes[..end]), &LIMITS) else { return };
    let length = match received.framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked => Some(7),
        Framing::None | Framing::Close => None,
    };
    let own = |out: &mut Vec<u8>| {
        if received.host.is_none() {
            out.extend_from_slice(b"host: localhost\r\n");
        }
    };
    let mut out = Vec::new();
    let (method, target, headers) = (&received.method, &received.target, &received.headers);
    write_head(&mut out, &Request { method, target, headers, host: None, length }, own, |_| {});
    assert_eq!(find_end(&out, &mut 0), Some(out.len()));
    let read = parse(&Bytes::from(out), &LIMITS).expect("what we write can be read");
    assert_eq!((&read.method, read.target.as_str()), (&received.method, received.target.as_str()));
    assert_eq!(read.framing, length.map_or(Framing::None, Framing::Length));
    assert_eq!(read.headers.get_all("host").iter().count(), 1);
    assert!(read.headers.keys().all(|name| !name.as_str().contains('_')));
});
