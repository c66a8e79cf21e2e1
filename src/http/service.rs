//! Request, response, and the one trait that every layer of the stack implements.
//!
//! Composition is tower's (`tower::Layer`, `ServiceBuilder`); the service trait is ours. tower's takes `&mut self` and
//! returns a future that may not borrow it, so that each layer that awaits before it calls the next one would clone
//! that one for every request. Ours borrows: one stack per thread serves every connection, and nothing is cloned.
//! Services are always ready; waiting happens inside the futures.

use std::future::Future;
use std::rc::Rc;

use http::{HeaderMap, Method};

use super::{Body, Exchange, Target};
use crate::error::Error;

/// A request on its way down the stack.
#[derive(Debug)]
pub struct Request {
    /// The method, as received.
    pub method: Method,
    /// Path and query: what is routed is what is sent.
    pub target: Target,
    /// The fields as received, Host included (HTTP/2's `:authority` becomes Host).
    pub headers: HeaderMap,
    /// The body, without framing.
    pub body: Body,
    /// What is known of this exchange beyond the message.
    pub exchange: Rc<Exchange>,
    /// Set when the edge has already refused the bytes: the stack answers with this error, so that refusals are logged,
    /// counted and written like every other failure.
    pub refused: Option<Error>,
}

/// A response on its way up the stack.
pub type Response = http::Response<Body>;

/// One layer of the stack, or its action at the bottom.
pub trait Service {
    /// [`Error`] below `rescue`, [`std::convert::Infallible`] above it.
    type Error;

    /// Answers one request. Boxed: every layer would move it, and hold room for it while the layers below wait.
    ///
    /// # Errors
    /// What kept it from an answer, with its reason.
    fn call(&self, request: Box<Request>) -> impl Future<Output = Result<Response, Self::Error>>;
}

impl<S: Service> Service for Rc<S> {
    type Error = S::Error;

    fn call(&self, request: Box<Request>) -> impl Future<Output = Result<Response, Self::Error>> {
        (**self).call(request)
    }
}
