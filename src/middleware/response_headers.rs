//! `headers.response`: fields that a route takes from its answers or adds to them.
//!
//! The outermost layer of a route, so that refusals of all others are answered with them, too. On the edge's own error
//! answers nothing is removed, and of what is set those fields are left out that speak of a body or of how long it may be kept.
//! `security` adds the fields by which browsers protect a site; what the app has set by these names stays.

use std::rc::Rc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config;
use crate::error::Error;
use crate::http::forwarded::Scheme;
use crate::http::{AnswerFields, Exchange, Request, Response, Service, fields};

/// Adds [`ResponseHeaders`].
#[derive(Debug, Clone)]
pub struct ResponseHeadersLayer {
    rules: Option<Rc<Rules>>,
}

/// Puts a route's fields on its answers.
#[derive(Debug)]
pub struct ResponseHeaders<S> {
    inner: S,
    rules: Option<Rc<Rules>>,
}

#[derive(Debug)]
struct Rules {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    security: bool,
}

/// Beside HSTS, which makes sense over https alone. A page may be framed by its own site, as most apps expect.
const SECURITY: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
];
/// A year, for this host alone: what is under it is not the route's to decide.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

impl ResponseHeadersLayer {
    /// The layer of one route.
    #[must_use]
    pub fn compile(route: &config::Route) -> Self {
        let config::HeaderRules { response, security, .. } = &route.headers;
        let rules = Rules {
            remove: fields::compile_names(&response.remove),
            set: fields::compile(&response.set),
            security: *security,
        };
        let is_needed = *security || !response.is_empty();
        Self { rules: is_needed.then(|| Rc::new(rules)) }
    }
}

impl<S> tower::Layer<S> for ResponseHeadersLayer {
    type Service = ResponseHeaders<S>;

    fn layer(&self, inner: S) -> ResponseHeaders<S> {
        ResponseHeaders { inner, rules: self.rules.clone() }
    }
}

impl<S: Service<Error = Error>> Service for ResponseHeaders<S> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let wanted = self.rules.as_deref().map(|rules| (rules, Rc::clone(&request.exchange)));
        if let Some((Rules { security: true, .. }, exchange)) = &wanted {
            secure(exchange);
        }
        let mut answer = self.inner.call(request).await;
        if let Some((rules, exchange)) = wanted {
            match &mut answer {
                Ok(response) => rules.apply(response.headers_mut()),
                Err(_) => rules.offer_to_error(&exchange.answer_fields),
            }
        }
        answer
    }
}

impl Rules {
    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }

    fn offer_to_error(&self, fields: &AnswerFields) {
        for (name, value) in self.set.iter().filter(|(name, _)| !is_of_a_body(name)) {
            fields.offer(name.clone(), value.clone());
        }
    }
}

fn secure(exchange: &Exchange) {
    for (name, value) in SECURITY {
        exchange.answer_fields.offer(name, HeaderValue::from_static(value));
    }
    if exchange.scheme() == Scheme::Https {
        exchange.answer_fields.offer(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
}

/// Whether a field tells of a body that an error answer does not have, or for how long and where that may be kept.
fn is_of_a_body(name: &HeaderName) -> bool {
    let is_policy = name.as_str().starts_with("content-security-policy");
    name.as_str().starts_with("content-") && !is_policy
        || matches!(
            *name,
            header::AGE
                | header::CACHE_CONTROL
                | header::ETAG
                | header::EXPIRES
                | header::LAST_MODIFIED
                | header::LOCATION
                | header::PRAGMA
                | header::RETRY_AFTER
        )
        || matches!(name.as_str(), "cdn-cache-control" | "surrogate-control" | "surrogate-key" | "proxy-status")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use http::Method;
    use tower::Layer as _;

    use super::*;
    use crate::error::Reason;
    use crate::http::{Body, ConnectionInfo, Protocol, Target};

    struct App(Result<&'static [(&'static str, &'static str)], Reason>);

    impl Service for App {
        type Error = Error;

        async fn call(&self, _: Box<Request>) -> Result<Response, Error> {
            let mut response = Response::new(Body::Empty);
            for (name, value) in self.0? {
                response.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            Ok(response)
        }
    }

    /// What the client gets, in the order of names.
    async fn told(keys: &str, tls: bool, app: Result<&'static [(&'static str, &'static str)], Reason>) -> Vec<String> {
        let text =
            format!("sites: [{{ routes: [{{ path: /, respond: {{}}, headers: {{ response: {{ {keys} }} }} }}] }}]");
        let loaded =
            config::load_str(&text, "f", Path::new("/"), &|_| None).unwrap_or_else(|report| panic!("{report}"));
        let layer = ResponseHeadersLayer::compile(&loaded.config.sites[0].routes[0]);
        let connection = Rc::new(ConnectionInfo::new("443").over_tls(tls));
        let exchange = Rc::new(Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::new(), None, None));
        let request = Request {
            method: Method::GET,
            target: Target::from_static("/"),
            headers: HeaderMap::new(),
            body: Body::Empty,
            exchange: Rc::clone(&exchange),
            refused: None,
        };
        let response = layer.layer(App(app)).call(Box::new(request)).await;
        let mut headers = response.map_or_else(
            |_| HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]),
            |response| response.headers().clone(),
        );
        exchange.answer_fields.apply(&mut headers);
        let mut told: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        told.sort();
        told
    }

    #[tokio::test]
    async fn what_is_set_stands_instead_of_what_the_app_says() {
        let app: &[(&str, &str)] = &[("server", "gunicorn"), ("x-a", "1"), ("x-a", "2"), ("x-b", "b")];
        let keys = "set: { X-A: ours, Cache-Control: no-cache }, remove: [server]";
        assert_eq!(told(keys, false, Ok(app)).await, ["cache-control: no-cache", "x-a: ours", "x-b: b"]);
        assert_eq!(told("set: {}, remove: []", false, Ok(&[("server", "x")])).await, ["server: x"]);
    }

    #[tokio::test]
    async fn an_error_answer_gets_what_makes_sense_there() {
        let keys = "set: { X-A: ours, Cache-Control: public, Content-Type: text/css, Content-Security-Policy: \"default-src 'self'\" }";
        let expected = ["cache-control: no-store", "content-security-policy: default-src 'self'", "x-a: ours"];
        assert_eq!(told(keys, false, Err(Reason::QueueFull)).await, expected);
    }

    #[tokio::test]
    async fn security_is_added_to_what_the_app_has_not_said_and_hsts_over_https_alone() {
        let usual = [
            "referrer-policy: strict-origin-when-cross-origin",
            "x-content-type-options: nosniff",
            "x-frame-options: SAMEORIGIN",
        ];
        assert_eq!(told("security: true", false, Ok(&[])).await, usual);
        let over_tls = told("security: true", true, Err(Reason::QueueFull)).await;
        let more =
            ["cache-control: no-store", usual[0], "strict-transport-security: max-age=31536000", usual[1], usual[2]];
        assert_eq!(over_tls, more);
        let own: &[(&str, &str)] = &[
            ("strict-transport-security", "max-age=0"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ];
        let kept = told("security: true", true, Ok(own)).await;
        let expected = [
            "referrer-policy: no-referrer",
            "strict-transport-security: max-age=0",
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
        ];
        assert_eq!(kept, expected);
    }
}
