//! `headers.request`: fields that a route takes from its requests or adds to them.
//!
//! Just above the action: no other layer looks at what is set for the app, and none misses what is removed.

use std::rc::Rc;

use http::header::{self, HeaderName, HeaderValue};

use crate::config;
use crate::error::Error;
use crate::http::{Request, Response, Service, fields};

/// Adds [`RequestHeaders`].
#[derive(Debug, Clone)]
pub struct RequestHeadersLayer {
    rules: Option<Rc<Rules>>,
}

/// Puts a route's fields on its requests.
#[derive(Debug)]
pub struct RequestHeaders<S> {
    inner: S,
    rules: Option<Rc<Rules>>,
}

#[derive(Debug)]
struct Rules {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
}

impl RequestHeadersLayer {
    /// The layer of one route.
    #[must_use]
    pub fn compile(route: &config::Route) -> Self {
        let request = &route.headers.request;
        let rules = Rules { remove: fields::compile_names(&request.remove), set: fields::compile(&request.set) };
        Self { rules: (!request.is_empty()).then(|| Rc::new(rules)) }
    }
}

impl<S> tower::Layer<S> for RequestHeadersLayer {
    type Service = RequestHeaders<S>;

    fn layer(&self, inner: S) -> RequestHeaders<S> {
        RequestHeaders { inner, rules: self.rules.clone() }
    }
}

impl<S: Service<Error = Error>> Service for RequestHeaders<S> {
    type Error = Error;

    fn call(&self, mut request: Box<Request>) -> impl Future<Output = Result<Response, Error>> {
        if let Some(rules) = &self.rules {
            // What a client names for its own connection is gone before it could name what is set here (RFC 9110, 7.6.1).
            for name in fields::named_by_connection(&request.headers) {
                request.headers.remove(name);
            }
            request.headers.remove(header::CONNECTION);
            for name in &rules.remove {
                request.headers.remove(name);
            }
            for (name, value) in &rules.set {
                request.headers.insert(name, value.clone());
            }
        }
        self.inner.call(request)
    }
}
