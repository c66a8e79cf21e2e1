//! Counts every exchange: `hostler_requests_total`, `hostler_request_seconds`, and failures that are not an upstream's.
//!
//! Above `rescue`, so that error answers are counted under the status the client got. The handles of all routes are
//! resolved when the configuration is compiled.

use std::rc::Rc;
use std::sync::Arc;

use crate::http::{Exchange, Finish, Observer, Request, Response, Service};
use crate::observe::metrics::{Metrics, RouteMetrics};

/// Adds [`Counted`].
pub struct MetricsLayer {
    counter: Rc<Counter>,
}

/// Counts what passes.
pub struct Counted<S> {
    inner: S,
    counter: Rc<Counter>,
}

struct Counter {
    metrics: Arc<Metrics>,
    /// By the index of the route's label.
    routes: Vec<Arc<RouteMetrics>>,
}

impl MetricsLayer {
    /// `routes` by the index of their labels.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, routes: Vec<Arc<RouteMetrics>>) -> Self {
        Self { counter: Rc::new(Counter { metrics, routes }) }
    }
}

impl<S> tower::Layer<S> for MetricsLayer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, counter: Rc::clone(&self.counter) }
    }
}

impl<S: Service> Service for Counted<S> {
    type Error = S::Error;

    fn call(&self, request: Box<Request>) -> impl Future<Output = Result<Response, S::Error>> {
        request.exchange.observe(Rc::clone(&self.counter) as Rc<dyn Observer>);
        self.inner.call(request)
    }
}

impl Observer for Counter {
    fn finished(&self, exchange: &Exchange, _: Finish) {
        let index = exchange.route.get().map_or(0, |label| label.index);
        if let Some(route) = self.routes.get(index) {
            let status = super::access_log::status(exchange);
            // What has left HTTP may go on for days: its answer was the head.
            let end = if status == 101 { exchange.answered.get() } else { None }.unwrap_or(exchange.now());
            route.request(&exchange.method, status, (end - exchange.started).as_secs_f64());
        }
        if let Some(reason) = exchange.reason.get().filter(|_| !exchange.is_counted.get()) {
            self.metrics.failure(reason);
        }
    }
}
