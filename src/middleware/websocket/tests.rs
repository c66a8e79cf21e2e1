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
        Self::among(keys, answer, tunnels, &clients(100))
    }

    /// One of several that have the same clients, too.
    fn among(keys: &str, answer: u16, tunnels: &Arc<Tunnels>, clients: &Arc<Clients>) -> Self {
        let text = format!(
            "trusted_proxies: [10.0.0.0/8]\n\
             upstreams: {{ app: {{ endpoints: ['unix:/run/app.sock'], workers: 4 }} }}\n\
             sites: [{{ routes: [{{ path: /, {keys} }}] }}]"
        );
        let config = crate::config::load_str(&text, "f", Path::new("/"), &|_| None).unwrap().config;
        let route = &config.sites[0].routes[0];
        let gauge = Metrics::new().holds("tunnel");
        let trusted = &config.trusted_proxies;
        let websockets = WebSockets::compile(route, None, tunnels, clients, trusted, gauge.clone());
        let layer = WebSocketLayer::new(route, websockets);
        let asked = Rc::new(Cell::new(None));
        let answer = StatusCode::from_u16(answer).unwrap();
        Self { stack: layer.layer(App { answer, asked: Rc::clone(&asked) }), asked, gauge }
    }

    async fn ask(&self, upgrade: Option<Upgrade>, origin: Option<&str>) -> Result<Response, Reason> {
        self.ask_as(None, upgrade, origin).await
    }

    /// A WebSocket for the client of this address.
    async fn open(&self, client: &str, upgrade: Upgrade) -> Result<Response, Reason> {
        self.ask_as(Some(client.parse().unwrap()), Some(upgrade), None).await
    }

    async fn ask_as(
        &self,
        client: Option<IpAddr>,
        upgrade: Option<Upgrade>,
        origin: Option<&str>,
    ) -> Result<Response, Reason> {
        let is_http2 = upgrade == Some(Upgrade::WebSocket(Handshake { key: None }));
        let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http11 };
        let host = Host::parse(Bytes::from_static(b"shop.example")).unwrap();
        let connection = Rc::new(ConnectionInfo::new("80"));
        let exchange = Exchange::new(connection, protocol, Method::GET, Bytes::new(), Some(host), None);
        exchange.client.set(client);
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

/// Each may have so many WebSockets.
fn clients(most: usize) -> Arc<Clients> {
    let clients = Arc::<Clients>::default();
    clients.allow(most);
    clients
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

/// Two routes, of whose WebSockets a client may have two.
fn two_routes() -> ([Stage; 2], Arc<Clients>) {
    let (tunnels, clients) = (Arc::<Tunnels>::default(), clients(2));
    tunnels.allow(100);
    let keys = [TUNNEL, "proxy: app, websocket: { mode: over_http, max: 3 }"];
    (keys.map(|keys| Stage::among(keys, 101, &tunnels, &clients)), clients)
}

#[tokio::test]
async fn a_client_has_as_many_as_it_may_have_connections_over_all_routes_and_others_have_theirs() {
    let ([one, other], clients) = two_routes();
    let first = one.open("2001:db8::1", OVER_HTTP2).await.unwrap();
    let second = other.open("2001:db8::2", GOOD).await.unwrap();
    for route in [&one, &other] {
        assert_eq!(route.open("2001:db8::3", OVER_HTTP2).await.err(), Some(Reason::WebsocketsFull));
        assert!(route.open("2001:db8:0:1::1", OVER_HTTP2).await.is_ok(), "another client");
    }
    drop(first);
    let third = other.open("2001:db8::1", OVER_HTTP2).await.unwrap();
    assert_eq!(one.open("2001:db8::1", OVER_HTTP2).await.err(), Some(Reason::WebsocketsFull));
    assert_eq!(clients.open.clients(), 1);
    drop((second, third));
    assert_eq!(clients.open.clients(), 0, "nobody is remembered");
}

#[tokio::test]
async fn what_a_client_has_is_counted_until_it_has_ended() {
    let ([one, other], clients) = two_routes();
    clients.allow(1);
    let mut response = one.open("192.0.2.1", OVER_HTTP2).await.unwrap();
    let Body::Takeover(takeover) = std::mem::take(response.body_mut()) else { panic!("no takeover") };
    drop(response);
    let running = takeover.run(Box::new(Io), Rc::new(exchange()));
    assert_eq!(other.open("192.0.2.1", GOOD).await.err(), Some(Reason::WebsocketsFull));
    running.await.unwrap();
    assert!(other.open("192.0.2.1", GOOD).await.is_ok());
    assert_eq!(clients.open.clients(), 0);
}

#[tokio::test]
async fn another_limit_of_a_client_holds_from_its_next_one_on() {
    let ([one, _], clients) = two_routes();
    let open = [one.open("192.0.2.1", GOOD).await.unwrap(), one.open("192.0.2.1", GOOD).await.unwrap()];
    clients.allow(3);
    let third = one.open("192.0.2.1", GOOD).await.unwrap();
    clients.allow(2);
    drop(third);
    assert_eq!(one.open("192.0.2.1", GOOD).await.err(), Some(Reason::WebsocketsFull));
    drop(open);
    assert!(one.open("192.0.2.1", GOOD).await.is_ok());
}

#[tokio::test]
async fn who_has_no_address_or_is_a_proxy_that_names_nobody_is_held_to_max_alone() {
    for client in [None, Some(IpAddr::from([10, 0, 0, 7]))] {
        let ([_, route], clients) = two_routes();
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(route.ask_as(client, Some(OVER_HTTP2), None).await.unwrap());
        }
        let refused = route.ask_as(client, Some(OVER_HTTP2), None).await.err();
        assert_eq!((refused, clients.open.clients()), (Some(Reason::WebsocketsFull), 0), "{client:?}");
    }
}

#[tokio::test]
async fn nobody_is_remembered_whom_the_route_or_the_app_refuses() {
    let ([_, route], clients) = two_routes();
    let mut open = Vec::new();
    for last in 1..=3 {
        open.push(route.open(&format!("192.0.2.{last}"), GOOD).await.unwrap());
    }
    assert_eq!(route.open("192.0.2.4", GOOD).await.err(), Some(Reason::WebsocketsFull));
    assert_eq!(clients.open.clients(), 3);
    let page = Stage::among(TUNNEL, 403, &Arc::default(), &clients);
    assert_eq!(page.open("192.0.2.4", GOOD).await.err(), Some(Reason::WebsocketsFull), "none may pass through");
    let tunnels = Arc::<Tunnels>::default();
    tunnels.allow(1);
    let page = Stage::among(TUNNEL, 403, &tunnels, &clients);
    let response = page.open("192.0.2.4", GOOD).await.unwrap();
    assert_eq!((response.status(), clients.open.clients()), (StatusCode::FORBIDDEN, 3));
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
