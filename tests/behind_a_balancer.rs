//! `proxy_protocol` and `trusted_proxies`: behind a load balancer the app sees the client, and nobody but the balancer can say
//! who that is.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::client::get;
use crate::support::gunicorn::Kind;
use crate::support::tool::curl;
use crate::support::worker::{Received, Transport};
use crate::support::{Address, Client, Gateway, Gunicorn, Worker, look_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The client that the balancer has, and where it has connected to.
const CLIENT: &str = "192.0.2.7";
const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.80 56324 8443\r\n";

/// The same in version 2, with a TLV.
fn block() -> Vec<u8> {
    let ends = [192, 0, 2, 7, 198, 51, 100, 80, 0xdc, 0x04, 0x20, 0xfb];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x12", &ends[..], &[0x04, 0, 3, 0, 0, 0]].concat()
}

/// A probe of the balancer's own.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// One plain, one TLS and one unix listener, all with `proxy_protocol`; these peers trusted.
fn gateway(endpoint: &str, trusted: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", proxy_protocol: true }}\n\
         \x20 - {{ bind: \"127.0.0.2:0\", proxy_protocol: true, tls: {{ local: true }} }}\n\
         \x20 - {{ bind: \"unix:@folder@/edge.sock\", proxy_protocol: true }}\n\
         trusted_proxies: {trusted}\n\
         limits: {{ header_timeout: 2s }}\n\
         upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 2 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n"
    ))
}

fn worker() -> Worker {
    Worker::answering(Transport::Unix, OK)
}

fn results(gateway: &Gateway, listener: &str, result: &str) -> f64 {
    gateway.metric(&format!("hostler_proxy_headers_total{{listener=\"{listener}\",result=\"{result}\"}}"))
}

fn told(request: &Received) -> [Option<String>; 4] {
    ["x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-port"].map(|name| request.header(name))
}

fn words<const N: usize>(words: [&str; N]) -> [Option<String>; N] {
    words.map(|word| Some(word.to_owned()))
}

#[test]
fn the_client_is_whom_the_header_names_over_plain_tls_and_unix() {
    let worker = worker();
    let gateway = gateway(&worker.endpoint(), "[127.0.0.1, unix]");
    let unix = Address::Unix(gateway.folder().join("edge.sock"));
    let mut count = 0;
    for preamble in [LINE.to_vec(), block()] {
        let mut clients = [
            (Client::connect(gateway.address()), "http"),
            (Client::connect(&unix), "http"),
            (Client::tls_after(&preamble, gateway.listener("127.0.0.2:0"), "localhost", &gateway.root()), "https"),
        ];
        for (client, _) in &mut clients[..2] {
            client.send(&preamble);
        }
        for (client, scheme) in &mut clients {
            // Both requests of the connection are the client's, and what he says of himself is not believed.
            for _ in 0..2 {
                client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\n\r\n");
                assert_eq!(client.response("GET").text(), "ok");
                count += 1;
                let request = worker.wait_requests(count);
                assert_eq!(told(&request), words([CLIENT, CLIENT, scheme, "8443"]), "{}", request.head);
            }
        }
    }
    gateway.access_line("client", |line| line["client"] == CLIENT && line["scheme"] == "https");
    assert_eq!(results(&gateway, "127.0.0.1:0", "ok"), 2.0);
}

#[test]
fn a_header_may_come_in_pieces_and_with_the_request_behind_it() {
    let worker = worker();
    let gateway = gateway(&worker.endpoint(), "[private, unix]");
    for (count, preamble) in [LINE.to_vec(), block()].into_iter().enumerate() {
        let mut client = gateway.client();
        for byte in &preamble[..preamble.len() - 1] {
            client.send([*byte]);
        }
        client.send([&preamble[preamble.len() - 1..], get("/").as_bytes()].concat());
        assert_eq!(client.response("GET").text(), "ok");
        assert_eq!(worker.wait_requests(count + 1).header("x-forwarded-for").as_deref(), Some(CLIENT));
    }
}

#[test]
fn http2_behind_a_header_has_its_client_too() {
    let worker = worker();
    let gateway = gateway(&worker.endpoint(), "[private, unix]");
    let (root, tls) = (gateway.root(), gateway.listener("127.0.0.2:0"));
    // curl names its own end of the connection.
    let to = format!("localhost:{}:127.0.0.2", tls.port());
    let url = format!("https://localhost:{}/", tls.port());
    let common = ["--haproxy-protocol", "--interface", "127.0.0.9", "--resolve", &to, "--write-out", "%{http_version}"];
    let output = curl(&[&common[..], &["--http2", "--cacert", root.to_str().unwrap(), &url]].concat());
    assert_eq!(output.stdout, "ok2", "{output:?}");
    let plain = format!("http://{}/", gateway.address());
    let output = curl(&[&common[..], &["--http2-prior-knowledge", &plain]].concat());
    assert_eq!(output.stdout, "ok2", "{output:?}");
    for request in worker.requests() {
        assert_eq!(request.header("x-forwarded-for").as_deref(), Some("127.0.0.9"), "{}", request.head);
    }
}

#[test]
fn a_balancer_that_speaks_for_itself_or_cannot_name_its_client_is_the_peer() {
    let worker = worker();
    let gateway = gateway(&worker.endpoint(), "[private, unix]");
    let forwarded = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    for (count, (preamble, client)) in [
        // The balancer itself is believed; somebody it cannot name is not.
        (LOCAL, CLIENT),
        (&b"PROXY UNKNOWN\r\n"[..], "127.0.0.1"),
        (&b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00"[..], "127.0.0.1"),
        // Nor is one it names. That one is a proxy of ours, which is.
        (b"PROXY TCP4 203.0.113.5 1.1.1.1 1 80\r\n", "203.0.113.5"),
        (b"PROXY TCP4 10.0.0.5 1.1.1.1 1 80\r\n", CLIENT),
    ]
    .into_iter()
    .enumerate()
    {
        let mut balancer = gateway.client();
        balancer.send([preamble, forwarded.as_bytes()].concat());
        assert_eq!(balancer.response("GET").status, 200);
        assert_eq!(worker.wait_requests(count + 1).header("x-forwarded-for").as_deref(), Some(client), "{count}");
    }
}

#[test]
fn who_is_not_trusted_cannot_speak_the_protocol_and_the_operator_is_told() {
    let worker = worker();
    let gateway = gateway(&worker.endpoint(), "[127.0.0.9, unix]");
    for bytes in [LINE.to_vec(), block(), get("/").into_bytes()] {
        let mut client = gateway.client();
        // The gateway closes at once, and may do so before.
        let _ = client.try_send(bytes);
        assert!(client.try_response("GET").is_none());
    }
    gateway.wait_metric("hostler_proxy_headers_total{listener=\"127.0.0.1:0\",result=\"untrusted\"}", 3.0);
    let told = gateway.log_event("a hint", |event| {
        event["message"].as_str().is_some_and(|message| message.contains("not in `trusted_proxies`"))
    });
    assert_eq!((&told["peer"], &told["listener"]), (&Value::from("127.0.0.1"), &Value::from("127.0.0.1:0")));
    // The one who is, is served.
    let mut balancer = Client::connect_from([127, 0, 0, 9], gateway.address());
    balancer.send([LINE, get("/").as_bytes()].concat());
    assert_eq!(balancer.response("GET").text(), "ok");
    assert_eq!(worker.requests().len(), 1);
}

#[test]
fn strangers_do_not_hide_what_is_wrong_with_the_balancer() {
    let worker = worker();
    let gateway = gateway(&worker.endpoint(), "[127.0.0.9, unix]");
    // Every thread has written its line of strangers, and may not write another for a second.
    let (threads, address) = (16, gateway.address().clone());
    for _ in 0..threads {
        Client::connect(&address).end();
    }
    let mut balancer = Client::connect_from([127, 0, 0, 9], &address);
    balancer.send(get("/"));
    assert!(balancer.try_response("GET").is_none());
    gateway.log_event("what is wrong", |event| {
        event["peer"] == "127.0.0.9" && event["message"].as_str().is_some_and(|text| text.contains("send-proxy-v2"))
    });
}

/// With these limits; the balancer is 127.0.0.1, and 10.0.0.0/8 are ours.
fn limited(endpoint: &str, limits: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", proxy_protocol: true }}\ntrusted_proxies: [127.0.0.1, 10.0.0.0/8]\n\
         limits: {{ {limits} }}\n\
         upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 2 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n"
    ))
}

/// The header for a client at this address.
fn line_of(client: &str) -> String {
    if client.contains(':') {
        format!("PROXY TCP6 {client} 2001:db8:ffff::80 1 80\r\n")
    } else {
        format!("PROXY TCP4 {client} 198.51.100.80 1 80\r\n")
    }
}

/// A request behind this header, and its connection.
fn behind(gateway: &Gateway, preamble: &str) -> (Client, u16) {
    let mut client = gateway.client();
    client.send([preamble, &get("/")].concat());
    let status = client.response("GET").status;
    (client, status)
}

#[test]
fn a_client_behind_the_balancer_has_its_limit_and_proxies_of_ours_have_none() {
    let worker = worker();
    let gateway = limited(&worker.endpoint(), "connections_per_client: 2");
    let mut open: Vec<_> = (0..2).map(|_| behind(&gateway, &line_of(CLIENT))).collect();
    assert_eq!(behind(&gateway, &line_of(CLIENT)).1, 429);
    gateway.log_event("who it is", |event| {
        event["reason"] == "too_many_connections_of_client" && event["client"] == CLIENT
    });
    gateway.wait_metric(
        "hostler_connections_refused_total{listener=\"127.0.0.1:0\",reason=\"too_many_connections_of_client\"}",
        1.0,
    );
    for other in [line_of("192.0.2.8"), line_of("10.0.0.5"), "PROXY UNKNOWN\r\n".into()] {
        let count = if other.contains("192.0.2.8") { 2 } else { 4 };
        open.extend((0..count).map(|_| behind(&gateway, &other)));
    }
    // An IPv6 client has a whole /64 of addresses.
    open.extend(["2001:db8::1", "2001:db8::ffff:2"].map(|client| behind(&gateway, &line_of(client))));
    assert_eq!(behind(&gateway, &line_of("2001:db8::3")).1, 429);
    open.push(behind(&gateway, &line_of("2001:db8:0:1::1")));
    assert!(open.iter().all(|(_, status)| *status == 200));
    drop(open.remove(0));
    let again = look_until(|| (behind(&gateway, &line_of(CLIENT)).1 == 200).then_some(()));
    assert!(again.is_some(), "a place that is left can be taken");
}

#[test]
fn ipv6_clients_of_one_64_wait_for_their_turns_as_one() {
    let (worker, latch) = Worker::held(OK);
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", proxy_protocol: true }}\ntrusted_proxies: [127.0.0.1]\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ));
    let ask = |path: &str, client: &str| {
        let mut balancer = gateway.client();
        balancer.send([line_of(client), get(path)].concat());
        balancer
    };
    let mut clients = vec![ask("/served", "2001:db8::1")];
    worker.wait_requests(1);
    let waiting = [("/first", "2001:db8::2"), ("/second", "2001:db8::ffff:3"), ("/other", "2001:db8:0:1::1")];
    for ((path, client), count) in waiting.into_iter().zip([1.0, 2.0, 3.0]) {
        clients.push(ask(path, client));
        gateway.wait_metric("hostler_waiting{upstream=\"app\"}", count);
    }
    latch.open();
    assert!(clients.iter_mut().all(|client| client.response("GET").status == 200));
    let order: Vec<String> = worker.requests().iter().map(|request| request.line().to_owned()).collect();
    let at = |path: &str| order.iter().position(|line| *line == format!("GET {path} HTTP/1.1")).unwrap();
    // Who came last has not had a turn; the others are one who has, and who waits for two more.
    assert!(at("/other") < at("/second") && at("/first") < at("/second"), "{order:?}");
}

#[test]
fn clients_behind_the_balancer_do_not_have_its_patience() {
    let worker = worker();
    let gateway = limited(&worker.endpoint(), "idle_timeout: 1s");
    for preamble in ["PROXY TCP4 192.0.2.7 198.51.100.80 1 80\r\n", "PROXY UNKNOWN\r\n"] {
        let (mut client, status) = behind(&gateway, preamble);
        assert_eq!(status, 200);
        client.end();
    }
    // Who speaks for himself has it, and so has a proxy of ours.
    for preamble in [std::str::from_utf8(LOCAL).unwrap(), "PROXY TCP4 10.0.0.5 198.51.100.80 1 80\r\n"] {
        let (mut proxy, _) = behind(&gateway, preamble);
        let (mut client, _) = behind(&gateway, "PROXY TCP4 192.0.2.7 198.51.100.80 1 80\r\n");
        client.end();
        assert_eq!(proxy.get("/").status, 200);
    }
}

#[test]
fn whatever_is_not_exactly_a_header_ends_the_connection() {
    let worker = worker();
    let gateway = gateway(&worker.endpoint(), "[private, unix]");
    let broken: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PROXY TCP4 192.0.2.7 198.51.100.80 056324 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.80 56324 443\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.80 56324 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x22\x11\x00\x0c\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c\0\0\0\0\0\0\0\0\0\0\0\0",
    ];
    for bytes in broken {
        let mut client = gateway.client();
        client.send(bytes);
        assert!(client.try_response("GET").is_none(), "{bytes:?}");
    }
    gateway.wait_metric("hostler_proxy_headers_total{listener=\"127.0.0.1:0\",result=\"malformed\"}", 8.0);
    gateway
        .log_event("what to do", |event| event["message"].as_str().is_some_and(|text| text.contains("send-proxy-v2")));
    // A second header is a request line that is none.
    let mut client = gateway.client();
    client.send([LINE, LINE, get("/").as_bytes()].concat());
    assert_eq!(client.response("GET").status, 400);
    assert!(worker.requests().is_empty());
    gateway.wait_metric("hostler_connections{listener=\"127.0.0.1:0\",protocol=\"new\"}", 0.0);
}

#[test]
fn who_says_nothing_is_let_go() {
    let worker = worker();
    let gateway = gateway(&worker.endpoint(), "[private, unix]");
    // A probe that only connects is no event at all.
    drop(gateway.client());
    let mut slow = gateway.client();
    slow.send(&LINE[..20]);
    assert!(slow.try_response("GET").is_none());
    gateway.wait_metric("hostler_proxy_headers_total{listener=\"127.0.0.1:0\",result=\"timeout\"}", 1.0);
    let cut = gateway.client();
    cut.finish();
    let mut cut = gateway.client();
    cut.send(&LINE[..20]);
    cut.finish();
    gateway.wait_metric("hostler_proxy_headers_total{listener=\"127.0.0.1:0\",result=\"closed\"}", 1.0);
    gateway.wait_metric("hostler_connections{listener=\"127.0.0.1:0\",protocol=\"new\"}", 0.0);
}

/// Plain listeners behind a proxy that speaks HTTP: 127.0.0.1 and 10.0.0.0/8 are ours.
fn behind_http(endpoint: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n  - {{ bind: \"127.0.0.2:0\", redirect: {{ https: 443 }} }}\n\
         \x20 - {{ bind: \"unix:@folder@/edge.sock\" }}\n\
         trusted_proxies: [127.0.0.1, 10.0.0.0/8]\n\
         upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 2 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n"
    ))
}

fn ask(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n")
}

#[test]
fn the_client_is_the_last_in_the_chain_whom_nobody_of_ours_vouches_for() {
    let worker = worker();
    let gateway = behind_http(&worker.endpoint());
    let mut balancer = gateway.client();
    for (count, (fields, client)) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7\r\n", CLIENT),
        ("X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\n", CLIENT),
        ("X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.0.0.1, 10.0.0.2\r\n", CLIENT),
        ("X-Forwarded-For: 10.0.0.3\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 10.0.0.1\r\n", CLIENT),
        ("X-Forwarded-For: 1.1.1.1, unknown, 10.0.0.1\r\n", "10.0.0.1"),
        ("X-Forwarded-For: [2001:db8::7]:4711\r\n", "2001:db8::7"),
        ("Forwarded: for=1.1.1.1, for=192.0.2.7;proto=https\r\n", CLIENT),
        ("Forwarded: for=\"[2001:db8::7]:4711\"\r\n", "2001:db8::7"),
        ("Forwarded: for=\", for=192.0.2.7\r\n", CLIENT),
        ("Forwarded: for=192.0.2.7\r\nX-Forwarded-For: 192.0.2.7\r\n", CLIENT),
        ("X-Real-IP: 1.1.1.1\r\nX-Forwarded-For: 192.0.2.7\r\nX_Forwarded_For: 1.1.1.1\r\n", CLIENT),
    ]
    .into_iter()
    .enumerate()
    {
        balancer.send(ask(fields));
        let response = balancer.response("GET");
        assert_eq!(response.status, 200);
        let request = worker.wait_requests(count + 1);
        let told = [request.header("x-forwarded-for"), request.header("x-real-ip")];
        assert_eq!(told, words([client, client]), "{fields}");
        assert_eq!(request.header("forwarded"), None, "{fields}");
        assert_eq!(gateway.access_of(&response)["client"], client, "{fields}");
    }
    assert_eq!(gateway.metric("hostler_headers_dropped_total{kind=\"forwarded\"}"), 0.0, "what is used is not dropped");
}

#[test]
fn scheme_port_and_start_are_the_proxys_and_the_host_is_host() {
    let worker = worker();
    let gateway = behind_http(&worker.endpoint());
    let own = gateway.address().port().to_string();
    let mut balancer = gateway.client();
    for (count, (fields, proto, port)) in [
        ("", "http", own.as_str()),
        ("X-Forwarded-Proto: https\r\n", "https", "443"),
        ("X-Forwarded-Proto: http, https\r\nX-Forwarded-Port: 8443\r\n", "https", "8443"),
        ("X-Forwarded-Proto: HTTPS\r\n", "http", own.as_str()),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Port: 99999\r\nX-Forwarded-Host: evil.example\r\n", "https", "443"),
    ]
    .into_iter()
    .enumerate()
    {
        balancer.send(ask(fields));
        assert_eq!(balancer.response("GET").status, 200);
        let request = worker.wait_requests(count + 1);
        let told =
            ["x-forwarded-proto", "x-forwarded-port", "x-forwarded-host", "host"].map(|name| request.header(name));
        assert_eq!(told, words([proto, port, "shop.example", "shop.example"]), "{fields}");
    }
    let minute_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 60;
    let start = format!("t={minute_ago}.500000");
    for (field, is_believed) in [
        (format!("t={minute_ago}.5"), true),
        (format!("{minute_ago}500"), true),
        (format!("t={}", minute_ago - 3600), false),
        (format!("t={}", minute_ago + 3600), false),
        ("yesterday".to_owned(), false),
    ] {
        balancer.send(ask(&format!("X-Request-Start: {field}\r\n")));
        assert_eq!(balancer.response("GET").status, 200);
        let told = worker.requests().last().unwrap().header("x-request-start").unwrap();
        assert_eq!(told == start, is_believed, "{field}: {told}");
        assert!(!told.contains(&field) || is_believed, "{field}: {told}");
    }
}

#[test]
fn a_client_that_is_not_trusted_chooses_nothing_and_the_operator_is_told_once() {
    let worker = worker();
    let gateway = behind_http(&worker.endpoint());
    let forged = ask(
        "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nForwarded: for=1.1.1.1\r\nX-Request-Start: t=1795374000\r\n",
    );
    let edge = Address::Unix(gateway.folder().join("edge.sock"));
    for (count, (mut client, address)) in [
        (Client::connect_from([127, 0, 0, 9], gateway.address()), Some("127.0.0.9")),
        (Client::connect_from([127, 0, 0, 10], gateway.address()), Some("127.0.0.10")),
        (Client::connect(&edge), None),
    ]
    .into_iter()
    .enumerate()
    {
        client.send(&forged);
        assert_eq!(client.response("GET").status, 200);
        let request = worker.wait_requests(count + 1);
        assert_eq!(request.header("x-forwarded-for").as_deref(), address);
        assert_eq!(request.header("x-forwarded-proto").as_deref(), Some("http"));
        assert!(request.header("x-forwarded-port").is_some_and(|port| port != "1"));
        assert!(request.header("x-request-start").is_some_and(|start| !start.starts_with("t=1795374000.")));
    }
    let is_hint =
        |event: &Value| event["message"].as_str().is_some_and(|text| text.contains("was dropped. If it is your proxy"));
    let first = gateway.log_event("a hint", is_hint);
    assert!(first["message"].as_str().unwrap().contains("trusted_proxies: [\"127.0.0.0/24\"]"), "{first}");
    gateway.log_event("a hint for unix", |event| is_hint(event) && event["peer"] == "a unix socket");
    let hints = gateway.log().iter().filter(|line| line.contains("was dropped. If it is your proxy")).count();
    assert_eq!(hints, 2, "one a network");
}

#[test]
fn a_proxy_that_is_not_believed_is_told_of_whatever_became_of_the_request() {
    // One hint for each listener and network: the rows have nothing to do with each other.
    let rows = [
        ("respond", "/respond", 200),
        ("files", "/files/page.txt", 200),
        ("redirect", "/redirect", 308),
        ("auth.allow", "/allow", 403),
        ("rate_limit", "/limited", 429),
        ("the slash that is missing", "/files", 308),
        ("no route", "/nowhere", 404),
        ("another site", "/respond", 421),
    ];
    let binds: Vec<String> = (1..=rows.len()).map(|last| format!("127.0.0.{last}:0")).collect();
    let listeners: String = binds.iter().map(|bind| format!("  - {{ bind: \"{bind}\" }}\n")).collect();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("page.txt"), "page").unwrap();
    let gateway = Gateway::start(&format!(
        "listeners:\n{listeners}\
         trusted_proxies: [10.0.0.0/8]\n\
         sites:\n  - hosts: [shop.example]\n    routes:\n\
         \x20     - {{ path_exact: /respond, respond: {{ body: ok }} }}\n\
         \x20     - {{ path: /files/, files: {{ root: \"{}\" }} }}\n\
         \x20     - {{ path_exact: /redirect, redirect: {{ to: /respond }} }}\n\
         \x20     - {{ path_exact: /allow, auth: {{ allow: [192.0.2.0/24] }}, respond: {{ body: ok }} }}\n\
         \x20     - {{ path_exact: /limited, rate_limit: {{ rate: 1/h }}, respond: {{ body: ok }} }}\n",
        files.path().display()
    ));
    // As others of its clients have done before: for the limit all of them are one.
    assert_eq!(gateway.client().get("/limited").status, 200);
    for ((what, path, status), bind) in rows.into_iter().zip(&binds) {
        let host = if status == 421 { "other.example" } else { "shop.example" };
        let mut proxy = Client::connect_from([127, 0, 0, 1], gateway.listener(bind));
        proxy.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"));
        assert_eq!(proxy.response("GET").status, status, "{what}");
        let hint = gateway.log_event(what, |event| {
            event["listener"] == bind.as_str()
                && event["message"].as_str().is_some_and(|text| text.contains("was dropped. If it is your proxy"))
        });
        assert_eq!(hint["peer"], "127.0.0.1", "{what}");
    }
}

#[test]
fn a_proxy_that_passes_on_a_forged_field_is_told_of_and_names_nobody() {
    let worker = worker();
    let gateway = behind_http(&worker.endpoint());
    let mut balancer = gateway.client();
    for (count, (fields, client)) in [
        ("X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7;proto=http\r\n", CLIENT),
        ("X-Forwarded-For: 1.1.1.1\r\nForwarded: for=192.0.2.7\r\n", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7\r\nForwarded: for=1.1.1.1\r\n", "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        balancer.send(ask(fields));
        assert_eq!(balancer.response("GET").status, 200);
        assert_eq!(worker.wait_requests(count + 1).header("x-forwarded-for").as_deref(), Some(client), "{fields}");
    }
    let is_hint =
        |event: &Value| event["message"].as_str().is_some_and(|text| text.contains("do not name the same client"));
    assert_eq!(gateway.log_event("a hint", is_hint)["peer"], "127.0.0.1");
    let hints = gateway.log().iter().filter(|line| line.contains("do not name the same client")).count();
    assert_eq!(hints, 1, "once");
}

/// As Django with SECURE_SSL_REDIRECT: whoever does not speak https is sent there.
fn secure_app() -> Worker {
    Worker::unix(|visit| {
        while let Some(request) = visit.request() {
            visit.send(match request.header("x-forwarded-proto").as_deref() {
                Some("https") => OK,
                _ => "HTTP/1.1 301 Moved Permanently\r\nLocation: https://shop.example/\r\nContent-Length: 0\r\n\r\n",
            });
        }
    })
}

#[test]
fn an_app_that_insists_on_https_does_not_send_the_clients_of_a_tls_proxy_in_a_circle() {
    let worker = secure_app();
    let gateway = behind_http(&worker.endpoint());
    let https = ask("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n");
    for listener in [gateway.address(), gateway.listener("127.0.0.2:0")] {
        // The balancer. On the listener that redirects, it is where the redirect leads.
        let mut balancer = Client::connect_from([127, 0, 0, 1], listener);
        balancer.send(&https);
        assert_eq!(balancer.response("GET").text(), "ok");
        // Its clients without TLS are redirected, and so is who only claims to have it.
        balancer.send(ask("X-Forwarded-Proto: http\r\n"));
        assert!(matches!(balancer.response("GET").status, 301 | 308));
        let mut client = Client::connect_from([127, 0, 0, 9], listener);
        client.send(&https);
        let response = client.response("GET");
        assert!(matches!(response.status, 301 | 308), "{response:?}");
    }
    gateway.log_event("a hint where nothing reaches a worker", |event| {
        event["listener"] == "127.0.0.2:0" && event["message"].as_str().is_some_and(|text| text.contains("was dropped"))
    });
}

#[test]
fn gunicorn_and_django_believe_what_the_proxy_has_said() {
    let gunicorn = Gunicorn::start_as(Kind::Sync, 1, Transport::Unix);
    let gateway = behind_http(&gunicorn.endpoint());
    let mut balancer = gateway.client();
    balancer.send(
        "GET /environ HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n",
    );
    let response = balancer.response("GET");
    assert_eq!(response.status, 200, "{response:?}");
    let environ: Value = serde_json::from_str(response.text()).unwrap();
    for (name, value) in [
        ("wsgi.url_scheme", "https"),
        ("HTTP_X_FORWARDED_FOR", CLIENT),
        ("HTTP_X_FORWARDED_PORT", "443"),
        ("HTTP_X_FORWARDED_HOST", "localhost"),
    ] {
        assert_eq!(environ[name], value, "{name} in {environ:#}");
    }
}

#[test]
fn a_reload_that_trusts_somebody_holds_for_open_connections() {
    let worker = worker();
    let config = |trusted: &str| {
        format!(
            "{trusted}upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
            worker.endpoint()
        )
    };
    let gateway = Gateway::start(&config(""));
    let mut client = gateway.client();
    for (count, (trusted, seen)) in
        [("", "127.0.0.1"), ("trusted_proxies: [private]\n", CLIENT), ("trusted_proxies: [unix]\n", "127.0.0.1")]
            .into_iter()
            .enumerate()
    {
        if count > 0 {
            gateway.reload(&config(trusted));
        }
        client.send(ask("X-Forwarded-For: 192.0.2.7\r\n"));
        assert_eq!(client.response("GET").status, 200);
        assert_eq!(worker.wait_requests(count + 1).header("x-forwarded-for").as_deref(), Some(seen));
    }
}
