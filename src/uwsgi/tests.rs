//! The packet against a reader of packets, and claims about whatever heads may come.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method};
use proptest::prelude::*;

use super::vars::{self, MAX_VARS, Request};
use crate::config;
use crate::error::{Error, Reason};
use crate::http::{ConnectionInfo, Exchange, Host, Protocol, Target, fields};
use crate::http1::head::{Framing, HeadLimits, find_end};
use crate::http1::request::{self, RequestHead};
use crate::http1::tests::generate;

/// Vars in their order, as a server reads them.
type Read = Vec<(String, Vec<u8>)>;

/// Reads one packet, which is all there is; `None` when its lengths do not fit.
fn read(packet: &[u8]) -> Option<Read> {
    let (header, mut block) = packet.split_at_checked(4)?;
    if usize::from(u16::from_le_bytes([header[1], header[2]])) != block.len() || (header[0], header[3]) != (0, 0) {
        return None;
    }
    let mut vars = Vec::new();
    while !block.is_empty() {
        let name = take(&mut block)?;
        let value = take(&mut block)?;
        vars.push((String::from_utf8(name.to_vec()).ok()?, value.to_vec()));
    }
    Some(vars)
}

fn take<'a>(block: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = block.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    *block = rest;
    Some(part)
}

struct Sent {
    method: Method,
    target: Target,
    script: usize,
    headers: HeaderMap,
    host: Option<&'static [u8]>,
    length: Option<u64>,
    exchange: Exchange,
}

const CLIENT: &str = "192.0.2.7:50123";

fn exchange(peer: Option<&str>, tls: bool, protocol: Protocol, host: Option<&str>) -> Exchange {
    let local = peer.map(|_| "127.0.0.1:8443".parse().unwrap());
    let peer = peer.map(|peer| peer.parse::<SocketAddr>().unwrap());
    let connection = ConnectionInfo::new("443").between(peer, local).over_tls(tls);
    let host = host.map(|host| Host::parse(Bytes::copy_from_slice(host.as_bytes())).unwrap());
    Exchange::new(Rc::new(connection), protocol, Method::GET, Bytes::new(), host, None)
}

fn sent(method: Method, target: &str, fields: &[(&'static str, &str)]) -> Sent {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let target = Target::parse(Bytes::copy_from_slice(target.as_bytes())).unwrap();
    let exchange = exchange(Some(CLIENT), false, Protocol::Http11, Some("shop.example:8443"));
    Sent { method, target, script: 0, headers, host: None, length: None, exchange }
}

fn encoded(sent: &Sent, buffer_size: u16) -> Result<Vec<u8>, Error> {
    let Sent { method, target, script, headers, host, length, exchange } = sent;
    let request =
        Request { method, target, script: *script, headers, identity: &[], host: *host, length: *length, exchange };
    let settings = config::Uwsgi { buffer_size, modifier1: 0 };
    let mut out = b"before".to_vec();
    let own = |vars: &mut vars::Vars<'_>| vars.field("x-forwarded-proto", |out| out.extend_from_slice(b"https"));
    let written = vars::write(&mut out, &settings, &request, own, |_| {});
    assert_eq!(&out[..6], b"before");
    written.map(|()| out.split_off(6)).inspect_err(|_| assert_eq!(out, b"before", "what is refused leaves nothing"))
}

fn environ(sent: &Sent) -> HashMap<String, String> {
    let vars = read(&encoded(sent, u16::MAX).unwrap()).expect("a packet");
    let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
    let count = vars.len();
    let environ: HashMap<_, _> = vars.into_iter().map(|(name, value)| (name, text(value))).collect();
    assert_eq!(environ.len(), count, "no name twice");
    environ
}

#[test]
fn the_packet_is_the_one_that_servers_have_been_seen_to_take() {
    // Written out by hand, and taken by uWSGI and gunicorn.
    let known: &[&[u8]] = &[
        b"\0\x48\0\0",
        b"\x0e\0REQUEST_METHOD\x04\0POST",
        b"\x09\0PATH_INFO\x04\0/a b",
        b"\x0e\0CONTENT_LENGTH\x01\x002",
        b"\x09\0HTTP_HOST\x01\0h",
    ];
    let packet = known.concat();
    assert_eq!(read(&packet).map(|vars| vars.len()), Some(4), "the reader of these tests reads it");
    let mut post = sent(Method::POST, "/a%20b", &[("host", "h")]);
    post.length = Some(2);
    let ours = encoded(&post, u16::MAX).unwrap();
    for var in &known[1..] {
        assert!(ours.windows(var.len()).any(|part| part == *var), "{}", String::from_utf8_lossy(var));
    }
}

#[test]
fn the_app_is_told_what_cgi_tells() {
    let fields = [
        ("host", "shop.example:8443"),
        ("content-type", "text/plain"),
        ("accept", "a"),
        ("accept", "b"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-csrftoken", "t"),
    ];
    let mut post = sent(Method::POST, "/api/caf%C3%A9%2Fx?q=%20&r", &fields);
    (post.script, post.length) = (4, Some(12));
    let environ = environ(&post);
    let mut expected = HashMap::from([
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/api/caf%C3%A9%2Fx?q=%20&r"),
        ("SCRIPT_NAME", "/api"),
        ("PATH_INFO", "/café/x"),
        ("QUERY_STRING", "q=%20&r"),
        ("CONTENT_TYPE", "text/plain"),
        ("CONTENT_LENGTH", "12"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "50123"),
        ("SERVER_NAME", "shop.example"),
        ("SERVER_PORT", "8443"),
        ("HTTP_HOST", "shop.example:8443"),
        ("HTTP_ACCEPT", "a, b"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("HTTP_X_CSRFTOKEN", "t"),
        ("HTTP_X_FORWARDED_PROTO", "https"),
        ("HTTP_CONNECTION", "close"),
    ]);
    for (name, value) in &environ {
        assert_eq!(expected.remove(name.as_str()), Some(value.as_str()), "{name}");
    }
    assert!(expected.is_empty(), "{expected:?}");
}

#[test]
fn what_is_not_known_is_empty_or_absent() {
    let mut get = sent(Method::GET, "/", &[]);
    get.exchange = exchange(None, false, Protocol::Http10, None);
    get.host = Some(b"localhost");
    let environ = environ(&get);
    for name in ["SCRIPT_NAME", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH", "REMOTE_ADDR"] {
        assert_eq!(environ[name], "", "{name}");
    }
    assert!(!environ.contains_key("HTTPS") && !environ.contains_key("REMOTE_PORT"), "{environ:?}");
    for (name, value) in [
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("HTTP_HOST", "localhost"),
        ("SERVER_PROTOCOL", "HTTP/1.0"),
    ] {
        assert_eq!(environ[name], value, "{name}");
    }
}

#[test]
fn https_is_on_only_over_tls() {
    let mut get = sent(Method::GET, "/", &[]);
    get.exchange = exchange(Some(CLIENT), true, Protocol::Http2, Some("shop.example"));
    let environ = environ(&get);
    let told = ["HTTPS", "REQUEST_SCHEME", "SERVER_PROTOCOL"].map(|name| environ[name].as_str());
    assert_eq!(told, ["on", "https", "HTTP/2.0"]);
}

#[test]
fn a_client_behind_somebody_has_no_port() {
    let get = sent(Method::GET, "/", &[]);
    get.exchange.client.set(Some([203, 0, 113, 9].into()));
    let environ = environ(&get);
    assert_eq!((environ["REMOTE_ADDR"].as_str(), environ.get("REMOTE_PORT")), ("203.0.113.9", None));
}

#[test]
fn the_hosts_own_name_is_replaced_where_the_upstream_has_another() {
    let mut get = sent(Method::GET, "/", &[("host", "shop.example")]);
    get.host = Some(b"api.internal");
    let environ = environ(&get);
    assert_eq!((environ["HTTP_HOST"].as_str(), environ["SERVER_NAME"].as_str()), ("api.internal", "shop.example"));
}

#[test]
fn a_packet_just_as_large_as_the_buffer_is_sent_and_one_byte_more_is_refused() {
    for limit in [4096, u16::MAX] {
        let with_cookie = |length: usize| sent(Method::GET, "/", &[("cookie", &"c".repeat(length))]);
        let rest = encoded(&with_cookie(0), limit).unwrap().len() - 4;
        let fits = encoded(&with_cookie(usize::from(limit) - rest), limit).unwrap();
        assert_eq!(
            read(&fits).expect("a packet").len(),
            read(&encoded(&with_cookie(0), limit).unwrap()).unwrap().len()
        );
        let error = encoded(&with_cookie(usize::from(limit) - rest + 1), limit).unwrap_err();
        assert_eq!(error.reason, Reason::VarsTooLarge);
        let name = format!("the header `cookie` with {} bytes", usize::from(limit) - rest + 1);
        assert!(error.detail.contains(&name), "{}", error.detail);
        assert_eq!(error.detail.contains("`buffer-size`"), limit == 4096, "{}", error.detail);
    }
}

#[test]
fn the_largest_is_named_as_the_client_has_written_it() {
    for (name, fields, largest) in [
        ("x-long", vec![("cookie", "a=1"), ("x-long", "v")], "the header `x-long`"),
        // Two lines that only together are the largest.
        ("cookie", vec![("x-long", "v"), ("cookie", "a=1"), ("cookie", "b=1")], "the header `cookie`"),
    ] {
        let mut long = sent(Method::GET, "/", &fields);
        long.headers.append(name, HeaderValue::from_bytes(&[b'v'; 70_000]).unwrap());
        let error = encoded(&long, u16::MAX).unwrap_err();
        assert!(error.detail.contains(largest), "{}", error.detail);
    }
    let error = encoded(&sent(Method::GET, &format!("/?{}", "q".repeat(3_000)), &[]), 4096).unwrap_err();
    assert!(error.detail.contains("`REQUEST_URI` with 3002 bytes"), "{}", error.detail);
}

#[test]
fn a_path_that_can_be_decoded_once_more_is_refused() {
    for (path, is_taken) in [
        ("/%2561dmin/", false),
        ("/a%25%36%31", false),
        ("/%25%C3%A9%2541", false),
        ("/api/%2561", false),
        ("/%25", true),
        ("/%25a", true),
        ("/%25g1/%25%25", true),
        ("/?%2561", true),
    ] {
        let written = encoded(&sent(Method::GET, path, &[]), u16::MAX).map_err(|error| error.reason);
        assert_eq!(written.err(), (!is_taken).then_some(Reason::BadTarget), "{path}");
    }
}

#[test]
fn more_vars_than_uwsgi_takes_are_refused() {
    let with_fields = |count: u32| {
        let mut many = sent(Method::GET, "/", &[]);
        for index in 0..count {
            many.headers.append(HeaderName::try_from(format!("x-{index}")).unwrap(), HeaderValue::from_static("v"));
        }
        many
    };
    let rest = read(&encoded(&with_fields(0), u16::MAX).unwrap()).unwrap().len();
    let room = MAX_VARS - u32::try_from(rest).unwrap();
    assert_eq!(read(&encoded(&with_fields(room), u16::MAX).unwrap()).unwrap().len(), 128);
    let error = encoded(&with_fields(room + 1), u16::MAX).unwrap_err();
    assert!(error.reason == Reason::VarsTooLarge && error.detail.contains("129 vars"), "{error}");
}

/// The plain names, which no client may choose.
const PLAIN: &[&str] = &[
    "REQUEST_METHOD",
    "REQUEST_URI",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "SERVER_PROTOCOL",
    "REQUEST_SCHEME",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SERVER_NAME",
    "SERVER_PORT",
];

/// What the app is to get of the client's fields.
fn expected_fields(head: &RequestHead) -> HashMap<String, Vec<u8>> {
    let named = fields::named_by_connection(&head.headers);
    let passes = |name: &&HeaderName| fields::request_field(name).is_none() && !named.contains(name);
    let names = head.headers.keys().filter(passes).filter(|name| **name != "content-type");
    let of_name = |name: &HeaderName| {
        let lines: Vec<&[u8]> = head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
        // Whether a separator stands beside an empty line tells the app nothing.
        let mut joined = Vec::new();
        for line in lines {
            if !joined.is_empty() {
                joined.extend_from_slice(separator);
            }
            joined.extend_from_slice(line);
        }
        (format!("HTTP_{}", name.as_str().to_ascii_uppercase().replace('-', "_")), joined)
    };
    names.map(of_name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_packet_says_what_was_received_and_nothing_that_a_client_may_not_say(
        bytes in prop_oneof![generate::request(), generate::damaged(generate::request())],
    ) {
        let limits = HeadLimits { size: 1 << 20, count: 1_000 };
        let Some(end) = find_end(&bytes, &mut 0) else { return Ok(()) };
        let Ok(head) = request::parse(&Bytes::copy_from_slice(&bytes[..end]), &limits) else { return Ok(()) };
        let length = match head.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let mut expected = expected_fields(&head);
        expected.insert("HTTP_CONNECTION".into(), b"close".to_vec());
        expected.insert("HTTP_X_FORWARDED_PROTO".into(), b"https".to_vec());
        let RequestHead { method, target, headers, .. } = head;
        let exchange = exchange(Some(CLIENT), false, Protocol::Http11, None);
        let sent = Sent { method, target, script: 0, headers, host: None, length, exchange };
        let vars = read(&encoded(&sent, u16::MAX).unwrap());
        let Some(vars) = vars else { return Err(TestCaseError::fail("no packet")) };
        let count = vars.len();
        let mut environ: HashMap<String, Vec<u8>> = vars.into_iter().collect();
        prop_assert_eq!(environ.len(), count, "no name twice");
        prop_assert_eq!(&environ["PATH_INFO"], sent.target.path());
        prop_assert_eq!(&environ["REQUEST_URI"], sent.target.as_str().as_bytes());
        prop_assert_eq!(&environ["REQUEST_METHOD"], sent.method.as_str().as_bytes());
        let length = length.map_or(String::new(), |length| length.to_string());
        prop_assert_eq!(&environ["CONTENT_LENGTH"], length.as_bytes());
        for name in PLAIN {
            prop_assert!(environ.remove(*name).is_some(), "{}", name);
        }
        prop_assert_eq!(environ, expected);
    }

    #[test]
    fn a_response_head_is_read_in_one_way_or_not_at_all(
        bytes in prop_oneof![
            generate::response(),
            generate::cgi_response(),
            generate::damaged(generate::response()),
            generate::damaged(generate::cgi_response()),
            generate::noise(),
        ],
    ) {
        let Some(end) = find_end(&bytes, &mut 0) else { return Ok(()) };
        let bytes = Bytes::copy_from_slice(&bytes[..end]);
        let read = super::response::parse(&bytes, &Method::GET);
        // A head that HTTP/1.x takes is taken here, with the same status and fields but those of this form.
        if let Ok(http) = crate::http1::response::parse(&bytes, &Method::GET) {
            let Ok(ours) = &read else { return Err(TestCaseError::fail(format!("{read:?}"))) };
            let mut fields = http.headers.clone();
            fields.remove("status");
            fields.remove("transfer-encoding");
            prop_assert_eq!((ours.status, &ours.headers), (http.status, &fields));
        }
        let Ok(head) = read else { return Ok(()) };
        prop_assert!(!head.keep_alive && head.framing != Framing::Chunked);
        prop_assert!(!head.headers.contains_key("transfer-encoding") && !head.headers.contains_key("status"));
        prop_assert!(head.headers.get_all("content-length").iter().count() <= 1);
        let to_head = super::response::parse(&bytes, &Method::HEAD);
        prop_assert_eq!(to_head.map(|head| head.framing).ok(), Some(Framing::None));
    }
}
