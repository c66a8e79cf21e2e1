//! What clients may send over HTTP/1.1, and how what they may not is refused.

use std::collections::BTreeMap;

use crate::support::client::{End, get};
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Worker, gateway::Signal};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Two sites: everything of shop.example goes to the worker, bare.example has one path.
fn config(worker: &Worker, more: &str) -> String {
    format!(
        "upstreams:
  app: {{ endpoints: [\"{}\"], workers: 4 }}
sites:
  - hosts: [shop.example]
    routes:
      - {{ path: /small/, proxy: app, body_limit: 10 }}
      - {{ path: /, proxy: app }}
  - hosts: [bare.example]
    routes:
      - {{ path_exact: /only, respond: {{ status: 200, body: here }} }}
{more}",
        worker.endpoint()
    )
}

fn served() -> (Worker, Gateway) {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = Gateway::start(&config(&worker, ""));
    (worker, gateway)
}

/// A request that is to be refused: its bytes, the status, the reason.
type Row = (Vec<u8>, u16, &'static str);

fn rows(of: &[(&[u8], u16, &'static str)]) -> Vec<Row> {
    of.iter().map(|(bytes, status, reason)| (bytes.to_vec(), *status, *reason)).collect()
}

/// Request lines in place of a good one.
fn bad_request_lines() -> Vec<Row> {
    const ROWS: &[(&[u8], u16, &str)] = &[
        (b"GET", 400, "bad_request_line"),
        (b"GET /", 400, "bad_request_line"),
        (b"GET  / HTTP/1.1", 400, "bad_request_line"),
        (b"GET /  HTTP/1.1", 400, "bad_request_line"),
        (b"GET / HTTP/1.1 ", 400, "bad_request_line"),
        (b" GET / HTTP/1.1", 400, "bad_request_line"),
        (b"GET / a HTTP/1.1", 400, "bad_request_line"),
        (b"get / HTTP/1.1", 400, "bad_request_line"),
        (b"G@T / HTTP/1.1", 400, "bad_request_line"),
        (b"GET\t/\tHTTP/1.1", 400, "bad_request_line"),
        (b"GET / HTTP/1", 400, "bad_request_line"),
        (b"GET / HTTP/1.10", 400, "bad_request_line"),
        (b"GET / http/1.1", 400, "bad_request_line"),
        (b"GET / HTTPS/1.1", 400, "bad_request_line"),
        (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1", 400, "bad_request_line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request_line"),
        (b"GET / HTTP/1.2", 505, "unsupported_version"),
        (b"GET / HTTP/2.0", 505, "unsupported_version"),
        (b"GET / HTTP/0.9", 505, "unsupported_version"),
        (b"CONNECT shop.example:443 HTTP/1.1", 501, "bad_method"),
        (b"TRACE / HTTP/1.1", 501, "bad_method"),
        (b"GET shop.example/ HTTP/1.1", 400, "bad_target"),
        (b"GET * HTTP/1.1", 400, "bad_target"),
        (b"GET ftp://shop.example/ HTTP/1.1", 400, "bad_target"),
        (b"GET /a\\b HTTP/1.1", 400, "bad_target"),
        (b"GET /a%5cb HTTP/1.1", 400, "bad_target"),
        (b"GET /%00 HTTP/1.1", 400, "bad_target"),
        (b"GET /%zz HTTP/1.1", 400, "bad_target"),
        (b"GET /../etc/passwd HTTP/1.1", 400, "bad_target"),
        (b"GET /a/%2e%2E/b HTTP/1.1", 400, "bad_target"),
        (b"GET /a/. HTTP/1.1", 400, "bad_target"),
        (b"GET /#top HTTP/1.1", 400, "bad_target"),
        (b"GET /caf\xc3\xa9 HTTP/1.1", 400, "bad_target"),
        (b"GET /a\x7fb HTTP/1.1", 400, "bad_target"),
        (b"GET http://other.example/ HTTP/1.1", 400, "bad_host"),
        (b"GET http:///x HTTP/1.1", 400, "bad_host"),
    ];
    let whole = |(line, status, reason): Row| {
        let mut bytes = line;
        bytes.extend_from_slice(b"\r\nHost: shop.example\r\n\r\n");
        (bytes, status, reason)
    };
    rows(ROWS).into_iter().map(whole).collect()
}

/// What stands between a good request line and the empty line.
fn bad_fields() -> Vec<Row> {
    const ROWS: &[(&[u8], u16, &str)] = &[
        (b"", 400, "missing_host"),
        (b"Host: shop.example\r\nHost: other.example\r\n", 400, "bad_host"),
        (b"Host: shop.example\r\nHost: shop.example\r\n", 400, "bad_host"),
        (b"Host:\r\n", 400, "bad_host"),
        (b"Host: shop example\r\n", 400, "bad_host"),
        (b"Host: shop.example/x\r\n", 400, "bad_host"),
        (b"Host: me@shop.example\r\n", 400, "bad_host"),
        (b"Host: shop.example:99999\r\n", 400, "bad_host"),
        (b"Host: shop.example\r\nA b: c\r\n", 400, "bad_header_name"),
        (b"Host: shop.example\r\nA : b\r\n", 400, "bad_header_name"),
        (b"Host: shop.example\r\n: b\r\n", 400, "bad_header_name"),
        (b"Host: shop.example\r\nnothing\r\n", 400, "bad_header_name"),
        (b"Host: shop.example\r\nA\0: b\r\n", 400, "bad_header_name"),
        (b"Host: shop.example\r\n\xc3\x89: b\r\n", 400, "bad_header_name"),
        (b"Host: shop.example\r\nA: b\0c\r\n", 400, "bad_header_value"),
        (b"Host: shop.example\r\nA: b\rc\r\n", 400, "bad_header_value"),
        (b"Host: shop.example\r\nA: b\x7f\r\n", 400, "bad_header_value"),
        (b"Host: shop.example\r\nA: b\x1b[1m\r\n", 400, "bad_header_value"),
        (b"Host: shop.example\r\nA: b\n", 400, "bare_lf"),
        (b"Host: shop.example\nA: b\r\n", 400, "bare_lf"),
        (b"Host: shop.example\r\nA: b\r\n c\r\n", 400, "obs_fold"),
        (b"Host: shop.example\r\nA: b\r\n\tc\r\n", 400, "obs_fold"),
        (b" A: b\r\nHost: shop.example\r\n", 400, "obs_fold"),
        (b"Host: shop.example\r\nExpect: 200-ok\r\n", 417, "expectation_failed"),
    ];
    let whole = |(fields, status, reason): Row| {
        let mut bytes = b"GET / HTTP/1.1\r\n".to_vec();
        bytes.extend_from_slice(&fields);
        bytes.extend_from_slice(b"\r\n");
        (bytes, status, reason)
    };
    rows(ROWS).into_iter().map(whole).collect()
}

/// Fields that say where a body ends, and bodies.
fn bad_framing() -> Vec<Row> {
    const ROWS: &[(&[u8], u16, &str)] = &[
        (b"Content-Length: +1\r\n\r\na", 400, "bad_content_length"),
        (b"Content-Length: -1\r\n\r\na", 400, "bad_content_length"),
        (b"Content-Length: 1, 1\r\n\r\na", 400, "bad_content_length"),
        (b"Content-Length: 1 1\r\n\r\na", 400, "bad_content_length"),
        (b"Content-Length: 0x1\r\n\r\na", 400, "bad_content_length"),
        (b"Content-Length:\r\n\r\n", 400, "bad_content_length"),
        (b"Content-Length: 99999999999999999999\r\n\r\n", 400, "bad_content_length"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "bad_content_length"),
        (b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400, "bad_content_length"),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "length_conflict"),
        (b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "bad_transfer_encoding"),
        (b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, "bad_transfer_encoding"),
        (b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, "bad_transfer_encoding"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_transfer_encoding"),
        (b"Transfer-Encoding: identity\r\n\r\n", 400, "bad_transfer_encoding"),
        (b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, "bad_transfer_encoding"),
        (b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400, "bad_transfer_encoding"),
        (b"Transfer-Encoding: chunked\r\n\r\ng\r\n", 400, "bad_chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n\r\n", 400, "bad_chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400, "bad_chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n", 400, "bad_chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", 400, "bad_chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400, "bad_chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", 400, "bad_chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", 400, "bad_chunk"),
        (b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\nx", 400, "bad_chunk"),
    ];
    let whole = |(rest, status, reason): Row| {
        let mut bytes = b"POST / HTTP/1.1\r\nHost: shop.example\r\n".to_vec();
        bytes.extend_from_slice(&rest);
        (bytes, status, reason)
    };
    let mut all: Vec<Row> = rows(ROWS).into_iter().map(whole).collect();
    let old = b"POST / HTTP/1.0\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
    all.push((old, 400, "bad_transfer_encoding"));
    all
}

/// What is too large.
fn too_large() -> Vec<Row> {
    let head = |rest: String| format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{rest}\r\n").into_bytes();
    let chunked = |rest: String| {
        format!("POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n{rest}").into_bytes()
    };
    let small = |rest: &str| format!("POST /small/ HTTP/1.1\r\nHost: shop.example\r\n{rest}").into_bytes();
    let long = "a".repeat(40_000);
    let trailers: String = (0..600).map(|n| format!("T{n}: {}\r\n", "t".repeat(40))).collect();
    vec![
        (format!("GET /{long} HTTP/1.1\r\nHost: shop.example\r\n\r\n").into_bytes(), 414, "uri_too_long"),
        (head(format!("Cookie: {long}\r\n")), 431, "headers_too_large"),
        (head((0..101).map(|n| format!("A{n}: b\r\n")).collect()), 431, "too_many_headers"),
        (chunked(format!("5;{long}\r\nhello\r\n0\r\n\r\n")), 400, "bad_chunk"),
        (chunked(format!("0\r\n{trailers}\r\n")), 400, "bad_chunk"),
        (small("Content-Length: 11\r\n\r\nhello hello"), 413, "body_too_large"),
        (small("Transfer-Encoding: chunked\r\n\r\nb\r\nhello hello\r\n0\r\n\r\n"), 413, "body_too_large"),
    ]
}

#[test]
fn every_malformed_request_is_refused_with_its_reason_and_the_connection_closed() {
    let (worker, gateway) = served();
    let mut counted = BTreeMap::new();
    let mut answered = Vec::new();
    let all = [bad_request_lines(), bad_fields(), bad_framing(), too_large()].concat();
    for (bytes, status, reason) in &all {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let mut client = gateway.client();
        client.send(bytes);
        // Whoever is refused in the middle of sending goes on for a while, and gets to read the answer all the same.
        // An error says that the gateway has stopped listening, which it may.
        let _ = client.try_send(vec![b'x'; 200 << 10]);
        let response = client.try_response("GET").unwrap_or_else(|| panic!("no answer to {shown:?}"));
        assert_eq!((response.status, response.cut.as_deref()), (*status, None), "{shown:?}: {response:?}");
        assert!(response.text().contains(reason), "{shown:?}: {response:?}");
        assert_eq!(response.header("connection"), Some("close"), "{shown:?}");
        assert!(response.header("proxy-status").is_some_and(|value| value.contains(reason)), "{shown:?}: {response:?}");
        assert_eq!(client.end(), End::Closed, "{shown:?}");
        answered.push(response);
        *counted.entry(*reason).or_insert(0) += 1;
    }
    for (response, (_, status, reason)) in answered.iter().zip(&all) {
        let line = gateway.access_of(response);
        assert_eq!((line["reason"].as_str(), line["status"].as_u64()), (Some(*reason), Some((*status).into())));
    }
    for (reason, count) in counted {
        gateway.wait_metric(&format!("hostler_failures_total{{reason=\"{reason}\",upstream=\"\"}}"), f64::from(count));
    }
    assert_eq!(worker.connections(), 0, "a refused request reached the worker");
    assert!(all.len() >= 60, "{}", all.len());
}

#[test]
fn a_refusal_that_leaves_the_framing_clear_keeps_the_connection() {
    let (_worker, gateway) = served();
    let ask = |fields: &str| format!("GET /x HTTP/1.1\r\n{fields}\r\n");
    let upgrade = "Host: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    for (request, status, reason) in [
        (ask("Host: unknown.example\r\n"), 421, "unknown_host"),
        (ask("Host: bare.example\r\n"), 404, "no_route"),
        (ask(upgrade), 501, "upgrade_refused"),
    ] {
        let mut client = gateway.client();
        client.send(&request);
        let response = client.response("GET");
        assert_eq!((response.status, response.header("connection")), (status, None), "{response:?}");
        assert_eq!(gateway.access_of(&response)["reason"], reason);
        assert_eq!(client.get("/again").text(), "hello");
    }
}

#[test]
fn the_log_of_a_refused_request_names_the_method_and_the_client() {
    let (_worker, gateway) = served();
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: x\r\n\r\n");
    let line = gateway.access_of(&client.response("POST"));
    assert_eq!(
        (&line["method"], &line["client"], &line["protocol"]),
        (&"POST".into(), &"127.0.0.1".into(), &"HTTP/1.1".into())
    );
}

#[test]
fn half_a_head_is_answered_with_408_when_its_time_is_over() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = Gateway::start(&config(&worker, "limits: { header_timeout: 1s }\n"));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.exa");
    let response = client.response("GET");
    assert_eq!((response.status, response.header("connection")), (408, Some("close")));
    assert_eq!(client.end(), End::Closed);
    assert_eq!(gateway.access_of(&response)["reason"], "header_timeout");
}

#[test]
fn a_client_that_says_nothing_is_closed_without_a_word() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = Gateway::start(&config(&worker, "limits: { header_timeout: 1s, idle_timeout: 1s }\n"));
    let mut silent = gateway.client();
    let mut idle = gateway.client();
    assert_eq!(idle.get("/").status, 200);
    assert_eq!((silent.end(), idle.end()), (End::Closed, End::Closed));
    assert_eq!(gateway.stop().access.len(), 1, "silence is no request");
}

#[test]
fn empty_lines_before_a_request_are_stepped_over() {
    let (_worker, gateway) = served();
    let mut client = gateway.client();
    client.send(format!("\r\n{}", get("/")));
    assert_eq!(client.response("GET").text(), "hello");
    client.send(format!("\r\n\r\n{}", get("/")));
    assert_eq!(client.response("GET").text(), "hello");
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let (_worker, gateway) = served();
    let mut client = gateway.client();
    for byte in get("/dribble").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response("GET").text(), "hello");
}

#[test]
fn absolute_form_is_read_as_its_path_and_host() {
    let (worker, gateway) = served();
    for (target, path) in
        [("http://shop.example/a?b=c", "/a?b=c"), ("HTTP://SHOP.example", "/"), ("http://shop.example?x", "/?x")]
    {
        let mut client = gateway.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        assert_eq!(client.response("GET").text(), "hello", "{target}");
        assert_eq!(worker.requests().last().unwrap().line(), format!("GET {path} HTTP/1.1"));
    }
}

#[test]
fn http_1_0_closes_unless_it_asks_to_stay() {
    let (worker, gateway) = served();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\nHost: shop.example\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response("GET");
    assert_eq!((response.text(), response.header("connection")), ("hello", Some("keep-alive")));
    client.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    let response = client.response("GET");
    assert_eq!((response.text(), response.header("connection")), ("hello", Some("close")));
    assert_eq!(client.end(), End::Closed);
    assert_eq!(worker.requests()[0].line(), "GET / HTTP/1.1", "the worker is spoken to in our own version");
}

#[test]
fn http_1_0_gets_a_body_of_unknown_length_to_the_end_of_the_connection() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    let worker = Worker::answering(Transport::Unix, chunked);
    let gateway = Gateway::start(&config(&worker, ""));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\nHost: shop.example\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response("GET");
    assert_eq!((response.text(), response.header("transfer-encoding")), ("hello", None));
    assert_eq!(response.header("connection"), Some("close"));
}

#[test]
fn http_1_0_without_a_host_is_served_by_the_site_for_any_host() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response("GET").text(), "hello");
    assert_eq!(worker.requests()[0].all("host").len(), 1, "HTTP/1.1, which the worker is spoken to in, needs a Host");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let worker = Worker::unix(|visit| {
        while let Some(request) = visit.request() {
            let body = format!("{} {}", request.line(), String::from_utf8_lossy(&request.body));
            visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let gateway = Gateway::start(&config(&worker, ""));
    let mut client = gateway.client();
    let post = "POST /b HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    client.send(format!("{}{post}{}", get("/a"), get("/c")));
    for expected in ["GET /a HTTP/1.1 ", "POST /b HTTP/1.1 hi", "GET /c HTTP/1.1 "] {
        assert_eq!(client.response("GET").text(), expected);
    }
}

#[test]
fn what_is_pipelined_behind_a_close_is_not_served() {
    let (worker, gateway) = served();
    let mut client = gateway.client();
    client.send(format!("GET /a HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n{}", get("/b")));
    let response = client.response("GET");
    assert_eq!((response.text(), response.header("connection")), ("hello", Some("close")));
    assert_eq!(client.end(), End::Closed);
    assert_eq!(worker.requests().len(), 1);
}

#[test]
fn chunk_extensions_and_trailers_are_stepped_over() {
    let (worker, gateway) = served();
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n");
    client.send("00003;name=\"value\";x\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
    assert_eq!(client.response("POST").text(), "hello");
    let received = worker.wait_requests(1);
    assert_eq!((&received.body[..], received.header("x-sum")), (&b"abcde"[..], None));
    assert_eq!(received.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(client.get("/").text(), "hello", "the connection lives on behind the trailers");
}

#[test]
fn a_client_that_waits_for_100_gets_it_before_it_sends() {
    let (worker, gateway) = served();
    for framing in ["Content-Length: 4", "Transfer-Encoding: chunked"] {
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n"));
        assert_eq!(client.head().map(|(status, _)| status), Some(100));
        client.send(if framing.ends_with('4') { "body" } else { "4\r\nbody\r\n0\r\n\r\n" });
        assert_eq!(client.response("POST").text(), "hello");
        let received = worker.requests().pop().unwrap();
        assert_eq!((&received.body[..], received.header("expect")), (&b"body"[..], None));
    }
}

#[test]
fn a_client_that_waits_for_100_gets_the_refusal_instead() {
    let (_worker, gateway) = served();
    for (target, host, status) in
        [("/small/", "shop.example", 413), ("/", "unknown.example", 421), ("/none", "bare.example", 404)]
    {
        let mut client = gateway.client();
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n"
        ));
        let response = client.response("POST");
        assert_eq!((response.status, &response.interim[..]), (status, &[][..]), "{target}");
        assert_eq!(response.header("connection"), Some("close"), "whether the body comes now is not known");
    }
}

#[test]
fn http_1_0_is_never_sent_a_100() {
    let (_worker, gateway) = served();
    let mut client = gateway.client();
    client.send("POST / HTTP/1.0\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");
    let response = client.response("POST");
    assert_eq!((response.status, &response.interim[..]), (200, &[][..]));
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let gateway = Gateway::start(&config(&worker, ""));
    let mut client = gateway.client();
    for path in ["/a", "/b"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        let response = client.response("HEAD");
        assert_eq!((response.status, response.header("content-length")), (200, Some("5")));
    }
    client.send("HEAD /x HTTP/1.1\r\nHost: bare.example\r\n\r\n");
    assert_eq!(client.response("HEAD").status, 404);
    client.send("HEAD /only HTTP/1.1\r\nHost: bare.example\r\n\r\n");
    let response = client.response("HEAD");
    assert_eq!((response.status, response.header("content-length")), (200, Some("4")));
    client.send("GET /only HTTP/1.1\r\nHost: bare.example\r\n\r\n");
    assert_eq!(client.response("GET").text(), "here", "nothing of a body stands between two answers");
}

#[test]
fn options_of_the_whole_server_reaches_the_worker() {
    let (worker, gateway) = served();
    let mut client = gateway.client();
    client.send("OPTIONS * HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.response("OPTIONS").text(), "hello");
    assert_eq!(worker.requests()[0].line(), "OPTIONS * HTTP/1.1");
}

#[test]
fn methods_of_ones_own_are_passed_on() {
    let (worker, gateway) = served();
    for method in ["PURGE", "PROPFIND", "M-SEARCH", "PATCH"] {
        let mut client = gateway.client();
        client.send(format!("{method} / HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        assert_eq!(client.response(method).text(), "hello");
        assert_eq!(worker.requests().last().unwrap().line(), format!("{method} / HTTP/1.1"));
    }
}

#[test]
fn bytes_above_ascii_in_a_value_are_passed_on_as_they_are() {
    let (worker, gateway) = served();
    let mut client = gateway.client();
    client.send(b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Name: caf\xc3\xa9 \xff\r\n\r\n");
    assert_eq!(client.response("GET").text(), "hello");
    let bytes = worker.bytes(0);
    assert!(bytes.windows(9).any(|part| part == b"caf\xc3\xa9 \xff\r\n"), "{:?}", String::from_utf8_lossy(&bytes));
}

#[test]
fn a_unix_listener_serves_and_has_no_client_address() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let listeners = "listeners: [{ bind: \"unix:@folder@/edge.sock\" }]\n";
    let gateway = Gateway::start(&config(&worker, listeners));
    let mut client = Client::connect(gateway.address());
    let response = client.get("/");
    assert_eq!(response.text(), "hello");
    assert_eq!(gateway.access_of(&response)["client"], "unix");
    assert_eq!(worker.requests()[0].header("x-forwarded-for"), None);
    let socket = gateway.folder().join("edge.sock");
    gateway.signal(Signal::TERM);
    assert_eq!(client.end(), End::Closed);
    assert!(gateway.ended().status.success());
    assert!(!socket.exists());
}
