//! `websocket: tunnel`: WebSockets pass through to apps that speak them, from every protocol of a client to every one of a
//! worker; what is checked before; and how they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::chromium::key_digest;
use crate::support::client::{End, get};
use crate::support::gateway::Signal;
use crate::support::h2::{H2, request};
use crate::support::shop::python;
use crate::support::tls_worker::Ca;
use crate::support::tool::Tool;
use crate::support::websocket::{ACCEPT, BINARY, CLOSE, CONTINUATION, Frame, KEY, PING, PONG, TEXT, handshake};
use crate::support::worker::Transport;
use crate::support::{Chromium, Client, Gateway, Latch, Server, Visit, WebSocket, Worker, look_until};

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    Http2,
}

const WAYS: [Way; 3] = [Way::Plain, Way::Tls, Way::Http2];

/// A gateway in front of one upstream, with a listener of each kind.
struct Stage {
    gateway: Gateway,
}

const LISTENERS: &str =
    "listeners:\n  - { bind: \"127.0.0.1:0\" }\n  - { bind: \"127.0.0.2:0\", tls: { local: true } }\n";

/// One upstream with these keys, and one route with those.
fn config(upstream: &str, route: &str) -> String {
    format!(
        "{LISTENERS}upstreams:\n  app: {{ {upstream} }}\nsites:\n  - routes:\n      - {{ path: /, proxy: app, {route} }}\n"
    )
}

impl Stage {
    fn new(endpoint: &str) -> Self {
        Self::with(endpoint, "websocket: tunnel")
    }

    fn with(endpoint: &str, route: &str) -> Self {
        Self::start(&config(&format!("endpoints: [\"{endpoint}\"], workers: 4"), route))
    }

    fn start(config: &str) -> Self {
        Self { gateway: Gateway::start(config) }
    }

    fn client(&self, way: Way) -> Client {
        match way {
            Way::Plain => self.gateway.client(),
            _ => Client::tls(self.gateway.listener("127.0.0.2:0"), "localhost", &self.gateway.root()),
        }
    }

    fn h2(&self) -> H2 {
        H2::tls(self.gateway.listener("127.0.0.2:0"), "localhost", &self.gateway.root())
    }

    fn open(&self, way: Way, path: &str, fields: &[(&str, &str)]) -> Open {
        self.try_open(way, path, fields).unwrap_or_else(|response| panic!("{way:?}: {response:?}"))
    }

    fn try_open(&self, way: Way, path: &str, fields: &[(&str, &str)]) -> Result<Open, Box<crate::support::Response>> {
        if way == Way::Http2 {
            let h2 = self.h2();
            let socket = WebSocket::try_over_h2(&h2, path, fields)?;
            return Ok(Open { socket, h2: Some(h2) });
        }
        Ok(Open { socket: WebSocket::try_open(self.client(way), path, fields)?, h2: None })
    }

    fn tunnels(&self, count: f64) {
        self.gateway.wait_metric("hostler_holds{kind=\"tunnel\"}", count);
    }
}

/// A WebSocket and what keeps its connection.
struct Open {
    socket: WebSocket,
    h2: Option<H2>,
}

impl std::ops::Deref for Open {
    type Target = WebSocket;

    fn deref(&self) -> &WebSocket {
        &self.socket
    }
}

impl std::ops::DerefMut for Open {
    fn deref_mut(&mut self) -> &mut WebSocket {
        &mut self.socket
    }
}

impl Open {
    fn close(self, code: u16) {
        let Self { socket, h2: _h2 } = self;
        socket.close(code);
    }

    fn reset(self) {
        let Self { socket, h2: _h2 } = self;
        socket.reset();
    }
}

/// A worker that says what it hears, frame by frame, and answers a close with the same.
fn echoing(transport: Transport) -> Worker {
    Worker::start(transport, |visit| {
        if visit.accept_websocket("") {
            echo(visit);
        }
    })
}

fn echo(visit: &mut Visit) {
    while let Some(frame) = visit.frame() {
        if !visit.send(frame.plain()) || frame.opcode == CLOSE {
            return;
        }
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u32 | 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn messages_of_any_size_come_back_from_uvicorn_whatever_is_spoken_on_either_side() {
    let ca = Ca::new();
    let (certificate, key) = ca.files("app.internal");
    let servers = [
        Server::uvicorn_echo(Transport::Tcp, None),
        Server::uvicorn_echo(Transport::Unix, None),
        Server::uvicorn_echo(Transport::Tcp, Some((&certificate, &key))),
    ];
    for (server, tls) in servers.iter().zip([false, false, true]) {
        let endpoint = server.endpoint();
        let upstream = match tls {
            false => format!("endpoints: [\"{endpoint}\"], workers: 1"),
            true => format!(
                "endpoints: [\"{}\"], workers: 1, tls: {{ server_name: app.internal, ca: {} }}",
                endpoint.replace("http://", "https://"),
                ca.file().display()
            ),
        };
        let stage = Stage::start(&config(&upstream, "websocket: tunnel"));
        for way in WAYS {
            let mut socket = stage.open(way, "/ws/echo", &[("sec-websocket-protocol", "v2, v1")]);
            assert_eq!(socket.header("sec-websocket-protocol"), Some("v2"));
            for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
                let message = noise(size);
                socket.send(&Frame::new(BINARY, &message));
                assert!(socket.message() == message, "{way:?} {size}");
            }
            socket.send(&Frame::part(TEXT, false, "one "));
            socket.send(&Frame::new(PING, "between"));
            socket.send(&Frame::part(CONTINUATION, false, "two "));
            socket.send(&Frame::part(CONTINUATION, true, "three"));
            assert_eq!(socket.frame(), Some(Frame::new(PONG, "between")), "{way:?}");
            assert_eq!(socket.message(), b"one two three", "{way:?}");
            socket.close(1000);
            let line = stage.gateway.access_line("101", |line| line["status"] == 101);
            assert_eq!(line.get("reason"), None, "{line}");
        }
    }
}

#[test]
fn every_byte_of_both_sides_arrives_as_it_was_sent() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let worker = echoing(transport);
        let stage = Stage::new(&worker.endpoint());
        for (index, way) in WAYS.into_iter().enumerate() {
            let mut socket = stage.open(way, "/", &[]);
            let frames = [
                Frame::part(TEXT, false, "in "),
                // Compressed, and with what no extension has asked for: it is between the two ends.
                Frame { rsv: 4, ..Frame::part(BINARY, true, noise(70_000)) },
                Frame { rsv: 7, ..Frame::new(3, noise(3)) },
                Frame::new(PING, "a"),
                Frame::new(PONG, ""),
                Frame::part(CONTINUATION, true, "parts"),
            ];
            let mut sent = Vec::new();
            for frame in &frames {
                socket.send(frame);
                sent.extend(frame.masked());
                assert_eq!(socket.frame().as_ref(), Some(frame), "{way:?}");
            }
            socket.close(1000);
            worker.wait_ended(index + 1);
            let received = worker.bytes(index);
            let end = received.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            sent.extend(Frame::close(1000).masked());
            assert!(received[end..] == sent, "{way:?} {transport:?}");
            let line = stage.gateway.access_line("the WebSocket", |line| line["status"] == 101);
            assert_eq!((&line["method"], line.get("reason")), (&"GET".into(), None), "{line}");
            assert_eq!(line["bytes_in"].as_u64(), Some(sent.len() as u64), "{line}");
            assert!(line["bytes_out"].as_u64() > Some(70_000), "{line}");
        }
    }
}

#[test]
fn the_worker_is_asked_as_a_browser_would_ask_it() {
    let worker = echoing(Transport::Unix);
    let stage = Stage::new(&worker.endpoint());
    let fields = [
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("sec-websocket-protocol", "chat, v2"),
        ("x-forwarded-for", "192.0.2.9"),
        ("grip-sig", "forged"),
    ];
    for (index, way) in WAYS.into_iter().enumerate() {
        stage.open(way, "/chat?x=1", &fields).close(1000);
        let asked = worker.wait_requests(index + 1);
        assert_eq!(asked.line(), "GET /chat?x=1 HTTP/1.1");
        let key = asked.header("sec-websocket-key").unwrap();
        assert_eq!(key == KEY, way != Way::Http2, "{way:?}: the client's, where it has one");
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("host", "shop.example"),
            ("cookie", "a=1; b=2"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
            ("sec-websocket-protocol", "chat, v2"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", if way == Way::Plain { "http" } else { "https" }),
        ] {
            assert_eq!(asked.header(name).as_deref(), Some(value), "{way:?} {name}: {}", asked.head);
        }
        assert_eq!(asked.all("grip-sig"), [""; 0]);
    }
}

#[test]
fn what_comes_in_one_piece_with_the_heads_is_not_lost() {
    let worker = Worker::unix(|visit| {
        if visit.accept_websocket_and("", &Frame::new(TEXT, "first").plain()) {
            echo(visit);
        }
    });
    let stage = Stage::new(&worker.endpoint());
    for way in WAYS {
        let mut socket = stage.open(way, "/", &[]);
        assert_eq!(socket.message(), b"first", "{way:?}");
        socket.close(1000);
    }
    // With prior knowledge, without TLS.
    let mut socket = WebSocket::over_h2(&stage.gateway.h2(), "/", &[]);
    assert_eq!(socket.message(), b"first");
    let mut client = stage.client(Way::Plain);
    client.send([handshake("/", &[]).into_bytes(), Frame::new(TEXT, "early").masked()].concat());
    let mut socket = WebSocket::opened(client).unwrap();
    assert_eq!([socket.message(), socket.message()], [b"first".to_vec(), b"early".to_vec()]);
}

#[test]
fn the_library_websockets_speaks_through_it_with_compression_and_without() {
    let server = Server::uvicorn_echo(Transport::Unix, None);
    let stage = Stage::new(&server.endpoint());
    let script = format!("{}/tests/python/websocket_client.py", env!("CARGO_MANIFEST_DIR"));
    let root = stage.gateway.root();
    for (scheme, address) in [("ws", stage.gateway.address()), ("wss", stage.gateway.listener("127.0.0.2:0"))] {
        let url = format!("{scheme}://localhost:{}/ws/echo", address.port());
        let (python, address) = (python(), address.to_string());
        let arguments = [&*script, &*url, &*address, root.to_str().unwrap()];
        let output = Tool::start(python.to_str().unwrap(), &arguments).output();
        assert_eq!((output.code, output.stdout.trim()), (Some(0), "ok"), "{url}: {output:?}");
    }
}

#[test]
fn compression_is_agreed_upon_by_both_ends_over_http_2_as_well() {
    let server = Server::uvicorn_echo(Transport::Tcp, None);
    let stage = Stage::new(&server.endpoint());
    for way in WAYS {
        let offer = [("sec-websocket-extensions", "permessage-deflate; server_no_context_takeover")];
        let mut socket = stage.open(way, "/ws/echo", &offer);
        let agreed = socket.header("sec-websocket-extensions").unwrap_or_default().to_owned();
        assert!(agreed.starts_with("permessage-deflate"), "{way:?} {agreed}");
        let text = "the same again and again ".repeat(100);
        socket.text(&text);
        let frame = socket.frame().unwrap();
        assert!(frame.rsv == 4 && frame.payload.len() < text.len() / 4, "{way:?} {frame:?}");
        // RFC 7692, 7.2.2.
        let mut inflate = flate2::Decompress::new(false);
        let mut plain = Vec::with_capacity(text.len() + 64);
        let whole = [&frame.payload[..], &[0, 0, 0xff, 0xff]].concat();
        inflate.decompress_vec(&whole, &mut plain, flate2::FlushDecompress::Sync).unwrap();
        assert_eq!(String::from_utf8(plain).unwrap(), text);
        socket.close(1000);
    }
}

#[test]
fn chromium_opens_one_over_the_http_2_connection_that_it_has() {
    let server = Server::uvicorn_echo(Transport::Unix, None);
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", tls: {{ local: true }} }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\n\
         sites:\n  - routes:\n      - {{ path: /ws/, proxy: app, websocket: tunnel }}\n      - {{ path: /, proxy: app }}\n",
        server.endpoint()
    ));
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Chromium::start(folder.path(), &key_digest(&gateway, folder.path()));
    let port = gateway.address().port();
    browser.load(&format!("https://localhost:{port}/"));
    let script = "new Promise((resolve, reject) => {
        const socket = new WebSocket(`wss://${location.host}/ws/echo`);
        const heard = [];
        socket.onopen = () => { socket.send('grüße'); socket.send('x'.repeat(100000)); };
        socket.onmessage = event => {
            heard.push(event.data.length < 100 ? event.data : event.data.length);
            if (heard.length == 2) socket.close(3001, 'done');
        };
        socket.onclose = event => resolve([...heard, event.code, event.wasClean, socket.extensions != '']);
    })";
    let heard = browser.evaluate(script);
    assert_eq!(heard, serde_json::json!(["grüße", 100_000, 3001, true, true]));
    let line = gateway.access_line("the WebSocket", |line| line["path"] == "/ws/echo");
    assert_eq!((&line["status"], &line["protocol"]), (&101.into(), &"HTTP/2".into()), "{line}");
    // A page of another origin.
    browser.load(&format!("https://127.0.0.1:{port}/"));
    let code = format!(
        "new Promise(resolve => {{ new WebSocket('wss://localhost:{port}/ws/echo').onclose = event => resolve(event.code); }})"
    );
    assert_eq!(browser.evaluate(&code), 1006);
    gateway.access_line("the refusal", |line| line["reason"] == "origin_refused");
}

#[test]
fn the_end_of_one_direction_is_passed_on_and_the_other_goes_on() {
    let worker = Worker::unix(|visit| {
        if !visit.accept_websocket("") {
            return;
        }
        while visit.frame().is_some() {}
        // The client has said all. It still listens.
        visit.send(Frame::new(BINARY, noise(300_000)).plain());
        visit.send(Frame::close(1000).plain());
    });
    let stage = Stage::new(&worker.endpoint());
    for way in WAYS {
        if way == Way::Tls {
            // Half of a TLS connection ends with its goodbye, which this client does not say alone.
            continue;
        }
        let mut socket = stage.open(way, "/", &[]);
        socket.text("all");
        socket.finish();
        assert!(socket.message() == noise(300_000), "{way:?}");
        assert_eq!(socket.frame().unwrap().code(), Some(1000));
        assert_eq!(socket.end(), End::Closed, "{way:?}");
    }
}

#[test]
fn a_worker_that_goes_without_a_word_is_told_of_with_1011() {
    let worker = Worker::unix(|visit| {
        if visit.accept_websocket("") {
            visit.frame();
        }
    });
    let stage = Stage::new(&worker.endpoint());
    for way in WAYS {
        let mut socket = stage.open(way, "/", &[]);
        socket.text("go");
        assert_eq!(socket.frame().unwrap().code(), Some(1011), "{way:?}");
        assert_eq!(socket.end(), End::Closed);
        drop(socket);
        stage.gateway.access_line("cut", |line| line["status"] == 101 && line["reason"] == "websocket_cut");
    }
    assert!(look_until(|| (stage.gateway.failures("app", "websocket_cut") >= 3.0).then_some(())).is_some());
}

#[test]
fn a_worker_that_goes_within_a_frame_breaks_the_connection_off() {
    let worker = Worker::unix(|visit| {
        if visit.accept_websocket("") {
            visit.frame();
            visit.send(&Frame::new(BINARY, noise(100)).plain()[..50]);
        }
    });
    let stage = Stage::new(&worker.endpoint());
    for way in [Way::Plain, Way::Http2] {
        let mut socket = stage.open(way, "/", &[]);
        socket.text("go");
        let (count, end) = socket.drain();
        assert_eq!(end, End::Reset, "{way:?}");
        // Whether what came before the reset is still to be had is up to TCP.
        assert!(count <= 50, "{way:?}: {count}");
        drop(socket);
        stage.gateway.access_line("cut", |line| line["reason"] == "websocket_cut");
    }
}

#[test]
fn a_client_that_vanishes_is_the_end_of_its_worker_s_connection() {
    let worker = Worker::unix(|visit| {
        if visit.accept_websocket("") {
            echo(visit);
            visit.wait_closed();
        }
    });
    let stage = Stage::new(&worker.endpoint());
    for (index, way) in WAYS.into_iter().enumerate() {
        let mut socket = stage.open(way, "/", &[]);
        socket.text("here");
        assert_eq!(socket.message(), b"here");
        socket.reset();
        worker.wait_ended(index + 1);
        stage.gateway.access_line("gone", |line| line["status"] == 101 && line["reason"] == "client_gone");
    }
    stage.tunnels(0.0);
}

#[test]
fn who_does_not_read_stops_who_writes_and_holds_no_memory() {
    const PIECES: usize = 1024;
    const PIECE: usize = 64 << 10;
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    let worker = Worker::unix(move |visit| {
        if !visit.accept_websocket("") {
            return;
        }
        let piece = Frame::new(BINARY, vec![7; PIECE]).plain();
        for _ in 0..PIECES {
            if !visit.send(&piece) {
                return;
            }
            counting.fetch_add(1, Ordering::SeqCst);
        }
        echo(visit);
    });
    let stage = Stage::new(&worker.endpoint());
    let before = stage.gateway.peak_rss_kib();
    for way in [Way::Plain, Way::Http2] {
        sent.store(0, Ordering::SeqCst);
        let mut socket = stage.open(way, "/", &[]);
        // The worker stands still once everything in between is full.
        let (mut last, mut same) = (0, 0);
        let stopped = look_until(|| {
            let now = sent.load(Ordering::SeqCst);
            same = if now == last { same + 1 } else { 0 };
            last = now;
            (now > 0 && same > 60).then_some(now)
        });
        assert!(stopped.is_some_and(|pieces| pieces < PIECES), "{way:?}: nobody stopped the worker");
        // The connection is not held up by it.
        if let Some(h2) = &socket.h2 {
            let refused = h2.open(request("TRACE", "/", &[]), true).response();
            assert_eq!(refused.status, 501);
        }
        for _ in 0..PIECES {
            assert!(socket.message().len() == PIECE);
        }
        socket.close(1000);
    }
    let grown = stage.gateway.peak_rss_kib() - before;
    assert!(grown < 16 << 10, "{grown} KiB for 64 MiB that nobody read");
}

#[test]
fn a_worker_that_does_not_read_stops_its_client_and_nobody_else() {
    let latch = Latch::default();
    let wait = latch.clone();
    let worker = Worker::unix(move |visit| {
        if visit.accept_websocket("") {
            wait.wait();
            visit.wait_closed();
        }
    });
    let stage = Stage::new(&worker.endpoint());
    let before = stage.gateway.peak_rss_kib();
    let h2 = stage.h2();
    let mut tunnels: Vec<_> = (0..12)
        .map(|_| {
            let stream = h2.connect_for("websocket", "/", &[("sec-websocket-version", "13")]);
            stream.tunnel().unwrap_or_else(|response| panic!("{response:?}")).0
        })
        .collect();
    for tunnel in &mut tunnels {
        let sent = tunnel.send_what_goes(64 << 20, std::time::Duration::from_millis(300));
        assert!((100 << 10..8 << 20).contains(&sent), "{sent} bytes went");
    }
    // Together they have used up more than a connection without WebSockets would have.
    let upload = h2.send(request("POST", "/", &[]), &noise(200 << 10));
    assert_eq!((upload.status, upload.text()), (200, "page"));
    assert_eq!(worker.requests().last().unwrap().body.len(), 200 << 10);
    let grown = stage.gateway.peak_rss_kib() - before;
    assert!(grown < 16 << 10, "{grown} KiB");
    latch.open();
}

#[test]
fn small_messages_that_nobody_reads_are_no_more_than_their_bytes() {
    const MESSAGES: usize = 30_000;
    let latch = Latch::default();
    let wait = latch.clone();
    let worker = Worker::unix(move |visit| {
        if visit.accept_websocket("") {
            wait.wait();
            echo(visit);
        }
    });
    let stage = Stage::new(&worker.endpoint());
    let h2 = stage.h2();
    let mut sockets = [WebSocket::over_h2(&h2, "/", &[]), WebSocket::over_h2(&h2, "/", &[])];
    let before = stage.gateway.peak_rss_kib();
    for socket in &mut sockets {
        // Less than a stream's window.
        for _ in 0..MESSAGES {
            socket.text("x");
        }
    }
    assert_eq!(h2.open(request("TRACE", "/", &[]), true).response().status, 501, "they have arrived");
    let grown = stage.gateway.peak_rss_kib() - before;
    // `h2` alone would keep some 256 bytes for each: 15 MiB.
    assert!(grown < 9 << 10, "{grown} KiB");
    latch.open();
    for mut socket in sockets {
        for _ in 0..MESSAGES {
            assert_eq!(socket.message(), b"x");
        }
        socket.close(1000);
    }
}

#[test]
fn messages_of_a_few_bytes_are_no_flood() {
    const MESSAGES: usize = 30_000;
    let worker = Worker::unix(|visit| {
        if !visit.accept_websocket("") {
            return;
        }
        for _ in 0..MESSAGES {
            if visit.frame().is_none() {
                return;
            }
        }
        visit.send(Frame::new(TEXT, "all of them").plain());
        echo(visit);
    });
    let stage = Stage::new(&worker.endpoint());
    let mut socket = stage.open(Way::Http2, "/", &[]);
    let message = Frame::new(TEXT, "x");
    for _ in 0..MESSAGES {
        socket.send(&message);
    }
    assert_eq!(socket.message(), b"all of them");
    socket.close(1000);
}

#[test]
fn a_tunnel_holds_no_slot_and_an_idle_one_lives_on_whatever_limits_say() {
    let worker = echoing(Transport::Unix);
    let page = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let stage = Stage::start(&format!(
        "{LISTENERS}limits: {{ idle_timeout: 1s, header_timeout: 1s, body_rate: {{ min: 500, after: 1s }}, read_rate: {{ min: 500, after: 1s }} }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1, timeouts: {{ head: 1s, idle: 1s }}, abandon: 1s }}\n\
         \x20 page: {{ endpoints: [\"{}\"], workers: 1 }}\n\
         sites:\n  - routes:\n      - {{ path: /page, proxy: page }}\n      - {{ path: /, proxy: app, websocket: tunnel, timeout: 1s }}\n",
        worker.endpoint(),
        page.endpoint()
    ));
    let mut open: Vec<Open> = WAYS.into_iter().map(|way| stage.open(way, "/", &[])).collect();
    stage.tunnels(3.0);
    assert_eq!(stage.gateway.metric("hostler_in_flight{upstream=\"app\"}"), 0.0);
    // Clients that are not WebSockets are sent away meanwhile, one after the other.
    for _ in 0..3 {
        let mut idle = stage.client(Way::Plain);
        assert_eq!(idle.get("/page").text(), "ok");
        assert_eq!(idle.end(), End::Closed);
    }
    for socket in &mut open {
        socket.text("still here");
        assert_eq!(socket.message(), b"still here");
    }
    for socket in open {
        socket.close(1000);
    }
    stage.tunnels(0.0);
}

#[test]
fn a_client_that_is_silent_is_asked_for_a_word_and_one_that_has_none_is_given_up() {
    let worker = echoing(Transport::Unix);
    let stage = Stage::with(&worker.endpoint(), "websocket: { mode: tunnel, ping: 1s }");
    for way in WAYS {
        let mut socket = stage.open(way, "/", &[]);
        assert_eq!(socket.frame(), Some(Frame::new(PING, "")), "{way:?}");
        // Its answer goes on to the worker, which here says what it hears.
        socket.send(&Frame::new(PONG, ""));
        assert_eq!(socket.frame(), Some(Frame::new(PONG, "")), "{way:?}");
        let mut pings = 0;
        while let Some(frame) = socket.frame() {
            assert_eq!(frame, Frame::new(PING, ""), "{way:?}");
            pings += 1;
        }
        assert!((3..=4).contains(&pings), "{way:?}: {pings}");
        drop(socket);
        stage.gateway.access_line("given up", |line| line["reason"] == "ping_timeout");
    }
}

#[test]
fn a_page_of_another_origin_does_not_come_to_the_app() {
    let worker = echoing(Transport::Unix);
    let start = |origins: &str| {
        let route = format!("websocket: {{ mode: tunnel, origins: {origins} }}");
        Stage::with(&worker.endpoint(), &route)
    };
    let (same, any, listed) = (start("same"), start("any"), start("[\"https://app.example\"]"));
    let opened = |stage: &Stage, way, origin: &str| {
        let fields = [("origin", origin)];
        let result = stage.try_open(way, "/", if origin.is_empty() { &[] } else { &fields });
        result.map(|socket| socket.close(1000)).map_err(|response| {
            assert!(response.text().contains("reason: origin_refused"), "{response:?}");
            response.status
        })
    };
    assert_eq!(opened(&same, Way::Plain, "https://app.example"), Err(403));
    let hint = same.gateway.log_event("a hint", |event| event.to_string().contains("websocket.origins"));
    assert!(hint["origin"].as_str().is_some_and(|origin| origin.contains("https://app.example")), "{hint}");
    let own = |way| if way == Way::Plain { "http://shop.example" } else { "https://shop.example" };
    for way in WAYS {
        assert_eq!(opened(&same, way, own(way)), Ok(()), "{way:?}");
        assert_eq!(opened(&same, way, ""), Ok(()), "{way:?}");
        for foreign in ["https://evil.example", "null", "https://shop.example.evil.example", "https://shop.example:444"]
        {
            assert_eq!(opened(&same, way, foreign), Err(403), "{way:?} {foreign}");
            assert_eq!(opened(&any, way, foreign), Ok(()), "{way:?} {foreign}");
            assert_eq!(opened(&listed, way, foreign), Err(403), "{way:?} {foreign}");
        }
        assert_eq!(opened(&listed, way, "https://app.example"), Ok(()), "{way:?}");
        assert_eq!(opened(&listed, way, own(way)), Err(403), "{way:?}");
    }
    // Two of `same`, four of `any` and one of `listed`, each way.
    assert_eq!(worker.requests().len(), 3 * 7);
}

#[test]
fn what_routes_do_to_the_field_opens_no_door_and_another_route_may_hand_it_on() {
    let worker = echoing(Transport::Unix);
    for rules in ["remove: [Origin]", "set: { Origin: \"https://shop.example\" }"] {
        let stage = Stage::start(&format!(
            "{LISTENERS}upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 4 }}\nsites:\n  - routes:\n\
             \x20     - {{ path: /files/, files: {{ root: \"@folder@\", fallback: next }}, headers: {{ request: {{ {rules} }} }} }}\n\
             \x20     - {{ path: /, proxy: app, websocket: tunnel, headers: {{ request: {{ {rules} }} }} }}\n",
            worker.endpoint()
        ));
        for way in WAYS {
            for path in ["/", "/files/ws"] {
                let foreign = stage.try_open(way, path, &[("origin", "https://evil.example")]);
                assert_eq!(foreign.err().map(|response| response.status), Some(403), "{rules} {way:?} {path}");
                let own = if way == Way::Plain { "http://shop.example" } else { "https://shop.example" };
                stage.open(way, path, &[("origin", own)]).close(1000);
            }
        }
    }
}

#[test]
fn as_many_are_open_as_the_route_allows() {
    let worker = echoing(Transport::Unix);
    let stage = Stage::with(&worker.endpoint(), "websocket: { mode: tunnel, max: 2 }");
    let (first, second) = (stage.open(Way::Plain, "/", &[]), stage.open(Way::Http2, "/", &[]));
    for way in WAYS {
        let refused = stage.try_open(way, "/", &[]).err().expect("a refusal");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{refused:?}");
        assert!(refused.text().contains("websockets_full"));
    }
    second.close(1000);
    stage.tunnels(1.0);
    let third = stage.open(Way::Tls, "/", &[]);
    // What is open goes on counting after a reload.
    let upstream = format!("endpoints: [\"{}\"], workers: 4", worker.endpoint());
    stage.gateway.reload(&config(&upstream, "websocket: { mode: tunnel, max: 1 }"));
    assert_eq!(stage.try_open(Way::Plain, "/", &[]).err().map(|response| response.status), Some(503));
    first.close(1000);
    third.close(1000);
    stage.tunnels(0.0);
    stage.open(Way::Plain, "/", &[]).close(1000);
}

#[test]
fn who_may_not_use_the_route_gets_no_websocket() {
    let worker = echoing(Transport::Unix);
    let stage = Stage::with(&worker.endpoint(), "websocket: tunnel, auth: { allow: [192.0.2.0/24] }");
    for way in WAYS {
        let refused = stage.try_open(way, "/", &[("origin", "https://evil.example")]).err().expect("a refusal");
        assert!(refused.status == 403 && refused.text().contains("reason: forbidden"), "{refused:?}");
    }
    let stage = Stage::with(&worker.endpoint(), "websocket: tunnel, rate_limit: { rate: 1/h, burst: 1 }");
    stage.open(Way::Http2, "/", &[]).close(1000);
    assert_eq!(stage.try_open(Way::Http2, "/", &[]).err().map(|response| response.status), Some(429));
}

#[test]
fn a_handshake_that_is_none_has_its_reason() {
    let worker = echoing(Transport::Unix);
    let stage = Stage::new(&worker.endpoint());
    let without = |name: &str| handshake("/", &[(name, "")]);
    let plain_handshake = handshake("/", &[]);
    for (name, text, status, reason) in [
        ("no key", without("Sec-WebSocket-Key"), 400, "websocket_malformed"),
        ("a short key", handshake("/", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ==")]), 400, "websocket_malformed"),
        ("no Connection", without("Connection"), 400, "websocket_malformed"),
        ("another method", plain_handshake.replace("GET ", "DELETE "), 400, "websocket_malformed"),
        ("a body", format!("{}x", handshake("/", &[("Content-Length", "1")])), 400, "websocket_malformed"),
        ("no version", without("Sec-WebSocket-Version"), 426, "websocket_version"),
        ("another version", handshake("/", &[("Sec-WebSocket-Version", "8")]), 426, "websocket_version"),
    ] {
        let mut client = stage.client(Way::Plain);
        client.send(&text);
        let response = client.response("GET");
        assert_eq!(
            (response.status, &stage.gateway.access_of(&response)["reason"]),
            (status, &reason.into()),
            "{name}"
        );
        let is_version = status == 426;
        assert_eq!(response.header("sec-websocket-version"), is_version.then_some("13"), "{name}");
        assert_eq!(response.header("upgrade"), is_version.then_some("websocket"), "{name}: {response:?}");
        if is_version {
            assert_eq!(response.header("connection"), Some("Upgrade"), "{name}");
            // Nothing stands in the way of another try.
            client.send(handshake("/", &[]));
            assert_eq!(client.head().map(|(status, _)| status), Some(101));
        }
    }
    let h2 = stage.h2();
    let refused = h2.connect_for("websocket", "/", &[]).tunnel().err().expect("a refusal");
    assert_eq!((refused.status, refused.header("sec-websocket-version")), (426, Some("13")));
    let refused = h2.connect_for("connect-udp", "/", &[]).tunnel().err().expect("a refusal");
    assert!(refused.status == 501 && refused.text().contains("protocol_unknown"), "{refused:?}");
    let plain = http::Request::builder().method("CONNECT").uri("shop.example:443").body(()).unwrap();
    let refused = h2.open(plain, false).response();
    assert!(refused.status == 501 && refused.text().contains("bad_method"), "{refused:?}");
    // An ordinary request of the route is one; and HTTP/1.0 knows no upgrade.
    assert_eq!(h2.get("/").status, 200);
    let mut old = stage.client(Way::Plain);
    // The scripted worker goes by the key.
    old.send(without("Sec-WebSocket-Key").replace("HTTP/1.1", "HTTP/1.0"));
    let response = old.response("GET");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(worker.wait_requests(4).all("upgrade"), [""; 0]);
}

#[test]
fn http_2_is_told_of_websockets_only_where_a_route_takes_them() {
    let worker = echoing(Transport::Unix);
    let upstream = format!("endpoints: [\"{}\"], workers: 4", worker.endpoint());
    let off = config(&upstream, "websocket: off");
    let stage = Stage::start(&off);
    let ask = |stage: &Stage| {
        let h2 = stage.h2();
        let probe = h2.open(request("TRACE", "/", &[]), true).response();
        assert_eq!(probe.status, 501, "the settings have come before the first answer");
        h2
    };
    assert!(!ask(&stage).takes_websockets());
    stage.gateway.reload(&config(&upstream, "websocket: tunnel"));
    let told = ask(&stage);
    assert!(told.takes_websockets());
    WebSocket::over_h2(&told, "/", &[]).close(1000);
    // What has been said stays said, and each is refused by itself.
    stage.gateway.reload(&off);
    let refused = WebSocket::try_over_h2(&told, "/", &[]).err().expect("a refusal");
    assert!(refused.status == 501 && refused.text().contains("upgrade_refused"), "{refused:?}");
    assert!(!ask(&stage).takes_websockets());
}

#[test]
fn an_app_that_refuses_answers_with_its_own_page() {
    let server = Server::uvicorn_echo(Transport::Unix, None);
    let stage = Stage::new(&server.endpoint());
    for way in WAYS {
        let refused = stage.try_open(way, "/ws/refuse", &[]).err().expect("a refusal");
        assert_eq!((refused.status, refused.text(), refused.header("x-why")), (403, "members only", Some("members")));
        let line = stage.gateway.access_line("403", |line| line["status"] == 403);
        assert_eq!(line.get("reason"), None, "{line}");
    }
    stage.gateway.wait_idle();
}

#[test]
fn a_page_instead_of_a_websocket_is_no_success_over_http_2() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
    let stage = Stage::new(&worker.endpoint());
    let response = stage.try_open(Way::Plain, "/", &[]).err().expect("a page");
    assert_eq!((response.status, response.text()), (200, "page"));
    let response = stage.try_open(Way::Http2, "/", &[]).err().expect("a refusal");
    assert!(response.status == 501 && response.text().contains("upgrade_refused"), "{response:?}");
    assert_eq!(stage.gateway.failures("app", "upgrade_refused"), 0.0, "it is not the app's");
}

#[test]
fn a_worker_s_101_that_does_not_fit_is_none() {
    for head in [
        format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n", "x".repeat(28)),
        "Upgrade: websocket\r\nConnection: Upgrade\r\n".to_owned(),
        format!("Connection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n"),
        format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n"),
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{head}\r\n");
        let worker = Worker::answering(Transport::Unix, answer);
        let stage = Stage::new(&worker.endpoint());
        let refused = stage.try_open(Way::Plain, "/", &[]).err().expect("a refusal");
        assert!(refused.status == 502 && refused.text().contains("handshake_mismatch"), "{head}: {refused:?}");
        stage.gateway.wait_idle();
        stage.gateway.wait_failures("app", "handshake_mismatch", 1.0);
    }
    // To a request that asks for no WebSocket it is no answer at all.
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    let stage = Stage::new(&worker.endpoint());
    assert!(stage.client(Way::Plain).get("/").text().contains("bad_head"));
}

#[test]
fn a_handshake_is_sent_again_as_any_get_is() {
    let worker = Worker::unix(|visit| {
        if visit.index == 0 {
            visit.request();
        } else if visit.accept_websocket("") {
            echo(visit);
        }
    });
    let stage = Stage::new(&worker.endpoint());
    stage.open(Way::Http2, "/", &[]).close(1000);
    assert_eq!(worker.connections(), 2);
}

#[test]
fn a_handshake_waits_for_a_worker_that_is_being_deployed() {
    let stage = Stage::new("unix:./app.sock");
    let mut client = stage.client(Way::Plain);
    client.send(handshake("/", &[]));
    let h2 = stage.h2();
    let stream = h2.connect_for("websocket", "/", &[("sec-websocket-version", "13")]);
    stage.gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 2.0);
    let worker = echoing(Transport::Unix);
    let socket = worker.endpoint().replace("unix:", "");
    std::os::unix::fs::symlink(socket, stage.gateway.folder().join("app.sock")).unwrap();
    WebSocket::opened(client).unwrap().close(1000);
    assert!(stream.tunnel().is_ok());
    assert_eq!(worker.requests().len(), 2);
}

/// Each has its turn to hear of a drain, and so long for its goodbye: they do not wait for each other.
fn at_once<T: Send>(sockets: &mut [T], hears: impl Fn(&mut T) + Sync) {
    std::thread::scope(|scope| sockets.iter_mut().for_each(|socket| drop(scope.spawn(|| hears(socket)))));
}

/// What a client hears of a drain, and what the log says.
fn drained(stage: Stage, mut open: Vec<Open>, before: &[u8]) {
    stage.gateway.signal(Signal::TERM);
    at_once(&mut open, |socket| {
        assert!(before.is_empty() || socket.message() == before);
        assert_eq!(socket.frame().map(|frame| frame.code()), Some(Some(1001)));
        // A client says goodbye in turn, which the worker hears.
        socket.send(&Frame::close(1001));
        assert_eq!(socket.end(), End::Closed);
    });
    let count = open.len();
    drop(open);
    let ended = stage.gateway.ended();
    assert!(ended.log.iter().any(|line| line.contains("everything in flight has ended")), "{:#?}", ended.log);
    let lines = ended.access.iter().filter(|line| line["status"] == 101 && line["reason"] == "shutting_down");
    assert_eq!(lines.count(), count, "{:#?}", ended.access);
}

#[test]
fn a_drain_says_1001_and_the_app_hears_it() {
    let server = Server::uvicorn_echo(Transport::Unix, None);
    let stage = Stage::new(&server.endpoint());
    let open: Vec<Open> = WAYS.into_iter().map(|way| stage.open(way, "/ws/echo", &[])).collect();
    stage.tunnels(3.0);
    drained(stage, open, b"");
    server.wait_log("disconnect 1001");
}

#[test]
fn a_drain_says_its_word_between_two_frames() {
    let latch = Latch::default();
    let wait = latch.clone();
    let worker = Worker::unix(move |visit| {
        if !visit.accept_websocket("") {
            return;
        }
        let frame = Frame::new(BINARY, noise(1000)).plain();
        visit.send(&frame[..500]);
        wait.wait();
        visit.send(&frame[500..]);
        visit.send(Frame::new(TEXT, "behind it").plain());
        echo(visit);
    });
    let stage = Stage::new(&worker.endpoint());
    let mut open: Vec<Open> = WAYS.into_iter().map(|way| stage.open(way, "/", &[])).collect();
    let mut begun = Vec::new();
    for socket in &mut open {
        begun.push(socket.take(500).unwrap());
    }
    stage.gateway.signal(Signal::TERM);
    stage
        .gateway
        .log_event("stopping", |event| event["message"].as_str().is_some_and(|text| text.starts_with("stopping")));
    latch.open();
    let mut open: Vec<_> = open.iter_mut().zip(begun).collect();
    at_once(&mut open, |(socket, begun)| {
        let rest = socket.take(504).unwrap();
        assert!([&begun[..], &rest].concat() == Frame::new(BINARY, noise(1000)).plain());
        let mut last = socket.frame().unwrap();
        if last.code().is_none() {
            // Its turn to hear of it had not come.
            assert_eq!(last, Frame::new(TEXT, "behind it"));
            last = socket.frame().unwrap();
        }
        assert_eq!(last.code(), Some(1001));
        socket.send(&Frame::close(1001));
        assert_eq!(socket.end(), End::Closed);
    });
}

#[test]
fn a_reload_ends_nothing_even_where_route_and_upstream_are_gone() {
    let worker = echoing(Transport::Unix);
    let stage = Stage::new(&worker.endpoint());
    let mut open: Vec<Open> = WAYS.into_iter().map(|way| stage.open(way, "/", &[])).collect();
    let page = format!("{LISTENERS}sites:\n  - routes: [{{ path: /page, respond: {{ body: ok }} }}]\n");
    let again = config(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()), "websocket: off");
    for config in [page, again] {
        stage.gateway.reload(&config);
        // Every thread has taken it up.
        stage.client(Way::Plain).get("/page");
        for socket in &mut open {
            socket.text("still here");
            assert_eq!(socket.message(), b"still here");
        }
    }
    stage.tunnels(3.0);
    for socket in open {
        socket.close(1000);
    }
    stage.tunnels(0.0);
}

#[test]
fn a_worker_that_closes_says_so_with_its_own_code() {
    let server = Server::uvicorn_echo(Transport::Tcp, None);
    let stage = Stage::new(&server.endpoint());
    for way in WAYS {
        let mut socket = stage.open(way, "/ws/echo", &[]);
        socket.text("leave");
        let frame = socket.frame().unwrap();
        assert_eq!((frame.code(), &frame.payload[2..]), (Some(4001), &b"as you wish"[..]), "{way:?}");
        socket.send(&Frame::close(4001));
        assert_eq!(socket.end(), End::Closed, "{way:?}");
        let line = stage.gateway.access_line("101", |line: &Value| line["status"] == 101);
        assert_eq!(line.get("reason"), None, "{line}");
    }
}

#[test]
fn after_a_refused_upgrade_the_connection_serves_on() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");
    let stage = Stage::new(&worker.endpoint());
    let mut client = stage.client(Way::Plain);
    client.send(handshake("/", &[]));
    assert_eq!(client.response("GET").status, 404);
    client.send(get("/"));
    assert_eq!(client.response("GET").text(), "no");
}

#[test]
fn a_client_that_breaks_off_while_its_worker_reads_nothing_gives_its_place_back() {
    use std::io::{Read as _, Write as _};
    let latch = Latch::default();
    let wait = latch.clone();
    let worker = Worker::unix(move |visit| {
        if visit.accept_websocket("") {
            wait.wait();
        }
    });
    let stage = Stage::new(&worker.endpoint());
    let mut client = std::net::TcpStream::connect(stage.gateway.address().to_string()).unwrap();
    client.write_all(handshake("/", &[]).as_bytes()).unwrap();
    let mut head = [0; 1024];
    let read = client.read(&mut head).unwrap();
    assert!(head[..read].starts_with(b"HTTP/1.1 101"));
    // As much as goes, until everything in between is full.
    client.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let message = Frame::new(BINARY, vec![7; 64 << 10]).masked();
    while client.write_all(&message).is_ok() {}
    stage.tunnels(1.0);
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    stage.tunnels(0.0);
    stage.gateway.access_line("gone", |line| line["status"] == 101 && line["reason"] == "client_gone");
    latch.open();
}
