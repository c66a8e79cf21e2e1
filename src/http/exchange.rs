//! One request and its response: what the layers learn about it, for the log and the metrics.
//!
//! An [`Exchange`] is made by the connection when a head is complete, is shared by every layer, and is finished once,
//! by the connection, when the last byte has gone or the client has. The [`Observer`]s that layers have left in it
//! are told then.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{HeaderValue, Method};
use tokio::time::Instant;

use super::forwarded::{Claims, Scheme};
use super::{AnswerFields, CacheVerdict, Codings, ConnectionInfo, Host, Identity, RequestId, Upgrade};
use crate::error::{Error, Reason};

/// How the client speaks to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
}

impl Protocol {
    /// As a request line or a log names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// How far an exchange has come: where it stood when the client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The request body is being received.
    Receiving,
    /// Another service is asked whether the request may pass.
    Authorizing,
    /// In the waiting room.
    Waiting,
    /// A connection to a worker is being opened.
    Connecting,
    /// The request has been handed to a worker.
    Working,
    /// The app has answered, and the client is kept until there is news for it.
    Holding,
    /// The response is on its way to the client.
    Responding,
}

impl Phase {
    /// The name in the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Authorizing => "authorizing",
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Working => "working",
            Self::Holding => "holding",
            Self::Responding => "responding",
        }
    }
}

/// How long each phase took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Asking another service whether the request may pass, waiting for a worker of it included.
    pub auth: Duration,
    /// Receiving the request body.
    pub receive: Duration,
    /// In the waiting room.
    pub wait: Duration,
    /// Opening a connection to the worker; zero on a reused one.
    pub connect: Duration,
    /// From the first byte sent to the worker to the end of its response head.
    pub head: Duration,
    /// From the response head to the last byte of the worker's body.
    pub body: Duration,
}

thread_local! {
    static OPEN: Cell<usize> = const { Cell::new(0) };
    static CUTTING: Cell<bool> = const { Cell::new(false) };
}

/// Exchanges of this thread that have not ended.
#[must_use]
pub fn open_exchanges() -> usize {
    OPEN.get()
}

/// From now on what is dropped in this thread before its end was cut by us, not left by the client. Returns how many
/// exchanges that will be.
#[must_use]
pub fn cut_open_exchanges() -> usize {
    CUTTING.set(true);
    OPEN.get()
}

/// How an exchange ended, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The last byte of the response was handed to the system.
    Complete,
    /// The response had begun and was cut, because its source failed.
    Cut,
    /// The client left before the end.
    ClientGone,
}

/// The names under which an exchange is counted.
#[derive(Debug, PartialEq, Eq)]
pub struct RouteLabel {
    /// Its place among the routes of the configuration in force, from 1; 0 is the label of what no route has taken.
    pub index: usize,
    /// The site's name.
    pub site: Box<str>,
    /// The route's name.
    pub route: Box<str>,
}

/// Told once, when an exchange is over.
pub trait Observer {
    /// The exchange will not change any more.
    fn finished(&self, exchange: &Exchange, finish: Finish);
}

/// One request and its response. Fields that layers learn are set once or only grow.
pub struct Exchange {
    /// The connection it came on.
    pub connection: Rc<ConnectionInfo>,
    /// How the client speaks to us.
    pub protocol: Protocol,
    /// When the head was complete.
    pub started: Instant,
    /// The same by the wall clock.
    pub received_at: SystemTime,
    /// The method, for the log.
    pub method: Method,
    /// Path and query as received; empty when the request line was refused.
    pub target: Bytes,
    /// The Host, when there was a valid one.
    pub host: Option<Host>,
    /// For the log.
    pub user_agent: Option<HeaderValue>,
    /// The same, where the log wants it.
    pub referer: OnceCell<HeaderValue>,
    /// The address of the client itself, when it has one.
    pub client: Cell<Option<IpAddr>>,
    /// What a trusted sender says of the client. Set only for those: whether it is there tells whether he is believed.
    pub claims: OnceCell<Claims>,
    /// Whether it has fields that only a proxy sends, and the sender is not believed.
    pub is_disbelieved: Cell<bool>,
    /// Its name in every log.
    pub id: Cell<Option<RequestId>>,
    /// The place of its site among those of the configuration in force, set by the router; `None`: no site has its host.
    pub site: Cell<Option<usize>>,
    /// The place of its route among those of its site, set by the router: the one that it was given to last.
    pub place: Cell<usize>,
    /// How often it was handed on from one route to another.
    pub hops: Cell<u8>,
    /// What the client takes, where a layer has read it and the field is not passed on.
    pub codings: Cell<Option<Codings>>,
    /// What the client has sent as `Authorization`, where a route has taken it away because it was for the edge. The next one
    /// to which the request is handed on may ask for it as well.
    pub credentials: OnceCell<Box<HeaderValue>>,
    /// What the app says that the file is which it hands over, for what has more than one part of it.
    pub media_type: OnceCell<Box<HeaderValue>>,
    /// What it asks for beyond HTTP, as the connection has read it. Taken away once an app has answered with a page instead.
    pub upgrade: Cell<Option<Upgrade>>,
    /// Each `Origin` that the client has sent with that, before any route's rules for fields: by it pages are told apart.
    pub origins: OnceCell<Box<[HeaderValue]>>,
    /// What the cache of its route has made of it: of several routes, the one that was done with it first.
    pub cache: Cell<Option<CacheVerdict>>,
    /// Whether no client waits for it: it lets all others go before it.
    pub is_background: Cell<bool>,
    /// Set by the router.
    pub route: OnceCell<Arc<RouteLabel>>,
    /// What the app is told of who asks.
    pub identity: Identity,
    /// What layers below `rescue` want on the answer, whichever that is.
    pub answer_fields: AnswerFields,
    /// The endpoint that was tried last.
    pub endpoint: RefCell<Option<Arc<str>>>,
    /// Why it did not end with the app's answer.
    pub reason: Cell<Option<Reason>>,
    /// Whether that has been counted where it happened, under the upstream's name.
    pub is_counted: Cell<bool>,
    /// The status sent; 0 before that.
    pub status: Cell<u16>,
    /// How far it has come.
    pub phase: Cell<Phase>,
    /// How long each phase took so far.
    pub timings: Cell<Timings>,
    /// Since when the worker that was tried last has it.
    pub working_since: Cell<Option<Instant>>,
    /// When the response began to be written to the client.
    pub answered: Cell<Option<Instant>>,
    /// When the clock was read last.
    now: Cell<Instant>,
    /// How often the request was sent again.
    pub retries: Cell<u32>,
    /// Bytes of the request body.
    pub bytes_in: Cell<u64>,
    /// Bytes of the response body handed to the client's connection.
    pub bytes_out: Cell<u64>,
    observers: RefCell<[Option<Rc<dyn Observer>>; 2]>,
    /// Whether it is made for the sake of another one, which is counted among those that are open.
    is_beside: bool,
    finished: Cell<bool>,
    /// When the client left before the end.
    left: Cell<Option<Instant>>,
}

impl Exchange {
    /// An exchange that begins now.
    #[must_use]
    pub fn new(
        connection: Rc<ConnectionInfo>,
        protocol: Protocol,
        method: Method,
        target: Bytes,
        host: Option<Host>,
        user_agent: Option<HeaderValue>,
    ) -> Self {
        OPEN.set(OPEN.get() + 1);
        let started = Instant::now();
        Self {
            client: Cell::new(connection.source().map(|source| source.ip().to_canonical())),
            claims: OnceCell::new(),
            is_disbelieved: Cell::new(false),
            connection,
            protocol,
            started,
            received_at: SystemTime::now(),
            method,
            target,
            host,
            user_agent,
            referer: OnceCell::new(),
            id: Cell::new(None),
            site: Cell::new(None),
            place: Cell::new(0),
            hops: Cell::new(0),
            codings: Cell::new(None),
            credentials: OnceCell::new(),
            media_type: OnceCell::new(),
            upgrade: Cell::new(None),
            origins: OnceCell::new(),
            cache: Cell::new(None),
            is_background: Cell::new(false),
            route: OnceCell::new(),
            identity: Identity::default(),
            answer_fields: AnswerFields::default(),
            endpoint: RefCell::new(None),
            reason: Cell::new(None),
            is_counted: Cell::new(false),
            status: Cell::new(0),
            phase: Cell::new(Phase::Receiving),
            timings: Cell::new(Timings::default()),
            working_since: Cell::new(None),
            answered: Cell::new(None),
            now: Cell::new(started),
            retries: Cell::new(0),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            observers: RefCell::new([None, None]),
            is_beside: false,
            finished: Cell::new(false),
            left: Cell::new(None),
        }
    }

    /// An exchange of our own for the sake of this one, with another request: what is said of the client is the same.
    #[must_use]
    pub fn beside(&self, method: Method, target: Bytes) -> Self {
        let own = Self::new(Rc::clone(&self.connection), self.protocol, method, target, self.host.clone(), None);
        OPEN.set(OPEN.get() - 1);
        own.client.set(self.client.get());
        if let Some(claims) = self.claims.get() {
            // Nobody else has set it.
            let _ = own.claims.set(*claims);
        }
        own.id.set(self.id.get());
        Self { received_at: self.received_at, is_beside: true, ..own }
    }

    /// The same for what is asked in its place, with all that layers above have found out: the router's way to other routes, and
    /// who asks. What comes of it is not coded for one client, unless the field that says what he takes is still there.
    #[must_use]
    pub fn in_its_place(&self) -> Self {
        let own = self.beside(self.method.clone(), self.target.clone());
        own.site.set(self.site.get());
        own.place.set(self.place.get());
        own.hops.set(self.hops.get());
        own.codings.set(self.codings.get().map(|_| Codings::NONE));
        own.is_disbelieved.set(self.is_disbelieved.get());
        if let Some(credentials) = self.credentials.get() {
            // Nobody else has set it; here and below.
            let _ = own.credentials.set(credentials.clone());
        }
        if let Some(route) = self.route.get() {
            let _ = own.route.set(Arc::clone(route));
        }
        for (name, value) in self.identity.fields().iter() {
            own.identity.tell(name.clone(), value.clone());
        }
        own
    }

    /// The same with a request that nobody has sent yet: it begins now, and no proxy has had it before.
    #[must_use]
    pub fn beside_now(&self, method: Method, target: Bytes) -> Self {
        let mut own = self.beside(method, target);
        own.received_at = SystemTime::now();
        if let Some(claims) = own.claims.take() {
            own.claims = OnceCell::from(Claims { started: None, ..claims });
        }
        own
    }

    /// Reads the clock: to be called where time has passed, after something was waited for.
    pub fn tick(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    /// The time of the last tick, or of the beginning. Between two waits hardly any passes, and a clock that is read at every
    /// step costs as much as a header map.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Since 1970, at the last tick.
    #[must_use]
    pub fn wall_clock(&self) -> Duration {
        self.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + (self.now() - self.started)
    }

    /// The client's address as text, where the client is the one who speaks over the connection.
    #[must_use]
    pub fn client_text(&self) -> Option<&str> {
        let source = self.connection.source().map(|source| source.ip().to_canonical());
        if self.client.get() == source { self.connection.source_text() } else { None }
    }

    /// How the client speaks to the outermost proxy that is believed, or to us.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.claims.get().and_then(|claims| claims.scheme).unwrap_or_else(|| self.connection.scheme())
    }

    /// The port that the client has connected to. Of a proxy that names only the scheme, the port of Host, or the one
    /// that goes without saying: ours is not the client's.
    #[must_use]
    pub fn port(&self) -> u16 {
        let Some(claims) = self.claims.get() else { return self.connection.port() };
        let of_host = || self.host.as_ref().and_then(Host::port);
        match (claims.port, claims.scheme) {
            (Some(port), _) => port,
            (None, Some(scheme)) => of_host().unwrap_or(scheme.default_port()),
            (None, None) => self.connection.port(),
        }
    }

    /// Since 1970: when the outermost proxy that is believed had the request, or we.
    #[must_use]
    pub fn request_start(&self) -> Duration {
        let started = self.claims.get().and_then(|claims| claims.started);
        started.unwrap_or_else(|| self.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }

    /// Asks to be told when it is over. The latest to ask is told first; there is room for two.
    pub fn observe(&self, observer: Rc<dyn Observer>) {
        let mut observers = self.observers.borrow_mut();
        debug_assert!(observers[1].is_none(), "an exchange has two observers: metrics and access log");
        observers.swap(0, 1);
        observers[0] = Some(observer);
    }

    /// Changes the timings.
    pub fn time(&self, change: impl FnOnce(&mut Timings)) {
        let mut timings = self.timings.get();
        change(&mut timings);
        self.timings.set(timings);
    }

    /// The response begins to be written. An answer of the app has just been ticked; what comes of a failure has waited.
    pub fn begin_response(&self) {
        let now = if self.reason.get().is_some() { self.tick() } else { self.now() };
        self.phase.set(Phase::Responding);
        self.answered.set(Some(now));
    }

    /// Keeps the first reason: later ones are its consequences.
    pub fn fail(&self, reason: Reason) {
        if self.reason.get().is_none() {
            self.reason.set(Some(reason));
        }
    }

    /// What it waits for is not waited for any longer: notes how long that has taken so far.
    pub fn cut_phase(&self) {
        let now = self.tick();
        match (self.phase.get(), self.working_since.get()) {
            (Phase::Working, Some(since)) => self.time(|timings| timings.head = now.saturating_duration_since(since)),
            (Phase::Authorizing, since) => self.time(|timings| {
                timings.auth = now - self.started;
                timings.head = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            }),
            (Phase::Waiting, _) => {
                let since_head = now - self.started;
                self.time(|timings| timings.wait = since_head.saturating_sub(timings.receive));
            }
            _ => {}
        }
    }

    /// What the cache has made of it. The first word counts.
    pub fn cached(&self, verdict: CacheVerdict) {
        if self.cache.get().is_none() {
            self.cache.set(Some(verdict));
        }
    }

    /// Whether the client has had its end of it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }

    /// For how long the client has been gone, if it left before the end.
    #[must_use]
    pub fn gone_for(&self) -> Option<Duration> {
        self.left.get().map(|left| left.elapsed())
    }

    /// The request, with these fields as the client has sent them, asks for more than HTTP.
    pub fn asks_for(&self, upgrade: Upgrade, headers: &HeaderMap) {
        self.upgrade.set(Some(upgrade));
        // Nobody has set it before: this is when the head has been read.
        let _ = self.origins.set(headers.get_all(header::ORIGIN).iter().cloned().collect());
    }

    /// How what has taken the connection over has ended, seen from the client. Keeps the reason.
    pub fn end_of(&self, result: Result<(), Error>) -> Finish {
        match result {
            Ok(()) => Finish::Complete,
            Err(error) if error.reason == Reason::ClientGone => Finish::ClientGone,
            Err(error) => {
                self.fail(error.reason);
                Finish::Cut
            }
        }
    }

    /// Tells the observers, once. [`Self::now`] is the end for them.
    pub fn finish(&self, finish: Finish) {
        if self.finished.replace(true) {
            return;
        }
        self.tick();
        if !self.is_beside {
            OPEN.set(OPEN.get() - 1);
        }
        if finish == Finish::ClientGone {
            self.fail(Reason::ClientGone);
            self.left.set(Some(self.now()));
            self.cut_phase();
        }
        for observer in self.observers.take().into_iter().flatten() {
            observer.finished(self, finish);
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("status", &self.status.get())
            .field("reason", &self.reason.get())
            .finish_non_exhaustive()
    }
}

/// Finishes its exchange as [`Finish::ClientGone`] unless something else was said before: what happens when the
/// connection's future is dropped in the middle.
#[derive(Debug)]
pub struct ExchangeGuard(pub Rc<Exchange>);

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        let (reason, finish) = match (std::thread::panicking(), CUTTING.get()) {
            (true, _) => (Reason::Internal, Finish::Cut),
            (_, true) => (Reason::ShuttingDown, Finish::Cut),
            _ => (Reason::ClientGone, Finish::ClientGone),
        };
        if !self.0.is_finished() {
            self.0.fail(reason);
            self.0.finish(finish);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_our_own_that_begins_later_has_its_own_time() {
        let connection = Rc::new(ConnectionInfo::new("80"));
        let mut client = Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::new(), None, None);
        let long_ago = Duration::from_secs(1_000);
        client.received_at = SystemTime::UNIX_EPOCH + long_ago;
        let beside = |exchange: &Exchange| exchange.beside(Method::POST, Bytes::new()).request_start();
        let beside_now = |exchange: &Exchange| exchange.beside_now(Method::POST, Bytes::new());
        assert_eq!(beside(&client), long_ago);
        assert!(beside_now(&client).request_start() > 1_000 * long_ago);
        assert!(
            beside_now(&client).wall_clock() > 1_000 * long_ago,
            "what is signed by it is good for an hour from now"
        );
        client.claims =
            OnceCell::from(Claims { started: Some(long_ago), scheme: Some(Scheme::Https), ..Claims::default() });
        assert_eq!(beside(&client), long_ago);
        let own = beside_now(&client);
        assert!(own.request_start() > 1_000 * long_ago);
        assert_eq!(own.scheme(), Scheme::Https, "the rest holds");
    }
}
