//! Whatever a worker answers, in HTTP or uwsgi, over either transport, to clients of either protocol: the true answer or
//! a named failure, the slot free again, and nothing left over for the next exchange.

use crate::support::client::get;
use crate::support::h2::request;
use crate::support::worker::{LINKS, Protocol, Transport};
use crate::support::{Client, Gateway, H2, Response, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

type Link = (Protocol, Transport);

fn before(link: Link, worker: &Worker) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint_in(link.0)))
}

/// Whether this answer means the same in either protocol, or this is HTTP: `Transfer-Encoding` is no framing in uwsgi.
fn makes_sense(protocol: Protocol, answer: impl AsRef<[u8]>) -> bool {
    const FRAMING: &[u8] = b"Transfer-Encoding";
    protocol == Protocol::Http1 || !answer.as_ref().windows(FRAMING.len()).any(|part| part == FRAMING)
}

/// A client of one protocol, for as many requests as the gateway allows on its connection.
enum Wire<'a> {
    H1(&'a Gateway, Option<Client>),
    H2(H2),
}

impl<'a> Wire<'a> {
    fn both(gateway: &'a Gateway) -> [Self; 2] {
        [Self::H1(gateway, None), Self::H2(gateway.h2())]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::H1(..) => "HTTP/1.1",
            Self::H2(_) => "HTTP/2",
        }
    }

    fn ask(&mut self, method: &str, path: &str) -> Response {
        match self {
            Self::H1(gateway, kept) => {
                let mut client = kept.take().unwrap_or_else(|| gateway.client());
                client.send(get(path).replacen("GET", method, 1));
                let response = client.response(method);
                let lives = response.cut.is_none() && response.header("connection") != Some("close");
                *kept = lives.then_some(client);
                response
            }
            Self::H2(h2) => h2.send(request(method, path, &[]), b""),
        }
    }

    /// The next exchange is not touched by the one before.
    fn check_next(&mut self, after: &str) {
        let next = self.ask("GET", "/next");
        assert_eq!((next.status, next.text()), (200, "ok"), "after {after} over {}", self.name());
    }
}

/// What the worker does once it has read the request.
#[derive(Clone, Copy)]
enum Then {
    /// Waits for more requests.
    Stay,
    Close,
    Reset,
}

impl Then {
    /// After a good answer. In uwsgi there is one request a connection, and who stays is busy.
    fn after_good(self, protocol: Protocol) -> Self {
        if protocol == Protocol::Uwsgi { Self::Close } else { self }
    }
}

/// A worker that answers by the path: each row has a path, what is sent, and what then. Any other path gets `ok`.
fn worker((protocol, transport): Link, rows: Vec<(&'static str, Vec<u8>, Then)>) -> Worker {
    Worker::start(transport, move |visit| {
        while let Some(opening) = visit.whole(protocol) {
            let row = rows.iter().find(|(name, ..)| *name == opening.target);
            let Some((_, bytes, then)) = row else {
                visit.send(OK);
                if protocol == Protocol::Uwsgi {
                    return;
                }
                continue;
            };
            visit.send(bytes);
            match then {
                Then::Stay => {}
                Then::Close => return,
                Then::Reset => return visit.reset(),
            }
        }
    })
}

/// A good answer: path, method, what the worker sends, what then, and status and body at the client.
type Good = (&'static str, &'static str, &'static str, Then, u16, &'static str);

const GOOD: &[Good] = &[
    ("/length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Then::Stay, 200, "hello"),
    ("/empty", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Stay, 200, ""),
    (
        "/closes",
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        Then::Close,
        200,
        "hello",
    ),
    (
        "/chunked",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n",
        Then::Stay,
        200,
        "hello",
    ),
    ("/until-close", "GET", "HTTP/1.1 200 OK\r\n\r\nhello", Then::Close, 200, "hello"),
    ("/old", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", Then::Close, 200, "hello"),
    ("/no-phrase", "GET", "HTTP/1.1 299\r\nContent-Length: 5\r\n\r\nhello", Then::Stay, 299, "hello"),
    ("/head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Then::Stay, 200, ""),
    ("/head-chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Then::Stay, 200, ""),
    ("/no-content", "GET", "HTTP/1.1 204 No Content\r\n\r\n", Then::Stay, 204, ""),
    (
        "/not-modified",
        "GET",
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n",
        Then::Stay,
        304,
        "",
    ),
    (
        "/hints",
        "GET",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Then::Stay,
        200,
        "hello",
    ),
    ("/error", "GET", "HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhello", Then::Stay, 500, "hello"),
];

#[test]
fn every_good_answer_reaches_clients_of_both_protocols() {
    for link in LINKS {
        let good: Vec<_> = GOOD.iter().filter(|row| makes_sense(link.0, row.2)).collect();
        let rows =
            good.iter().map(|(path, _, bytes, then, ..)| (*path, bytes.as_bytes().to_vec(), then.after_good(link.0)));
        let worker = worker(link, rows.collect());
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            for (path, method, _, _, status, body) in &good {
                let response = wire.ask(method, path);
                let got = (response.status, response.text(), response.cut.as_deref());
                assert_eq!(got, (*status, *body, None), "{path} over {} and {link:?}", wire.name());
                assert!(response.interim.is_empty(), "interim answers are for the edge");
                let line = gateway.access_of(&response);
                assert_eq!((&line["reason"], &line["status"]), (&serde_json::Value::Null, &(*status).into()), "{path}");
                wire.check_next(path);
            }
        }
        gateway.wait_idle();
        gateway.wait_metric("hostler_informational_total{upstream=\"app\"}", 4.0);
        let failures = gateway.admin_get("/metrics").text().matches("hostler_failures_total{").count();
        assert_eq!(failures, 0);
    }
}

#[test]
fn a_head_answer_tells_the_length_that_there_would_be() {
    for link in LINKS {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n";
        let worker = worker(link, vec![("/", answer.into(), Then::Stay.after_good(link.0))]);
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            assert_eq!(wire.ask("HEAD", "/").header("content-length"), Some("12345"), "{}", wire.name());
        }
    }
}

/// A failure: path, what the worker sends, what then, and the reason. POST, so that nothing is sent twice.
type Bad = (&'static str, Vec<u8>, Then, &'static str);

fn without_a_usable_head(protocol: Protocol) -> Vec<Bad> {
    let text = |path, text: &str, then, reason| (path, text.as_bytes().to_vec(), then, reason);
    let huge = format!("HTTP/1.1 200 OK\r\nX-Huge: {}\r\nContent-Length: 2\r\n\r\nok", "a".repeat(1 << 20));
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000) + OK;
    let mut all = vec![
        text(
            "/two-lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
            Then::Stay,
            "bad_head",
        ),
        text(
            "/length-and-chunked",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Then::Stay,
            "bad_head",
        ),
        text("/gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", Then::Close, "bad_head"),
        text("/status", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", Then::Stay, "bad_head"),
        text("/version", "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Stay, "bad_head"),
        text("/fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok", Then::Stay, "bad_head"),
        text("/bare-lf", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Then::Stay, "bad_head"),
        text("/space", "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok", Then::Stay, "bad_head"),
        text("/nul", "HTTP/1.1 200 OK\r\nA: b\0\r\nContent-Length: 2\r\n\r\nok", Then::Stay, "bad_head"),
        text("/garbage", "what is this?\r\n\r\n", Then::Stay, "bad_head"),
        text("/switch", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Then::Stay, "bad_head"),
        ("/huge", huge.into_bytes(), Then::Close, "bad_head"),
        ("/flood", flood.into_bytes(), Then::Close, "bad_head"),
        text("/half", "HTTP/1.1 200 OK\r\nContent-Le", Then::Close, "eof_in_head"),
        text("/half-reset", "HTTP/1.1 200 OK\r\nContent-Le", Then::Reset, "eof_in_head"),
        text("/only-interim", "HTTP/1.1 103 Early Hints\r\n\r\n", Then::Close, "eof_in_head"),
        text("/nothing", "", Then::Close, "eof_before_head"),
    ];
    all.retain(|row| makes_sense(protocol, &row.1));
    all
}

#[test]
fn an_answer_without_a_usable_head_is_a_502_with_its_reason() {
    for link in LINKS {
        let all = without_a_usable_head(link.0);
        let rows = all.iter().map(|(path, bytes, then, _)| (*path, bytes.clone(), *then));
        let worker = worker(link, rows.collect());
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            for (path, _, _, reason) in &all {
                let what = format!("{path} over {} and {link:?}", wire.name());
                let response = wire.ask("POST", path);
                assert_eq!((response.status, response.cut.as_deref()), (502, None), "{what}: {response:?}");
                assert!(response.header("proxy-status").is_some_and(|value| value.contains(reason)), "{what}");
                let line = gateway.access_of(&response);
                assert_eq!((&line["reason"], &line["status"]), (&(*reason).into(), &502.into()), "{what}");
                wire.check_next(path);
            }
        }
        gateway.wait_idle();
        for reason in ["bad_head", "eof_in_head", "eof_before_head"] {
            let count = 2 * all.iter().filter(|row| row.3 == reason).count();
            assert_eq!(gateway.failures("app", reason), count as f64, "{reason}");
        }
    }
}

#[test]
fn a_reset_before_the_head_has_its_own_reason() {
    for link in LINKS {
        let worker = Worker::start(link.1, |visit| {
            visit.touch();
            visit.reset();
        });
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            let response = wire.ask("POST", "/");
            assert_eq!(response.status, 502, "{} {link:?}", wire.name());
            assert_eq!(gateway.access_of(&response)["reason"], "reset_before_head");
        }
        gateway.wait_idle();
        // On a unix socket it proves that the head was not read, so each is tried three times.
        let tries = if link.1 == Transport::Unix { 3.0 } else { 1.0 };
        assert_eq!(gateway.failures("app", "reset_before_head"), 2.0 * tries, "{link:?}");
    }
}

fn with_a_cut_body(protocol: Protocol) -> Vec<Bad> {
    let text = |path, text: &str, then, reason| (path, text.as_bytes().to_vec(), then, reason);
    let mut all = vec![
        text("/short", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", Then::Close, "eof_in_body"),
        text("/short-reset", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", Then::Reset, "eof_in_body"),
        text("/head-only", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", Then::Close, "eof_in_body"),
        text(
            "/no-last-chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            Then::Close,
            "eof_in_body",
        ),
        text(
            "/in-chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
            Then::Reset,
            "eof_in_body",
        ),
        text(
            "/in-trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-",
            Then::Close,
            "eof_in_body",
        ),
        text(
            "/bad-size",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            Then::Stay,
            "bad_body",
        ),
        text(
            "/bad-end",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
            Then::Stay,
            "bad_body",
        ),
        text(
            "/events",
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata",
            Then::Close,
            "eof_in_body",
        ),
    ];
    all.retain(|row| makes_sense(protocol, &row.1));
    all
}

#[test]
fn a_cut_body_is_never_made_to_look_whole() {
    for link in LINKS {
        let all = with_a_cut_body(link.0);
        let rows = all.iter().map(|(path, bytes, then, _)| (*path, bytes.clone(), *then));
        let worker = worker(link, rows.collect());
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            for (path, _, _, reason) in &all {
                let what = format!("{path} over {} and {link:?}", wire.name());
                let response = wire.ask("POST", path);
                assert!(response.status == 200 && response.cut.is_some(), "{what}: {response:?}");
                assert!("hello".starts_with(response.text()) || response.text() == "data", "{what}: {response:?}");
                let line = gateway.access_of(&response);
                assert_eq!((&line["reason"], &line["status"]), (&(*reason).into(), &200.into()), "{what}");
                assert_eq!(line["phase"], "responding", "{what}");
                wire.check_next(path);
            }
        }
        gateway.wait_idle();
        for reason in ["eof_in_body", "bad_body"] {
            let count = 2 * all.iter().filter(|row| row.3 == reason).count();
            assert_eq!(gateway.failures("app", reason), count as f64, "{reason}");
        }
    }
}

#[test]
fn an_http_1_0_client_sees_a_cut_body_as_a_reset() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let link = (Protocol::Http1, Transport::Unix);
    let worker = worker(link, vec![("/", answer.into(), Then::Close)]);
    let gateway = before(link, &worker);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    let response = client.response("GET");
    assert!(response.cut.is_some(), "the end of the connection would be the end of the body: {response:?}");
}

#[test]
fn whatever_follows_an_answer_is_for_nobody() {
    const FALSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse";
    for link in LINKS {
        let mut rows = vec![
            ("/longer", format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello{FALSE}"), "GET", "hello"),
            (
                "/chunked",
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{FALSE}"),
                "GET",
                "hello",
            ),
            ("/head", format!("HTTP/1.1 200 OK\r\nContent-Length: 63\r\n\r\n{FALSE}"), "HEAD", ""),
            ("/no-content", format!("HTTP/1.1 204 No Content\r\n\r\n{FALSE}"), "GET", ""),
            ("/not-modified", format!("HTTP/1.1 304 Not Modified\r\n\r\n{FALSE}"), "GET", ""),
        ];
        rows.retain(|row| makes_sense(link.0, &row.1));
        let script =
            rows.iter().map(|(path, bytes, ..)| (*path, bytes.clone().into_bytes(), Then::Stay.after_good(link.0)));
        let worker = worker(link, script.collect());
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            for (path, _, method, body) in &rows {
                let response = wire.ask(method, path);
                assert_eq!((response.text(), response.cut.as_deref()), (*body, None), "{path}");
                wire.check_next(path);
            }
        }
        gateway.wait_idle();
    }
}

#[test]
fn a_connection_is_used_again_after_each_answer_that_leaves_it_open() {
    for transport in [Transport::Tcp, Transport::Unix] {
        // After HEAD there may come a body yet.
        let stay: Vec<_> = GOOD.iter().filter(|row| matches!(row.3, Then::Stay) && row.1 != "HEAD").collect();
        let worker = worker(
            (Protocol::Http1, transport),
            stay.iter().map(|row| (row.0, row.2.as_bytes().to_vec(), row.3)).collect(),
        );
        let gateway =
            Gateway::before(&format!("endpoints: [\"{}\"], workers: 1, keepalive: {{ idle: 30s }}", worker.endpoint()));
        for mut wire in Wire::both(&gateway) {
            for (path, method, ..) in &stay {
                wire.ask(method, path);
                gateway.wait_idle();
                assert_eq!(worker.connections(), 1, "after {path} over {}", wire.name());
            }
        }
    }
}

#[test]
fn a_large_answer_arrives_whole_over_both_protocols() {
    for link in LINKS {
        let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 253) as u8).collect();
        let mut sized = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        sized.extend_from_slice(&body);
        let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(99_991) {
            chunked.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let mut until_close = b"HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\n\r\n".to_vec();
        until_close.extend_from_slice(&body);
        let mut rows = vec![
            ("/sized", sized, Then::Stay.after_good(link.0)),
            ("/chunked", chunked, Then::Stay),
            ("/until-close", until_close, Then::Close),
        ];
        rows.retain(|row| makes_sense(link.0, &row.1));
        let paths: Vec<_> = rows.iter().map(|row| row.0).collect();
        let worker = worker(link, rows);
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            for path in &paths {
                let response = wire.ask("GET", path);
                assert!(response.body == body && response.cut.is_none(), "{path} over {}", wire.name());
                assert_eq!(gateway.access_of(&response)["bytes_out"], 3_000_000);
                wire.check_next(path);
            }
        }
        gateway.wait_idle();
        gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
        gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
    }
}
