//! Against the second reading: the parsers take exactly what it takes, and read the same.

use bytes::Bytes;
use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::generate;
use super::reference::{self, Chunked, Ends, Fields};
use crate::http::Protocol;
use crate::http1::chunked::{Decoder, Malformed, Step};
use crate::http1::head::{Framing, HeadLimits, find_end};
use crate::http1::request;
use crate::http1::response::{self, MAX_FIELDS};

const LIMITS: HeadLimits = HeadLimits { size: 32 << 10, count: 12 };

fn ends(framing: Framing) -> Ends {
    match framing {
        Framing::None => Ends::Nowhere,
        Framing::Length(length) => Ends::After(length),
        Framing::Chunked => Ends::WithChunks,
        Framing::Close => Ends::WithConnection,
    }
}

/// Sorted by name; lines of one name stay in their order.
fn sorted(mut fields: Fields) -> Fields {
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

fn of_map(headers: &HeaderMap) -> Fields {
    sorted(headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect())
}

fn request_read(head: &Bytes) -> Option<reference::Request> {
    let read = request::parse(head, &LIMITS).ok()?;
    Some(reference::Request {
        method: read.method.as_str().to_owned(),
        target: read.target.as_str().to_owned(),
        path: read.target.path().to_vec(),
        is_1_1: read.protocol == Protocol::Http11,
        fields: of_map(&read.headers),
        host: read.host.as_ref().map(|host| host.as_str().to_owned()),
        ends: ends(read.framing),
        keep_alive: read.keep_alive,
        expects_continue: read.expects_continue,
    })
}

fn response_read(head: &Bytes, method: &Method) -> Option<reference::Response> {
    let read = response::parse(head, method).ok()?;
    Some(reference::Response {
        status: read.status.as_u16(),
        fields: of_map(&read.headers),
        ends: ends(read.framing),
        keep_alive: read.keep_alive,
    })
}

fn chunked_read(bytes: &[u8]) -> Chunked {
    let (mut decoder, mut body, mut at) = (Decoder::default(), Vec::new(), 0);
    loop {
        match decoder.step(&bytes[at..]) {
            Ok(Step::Data { skip, data }) => {
                body.extend_from_slice(&bytes[at + skip..at + skip + data]);
                at += skip + data;
            }
            Ok(Step::More { .. }) => return Chunked::Cut,
            Ok(Step::End { skip }) => return Chunked::Whole(body, at + skip),
            Err(Malformed) => return Chunked::Malformed,
        }
    }
}

fn is_read_alike(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Some(end) = find_end(bytes, &mut 0) else { return Ok(false) };
    let head = Bytes::copy_from_slice(&bytes[..end]);
    let expected =
        reference::request(&head, LIMITS.count).map(|read| reference::Request { fields: sorted(read.fields), ..read });
    let is_taken = expected.is_some();
    prop_assert_eq!(request_read(&head), expected);
    Ok(is_taken)
}

/// A chunked body, and one with a few bytes changed.
fn chunked_body() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![6 => Just(String::new()), 1 => "(;[a-z]{1,3}(=(\"[ -~]{0,6}\"|[a-z]{0,3}))?){1,2}"];
    let chunk = (prop::collection::vec(any::<u8>(), 1..20), extension.clone(), any::<bool>()).prop_map(
        |(data, extension, zero)| {
            let size = format!("{}{:X}{extension}\r\n", if zero { "00" } else { "" }, data.len());
            [size.as_bytes(), &data, b"\r\n"].concat()
        },
    );
    let trailers = prop_oneof![4 => Just(String::new()), 1 => "([A-Za-z-]{1,6}: ?[ -~]{0,9}\r\n){1,3}"];
    let next = prop_oneof![Just(&b""[..]), Just(&b"GET / HTTP/1.1\r\n"[..])];
    (prop::collection::vec(chunk, 0..4), extension, trailers, next).prop_map(|(chunks, extension, trailers, next)| {
        [&chunks.concat(), format!("0{extension}\r\n{trailers}\r\n").as_bytes(), next].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_is_taken_exactly_when_the_grammar_and_our_rules_allow_it_and_read_alike(
        bytes in prop_oneof![2 => generate::request(), 4 => generate::damaged(generate::request()), 1 => generate::noise()],
    ) {
        is_read_alike(&bytes)?;
    }

    #[test]
    fn a_response_is_taken_exactly_when_the_grammar_allows_it_and_read_alike(
        bytes in prop_oneof![2 => generate::response(), 4 => generate::damaged(generate::response()), 1 => generate::noise()],
        is_to_head: bool,
    ) {
        let Some(end) = find_end(&bytes, &mut 0) else { return Ok(()) };
        let head = Bytes::copy_from_slice(&bytes[..end]);
        let method = if is_to_head { Method::HEAD } else { Method::GET };
        let expected = reference::response(&head, is_to_head, MAX_FIELDS)
            .map(|read| reference::Response { fields: sorted(read.fields), ..read });
        prop_assert_eq!(response_read(&head, &method), expected);
    }

    #[test]
    fn a_chunked_body_is_read_alike_whole_cut_or_damaged(
        bytes in prop_oneof![1 => chunked_body(), 3 => generate::damaged(chunked_body()), 1 => generate::noise()],
        cut in any::<prop::sample::Index>(),
    ) {
        prop_assert_eq!(chunked_read(&bytes), reference::chunked(&bytes));
        let cut = cut.index(bytes.len() + 1);
        prop_assert_eq!(chunked_read(&bytes[..cut]), reference::chunked(&bytes[..cut]));
    }
}

#[test]
fn both_readings_have_the_same_limits() {
    for line in [4090, 4091, 4092, 4093, 4094, 4095] {
        let body = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(line));
        assert_eq!(chunked_read(body.as_bytes()), reference::chunked(body.as_bytes()), "{line}");
    }
    for trailers in (16 << 10) - 8..(16 << 10) + 2 {
        let body = format!("0\r\na:{}\r\n\r\n", "b".repeat(trailers - 1));
        for end in body.len() - 4..=body.len() {
            let body = &body.as_bytes()[..end];
            assert_eq!(chunked_read(body), reference::chunked(body), "{trailers} {end}");
        }
    }
    for extensions in [4094, 4095, 4096, 4097] {
        // 16 of them have as much as all may have.
        let body =
            format!("1;{}\r\nx\r\n", "e".repeat(4080)).repeat(16) + &format!("1;{}\r\n", "e".repeat(extensions - 3840));
        assert_eq!(chunked_read(body.as_bytes()), reference::chunked(body.as_bytes()), "{extensions}");
    }
    for count in [LIMITS.count, LIMITS.count + 1] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: 1\r\n".repeat(count - 1));
        assert_eq!(is_read_alike(head.as_bytes()).unwrap(), count == LIMITS.count);
    }
    for method in [31, 32, 33] {
        let head = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(method));
        assert_eq!(is_read_alike(head.as_bytes()).unwrap(), method < 33);
    }
    for digits in [18, 19, 20] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", "9".repeat(digits));
        assert_eq!(is_read_alike(head.as_bytes()).unwrap(), digits < 20);
    }
    for host in [261, 262, 263] {
        let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(host));
        assert_eq!(is_read_alike(head.as_bytes()).unwrap(), host < 263);
    }
}

/// Every single byte in every place of a head that decides something: 256 near misses of each.
#[test]
fn one_changed_byte_is_read_alike_wherever_it_is() {
    const HEADS: &[&[u8]] = &[
        b"POST /a%2e?b HTTP/1.1\r\nHost: a.b:80\r\nContent-Length: 10\r\nX: y\r\n\r\n",
        b"GET http://[::1]/ HTTP/1.0\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost:a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    ];
    for head in HEADS {
        for at in 0..head.len() {
            for byte in 0..=255 {
                let mut changed = head.to_vec();
                changed[at] = byte;
                is_read_alike(&changed).unwrap();
                changed.insert(at, head[at]);
                is_read_alike(&changed).unwrap();
            }
        }
    }
    let body = b"a;x=\"y\"\r\n0123456789\r\n00\r\nT: u\r\n\r\nGET";
    for at in 0..body.len() {
        for byte in 0..=255 {
            let mut changed = body.to_vec();
            changed[at] = byte;
            assert_eq!(chunked_read(&changed), reference::chunked(&changed), "{at} {byte}");
            changed.insert(at, body[at]);
            assert_eq!(chunked_read(&changed), reference::chunked(&changed), "{at} {byte}");
        }
    }
}

/// Found by the fuzz target `request_head`: the second reading did not know this rule.
#[test]
fn both_readings_take_32_names_in_connection_and_no_more() {
    for count in [1, 31, 32, 33, 100] {
        for (extra, names) in [("close", 0), ("Keep-Alive, ,", 0), ("x", 1)] {
            let more: Vec<String> = (0..count).map(|number| format!("x-{number}")).collect();
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {extra}, {}\r\n\r\n", more.join(", "));
            let head = Bytes::from(head);
            let expected = count + names <= 32;
            assert_eq!(request_read(&head).is_some(), expected, "{count} and {extra}");
            assert_eq!(reference::request(&head, LIMITS.count).is_some(), expected, "{count} and {extra}");
        }
    }
}
