//! The action `proxy`: the whole request into the spool (`buffer`, `body_limit`), then to a worker.
//!
//! Below everything that may refuse: a body is received only for a request that will be sent. What the route does not
//! take is refused before the first byte of the body, and before a waiting client is told to go on.

use std::rc::Rc;
use std::sync::Arc;

use http::header;
use tokio::time::Instant;

use crate::error::{Error, Reason};
use crate::http::{Phase, Request, Response, Service, fields};
use crate::upstream::spool::{self, Budget, Share};
use crate::upstream::{Client, Outgoing};

/// Sends requests to an upstream.
pub struct Proxy {
    client: Rc<Client>,
    budget: Arc<Budget>,
    mount: Option<Rc<str>>,
    body_limit: u64,
    share: Share,
    /// `buffer.response`.
    read_ahead: bool,
    priority: i32,
}

impl Proxy {
    /// The action of one route.
    #[must_use]
    pub fn compile(route: &crate::config::Route, client: Rc<Client>, budget: Arc<Budget>) -> Self {
        let buffer = &route.buffer;
        Self {
            client,
            budget,
            mount: route.mount.as_deref().map(Rc::from),
            body_limit: route.body_limit,
            share: Share { memory: buffer.memory, disk: buffer.disk, client: None },
            read_ahead: buffer.response,
            priority: route.priority,
        }
    }
}

impl Service for Proxy {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let Request { method, target, headers, body, exchange, .. } = *request;
        // The app behind a WSGI server cannot take one; said plainly instead of as a 404 of its own.
        if fields::has_token(&headers, &header::UPGRADE, "websocket") {
            return Err(Error::new(Reason::UpgradeRefused));
        }
        if let Some(refusal) = self.client.spool_refusal(&exchange) {
            return Err(refusal);
        }
        exchange.phase.set(Phase::Receiving);
        let body = match body {
            crate::http::Body::Empty => None,
            body => {
                if let Some(refusal) = self.client.refusal(&exchange, self.priority) {
                    return Err(refusal);
                }
                let begun = Instant::now();
                let share = Share { client: exchange.client.get(), ..self.share };
                let received = spool::receive(body, self.body_limit, share, &self.budget).await;
                exchange.time(|timings| timings.receive = begun.elapsed());
                received?
            }
        };
        exchange.bytes_in.set(body.as_ref().map_or(0, |body| body.length()));
        let share = self.read_ahead.then_some(self.share);
        let (mount, priority) = (self.mount.clone(), self.priority);
        self.client.send(Outgoing { method, target, headers, mount, body, exchange, share, priority }).await
    }
}
