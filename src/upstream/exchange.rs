//! One request of ours to one of the workers, from the waiting room to the response head.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};
use tokio::time::Instant;

use super::balance::{self, Wish};
use super::detach::Detachable;
use super::endpoint::Endpoint;
use super::pool::Pool;
use super::pump::{self, Passage, Rest};
use super::repeat::{self, Next};
use super::room::Seek;
use super::spool::{self, Budget, Share, Spooled};
use super::tunnel::Tunnel;
use super::wire::{self, Connection, Failed, Once, ResponseBody};
use super::{Permit, Upstream, head};
use crate::error::{Error, Reason, Side};
use crate::http::upgrade::accept_for;
use crate::http::{Asked, Body, Exchange, Handovers, Phase, Request, Response, Told, fields, key, network};
use crate::http1::client::Expect;
use crate::observe::metrics::Metrics;
use crate::runtime::buffers::Buffer;
use crate::runtime::deadline;

/// The first pause of a request that met a full backlog; each is twice as long as the one before.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);
/// The longest.
const LONGEST_BACKLOG_PAUSE: Duration = Duration::from_millis(100);

/// The place in the waiting room of what no client waits for: below every route's.
const BACKGROUND: i32 = i32::MIN;

/// How long a worker has for its `100 Continue` that has never sent one.
const CONTINUE: Duration = Duration::from_secs(1);

/// A 500 that came sooner is not gunicorn's worker timeout, whose unit is the second.
const SHORTEST_WORKER_TIMEOUT: Duration = Duration::from_secs(1);

/// A thread's way to an upstream: the shared part, and connections of its own.
pub struct Client {
    upstream: Arc<Upstream>,
    /// One for each endpoint.
    pools: Vec<Pool>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

/// A request that is wholly here.
pub struct Outgoing {
    /// As received, but for the body. What may not pass of its fields is dropped while they are written.
    pub request: Box<Request>,
    /// The whole body.
    pub body: Option<Rc<Spooled>>,
    /// What its route says of it.
    pub terms: Rc<RouteTerms>,
}

/// What a route says of how its requests are sent.
#[derive(Debug, Clone, Default)]
pub struct RouteTerms {
    /// The prefix under which the app lives, without a slash at the end.
    pub mount: Option<Box<str>>,
    /// What a response may take of the spool.
    pub share: Share,
    /// Whether responses are read ahead where the app does not say. Else they are passed on as they come.
    pub reads_ahead: bool,
    /// Which of its answers the app may hand over to the edge.
    pub handovers: Handovers,
    /// Whether the app may have its client held: an answer that says so is short, whatever its type is.
    pub holds: bool,
    /// The place in the waiting room: higher goes first.
    pub priority: i32,
    /// Names by which the edge tells apps who asks, whatever the route: no client may send them. Beside those that
    /// [`fields::request_field`] knows.
    pub identity_names: Arc<[HeaderName]>,
    /// How WebSockets are passed through; `None`: they are not.
    pub tunnel: Option<Tunneling>,
}

/// How a route passes WebSockets through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tunneling {
    /// After how long without a word a client is sent a ping.
    pub ping: Option<Duration>,
}

/// An attempt that brought no answer.
struct Attempt {
    failed: Failed,
    /// Whether it was made on a connection that had served before.
    is_reused: bool,
}

/// What has been tried for a request.
struct Tries {
    /// Whether the app may get it twice.
    is_idempotent: bool,
    /// When the present attempt began.
    begun: Instant,
    /// How often it was sent again.
    repeated: u32,
    /// How long it waits for a place in a full backlog, and since when.
    backlog_pause: Duration,
    in_backlog: Option<Instant>,
}

impl Tries {
    fn new(outgoing: &Outgoing, begun: Instant) -> Self {
        let is_idempotent = outgoing.may_run_twice();
        Self { is_idempotent, begun, repeated: 0, backlog_pause: BACKLOG_PAUSE, in_backlog: None }
    }

    /// For how long it has met full backlogs.
    fn in_backlog(&mut self) -> Duration {
        self.in_backlog.get_or_insert_with(Instant::now).elapsed()
    }

    /// The next pause: each is twice as long as the one before.
    fn backlog_pause(&mut self) -> Duration {
        let pause = self.backlog_pause;
        self.backlog_pause = (pause * 2).min(LONGEST_BACKLOG_PAUSE);
        pause
    }
}

impl Outgoing {
    /// Whether it is the opening handshake of a WebSocket that is to be passed through. Its fields are those of HTTP/1.1.
    pub(super) fn opens_tunnel(&self) -> bool {
        self.terms.tunnel.is_some() && self.request.exchange.upgrade.get().is_some()
    }

    /// Whether the app may get it twice (RFC 9110, 9.2.2).
    fn may_run_twice(&self) -> bool {
        const KEY: &str = "idempotency-key";
        let headers = &self.request.headers;
        // Who names the key in `Connection` keeps it from the app, which then could not tell.
        let has_key =
            || headers.contains_key(KEY) && !fields::named_by_connection(headers).iter().any(|name| name == KEY);
        self.request.method.is_idempotent() || has_key()
    }
}

impl Client {
    /// A client without connections.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, budget: Arc<Budget>, metrics: Arc<Metrics>) -> Self {
        let pools = upstream.endpoints().iter().map(|_| Pool::new(&upstream.config.keepalive)).collect();
        Self { upstream, pools, budget, metrics }
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// What is written of the upstream.
    #[must_use]
    pub fn config(&self) -> &crate::config::Upstream {
        &self.upstream.config
    }

    /// The key under `upstreams`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.upstream.name
    }

    /// What the configuration says of the upstream.
    #[cfg(test)]
    pub(crate) fn upstream_config(&self) -> &crate::config::Upstream {
        &self.upstream.config
    }

    /// How long a worker has for the head of its answer.
    #[must_use]
    pub fn head_timeout(&self) -> Duration {
        self.upstream.config.timeouts.head
    }

    /// Closes idle connections that have grown too old.
    pub fn sweep(&self) {
        self.pools.iter().for_each(Pool::sweep);
    }

    /// Another configuration is in force: what is still in flight here ends, and leaves no connection behind.
    pub fn retire(&self) {
        self.pools.iter().for_each(Pool::retire);
    }

    /// Why a request is not taken at all: its client already keeps as much of the spool filled as it may, with bodies that
    /// it sends or takes slowly. One more would hold its worker up.
    #[must_use]
    pub fn spool_refusal(&self, exchange: &Exchange) -> Option<Error> {
        if !self.budget.is_had_by(exchange.client.get()) {
            return None;
        }
        let error = spool::full();
        self.count(&error, exchange);
        Some(error)
    }

    /// Why a request would not even be let wait, known before its body is received. `None`: it would.
    #[must_use]
    pub fn refusal(&self, exchange: &Exchange, priority: i32) -> Option<Error> {
        let seek = Seek { priority, client: self.turn(exchange), wish: Wish::default() };
        let error = self.upstream.room.refusal(seek)?;
        self.count(&error, exchange);
        Some(error)
    }

    /// Why a request for events is not taken: it would pin a worker before it could be refused by its answer, and enough are
    /// pinned. `None`: it is taken, or asks for something else.
    #[must_use]
    pub fn stream_refusal(&self, request: &Request) -> Option<Error> {
        if !self.upstream.room.is_streams_full() || !asks_for_events(&request.headers) {
            return None;
        }
        let error = self.upstream.streams_full();
        self.count(&error, &request.exchange);
        Some(error)
    }

    /// Waits for a worker and brings its answer. When the caller goes away meanwhile, the place in the waiting room is
    /// given up at once, but a worker that has the request keeps its slot until it is done.
    ///
    /// # Errors
    /// The named reason of what kept the worker from answering.
    pub async fn send(self: &Rc<Self>, outgoing: Outgoing) -> Result<Response, Error> {
        let exchange = Rc::clone(&outgoing.request.exchange);
        exchange.phase.set(Phase::Waiting);
        // It has been ticked since anything else was waited for.
        let (now, seek) = (exchange.now(), self.seek(&outgoing));
        let permit = match self.upstream.room.enter_at(now, &self.upstream.balance, seek).await {
            Ok(permit) => permit,
            Err(error) => {
                exchange.time(|timings| timings.wait = exchange.started.elapsed().saturating_sub(timings.receive));
                self.count(&error, &exchange);
                return Err(error);
            }
        };
        exchange.time(|timings| timings.wait = permit.waited());
        // What came before it from the same client may have filled the spool meanwhile.
        if outgoing.body.is_none()
            && let Some(refusal) = self.spool_refusal(&exchange)
        {
            return Err(refusal);
        }
        Detachable::new(Rc::clone(self).dispatch(outgoing, permit), exchange, self.upstream.abandon()).await
    }

    /// With a slot: one attempt, and more where that is safe.
    async fn dispatch(self: Rc<Self>, outgoing: Outgoing, mut permit: Permit) -> Result<Response, Error> {
        let mut head = Buffer::take();
        let mut written = None;
        let mut tries = Tries::new(&outgoing, permit.since());
        loop {
            let endpoint = Arc::clone(permit.endpoint());
            let protocol = endpoint.address.protocol;
            if written.replace(protocol) != Some(protocol) {
                head.clear();
                head::write(&mut head, protocol, &outgoing, &self.upstream, &self.metrics)
                    .inspect_err(|error| self.failed(error, &endpoint, &outgoing.request.exchange))?;
            }
            let attempt = self.attempt(&endpoint, &head, &outgoing, &mut permit, &tries).await;
            let Attempt { failed: Failed { error, busy }, is_reused } = match attempt {
                Ok(response) => {
                    let Outgoing { request, terms, .. } = outgoing;
                    let rest = Rest { client: Rc::clone(&self), exchange: Rc::clone(&request.exchange), permit };
                    return self.response(response, rest, request, &terms);
                }
                Err(attempt) => attempt,
            };
            if let Some(connection) = busy {
                self.failed(&error, &endpoint, &outgoing.request.exchange);
                self.judge(&endpoint, error.reason);
                pump::hold(connection, self.upstream.abandon(), permit);
                return Err(error);
            }
            permit = Box::pin(self.again(permit, error, is_reused, &outgoing.request.exchange, &mut tries)).await?;
            tries.begun = Instant::now();
        }
    }

    /// After an attempt that brought no answer and left no worker busy: the slot for the next one.
    ///
    /// # Errors
    /// What failed, when there is to be none.
    async fn again(
        &self,
        mut permit: Permit,
        error: Error,
        is_reused: bool,
        exchange: &Exchange,
        tries: &mut Tries,
    ) -> Result<Permit, Error> {
        let endpoint = Arc::clone(permit.endpoint());
        let next = if exchange.is_finished() { Next::Fail } else { repeat::next(&error, tries.is_idempotent) };
        match next {
            Next::Hold => {
                self.upstream.metrics.retry(error.reason);
                self.upstream.room.silent(&endpoint, error.reason);
                let permit = self.rejoin(permit, exchange).await?;
                exchange.is_counted.set(false);
                return Ok(permit);
            }
            Next::Backlog if tries.in_backlog() < self.upstream.config.waiting_room.timeout => {
                if error.reason == Reason::NoDescriptors {
                    self.make_room(&error);
                }
                permit.move_on(&self.upstream.balance);
                tokio::time::sleep(tries.backlog_pause()).await;
                return Ok(permit);
            }
            _ => {}
        }
        self.failed(&error, &endpoint, exchange);
        // A connection that had grown stale says nothing about its endpoint, but much about its like.
        let is_stale = is_reused && matches!(error.reason, Reason::EofBeforeHead | Reason::ResetBeforeHead);
        if !is_stale {
            self.judge(&endpoint, error.reason);
        }
        if matches!(next, Next::Fail | Next::Backlog) || tries.repeated == self.upstream.retry().attempts {
            return Err(error);
        }
        let is_elsewhere = !is_reused && permit.move_on(&self.upstream.balance);
        if next == Next::Elsewhere && !is_elsewhere {
            return Err(error);
        }
        if let Some(pool) = self.pool(&endpoint) {
            pool.clear();
        }
        tries.repeated += 1;
        exchange.retries.set(tries.repeated);
        // What comes of it is counted on its own.
        exchange.is_counted.set(false);
        self.upstream.metrics.retry(error.reason);
        Ok(permit)
    }

    /// The process has no descriptor left: whoever is idle here gives theirs.
    fn make_room(&self, error: &Error) {
        self.pools.iter().for_each(Pool::clear);
        if deadline::make_room() {
            self.metrics.connections_evicted.inc();
        }
        if let Some(left_out) = self.upstream.throttles.pass(error.reason) {
            tracing::warn!(
                upstream = %self.upstream.name,
                reason = error.reason.as_str(),
                left_out,
                "{error}; the request waits for one. Raise LimitNOFILE (systemd) or ulimit -n, or look who uses them"
            );
        }
    }

    /// Back to the waiting room, until somebody answers.
    async fn rejoin(&self, permit: Permit, exchange: &Exchange) -> Result<Permit, Error> {
        exchange.phase.set(Phase::Waiting);
        let arrived = permit.arrived();
        let permit = permit.rejoin().await;
        exchange.time(|timings| timings.wait = arrived.elapsed());
        permit.inspect_err(|error| self.count(error, exchange))
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        head: &[u8],
        outgoing: &Outgoing,
        permit: &mut Permit,
        tries: &Tries,
    ) -> Result<wire::Response, Attempt> {
        let exchange = &outgoing.request.exchange;
        let is_repeatable = tries.is_idempotent;
        let kept = self.pool(endpoint).and_then(|pool| pool.take(!is_repeatable, tries.begun));
        let is_reused = kept.is_some();
        let (mut connection, begun) = match kept {
            Some(connection) => (connection, tries.begun),
            // Boxed, as all that is done now and then: a request that needs none of it is not to carry room for it.
            None => Box::pin(self.connect(endpoint, exchange))
                .await
                .map_err(|error| Attempt { failed: Failed { error, busy: None }, is_reused })?,
        };
        if is_reused {
            *exchange.endpoint.borrow_mut() = Some(Arc::clone(&endpoint.state.name));
        }
        if outgoing.opens_tunnel() {
            connection.may_switch();
        }
        exchange.phase.set(Phase::Working);
        exchange.working_since.set(Some(begun));
        permit.used();
        let body = outgoing.body.as_ref().map_or(Body::Empty, |spooled| spooled.body());
        let once = Once { may_run_twice: is_repeatable, expect: self.patience_for_continue(endpoint) };
        let connector = &endpoint.connector;
        let whole = connector.has_preamble().then(|| {
            let mut whole = Buffer::take();
            connector.preamble(Some(exchange), &mut whole);
            whole.extend_from_slice(head);
            whole
        });
        let head = whole.as_ref().map_or(head, |whole| &whole[..]);
        let response = connection.exchange(head, body, &outgoing.request.method, once, self.upstream.patience).await;
        let answered = exchange.tick();
        exchange.time(|timings| timings.head = answered.saturating_duration_since(begun));
        if let (Ok(response), Some(_), false, true) = (&response, once.expect, is_repeatable, outgoing.body.is_some()) {
            endpoint.state.answers_continue.store(response.continued, Ordering::Relaxed);
        }
        response.map_err(|failed| Attempt { failed, is_reused })
    }

    /// How long the body of a request that must not run twice waits for the worker's 100, if that is wanted. One that is
    /// known to send it has as long as for an answer: until then nobody has begun. Others may never do (RFC 9110, 10.1.1).
    fn patience_for_continue(&self, endpoint: &Endpoint) -> Option<Expect> {
        self.upstream.retry().expect.then(|| {
            let is_known = endpoint.state.answers_continue.load(Ordering::Relaxed);
            Expect { patience: if is_known { self.upstream.patience.head } else { CONTINUE }, is_known }
        })
    }

    /// A fresh connection, and when it was there.
    async fn connect(&self, endpoint: &Endpoint, exchange: &Exchange) -> Result<(Connection, Instant), Error> {
        exchange.phase.set(Phase::Connecting);
        let begun = Instant::now();
        *exchange.endpoint.borrow_mut() = Some(Arc::clone(&endpoint.state.name));
        let connector = &endpoint.connector;
        let connected = match connector.connect(Some(exchange), self.upstream.config.timeouts.connect).await {
            Ok(stream) => Connection::open(stream, connector.protocol()).await,
            Err(error) => Err(error),
        };
        let done = Instant::now();
        exchange.time(|timings| timings.connect += done - begun);
        connected.map(|connection| (connection, done))
    }

    /// The connections of this thread to an endpoint; `None`: it is one of another configuration.
    fn pool(&self, endpoint: &Endpoint) -> Option<&Pool> {
        let at = self.upstream.endpoints().iter().position(|known| known.id == endpoint.id)?;
        self.pools.get(at)
    }

    fn seek(&self, outgoing: &Outgoing) -> Seek {
        let key = self.upstream.balance.hash_by().and_then(|by| key(by, &outgoing.request)).map(balance::digest_of);
        let client = self.turn(&outgoing.request.exchange);
        let is_background = outgoing.request.exchange.is_background.get();
        let priority = if is_background { BACKGROUND } else { outgoing.terms.priority };
        Seek { priority, client, wish: Wish { key, avoid: None } }
    }

    /// Whose turn a request takes.
    fn turn(&self, exchange: &Exchange) -> u64 {
        match exchange.client.get() {
            Some(address) if self.upstream.config.waiting_room.is_fair => network(address),
            _ => 0,
        }
    }

    /// A failure may be one too many for its endpoint.
    pub(super) fn judge(&self, endpoint: &Endpoint, reason: Reason) {
        let ejection = self.upstream.ejection();
        if ejection.failures == 0 || !speaks_against_endpoint(reason) {
            return;
        }
        let is_over = endpoint.state.failed(ejection.failures, ejection.window);
        if !is_over || !self.upstream.room.eject(endpoint, ejection.duration) {
            return;
        }
        tracing::warn!(
            upstream = %self.upstream.name,
            endpoint = endpoint.name(),
            reason = reason.as_str(),
            "{} failures in a row within {:?}: the endpoint is left out for {:?} (ejection)",
            ejection.failures,
            ejection.window,
            ejection.duration
        );
    }

    fn response(
        &self,
        response: wire::Response,
        rest: Rest,
        mut request: Box<Request>,
        terms: &RouteTerms,
    ) -> Result<Response, Error> {
        if response.interim > 0 {
            self.upstream.metrics.informational.inc_by(u64::from(response.interim));
        }
        let wire::Response { status, headers, body, .. } = response;
        if !status.is_server_error() {
            rest.permit.endpoint().state.served();
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            self.explain_500(&headers, &rest);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return self.tunnel(headers, body, rest, &request, terms);
        }
        if request.exchange.upgrade.get().is_some() {
            // The app has not taken it: this is an answer like any other, and may be handed on like any other.
            request.exchange.upgrade.set(None);
        }
        let asked = std::mem::take(&mut request.headers);
        let mut told = Told::by(&headers);
        let body = match &mut told {
            Some(told) if told.handover(terms.handovers).is_some() => {
                told.asked = Some(Asked { method: request.method, headers: asked });
                pump::let_go(body, rest);
                Body::Empty
            }
            _ => {
                fields::give_map(asked);
                let buffering = told.as_ref().and_then(|told| told.buffering);
                let is_hold = terms.holds && fields::has_instructions(&headers);
                let passage = match is_hold {
                    true => Passage::ReadAhead,
                    false => passage(&headers, buffering, terms.reads_ahead),
                };
                pump::body(body, rest, passage, terms.share, &self.budget)?
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if let Some(told) = told {
            response.extensions_mut().insert(told);
        }
        Ok(response)
    }

    /// The worker has taken a WebSocket: its connection goes to the client, and its slot is free.
    fn tunnel(
        &self,
        headers: HeaderMap,
        body: ResponseBody,
        rest: Rest,
        request: &Request,
        terms: &RouteTerms,
    ) -> Result<Response, Error> {
        let Rest { client, exchange, mut permit } = rest;
        let endpoint = Arc::clone(permit.endpoint());
        permit.ended(exchange.now());
        drop(permit);
        let worker = match (mismatch(&headers, &request.headers), body) {
            (None, ResponseBody::Http1(body)) => body.into_busy(),
            (mismatch, _) => {
                let error = Error::new(Reason::HandshakeMismatch).detail(mismatch.unwrap_or("101 in HTTP/2"));
                self.failed(&error, &endpoint, &exchange);
                self.judge(&endpoint, error.reason);
                return Err(error);
            }
        };
        let ping = terms.tunnel.and_then(|tunnel| tunnel.ping);
        let mut response = Response::new(Body::Takeover(Box::new(Tunnel { worker, client, endpoint, ping })));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// gunicorn answers for a worker that it stops after its `timeout` with a page of its own, which says nothing of that.
    fn explain_500(&self, headers: &HeaderMap, rest: &Rest) {
        let took = rest.exchange.timings.get().head;
        // Unlike an app's answer it goes past the code that adds these two.
        let is_own = !headers.contains_key(header::DATE) && !headers.contains_key(header::SERVER);
        if !is_own || took < SHORTEST_WORKER_TIMEOUT || !fields::has_token(headers, &header::CONNECTION, "close") {
            return;
        }
        let Some(left_out) = self.upstream.worker_timeouts.pass() else { return };
        self.upstream.sample(Duration::from_secs(1));
        let status = self.upstream.room.status();
        tracing::warn!(
            upstream = %self.upstream.name,
            endpoint = rest.permit.endpoint().name(),
            request_id = rest.exchange.id.get().as_ref().map_or("", |id| id.as_str()),
            left_out,
            in_flight = status.in_flight,
            waiting = status.waiting,
            workers_hint = status.needed.map(|needed| needed.workers_hint),
            "a 500 of the app's server itself after {took:.1?}: gunicorn sends this when a request runs into its `timeout` (30 s unless set). \
             Make the view faster, raise gunicorn's timeout, or move the work to a task",
        );
    }

    /// Counts a failure under the upstream's name.
    fn count(&self, error: &Error, exchange: &Exchange) {
        exchange.is_counted.set(true);
        self.upstream.metrics.failure(error.reason);
    }

    /// Counts and tells a failure of the exchange with a worker.
    pub(super) fn failed(&self, error: &Error, endpoint: &Endpoint, exchange: &Exchange) {
        self.count(error, exchange);
        let Some(left_out) = self.upstream.throttles.pass(error.reason) else { return };
        tracing::warn!(
            upstream = %self.upstream.name,
            endpoint = endpoint.name(),
            request_id = exchange.id.get().as_ref().map_or("", |id| id.as_str()),
            reason = error.reason.as_str(),
            left_out,
            "{error}"
        );
    }

    /// Counts and tells that an answer, which was had in good order, is not what was asked for.
    pub fn complain(&self, exchange: &Exchange, reason: Reason, detail: &str) {
        self.upstream.metrics.failure(reason);
        let Some(left_out) = self.upstream.throttles.pass(reason) else { return };
        tracing::warn!(
            upstream = %self.upstream.name,
            endpoint = exchange.endpoint.borrow().as_deref().unwrap_or_default(),
            request_id = exchange.id.get().as_ref().map_or("", |id| id.as_str()),
            reason = reason.as_str(),
            left_out,
            "{reason}: {detail}"
        );
    }

    /// Keeps a connection whose exchange has ended well, just now.
    pub(super) fn keep(&self, endpoint: &Endpoint, connection: Connection, now: Instant) {
        if let Some(pool) = self.pool(endpoint) {
            pool.put(connection, now);
        }
    }
}

/// What is wrong with a worker's 101 to a handshake (RFC 6455, 4.1).
fn mismatch(answer: &HeaderMap, asked: &HeaderMap) -> Option<&'static str> {
    let expected = asked.get(header::SEC_WEBSOCKET_KEY).map(|key| accept_for(key.as_bytes()));
    match () {
        () if !fields::has_token(answer, &header::UPGRADE, "websocket") => Some("its 101 has no `Upgrade: websocket`"),
        () if !fields::has_token(answer, &header::CONNECTION, "upgrade") => {
            Some("its 101 has no `Connection: Upgrade`")
        }
        () if expected.is_none() || answer.get(header::SEC_WEBSOCKET_ACCEPT) != expected.as_ref() => {
            Some("the Sec-WebSocket-Accept of its 101 does not belong to the key that it was sent")
        }
        () => None,
    }
}

/// Whether a failure counts towards ejection: not what the client or the edge did, not load, and not what is waited
/// for anyway.
fn speaks_against_endpoint(reason: Reason) -> bool {
    use Reason as R;
    reason.side() == Side::Upstream
        && !matches!(reason, R::BacklogFull | R::ConnectRefused | R::SocketMissing | R::NoEndpoint)
}

/// Whether the client wants an event stream, as every `EventSource` says.
fn asks_for_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).into_iter();
    accepts.into_iter().any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// How a body is passed on: as the app says, else as the route does. An event stream may never end, so that a worker would
/// be held by it uncounted: nothing is said about those.
fn passage(headers: &HeaderMap, buffering: Option<bool>, reads_ahead: bool) -> Passage {
    let is_events = headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    });
    if buffering.unwrap_or(reads_ahead) && !is_events { Passage::ReadAhead } else { Passage::Stream }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_app_says_whether_it_is_read_ahead_and_then_the_route() {
        let events = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("Text/Event-Stream"))]);
        for (buffering, reads_ahead, expected) in [
            (None, true, Passage::ReadAhead),
            (None, false, Passage::Stream),
            (Some(false), true, Passage::Stream),
            (Some(true), false, Passage::ReadAhead),
        ] {
            assert_eq!(passage(&HeaderMap::new(), buffering, reads_ahead), expected, "{buffering:?} {reads_ahead}");
            assert_eq!(passage(&events, buffering, reads_ahead), Passage::Stream, "{buffering:?} {reads_ahead}");
        }
    }

    #[test]
    fn neither_clients_nor_load_nor_restarts_speak_against_an_endpoint() {
        use Reason as R;
        for reason in [R::HeadTimeout, R::EofBeforeHead, R::EofInBody, R::BadHead, R::TlsFailed, R::ConnectTimeout] {
            assert!(speaks_against_endpoint(reason), "{reason}");
        }
        for reason in
            [R::ClientGone, R::VarsTooLarge, R::SpoolFailed, R::StreamsFull, R::BacklogFull, R::ConnectRefused]
        {
            assert!(!speaks_against_endpoint(reason), "{reason}");
        }
    }
}
