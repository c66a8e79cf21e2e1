//! One JSON line per exchange, written when its last byte has gone: `logging.access`.
//!
//! Above `rescue`, so that error answers are logged too. Times are milliseconds:
//!
//! | field | what it tells |
//! |---|---|
//! | `receive` | the request body arriving |
//! | `wait` | in the waiting room |
//! | `connect` | opening a connection to the worker |
//! | `head` | from the request sent to the worker's response head |
//! | `body` | the worker's body; after it the worker is free |
//! | `write` | handing the response to the client |
//!
//! A client that left before its answer has status 499 and the `phase` it left in.

use std::rc::Rc;
use std::time::UNIX_EPOCH;

use crate::error::Reason;
use crate::http::{Exchange, Finish, Observer, Phase, Request, Response, Service};
use crate::observe::access_log::Sink;
use crate::observe::json::Object;

/// What the log and the metrics say of a client that left before its answer, as nginx does.
const CLIENT_GONE: u16 = 499;

/// Adds [`Logged`].
pub struct AccessLogLayer {
    log: Rc<Log>,
}

/// Logs what passes.
pub struct Logged<S> {
    inner: S,
    log: Rc<Log>,
}

struct Log(Sink);

impl AccessLogLayer {
    /// Logs into `sink`.
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        Self { log: Rc::new(Log(sink)) }
    }
}

impl<S> tower::Layer<S> for AccessLogLayer {
    type Service = Logged<S>;

    fn layer(&self, inner: S) -> Logged<S> {
        Logged { inner, log: Rc::clone(&self.log) }
    }
}

impl<S: Service> Service for Logged<S> {
    type Error = S::Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, S::Error> {
        let exchange = Rc::clone(&request.exchange);
        if self.log.0.is_on() {
            exchange.observe(Rc::clone(&self.log) as Rc<dyn Observer>);
        }
        let response = self.inner.call(request).await?;
        exchange.status.set(response.status().as_u16());
        Ok(response)
    }
}

impl Observer for Log {
    fn finished(&self, exchange: &Exchange, finish: Finish) {
        self.0.append(|line| write_line(line, exchange, finish));
    }
}

/// The status that log and metrics tell.
pub(super) fn status(exchange: &Exchange) -> u16 {
    match (exchange.status.get(), exchange.reason.get()) {
        (_, Some(Reason::ClientGone)) if exchange.phase.get() != Phase::Responding => CLIENT_GONE,
        (0, Some(Reason::ClientGone) | None) => CLIENT_GONE,
        (0, Some(_)) => 500,
        (status, _) => status,
    }
}

fn write_line(line: &mut Vec<u8>, exchange: &Exchange, finish: Finish) {
    let timings = exchange.timings.get();
    let received = exchange.received_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut object = Object::begin(line);
    object.timestamp("time", u64::try_from(received.as_millis()).unwrap_or(0));
    if let Some(id) = exchange.id.get() {
        object.text("request_id", id.as_str());
    }
    match exchange.client.get() {
        Some(client) => object.address("client", client),
        None => object.text("client", "unix"),
    };
    object.text("listener", exchange.connection.listener.as_ref());
    object.text("protocol", exchange.protocol.as_str()).text("scheme", exchange.scheme().as_str());
    object.text("method", exchange.method.as_str());
    if let Some(host) = &exchange.host {
        object.text("host", host.as_str());
    }
    object.text("path", &exchange.target).integer("status", u64::from(status(exchange)));
    if let Some(reason) = exchange.reason.get() {
        object.text("reason", reason.as_str());
    }
    if finish != Finish::Complete {
        object.text("phase", exchange.phase.get().as_str());
    }
    if let Some(label) = exchange.route.get() {
        object.text("site", label.site.as_bytes()).text("route", label.route.as_bytes());
    }
    if let Some(endpoint) = exchange.endpoint.borrow().as_deref() {
        object.text("endpoint", endpoint);
    }
    if exchange.retries.get() > 0 {
        object.integer("retries", u64::from(exchange.retries.get()));
    }
    object.integer("bytes_in", exchange.bytes_in.get()).integer("bytes_out", exchange.bytes_out.get());
    object.millis("total", exchange.now() - exchange.started);
    object.millis("receive", timings.receive).millis("wait", timings.wait).millis("connect", timings.connect);
    object.millis("head", timings.head).millis("body", timings.body);
    object.millis("write", exchange.answered.get().map_or_else(Default::default, |since| exchange.now() - since));
    if let Some(agent) = &exchange.user_agent {
        object.text("user_agent", agent.as_bytes());
    }
    object.end();
}
