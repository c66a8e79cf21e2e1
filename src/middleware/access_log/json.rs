//! `format: json`: an object with all that is known. Times are milliseconds:
//!
//! | field | what it tells |
//! |---|---|
//! | `auth` | asking the service of `auth.forward`, waiting for a worker of it included; only where that was done |
//! | `receive` | the request body arriving |
//! | `wait` | in the waiting room |
//! | `connect` | opening a connection to the worker |
//! | `head` | from the request sent to the worker's response head |
//! | `body` | the worker's body; after it the worker is free |
//! | `write` | handing the response to the client |
//!
//! `cache` tells what a route's cache has made of the request ([`CacheVerdict`](crate::http::CacheVerdict)).
//!
//! A client that left before its answer has status 499, the `phase` it left in, and as `worker` the time that a worker had
//! spent for it until then. The worker is busy until it is done: that time is in `hostler_worker_seconds`.

use std::time::UNIX_EPOCH;

use super::{CLIENT_GONE, status, told};
use crate::http::{Exchange, Finish};
use crate::observe::json::Object;

/// Appends the line of an exchange that has ended.
pub(super) fn write(line: &mut Vec<u8>, exchange: &Exchange, finish: Finish, query: bool) {
    let timings = exchange.timings.get();
    let status = status(exchange);
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
    object.text("path", told(&exchange.target, query)).integer("status", u64::from(status));
    if let Some(reason) = exchange.reason.get() {
        object.text("reason", reason.as_str());
    }
    if finish != Finish::Complete {
        object.text("phase", exchange.phase.get().as_str());
    }
    if status == CLIENT_GONE {
        object.millis("worker", timings.head);
    }
    if let Some(label) = exchange.route.get() {
        object.text("site", label.site.as_bytes()).text("route", label.route.as_bytes());
    }
    if let Some(verdict) = exchange.cache.get() {
        object.text("cache", verdict.as_str());
    }
    if let Some(endpoint) = exchange.endpoint.borrow().as_deref() {
        object.text("endpoint", endpoint);
    }
    if exchange.retries.get() > 0 {
        object.integer("retries", u64::from(exchange.retries.get()));
    }
    object.integer("bytes_in", exchange.bytes_in.get()).integer("bytes_out", exchange.bytes_out.get());
    object.millis("total", exchange.now() - exchange.started);
    if !timings.auth.is_zero() {
        object.millis("auth", timings.auth);
    }
    object.millis("receive", timings.receive).millis("wait", timings.wait).millis("connect", timings.connect);
    object.millis("head", timings.head).millis("body", timings.body);
    object.millis("write", exchange.answered.get().map_or_else(Default::default, |since| exchange.now() - since));
    if let Some(agent) = &exchange.user_agent {
        object.text("user_agent", agent.as_bytes());
    }
    object.end();
}
