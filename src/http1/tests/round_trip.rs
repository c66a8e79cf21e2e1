//! What goes to the worker has one reading: the request that was received, without what the client may not say.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use proptest::prelude::*;

use super::{generate, reference};
use crate::http::fields::{self, Dropped};
use crate::http1::client::{Request, write_head};
use crate::http1::head::{Framing, HeadLimits, find_end};
use crate::http1::request::{self, RequestHead};

const LIMITS: HeadLimits = HeadLimits { size: 1 << 20, count: 1_000 };
/// What the edge itself says.
const OWN: &[(&str, &str)] =
    &[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https"), ("x-request-id", "0123456789abcdef")];
const NEVER_SENT: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
];

/// As the exchange with a worker writes it: the body is wholly here, so that its length is known.
fn sent(head: &RequestHead) -> Vec<u8> {
    let mut out = Vec::new();
    let length = match head.framing {
        Framing::None | Framing::Close => None,
        Framing::Length(length) => Some(length),
        Framing::Chunked => Some(7),
    };
    let own = |out: &mut Vec<u8>| {
        for (name, value) in OWN {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    };
    let RequestHead { method, target, headers, .. } = head;
    let host = head.host.is_none().then_some(&b"localhost"[..]);
    write_head(&mut out, &Request { method, target, headers, identity: &[], host, length }, own, |_| {});
    out
}

/// Other readers see one request, which ends where we have ended it, with one framing and one host.
fn is_one_to_others(out: &[u8], expected: &RequestHead) -> Result<(), TestCaseError> {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut read = httparse::Request::new(&mut lines);
    prop_assert_eq!(read.parse(out), Ok(httparse::Status::Complete(out.len())));
    prop_assert_eq!((read.method, read.version), (Some(expected.method.as_str()), Some(1)));
    prop_assert_eq!(read.path, Some(expected.target.as_str()));
    let second =
        reference::request(out, LIMITS.count).ok_or_else(|| TestCaseError::fail("the second reading refuses"))?;
    prop_assert_eq!(
        (second.method.as_str(), second.target.as_str()),
        (expected.method.as_str(), expected.target.as_str())
    );
    for (name, most) in [("host", 1), ("content-length", 1), ("transfer-encoding", 0)] {
        let of_httparse = read.headers.iter().filter(|line| line.name.eq_ignore_ascii_case(name)).count();
        let of_second = second.fields.iter().filter(|(field, _)| field == name).count();
        prop_assert!(of_httparse == of_second && of_second <= most, "{} {} {}", name, of_httparse, of_second);
    }
    Ok(())
}

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect()
}

fn has_one_framing(received: &RequestHead, read: &RequestHead) -> Result<(), TestCaseError> {
    let expected = if received.framing == Framing::Chunked { Framing::Length(7) } else { received.framing };
    prop_assert_eq!(read.framing, expected);
    prop_assert_eq!(lines(&read.headers, "host").len(), 1);
    prop_assert!(lines(&read.headers, "content-length").len() <= 1);
    for name in NEVER_SENT {
        prop_assert!(!read.headers.contains_key(*name), "{}", name);
    }
    Ok(())
}

/// The variables of a WSGI environ that come of the field names: no two names may make the same one.
fn has_one_environ(read: &RequestHead) -> Result<(), TestCaseError> {
    let names: HashSet<&HeaderName> = read.headers.keys().collect();
    let variable = |name: &&HeaderName| name.as_str().to_ascii_uppercase().replace('-', "_");
    let variables: HashSet<String> = names.iter().map(variable).collect();
    prop_assert_eq!(variables.len(), names.len());
    let own: HashMap<&str, &str> = OWN.iter().copied().collect();
    for name in names {
        match own.get(name.as_str()) {
            Some(value) => prop_assert_eq!(lines(&read.headers, name.as_str()), [value.as_bytes()]),
            None => prop_assert!(
                matches!(fields::request_field(name), None | Some(Dropped::Hop)),
                "only the edge may say {}",
                name
            ),
        }
    }
    Ok(())
}

/// Nothing is lost but what must be.
fn keeps_the_rest(received: &RequestHead, read: &RequestHead) -> Result<(), TestCaseError> {
    let named = fields::named_by_connection(&received.headers);
    for name in received.headers.keys() {
        if fields::request_field(name).is_some() || named.contains(name) {
            continue;
        }
        let lines_received = lines(&received.headers, name.as_str());
        if name == "cookie" {
            let joined = lines_received.join(&b"; "[..]);
            prop_assert_eq!(lines(&read.headers, "cookie"), [joined.trim_ascii()]);
        } else {
            prop_assert_eq!(lines(&read.headers, name.as_str()), lines_received);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_on_is_the_request_that_was_received(
        bytes in prop_oneof![generate::request(), generate::damaged(generate::request())],
    ) {
        let Some(end) = find_end(&bytes, &mut 0) else { return Ok(()) };
        let Ok(received) = request::parse(&Bytes::copy_from_slice(&bytes[..end]), &LIMITS) else { return Ok(()) };
        let out = sent(&received);
        prop_assert_eq!(find_end(&out, &mut 0), Some(out.len()), "the head ends where it was ended");
        is_one_to_others(&out, &received)?;
        let read = request::parse(&Bytes::from(out), &LIMITS);
        let Ok(read) = read else { return Err(TestCaseError::fail(format!("{read:?}"))) };
        prop_assert_eq!(&read.method, &received.method);
        prop_assert_eq!(read.target.as_str(), received.target.as_str());
        prop_assert_eq!(read.target.path(), received.target.path());
        let host = received.host.as_ref().map_or("localhost", |host| host.as_str());
        prop_assert_eq!(read.host.as_ref().map(|host| host.as_str()), Some(host));
        has_one_framing(&received, &read)?;
        has_one_environ(&read)?;
        keeps_the_rest(&received, &read)?;
    }
}
