//! The layer over a stub: who is let through, and what is left of the others.

use std::cell::Cell;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tower::Layer as _;

use super::*;
use crate::http::{ConnectionInfo, Host, Target};
use crate::observe::metrics::Metrics;

const KEY: [u8; 24] = *b"dGhlIHNhbXBsZSBub25jZQ==";

/// An app: takes the WebSocket, or answers with a page.
struct App {
    answer: StatusCode,
    asked: Rc<Cell<Option<HeaderMap>>>,
}

struct Nothing;

impl Takeover for Nothing {
    fn run(self: Box<Self>, _: ClientIo, _: Rc<Exchange>) -> Running {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Service for App {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        self.asked.set(Some(request.headers.clone()));
        let is_switch = self.answer == StatusCode::SWITCHING_PROTOCOLS;
        let body = if is_switch { Body::Takeover(Box::new(Nothing)) } else { Body::Full(Bytes::from_static(b"page")) };
        let mut response = Response::new(body);
        *response.status_mut() = self.answer;
        Ok(response)
    }
}

struct Stage {
    stack: Websocketed<App>,
    asked: Rc<Cell<Option<HeaderMap>>>,
    gauge: IntGauge,
}

impl Stage {
    /// A route with these keys.
    fn new(keys: &str, answer: u16) -> Self {
        let tunnels = Arc::<Tunnels>::default();
        tunnels.allow(100);
        Self::with(keys, answer, &tunnels)
    }

    /// One of several that share what may pass through.
    fn with(keys: &str, answer: u16, tunnels: &Arc<Tunnels>) -> Self {
        let text = format!(
            "upstreams: {{ app: {{ endpoints: ['unix:/run/app.sock'], workers: 4 }} }}\n\
             sites: [{{ routes: [{{ path: /, {keys} }}] }}]"
        );
        let config = crate::config::load_str(&text, "f", Path::new("/"), &|_| None).unwrap().config;
        let route = &config.sites[0].routes[0];
        let gauge = Metrics::new().holds("tunnel");
        let layer = WebSocketLayer::new(route, WebSockets::compile(route, None, tunnels, gauge.clone()));
        let asked = Rc::new(Cell::new(None));
        let answer = StatusCode::from_u16(answer).unwrap();
        Self { stack: layer.layer(App { answer, asked: Rc::clone(&asked) }), asked, gauge }
    }

    async fn ask(&self, upgrade: Option<Upgrade>, origin: Option<&str>) -> Result<Response, Reason> {
        let is_http2 = upgrade == Some(Upgrade::WebSocket(Handshake { key: None }));
        let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http11 };
        let host = Host::parse(Bytes::from_static(b"shop.example")).unwrap();
        let connection = Rc::new(ConnectionInfo::new("80"));
        let exchange = Exchange::new(connection, protocol, Method::GET, Bytes::new(), Some(host), None);
        let headers = HeaderMap::from_iter(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
        if let Some(upgrade) = upgrade {
            exchange.asks_for(upgrade, &headers);
        }
        let request = Request {
            method: Method::GET,
            target: Target::from_static("/"),
            headers,
            body: Body::Empty,
            exchange: Rc::new(exchange),
            refused: None,
        };
        self.stack.call(Box::new(request)).await.map_err(|error| error.reason)
    }

    /// The reason of a refusal, and that nobody was asked.
    async fn refusal(&self, upgrade: Upgrade, origin: Option<&str>) -> Option<Reason> {
        let reason = self.ask(Some(upgrade), origin).await.err();
        let is_asked = self.asked.take().is_some();
        assert!(!is_asked || reason.is_none() || !self.stack.asks_app, "the app was asked");
        reason
    }
}

const TUNNEL: &str = "proxy: app, websocket: tunnel";
const GOOD: Upgrade = Upgrade::WebSocket(Handshake { key: Some(KEY) });
const OVER_HTTP2: Upgrade = Upgrade::WebSocket(Handshake { key: None });

#[tokio::test]
async fn without_the_key_a_websocket_is_refused_where_an_app_would_be_asked() {
    let bad = Upgrade::Malformed(Reason::WebsocketMalformed, "");
    for (keys, upgrade, reason) in [
        ("proxy: app", GOOD, Some(Reason::UpgradeRefused)),
        ("proxy: app", bad, Some(Reason::UpgradeRefused)),
        ("proxy: app, websocket: off", GOOD, Some(Reason::UpgradeRefused)),
        ("respond: { body: ok }", GOOD, None),
        ("respond: { body: ok }", bad, None),
        // A 200 would say that the stream is a WebSocket now.
        ("respond: { body: ok }", OVER_HTTP2, Some(Reason::UpgradeRefused)),
    ] {
        assert_eq!(Stage::new(keys, 200).refusal(upgrade, None).await, reason, "{keys} {upgrade:?}");
    }
    assert!(Stage::new(TUNNEL, 200).ask(None, Some("https://evil.example")).await.is_ok(), "it asks for a page");
}

#[tokio::test]
async fn who_may_not_open_one_does_not_come_to_the_app() {
    for (reason, upgrade, origin) in [
        (Reason::WebsocketMalformed, Upgrade::Malformed(Reason::WebsocketMalformed, ""), None),
        (Reason::WebsocketVersion, Upgrade::Malformed(Reason::WebsocketVersion, ""), None),
        (Reason::OriginRefused, GOOD, Some("https://evil.example")),
        (Reason::OriginRefused, OVER_HTTP2, Some("null")),
    ] {
        assert_eq!(Stage::new(TUNNEL, 101).refusal(upgrade, origin).await, Some(reason));
    }
    let response = Stage::new(TUNNEL, 101).ask(Some(GOOD), Some("http://shop.example")).await.unwrap();
    assert_eq!(response.status(), 101);
}

#[tokio::test]
async fn there_are_as_many_as_the_route_allows_and_no_more() {
    let stage = Stage::new("proxy: app, websocket: { mode: tunnel, max: 2 }", 101);
    let mut open = [stage.ask(Some(GOOD), None).await.unwrap(), stage.ask(Some(OVER_HTTP2), None).await.unwrap()];
    assert_eq!(stage.ask(Some(GOOD), None).await.err(), Some(Reason::WebsocketsFull));
    let Body::Takeover(takeover) = std::mem::take(open[0].body_mut()) else { panic!("no takeover") };
    assert_eq!(stage.gauge.get(), 0, "the head has not been written");
    let (io, exchange) = (Box::new(Io), Rc::new(exchange()));
    let running = takeover.run(io, exchange);
    assert_eq!(stage.gauge.get(), 1);
    assert_eq!(stage.ask(Some(GOOD), None).await.err(), Some(Reason::WebsocketsFull));
    running.await.unwrap();
    assert_eq!(stage.gauge.get(), 0);
    assert!(stage.ask(Some(GOOD), None).await.is_ok());
}

#[tokio::test]
async fn no_more_pass_through_on_all_routes_than_there_may_be_connections_to_workers_for() {
    let tunnels = Arc::<Tunnels>::default();
    tunnels.allow(2);
    let two = "proxy: app, websocket: { mode: tunnel, max: 2 }";
    let [one, other] = [two, TUNNEL].map(|keys| Stage::with(keys, 101, &tunnels));
    let ends_here = Stage::with("proxy: app, websocket: over_http", 101, &tunnels);
    let open = [one.ask(Some(GOOD), None).await.unwrap(), other.ask(Some(GOOD), None).await.unwrap()];
    for _ in 0..3 {
        assert_eq!(one.ask(Some(GOOD), None).await.err(), Some(Reason::WebsocketsFull));
    }
    assert!(ends_here.ask(Some(GOOD), None).await.is_ok(), "it takes no worker's connection");
    drop(open);
    let open = [one.ask(Some(GOOD), None).await, one.ask(Some(GOOD), None).await];
    assert!(open.iter().all(Result::is_ok), "those that were refused hold no place of the route");
    tunnels.allow(3);
    let _third = other.ask(Some(GOOD), None).await.unwrap();
    tunnels.allow(1);
    drop(open);
    assert_eq!(other.ask(Some(GOOD), None).await.err(), Some(Reason::WebsocketsFull));
}

#[tokio::test]
async fn one_that_the_app_does_not_take_leaves_its_place() {
    let stage = Stage::new("proxy: app, websocket: { mode: tunnel, max: 1 }", 403);
    for _ in 0..3 {
        let mut response = stage.ask(Some(GOOD), None).await.unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "page");
    }
}

#[tokio::test]
async fn over_http_2_the_app_gets_a_key_and_a_page_is_no_websocket() {
    let stage = Stage::new(TUNNEL, 101);
    let mut keys = Vec::new();
    for _ in 0..2 {
        assert!(stage.ask(Some(OVER_HTTP2), None).await.is_ok());
        keys.push(stage.asked.take().unwrap()[header::SEC_WEBSOCKET_KEY].clone());
    }
    assert!(keys[0].len() == 24 && keys[0] != keys[1], "{keys:?}");
    let page = Stage::new(TUNNEL, 200);
    assert_eq!(page.ask(Some(OVER_HTTP2), None).await.err(), Some(Reason::UpgradeRefused));
    assert_eq!(page.ask(Some(GOOD), None).await.unwrap().status(), 200);
    assert_eq!(Stage::new(TUNNEL, 403).ask(Some(OVER_HTTP2), None).await.unwrap().status(), 403);
}

fn exchange() -> Exchange {
    Exchange::new(Rc::new(ConnectionInfo::new("80")), Protocol::Http11, Method::GET, Bytes::new(), None, None)
}

/// Nobody.
struct Io;

impl crate::http::ClientStream for Io {}

impl tokio::io::AsyncRead for Io {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Io {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
