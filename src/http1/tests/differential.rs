//! Against httparse, which most Rust programs read HTTP/1.1 with: whatever we take, it takes and reads the same.
//!
//! There is no other difference than that we are stricter, and no class of that which is not in the tables below: each class is a
//! reason, with examples that httparse takes, and why we do not. Generated heads are held to it.

use bytes::Bytes;
use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::generate;
use crate::error::Reason;
use crate::http::Protocol;
use crate::http1::head::{Framing, HeadLimits, find_end};
use crate::http1::request::{self, RequestHead};
use crate::http1::response::{self, ResponseHead};

const LIMITS: HeadLimits = HeadLimits { size: 32 << 10, count: 100 };

/// The bytes up to their first empty line: all that the parsers are ever given.
fn head_of(bytes: &[u8]) -> Option<Bytes> {
    find_end(bytes, &mut 0).map(|end| Bytes::copy_from_slice(&bytes[..end]))
}

fn ours(bytes: &[u8]) -> Result<RequestHead, Reason> {
    request::parse(&Bytes::copy_from_slice(bytes), &LIMITS).map_err(|refusal| refusal.reason)
}

fn worker(bytes: &[u8]) -> Result<ResponseHead, Reason> {
    response::parse(&Bytes::copy_from_slice(bytes), &Method::GET).map_err(|(_, rule)| rule)
}

type Fields = Vec<(String, Vec<u8>)>;

/// Sorted by name; lines of one name stay in their order.
fn sorted(fields: impl Iterator<Item = (String, Vec<u8>)>) -> Fields {
    let mut fields: Fields = fields.collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

fn of_map(headers: &HeaderMap) -> Fields {
    sorted(headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())))
}

fn of_httparse(headers: &[httparse::Header<'_>]) -> Fields {
    sorted(headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec())))
}

/// Method, target, minor version and fields as httparse reads a whole head.
fn reference(bytes: &[u8]) -> Option<(String, String, u8, Fields)> {
    let mut lines = [httparse::EMPTY_HEADER; 300];
    let mut request = httparse::Request::new(&mut lines);
    let httparse::Status::Complete(length) = request.parse(bytes).ok()? else { return None };
    assert_eq!(length, bytes.len(), "another end of the head");
    let fields = of_httparse(request.headers);
    Some((request.method?.to_owned(), request.path?.to_owned(), request.version?, fields))
}

fn worker_reference(bytes: &[u8]) -> Option<(u16, Fields)> {
    let mut lines = [httparse::EMPTY_HEADER; 300];
    let mut response = httparse::Response::new(&mut lines);
    let httparse::Status::Complete(length) = response.parse(bytes).ok()? else { return None };
    assert_eq!(length, bytes.len(), "another end of the head");
    Some((response.code?, of_httparse(response.headers)))
}

/// Authority and origin-form of a target as received.
fn origin_form(target: &str) -> (Option<String>, String) {
    let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return (None, target.to_owned());
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    (Some(authority.to_owned()), format!("{slash}{path}"))
}

/// The only framing that the fields allow, `None` where they contradict themselves or each other.
fn only_framing(fields: &Fields) -> Option<Framing> {
    let named = |wanted: &str| {
        let values = fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_slice());
        values.collect::<Vec<_>>()
    };
    match (&named("content-length")[..], &named("transfer-encoding")[..]) {
        ([], []) => Some(Framing::None),
        ([length], []) => std::str::from_utf8(length).ok()?.parse().ok().map(Framing::Length),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Some(Framing::Chunked),
        _ => None,
    }
}

fn agrees(bytes: &Bytes) -> Result<(), TestCaseError> {
    let reference = reference(bytes);
    let head = match request::parse(bytes, &LIMITS) {
        Ok(head) => head,
        Err(refusal) => {
            let is_known = stricter_with_clients().iter().any(|(_, reason, _)| *reason == refusal.reason);
            prop_assert!(reference.is_none() || is_known, "a difference of no known class: {}", refusal.reason);
            return Ok(());
        }
    };
    let Some((method, target, minor, mut fields)) = reference else {
        return Err(TestCaseError::fail("httparse does not take it"));
    };
    prop_assert_eq!(head.method.as_str(), method);
    let (authority, target) = origin_form(&target);
    prop_assert_eq!(head.target.as_str(), target);
    prop_assert_eq!(head.protocol, if minor == 1 { Protocol::Http11 } else { Protocol::Http10 });
    prop_assert_eq!(Some(head.framing), only_framing(&fields));
    if let (Some(authority), true) = (authority, fields.iter().all(|(name, _)| name != "host")) {
        // HTTP/1.0 in absolute-form: what stands for Host.
        fields = sorted(fields.into_iter().chain([("host".to_owned(), authority.into_bytes())]));
    }
    prop_assert_eq!(of_map(&head.headers), fields);
    Ok(())
}

fn worker_agrees(bytes: &Bytes) -> Result<(), TestCaseError> {
    let reference = worker_reference(bytes);
    let head = match worker(bytes) {
        Ok(head) => head,
        Err(rule) => {
            let is_known = stricter_with_workers().iter().any(|(_, reason, _)| *reason == rule);
            prop_assert!(reference.is_none() || is_known, "a difference of no known class: {}", rule);
            return Ok(());
        }
    };
    let Some((code, fields)) = reference else {
        return Err(TestCaseError::fail("httparse does not take it"));
    };
    prop_assert_eq!((head.status.as_u16(), of_map(&head.headers)), (code, fields.clone()));
    let framing = match only_framing(&fields) {
        _ if head.status.is_informational() || matches!(code, 204 | 304) => Some(Framing::None),
        Some(Framing::None) => Some(Framing::Close),
        framing => framing,
    };
    prop_assert_eq!(Some(head.framing), framing);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_we_take_is_read_as_httparse_reads_it(
        bytes in prop_oneof![2 => generate::request(), 3 => generate::damaged(generate::request()), 1 => generate::noise()],
    ) {
        if let Some(head) = head_of(&bytes) {
            agrees(&head)?;
        }
    }

    #[test]
    fn a_response_we_take_is_read_as_httparse_reads_it(
        bytes in prop_oneof![2 => generate::response(), 3 => generate::damaged(generate::response()), 1 => generate::noise()],
    ) {
        if let Some(head) = head_of(&bytes) {
            worker_agrees(&head)?;
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic_even_without_an_empty_line(
        bytes in prop_oneof![generate::noise(), generate::damaged(generate::request()), generate::damaged(generate::response())],
    ) {
        let _ = (ours(&bytes), worker(&bytes));
    }
}

#[test]
fn enough_generated_requests_are_taken_to_claim_anything() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut taken = |heads: proptest::strategy::BoxedStrategy<Vec<u8>>| {
        (0..500).filter(|_| ours(&heads.new_tree(&mut runner).unwrap().current()).is_ok()).count()
    };
    let (whole, damaged) = (taken(generate::request().boxed()), taken(generate::damaged(generate::request()).boxed()));
    assert!(whole > 200 && damaged > 30, "{whole} and {damaged} of 500");
}

/// A head that httparse takes, the reason for which we do not, and why.
type Difference = (String, Reason, &'static str);

fn stricter_with_clients() -> Vec<Difference> {
    let long_method = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(33));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: 1\r\n".repeat(100));
    let differences: &[(&str, Reason, &'static str)] = &[
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Reason::BareLf, "others take a bare LF for data"),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Reason::BareLf, "the same within the fields"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Reason::BareLf, "the same for the end of the head"),
        (
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::BadRequestLine,
            "the connection steps over empty lines, counted",
        ),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadRequestLine, "methods have case; gunicorn refuses it too"),
        (&long_method, Reason::BadRequestLine, "no method is that long"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Reason::BadMethod, "not a forward proxy"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadMethod, "shows the fields that the edge adds"),
        ("GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Reason::BadTarget, "authority-form is for CONNECT"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "asterisk-form is for OPTIONS"),
        (
            "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::BadTarget,
            "would be routed by one path and served by another",
        ),
        ("GET /%2E%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "the same, encoded"),
        ("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "a separator to some"),
        ("GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "decoded in more than one way"),
        ("GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "ends a name for the system"),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "fragments are not sent"),
        ("GET /<a HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "no client of HTTP/2 can say it"),
        ("GET /a?\"b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "the same"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "not ours to serve"),
        ("GET /é HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget, "not ASCII: has no one encoding"),
        ("GET / HTTP/1.1\r\n\r\n", Reason::MissingHost, "RFC 9112, 3.2"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Reason::BadHost, "RFC 9112, 3.2"),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Reason::BadHost, "names two sites to two readers"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadHost, "the same"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", Reason::BadContentLength, "not a number"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", Reason::BadContentLength, "a list"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            Reason::BadContentLength,
            "the RFC lets equal ones pass; nobody honest sends them",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Reason::LengthConflict,
            "request smuggling",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            Reason::BadTransferEncoding,
            "no app server decodes it",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n",
            Reason::BadTransferEncoding,
            "the body has no end",
        ),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::BadTransferEncoding, "RFC 9112, 6.1"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", Reason::ExpectationFailed, "cannot be met"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Type: b/c\r\nContent-Type: d/e\r\n\r\n",
            Reason::BadHeaderValue,
            "some take the first, some the last, some join them",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For\r\n\r\n",
            Reason::ConnectionConflict,
            "who obeys it removes what the edge has said",
        ),
        (&many, Reason::TooManyHeaders, "limits.header_count"),
    ];
    differences.iter().map(|(text, reason, why)| ((*text).to_owned(), *reason, *why)).collect()
}

fn stricter_with_workers() -> Vec<Difference> {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: 1\r\n".repeat(257));
    let differences: &[(&str, Reason, &'static str)] = &[
        ("HTTP/1.1 200 OK\nA: b\r\n\r\n", Reason::BareLf, "others take a bare LF for data"),
        ("HTTP/1.1 099 OK\r\n\r\n", Reason::BadRequestLine, "no such status"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            Reason::BadContentLength,
            "two ends of one body",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Reason::LengthConflict,
            "two ends of one body",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Reason::BadTransferEncoding, "not ours to undo"),
        (&many, Reason::TooManyHeaders, "bounded like everything else"),
    ];
    differences.iter().map(|(text, reason, why)| ((*text).to_owned(), *reason, *why)).collect()
}

#[test]
fn every_example_of_a_difference_is_one() {
    for (text, reason, why) in stricter_with_clients() {
        assert!(reference(text.as_bytes()).is_some(), "httparse does not take it either: {text:?}");
        assert_eq!(ours(text.as_bytes()).err(), Some(reason), "{text:?}: {why}");
    }
    for (text, reason, why) in stricter_with_workers() {
        assert!(worker_reference(text.as_bytes()).is_some(), "httparse does not take it either: {text:?}");
        assert_eq!(worker(text.as_bytes()).err(), Some(reason), "{text:?}: {why}");
    }
}
