//! A request head is taken exactly when a second reading from the grammar and our rules takes it, and read the same. What is
//! written for a worker is the same request, the only one there, with one framing and one host: to us and to httparse.

#![no_main]

use bytes::Bytes;
use hostler::http::Protocol;
use hostler::http1::client::{Request, write_head};
use hostler::http1::head::{Framing, HeadLimits, find_end};
use hostler::http1::request::{RequestHead, parse};
use libfuzzer_sys::fuzz_target;
use reference::Ends;

#[allow(dead_code)]
#[path = "../../src/http1/tests/reference.rs"]
mod reference;

const LIMITS: HeadLimits = HeadLimits { size: 64 << 10, count: 200 };
/// What we write has three lines more: Host, X-Forwarded-For, Content-Length.
const WRITTEN: HeadLimits = HeadLimits { size: 65 << 10, count: LIMITS.count + 3 };

fn ends(framing: Framing) -> Ends {
    match framing {
        Framing::None => Ends::Nowhere,
        Framing::Length(length) => Ends::After(length),
        Framing::Chunked => Ends::WithChunks,
        Framing::Close => Ends::WithConnection,
    }
}

fn sorted(mut fields: reference::Fields) -> reference::Fields {
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

fn in_the_words_of_the_second(head: &RequestHead) -> reference::Request {
    let fields = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    reference::Request {
        method: head.method.as_str().to_owned(),
        target: head.target.as_str().to_owned(),
        path: head.target.path().to_vec(),
        is_1_1: head.protocol == Protocol::Http11,
        fields: sorted(fields.collect()),
        host: head.host.as_ref().map(|host| host.as_str().to_owned()),
        ends: ends(head.framing),
        keep_alive: head.keep_alive,
        expects_continue: head.expects_continue,
    }
}

/// As an exchange with a worker writes it: the body is wholly here, so that its length is known.
fn written(head: &RequestHead, length: Option<u64>) -> Vec<u8> {
    let own = |out: &mut Vec<u8>| {
        out.extend_from_slice(b"x-forwarded-for: 192.0.2.1\r\n");
    };
    let mut out = Vec::new();
    let RequestHead { method, target, headers, .. } = head;
    let host = head.host.is_none().then_some(&b"localhost"[..]);
    write_head(&mut out, &Request { method, target, headers, identity: &[], host, length }, own, |_| {});
    out
}

/// How many lines of these names there are, as httparse reads the head.
fn counted_by_httparse(bytes: &[u8], expected: &RequestHead) -> [usize; 3] {
    let mut lines = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut lines);
    assert_eq!(request.parse(bytes), Ok(httparse::Status::Complete(bytes.len())), "one head, and nothing after it");
    assert_eq!(request.method, Some(expected.method.as_str()));
    assert_eq!(request.path, Some(expected.target.as_str()));
    assert_eq!(request.version, Some(1));
    let count = |name: &str| request.headers.iter().filter(|line| line.name.eq_ignore_ascii_case(name)).count();
    ["host", "content-length", "transfer-encoding"].map(count)
}

fuzz_target!(|bytes: &[u8]| {
    let Some(end) = find_end(bytes, &mut 0) else { return };
    let head = Bytes::copy_from_slice(&bytes[..end]);
    let received = parse(&head, &LIMITS);
    let second = reference::request(&head, LIMITS.count);
    let second = second.map(|read| reference::Request { fields: sorted(read.fields), ..read });
    assert_eq!(received.as_ref().ok().map(in_the_words_of_the_second), second);
    let Ok(received) = received else { return };
    let length = match received.framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked => Some(7),
        Framing::None | Framing::Close => None,
    };
    let out = written(&received, length);
    assert_eq!(find_end(&out, &mut 0), Some(out.len()));
    assert_eq!(counted_by_httparse(&out, &received), [1, usize::from(length.is_some()), 0]);
    let read = parse(&Bytes::from(out), &WRITTEN).expect("what we write can be read");
    assert_eq!((&read.method, read.target.as_str()), (&received.method, received.target.as_str()));
    assert_eq!(read.framing, length.map_or(Framing::None, Framing::Length));
    let host = received.host.as_ref().map_or("localhost", |host| host.as_str());
    assert_eq!(read.host.as_ref().map(|host| host.as_str()), Some(host));
    assert!(read.headers.keys().all(|name| !name.as_str().contains('_')));
    assert_eq!(read.headers.get_all("x-forwarded-for").iter().count(), 1);
});
