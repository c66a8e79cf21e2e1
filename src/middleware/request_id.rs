//! Names every exchange, for all logs, for the app and for the client: `X-Request-ID`.
//!
//! Outermost but for the client's address, so that every other layer and every error page can tell the name. A name that a
//! client sends is not used. The client is told it by whoever writes the head of the response.

use crate::http::{Request, RequestId, Response, Service};

/// Adds [`RequestIds`].
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestIdLayer;

/// Gives each exchange its id.
#[derive(Debug)]
pub struct RequestIds<S>(S);

impl<S> tower::Layer<S> for RequestIdLayer {
    type Service = RequestIds<S>;

    fn layer(&self, inner: S) -> RequestIds<S> {
        RequestIds(inner)
    }
}

impl<S: Service> Service for RequestIds<S> {
    type Error = S::Error;

    fn call(&self, request: Box<Request>) -> impl Future<Output = Result<Response, S::Error>> {
        let since = request.exchange.received_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let id = RequestId::new(u64::try_from(since.as_millis()).unwrap_or(0));
        request.exchange.id.set(Some(id));
        self.0.call(request)
    }
}
