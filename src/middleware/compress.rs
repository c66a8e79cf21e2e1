//! `compress`: answers that get smaller go out in a coding that the client takes (RFC 9110, 8.4 and 12.5.3).
//!
//! What an app sends is compressed here, so it is not asked to: where the key is on, Accept-Encoding goes no further than
//! here. What it has encoded itself, and all that [`decide`] names, passes as it is. A compressed answer has a weak tag
//! ([`tags`]), no length unless it was small, and a length that chance has a part in ([`padding`]). `Vary: Accept-Encoding` stands on
//! every answer that another client could get otherwise.
//!
//! Above `headers.request`: what a route sets or removes is meant for its app. Counts `hostler_compressed_total`, its bytes
//! before and after, and `hostler_compression_skipped_total`.

mod body;
mod compressor;
mod decide;
mod encoder;
mod padding;
mod tags;

use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use self::body::{Compressing, LARGE, Press};
pub use self::compressor::Compressor;
use self::decide::{Asked, Rules, Verdict};
pub use self::encoder::forget_encoders;
use self::tags::Held;
use crate::config;
use crate::error::Error;
use crate::http::{Body, Coding, Codings, Exchange, Request, Response, Service, fields};

/// Adds [`Compressed`].
#[derive(Clone)]
pub struct CompressLayer(Option<Arc<Compression>>);

/// Compresses answers.
pub struct Compressed<S> {
    inner: S,
    compression: Option<Arc<Compression>>,
}

impl CompressLayer {
    /// The layer of a route that compresses so, or not at all.
    #[must_use]
    pub fn new(compression: Option<Arc<Compression>>) -> Self {
        Self(compression)
    }
}

impl<S> tower::Layer<S> for CompressLayer {
    type Service = Compressed<S>;

    fn layer(&self, inner: S) -> Compressed<S> {
        Compressed { inner, compression: self.0.clone() }
    }
}

impl<S: Service<Error = Error>> Service for Compressed<S> {
    type Error = Error;

    async fn call(&self, mut request: Box<Request>) -> Result<Response, Error> {
        let question = self.compression.as_deref().map(|compression| compression.take_question(&mut request));
        let response = self.inner.call(request).await?;
        match (&self.compression, question) {
            (Some(compression), Some(question)) => compression.answer(question, response),
            _ => Ok(response),
        }
    }
}

/// How a route compresses, for all threads.
pub struct Compression {
    rules: Rules,
    /// Whether an app answers, which is not to compress by itself.
    asks_app: bool,
    compressor: Arc<Compressor>,
}

/// What an answer is compared with that belongs to a request.
struct Question {
    asked: Asked,
    held: Held,
    exchange: Rc<Exchange>,
    hops: u8,
}

impl Compression {
    /// That of a route. `None`: its answers go out as they are.
    #[must_use]
    pub fn compile(route: &config::Route, compressor: &Arc<Compressor>) -> Option<Arc<Self>> {
        let compress = route.compress.as_ref()?;
        let is_small = |body: &str| (body.len() as u64) < compress.min_size.max(1);
        let asks_app = match &route.action {
            config::Action::Proxy(_) => true,
            // The same for everybody, whatever a client takes.
            config::Action::Redirect { .. } => return None,
            config::Action::Respond { body, .. } if is_small(body) => return None,
            config::Action::Files(_) | config::Action::Respond { .. } => false,
        };
        let rules = Rules::compile(compress);
        Some(Arc::new(Self { rules, asks_app, compressor: Arc::clone(compressor) }))
    }

    /// Takes out of a request what only this layer is to see.
    fn take_question(&self, request: &mut Request) -> Question {
        let exchange = Rc::clone(&request.exchange);
        // Another route may have read it before, and taken it away.
        let codings = exchange.codings.get().unwrap_or_else(|| Codings::of(&request.headers));
        exchange.codings.set(Some(codings));
        if self.asks_app {
            request.headers.remove(header::ACCEPT_ENCODING);
        }
        let held = tags::restore(&mut request.headers);
        let is_for_range = request.headers.contains_key(header::RANGE);
        let asked = Asked { codings, is_for_range, is_head: request.method == Method::HEAD };
        let hops = exchange.hops.get();
        Question { asked, held, exchange, hops }
    }

    fn answer(&self, question: Question, mut response: Response) -> Result<Response, Error> {
        let Question { asked, held, exchange, hops } = question;
        // Each would keep a compressor for as long as it is open.
        if response.extensions().get::<crate::http::Held>().is_some() {
            return Ok(response);
        }
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED {
            held.answer(response.headers_mut());
        }
        if exchange.hops.get() != hops {
            // The route that it was handed on to has done what that one is to do.
            return Ok(response);
        }
        let length = match response.body() {
            Body::Empty if asked.is_head => None,
            body => body.remaining(),
        };
        match decide::decide(&self.rules, asked, status, response.headers(), length) {
            Verdict::Untouched => {}
            Verdict::Plain => vary(response.headers_mut()),
            Verdict::Compressed(coding) => {
                vary(response.headers_mut());
                self.compress(&mut response, coding, asked.is_head)?;
            }
        }
        Ok(response)
    }

    fn compress(&self, response: &mut Response, coding: Coding, is_head: bool) -> Result<(), Error> {
        let body = std::mem::take(response.body_mut());
        if !is_head {
            let Some(press) = Press::take(&self.compressor, coding, body.remaining()) else {
                *response.body_mut() = body;
                return Ok(());
            };
            let metrics = self.compressor.metrics.of(coding);
            metrics.answers.inc();
            *response.body_mut() = match body {
                Body::Full(bytes) if bytes.len() as u64 <= LARGE => Body::Full(press.whole(&bytes, metrics)?),
                body => Body::Stream(Box::new(Compressing::new(body, press, &self.compressor))),
            };
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, coding.value());
        // Whoever writes it says how long it is, where that is known.
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        tags::weaken(headers);
        Ok(())
    }
}

/// Says, once, that the answer goes by what a client takes.
fn vary(headers: &mut HeaderMap) {
    let is_said = |token: &str| token == "*" || token.eq_ignore_ascii_case("accept-encoding");
    if !fields::tokens(headers, &header::VARY).any(is_said) {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use tower::Layer as _;

    use super::*;
    use crate::http::{ConnectionInfo, Protocol, Target};
    use crate::observe::metrics::Metrics;

    const PAGE: &[u8] = &[b'x'; 5_000];

    /// Answers with a page, or with 304 to whoever has its tag; says so of requests that another route has answered.
    struct App {
        is_handed_on: bool,
    }

    impl Service for App {
        type Error = Error;

        async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
            if self.is_handed_on {
                request.exchange.hops.set(request.exchange.hops.get() + 1);
            }
            let is_known = request.headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "\"v1\"");
            let mut response = Response::new(if is_known { Body::Empty } else { Body::Full(PAGE.into()) });
            if is_known {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
            }
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            headers.insert(header::ETAG, HeaderValue::from_static("\"v1\""));
            headers.extend(request.headers.get(header::ACCEPT_ENCODING).map(|asked| (header::SERVER, asked.clone())));
            Ok(response)
        }
    }

    fn layer(action: &str, keys: &str) -> CompressLayer {
        let text = format!(
            "upstreams: {{ app: {{ endpoints: ['unix:/run/app.sock'], workers: 4 }} }}\n\
             sites: [{{ routes: [{{ path: /, {action}, {keys} }}] }}]"
        );
        let loaded =
            config::load_str(&text, "f", Path::new("/"), &|_| None).unwrap_or_else(|report| panic!("{report}"));
        let compressor = Compressor::new(1, Metrics::new().compression());
        CompressLayer::new(Compression::compile(&loaded.config.sites[0].routes[0], &compressor))
    }

    fn request(fields: &[(header::HeaderName, &'static str)]) -> Box<Request> {
        let connection = Rc::new(ConnectionInfo::new("80"));
        let exchange = Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::new(), None, None);
        let fields = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        Box::new(Request {
            method: Method::GET,
            target: Target::from_static("/"),
            headers: fields.collect(),
            body: Body::Empty,
            exchange: Rc::new(exchange),
            refused: None,
        })
    }

    /// Status, and some fields: coding, tag, `Vary`, and what the app was asked for.
    async fn told<S: Service<Error = Error>>(service: &S, request: Box<Request>) -> (u16, [Option<String>; 4]) {
        let response = service.call(request).await.unwrap();
        let field = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let fields = [header::CONTENT_ENCODING, header::ETAG, header::VARY, header::SERVER].map(field);
        (response.status().as_u16(), fields)
    }

    fn fields(fields: [&str; 4]) -> [Option<String>; 4] {
        fields.map(|field| Some(field.to_owned()).filter(|field| !field.is_empty()))
    }

    const ACCEPT: (header::HeaderName, &str) = (header::ACCEPT_ENCODING, "gzip");

    #[tokio::test]
    async fn a_route_that_is_off_leaves_all_of_it_to_the_app() {
        let off = layer("proxy: app", "compress: false").layer(App { is_handed_on: false });
        assert_eq!(told(&off, request(&[ACCEPT])).await, (200, fields(["", "\"v1\"", "", "gzip"])));
        let tagged = [ACCEPT, (header::IF_NONE_MATCH, "W/\"v1-hostler\"")];
        assert_eq!(told(&off, request(&tagged)).await.0, 200, "the tag is not ours to read");
    }

    #[tokio::test]
    async fn what_the_app_is_asked_for_is_what_the_edge_does_not_do() {
        let on = layer("proxy: app", "priority: 0").layer(App { is_handed_on: false });
        let told_so = fields(["gzip", "W/\"v1-hostler\"", "Accept-Encoding", ""]);
        assert_eq!(told(&on, request(&[ACCEPT])).await, (200, told_so));
        assert_eq!(told(&on, request(&[])).await, (200, fields(["", "\"v1\"", "Accept-Encoding", ""])));
        let body = format!("respond: {{ body: {} }}", "x".repeat(2_000));
        let own = layer(&body, "body_limit: 1KiB").layer(App { is_handed_on: false });
        assert_eq!(told(&own, request(&[ACCEPT])).await.1[3].as_deref(), Some("gzip"), "no app is asked");
        for action in ["respond: { body: small }", "redirect: { to: /x }"] {
            assert!(layer(action, "body_limit: 1KiB").0.is_none(), "{action}: the same for everybody");
        }
    }

    #[tokio::test]
    async fn what_was_handed_on_is_compressed_by_the_route_that_answers() {
        let outer = layer("proxy: app", "compress: true");
        let off = outer.layer(App { is_handed_on: true });
        assert_eq!(told(&off, request(&[ACCEPT])).await, (200, fields(["", "\"v1\"", "", ""])), "that route is off");
        // The tag in the request was read by the first route, and is its own to answer.
        let tagged = [ACCEPT, (header::IF_NONE_MATCH, "W/\"v1-hostler\"")];
        assert_eq!(told(&off, request(&tagged)).await, (304, fields(["", "W/\"v1-hostler\"", "", ""])));
        // What a client takes is known to it although the field is gone.
        let request = request(&[]);
        request.exchange.codings.set(Some(Codings::of(&HeaderMap::from_iter([(ACCEPT.0, ACCEPT.1.parse().unwrap())]))));
        let on = outer.layer(App { is_handed_on: false });
        assert_eq!(told(&on, request).await.1[0].as_deref(), Some("gzip"));
    }

    #[tokio::test]
    async fn a_304_varies_and_has_the_tag_that_its_client_holds() {
        let on = layer("proxy: app", "compress: true").layer(App { is_handed_on: false });
        for tag in ["\"v1\"", "W/\"v1-hostler\""] {
            let request = request(&[ACCEPT, (header::IF_NONE_MATCH, tag)]);
            assert_eq!(told(&on, request).await, (304, fields(["", tag, "Accept-Encoding", ""])));
        }
    }
}
