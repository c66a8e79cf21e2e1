//! The way back to the router, for a request that has been to one route and is to go to another.
//!
//! What hands a request on (files that are not there with `fallback: next`, an app's `X-Accel-Redirect`) stands below the
//! router and holds a [`Redispatch`]; the router is connected once it exists. What comes back passes the layers of both
//! routes, the first one's last.

use std::cell::OnceCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};

use super::{Request, Response};
use crate::error::{Error, Reason};

/// How often a request may be handed on: as often as nginx lets it.
pub const MAX_HOPS: u8 = 10;

/// Where a request goes that has been to one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// To the routes of its site that stand behind the one it comes from.
    Next,
    /// To any route of its site that takes its target, from the first one on, `internal` ones included.
    Internal,
}

/// What comes of a dispatch.
pub type Dispatched<'a> = Pin<Box<dyn Future<Output = Result<Response, Error>> + 'a>>;

/// Finds a route for a request that comes from another.
pub trait Dispatch {
    /// Answers it.
    fn dispatch(&self, request: Box<Request>, onward: Onward) -> Dispatched<'_>;
}

/// A handle to the router of the thread's stack. Cheap to clone; keeps nothing alive.
#[derive(Clone, Default)]
pub struct Redispatch(Rc<OnceCell<Weak<dyn Dispatch>>>);

impl Redispatch {
    /// From now on requests go to `router`. Once.
    pub fn connect<R: Dispatch + 'static>(&self, router: &Rc<R>) {
        let router: Weak<R> = Rc::downgrade(router);
        // A second one would be a second stack with the same handle, which nobody builds.
        let _ = self.0.set(router);
    }

    /// Answers a request by way of another route.
    ///
    /// # Errors
    /// [`Reason::TooManyHops`] for a request that goes round in circles; else what the other route says.
    pub async fn call(&self, request: Box<Request>, onward: Onward) -> Result<Response, Error> {
        let hops = request.exchange.hops.get() + 1;
        if hops > MAX_HOPS {
            return Err(Error::new(Reason::TooManyHops).detail(request.target.as_str().to_owned()));
        }
        request.exchange.hops.set(hops);
        match self.0.get().and_then(Weak::upgrade) {
            Some(router) => router.dispatch(request, onward).await,
            None => Err(Error::new(Reason::Internal).detail("no router to hand the request on to")),
        }
    }
}

impl std::fmt::Debug for Redispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Redispatch").field(&self.0.get().is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::http::{Body, ConnectionInfo, Exchange, Protocol, Target};

    /// Hands everything on to itself.
    struct Circle(Redispatch);

    impl Dispatch for Circle {
        fn dispatch(&self, request: Box<Request>, onward: Onward) -> Dispatched<'_> {
            Box::pin(self.0.call(request, onward))
        }
    }

    #[tokio::test]
    async fn who_goes_round_in_circles_is_stopped() {
        let connection = Rc::new(ConnectionInfo::new("80"));
        let exchange = Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::new(), None, None);
        let exchange = Rc::new(exchange);
        let request = || {
            Box::new(Request {
                method: Method::GET,
                target: Target::from_static("/"),
                headers: HeaderMap::new(),
                body: Body::Empty,
                exchange: Rc::clone(&exchange),
                refused: None,
            })
        };
        let redispatch = Redispatch::default();
        let unconnected = redispatch.call(request(), Onward::Next).await;
        assert_eq!(unconnected.err().map(|error| error.reason), Some(Reason::Internal));
        exchange.hops.set(0);
        let router = Rc::new(Circle(redispatch.clone()));
        redispatch.connect(&router);
        let answer = redispatch.call(request(), Onward::Internal).await;
        assert_eq!(answer.err().map(|error| error.reason), Some(Reason::TooManyHops));
        assert_eq!(exchange.hops.get(), MAX_HOPS);
        drop(router);
        exchange.hops.set(0);
        let gone = redispatch.call(request(), Onward::Next).await;
        assert_eq!(gone.err().map(|error| error.reason), Some(Reason::Internal), "it keeps no router alive");
    }
}
