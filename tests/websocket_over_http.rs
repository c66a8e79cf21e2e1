//! `websocket: over_http`: WebSockets to Flask on gunicorn's sync workers, by gripcontrol alone.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::client::End;
use crate::support::gateway::Signal;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::h2::request;
use crate::support::websocket::{BINARY, CLOSE, Frame, PING, PONG, TEXT, handshake};
use crate::support::worker::Transport;
use crate::support::{Address, Client, Gateway, Gunicorn, H2, Latch, WebSocket, Worker, look_until};

/// A Flask app, a gateway before it, and what the app has noted.
pub(crate) struct Site {
    pub(crate) gunicorn: Gunicorn,
    pub(crate) gateway: Gateway,
    folder: TempDir,
    /// Connections of HTTP/2, which live as long as the site.
    connections: RefCell<Vec<H2>>,
}

/// What the app has noted of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) connection: String,
    pub(crate) event: String,
    pub(crate) content: Vec<u8>,
}

/// The ways in which a client may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Http1,
    Tls,
    Http2,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Http1, Self::Tls, Self::Http2];
}

pub(crate) const SOCKETS: &str = "websocket: { mode: over_http, origins: any }";

impl Site {
    /// With so many sync workers on a unix socket.
    pub(crate) fn start(workers: u32) -> Self {
        Self::start_with(workers, Transport::Unix, SOCKETS, "", &[])
    }

    /// `route` are keys of the route, `upstream` of the upstream; `variables` are for the app.
    pub(crate) fn start_with(
        workers: u32,
        transport: Transport,
        route: &str,
        upstream: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        std::fs::write(&journal, "").unwrap();
        let plan = Plan::new(Kind::Sync, workers, transport).serving("websocket_flask");
        let plan = plan.variable("JOURNAL", journal.to_str().unwrap());
        let plan = variables.iter().fold(plan, |plan, (name, value)| plan.variable(name, value));
        let gunicorn = plan.start();
        let gateway = Gateway::start(&config(&gunicorn, workers, route, upstream));
        Self { gunicorn, gateway, folder, connections: RefCell::default() }
    }

    pub(crate) fn open(&self, path: &str) -> WebSocket {
        WebSocket::open(Client::connect(self.gateway.listener(PLAIN)), path, &[])
    }

    pub(crate) fn open_by(&self, way: Way, path: &str, fields: &[(&str, &str)]) -> WebSocket {
        let (secure, root) = (self.gateway.listener(SECURE), self.gateway.root());
        match way {
            Way::Http1 => WebSocket::open(Client::connect(self.gateway.listener(PLAIN)), path, fields),
            Way::Tls => WebSocket::open(Client::tls(secure, "localhost", &root), path, fields),
            Way::Http2 => {
                let h2 = H2::tls(secure, "localhost", &root);
                let socket = WebSocket::over_h2(&h2, path, fields);
                self.connections.borrow_mut().push(h2);
                socket
            }
        }
    }

    /// Where it is not.
    pub(crate) fn plain(&self) -> &Address {
        self.gateway.listener(PLAIN)
    }

    /// Where TLS is spoken.
    pub(crate) fn secure(&self) -> &Address {
        self.gateway.listener(SECURE)
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// What the app has noted so far.
    pub(crate) fn noted(&self) -> Vec<Noted> {
        let text = std::fs::read_to_string(self.journal()).unwrap();
        let lines = text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ' ');
            let (connection, event, content) = (parts.next()?, parts.next()?, parts.next()?);
            let byte = |at: usize| u8::from_str_radix(&content[at..at + 2], 16).unwrap();
            let content = (0..content.len()).step_by(2).map(byte).collect();
            Some(Noted { connection: connection.to_owned(), event: event.to_owned(), content })
        });
        lines.collect()
    }

    /// Waits until the app has noted that.
    pub(crate) fn wait_noted(&self, what: &str, is_it: impl Fn(&[Noted]) -> bool) {
        let found = look_until(|| is_it(&self.noted()).then_some(()));
        if found.is_none() {
            self.gateway.fail(&format!(
                "not noted: {what}; but {:#?}\n{}",
                self.noted(),
                self.gunicorn.log().join("\n")
            ));
        }
    }

    /// Waits until the app has noted these events, and no others.
    fn wait_events(&self, events: &[&str]) {
        self.wait_noted(&events.join(" "), |noted| {
            noted.iter().map(|noted| noted.event.as_str()).eq(events.iter().copied())
        });
    }
}

const PLAIN: &str = "127.0.0.1:0";
const SECURE: &str = "127.0.0.2:0";

pub(crate) fn config(gunicorn: &Gunicorn, workers: u32, route: &str, upstream: &str) -> String {
    format!(
        "listeners:\n  - {{ bind: \"{PLAIN}\" }}\n  - {{ bind: \"{SECURE}\", tls: {{ local: true }} }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: {workers}{upstream} }}\n\
         sites:\n  - routes:\n      - {{ path: /, proxy: app, {route} }}\n",
        gunicorn.endpoint()
    )
}

/// The next frame, which has to be a Close: its code.
fn closed(socket: &mut WebSocket) -> Option<u16> {
    let frame = socket.frame().expect("a frame");
    assert_eq!(frame.opcode, CLOSE, "{frame:?}");
    frame.code()
}

fn said(socket: &mut WebSocket) -> String {
    String::from_utf8(socket.message()).unwrap()
}

#[test]
fn an_app_of_gripcontrol_accepts_echoes_and_closes_by_every_way_in() {
    let site = Site::start_with(2, Transport::Unix, &format!("{SOCKETS}, grip: true"), "", &[]);
    for way in Way::ALL {
        let mut socket = site.open_by(way, "/context", &[]);
        assert_eq!(socket.header("sec-websocket-extensions"), None, "{way:?}");
        for word in ["hello", "", "ä€😀", &"x".repeat(70_000)] {
            socket.text(word);
            assert_eq!(said(&mut socket), word, "{way:?}");
        }
        socket.close(4001);
    }
    site.wait_events(&[
        "OPEN", "TEXT", "TEXT", "TEXT", "TEXT", "CLOSE", "OPEN", "TEXT", "TEXT", "TEXT", "TEXT", "CLOSE", "OPEN",
        "TEXT", "TEXT", "TEXT", "TEXT", "CLOSE",
    ]);
    let connections: std::collections::HashSet<_> = site.noted().into_iter().map(|noted| noted.connection).collect();
    assert_eq!(connections.len(), 3);
    site.gateway.wait_metric("hostler_holds{kind=\"websocket\"}", 0.0);
    let series = |direction| format!("hostler_websocket_messages_total{{direction=\"{direction}\",route=\"/\"}}");
    assert_eq!((site.gateway.metric(&series("in")), site.gateway.metric(&series("out"))), (12.0, 12.0));
    let line = site.gateway.access_line("/context", |line| line["path"] == "/context");
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &serde_json::Value::Null), "{line}");
}

#[test]
fn the_app_is_asked_with_the_clients_fields_and_the_client_gets_the_apps() {
    let site = Site::start(1);
    let forged = [
        ("connection-id", "forged"),
        ("meta-user", "forged"),
        ("grip-sig", "forged"),
        ("content-bytes-replayed", "1"),
        ("accept", "text/forged"),
        ("accept-encoding", "gzip"),
        ("idempotency-key", "forged"),
    ];
    let honest = [
        ("cookie", "a=1"),
        ("origin", "https://other.example"),
        ("sec-websocket-protocol", "v1, v2"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("authorization", "Basic eDp5"),
    ];
    for way in Way::ALL {
        let mut socket = site.open_by(way, "/fields?x=1", &[&forged[..], &honest[..]].concat());
        assert_eq!(socket.header("sec-websocket-protocol"), Some("v2"));
        assert_eq!(socket.header("sec-websocket-extensions"), None);
        assert!(socket.header("set-cookie").is_some_and(|cookie| cookie.starts_with("seen=1")));
        for name in ["content-type", "content-length", "set-meta-user"] {
            assert_eq!(socket.header(name), None, "{name}");
        }
        let first = said(&mut socket);
        let line = |text: &str, name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        for (name, value) in [
            ("accept", "application/websocket-events"),
            ("content-type", "application/websocket-events"),
            ("cookie", "a=1"),
            ("origin", "https://other.example"),
            ("sec-websocket-protocol", "v1, v2"),
            ("authorization", "Basic eDp5"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", if way == Way::Http1 { "http" } else { "https" }),
            ("content-length", "6"),
        ] {
            assert_eq!(line(&first, name).as_deref(), Some(value), "{way:?}: {first}");
        }
        for name in [
            "meta-user",
            "grip-sig",
            "content-bytes-replayed",
            "accept-encoding",
            "idempotency-key",
            "sec-websocket-extensions",
            "upgrade",
            "connection-id: forged",
        ] {
            assert!(!first.contains(&format!("{name}:")), "{way:?}: {name} in {first}");
        }
        let id = line(&first, "connection-id").unwrap();
        assert_eq!(id.len(), 32, "{id}");
        socket.text("and now");
        let second = said(&mut socket);
        assert_eq!((line(&second, "meta-user").as_deref(), line(&second, "connection-id")), (Some("bob"), Some(id)));
        assert_eq!(line(&second, "cookie").as_deref(), Some("a=1"));
        socket.text("forget");
        said(&mut socket);
        socket.text("and now");
        assert_eq!(line(&said(&mut socket), "meta-user"), None);
        socket.reset();
    }
}

#[test]
fn a_refusal_is_the_clients_answer() {
    let site = Site::start(1);
    let fields: [(&str, &str); 0] = [];
    for status in [302, 400, 403, 404, 500] {
        let path = format!("/refused/{status}");
        let over_h1 = WebSocket::try_open(site.gateway.client(), &path, &fields);
        let h2 = H2::tls(site.gateway.listener(SECURE), "localhost", &site.gateway.root());
        let over_h2 = WebSocket::try_over_h2(&h2, &path, &fields);
        for response in [over_h1, over_h2].map(|result| result.err().expect("a refusal")) {
            assert_eq!((response.status, response.text()), (status, "not you\n"));
            assert_eq!(response.header("x-why"), Some("because"));
        }
    }
    // Over HTTP/2 a 200 would be a WebSocket.
    for path in ["/refused/200", "/odd/nothing/here"] {
        let h2 = H2::tls(site.gateway.listener(SECURE), "localhost", &site.gateway.root());
        let over_h2 = WebSocket::try_over_h2(&h2, path, &fields).err().expect("a refusal");
        let over_h1 = WebSocket::try_open(site.gateway.client(), path, &fields).err().expect("a refusal");
        let expected = if path == "/refused/200" { 502 } else { 404 };
        assert_eq!((over_h1.status, over_h2.status), (expected, expected), "{over_h1:?}");
        if expected == 502 {
            assert!(over_h1.text().contains("bad_events"), "{over_h1:?}");
        }
    }
    site.gateway.wait_failures("app", "bad_events", 2.0);
    assert_eq!(site.gateway.metric("hostler_holds{kind=\"websocket\"}"), 0.0);
}

#[test]
fn other_requests_to_the_route_are_as_before() {
    let site = Site::start(1);
    let mut client = site.gateway.client();
    assert_eq!(client.get("/quick").text(), "quick");
    // But nobody else speaks for the edge.
    for media_type in ["application/websocket-events", "Application/WebSocket-Events; x=1"] {
        let mut client = site.gateway.client();
        client.send(format!(
            "POST /numbers HTTP/1.1\r\nHost: shop.example\r\nConnection-Id: x\r\nMeta-User: admin\r\nContent-Type: {media_type}\r\nContent-Length: 6\r\n\r\nOPEN\r\n"
        ));
        let response = client.response("POST");
        assert_eq!(response.status, 403, "{response:?}");
        assert!(response.text().contains("events_forged"), "{response:?}");
    }
    // Nor does the app take anything else for its word: without a Connection-Id this one cannot go on.
    client.send(
        "POST /fields HTTP/1.1\r\nHost: shop.example\r\nConnection-Id: x\r\nMeta-User: admin\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nOPEN\r\n",
    );
    assert!(client.response("POST").status >= 400);
    assert_eq!(site.noted(), []);
}

#[test]
fn pings_are_answered_here_and_cost_no_worker() {
    let site = Site::start(1);
    for way in Way::ALL {
        let mut socket = site.open_by(way, "/echo", &[]);
        for payload in [&b""[..], b"x", &[0xff; 125]] {
            socket.send(&Frame::new(PING, payload));
            assert_eq!(socket.frame(), Some(Frame::new(PONG, payload)), "{way:?}");
        }
        socket.send(&Frame::new(PONG, "unasked"));
        socket.text("a");
        assert_eq!(socket.frame(), Some(Frame::new(TEXT, "a")));
        socket.close(1000);
    }
    let asked = site.gateway.metric("hostler_websocket_requests_total{outcome=\"answered\",route=\"/\"}");
    assert_eq!(asked, 9.0, "OPEN, TEXT and CLOSE, three times");
}

#[test]
fn the_edge_pings_a_silent_client_and_gives_up_one_that_does_not_answer() {
    let route = "websocket: { mode: over_http, origins: any, ping: 1s }";
    let site = Site::start_with(1, Transport::Unix, route, "", &[]);
    let mut dead = site.open("/numbers");
    let mut living = site.open("/numbers");
    for _ in 0..4 {
        assert_eq!(living.frame(), Some(Frame::new(PING, "")));
        living.send(&Frame::new(PONG, ""));
    }
    for _ in 0..2 {
        assert_eq!(dead.frame(), Some(Frame::new(PING, "")));
    }
    assert_eq!(dead.end(), End::Reset);
    site.wait_noted("DISCONNECT", |noted| noted.iter().filter(|noted| noted.event == "DISCONNECT").count() == 1);
    let line = site.gateway.access_line("ping_timeout", |line| line["reason"] == "ping_timeout");
    assert_eq!(line["status"], 101);
    living.text("here");
    assert_eq!(said(&mut living), "here");
}

#[test]
fn the_app_hears_of_a_client_that_has_vanished() {
    let site = Site::start(1);
    for way in Way::ALL {
        let before = site.noted().len();
        let mut socket = site.open_by(way, "/numbers", &[]);
        socket.text("one");
        assert_eq!(said(&mut socket), "one");
        socket.text("two");
        socket.reset();
        site.wait_noted("DISCONNECT", |noted| {
            let last: Vec<_> = noted[before..].iter().map(|noted| noted.event.as_str()).collect();
            last == ["OPEN", "TEXT", "TEXT", "DISCONNECT"] || last == ["OPEN", "TEXT", "DISCONNECT"]
        });
        site.gateway.wait_metric("hostler_holds{kind=\"websocket\"}", 0.0);
    }
    let line = site.gateway.access_line("client_gone", |line| line["reason"] == "client_gone");
    assert_eq!(line["status"], 101);
}

#[test]
fn an_app_of_grip_on_a_route_without_it_is_told_of() {
    let site = Site::start(1);
    let mut socket = site.open("/context");
    socket.text("hello");
    assert_eq!(said(&mut socket), "m:hello", "it was not asked for");
    site.gateway.log_event("the hint", |event| {
        event["level"] == "WARN" && event["message"].as_str().is_some_and(|text| text.contains("`grip: true`"))
    });
    socket.close(1000);
}

#[test]
fn the_app_hears_of_a_client_that_has_left_before_it_was_let_in() {
    let site = Site::start_with(2, Transport::Unix, SOCKETS, "", &[("LATE", "1")]);
    let mut client = site.gateway.client();
    client.send(handshake("/slow", &[]));
    let opened =
        |count: usize| move |noted: &[Noted]| noted.iter().filter(|noted| noted.event == "OPEN").count() == count;
    site.wait_noted("OPEN", opened(1));
    client.reset();
    site.wait_noted("DISCONNECT", |noted| noted.last().is_some_and(|noted| noted.event == "DISCONNECT"));
    let ids: std::collections::HashSet<_> = site.noted().into_iter().map(|noted| noted.connection).collect();
    assert_eq!(ids.len(), 1);
    // Nobody is asked for one that has left while it waited for a worker.
    let site = Site::start_with(1, Transport::Unix, SOCKETS, "", &[("LATE", "1")]);
    let mut first = site.gateway.client();
    first.send(handshake("/slow", &[]));
    site.wait_noted("OPEN", opened(1));
    let mut second = site.gateway.client();
    second.send(handshake("/slow", &[]));
    site.gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 1.0);
    second.reset();
    site.gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 0.0);
    let first = WebSocket::opened(first).unwrap_or_else(|response| panic!("{response:?}"));
    site.gateway.wait_idle();
    assert_eq!(site.noted().len(), 1);
    drop(first);
    let site = Site::start_with(2, Transport::Unix, SOCKETS, "", &[("LATE", "1")]);
    // An app that does not let it in hears nothing more.
    let mut client = site.gateway.client();
    client.send(handshake("/slow?no", &[]));
    site.wait_noted("OPEN", opened(1));
    client.reset();
    site.gateway.wait_idle();
    let mut socket = site.open("/numbers");
    socket.text("last");
    said(&mut socket);
    let events: Vec<_> = site.noted().into_iter().map(|noted| noted.event).collect();
    assert_eq!(events, ["OPEN", "OPEN", "TEXT"]);
}

#[test]
fn what_the_app_sets_with_its_last_answer_comes_back_with_the_end() {
    let site = Site::start_with(1, Transport::Unix, SOCKETS, "", &[("LATE", "0.5")]);
    let mut socket = site.open("/meta");
    socket.text("hello");
    site.wait_noted("TEXT", |noted| noted.iter().any(|noted| noted.event == "TEXT"));
    socket.reset();
    site.wait_noted("DISCONNECT", |noted| noted.iter().any(|noted| noted.event == "DISCONNECT"));
    site.gateway.wait_idle();
    let known = site.noted().into_iter().filter(|noted| noted.event == "META").map(|noted| noted.content);
    assert_eq!(known.collect::<Vec<_>>(), [&b"none"[..], b"open", b"said"]);
}

#[test]
fn an_app_that_is_spoken_to_in_uwsgi_gets_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let plan = Plan::new(Kind::Sync, 1, Transport::Unix).serving("websocket_flask").uwsgi();
    let gunicorn = plan.variable("JOURNAL", journal.to_str().unwrap()).start();
    let gateway = Gateway::start(&config(&gunicorn, 1, SOCKETS, ""));
    let mut socket = WebSocket::open(Client::connect(gateway.listener(PLAIN)), "/fields", &[("cookie", "a=1")]);
    assert!(said(&mut socket).contains("cookie: a=1"));
    socket.text("again");
    let second = said(&mut socket);
    assert!(second.contains("meta-user: bob") && second.contains("connection-id: "), "{second}");
    socket.reset();
    let gone = look_until(|| std::fs::read_to_string(&journal).unwrap().contains(" DISCONNECT ").then_some(()));
    assert!(gone.is_some());
}

#[test]
fn a_message_beyond_the_limit_ends_with_1009() {
    let route = "websocket: { mode: over_http, origins: any, max_message: 1KiB }";
    let site = Site::start_with(1, Transport::Unix, route, "", &[]);
    for way in Way::ALL {
        let mut socket = site.open_by(way, "/numbers", &[]);
        socket.send(&Frame::new(BINARY, [7; 1024]));
        assert_eq!(socket.message(), [7; 1024]);
        socket.send(&Frame::new(BINARY, [7; 1025]));
        assert_eq!(closed(&mut socket), Some(1009), "{way:?}");
        let mut socket = site.open_by(way, "/numbers", &[]);
        socket.send(&Frame::part(TEXT, false, "x".repeat(600)));
        socket.send(&Frame::part(0, true, "x".repeat(600)));
        assert_eq!(closed(&mut socket), Some(1009), "{way:?}");
    }
    site.wait_noted("DISCONNECT", |noted| noted.iter().filter(|noted| noted.event == "DISCONNECT").count() == 6);
    site.gateway.wait_failures("", "websocket_too_big", 6.0);
}

#[test]
fn an_app_that_answers_as_none_should_ends_the_socket_that_asked_and_no_other() {
    let site = Site::start_with(4, Transport::Unix, SOCKETS, ", timeouts: { head: 1s }", &[("LATE", "3")]);
    let mut other = site.open("/numbers");
    for (how, reason) in [
        ("error", "bad_events"),
        ("html", "bad_events"),
        ("garbage", "bad_events"),
        ("large", "bad_events"),
        ("accepts", "bad_events"),
        ("late", "head_timeout"),
    ] {
        let mut socket = site.open(&format!("/odd/{how}"));
        socket.text("now");
        assert_eq!(closed(&mut socket), Some(1011), "{how}");
        let path = format!("/odd/{how}");
        let line = site.gateway.access_of_path(&path);
        assert_eq!((&line["reason"], &line["status"]), (&reason.into(), &101.into()), "{how}");
        other.text(how);
        assert_eq!(said(&mut other), how);
    }
    site.gateway.wait_failures("app", "bad_events", 5.0);
    site.gateway.wait_failures("app", "head_timeout", 1.0);
    assert_eq!(site.gateway.failures("", "bad_events"), 0.0);
    site.gateway.log_event("the answer that was an error", |event| {
        event["reason"] == "bad_events"
            && event["message"].as_str().is_some_and(|text| text.contains("its answer is 500"))
    });
    site.wait_noted("DISCONNECT", |noted| noted.iter().filter(|noted| noted.event == "DISCONNECT").count() == 6);
    other.close(1000);
}

#[test]
fn a_worker_that_dies_with_a_message_in_its_hands_ends_that_socket_with_1011() {
    let site = Site::start_with(2, Transport::Unix, SOCKETS, "", &[("LATE", "30")]);
    let mut other = site.open("/numbers");
    let mut socket = site.open("/odd/late");
    socket.text("now");
    site.wait_noted("the message", |noted| noted.iter().any(|noted| noted.content == b"now"));
    // The one that sleeps: the other one answers.
    let pid = site.gunicorn.worker_pids().into_iter().find(|pid| is_asleep_in_request(*pid, &mut other));
    site.gunicorn.kill_worker(pid.expect("a worker that is busy"));
    assert_eq!(closed(&mut socket), Some(1011));
    let line = site.gateway.access_of_path("/odd/late");
    assert!(["eof_before_head", "reset_before_head"].contains(&line["reason"].as_str().unwrap()), "{line}");
    let times = site.noted().iter().filter(|noted| noted.content == b"now").count();
    assert_eq!(times, 1, "it is not sent again");
    other.text("still here");
    assert_eq!(said(&mut other), "still here");
}

/// Whether a worker has not used its processor while the other one was asked.
fn is_asleep_in_request(pid: i32, other: &mut WebSocket) -> bool {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        stat.split(' ').nth(2).unwrap().trim().parse::<u64>().unwrap()
    };
    let before = ticks();
    for turn in 0..3 {
        other.text(&turn.to_string());
        said(other);
    }
    before == ticks()
}

#[test]
fn sockets_wait_while_the_app_is_away() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let mut site = Site::start_with(2, transport, SOCKETS, "", &[]);
        let mut sockets: Vec<_> = Way::ALL.iter().map(|way| site.open_by(*way, "/numbers", &[])).collect();
        site.gunicorn.stop();
        for (index, socket) in sockets.iter_mut().enumerate() {
            socket.text(&format!("first {index}"));
            socket.send(&Frame::new(PING, "there?"));
            assert_eq!(socket.frame(), Some(Frame::new(PONG, "there?")), "it is open");
            socket.text(&format!("second {index}"));
        }
        site.gunicorn.start_again();
        for (index, socket) in sockets.iter_mut().enumerate() {
            assert_eq!((said(socket), said(socket)), (format!("first {index}"), format!("second {index}")));
        }
        for socket in sockets {
            socket.close(1000);
        }
        for index in 0..3 {
            let times =
                site.noted().iter().filter(|noted| noted.content == format!("first {index}").as_bytes()).count();
            assert_eq!(times, 1);
        }
    }
}

#[test]
fn an_app_may_take_a_part_and_gets_the_rest_with_what_comes_next() {
    let site = Site::start(1);
    let mut socket = site.open("/part");
    socket.text("one. tw");
    assert_eq!(said(&mut socket), "0 one.");
    socket.text("o. three");
    assert_eq!(said(&mut socket), "3  two.");
    socket.text(".");
    assert_eq!(said(&mut socket), "6  three.");
    socket.close(1000);
}

#[test]
fn an_app_that_wants_to_be_asked_is_asked() {
    let site = Site::start(1);
    let mut socket = site.open("/asked");
    assert_eq!((said(&mut socket), said(&mut socket)), ("asked".into(), "asked".into()));
    socket.close(1000);
    let empty = site.gateway.metric("hostler_websocket_requests_total{outcome=\"answered\",route=\"/\"}");
    assert!((4.0..=5.0).contains(&empty), "OPEN, twice nothing, CLOSE: {empty}");
}

#[test]
fn a_reload_ends_no_socket_and_its_requests_go_where_the_configuration_says() {
    let site = Site::start(1);
    let other = Site::start(1);
    let mut sockets: Vec<_> = Way::ALL.iter().map(|way| site.open_by(*way, "/numbers", &[])).collect();
    for socket in &mut sockets {
        socket.text("before");
        said(socket);
    }
    site.gateway.reload(&config(&other.gunicorn, 1, SOCKETS, ""));
    // Each thread follows within a moment, whoever asks.
    let moved = look_until(|| {
        for socket in &mut sockets {
            socket.text("after");
            said(socket);
        }
        let after =
            other.noted().iter().map(|noted| noted.connection.clone()).collect::<std::collections::HashSet<_>>();
        (after.len() == 3).then_some(())
    });
    assert!(moved.is_some(), "{:#?}", other.noted());
    // Without the upstream they go on where they were.
    let listeners = "listeners: [{ bind: \"127.0.0.1:0\" }, { bind: \"127.0.0.2:0\", tls: { local: true } }]";
    site.gateway.reload(&format!("sites: [{{ routes: [{{ path: /, respond: {{ body: ok }} }}] }}]\n{listeners}\n"));
    for mut socket in sockets {
        socket.text("still");
        assert_eq!(said(&mut socket), "still");
        socket.close(1000);
    }
}

#[test]
fn a_drain_says_going_away_to_everybody_and_the_app_hears_of_it() {
    let site = Site::start(2);
    let mut sockets: Vec<_> = Way::ALL.iter().map(|way| site.open_by(*way, "/numbers", &[])).collect();
    let mut silent = site.open("/numbers");
    site.gateway.signal(Signal::TERM);
    // Each has its turn, and so long for its goodbye: they do not wait for each other.
    std::thread::scope(|scope| {
        for socket in &mut sockets {
            scope.spawn(|| {
                assert_eq!(closed(socket), Some(1001));
                socket.send(&Frame::close(1001));
                assert_eq!(socket.end(), End::Closed);
            });
        }
    });
    assert_eq!(closed(&mut silent), Some(1001));
    site.wait_noted("four ends", |noted| {
        let count = |event: &str| noted.iter().filter(|noted| noted.event == event).count();
        (count("CLOSE"), count("DISCONNECT")) == (3, 1)
    });
    let Site { gateway, .. } = site;
    let ended = gateway.ended();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
    assert_eq!(ended.access.iter().filter(|line| line["reason"] == "shutting_down").count(), 4);
}

#[test]
fn a_client_that_takes_nothing_holds_up_itself_alone() {
    const MESSAGES: usize = 600;
    let site = Site::start(2);
    let mut other = site.open("/echo");
    let mut stream = site.gateway.listener(PLAIN).connect().unwrap();
    stream.write_all(handshake("/echo", &[]).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let before = site.gateway.rss_kib();
    let mut sending = stream.again();
    let sender = std::thread::spawn(move || {
        let message = Frame::new(BINARY, vec![7; 100_000]).masked();
        (0..MESSAGES).for_each(|_| sending.write_all(&message).unwrap());
    });
    // Nobody reads what comes back, so that the app is not asked any more, and then nothing is taken from the client.
    let taken = || site.gateway.metric("hostler_websocket_messages_total{direction=\"in\",route=\"/\"}");
    let stopped = look_until(|| {
        let before = taken();
        for turn in 0..10 {
            other.text(&turn.to_string());
            assert_eq!(said(&mut other), turn.to_string(), "others are served");
        }
        (taken() - before == 10.0).then_some(())
    });
    assert!(stopped.is_some(), "{} messages were taken", taken());
    assert!(taken() < 300.0, "{} messages were taken", taken());
    let more = site.gateway.rss_kib().saturating_sub(before);
    assert!(more < 16 << 10, "{more} KiB more");
    // What was taken comes back, and so does the rest.
    for _ in 0..MESSAGES {
        let frame = Frame::read(|count| {
            let mut bytes = vec![0; count];
            stream.read_exact(&mut bytes).ok()?;
            Some(bytes)
        });
        assert_eq!(frame.map(|frame| frame.payload.len()), Some(100_000));
    }
    sender.join().unwrap();
}

#[test]
fn small_messages_that_wait_for_a_busy_app_end_nothing_over_http_2() {
    // More than the buffer takes, and less than a stream's window beside it.
    const MESSAGES: usize = 40_000;
    let latch = Latch::default();
    let wait = latch.clone();
    let worker = Worker::unix(move |visit| {
        while let Some(asked) = visit.request() {
            let is_opening = asked.body.starts_with(b"OPEN");
            if !is_opening {
                wait.wait();
            }
            let said = if is_opening { "OPEN\r\n" } else { "" };
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\n";
            visit.send(format!("{head}Content-Length: {}\r\n\r\n{said}", said.len()));
        }
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ endpoints: [\"{}\"], workers: 1 }} }}\n\
         sites: [{{ routes: [{{ path: /, proxy: app, websocket: over_http }}] }}]\n",
        worker.endpoint()
    ));
    let h2 = gateway.h2();
    let mut socket = WebSocket::over_h2(&h2, "/", &[]);
    for _ in 0..MESSAGES {
        socket.text("x");
    }
    assert_eq!(h2.open(request("TRACE", "/", &[]), true).response().status, 501, "they have arrived");
    latch.open();
    let texts = |body: &[u8]| body.windows(5).filter(|word| word == b"TEXT ").count();
    let told = || worker.requests().iter().map(|asked| texts(&asked.body)).sum::<usize>();
    let all = look_until(|| (told() == MESSAGES).then_some(()));
    assert!(all.is_some(), "the app was told {} of {MESSAGES}", told());
    socket.reset();
    gateway.wait_idle();
}

/// Bytes of one client over TLS that reads late: what its socket does not take at once has to come all the same, and the goodbye
/// behind it, although nothing follows that would push it.
#[test]
fn a_client_over_tls_that_reads_late_gets_everything() {
    let site = Site::start(1);
    let mut socket = site.open_by(Way::Tls, "/echo", &[]);
    let message = vec![7; 900_000];
    for _ in 0..8 {
        socket.send(&Frame::new(BINARY, &message));
    }
    socket.send(&Frame::close(1000));
    // All that the gateway may do without a reader is done.
    site.gateway.wait_idle();
    for _ in 0..8 {
        assert_eq!(socket.message().len(), message.len());
    }
    assert_eq!(closed(&mut socket), Some(1000));
    assert_eq!(socket.end(), End::Closed);
}

/// The goal is 16 KiB in the release build; this one keeps no more, and its futures are larger.
#[test]
fn an_idle_socket_costs_little_memory() {
    const SOCKETS: usize = 800;
    let site = Site::start(2);
    // What the first ones make for all.
    let mut sockets: Vec<_> = (0..100).map(|_| site.open("/echo")).collect();
    let before = site.gateway.rss_kib();
    sockets.extend((0..SOCKETS).map(|_| site.open("/echo")));
    for socket in &mut sockets {
        socket.text("hello");
        assert_eq!(said(socket), "hello");
    }
    site.gateway.wait_idle();
    let each = site.gateway.rss_kib().saturating_sub(before) as f64 / SOCKETS as f64;
    println!("{each:.1} KiB for an idle WebSocket");
    assert!(each < 24.0, "{each} KiB");
}
