//! What reaches the worker of a request: exactly what it may, said once, and true.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::client::{get, post};
use crate::support::h2::request;
use crate::support::worker::{Received, Transport};
use crate::support::{Client, Gateway, H2, Response, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn served() -> (Worker, Gateway) {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 4", worker.endpoint()));
    (worker, gateway)
}

/// Sends this over HTTP/1.1 and returns the answer and what the worker got.
fn through(worker: &Worker, gateway: &Gateway, bytes: impl AsRef<[u8]>) -> (Response, Received) {
    let mut client = gateway.client();
    client.send(bytes);
    let response = client.response("GET");
    assert_eq!(response.status, 200, "{response:?}");
    (response, worker.requests().pop().unwrap())
}

/// The same over HTTP/2.
fn through_h2(worker: &Worker, gateway: &Gateway, request: http::Request<()>, body: &[u8]) -> (Response, Received) {
    let response = gateway.h2().send(request, body);
    assert_eq!(response.status, 200, "{response:?}");
    (response, worker.requests().pop().unwrap())
}

/// What the edge says to the app about this exchange, to the byte; the time is not for the test to know.
fn own_fields(gateway: &Gateway, response: &Response, received: &Received) -> String {
    format!(
        "x-forwarded-for: 127.0.0.1\r\nx-real-ip: 127.0.0.1\r\nx-forwarded-proto: http\r\n\
         x-forwarded-host: shop.example\r\nx-forwarded-port: {}\r\nx-request-id: {}\r\nx-request-start: {}\r\n",
        gateway.address().port(),
        response.id(),
        received.header("x-request-start").unwrap()
    )
}

#[test]
fn the_head_is_the_clients_fields_then_one_true_set_of_the_edges() {
    let (worker, gateway) = served();
    let fields = "User-Agent: Test/1\r\nAccept: */*\r\nAccept: text/plain;q=0.5\r\nX-Custom:   spaced out \t\r\n";
    let sent = format!("GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\n{fields}Cookie: a=1\r\n\r\n");
    let (response, received) = through(&worker, &gateway, sent);
    let expected = format!(
        "GET /a?b=c HTTP/1.1\r\nhost: shop.example\r\nuser-agent: Test/1\r\naccept: */*\r\n\
         accept: text/plain;q=0.5\r\nx-custom: spaced out\r\ncookie: a=1\r\n{}\r\n",
        own_fields(&gateway, &response, &received)
    );
    assert_eq!(received.head, expected);
    assert_eq!(worker.bytes(0), expected.as_bytes(), "and not a byte more");
}

#[test]
fn a_request_over_http2_reaches_the_worker_as_the_same_bytes() {
    let (worker, gateway) = served();
    let fields = [("user-agent", "Test/1"), ("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2; c=3")];
    let (response, received) = through_h2(&worker, &gateway, request("POST", "/a?b=c", &fields), b"body");
    let expected = format!(
        "POST /a?b=c HTTP/1.1\r\nuser-agent: Test/1\r\nhost: shop.example\r\ncookie: a=1; b=2; c=3\r\n{}content-length: 4\r\n\r\n",
        own_fields(&gateway, &response, &received)
    );
    assert_eq!((received.head, &received.body[..]), (expected, &b"body"[..]));
}

/// Names that only the edge, or only the client's own connection, may speak of.
const NOT_PASSED: &[&str] = &[
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Protocol",
    "X-Forwarded-Ssl",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "Forwarded",
    "Front-End-Https",
    "X-Real-IP",
    "X-Request-ID",
    "X-Request-Start",
    "X-Queue-Start",
    "X-Accel-Redirect",
    "X-Accel-Mapping",
    "X-Sendfile",
    "X-Sendfile-Type",
    "Grip-Sig",
    "Grip-Feature",
    "Script-Name",
    "Path-Info",
    "Remote-User",
    "Remote-Addr",
    "X-Remote-User",
    "X-Client-Cert-Subject",
    "Client-Cert",
    "Client-Cert-Chain",
    "Proxy",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "TE",
    "Trailer",
    "HTTP2-Settings",
];

#[test]
fn forged_and_hop_by_hop_fields_never_reach_the_worker() {
    let (worker, gateway) = served();
    let fields: String = NOT_PASSED.iter().map(|name| format!("{name}: forged\r\n{name}: twice\r\n")).collect();
    let sent = format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n");
    let (response, received) = through(&worker, &gateway, sent);
    let expected =
        format!("GET / HTTP/1.1\r\nhost: shop.example\r\n{}\r\n", own_fields(&gateway, &response, &received));
    assert_eq!(received.head, expected);
    for (kind, names) in [("forwarded", 14.0), ("internal", 6.0), ("identity", 9.0)] {
        gateway.wait_metric(&format!("hostler_headers_dropped_total{{kind=\"{kind}\"}}"), 2.0 * names);
    }
}

#[test]
fn forged_fields_over_http2_never_reach_the_worker() {
    let (worker, gateway) = served();
    // HTTP/2 itself forbids the fields of a connection.
    let forbidden = ["Keep-Alive", "Proxy-Connection", "TE", "Trailer"];
    let names = NOT_PASSED.iter().filter(|name| !forbidden.contains(name));
    let names: Vec<String> = names.map(|name| name.to_ascii_lowercase()).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "forged")).collect();
    let (response, received) = through_h2(&worker, &gateway, request("GET", "/", &fields), b"");
    let expected =
        format!("GET / HTTP/1.1\r\nhost: shop.example\r\n{}\r\n", own_fields(&gateway, &response, &received));
    assert_eq!(received.head, expected);
}

#[test]
fn host_and_target_reach_the_worker_as_they_were_sent() {
    let (worker, gateway) = served();
    for host in ["Shop.Example:8443", "shop.example.", "[::1]:80", "127.0.0.1"] {
        let (_, received) = through(&worker, &gateway, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(received.header("host").as_deref(), Some(host));
        assert_eq!(received.header("x-forwarded-host").as_deref(), Some(host));
    }
    for target in ["/a%2Fb//c;d=1?x=%zz&y=/../", "/caf%C3%A9/?q=%", "/?", "//double", "/a+b%20c"] {
        let (_, received) = through(&worker, &gateway, get(target));
        assert_eq!(received.line(), format!("GET {target} HTTP/1.1"));
        let (_, received) = through_h2(&worker, &gateway, request("GET", target, &[]), b"");
        assert_eq!(received.line(), format!("GET {target} HTTP/1.1"));
    }
}

#[test]
fn a_chunked_upload_reaches_the_worker_with_its_length() {
    let (worker, gateway) = served();
    let head = "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (_, received) = through(&worker, &gateway, format!("{head}3\r\nabc\r\n8\r\ndefghijk\r\n0\r\n\r\n"));
    assert_eq!((&received.body[..], received.all("content-length")), (&b"abcdefghijk"[..], vec!["11".into()]));
    assert_eq!(received.header("transfer-encoding"), None);
    let (_, received) = through(&worker, &gateway, format!("{head}0\r\n\r\n"));
    assert_eq!(received.all("content-length"), ["0"]);
}

#[test]
fn a_body_larger_than_memory_arrives_whole() {
    let (worker, gateway) = served();
    let body: Vec<u8> = (0..1_500_000u32).map(|n| (n % 251) as u8).collect();
    let mut chunked = b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(70_001) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let (response, received) = through(&worker, &gateway, chunked);
    assert!(received.body == body, "{} bytes arrived", received.body.len());
    assert_eq!(gateway.access_of(&response)["bytes_in"], 1_500_000);
    let (_, received) = through_h2(&worker, &gateway, request("POST", "/", &[]), &body);
    assert!(received.body == body, "{} bytes arrived", received.body.len());
    assert_eq!(received.all("content-length"), ["1500000"]);
    gateway.wait_idle();
    gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
    gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
}

#[test]
fn only_methods_that_have_content_say_that_there_is_none() {
    let (worker, gateway) = served();
    for (method, expected) in [
        ("GET", vec![]),
        ("HEAD", vec![]),
        ("OPTIONS", vec![]),
        ("DELETE", vec![]),
        ("POST", vec!["0".to_owned()]),
        ("PUT", vec!["0".to_owned()]),
        ("PATCH", vec!["0".to_owned()]),
    ] {
        let mut client = gateway.client();
        client.send(format!("{method} / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"));
        assert_eq!(client.response(method).status, 200);
        assert_eq!(worker.requests().pop().unwrap().all("content-length"), expected, "{method}");
        gateway.h2().send(request(method, "/", &[]), b"");
        assert_eq!(worker.requests().pop().unwrap().all("content-length"), expected, "{method} over HTTP/2");
    }
    let (_, received) = through(&worker, &gateway, post("/", "").replace("POST", "GET"));
    assert_eq!(received.all("content-length"), Vec::<String>::new());
    let (_, received) = through(&worker, &gateway, post("/", "hi").replace("POST", "GET"));
    assert_eq!((received.all("content-length"), &received.body[..]), (vec!["2".into()], &b"hi"[..]));
}

#[test]
fn app_client_and_log_know_the_exchange_by_one_id() {
    let (worker, gateway) = served();
    let forged = "GET /h1 HTTP/1.1\r\nHost: shop.example\r\nX-Request-ID: mine\r\n\r\n";
    let (first, received) = through(&worker, &gateway, forged);
    assert_eq!(received.header("x-request-id").as_deref(), Some(first.id()));
    assert_eq!(gateway.access_of_path("/h1")["request_id"], first.id());
    let (second, received) = through_h2(&worker, &gateway, request("GET", "/h2", &[("x-request-id", "mine")]), b"");
    assert_eq!(received.header("x-request-id").as_deref(), Some(second.id()));
    assert_eq!(gateway.access_of_path("/h2")["request_id"], second.id());
    assert!(first.id() != second.id() && first.id() != "mine", "{} {}", first.id(), second.id());
}

#[test]
fn the_start_of_the_request_is_told_in_seconds_with_micros() {
    let (worker, gateway) = served();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let before = now();
    let (_, received) = through(&worker, &gateway, get("/"));
    let value = received.header("x-request-start").unwrap();
    let (seconds, micros) = value.strip_prefix("t=").unwrap().split_once('.').unwrap();
    assert_eq!(micros.len(), 6, "{value}");
    let start: f64 = format!("{seconds}.{micros}").parse().unwrap();
    assert!(start >= before - 0.001 && start <= now(), "{value}");
}

#[test]
fn over_tls_the_app_hears_https_and_the_port() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", tls: {{ local: true }} }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ));
    let host = format!("localhost:{}", gateway.address().port());
    let mut client = Client::tls(gateway.address(), "localhost", &gateway.root());
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: http\r\n\r\n"));
    assert_eq!(client.response("GET").status, 200);
    let h2 = H2::tls(gateway.address(), "localhost", &gateway.root());
    let get = http::Request::get(format!("https://{host}/")).header("x-forwarded-proto", "http").body(()).unwrap();
    assert_eq!(h2.send(get, b"").status, 200);
    for received in worker.requests() {
        assert_eq!(received.all("x-forwarded-proto"), ["https"]);
        assert_eq!(received.all("x-forwarded-port"), [gateway.address().port().to_string()]);
        assert_eq!((received.all("x-forwarded-host"), received.all("host")), (vec![host.clone()], vec![host.clone()]));
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_listener_has_its_ipv4_address() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"[::]:0\" }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ));
    for (host, client) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let address = crate::support::Address::parse(&format!("{host}:{}", gateway.address().port()));
        assert_eq!(Client::connect(&address).get("/").status, 200);
        assert_eq!(worker.requests().pop().unwrap().all("x-forwarded-for"), [client]);
    }
}

#[test]
fn what_the_app_says_to_the_edge_alone_never_reaches_a_client() {
    let answer = "HTTP/1.1 200 OK\r\nServer: gunicorn\r\nX-Accel-Buffering: yes\r\nX-Accel-Expires: 5\r\n\
                  X-Sendfile: /etc/passwd\r\nGrip-Hold: stream\r\nKeep-Alive: timeout=5\r\nX-Secret: 1\r\n\
                  Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nConnection: X-Secret\r\nX-Request-ID: app\r\n\
                  Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Shown: yes\r\nContent-Length: 2\r\n\r\nok";
    let worker = Worker::answering(Transport::Unix, answer);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 4", worker.endpoint()));
    for response in [gateway.client().get("/"), gateway.h2().get("/")] {
        let mut names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let expected = ["content-length", "date", "server", "set-cookie", "set-cookie", "x-request-id", "x-shown"];
        assert_eq!(names, expected);
        assert_eq!(response.id().len(), 36, "the edge's, not the app's: {}", response.id());
        let cookies = response.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value.as_str());
        assert_eq!(cookies.collect::<Vec<_>>(), ["a=1", "b=2"]);
    }
}

#[test]
fn without_keep_alive_the_worker_is_told_to_close() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway =
        Gateway::before(&format!("endpoints: [\"{}\"], workers: 4, keepalive: {{ idle: 0s }}", worker.endpoint()));
    for count in 1..=2 {
        let (_, received) = through(&worker, &gateway, get("/"));
        assert_eq!(received.all("connection"), ["close"]);
        assert_eq!(worker.connections(), count);
    }
}
