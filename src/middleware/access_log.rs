//! One line per exchange, written when its last byte has gone: `logging.access`.
//!
//! Above `rescue`, so that error answers are logged too. What a line says is in [`json`] and [`combined`]. No line tells a
//! cookie, a credential or any other field but `User-Agent` and `Referer`. The query of the target is told, because
//! it says what was asked for; where it may hold a secret, `query: false` leaves it out.
//!
//! With `sample` some of the exchanges that went well have no line. Whatever did not end with the app's answer has one, and
//! so has every 5xx.

mod combined;
mod json;

use std::rc::Rc;

use http::header;

use crate::config::{Access, AccessFormat};
use crate::error::Reason;
use crate::http::{Exchange, Finish, Observer, Phase, Request, RequestId, Response, Service};
use crate::observe::access_log::Sink;

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

struct Log {
    sink: Sink,
    policy: Access,
}

impl AccessLogLayer {
    /// Logs into `sink`.
    #[must_use]
    pub fn new(sink: Sink, policy: Access) -> Self {
        Self { log: Rc::new(Log { sink, policy }) }
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
        if self.log.sink.is_on() {
            exchange.observe(Rc::clone(&self.log) as Rc<dyn Observer>);
            if self.log.policy.format == AccessFormat::Combined
                && let Some(referer) = request.headers.get(header::REFERER)
            {
                // Nobody has set it before: this is the one who asks.
                let _ = exchange.referer.set(referer.clone());
            }
        }
        let response = self.inner.call(request).await?;
        exchange.status.set(response.status().as_u16());
        Ok(response)
    }
}

impl Observer for Log {
    fn finished(&self, exchange: &Exchange, finish: Finish) {
        if !self.wants(exchange) {
            return;
        }
        let query = self.policy.query;
        self.sink.append(|line| match self.policy.format {
            AccessFormat::Json => json::write(line, exchange, finish, query),
            AccessFormat::Combined => combined::write(line, exchange, query),
        });
    }
}

impl Log {
    /// Whether an exchange that has ended is among those that have a line.
    fn wants(&self, exchange: &Exchange) -> bool {
        let sample = self.policy.sample;
        sample >= 1.0
            || exchange.reason.get().is_some()
            || status(exchange) >= 500
            || exchange.id.get().is_none_or(|id| lot(&id) < sample)
    }
}

/// Evenly from 0 to below 1, the same for the same id: its last 48 bits are random (RFC 9562, 5.7).
fn lot(id: &RequestId) -> f64 {
    let digits = id.as_str().get(RequestId::LEN - 12..).unwrap_or_default();
    u64::from_str_radix(digits, 16).map_or(0.0, |bits| bits as f64 / (1_u64 << 48) as f64)
}

/// What of a target or an address is told: all, or what comes before the query.
fn told(text: &[u8], query: bool) -> &[u8] {
    let end = if query { None } else { memchr::memchr(b'?', text) };
    &text[..end.unwrap_or(text.len())]
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_spread_evenly_and_stay_with_their_id() {
        const IDS: u64 = 10_000;
        let ids: Vec<RequestId> = (0..IDS).map(RequestId::new).collect();
        for sample in [0.0, 0.1, 0.5, 1.0] {
            let chosen = ids.iter().filter(|id| lot(id) < sample).count();
            assert_eq!(chosen, ids.iter().filter(|id| lot(id) < sample).count());
            let expected = IDS as f64 * sample;
            assert!((chosen as f64 - expected).abs() <= 250.0, "{chosen} instead of {expected}");
        }
    }

    #[test]
    fn without_the_query_what_comes_before_it_is_told() {
        for (text, without) in [("/a?b=c?d", "/a"), ("/a", "/a"), ("?", ""), ("", "")] {
            assert_eq!(told(text.as_bytes(), false), without.as_bytes());
            assert_eq!(told(text.as_bytes(), true), text.as_bytes());
        }
    }
}
