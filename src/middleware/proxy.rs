//! The action `proxy`: the whole request into the spool (`buffer`, `body_limit`), then to a worker (`timeout`).
//!
//! Below everything that may refuse: a body is received only for a request that will be sent. What the route does not
//! take is refused before the first byte of the body, and before a waiting client is told to go on.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::config::WebSocketMode;
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, Handovers, Phase, Request, Response, Service};
use crate::runtime::Deadline;
use crate::upstream::spool::{self, Budget, Share, Spooled};
use crate::upstream::{Client, Outgoing, RouteTerms, Tunneling};

/// Sends requests to an upstream.
pub struct Proxy {
    client: Rc<Client>,
    budget: Arc<Budget>,
    body_limit: u64,
    /// What a request body may take of the spool.
    share: Share,
    /// Taken away before the path is sent.
    strip_prefix: Option<Box<str>>,
    terms: Rc<RouteTerms>,
    timeout: Option<Duration>,
}

impl Proxy {
    /// How the requests of a route are sent.
    #[must_use]
    pub fn terms(route: &crate::config::Route, handovers: Handovers, identity_names: Arc<[HeaderName]>) -> RouteTerms {
        let buffer = &route.buffer;
        RouteTerms {
            mount: route.mount.as_deref().map(Box::from),
            share: Share { memory: buffer.memory, disk: buffer.disk, client: None },
            reads_ahead: buffer.response,
            handovers,
            holds: route.grip,
            priority: route.priority,
            identity_names,
            tunnel: route.websocket.as_ref().and_then(|websocket| match websocket.mode {
                WebSocketMode::Tunnel => Some(Tunneling { ping: websocket.ping }),
                WebSocketMode::OverHttp => None,
            }),
        }
    }

    /// The action of one route. `identity_names` are those of all routes.
    #[must_use]
    pub fn compile(
        route: &crate::config::Route,
        handovers: Handovers,
        client: Rc<Client>,
        budget: Arc<Budget>,
        identity_names: Arc<[HeaderName]>,
    ) -> Self {
        let terms = Self::terms(route, handovers, identity_names);
        let share = terms.share;
        let strip_prefix = route.strip_prefix.as_deref().map(Box::from);
        Self {
            client,
            budget,
            body_limit: route.body_limit,
            share,
            strip_prefix,
            terms: Rc::new(terms),
            timeout: route.timeout,
        }
    }
}

impl Service for Proxy {
    type Error = Error;

    async fn call(&self, mut request: Box<Request>) -> Result<Response, Error> {
        if let Some(prefix) = &self.strip_prefix
            && let Some(target) = request.target.without_prefix(prefix)?
        {
            request.target = target;
        }
        if let Some(refusal) = self.client.spool_refusal(&request.exchange) {
            return Err(refusal);
        }
        request.exchange.phase.set(Phase::Receiving);
        let body = match std::mem::take(&mut request.body) {
            Body::Empty => None,
            // Boxed: most requests have none, and need no room for how it is received.
            body => Box::pin(self.receive(body, &request.exchange)).await?,
        };
        // Where clients are held, who asks for events will hardly keep a worker; if so, its answer tells.
        if !self.terms.holds
            && let Some(refusal) = self.client.stream_refusal(&request)
        {
            return Err(refusal);
        }
        let outgoing = Outgoing { request, body, terms: Rc::clone(&self.terms) };
        match self.timeout {
            None => self.client.send(outgoing).await,
            Some(timeout) => Box::pin(self.send_within(timeout, outgoing)).await,
        }
    }
}

impl Proxy {
    /// The answer's head, unless `timeout` passes first, counted from when the request was whole. A worker that has the
    /// request keeps its slot until it is done.
    async fn send_within(&self, timeout: Duration, outgoing: Outgoing) -> Result<Response, Error> {
        let exchange = Rc::clone(&outgoing.request.exchange);
        // The end of a body has just been ticked.
        let whole_for = if outgoing.body.is_some() { Duration::ZERO } else { exchange.tick() - exchange.started };
        let left = timeout.saturating_sub(whole_for);
        match Deadline::new().bound(left, self.client.send(outgoing)).await {
            Ok(result) => result,
            Err(_) => {
                exchange.cut_phase();
                Err(Error::new(Reason::RouteTimeout).detail(exchange.phase.get().as_str()))
            }
        }
    }

    async fn receive(&self, body: Body, exchange: &Exchange) -> Result<Option<Rc<Spooled>>, Error> {
        if let Some(refusal) = self.client.refusal(exchange, self.terms.priority) {
            return Err(refusal);
        }
        let begun = exchange.now();
        let share = Share { client: exchange.client.get(), ..self.share };
        let received = spool::receive(body, self.body_limit, share, &self.budget).await;
        let now = exchange.tick();
        exchange.time(|timings| timings.receive = now - begun);
        let body = received?;
        exchange.bytes_in.set(body.as_ref().map_or(0, |body| body.length()));
        Ok(body)
    }
}
