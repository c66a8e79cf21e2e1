//! What clients may send over HTTP/2, and that nothing of it becomes another request on the way to a worker.

use crate::support::client::get;
use crate::support::frames::{self, END_HEADERS, END_STREAM, Frames, Outcome, block};
use crate::support::h2::request;
use crate::support::worker::Transport;
use crate::support::{Gateway, Latch, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn served() -> (Worker, Gateway) {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 4 }}\nsites:\n  - hosts: [shop.example]\n    routes:\n      \
         - {{ path: /small/, proxy: app, body_limit: 10 }}\n      - {{ path: /, proxy: app }}\n",
        worker.endpoint()
    ));
    (worker, gateway)
}

/// A good request, but for the fields that replace one of its own or come behind it.
fn with(changes: &[(&'static str, &'static [u8])]) -> Vec<(&'static str, &'static [u8])> {
    let mut fields: Vec<(&str, &[u8])> =
        vec![(":method", b"GET"), (":scheme", b"http"), (":authority", b"shop.example"), (":path", b"/")];
    for (name, value) in changes {
        match fields.iter_mut().find(|(own, _)| own == name && name.starts_with(':')) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

/// A header list: names and values as they are sent.
type Fields = Vec<(&'static str, &'static [u8])>;

/// Fields that HTTP/2 forbids, or that would be something else once they are written as HTTP/1.1.
fn hostile() -> Vec<(&'static str, Fields)> {
    let without = |name: &str| with(&[]).into_iter().filter(|(own, _)| *own != name).collect::<Vec<_>>();
    let mut late = with(&[("a", b"b")]);
    late.swap(3, 4);
    let mut twice = with(&[]);
    twice.insert(3, (":path", b"/other"));
    vec![
        ("CRLF in a value", with(&[("a", b"b\r\nx-forwarded-for: 6.6.6.6")])),
        ("LF in a value", with(&[("a", b"b\nc: d")])),
        ("CR in a value", with(&[("a", b"b\rc")])),
        ("NUL in a value", with(&[("a", b"b\0c")])),
        ("CRLF in a name", with(&[("a\r\nb", b"c")])),
        ("colon in a name", with(&[("a:b", b"c")])),
        ("space in a name", with(&[("a b", b"c")])),
        ("upper case in a name", with(&[("X-Custom", b"c")])),
        ("empty name", with(&[("", b"c")])),
        ("CRLF in the path", with(&[(":path", b"/ HTTP/1.1\r\nHost: other\r\n\r\nGET /")])),
        ("space in the path", with(&[(":path", b"/a HTTP/1.1")])),
        ("no slash", with(&[(":path", b"a")])),
        ("an empty path", with(&[(":path", b"")])),
        ("a star", with(&[(":path", b"*")])),
        ("dots in the path", with(&[(":path", b"/a/../b")])),
        ("a backslash", with(&[(":path", b"/a\\b")])),
        ("NUL in the path", with(&[(":path", b"/%00")])),
        ("CRLF in the method", with(&[(":method", b"GET / HTTP/1.1\r\n\r\nGET")])),
        ("space in the method", with(&[(":method", b"GET /admin")])),
        ("CRLF in the authority", with(&[(":authority", b"shop.example\r\na: b")])),
        ("user in the authority", with(&[(":authority", b"me@shop.example")])),
        ("path in the authority", with(&[(":authority", b"shop.example/x")])),
        ("transfer-encoding", with(&[("transfer-encoding", b"chunked")])),
        ("connection", with(&[("connection", b"keep-alive")])),
        ("upgrade", with(&[("upgrade", b"websocket")])),
        ("keep-alive", with(&[("keep-alive", b"1")])),
        ("proxy-connection", with(&[("proxy-connection", b"close")])),
        ("te", with(&[("te", b"gzip")])),
        ("another host", with(&[("host", b"other.example")])),
        ("two hosts", with(&[("host", b"shop.example"), ("host", b"shop.example")])),
        ("a length and no body", with(&[("content-length", b"5")])),
        ("a length that is none", with(&[("content-length", b"+0")])),
        ("two lengths", with(&[("content-length", b"0"), ("content-length", b"1")])),
        ("an unknown pseudo field", with(&[(":protocol", b"websocket")])),
        ("a pseudo field of responses", with(&[(":status", b"200")])),
        ("a pseudo field behind the others", late),
        ("two paths", twice),
        ("no method", without(":method")),
        ("no path", without(":path")),
        ("no authority", without(":authority")),
        ("CONNECT", with(&[(":method", b"CONNECT")])),
        ("TRACE", with(&[(":method", b"TRACE")])),
    ]
}

#[test]
fn nothing_hostile_in_http2_becomes_a_request_to_a_worker() {
    let (worker, gateway) = served();
    for (name, fields) in hostile() {
        let mut frames = Frames::connect(gateway.address());
        frames.request(1, &fields);
        match frames.outcome(1) {
            Outcome::Answered { status } => assert_ne!(status, 200, "{name}"),
            Outcome::Reset(_) | Outcome::GoAway(_) => {}
            Outcome::Closed => panic!("{name}: closed without a word"),
        }
        assert_eq!(worker.connections(), 0, "{name}: {}", String::from_utf8_lossy(&worker.bytes(0)));
    }
    let mut frames = Frames::connect(gateway.address());
    frames.request(1, &with(&[("te", b"trailers"), ("host", b"shop.example")]));
    assert_eq!(frames.outcome(1), Outcome::Answered { status: 200 });
    assert_eq!(worker.requests().len(), 1);
}

#[test]
fn a_fragment_is_gone_before_anything_is_routed() {
    let (worker, gateway) = served();
    let mut frames = Frames::connect(gateway.address());
    frames.request(1, &with(&[(":path", b"/a#/../b")]));
    assert_eq!(frames.outcome(1), Outcome::Answered { status: 200 });
    assert_eq!(worker.wait_requests(1).line(), "GET /a HTTP/1.1");
}

#[test]
fn trailers_never_become_fields() {
    let (worker, gateway) = served();
    let mut frames = Frames::connect(gateway.address());
    frames.send(frames::HEADERS, END_HEADERS, 1, &block(&with(&[(":method", b"POST")])));
    frames.send(frames::DATA, 0, 1, b"body");
    frames.send(
        frames::HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &block(&[("x-forwarded-for", b"6.6.6.6"), ("x-sum", b"1")]),
    );
    assert_eq!(frames.outcome(1), Outcome::Answered { status: 200 });
    let received = worker.wait_requests(1);
    assert_eq!((&received.body[..], received.header("x-sum")), (&b"body"[..], None));
    assert_eq!(received.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
}

#[test]
fn a_refusal_over_http2_has_its_reason_and_costs_only_its_stream() {
    let (worker, gateway) = served();
    let h2 = gateway.h2();
    let many: Vec<(String, &str)> = (0..101).map(|n| (format!("a{n}"), "b")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let to = |method: &str, uri: &str| http::Request::builder().method(method).uri(uri).body(()).unwrap();
    for (request, body, status, reason) in [
        (request("GET", "/a/../b", &[]), 0, 400, "bad_target"),
        (request("GET", "/%5c", &[]), 0, 400, "bad_target"),
        (request("TRACE", "/", &[]), 0, 501, "bad_method"),
        (request("GET", "/", &[("host", "other.example")]), 0, 400, "bad_host"),
        (request("GET", "/", &many), 0, 431, "too_many_headers"),
        (to("GET", "http://other.example/"), 0, 421, "unknown_host"),
        (request("POST", "/small/", &[]), 11, 413, "body_too_large"),
        (request("POST", "/small/", &[("content-length", "200000")]), 200_000, 413, "body_too_large"),
        (request("POST", "/small/", &[]), 2_000_000, 413, "body_too_large"),
    ] {
        let response = h2.send(request, &vec![b'x'; body]);
        assert_eq!(response.status, status, "{reason}: {response:?}");
        assert!(response.header("proxy-status").unwrap().contains(reason), "{response:?}");
        let line = gateway.access_of(&response);
        assert_eq!((line["reason"].as_str(), line["status"].as_u64()), (Some(reason), Some(status.into())), "{line}");
    }
    assert_eq!((h2.get("/next").text(), worker.requests().len()), ("ok", 1));
}

#[test]
fn a_head_larger_than_the_limit_is_refused_over_http2() {
    let (worker, gateway) = served();
    let h2 = gateway.h2();
    let large = "c".repeat(40_000);
    let response = h2.open(request("GET", "/", &[("cookie", &large)]), true).try_response();
    assert!(response.as_ref().map_or(true, |response| response.status == 431), "{response:?}");
    assert_eq!(worker.connections(), 0);
    assert_eq!(gateway.h2().get("/").text(), "ok");
}

#[test]
fn answers_reach_the_streams_that_asked() {
    let worker = Worker::unix(|visit| {
        while let Some(received) = visit.request() {
            let line = received.line().to_owned();
            visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len()));
        }
    });
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 3", worker.endpoint()));
    let h2 = gateway.h2();
    let streams: Vec<_> = (0..60).map(|n| h2.open(request("GET", &format!("/{n}"), &[]), true)).collect();
    for (n, stream) in streams.into_iter().enumerate() {
        assert_eq!(stream.response().text(), format!("GET /{n} HTTP/1.1"));
    }
    gateway.wait_idle();
    assert!(worker.connections() <= 3);
}

#[test]
fn a_stream_that_is_not_read_holds_up_neither_its_worker_nor_its_neighbours() {
    const LENGTH: usize = 3 << 20;
    let worker = Worker::unix(|visit| {
        while let Some(received) = visit.request() {
            if received.line().contains("/large") {
                visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
                visit.send(vec![b'l'; LENGTH]);
            } else {
                visit.send(OK);
            }
        }
    });
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let h2 = gateway.h2();
    let (status, unread) = h2.open(request("GET", "/large", &[]), true).head();
    assert_eq!(status, 200);
    gateway.wait_idle();
    assert_eq!(h2.get("/small").text(), "ok");
    drop(unread);
}

#[test]
fn a_flood_of_resets_ends_the_connection() {
    let done = Latch::default();
    let wait = done.clone();
    let worker = Worker::unix(move |visit| {
        while visit.request().is_some() {
            wait.wait();
            visit.send(OK);
        }
    });
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint()));
    let mut frames = Frames::connect(gateway.address());
    for n in 0..5_000u32 {
        let stream = 2 * n + 1;
        let request = frames.request(stream, &with(&[]));
        if !request || !frames.send(frames::RST_STREAM, 0, stream, &8u32.to_be_bytes()) {
            break;
        }
    }
    const ENHANCE_YOUR_CALM: u32 = 11;
    let outcome = frames.outcome(u32::MAX);
    assert!(matches!(outcome, Outcome::GoAway(ENHANCE_YOUR_CALM) | Outcome::Closed), "{outcome:?}");
    assert!(worker.requests().len() <= 2, "the flood stays outside");
    done.open();
    gateway.wait_idle();
    assert_eq!(gateway.client().get("/").text(), "ok");
}

#[test]
fn a_head_that_never_ends_ends_the_connection() {
    let (worker, gateway) = served();
    let mut frames = Frames::connect(gateway.address());
    frames.send(frames::HEADERS, END_STREAM, 1, &block(&with(&[])));
    let filler = block(&[("a", &[b'b'; 8000])]);
    let sent = (0..2_000).take_while(|_| frames.send(frames::CONTINUATION, 0, 1, &filler)).count();
    assert!(sent < 2_000, "16 MB of one head were taken");
    assert_eq!(worker.connections(), 0);
    assert_eq!(gateway.h2().get("/").text(), "ok");
}

#[test]
fn an_idle_http2_connection_is_told_to_go() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&format!(
        "limits: {{ idle_timeout: 500ms, header_timeout: 500ms }}\n{}",
        crate::support::gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()))
    ));
    let used = gateway.h2();
    assert_eq!(used.get("/").text(), "ok");
    let silent = gateway.h2();
    assert!(used.end().is_none(), "GOAWAY without an error");
    assert!(silent.end().is_none());
    gateway.wait_metric("hostler_connections{listener=\"127.0.0.1:0\",protocol=\"h2\"}", 0.0);
}

#[test]
fn both_protocols_share_a_listener_without_tls() {
    let (_worker, gateway) = served();
    let mut h1 = gateway.client();
    // The first bytes of the preface are those of a request as well.
    h1.send("P");
    let h2 = gateway.h2();
    assert_eq!(h2.get("/").text(), "ok");
    h1.send("ROPFIND / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(h1.response("PROPFIND").text(), "ok");
    h1.send(get("/"));
    assert_eq!(h1.response("GET").text(), "ok");
}
