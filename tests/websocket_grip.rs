//! Channels of WebSockets that end at the edge: gripcontrol in Flask and django-grip in Django, as they are on PyPI, on gunicorn's
//! sync workers.

use std::net::TcpListener;

use crate::support::gunicorn::{Kind, Plan};
use crate::support::websocket::{BINARY, CLOSE, Frame, PING, TEXT};
use crate::support::worker::Transport;
use crate::support::{Address, Client, Gateway, Gunicorn, H2, WebSocket, look_until};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct Site {
    gateway: Gateway,
    gunicorn: Gunicorn,
    publish: Address,
    /// Of HTTP/2.
    connection: H2,
}

/// A port of this machine's that is free: an app has to know it before the gateway is there.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.67:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Site {
    fn start(app: &'static str, realtime: &str) -> Self {
        let publish = free_address();
        let plan = Plan::new(Kind::Sync, 2, Transport::Unix).serving(app).variable("JOURNAL", "/dev/null");
        let gunicorn = plan.variable("GRIP_URL", &format!("http://{publish}/?key={SECRET}&iss=hostler")).start();
        let gateway = Gateway::start(&format!(
            "listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n  - {{ bind: \"127.0.0.2:0\", tls: {{ local: true }} }}\n\
             realtime: {{ publish: {{ bind: \"{publish}\", secret: {SECRET} }}, grip: {{ secret: {SECRET} }}{realtime} }}\n\
             upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\n\
             sites:\n  - routes:\n      - {{ path: /, proxy: app, grip: true, websocket: {{ mode: over_http, origins: any }} }}\n",
            gunicorn.endpoint()
        ));
        let connection = H2::tls(gateway.listener("127.0.0.2:0"), "localhost", &gateway.root());
        Self { gateway, gunicorn, publish: Address::parse(&publish), connection }
    }

    fn open(&self, path: &str) -> WebSocket {
        WebSocket::open(Client::connect(self.gateway.listener("127.0.0.1:0")), path, &[])
    }

    fn publish(&self, items: &str) {
        let body = format!("{{\"items\":[{items}]}}");
        let mut client = Client::connect(&self.publish);
        client.send(format!(
            "POST /publish/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let response = client.response("POST");
        assert_eq!(response.status, 200, "{response:?}");
    }
}

fn said(socket: &mut WebSocket) -> String {
    String::from_utf8(socket.message()).unwrap()
}

/// What comes back to the client itself says that everything before it has been done.
fn mark(socket: &mut WebSocket) {
    socket.text("mark");
    assert_eq!(said(socket), "mark");
}

#[test]
fn what_is_published_reaches_everybody_on_the_channel_by_every_way_in() {
    let site = Site::start("websocket_flask", "");
    let over_h2 = WebSocket::over_h2(&site.connection, "/room/one", &[]);
    let secure = Client::tls(site.gateway.listener("127.0.0.2:0"), "localhost", &site.gateway.root());
    let mut sockets = vec![site.open("/room/one"), over_h2, WebSocket::open(secure, "/room/one", &[])];
    let mut other = site.open("/room/two");
    for socket in sockets.iter_mut().chain([&mut other]) {
        assert_eq!(said(socket), "welcome");
    }
    site.publish(r#"{"channel":"one","ws-message":{"content":"ä to all"}}, {"channel":"one","http-stream":{"content":"for others"}}"#);
    site.publish(r#"{"channel":"one","formats":{"ws-message":{"content-bin":"/wA="}}}, {"channel":"one","ws-message":{"type":"ping","content":"p"}}"#);
    site.publish(&format!(r#"{{"channel":"one","ws-message":{{"content":"{}"}}}}"#, "x".repeat(70_000)));
    for socket in &mut sockets {
        assert_eq!(socket.frame(), Some(Frame::new(TEXT, "ä to all")));
        assert_eq!(socket.frame(), Some(Frame::new(BINARY, b"\xff\0")));
        assert_eq!(socket.frame(), Some(Frame::new(PING, "p")));
        assert_eq!(socket.frame(), Some(Frame::new(TEXT, "x".repeat(70_000))));
        mark(socket);
    }
    mark(&mut other);
    site.publish(r#"{"channel":"one","ws-message":{"action":"close","code":4001,"reason":"enough"}}"#);
    for mut socket in sockets {
        let frame = socket.frame().unwrap();
        assert_eq!((frame.opcode, frame.code(), &frame.payload[2..]), (CLOSE, Some(4001), &b"enough"[..]));
        socket.send(&Frame::close(4001));
    }
    other.close(1000);
    site.gateway.wait_metric("hostler_holds{kind=\"websocket\"}", 0.0);
}

#[test]
fn the_app_says_what_only_the_edge_can_do() {
    let site = Site::start("websocket_flask", "");
    let mut socket = site.open("/room/one");
    assert_eq!(said(&mut socket), "welcome");
    let say = |channel: &str, text: &str, sender: &str| {
        site.publish(&format!(
            r#"{{"channel":"{channel}","meta":{{"sender":"{sender}"}},"ws-message":{{"content":"{text}"}}}}"#
        ));
    };
    // Its own is not for it, once it says who it is and what it does not want.
    socket.text(r#"control {"type":"set-meta","name":"user","value":"7"}"#);
    socket.text(r#"control {"type":"subscribe","channel":"one","filters":["skip-self"]}"#);
    mark(&mut socket);
    say("one", "own", "7");
    say("one", "another's", "8");
    assert_eq!(said(&mut socket), "another's");
    // What nobody knows is left out.
    socket.text(r#"control {"type":"dance"}"#);
    socket.text("control nonsense");
    socket.text(r#"control {"type":"unsubscribe","channel":"one"}"#);
    socket.text(r#"control {"type":"subscribe","channel":"three"}"#);
    mark(&mut socket);
    say("one", "gone", "8");
    say("three", "here", "8");
    assert_eq!(said(&mut socket), "here");
    socket.text(r#"control {"type":"send-delayed","content":"later","timeout":1}"#);
    assert_eq!(said(&mut socket), "later");
    socket.text(r#"control {"type":"keep-alive","content":"still here","timeout":1}"#);
    assert_eq!((said(&mut socket), said(&mut socket)), ("still here".into(), "still here".into()));
    socket.text(r#"control {"type":"keep-alive"}"#);
    let answered = "hostler_websocket_requests_total{outcome=\"answered\",route=\"/\"}";
    socket.text("mark");
    while said(&mut socket) != "mark" {}
    let before = site.gateway.metric(answered);
    socket.text(r#"control {"type":"detach"}"#);
    site.gateway.wait_metric(answered, before + 1.0);
    say("three", "after that", "8");
    assert_eq!(said(&mut socket), "after that");
    socket.text("nobody hears it");
    say("three", "and that", "8");
    assert_eq!(said(&mut socket), "and that");
    socket.close(1000);
}

#[test]
fn an_app_that_is_to_be_asked_because_it_is_published_is_asked() {
    let site = Site::start("websocket_flask", "");
    let mut socket = site.open("/room/one");
    assert_eq!(said(&mut socket), "welcome");
    let asked = || site.gateway.metric("hostler_websocket_requests_total{outcome=\"answered\",route=\"/\"}");
    let before = asked();
    site.publish(r#"{"channel":"one","ws-message":{"action":"refresh"}}"#);
    site.gateway.wait_metric("hostler_websocket_requests_total{outcome=\"answered\",route=\"/\"}", before + 1.0);
    socket.close(1000);
}

#[test]
fn a_publisher_that_has_recovered_makes_apps_look_and_no_socket_deaf() {
    let site = Site::start("websocket_flask", "");
    let mut socket = site.open("/room/one");
    assert_eq!(said(&mut socket), "welcome");
    let answered = "hostler_websocket_requests_total{outcome=\"answered\",route=\"/\"}";
    let before = site.gateway.metric(answered);
    let mut client = Client::connect(&site.publish);
    client.send(format!(
        "POST /recover HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: 0\r\n\r\n"
    ));
    assert_eq!(client.response("POST").status, 200);
    site.gateway.wait_metric(answered, before + 1.0);
    site.publish(r#"{"channel":"one","ws-message":{"content":"still"}}"#);
    assert_eq!(said(&mut socket), "still");
    socket.close(1000);
}

#[test]
fn who_takes_less_than_is_published_is_dropped_and_nobody_else() {
    let site = Site::start("websocket_flask", ", buffer: 100KB");
    let slow = site.open("/room/one");
    let mut quick = site.open("/room/one");
    assert_eq!(said(&mut quick), "welcome");
    let item = format!(r#"{{"channel":"one","ws-message":{{"content":"{}"}}}}"#, "x".repeat(50_000));
    let dropped = look_until(|| {
        site.publish(&item);
        assert_eq!(quick.message().len(), 50_000);
        (site.gateway.metric("hostler_holds{kind=\"websocket\"}") < 1.5).then_some(())
    });
    assert!(dropped.is_some());
    let line = site.gateway.access_line("hold_overflow", |line| line["reason"] == "hold_overflow");
    assert_eq!(line["path"], "/room/one");
    mark(&mut quick);
    drop(slow);
}

#[test]
fn a_view_of_django_grip_is_signed_remembers_and_publishes() {
    let site = Site::start("websocket_django", "");
    let mut ann = site.open("/room/1 ü".replace(' ', "%20").replace('ü', "%C3%BC").as_str());
    let mut bob = WebSocket::over_h2(&site.connection, "/room/1%20%C3%BC", &[]);
    assert_eq!((said(&mut ann), said(&mut bob)), ("signed".into(), "signed".into()));
    for turn in 1..=3 {
        ann.text("hello");
        assert_eq!(said(&mut ann), format!("{turn} hello"), "{:?}", site.gunicorn.log());
    }
    bob.text("shout to ann");
    assert_eq!((said(&mut ann), said(&mut bob)), ("to ann".into(), "to ann".into()));
    bob.text("and I");
    assert_eq!(said(&mut bob), "2 and I");
    ann.close(1000);
    // django-grip answers a close without a code with 0, which is none.
    bob.send(&Frame::new(CLOSE, ""));
    assert_eq!(bob.frame(), Some(Frame::new(CLOSE, "")));
}
