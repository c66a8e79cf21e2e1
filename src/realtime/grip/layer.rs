//! `grip`: requests to the app are signed, and what its answers say is done.
//!
//! Just above the action: what comes of it passes the layers above as if the app had sent it. Off, it is one branch.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header;

use super::ask::{Asked, collect};
use super::instruct::{Fault, HoldMode, Instruct, LARGEST};
use super::links::Links;
use super::signature::Signer;
use super::{response, stream};
use crate::config;
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, Handovers, Request, Response, Service, Target, Told};
use crate::observe::throttle::Throttle;
use crate::realtime::hub::Local;
use crate::upstream::{Client, InForce, RouteTerms};

pub use crate::http::Held;

/// How far questions stand behind the route's own requests in the waiting room.
const BEHIND: i32 = 20;

/// What a route's clients are held by, in a thread.
pub struct Terms {
    /// As it was when the route was compiled: whose name is looked up among those in force.
    client: Rc<Client>,
    in_force: InForce,
    /// How a client's own question is asked again, and how what it misses is asked for.
    pub(super) asking: Rc<RouteTerms>,
    /// How it is asked whether it misses something.
    pub(super) polling: Rc<RouteTerms>,
    pub(super) signer: Rc<Signer>,
    pub(super) local: Rc<Local>,
    /// How many questions go at a time, over all threads.
    pub(super) links: Arc<Links>,
    /// Bytes that may wait for one client.
    pub(super) buffer: u64,
    /// For event streams of which the app says nothing.
    pub(super) keep_alive: Duration,
    strip_prefix: Option<Box<str>>,
}

impl Terms {
    /// Those of a route, whose client of this thread is the first of both. `terms` is how its own requests are sent.
    #[must_use]
    pub fn compile(
        route: &config::Route,
        realtime: &config::Realtime,
        (client, in_force): (Rc<Client>, InForce),
        terms: RouteTerms,
        links: Arc<Links>,
        signer: Rc<Signer>,
        local: Rc<Local>,
    ) -> Self {
        let asking = RouteTerms { reads_ahead: true, holds: true, handovers: Handovers::default(), ..terms };
        let polling = RouteTerms { priority: (route.priority - BEHIND).max(-100), ..asking.clone() };
        Self {
            client,
            in_force,
            asking: Rc::new(asking),
            polling: Rc::new(polling),
            signer,
            local,
            links,
            buffer: realtime.buffer,
            keep_alive: realtime.keep_alive,
            strip_prefix: route.strip_prefix.as_deref().map(Box::from),
        }
    }

    /// The way to the app, as it is now: who is held outlives reloads.
    pub(super) fn client(&self) -> Rc<Client> {
        self.in_force.client(&self.client)
    }
}

/// Adds [`Grip`].
#[derive(Clone)]
pub struct GripLayer(Option<Rc<Terms>>);

/// Holds clients whose app says so.
pub struct Grip<S> {
    inner: S,
    terms: Option<Rc<Terms>>,
}

impl GripLayer {
    /// The layer of a route that holds clients so, or not at all.
    #[must_use]
    pub fn new(terms: Option<Terms>) -> Self {
        Self(terms.map(Rc::new))
    }
}

impl<S> tower::Layer<S> for GripLayer {
    type Service = Grip<S>;

    fn layer(&self, inner: S) -> Grip<S> {
        Grip { inner, terms: self.0.clone() }
    }
}

impl<S: Service<Error = Error>> Service for Grip<S> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        match &self.terms {
            None => self.inner.call(request).await,
            // Boxed: other routes are not to carry room for it.
            Some(terms) => Box::pin(Rc::clone(terms).call(&self.inner, request)).await,
        }
    }
}

impl Terms {
    pub(super) async fn call<S: Service<Error = Error>>(
        self: Rc<Self>,
        inner: &S,
        mut request: Box<Request>,
    ) -> Result<Response, Error> {
        let exchange = Rc::clone(&request.exchange);
        // What is added to a body cannot be encoded with it.
        request.headers.remove(header::ACCEPT_ENCODING);
        let asked = self.asked(&request)?;
        self.sign(&exchange);
        let result = inner.call(request).await;
        Self::unsign(&exchange);
        let response = result?;
        if !Instruct::is_in(response.headers()) {
            return Ok(response);
        }
        let result = self.obey(asked, response, &exchange).await;
        if let Err(error) = &result {
            tell(error, &exchange);
        }
        result
    }

    fn asked(&self, request: &Request) -> Result<Asked, Error> {
        let target = match &self.strip_prefix {
            Some(prefix) => request.target.without_prefix(prefix)?,
            None => None,
        };
        Ok(Asked {
            method: request.method.clone(),
            target: target.unwrap_or_else(|| Target::clone(&request.target)),
            headers: request.headers.clone(),
            has_body: !matches!(request.body, Body::Empty),
        })
    }

    /// Does what the answer says.
    async fn obey(
        self: Rc<Self>,
        asked: Asked,
        response: Response,
        exchange: &Rc<Exchange>,
    ) -> Result<Response, Error> {
        let (instruct, response) = read(response).await?;
        match instruct.holds(&asked.method) {
            Some(HoldMode::Response) => response::hold(self, asked, instruct, response, exchange).await,
            Some(HoldMode::Stream) => stream::hold(self, asked, instruct, response, exchange).await,
            None if instruct.next.is_some() && asked.method != http::Method::HEAD => {
                stream::hold(self, asked, instruct, response, exchange).await
            }
            None => Ok(response),
        }
    }
}

/// The instructions of an answer, and what the client is to get of it.
pub(super) async fn read(response: Response) -> Result<(Instruct, Response), Error> {
    let mut instruct = Instruct::of_fields(response.headers()).map_err(invalid)?;
    let mut response = response;
    if Instruct::is_json(response.headers()) {
        let (head, body) = response.into_parts();
        let body = collect(body, LARGEST).await?;
        instruct.read_json(head.status, &body).map_err(invalid)?;
        response = Response::new(Body::Empty);
        *response.headers_mut() = head.headers;
        if let Some(part) = instruct.response.take() {
            *response.status_mut() = part.status;
            *response.headers_mut() = part.headers;
            *response.body_mut() = full(part.body);
        }
    }
    if let Some(status) = instruct.status {
        *response.status_mut() = status;
    }
    // What of it is obeyed has been read by the upstream: a pace, above all, is none for what is held.
    if instruct.hold.is_some() || instruct.next.is_some() {
        response.extensions_mut().remove::<Box<Told>>();
        if let Some(coding) = response.headers().get(header::CONTENT_ENCODING)
            && coding != "identity"
        {
            return Err(invalid(Fault(format!(
                "the answer has the Content-Encoding {}, and nothing can be added to it: the app is not to compress what it wants held",
                coding.to_str().unwrap_or("(unreadable)")
            ))));
        }
    }
    instruct.strip(response.headers_mut());
    Ok((instruct, response))
}

pub(super) fn full(body: Bytes) -> Body {
    if body.is_empty() { Body::Empty } else { Body::Full(body) }
}

pub(super) fn invalid(fault: Fault) -> Error {
    Error::new(Reason::GripInvalid).detail(fault.0)
}

/// The operator hears what an app has wrong.
pub(super) fn tell(error: &Error, exchange: &Exchange) {
    static THROTTLE: Throttle = Throttle::new();
    if error.reason != Reason::GripInvalid {
        return;
    }
    let Some(left_out) = THROTTLE.pass() else { return };
    let id = exchange.id.get();
    let path = String::from_utf8_lossy(exchange.target.split(|byte| *byte == b'?').next().unwrap_or_default());
    tracing::warn!(
        request_id = id.as_ref().map_or("", |id| id.as_str()),
        %path,
        reason = error.reason.as_str(),
        left_out,
        "{error}"
    );
}
