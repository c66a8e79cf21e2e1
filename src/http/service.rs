//! Request, response, and the one trait that every layer of the stack implements.
//!
//! Composition is tower's (`tower::Layer`, `ServiceBuilder`); the service trait is ours. tower's takes `&mut self` and
//! returns a future that may not borrow it, so that each layer that awaits before it calls the next one would clone
//! that one for every request. Ours borrows: one stack per thread serves every connection, and nothing is cloned.
//! Services are always ready; waiting happens inside the futures.

use std::future::Future;
use std::rc::Rc;

use http::{HeaderMap, Method};

use super::fields::{self, Dropped};
use super::forwarded::Claims;
use super::{Body, Exchange, Sender, Target};
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

impl Request {
    /// Whether a proxy speaks for a client whose address it does not say, or not so that it can be believed, or which is not
    /// trusted: its own address is not the client's.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.exchange.connection.sender == Sender::Hidden
            || match self.exchange.claims.get() {
                Some(claims) => claims.client.is_none() && Claims::name_client(&self.headers),
                // Whichever of the fields: clients send none of them.
                None => self.headers.keys().any(|name| fields::request_field(name) == Some(Dropped::Forwarded)),
            }
    }
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
