//! WebSockets (RFC 6455), `websocket`: which requests for one come to the app, and how.
//!
//! 1. Without the key a request for a WebSocket is refused where an app would be asked: `upgrade_refused`.
//! 2. What is no handshake is refused with its reason (`websocket_malformed`, `websocket_version`).
//! 3. A page of another origin is refused ([`origin`]): `origin_refused`. 4. So is one more than its client may have
//!    ([`Clients`]), than `max`, or than there may be connections to workers for ([`Tunnels`]): `websockets_full`.
//! 5. The handshake goes on to the action: with `tunnel` to a worker as any request does, whose 101 takes the connection over;
//!    with `over_http` to an app that gets it as plain requests, where the edge itself says 101.
//!
//! The lowest layer of a route but what the app says to the edge: who asks too often or has not logged in is told that first,
//! and nobody learns from a refusal here what is behind it. Other requests pass for the price of one branch.
//! Gauges: `hostler_holds{kind="tunnel"}`, `hostler_holds{kind="websocket"}`.

mod origin;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, header};
use prometheus::IntGauge;

use crate::config::{self, PageOrigins, TrustedProxies, WebSocketMode};
use crate::error::{Error, Reason};
use crate::http::upgrade::Running;
use crate::http::{
    Body, ClientIo, Exchange, Handshake, PerClient, Protocol, Request, Response, Service, Takeover, Upgrade, network,
};
use crate::observe::throttle::Throttle;

/// What a route says of WebSockets, for all threads.
pub struct WebSockets {
    mode: WebSocketMode,
    origins: PageOrigins,
    max: u32,
    /// Who speaks for many clients.
    trusted: TrustedProxies,
    places: Arc<Places>,
}

/// How many WebSockets pass through to workers, over all routes. Each has a connection to one, beside its client's, which is none
/// of the upstream's slots: they must not take the descriptors that others need.
#[derive(Default)]
pub struct Tunnels {
    taken: AtomicUsize,
    most: AtomicUsize,
}

impl Tunnels {
    /// From now on there may be so many. Those that are open stay.
    pub fn allow(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn take(&self) -> Result<(), Error> {
        let most = self.most.load(Ordering::Relaxed);
        let take = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let full = |_| {
            let detail = format!("all routes have {most} that pass through, with the limit of open files");
            Error::new(Reason::WebsocketsFull).detail(detail)
        };
        taken.map(drop).map_err(full)
    }
}

/// How many WebSockets each client has, over all routes: no more than it may have connections, which over HTTP/1.1 comes to the
/// same. One of HTTP/2 carries many, and a few would take all of a route's.
#[derive(Default)]
pub struct Clients {
    open: PerClient,
    most: AtomicUsize,
}

impl Clients {
    /// From now on each may have so many. Those that are open stay.
    pub fn allow(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn take(self: &Arc<Self>, client: u64) -> Result<Part, Error> {
        let most = self.most.load(Ordering::Relaxed);
        if self.open.take(client, most) {
            return Ok(Part { clients: Arc::clone(self), client });
        }
        let detail = format!("the client has {most} WebSockets (limits.connections_per_client)");
        Err(Error::new(Reason::WebsocketsFull).detail(detail))
    }
}

/// One of those that a client has. Dropping it gives it back.
struct Part {
    clients: Arc<Clients>,
    client: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.clients.open.give_back(self.client);
    }
}

/// How many WebSockets a route has.
struct Places {
    taken: AtomicU32,
    open: IntGauge,
    /// Of all routes.
    clients: Arc<Clients>,
    /// Where they pass through.
    tunnels: Option<Arc<Tunnels>>,
}

/// One of them, from its handshake on.
struct Place {
    places: Arc<Places>,
    /// `None`: who has it is not counted.
    _part: Option<Part>,
}

impl WebSockets {
    /// That of a route; `None`: it takes none. What is open goes on counting in the place of `previous`, which had the same
    /// name before a reload. `holds` is the gauge of its mode, `tunnels` and `clients` are of all routes. Those
    /// of `trusted` who name nobody are no client.
    #[must_use]
    pub fn compile(
        route: &config::Route,
        previous: Option<&Self>,
        tunnels: &Arc<Tunnels>,
        clients: &Arc<Clients>,
        trusted: &TrustedProxies,
        holds: IntGauge,
    ) -> Option<Arc<Self>> {
        let websocket = route.websocket.as_ref()?;
        let tunnels = (websocket.mode == WebSocketMode::Tunnel).then(|| Arc::clone(tunnels));
        let new = || Arc::new(Places { taken: AtomicU32::new(0), open: holds, clients: Arc::clone(clients), tunnels });
        // Each mode has a gauge of its own.
        let previous = previous.filter(|previous| previous.mode == websocket.mode);
        let places = previous.map_or_else(new, |previous| Arc::clone(&previous.places));
        Some(Arc::new(Self {
            mode: websocket.mode,
            origins: websocket.origins.clone(),
            max: websocket.max,
            trusted: trusted.clone(),
            places,
        }))
    }

    /// `client` is as `trusted_proxies` name it.
    fn take_place(&self, client: Option<IpAddr>) -> Result<Place, Error> {
        // A proxy that names nobody is many, as it is where connections are counted.
        let client = client.filter(|client| !self.trusted.is_trusted(Some(*client)));
        let part = client.map(|client| self.places.clients.take(network(client))).transpose()?;
        let take = |taken: u32| (taken < self.max).then_some(taken + 1);
        let places = &self.places;
        if places.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            let max = self.max;
            return Err(Error::new(Reason::WebsocketsFull).detail(format!("the route has {max} (websocket.max)")));
        }
        let taken = places.tunnels.as_ref().map_or(Ok(()), |tunnels| tunnels.take());
        if taken.is_err() {
            places.taken.fetch_sub(1, Ordering::Relaxed);
        }
        taken.map(|()| Place { places: Arc::clone(places), _part: part })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Places { taken, tunnels, .. } = &*self.places;
        taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(tunnels) = tunnels {
            tunnels.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Adds [`Websocketed`].
#[derive(Clone)]
pub struct WebSocketLayer {
    websockets: Option<Arc<WebSockets>>,
    asks_app: bool,
}

/// Lets through to the app who may open a WebSocket.
pub struct Websocketed<S> {
    inner: S,
    websockets: Option<Arc<WebSockets>>,
    asks_app: bool,
}

impl WebSocketLayer {
    /// The layer of one route.
    #[must_use]
    pub fn new(route: &config::Route, websockets: Option<Arc<WebSockets>>) -> Self {
        Self { websockets, asks_app: matches!(route.action, config::Action::Proxy(_)) }
    }
}

impl<S> tower::Layer<S> for WebSocketLayer {
    type Service = Websocketed<S>;

    fn layer(&self, inner: S) -> Websocketed<S> {
        Websocketed { inner, websockets: self.websockets.clone(), asks_app: self.asks_app }
    }
}

impl<S: Service<Error = Error>> Service for Websocketed<S> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        match request.exchange.upgrade.get() {
            None => self.inner.call(request).await,
            // Boxed: other requests need no room for it.
            Some(upgrade) => Box::pin(self.open(upgrade, request)).await,
        }
    }
}

impl<S: Service<Error = Error>> Websocketed<S> {
    async fn open(&self, upgrade: Upgrade, request: Box<Request>) -> Result<Response, Error> {
        let Some(websockets) = &self.websockets else { return self.refuse(request).await };
        let handshake = match upgrade {
            Upgrade::WebSocket(handshake) => handshake,
            Upgrade::Malformed(reason, what) => return Err(Error::new(reason).detail(what)),
        };
        if !origin::is_taken(&websockets.origins, &request.headers, &request.exchange) {
            tell_foreign(&request);
            return Err(Error::new(Reason::OriginRefused));
        }
        let place = websockets.take_place(request.exchange.client.get())?;
        self.pass(handshake, request, place).await
    }

    /// The route takes none.
    async fn refuse(&self, request: Box<Request>) -> Result<Response, Error> {
        // The app behind a WSGI server cannot take one; said plainly instead of as a 404 of its own.
        if self.asks_app {
            return Err(Error::new(Reason::UpgradeRefused));
        }
        let is_http2 = request.exchange.protocol == Protocol::Http2;
        // What the edge answers itself is the same for everybody; and the request may be handed on to a route that takes one.
        let response = self.inner.call(request).await?;
        if is_http2 { unless_page(response) } else { Ok(response) }
    }

    /// The app takes it, or answers as it likes.
    async fn pass(&self, handshake: Handshake, mut request: Box<Request>, place: Place) -> Result<Response, Error> {
        let is_http2 = handshake.key.is_none();
        if is_http2 {
            request.headers.insert(header::SEC_WEBSOCKET_KEY, fresh_key()?);
        }
        let mut response = self.inner.call(request).await?;
        match std::mem::take(response.body_mut()) {
            Body::Takeover(inner) => *response.body_mut() = Body::Takeover(Box::new(Held { inner, place })),
            body => *response.body_mut() = body,
        }
        if is_http2 { unless_page(response) } else { Ok(response) }
    }
}

/// Over HTTP/2 a page that is answered with 2xx to CONNECT would say that the stream has left HTTP. Whoever asks for a WebSocket
/// where there is none hears so.
fn unless_page(response: Response) -> Result<Response, Error> {
    if response.status().is_success() && !matches!(response.body(), Body::Takeover(_)) {
        let detail = format!("the answer is {}, and no WebSocket", response.status());
        return Err(Error::new(Reason::UpgradeRefused).detail(detail));
    }
    Ok(response)
}

/// For the operator whose own page it was: a browser tells its user nothing of why.
fn tell_foreign(request: &Request) {
    static THROTTLE: Throttle = Throttle::new();
    let Some(left_out) = THROTTLE.pass() else { return };
    let origin = request.exchange.origins.get().and_then(|origins| origins.first());
    let host = request.exchange.host.as_ref().map_or("", |host| host.as_str());
    tracing::info!(
        ?origin,
        host,
        route = request.exchange.route.get().map_or("", |label| &*label.route),
        left_out,
        "a page of another origin is refused a WebSocket. If the page is yours, list its origin in `websocket.origins`; if it is \
         of the same site, a proxy before us writes another Host: let it send X-Forwarded-Host, and list it in `trusted_proxies`"
    );
}

/// A key for a worker whose client, over HTTP/2, has none (RFC 6455, 4.1).
fn fresh_key() -> Result<HeaderValue, Error> {
    let mut bytes = [0; 16];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    let key = filled.ok().and_then(|()| HeaderValue::try_from(STANDARD.encode(bytes)).ok());
    key.ok_or_else(|| Error::new(Reason::Internal).detail("no random bytes for a Sec-WebSocket-Key"))
}

/// A WebSocket that is open, in its place.
struct Held {
    inner: Box<dyn Takeover>,
    place: Place,
}

impl Takeover for Held {
    fn run(self: Box<Self>, io: ClientIo, exchange: Rc<Exchange>) -> Running {
        let Self { inner, place } = *self;
        let open = Open(place);
        open.0.places.open.inc();
        let running = inner.run(io, exchange);
        Box::pin(async move {
            let _open = open;
            running.await
        })
    }
}

/// Counts one that is open.
struct Open(Place);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.places.open.dec();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
