//! What a client is told when the site cannot answer, and how soon.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::client::{End, get};
use crate::support::gunicorn::{Kind, Plan};
use crate::support::h2::request;
use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Address, Client, Gateway, Latch, Response, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What "at once" may take on a busy machine.
const SOON: Duration = Duration::from_secs(2);

/// Asks over both protocols; each answer has to come soon, with this status and reason.
fn check_both(gateway: &Gateway, status: u16, reason: &str) -> Vec<Response> {
    let begun = Instant::now();
    let responses = vec![gateway.client().get("/h1"), gateway.h2().get("/h2")];
    assert!(begun.elapsed() < SOON, "{reason} took {:?}", begun.elapsed());
    for response in &responses {
        assert_eq!(response.status, status, "{response:?}");
        assert!(response.header("proxy-status").unwrap().contains(reason), "{response:?}");
        let line = gateway.access_of(response);
        assert_eq!((&line["reason"], &line["status"]), (&reason.into(), &status.into()));
    }
    gateway.wait_idle();
    responses
}

#[test]
fn a_missing_socket_is_told_at_once_without_a_hold() {
    let gateway = Gateway::before("endpoints: [\"unix:./nobody.sock\"], workers: 1, hold: 0s");
    check_both(&gateway, 502, "socket_missing");
    gateway.wait_failures("app", "socket_missing", 2.0);
    let event = gateway.log_event("socket_missing", |event| event["reason"] == "socket_missing");
    assert!(event["endpoint"].as_str().unwrap().ends_with("nobody.sock"), "{event}");
}

#[test]
fn a_socket_that_nobody_listens_on_is_told_at_once_without_a_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let gateway = Gateway::before(&format!("endpoints: [\"unix:{}\"], workers: 1, hold: 0s", path.display()));
    check_both(&gateway, 502, "connect_refused");
}

#[test]
fn a_closed_port_is_told_at_once_without_a_hold() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let gateway = Gateway::before(&format!("endpoints: [\"http://{address}\"], workers: 1, hold: 0s"));
    check_both(&gateway, 502, "connect_refused");
    gateway.wait_failures("app", "connect_refused", 2.0);
}

#[test]
fn a_name_that_does_not_resolve_is_told() {
    let gateway = Gateway::before("endpoints: [\"http://nobody.invalid:8000\"], workers: 1");
    let response = gateway.client().get("/");
    assert_eq!((response.status, &gateway.access_of(&response)["reason"]), (502, &"name_not_resolved".into()));
}

#[test]
fn a_full_backlog_of_a_unix_socket_is_load_and_no_outage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    socket2::SockRef::from(&listener).listen(0).unwrap();
    // A backlog of 0 has room for one connection.
    let _taken = Address::Unix(path.clone()).connect().unwrap();
    let gateway = Gateway::before(&format!(
        "endpoints: [\"unix:{}\"], workers: 2, waiting_room: {{ timeout: 300ms }}, hold: 0s",
        path.display()
    ));
    let responses = check_both(&gateway, 503, "backlog_full");
    assert!(responses.iter().all(|response| response.header("retry-after").is_some()));
}

#[test]
fn another_endpoint_is_tried_when_one_cannot_be_reached() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway =
        Gateway::before(&format!("endpoints: [\"unix:./nobody.sock\", \"{}\"], workers: 2", worker.endpoint()));
    for _ in 0..4 {
        let mut client = gateway.client();
        client.send(crate::support::client::post("/", "order"));
        let response = client.response("POST");
        assert_eq!(response.text(), "ok", "nothing of it had reached a worker");
        assert_eq!(gateway.access_of(&response)["endpoint"], worker.endpoint());
    }
    assert_eq!(worker.requests().len(), 4);
    assert!(gateway.metric("hostler_retries_total{reason=\"socket_missing\",upstream=\"app\"}") >= 1.0);
}

#[test]
fn a_worker_that_says_nothing_ends_as_504() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let worker = Worker::start(transport, |visit| {
            visit.request();
            visit.wait_closed();
        });
        let gateway = Gateway::before(&format!(
            "endpoints: [\"{}\"], workers: 2, timeouts: {{ head: 500ms }}, abandon: 500ms",
            worker.endpoint()
        ));
        // A worker that may still be at it keeps its slot, until `abandon` has passed.
        check_both(&gateway, 504, "head_timeout");
        assert_eq!(worker.requests().len(), 2, "what a worker may be at is not sent to another");
    }
}

#[test]
fn a_worker_that_does_not_accept_ends_as_504_after_the_connect_timeout() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // The kernel takes a few connections for a listener that accepts none, then lets connects wait.
    let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let taken: Vec<_> = (0..10).map_while(connect).collect();
    assert!(taken.len() < 10);
    let gateway =
        Gateway::before(&format!("endpoints: [\"http://{address}\"], workers: 2, timeouts: {{ connect: 500ms }}"));
    check_both(&gateway, 504, "connect_timeout");
}

#[test]
fn a_worker_that_does_not_read_the_request_is_given_up() {
    let given_up = Latch::default();
    let wait = given_up.clone();
    let worker = Worker::unix(move |visit| {
        visit.head();
        wait.wait();
    });
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\"], workers: 2, timeouts: {{ idle: 500ms }}, abandon: 500ms",
        worker.endpoint()
    ));
    let mut client = gateway.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n", 8 << 20));
    client.send(vec![b'b'; 8 << 20]);
    let response = client.response("POST");
    assert_eq!((response.status, &gateway.access_of(&response)["reason"]), (504, &"idle_timeout".into()));
    gateway.wait_idle();
    given_up.open();
}

#[test]
fn a_worker_that_stops_within_the_body_is_cut_off() {
    let worker = Worker::unix(|visit| {
        visit.request();
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
        visit.wait_closed();
    });
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\"], workers: 2, timeouts: {{ idle: 500ms }}, abandon: 500ms",
        worker.endpoint()
    ));
    for response in [gateway.client().get("/"), gateway.h2().get("/")] {
        assert!(response.status == 200 && response.cut.is_some(), "{response:?}");
        assert_eq!(gateway.access_of(&response)["reason"], "idle_timeout");
    }
    gateway.wait_idle();
}

/// All counters of failures, whatever their labels.
fn all_failures(gateway: &Gateway) -> f64 {
    let metrics = gateway.admin_get("/metrics");
    let lines = metrics.text().lines().filter(|line| line.starts_with("hostler_failures_total{"));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[test]
fn a_full_waiting_room_answers_503_at_once() {
    let (worker, done) = Worker::held(OK);
    let gateway =
        Gateway::before(&format!("endpoints: [\"{}\"], workers: 1, waiting_room: {{ limit: 1 }}", worker.endpoint()));
    let (mut working, mut waiting) = (gateway.client(), gateway.client());
    working.send(get("/working"));
    worker.wait_requests(1);
    waiting.send(get("/waiting"));
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 1.0);
    let begun = Instant::now();
    for response in [gateway.client().get("/full"), gateway.h2().get("/full")] {
        assert_eq!((response.status, response.header("retry-after")), (503, Some("5")), "{response:?}");
        assert_eq!(gateway.access_of(&response)["reason"], "queue_full");
    }
    assert!(begun.elapsed() < SOON);
    done.open();
    assert_eq!((working.response("GET").text(), waiting.response("GET").text()), ("ok", "ok"));
    gateway.wait_idle();
    assert_eq!(worker.requests().len(), 2);
    gateway.wait_failures("app", "queue_full", 2.0);
    assert_eq!(all_failures(&gateway), 2.0, "each failure is counted once");
}

#[test]
fn a_request_that_waits_too_long_gets_503() {
    let (worker, done) = Worker::held(OK);
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\"], workers: 1, waiting_room: {{ timeout: 500ms }}",
        worker.endpoint()
    ));
    let mut working = gateway.client();
    working.send(get("/working"));
    worker.wait_requests(1);
    let response = gateway.client().get("/waits");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("5")));
    let line = gateway.access_of(&response);
    assert_eq!(line["reason"], "queue_timeout");
    assert!(line["wait"].as_f64().unwrap() >= 500.0, "{line}");
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 0.0);
    done.open();
    assert_eq!(working.response("GET").text(), "ok");
    gateway.wait_idle();
    assert_eq!(all_failures(&gateway), 1.0, "each failure is counted once");
}

#[test]
fn waiting_requests_are_served_in_their_order() {
    let (worker, done) = Worker::held(OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let mut clients = Vec::new();
    for place in 0..5 {
        let mut client = gateway.client();
        client.send(get(&format!("/{place}")));
        clients.push(client);
        gateway.wait_metric("hostler_waiting{upstream=\"app\"}", f64::from(place));
        gateway.wait_metric("hostler_in_flight{upstream=\"app\"}", 1.0);
    }
    done.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").text(), "ok");
    }
    let lines: Vec<String> = worker.requests().iter().map(|received| received.line().to_owned()).collect();
    assert_eq!(lines, (0..5).map(|place| format!("GET /{place} HTTP/1.1")).collect::<Vec<_>>());
}

#[test]
fn no_more_requests_reach_the_workers_than_there_are() {
    let (worker, done) = Worker::held(OK);
    let gateway = Gateway::start(&format!(
        "runtime: {{ threads: 2 }}\n{}",
        crate::support::gateway::before(&format!("endpoints: [\"{}\"], workers: 3", worker.endpoint()))
    ));
    let mut clients: Vec<Client> = (0..10).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 7.0);
    worker.wait_requests(3);
    assert_eq!((worker.requests().len(), gateway.metric("hostler_in_flight{upstream=\"app\"}")), (3, 3.0));
    done.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").text(), "ok");
    }
    gateway.wait_idle();
}

#[test]
fn browsers_get_a_page_and_programs_plain_text() {
    let gateway = Gateway::before("endpoints: [\"unix:./nobody.sock\"], workers: 1, hold: 0s");
    let browser = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";
    for (accept, html) in
        [(browser, true), ("Text/HTML", true), ("*/*", false), ("application/json", false), ("", false)]
    {
        let mut client = gateway.client();
        let field = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
        client.send(format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{field}\r\n"));
        let fields = if accept.is_empty() { vec![] } else { vec![("accept", accept)] };
        for response in [client.response("GET"), gateway.h2().send(request("GET", "/", &fields), b"")] {
            let kind = if html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
            assert_eq!((response.status, response.header("content-type")), (502, Some(kind)), "{accept:?}");
            assert_eq!(response.text().starts_with("<!doctype html>"), html, "{accept:?}");
            assert!(response.text().contains("socket_missing") && response.text().contains(response.id()));
            assert!(!response.text().contains("nobody.sock"), "a page tells nothing of the inside");
            assert_eq!(response.header("cache-control"), Some("no-store"));
        }
    }
}

#[test]
fn an_unknown_host_is_misdirected_and_a_known_one_without_route_not_found() {
    let gateway = Gateway::start(
        "sites:\n  - hosts: [shop.example, \"*.shop.example\"]\n    routes:\n      - { path: /docs/, respond: { status: 200, body: docs } }\n",
    );
    for (host, path, status, reason) in [
        ("other.example", "/docs/", 421, Some("unknown_host")),
        ("xshop.example", "/docs/", 421, Some("unknown_host")),
        ("shop.example", "/", 404, Some("no_route")),
        ("shop.example", "/docsx", 404, Some("no_route")),
        ("SHOP.example.:80", "/docs/", 200, None),
        ("a.b.shop.example", "/docs/a", 200, None),
        ("shop.example", "/docs", 308, None),
    ] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let over_h2 = http::Request::get(format!("http://{host}{path}")).body(()).unwrap();
        for response in [client.response("GET"), gateway.h2().send(over_h2, b"")] {
            assert_eq!(response.status, status, "{host} {path}: {response:?}");
            let line = gateway.access_of(&response);
            assert_eq!(line["reason"].as_str(), reason, "{line}");
        }
    }
}

#[test]
fn the_redirect_listener_sends_known_hosts_on_and_no_others() {
    let gateway = Gateway::start(
        "listeners:\n  - { bind: \"127.0.0.1:0\", tls: { local: true } }\n  - { bind: \"127.0.0.2:0\", redirect: { https: 8443 } }\n  - { bind: \"127.0.0.3:0\", redirect: { https: 443 } }\n\
         sites:\n  - hosts: [shop.example]\n    routes: [{ path: /, respond: { status: 200, body: ok } }]\n",
    );
    for (bind, host, location) in [
        ("127.0.0.2:0", "shop.example", Some("https://shop.example:8443/a%2Fb?c=d")),
        ("127.0.0.2:0", "shop.example:80", Some("https://shop.example:8443/a%2Fb?c=d")),
        ("127.0.0.3:0", "shop.example", Some("https://shop.example/a%2Fb?c=d")),
        ("127.0.0.2:0", "evil.example", None),
    ] {
        let mut client = Client::connect(gateway.listener(bind));
        client.send(format!("POST /a%2Fb?c=d HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"));
        let response = client.response("POST");
        let status = if location.is_some() { 308 } else { 421 };
        assert_eq!((response.status, response.header("location")), (status, location), "{bind} {host}");
    }
}

#[test]
fn a_websocket_handshake_is_refused_cleanly() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let mut client = gateway.client();
    client.send(
        "GET /ws HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let response = client.response("GET");
    assert_eq!((response.status, response.header("upgrade")), (501, None), "{response:?}");
    assert_eq!(gateway.access_of(&response)["reason"], "upgrade_refused");
    assert_eq!((client.get("/").text(), worker.requests().len()), ("ok", 1));
}

#[test]
fn an_offer_to_upgrade_to_h2c_is_passed_over() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let mut client = gateway.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert_eq!(client.response("GET").text(), "ok");
    let received = worker.wait_requests(1);
    assert!(["upgrade", "connection", "http2-settings"].iter().all(|name| received.all(name).is_empty()));
    // What curl --http2 does without TLS.
    let url = format!("http://{}/", gateway.address());
    let output = curl(&["--http2", "--write-out", " %{http_version}", &url]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "ok 1.1"), "{output:?}");
    let output = curl(&["--http2-prior-knowledge", "--write-out", " %{http_version}", &url]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "ok 2"), "{output:?}");
}

#[test]
fn a_listener_without_http2_takes_its_preface_for_a_bad_request() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", http2: false }}\n{}",
        crate::support::gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()))
    ));
    let mut client = gateway.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!((client.response("GET").status, client.end()), (505, End::Closed));
}

#[test]
fn a_broken_configuration_does_not_start() {
    let (code, said) = Gateway::refuse("sites:\n  - routes: [{ path: /, proxy: nobody }]\n");
    assert_eq!(code, Some(2));
    assert!(said.contains("nobody"), "{said}");
}

#[test]
fn an_address_in_use_does_not_start() {
    const SITES: &str = "sites:\n  - routes: [{ path: /, respond: { status: 200, body: ok } }]\n";
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    // Two threads: with sockets that others of the same process may join.
    let first = Gateway::start(&format!("{SITES}runtime: {{ threads: 2 }}\n"));
    let hostler = first.address();
    for held in [stranger.local_addr().unwrap().to_string(), hostler.to_string(), hostler.port().to_string()] {
        let (code, said) = Gateway::refuse(&format!("listeners: [{{ bind: \"{held}\" }}]\n{SITES}"));
        assert!(code == Some(1) && said.contains("address_in_use"), "{held}: {code:?} {said}");
    }
    assert_eq!(first.client().get("/").text(), "ok", "who was there first is there still");
}

#[test]
fn a_worker_that_gunicorn_stops_for_its_timeout_is_explained_with_a_hint() {
    let plan = Plan::new(Kind::Sync, 1, Transport::Unix).argument("--timeout").argument("1");
    let gunicorn = plan.start();
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", gunicorn.endpoint()));
    // Something to count with: how long a request usually takes.
    let ask = |target: &str| {
        let mut client = gateway.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.response("GET").status
    };
    assert_eq!(ask("/work?ms=1&id=a"), 200);
    assert_eq!(ask("/work?ms=20000&id=b"), 500, "gunicorn's own page");
    let explained = |event: &serde_json::Value| event.to_string().contains("runs into its `timeout`");
    let event = gateway.log_event("the worker's timeout", explained);
    assert!(event.get("workers_hint").is_some() && event["in_flight"] == 1, "{event}");
    gateway.wait_idle();
}
