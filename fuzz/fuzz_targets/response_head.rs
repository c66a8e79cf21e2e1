//! A worker's response head is taken exactly when a second reading from the grammar takes it, and read the same; httparse
//! takes it as well, and reads the same status and fields.

#![no_main]

use bytes::Bytes;
use hostler::http1::head::{Framing, find_end};
use hostler::http1::response::{ResponseHead, parse};
use http::Method;
use libfuzzer_sys::fuzz_target;
use reference::Ends;

#[allow(dead_code)]
#[path = "../../src/http1/tests/reference.rs"]
mod reference;

/// The most field lines a worker may send.
const MOST: usize = 256;

fn sorted(mut fields: reference::Fields) -> reference::Fields {
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

fn in_the_words_of_the_second(head: &ResponseHead) -> reference::Response {
    let fields = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let ends = match head.framing {
        Framing::None => Ends::Nowhere,
        Framing::Length(length) => Ends::After(length),
        Framing::Chunked => Ends::WithChunks,
        Framing::Close => Ends::WithConnection,
    };
    reference::Response {
        status: head.status.as_u16(),
        fields: sorted(fields.collect()),
        ends,
        keep_alive: head.keep_alive,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(end) = find_end(bytes, &mut 0) else { return };
    let head = Bytes::copy_from_slice(&bytes[..end]);
    for method in [Method::GET, Method::HEAD] {
        let read = parse(&head, &method).ok();
        let second = reference::response(&head, method == Method::HEAD, MOST);
        let second = second.map(|read| reference::Response { fields: sorted(read.fields), ..read });
        assert_eq!(read.as_ref().map(in_the_words_of_the_second), second);
        let Some(read) = read else { return };
        let mut lines = [httparse::EMPTY_HEADER; MOST];
        let mut response = httparse::Response::new(&mut lines);
        assert_eq!(response.parse(&head), Ok(httparse::Status::Complete(head.len())), "one head, and nothing after it");
        assert_eq!(response.code, Some(read.status.as_u16()));
        let fields = response.headers.iter().map(|line| (line.name.to_ascii_lowercase(), line.value.to_vec()));
        assert_eq!(sorted(fields.collect()), in_the_words_of_the_second(&read).fields);
    }
});
