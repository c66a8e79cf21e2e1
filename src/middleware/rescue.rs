//! Turns every failure into an answer: the only table from reason to status.
//!
//! Below it layers fail with an [`Error`]; above it everything is infallible. Bytes that the edge refused come here as
//! well ([`Request::refused`]), so that each failure has the same reason in log, metric, page and `Proxy-Status`
//! (RFC 9209). The page is HTML for browsers, plain text for everybody else, and says nothing of the inside. A site's
//! `error_pages` stand instead of the HTML; what programs read stays as it is.
//!
//! What layers below want on any answer ([`crate::http::AnswerFields`]) is put there here: on pages as on what the app says.

mod pages;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

pub use self::pages::ErrorPages;
use crate::error::{Error, Reason, Side};
use crate::http::{Body, Exchange, Request, Response, Service, fields};
use crate::observe::throttle::Throttles;

/// Adds [`Rescued`].
#[derive(Debug, Clone, Default)]
pub struct RescueLayer {
    pages: Arc<[ErrorPages]>,
}

/// Answers what fails below.
#[derive(Debug)]
pub struct Rescued<S> {
    inner: S,
    pages: Arc<[ErrorPages]>,
}

impl RescueLayer {
    /// With the pages of each site, in their order.
    #[must_use]
    pub const fn new(pages: Arc<[ErrorPages]>) -> Self {
        Self { pages }
    }
}

impl<S> tower::Layer<S> for RescueLayer {
    type Service = Rescued<S>;

    fn layer(&self, inner: S) -> Rescued<S> {
        Rescued { inner, pages: Arc::clone(&self.pages) }
    }
}

impl<S: Service<Error = Error>> Service for Rescued<S> {
    type Error = Infallible;

    async fn call(&self, mut request: Box<Request>) -> Result<Response, Infallible> {
        let exchange = std::rc::Rc::clone(&request.exchange);
        // Shared, not read: only an error page wants to know.
        let accept = fields::first(&request.headers, &header::ACCEPT).cloned();
        let result = match request.refused.take() {
            Some(error) => Err(error),
            None => self.inner.call(request).await,
        };
        let mut response = result.unwrap_or_else(|error| {
            tell(&error, &exchange);
            answer(&error, &exchange, accept.as_ref().is_some_and(wants_html), &self.pages)
        });
        exchange.answer_fields.apply(response.headers_mut());
        Ok(response)
    }
}

/// A row of the table: the status, the error type of RFC 9209, and a sentence for whoever sees the page.
type Row = (StatusCode, &'static str, &'static str);

/// The table.
#[must_use]
fn row(reason: Reason) -> Row {
    use Reason as R;
    use StatusCode as S;
    const MALFORMED: &str = "http_request_error";
    const DENIED: &str = "http_request_denied";
    const OURS: &str = "proxy_internal_response";
    match reason {
        R::BadRequestLine
        | R::BadTarget
        | R::BadHeaderName
        | R::BadHeaderValue
        | R::BareLf
        | R::ObsFold
        | R::MissingHost
        | R::BadHost
        | R::ConnectionConflict
        | R::BadContentLength
        | R::BadTransferEncoding
        | R::LengthConflict
        | R::BadChunk
        | R::BodyLengthMismatch
        | R::Http2Refused => (S::BAD_REQUEST, MALFORMED, "The request could not be read."),
        R::BadMethod => (S::NOT_IMPLEMENTED, MALFORMED, "This method is not supported."),
        R::UnsupportedVersion => (S::HTTP_VERSION_NOT_SUPPORTED, MALFORMED, "This version of HTTP is not supported."),
        R::UriTooLong => (S::URI_TOO_LONG, MALFORMED, "The address is too long."),
        R::HeadersTooLarge | R::TooManyHeaders | R::VarsTooLarge => (
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            MALFORMED,
            "The request's header fields are too large. Deleting this site's cookies may help.",
        ),
        R::BodyTooLarge | R::WebsocketTooBig => {
            (S::PAYLOAD_TOO_LARGE, MALFORMED, "What was sent is larger than this site takes.")
        }
        R::ExpectationFailed => {
            (S::EXPECTATION_FAILED, MALFORMED, "The request expects something that is not offered here.")
        }
        R::UpgradeRefused => (S::NOT_IMPLEMENTED, MALFORMED, "This address does not take WebSocket connections."),
        R::ProtocolUnknown => (S::NOT_IMPLEMENTED, MALFORMED, "This protocol is not spoken here."),
        R::WebsocketMalformed | R::WebsocketProtocol => {
            (S::BAD_REQUEST, MALFORMED, "The WebSocket could not be opened.")
        }
        R::WebsocketVersion => (S::UPGRADE_REQUIRED, MALFORMED, "This version of WebSocket is not supported."),
        R::OriginRefused => (S::FORBIDDEN, DENIED, "This address is not open to pages of other sites."),
        R::HeaderTimeout | R::BodyTimeout => (S::REQUEST_TIMEOUT, MALFORMED, "The request took too long to arrive."),
        R::TooManyConnectionsOfClient => {
            (S::TOO_MANY_REQUESTS, DENIED, "Too many connections are open from this address.")
        }
        R::Unauthorized => (S::UNAUTHORIZED, DENIED, "This address is for those who have logged in."),
        R::Forbidden | R::EventsForged => (S::FORBIDDEN, DENIED, "This address is not open to you."),
        R::RateLimited => (S::TOO_MANY_REQUESTS, DENIED, "Too many requests. Please try again in a moment."),
        R::UnknownHost => (S::MISDIRECTED_REQUEST, "destination_not_found", "No site is served under this name."),
        R::NoRoute | R::FileNotFound => (S::NOT_FOUND, "destination_not_found", "There is nothing at this address."),
        R::FileForbidden => (S::FORBIDDEN, DENIED, "This file is not open to you."),
        R::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, DENIED, "This address can only be read."),
        R::NotCached => (S::GATEWAY_TIMEOUT, OURS, "There is no copy of this page to be had at the moment."),
        R::PreconditionFailed => (S::PRECONDITION_FAILED, DENIED, "What is here has changed in the meantime."),
        R::RangeNotSatisfiable => {
            (S::RANGE_NOT_SATISFIABLE, DENIED, "This file does not have the part that was asked for.")
        }
        // Never sent, but logged and counted: as nginx calls it.
        R::ClientGone | R::ClientStalled | R::PingTimeout | R::HoldOverflow => (
            S::from_u16(499).unwrap_or(S::BAD_REQUEST),
            MALFORMED,
            "The connection was lost before the request had arrived.",
        ),
        R::QueueFull | R::QueueTimeout | R::StreamsFull => {
            (S::SERVICE_UNAVAILABLE, "connection_limit_reached", "The site is very busy. Please try again in a moment.")
        }
        R::SpoolFull | R::TooManyConnections | R::NoDescriptors | R::AuthOverloaded | R::WebsocketsFull => {
            (S::SERVICE_UNAVAILABLE, OURS, "The site is very busy. Please try again in a moment.")
        }
        R::AuthUnavailable => {
            (S::SERVICE_UNAVAILABLE, OURS, "Logging in does not work at the moment. Please try again later.")
        }
        R::SpoolFailed | R::RootMissing | R::FileChanged | R::FileFailed | R::TooManyHops | R::Internal => {
            (S::INTERNAL_SERVER_ERROR, "proxy_internal_error", "Something went wrong.")
        }
        R::ShuttingDown => (S::SERVICE_UNAVAILABLE, OURS, "The site is being restarted. Please try again in a moment."),
        R::BacklogFull => {
            (S::SERVICE_UNAVAILABLE, "connection_limit_reached", "The site is very busy. Please try again in a moment.")
        }
        R::ConnectRefused => (S::BAD_GATEWAY, "connection_refused", "The site is not running at the moment."),
        R::SocketMissing | R::SocketPermission | R::ConnectFailed | R::NoEndpoint => {
            (S::BAD_GATEWAY, "destination_unavailable", "The site is not running at the moment.")
        }
        R::TlsFailed => (S::BAD_GATEWAY, "tls_certificate_error", "The site is not running at the moment."),
        R::NameNotResolved => (S::BAD_GATEWAY, "dns_error", "The site is not running at the moment."),
        R::ConnectTimeout => (S::GATEWAY_TIMEOUT, "connection_timeout", "The site did not answer in time."),
        R::ResetBeforeHead | R::EofBeforeHead => {
            (S::BAD_GATEWAY, "connection_terminated", "The site ended before it had answered.")
        }
        R::EofInHead | R::EofInBody | R::WebsocketCut => {
            (S::BAD_GATEWAY, "http_response_incomplete", "The site's answer was cut off.")
        }
        R::HeadTimeout | R::RouteTimeout => {
            (S::GATEWAY_TIMEOUT, "http_response_timeout", "The site did not answer in time.")
        }
        R::IdleTimeout => {
            (S::GATEWAY_TIMEOUT, "connection_read_timeout", "The site stopped in the middle of the exchange.")
        }
        R::AccelRefused | R::SendfileRefused => {
            (S::BAD_GATEWAY, "http_protocol_error", "The site's answer leads to nothing that can be sent.")
        }
        R::GripInvalid => (S::BAD_GATEWAY, "http_protocol_error", "The site's answer could not be followed."),
        R::BadHead | R::BadBody | R::HandshakeMismatch | R::BadEvents => {
            (S::BAD_GATEWAY, "http_protocol_error", "The site's answer could not be read.")
        }
    }
}

/// Seconds after which a client may try again, where that is of use: what the error knows, else a guess.
fn retry_after(error: &Error) -> Option<u32> {
    const GUESS: u32 = 5;
    let is_passing = matches!(
        error.reason,
        Reason::QueueFull
            | Reason::QueueTimeout
            | Reason::StreamsFull
            | Reason::SpoolFull
            | Reason::TooManyConnections
            | Reason::NoDescriptors
            | Reason::RateLimited
            | Reason::WebsocketsFull
            | Reason::AuthOverloaded
            | Reason::AuthUnavailable
            | Reason::ShuttingDown
            | Reason::BacklogFull
            | Reason::ConnectRefused
            | Reason::SocketMissing
            | Reason::NoEndpoint
    );
    error.retry_after.or(is_passing.then_some(GUESS))
}

fn answer(error: &Error, exchange: &Exchange, wants_html: bool, pages: &[ErrorPages]) -> Response {
    let reason = error.reason;
    exchange.fail(reason);
    let (status, kind, sentence) = row(reason);
    let id = exchange.id.get();
    let id = id.as_ref().map_or("", |id| id.as_str());
    let text = |text: String, media_type| (Bytes::from(text), HeaderValue::from_static(media_type));
    let page = exchange.site.get().and_then(|site| pages.get(site)?.of(status));
    let (body, media_type) = match page {
        Some(page) if wants_html => (page.body.clone(), page.media_type.clone()),
        _ if wants_html => text(html(status, sentence, reason, id), "text/html; charset=utf-8"),
        _ => text(plain(status, sentence, reason, id), "text/plain; charset=utf-8"),
    };
    let mut response = Response::new(Body::Full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&format!("hostler; error={kind}; details=\"{reason}\"")) {
        headers.insert("proxy-status", value);
    }
    if reason == Reason::WebsocketVersion {
        // RFC 6455, 4.4.
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    if let Some(seconds) = retry_after(error) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The operator hears of what is the edge's. The worker's failures have been told where they happened, and the
/// client's stand in the access log.
fn tell(error: &Error, exchange: &Exchange) {
    static THROTTLES: Throttles = Throttles::new();
    let id = exchange.id.get();
    let request_id = id.as_ref().map_or("", |id| id.as_str());
    match error.reason.side() {
        Side::Edge => {
            if let Some(left_out) = THROTTLES.pass(error.reason) {
                tracing::warn!(request_id, reason = error.reason.as_str(), left_out, "{error}");
            }
        }
        Side::Client | Side::Upstream => tracing::debug!(request_id, reason = error.reason.as_str(), "{error}"),
    }
}

/// Whether HTML is asked for by name: browsers do, programs do not.
fn wants_html(accept: &HeaderValue) -> bool {
    accept.as_bytes().windows(9).any(|part| part.eq_ignore_ascii_case(b"text/html"))
}

fn plain(status: StatusCode, sentence: &str, reason: Reason, id: &str) -> String {
    let mut text =
        format!("{} {}\n{sentence}\nreason: {reason}\n", status.as_u16(), status.canonical_reason().unwrap_or(""));
    if !id.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "request: {id}");
    }
    text
}

fn html(status: StatusCode, sentence: &str, reason: Reason, id: &str) -> String {
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or(""));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title>\n<style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}}\
         small{{color:#666}}</style></head>\n<body><h1>{title}</h1>\n<p>{sentence}</p>\n<p><small>reason: {reason}<br>request: {id}</small></p>\n\
         </body>\n</html>\n"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use http::{HeaderMap, Method};
    use tower::Layer as _;

    use super::*;
    use crate::http::{ConnectionInfo, Protocol, Target};

    /// Wants two fields on the answer, which is its own or an error.
    struct Bottom(Option<Reason>);

    impl Service for Bottom {
        type Error = Error;

        async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
            let fields = &request.exchange.answer_fields;
            fields.add(header::VARY, HeaderValue::from_static("origin"));
            fields.set(header::CACHE_CONTROL, HeaderValue::from_static("private"));
            if let Some(reason) = self.0 {
                return Err(reason.into());
            }
            let mut response = Response::new(Body::Empty);
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("cookie"));
            Ok(response)
        }
    }

    #[tokio::test]
    async fn what_a_layer_wants_stands_on_every_answer() {
        for (reason, status, vary) in
            [(None, 200, &["cookie", "origin"][..]), (Some(Reason::NoRoute), 404, &["origin"])]
        {
            let connection = Rc::new(ConnectionInfo::new("80"));
            let exchange = Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::new(), None, None);
            let request = Request {
                method: Method::GET,
                target: Target::from_static("/"),
                headers: HeaderMap::new(),
                body: Body::Empty,
                exchange: Rc::new(exchange),
                refused: None,
            };
            let Ok(response) = RescueLayer::default().layer(Bottom(reason)).call(Box::new(request)).await;
            let told = |name| response.headers().get_all(name).iter().collect::<Vec<_>>();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(told(header::VARY), vary);
            assert_eq!(told(header::CACHE_CONTROL), ["private"]);
            assert_eq!(response.headers().contains_key("proxy-status"), reason.is_some());
        }
    }

    #[test]
    fn every_reason_has_an_error_status() {
        for reason in Reason::ALL {
            let (status, _, sentence) = row(*reason);
            assert!(status.is_client_error() || status.is_server_error(), "{reason}");
            assert!(sentence.ends_with('.'), "{reason}");
        }
    }

    #[test]
    fn the_side_decides_the_class_of_the_status() {
        for reason in Reason::ALL {
            let (status, ..) = row(*reason);
            match reason.side() {
                // What a client wants from the cache alone, and is not there: RFC 9111, 5.2.1.7.
                Side::Client if *reason == Reason::NotCached => assert_eq!(status, StatusCode::GATEWAY_TIMEOUT),
                Side::Client => assert!(status.is_client_error() || matches!(status.as_u16(), 501 | 505), "{reason}"),
                Side::Edge | Side::Upstream => assert!(status.is_server_error(), "{reason}"),
            }
        }
    }

    #[test]
    fn the_statuses_that_operators_build_on() {
        for (reason, status) in [
            (Reason::QueueTimeout, 503),
            (Reason::QueueFull, 503),
            (Reason::SocketMissing, 502),
            (Reason::ConnectRefused, 502),
            (Reason::HeadTimeout, 504),
            (Reason::EofBeforeHead, 502),
            (Reason::BacklogFull, 503),
            (Reason::BodyTooLarge, 413),
            (Reason::UriTooLong, 414),
            (Reason::HeadersTooLarge, 431),
            (Reason::UnknownHost, 421),
            (Reason::SpoolFull, 503),
            (Reason::Unauthorized, 401),
            (Reason::Forbidden, 403),
            (Reason::RateLimited, 429),
            (Reason::AuthOverloaded, 503),
            (Reason::AuthUnavailable, 503),
            (Reason::RouteTimeout, 504),
        ] {
            assert_eq!(row(reason).0.as_u16(), status, "{reason}");
        }
    }

    #[test]
    fn who_is_turned_away_at_the_door_reads_the_same() {
        for reason in [Reason::TooManyConnections, Reason::TooManyConnectionsOfClient] {
            let (status, kind, sentence) = row(reason);
            let words = crate::edge::connection::words(reason);
            assert!(words.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{words}");
            assert!(words.contains(&format!("\r\nProxy-Status: hostler; error={kind}; details=\"{reason}\"\r\n")));
            let (head, body) = words.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, plain(status, sentence, reason, ""));
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{words}");
        }
    }

    #[test]
    fn the_readme_has_every_reason_beside_its_status() {
        let readme = include_str!("../../README.md");
        for reason in Reason::ALL {
            let named = format!("`{reason}`");
            let told = readme.lines().filter(|line| line.starts_with("| `") && line.contains(&named));
            let status = format!(" | {} |", row(*reason).0.as_u16());
            assert_eq!(told.map(|line| line.contains(&status)).collect::<Vec<_>>(), [true], "{reason}{status}");
        }
    }
}
