//! `cors`: which pages of other origins may read a route's answers (Fetch standard, CORS protocol).
//!
//! A preflight brings no credentials and asks nothing of the app: it is answered here, before anybody is asked who he is. On
//! every other answer, refusals included, this layer alone speaks of CORS: what the app says by these names is removed.
//!
//! | request | answer |
//! |---|---|
//! | preflight: OPTIONS with `Origin` and `Access-Control-Request-Method` | 204, and what is allowed if the origin is |
//! | any other, of an origin that is listed | the app's, and that the page may read it |
//! | any other, of another origin or of none | the app's; the browser keeps it from the page. It is no protection against requests |
//!
//! `Vary: Origin` stands on all of them, so that no cache gives one page the answer for another.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::config::{self, Origins};
use crate::error::Error;
use crate::http::{AnswerFields, Body, Request, Response, Service};

/// Adds [`CrossOrigin`].
#[derive(Debug, Clone)]
pub struct CorsLayer {
    policy: Option<Policy>,
}

/// Tells browsers whose pages may read the answers of a route.
#[derive(Debug)]
pub struct CrossOrigin<S> {
    inner: S,
    policy: Option<Policy>,
}

/// What a route says, written once.
#[derive(Debug, Clone)]
struct Policy {
    /// `None`: any.
    origins: Option<Vec<HeaderValue>>,
    methods: HeaderValue,
    /// `None`: those that are asked for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

impl CorsLayer {
    /// The layer of one route.
    #[must_use]
    pub fn compile(route: &config::Route) -> Self {
        Self { policy: route.cors.as_ref().map(Policy::compile) }
    }
}

impl<S> tower::Layer<S> for CorsLayer {
    type Service = CrossOrigin<S>;

    fn layer(&self, inner: S) -> CrossOrigin<S> {
        CrossOrigin { inner, policy: self.policy.clone() }
    }
}

impl<S: Service<Error = Error>> Service for CrossOrigin<S> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        if let Some(policy) = &self.policy {
            let origin = policy.allowed(&request.headers);
            if is_preflight(&request) {
                return Ok(policy.preflight(origin, &request.headers));
            }
            policy.announce(origin, &request.exchange.answer_fields);
        }
        let mut response = self.inner.call(request).await?;
        if self.policy.is_some() {
            silence(response.headers_mut());
        }
        Ok(response)
    }
}

impl Policy {
    fn compile(cors: &config::Cors) -> Self {
        // What no field can hold was refused when the file was read.
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let list = |names: &[String]| value(&names.join(", ")).filter(|list| !list.is_empty());
        let origins = match &cors.origins {
            Origins::Any => None,
            Origins::Listed(listed) => Some(listed.iter().filter_map(|origin| value(origin)).collect()),
        };
        Self {
            origins,
            methods: list(&cors.methods).unwrap_or(HeaderValue::from_static("")),
            headers: cors.headers.as_deref().map(|names| list(names).unwrap_or(HeaderValue::from_static(""))),
            expose: list(&cors.expose),
            credentials: cors.credentials,
            max_age: HeaderValue::from(cors.max_age.as_secs()),
        }
    }

    /// What Access-Control-Allow-Origin says to this request; `None`: its page may not read the answer.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let Some(origins) = &self.origins else { return Some(HeaderValue::from_static("*")) };
        let mut lines = headers.get_all(header::ORIGIN).iter();
        match (lines.next(), lines.next()) {
            // To the letter: both are as a browser serialises an origin.
            (Some(origin), None) => origins.iter().find(|listed| *listed == origin).cloned(),
            _ => None,
        }
    }

    fn announce(&self, origin: Option<HeaderValue>, fields: &AnswerFields) {
        fields.add(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin else { return };
        fields.set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            fields.set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            fields.set(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn preflight(&self, origin: Option<HeaderValue>, asked: &HeaderMap) -> Response {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        headers.insert(header::VARY, HeaderValue::from_static(vary));
        let Some(origin) = origin else { return response };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        match &self.headers {
            Some(names) => drop(headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone())),
            None => headers.extend(asked_for(asked).map(|names| (header::ACCESS_CONTROL_ALLOW_HEADERS, names))),
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        response
    }
}

/// Fetch, CORS-preflight fetch.
fn is_preflight(request: &Request) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(header::ORIGIN)
        && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The names that a preflight asks for, as it has written them: they are of the kind that a field can hold.
fn asked_for(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS)?;
    let is_list = asked.as_bytes().split(|byte| *byte == b',').all(|name| {
        let name = name.trim_ascii();
        name.is_empty() || HeaderName::from_bytes(name).is_ok()
    });
    is_list.then(|| asked.clone())
}

/// What an app says of CORS, where the edge does.
fn silence(headers: &mut HeaderMap) {
    for name in [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_MAX_AGE,
    ] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::rc::Rc;

    use bytes::Bytes;
    use proptest::prelude::*;
    use tower::Layer as _;

    use super::*;
    use crate::error::Reason;
    use crate::http::{ConnectionInfo, Exchange, Protocol, Target};

    /// An app that allows everybody everything, or fails.
    struct App(Option<Reason>);

    impl Service for App {
        type Error = Error;

        async fn call(&self, _: Box<Request>) -> Result<Response, Error> {
            if let Some(reason) = self.0 {
                return Err(reason.into());
            }
            let mut response = Response::new(Body::Empty);
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("*"));
            Ok(response)
        }
    }

    fn layer(keys: &str) -> CorsLayer {
        let text = format!("sites: [{{ routes: [{{ path: /, respond: {{}}, cors: {{ {keys} }} }}] }}]");
        let loaded =
            config::load_str(&text, "f", Path::new("/"), &|_| None).unwrap_or_else(|report| panic!("{report}"));
        CorsLayer::compile(&loaded.config.sites[0].routes[0])
    }

    fn request(method: &Method, fields: &[(HeaderName, &[u8])]) -> Option<Box<Request>> {
        let connection = Rc::new(ConnectionInfo::new("80"));
        let exchange = Exchange::new(connection, Protocol::Http11, method.clone(), Bytes::new(), None, None);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_bytes(value).ok()?);
        }
        let (method, target) = (method.clone(), Target::from_static("/"));
        Some(Box::new(Request {
            method,
            target,
            headers,
            body: Body::Empty,
            exchange: Rc::new(exchange),
            refused: None,
        }))
    }

    /// The fields of the answer, those of the exchange included.
    async fn answer(layer: &CorsLayer, app: App, request: Box<Request>) -> HeaderMap {
        let exchange = Rc::clone(&request.exchange);
        let response = layer.layer(app).call(request).await;
        let mut headers = response.map_or_else(|_| HeaderMap::new(), |response| response.headers().clone());
        exchange.answer_fields.apply(&mut headers);
        headers
    }

    #[tokio::test]
    async fn refusals_say_the_same_as_answers_and_the_app_says_nothing() {
        let layer = layer("origins: [\"https://app.example\"], credentials: true, expose: [X-Total]");
        for (app, origin) in [(None, "https://app.example"), (Some(Reason::QueueFull), "https://app.example")] {
            let request = request(&Method::GET, &[(header::ORIGIN, origin.as_bytes())]).unwrap();
            let headers = answer(&layer, App(app), request).await;
            let told: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            for field in [
                ("access-control-allow-origin", "https://app.example"),
                ("access-control-allow-credentials", "true"),
                ("access-control-expose-headers", "x-total"),
                ("vary", "Origin"),
            ] {
                assert!(told.contains(&field), "{told:?}");
            }
            assert_eq!(told.len(), 4, "{told:?}");
        }
    }

    #[tokio::test]
    async fn a_route_without_the_key_leaves_it_to_the_app() {
        let layer = CorsLayer { policy: None };
        let fields: &[(HeaderName, &[u8])] =
            &[(header::ORIGIN, b"https://x.example"), (header::ACCESS_CONTROL_REQUEST_METHOD, b"GET")];
        let headers = answer(&layer, App(None), request(&Method::OPTIONS, fields).unwrap()).await;
        assert_eq!(headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "*");
        assert!(!headers.contains_key(header::VARY));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_asked_only_a_listed_origin_is_allowed(
            origin in prop_oneof![
                Just("https://app.example".as_bytes().to_vec()),
                Just(b"null".to_vec()),
                "https?://app\\.example[.:/@ ]?[a-z0-9]{0,3}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..24),
            ],
            asked in prop_oneof![
                "[a-z, -]{0,24}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..24),
            ],
            is_options: bool,
        ) {
            let method = if is_options { Method::OPTIONS } else { Method::GET };
            let fields = [
                (header::ORIGIN, &origin[..]),
                (header::ACCESS_CONTROL_REQUEST_METHOD, &b"PUT"[..]),
                (header::ACCESS_CONTROL_REQUEST_HEADERS, &asked[..]),
            ];
            let Some(request) = request(&method, &fields) else { return Ok(()) };
            let layer = layer("origins: [\"https://app.example\"], headers: [\"*\"]");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let headers = runtime.block_on(answer(&layer, App(None), request));
            let allowed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            prop_assert_eq!(allowed.is_some(), origin == b"https://app.example");
            prop_assert!(headers.get(header::VARY).unwrap().to_str().unwrap().starts_with("Origin"));
            for names in headers.get_all(header::ACCESS_CONTROL_ALLOW_HEADERS) {
                let token = |name: &[u8]| name.trim_ascii().is_empty() || HeaderName::from_bytes(name.trim_ascii()).is_ok();
                prop_assert!(names.as_bytes().split(|byte| *byte == b',').all(token));
            }
        }
    }
}
