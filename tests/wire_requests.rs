//! What clients may send over HTTP/1.1, beyond what one row of `hostile/requests.txt` can tell.

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
fn a_head_may_come_byte_by_byte() {
    let (_worker, gateway) = served();
    let mut client = gateway.client();
    for byte in get("/dribble").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response("GET").text(), "hello");
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
