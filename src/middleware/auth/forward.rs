//! `auth.forward`: another service says whether a request may pass, as for nginx's `auth_request`, Traefik's `forwardAuth`
//! and Caddy's `forward_auth`.
//!
//! It is asked before anything of a body is received, with a GET of its own, through the waiting room of its upstream. The
//! request itself has no slot meanwhile: one worker may be there for both.
//!
//! | what is asked with | |
//! |---|---|
//! | the client's fields | but those of a body, a range or a condition: the answer is to be whole |
//! | `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, `X-Request-ID` … | as the app gets them |
//! | what `basic` and `jwt` have found out | as the app gets it |
//! | `X-Forwarded-Method`, `X-Forwarded-Uri` | what is asked for, as Traefik and Caddy say it |
//! | `X-Original-Method`, `X-Original-URI`, `X-Original-URL` | the same, as it is written by hand for nginx |
//!
//! | what is answered | |
//! |---|---|
//! | 2xx | the request passes. The app gets the fields that `headers` names, the client the cookies |
//! | 401, 403, 429; 301, 302, 303, 307, 308 with Location | the answer is the client's, as it is |
//! | anything else, or nothing | 503 `auth_unavailable`: nobody passes unasked. What the edge itself has no room for keeps its own reason |

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::config;
use crate::error::{Error, Reason, Side};
use crate::http::{
    Body, Exchange, ExchangeGuard, Finish, Handovers, Host, Identity, Phase, Request, Response, Target, fields,
};
use crate::runtime::Deadline;
use crate::upstream::spool::Share;
use crate::upstream::{Client, Outgoing, RouteTerms};

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static(config::Forward::ORIGINAL[0]);
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static(config::Forward::ORIGINAL[1]);
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static(config::Forward::ORIGINAL[2]);

/// Whom a thread asks for a route.
pub struct Forward {
    client: Rc<Client>,
    /// What it is asked for; `None`: it could not be sent, and the configuration has refused it before.
    target: Option<Target>,
    /// Of its answer, for the app.
    headers: Vec<HeaderName>,
    /// For a worker that has been asked.
    timeout: Duration,
    /// The route's own, for all of it.
    limit: Option<Duration>,
    terms: Rc<RouteTerms>,
}

impl Forward {
    /// For a route. `client` leads to the upstream that is asked, whose app lives under `mount`; `identity_names` are those of
    /// all routes.
    #[must_use]
    pub fn compile(
        forward: &config::Forward,
        route: &config::Route,
        client: Rc<Client>,
        mount: Option<&str>,
        identity_names: Arc<[HeaderName]>,
    ) -> Self {
        let share = Share { memory: route.buffer.memory, disk: route.buffer.disk, client: None };
        let terms = RouteTerms {
            mount: mount.map(Box::from),
            share,
            reads_ahead: true,
            // Whoever is asked says yes or no, and hands nothing over.
            handovers: Handovers::default(),
            holds: false,
            priority: route.priority,
            identity_names,
            tunnel: None,
        };
        Self {
            client,
            target: Target::parse(Bytes::copy_from_slice(forward.path.as_bytes())).ok(),
            headers: fields::compile_names(&forward.headers),
            timeout: forward.timeout,
            limit: route.timeout,
            terms: Rc::new(terms),
        }
    }

    /// Asks. `None`: the request may pass, and its app will be told who asks. Else the answer for its client.
    pub(super) async fn admit(&self, request: &Request) -> Result<Option<Response>, Error> {
        let exchange = &request.exchange;
        let answer = self.ask(request).await?;
        let status = answer.status();
        if status.is_success() {
            tell(exchange, &self.headers, answer.headers());
            exchange.working_since.set(None);
            *exchange.endpoint.borrow_mut() = None;
            return Ok(None);
        }
        match refusal(status, answer.headers()) {
            Some(reason) => {
                exchange.fail(reason);
                Ok(Some(answer))
            }
            None => Err(self.unavailable(format_args!("its answer is {status}"))),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Response, Error> {
        let exchange = &request.exchange;
        let target = self.target.clone().ok_or(Reason::Internal)?;
        let asking = Rc::new(exchange.beside(Method::GET, target.bytes()));
        // However it ends: a client that leaves meanwhile leaves it as well.
        let guard = ExchangeGuard(Rc::clone(&asking));
        describe(request, &asking.identity)?;
        let headers = passing(&request.headers, &self.terms.identity_names);
        let own = Request {
            method: Method::GET,
            target,
            headers,
            body: Body::Empty,
            exchange: Rc::clone(&asking),
            refused: None,
        };
        let outgoing = Outgoing { request: Box::new(own), body: None, terms: Rc::clone(&self.terms) };
        let before = exchange.phase.replace(Phase::Authorizing);
        let begun = exchange.now();
        let answer = self.answer_within(outgoing, exchange, &asking).await;
        let now = exchange.tick();
        exchange.time(|timings| timings.auth += now - begun);
        exchange.phase.set(before);
        asking.finish(Finish::Complete);
        drop(guard);
        answer.map_err(|error| self.judge(error, exchange, &asking))
    }

    /// The answer, within the time that the route has for its own.
    async fn answer_within(
        &self,
        outgoing: Outgoing,
        exchange: &Exchange,
        asking: &Exchange,
    ) -> Result<Response, Error> {
        let answer = self.answer(outgoing, exchange, asking);
        let Some(limit) = self.limit else { return answer.await };
        let left = limit.saturating_sub(exchange.tick() - exchange.started);
        let late = |_| Err(Error::new(Reason::RouteTimeout).detail(Phase::Authorizing.as_str()));
        Deadline::new().bound(left, answer).await.unwrap_or_else(late)
    }

    /// The answer. A worker that has been asked has `timeout`; for how long one is waited for is the upstream's own matter.
    async fn answer(&self, outgoing: Outgoing, exchange: &Exchange, asking: &Exchange) -> Result<Response, Error> {
        let deadline = Deadline::new();
        let mut answer = pin!(self.client.send(outgoing));
        std::future::poll_fn(|cx| {
            let polled = answer.as_mut().poll(cx);
            follow(exchange, asking);
            if let Poll::Ready(answer) = polled {
                return Poll::Ready(answer);
            }
            match asking.phase.get() {
                Phase::Working if deadline.is_armed() => {}
                Phase::Working => deadline.arm(self.timeout),
                _ => deadline.disarm(),
            }
            let late =
                || Err(self.unavailable(format_args!("no answer within {:?} (auth.forward.timeout)", self.timeout)));
            deadline.poll(cx).map(|()| late())
        })
        .await
    }

    /// What failed there is one thing to the client, but for what is the edge's own doing, or the client's: a waiting room
    /// that is full says when to come back.
    fn judge(&self, error: Error, exchange: &Exchange, asking: &Exchange) -> Error {
        if error.reason == Reason::VarsTooLarge || error.reason.side() == Side::Edge {
            exchange.is_counted.set(asking.is_counted.get());
            return error;
        }
        self.unavailable(format_args!("{error}"))
    }

    fn unavailable(&self, why: std::fmt::Arguments<'_>) -> Error {
        let (path, upstream) = (self.target.as_ref().map_or("", Target::as_str), self.client.name());
        Error::new(Reason::AuthUnavailable).detail(format!("GET {path} from upstream {upstream} (auth.forward): {why}"))
    }
}

/// Why a client is answered by the auth service; `None`: this is no verdict on a request.
fn refusal(status: StatusCode, headers: &HeaderMap) -> Option<Reason> {
    match status.as_u16() {
        401 => Some(Reason::Unauthorized),
        403 => Some(Reason::Forbidden),
        429 => Some(Reason::RateLimited),
        // To where one logs in.
        301..=303 | 307 | 308 if headers.contains_key(header::LOCATION) => Some(Reason::Unauthorized),
        _ => None,
    }
}

/// The log and whoever waits know of the client's exchange alone.
fn follow(exchange: &Exchange, asking: &Exchange) {
    exchange.working_since.set(asking.working_since.get());
    exchange.endpoint.borrow_mut().clone_from(&asking.endpoint.borrow());
}

/// Says who asks, as far as it is known, and for what.
fn describe(request: &Request, told: &Identity) -> Result<(), Error> {
    let Request { method, target, exchange, .. } = request;
    for (name, value) in exchange.identity.fields().iter() {
        told.tell(name.clone(), value.clone());
    }
    let host = exchange.host.as_ref().map_or("localhost", Host::as_str);
    // `OPTIONS *` has no path.
    let path = if target.path() == b"*" { "" } else { target.as_str() };
    let url = format!("{}://{host}{path}", exchange.scheme().as_str());
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Error::new(Reason::Internal));
    let (method, uri) = (value(method.as_str())?, value(target.as_str())?);
    told.tell(X_FORWARDED_METHOD, method.clone());
    told.tell(X_FORWARDED_URI, uri.clone());
    told.tell(X_ORIGINAL_METHOD, method);
    told.tell(X_ORIGINAL_URI, uri);
    told.tell(X_ORIGINAL_URL, value(&url)?);
    Ok(())
}

/// The client's fields that mean the same on a request without a body, of which the whole answer is wanted.
fn passing(headers: &HeaderMap, identity: &[HeaderName]) -> HeaderMap {
    let named = fields::named_by_connection(headers);
    let passes = |name: &HeaderName| {
        fields::request_field_beside(name, identity).is_none() && !named.contains(name) && !is_of_its_request(name)
    };
    let mut passing = fields::take_map(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| passes(name)) {
        passing.append(name, value.clone());
    }
    passing
}

/// Whether a field is about the body, about a part of the answer, or about what was answered before.
fn is_of_its_request(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("content-") || text.starts_with("if-") || matches!(text, "range" | "idempotency-key")
}

/// All lines of a field as one (RFC 9110, 5.3): the app gets one. An empty one says nothing.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).iter().filter(|line| !line.is_empty());
    let first = lines.next()?;
    let mut all = first.as_bytes().to_vec();
    for line in lines {
        all.extend_from_slice(b", ");
        all.extend_from_slice(line.as_bytes());
    }
    HeaderValue::from_bytes(&all).ok()
}

/// What the app and the client get of an answer that lets a request pass. Under the names that are this service's to fill, nothing
/// else is told: not what another one has said on the route that has handed the request on.
fn tell(exchange: &Exchange, names: &[HeaderName], answer: &HeaderMap) {
    for name in names {
        match joined(answer, name) {
            Some(value) => exchange.identity.tell(name.clone(), value),
            None => exchange.identity.forget(name),
        }
    }
    for cookie in answer.get_all(header::SET_COOKIE) {
        exchange.answer_fields.add(header::SET_COOKIE, cookie.clone());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
