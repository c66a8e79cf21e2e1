//! One request of ours to one of the workers, from the gate to the response head.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use http::header::{self, HeaderMap};
use tokio::time::Instant;

use super::detach::Detachable;
use super::pool::Pool;
use super::pump::{self, Passage, Rest};
use super::spool::{Budget, Share, Spooled};
use super::{Endpoint, Permit, Upstream, connect, head};
use crate::error::{Error, Reason, Retry};
use crate::http::{Body, Exchange, Phase, Response, Target, fields};
use crate::http1::client::{self, Connection, Failed};
use crate::http1::response::ResponseHead;
use crate::observe::metrics::Metrics;
use crate::observe::throttle::Throttles;
use crate::runtime::buffers::Buffer;

/// A thread's way to an upstream: the shared part, and connections of its own.
pub struct Client {
    upstream: Arc<Upstream>,
    pools: Vec<Pool>,
    /// Where the next exchange begins to look: endpoints take turns.
    turn: Cell<usize>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    throttles: Throttles,
}

/// A request that is wholly here.
pub struct Outgoing {
    /// The method, as received.
    pub method: Method,
    /// Path and query, as received.
    pub target: Target,
    /// The client's fields; what may not pass is dropped while they are written.
    pub headers: HeaderMap,
    /// The prefix under which the app lives, without a slash at the end.
    pub mount: Option<Rc<str>>,
    /// The whole body.
    pub body: Option<Rc<Spooled>>,
    /// Whose it is.
    pub exchange: Rc<Exchange>,
    /// What its response may take of the spool; `None`: it is passed on without read-ahead.
    pub share: Option<Share>,
}

impl Client {
    /// A client without connections.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, budget: Arc<Budget>, metrics: Arc<Metrics>) -> Self {
        let pools = upstream.endpoints.iter().map(|_| Pool::new(&upstream.keepalive)).collect();
        Self { upstream, pools, turn: Cell::new(0), budget, metrics, throttles: Throttles::default() }
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Closes idle connections that have grown too old.
    pub fn sweep(&self) {
        self.pools.iter().for_each(Pool::sweep);
    }

    /// Waits for a worker and brings its answer. When the caller goes away meanwhile, the place in the waiting room is
    /// given up at once, but a worker that has the request keeps its slot until it is done.
    ///
    /// # Errors
    /// The named reason of what kept the worker from answering.
    pub async fn send(self: &Rc<Self>, outgoing: Outgoing) -> Result<Response, Error> {
        let exchange = Rc::clone(&outgoing.exchange);
        exchange.phase.set(Phase::Waiting);
        let permit = match self.upstream.gate.enter().await {
            Ok(permit) => permit,
            Err(error) => {
                exchange.time(|timings| timings.wait = exchange.started.elapsed().saturating_sub(timings.receive));
                self.count(&error, &exchange);
                return Err(error);
            }
        };
        exchange.time(|timings| timings.wait = permit.waited());
        Detachable::new(Rc::clone(self).dispatch(outgoing, permit), exchange, self.upstream.abandon).await
    }

    /// With a slot: one attempt, and more where that is safe.
    async fn dispatch(self: Rc<Self>, outgoing: Outgoing, permit: Permit) -> Result<Response, Error> {
        let mut head = Buffer::take();
        let mut written = None;
        let mut attempt = 0;
        loop {
            let endpoint = self.next_endpoint();
            let protocol = self.endpoint(endpoint).address.protocol;
            if written.replace(protocol) != Some(protocol) {
                head.clear();
                head::write(&mut head, protocol, &outgoing, &self.upstream, &self.metrics)
                    .inspect_err(|error| self.failed(error, endpoint, &outgoing.exchange))?;
            }
            let Failed { error, busy } = match self.attempt(endpoint, &head, &outgoing, permit.since()).await {
                Ok(response) => {
                    let Outgoing { exchange, share, headers, .. } = outgoing;
                    fields::give_map(headers);
                    let rest = Rest { client: Rc::clone(&self), endpoint, exchange, permit };
                    return Ok(self.response(response, rest, share));
                }
                Err(failed) => failed,
            };
            self.failed(&error, endpoint, &outgoing.exchange);
            if let Some(connection) = busy {
                pump::hold(connection, self.upstream.abandon, permit);
                return Err(error);
            }
            let is_last = attempt == self.upstream.retry_attempts || outgoing.exchange.is_finished();
            if is_last || !self.may_repeat(&error, &outgoing) {
                return Err(error);
            }
            // What made one idle connection stale has made the others stale as well.
            self.pools[endpoint].clear();
            attempt += 1;
            self.upstream.metrics.retry(error.reason);
            outgoing.exchange.retries.set(attempt);
        }
    }

    async fn attempt(
        &self,
        endpoint: usize,
        head: &[u8],
        outgoing: &Outgoing,
        since: Instant,
    ) -> Result<client::Response, Failed> {
        let exchange = &outgoing.exchange;
        let is_repeatable = outgoing.method.is_idempotent();
        let (connection, begun) = match self.pools[endpoint].take(!is_repeatable) {
            Some(connection) => (connection, since),
            None => self.connect(endpoint, exchange).await.map_err(|error| Failed { error, busy: None })?,
        };
        *exchange.endpoint.borrow_mut() = Some(Arc::clone(&self.endpoint(endpoint).name));
        exchange.phase.set(Phase::Working);
        let body = outgoing.body.as_ref().map_or(Body::Empty, |spooled| spooled.body());
        let response = connection.exchange(head, body, &outgoing.method, self.upstream.patience).await;
        exchange.time(|timings| timings.head = begun.elapsed());
        response
    }

    /// A fresh connection, and when it was there.
    async fn connect(&self, endpoint: usize, exchange: &Exchange) -> Result<(Connection, Instant), Error> {
        exchange.phase.set(Phase::Connecting);
        let begun = Instant::now();
        let endpoint = self.endpoint(endpoint);
        *exchange.endpoint.borrow_mut() = Some(Arc::clone(&endpoint.name));
        let socket = connect::connect(&endpoint.address, self.upstream.connect_timeout).await;
        let done = Instant::now();
        exchange.time(|timings| timings.connect += done - begun);
        socket.map(|socket| (Connection::new(socket, endpoint.dialect()), done))
    }

    fn endpoint(&self, index: usize) -> &Endpoint {
        &self.upstream.endpoints[index]
    }

    fn next_endpoint(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set((turn + 1) % self.pools.len());
        turn
    }

    fn response(&self, response: client::Response, rest: Rest, share: Option<Share>) -> Response {
        if response.interim > 0 {
            self.upstream.metrics.informational.inc_by(u64::from(response.interim));
        }
        let client::Response { head: ResponseHead { status, headers, .. }, body, .. } = response;
        let (passage, share) = match share {
            Some(share) if !wants_to_stream(&headers) => (Passage::ReadAhead, share),
            _ => (Passage::Stream, Share { memory: 0, disk: 0 }),
        };
        let mut response = Response::new(pump::body(body, rest, passage, share, &self.budget));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// Counts a failure under the upstream's name.
    fn count(&self, error: &Error, exchange: &Exchange) {
        exchange.is_counted.set(true);
        self.upstream.metrics.failure(error.reason);
    }

    /// Counts and tells a failure of the exchange with a worker.
    pub(super) fn failed(&self, error: &Error, endpoint: usize, exchange: &Exchange) {
        self.count(error, exchange);
        let Some(left_out) = self.throttles.pass(error.reason) else { return };
        tracing::warn!(
            upstream = %self.upstream.name,
            endpoint = %self.endpoint(endpoint).name,
            request_id = exchange.id.get().as_ref().map_or("", |id| id.as_str()),
            reason = error.reason.as_str(),
            left_out,
            "{error}"
        );
    }

    /// Whether the request may be sent again after this failure.
    fn may_repeat(&self, error: &Error, outgoing: &Outgoing) -> bool {
        match (error.retry, error.reason) {
            (Retry::Never, _) | (_, Reason::SocketPermission | Reason::NameNotResolved) => false,
            // At once, and at the same closed door, another try would meet the same.
            (
                Retry::Unsent,
                Reason::ConnectRefused
                | Reason::SocketMissing
                | Reason::BacklogFull
                | Reason::ConnectTimeout
                | Reason::ConnectFailed,
            ) => self.pools.len() > 1,
            (Retry::Unsent, _) => true,
            // The worker has it and may still be at it.
            (Retry::IfIdempotent, Reason::HeadTimeout | Reason::IdleTimeout) => false,
            // RFC 9110, 9.2.2.
            (Retry::IfIdempotent, _) => {
                outgoing.method.is_idempotent() || outgoing.headers.contains_key("idempotency-key")
            }
        }
    }

    /// Keeps a connection whose exchange has ended well.
    pub(super) fn keep(&self, endpoint: usize, connection: Connection) {
        self.pools[endpoint].put(connection);
    }
}

/// Whether the app wants its bytes passed on as they come.
fn wants_to_stream(headers: &HeaderMap) -> bool {
    let is_events = headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    });
    is_events || headers.get("x-accel-buffering").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"no"))
}
