//! How the app of a WebSocket is asked: what of the handshake goes with every request, and what an answer to it may be.
//!
//! | field | |
//! |---|---|
//! | the client's | with every request, but for what is about the handshake, a body, a condition or another answer: `Upgrade`, `Connection`, `Accept`, `Accept-Encoding`, `Content-*`, `If-*`, `Range`, `Idempotency-Key`, `Sec-WebSocket-Extensions`; and for what only the edge says: `Connection-Id`, `Meta-*`, `Grip-*` and what no client may send to any app |
//! | `Accept`, `Content-Type` | `application/websocket-events` |
//! | `Connection-Id` | 128 bits by chance, in hexadecimal digits |
//! | `Meta-NAME` | what the app has set by `Set-Meta-NAME` |
//! | `Content-Bytes-Replayed` | how much of the contents it has had before |
//! | `Sec-WebSocket-Extensions: grip`, `Grip-Sig`, `Grip-Feature` | on a route with `grip: true` |

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::answer::{self, Answer, Failure};
use super::batch::Sending;
use crate::error::{Error, Reason};
use crate::http::{Exchange, Request, Response, Target, fields};
use crate::observe::metrics::{WebSocketMetrics, WebSocketOutcome};
use crate::realtime::ask::{Progress, Question, Unanswered, Way};
use crate::realtime::events::{Kind, MEDIA_TYPE};
use crate::realtime::grip::{FEATURES, Signer};
use crate::runtime::Deadline;

const CONNECTION_ID: HeaderName = HeaderName::from_static("connection-id");
const CONTENT_BYTES_REPLAYED: HeaderName = HeaderName::from_static("content-bytes-replayed");
const GRIP_SIG: HeaderName = HeaderName::from_static("grip-sig");
const GRIP_FEATURE: HeaderName = HeaderName::from_static("grip-feature");
const GRIP: HeaderValue = HeaderValue::from_static("grip");
const EVENTS: HeaderValue = HeaderValue::from_static(MEDIA_TYPE);

/// Names that an app may have set, and bytes of them and their values together.
const MAX_META: usize = 32;
const MAX_META_BYTES: usize = 16 << 10;

/// A request that is out.
pub(super) type Asking = Pin<Box<dyn Future<Output = Result<Answer, Failure>>>>;
/// The first one.
pub(super) struct Opening {
    asking: Pin<Box<dyn Future<Output = Result<Opened, Unanswered>>>>,
    progress: Progress,
}

impl Opening {
    /// Whether a worker may have it.
    pub(super) fn has_begun(&self) -> bool {
        self.progress.has_begun()
    }
}

impl Future for Opening {
    type Output = Result<Opened, Unanswered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.asking.as_mut().poll(cx)
    }
}

/// What the app says to OPEN.
pub(super) enum Opened {
    /// The WebSocket is open. With the fields of the answer.
    Taken(Answer, HeaderMap),
    /// It is not: this is the client's answer.
    Refused(Response),
    /// What it says makes no sense.
    Odd(Failure),
}

/// For how long a request is sent again that finds no room.
#[derive(Debug, Clone, Copy)]
enum Patience {
    OfHeld,
    OfAnyRequest,
}

/// Asks the app of one WebSocket.
pub(super) struct Asker {
    way: Rc<Way>,
    exchange: Rc<Exchange>,
    target: Target,
    headers: Rc<HeaderMap>,
    signer: Option<Rc<Signer>>,
    metrics: Rc<WebSocketMetrics>,
    meta: usize,
    meta_bytes: usize,
}

impl Asker {
    /// For the client that has sent `request`. `signer`: on a route with `grip: true`.
    pub(super) fn new(
        way: Rc<Way>,
        request: &Request,
        target: Target,
        signer: Option<Rc<Signer>>,
        metrics: Rc<WebSocketMetrics>,
    ) -> Result<Self, Error> {
        let mut headers = passing(&request.headers, way.identity_names());
        headers.insert(header::ACCEPT, EVENTS);
        headers.insert(header::CONTENT_TYPE, EVENTS);
        headers.insert(CONNECTION_ID, connection_id()?);
        if signer.is_some() {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, GRIP);
        }
        let exchange = Rc::clone(&request.exchange);
        Ok(Self { way, exchange, target, headers: Rc::new(headers), signer, metrics, meta: 0, meta_bytes: 0 })
    }

    /// Asks whether it may be opened.
    pub(super) fn open(&self) -> Opening {
        let mut body = Vec::new();
        crate::realtime::events::write(&mut body, Kind::Open, &[]);
        // It is the client's own request: it has no socket yet that could wait.
        let progress = Progress::default();
        let asking =
            self.ask(Sending { body: Bytes::from(body), replayed: 0 }, Patience::OfAnyRequest, progress.clone());
        let (metrics, patience) = (Rc::clone(&self.metrics), self.way.patience());
        let asking = Box::pin(async move {
            let response = asking.await.inspect_err(|_| metrics.request(WebSocketOutcome::Failed))?;
            let late = |_| Opened::Odd(Failure::late(patience));
            let opened = Deadline::new().bound(patience, opened(response)).await.unwrap_or_else(late);
            metrics.request(match &opened {
                Opened::Taken(..) => WebSocketOutcome::Answered,
                Opened::Refused(_) | Opened::Odd(_) => WebSocketOutcome::Refused,
            });
            Ok(opened)
        });
        Opening { asking, progress }
    }

    /// Tells it what has happened, and brings its answer.
    pub(super) fn tell(&self, sending: Sending) -> Asking {
        let asking = self.ask(sending, Patience::OfHeld, Progress::default());
        let (metrics, way, exchange) = (Rc::clone(&self.metrics), Rc::clone(&self.way), Rc::clone(&self.exchange));
        Box::pin(async move {
            let response = match asking.await {
                Ok(response) => response,
                Err(Unanswered { error, is_counted }) => {
                    metrics.request(WebSocketOutcome::Failed);
                    return Err(Failure::of(&error, is_counted));
                }
            };
            let patience = way.patience();
            let late = |_| Err(Failure::late(patience));
            let mut answer = Deadline::new().bound(patience, answer::read(response)).await.unwrap_or_else(late);
            let outcome = if answer.is_ok() { WebSocketOutcome::Answered } else { WebSocketOutcome::Refused };
            metrics.request(outcome);
            if let Err(failure) = &mut answer
                && !std::mem::replace(&mut failure.is_counted, true)
            {
                way.complain(&exchange, failure.reason, &failure.detail);
            }
            answer
        })
    }

    fn ask(
        &self,
        sending: Sending,
        patience: Patience,
        progress: Progress,
    ) -> impl Future<Output = Result<Response, Unanswered>> + 'static {
        let Sending { body, replayed } = sending;
        let mut told = Vec::new();
        if replayed > 0 {
            told.push((CONTENT_BYTES_REPLAYED, HeaderValue::from(replayed)));
        }
        let (way, exchange) = (Rc::clone(&self.way), Rc::clone(&self.exchange));
        let signer = self.signer.clone();
        let (headers, target) = (Rc::clone(&self.headers), self.target.clone());
        async move {
            exchange.tick();
            if let Some(signature) = signer.and_then(|signer| signer.signature(exchange.wall_clock())) {
                told.extend([(GRIP_SIG, signature), (GRIP_FEATURE, HeaderValue::from_static(FEATURES))]);
            }
            let question = Question { method: Method::POST, target, headers, told, body, progress };
            match patience {
                Patience::OfHeld => way.ask(&exchange, &question).await,
                Patience::OfAnyRequest => way.ask_once(&exchange, &question).await,
            }
        }
    }

    /// Remembers what an answer has set.
    ///
    /// # Errors
    /// It is too much.
    pub(super) fn set_meta(&mut self, meta: Vec<(HeaderName, Option<HeaderValue>)>) -> Result<(), Failure> {
        if meta.is_empty() {
            return Ok(());
        }
        let headers = Rc::make_mut(&mut self.headers);
        let cost = |name: &HeaderName, value: &HeaderValue| name.as_str().len() + value.len();
        for (name, value) in meta {
            if let Some(before) = headers.remove(&name) {
                self.meta -= 1;
                self.meta_bytes -= cost(&name, &before);
            }
            let Some(value) = value else { continue };
            self.meta += 1;
            self.meta_bytes += cost(&name, &value);
            headers.insert(name, value);
        }
        if self.meta > MAX_META || self.meta_bytes > MAX_META_BYTES {
            let detail = format!("it has set more by Set-Meta than {MAX_META} names or {MAX_META_BYTES} bytes");
            return Err(Failure::of_app(Reason::BadEvents, detail));
        }
        Ok(())
    }

    /// Counts and tells of an answer to OPEN that makes no sense.
    pub(super) fn complain(&self, failure: &Failure) {
        self.way.complain(&self.exchange, failure.reason, &failure.detail);
        self.exchange.is_counted.set(true);
    }

    /// Whose app it is, for the log.
    pub(super) fn way(&self) -> Rc<Way> {
        Rc::clone(&self.way)
    }
}

async fn opened(response: Response) -> Opened {
    let (status, is_events) = (response.status(), answer::is_events(response.status(), response.headers()));
    if !is_events {
        // Over HTTP/2 any 2xx would open it (RFC 8441, 5).
        return match status.is_success() || status.is_informational() {
            true => Opened::Odd(answer::refused(status, response.headers())),
            false => Opened::Refused(response),
        };
    }
    let (parts, body) = response.into_parts();
    let answer = match answer::body(body).await {
        Ok(body) => answer::parse(&parts.headers, &body),
        Err(failure) => Err(failure),
    };
    let is_taken = |answer: &Answer| match answer.events.first() {
        Some(event) => event.kind == Kind::Open,
        None => matches!(answer.interval, Some(Some(_))),
    };
    match answer {
        Ok(answer) if is_taken(&answer) => Opened::Taken(answer, parts.headers),
        Ok(_) => {
            let detail = "its answer to OPEN does not begin with OPEN: the app has not accepted the WebSocket";
            Opened::Odd(Failure::of_app(Reason::BadEvents, detail.to_owned()))
        }
        Err(failure) => Opened::Odd(failure),
    }
}

/// The client's fields that mean the same on each of our requests.
fn passing(headers: &HeaderMap, identity: &[HeaderName]) -> HeaderMap {
    let named = fields::named_by_connection(headers);
    let passes = |name: &HeaderName| {
        fields::request_field_beside(name, identity).is_none() && !named.contains(name) && !is_of_handshake(name)
    };
    let mut passing = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| passes(name)) {
        passing.append(name, value.clone());
    }
    passing
}

fn is_of_handshake(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("content-")
        || text.starts_with("if-")
        || text.starts_with("meta-")
        || matches!(
            text,
            "accept" | "accept-encoding" | "connection-id" | "idempotency-key" | "range" | "sec-websocket-extensions"
        )
}

/// Nobody else can know it.
fn connection_id() -> Result<HeaderValue, Error> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::new(Reason::Internal).detail("the system has no random numbers"))?;
    let text = format!("{:032x}", u128::from_be_bytes(bytes));
    HeaderValue::try_from(text).map_err(|_| Error::new(Reason::Internal))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_the_handshake_is_not_said_again() {
        let mut headers = HeaderMap::new();
        for name in [
            "host",
            "cookie",
            "origin",
            "authorization",
            "sec-websocket-protocol",
            "sec-websocket-key",
            "user-agent",
            "upgrade",
            "connection",
            "accept",
            "accept-encoding",
            "accept-language",
            "content-length",
            "content-type",
            "connection-id",
            "meta-user",
            "sec-websocket-extensions",
            "grip-sig",
            "grip-last",
            "x-forwarded-for",
            "idempotency-key",
            "range",
            "if-none-match",
            "content-bytes-replayed",
            "x-hop",
            "remote-user",
            "a_b",
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("x-hop"));
        }
        let passed = passing(&headers, &[]);
        let mut names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "accept-language",
            "authorization",
            "cookie",
            "host",
            "origin",
            "sec-websocket-key",
            "sec-websocket-protocol",
            "user-agent",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn no_two_connections_have_the_same_id() {
        let ids: std::collections::HashSet<_> = (0..100).map(|_| connection_id().unwrap()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
