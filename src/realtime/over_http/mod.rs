//! `websocket: over_http`: a WebSocket ends at the edge, and its app, which knows requests and answers alone, gets it as
//! requests (WebSocket-over-HTTP, as Pushpin speaks it; the app's side is gripcontrol, django-grip and their like).
//!
//! 1. The handshake becomes a POST with `OPEN` ([`asker`]); the app's answer to it is the client's: taken, or refused as it is.
//! 2. What the client says becomes events in further POSTs, one at a time, in order ([`session`], [`batch`], [`answer`]).
//! 3. What the app answers and publishes goes to the client ([`drive`]).
//! 4. However it ends, the app hears of it ([`held`]).
//!
//! Every POST goes through the waiting room like any other ([`crate::realtime::ask`]). `grip: true` on the route lets the app put
//! clients on channels and say what [`control`] has. Extensions are declined: tungstenite has no permessage-deflate.

mod answer;
mod asker;
mod batch;
mod control;
mod drive;
mod forged;
mod held;
mod session;

use std::rc::Rc;

use bytes::Bytes;

use self::answer::Answer;
use self::asker::{Asker, Opened};
use self::held::{Care, Held};
use self::session::{Rules, Session};
use crate::config;
use crate::error::{Error, Reason};
use crate::http::upgrade::Running;
use crate::http::{ClientIo, Exchange, Handshake, Request, Response, Takeover};
use crate::observe::metrics::WebSocketMetrics;
use crate::observe::throttle::Throttle;
use crate::realtime::ask::Way;
use crate::realtime::grip::Signer;
use crate::realtime::hub::{Format, Local, Subscriber};
use crate::runtime::deadline::awake;

/// Takes the WebSockets of one route, in one thread.
pub struct OverHttp {
    way: Rc<Way>,
    rules: Rc<Rules>,
    /// On a route with `grip: true`.
    grip: Option<Grip>,
    max_message: usize,
    strip_prefix: Option<Box<str>>,
    metrics: Rc<WebSocketMetrics>,
}

/// What a thread has for routes with `grip: true`.
#[derive(Clone)]
pub struct Grip {
    /// Signs requests.
    pub signer: Rc<Signer>,
    /// Its part of the channels.
    pub local: Rc<Local>,
}

impl OverHttp {
    /// Of a route. `way` leads to its app, and `grip` is there where the route has it.
    #[must_use]
    pub fn compile(
        route: &config::Route,
        websocket: &config::WebSocket,
        config: &config::Config,
        way: Rc<Way>,
        grip: Option<Grip>,
        metrics: Rc<WebSocketMetrics>,
    ) -> Self {
        let rules = Rules {
            is_grip: grip.is_some(),
            buffer: usize::try_from(config.realtime.buffer).unwrap_or(usize::MAX),
            ping: websocket.ping,
            read_rate: config.limits.read_rate,
        };
        Self {
            way,
            rules: Rc::new(rules),
            grip,
            max_message: usize::try_from(websocket.max_message).unwrap_or(usize::MAX),
            strip_prefix: route.strip_prefix.as_deref().map(Box::from),
            metrics,
        }
    }

    /// Takes away what of a client's own request only the edge may say: an app may take it for a WebSocket's.
    ///
    /// # Errors
    /// [`EventsForged`](crate::error::Reason::EventsForged) where it says that it is one.
    pub fn clean(headers: &mut http::HeaderMap) -> Result<(), Error> {
        if forged::claims_events(headers) {
            return Err(Error::new(Reason::EventsForged));
        }
        forged::take_away(headers);
        Ok(())
    }

    /// Asks the app of `request` whether it takes the WebSocket, and answers as it does.
    ///
    /// # Errors
    /// What kept the app from an answer; [`BadEvents`](crate::error::Reason::BadEvents) where its answer makes no sense.
    pub async fn open(&self, request: Box<Request>, handshake: Handshake) -> Result<Response, Error> {
        let exchange = Rc::clone(&request.exchange);
        let target = match &self.strip_prefix {
            Some(prefix) => request.target.without_prefix(prefix)?.unwrap_or_else(|| request.target.clone()),
            None => request.target.clone(),
        };
        let signer = self.grip.as_ref().map(|grip| Rc::clone(&grip.signer));
        let asker = Asker::new(Rc::clone(&self.way), &request, target, signer, Rc::clone(&self.metrics))?;
        drop(request);
        let opening = Some(asker.open());
        let session = Session::new(Rc::clone(&self.rules), awake());
        let mut care = Care::new(Held { session, asker, opening, asking: None });
        let opened = std::future::poll_fn(|cx| match &mut care.opening {
            Some(opening) => std::pin::Pin::new(opening).poll(cx),
            None => std::task::Poll::Pending,
        })
        .await;
        care.opening = None;
        match opened {
            Ok(Opened::Taken(answer, headers)) => self.taken(care, answer, &headers, handshake),
            Ok(Opened::Refused(response)) => {
                care.forget();
                exchange.upgrade.set(None);
                Ok(response)
            }
            Ok(Opened::Odd(failure)) => {
                care.asker.complain(&failure);
                care.forget();
                Err(Error::new(failure.reason).detail(failure.detail))
            }
            Err(unanswered) => {
                exchange.is_counted.set(unanswered.is_counted);
                care.forget();
                Err(unanswered.error)
            }
        }
    }

    fn taken(
        &self,
        mut care: Care,
        mut answer: Answer,
        headers: &http::HeaderMap,
        handshake: Handshake,
    ) -> Result<Response, Error> {
        if let Err(failure) = care.asker.set_meta(std::mem::take(&mut answer.meta)) {
            care.asker.complain(&failure);
            return Err(Error::new(failure.reason).detail(failure.detail));
        }
        let prefix = answer::prefix(headers);
        if prefix.is_some() && self.grip.is_none() {
            hint(&care);
        }
        let subscriber =
            self.grip.as_ref().map(|grip| grip.local.subscriber(Format::Message, self.rules.buffer as u64));
        let holding = Holding {
            care,
            first: First { answer, prefix },
            subscriber,
            max_message: self.max_message,
            read_rate: self.rules.read_rate,
            metrics: Rc::clone(&self.metrics),
        };
        let mut response = handshake.answer(Box::new(holding));
        for (name, value) in &answer::for_client(headers) {
            response.headers_mut().append(name, value.clone());
        }
        Ok(response)
    }
}

/// The app speaks GRIP where the route does not: its clients see what is meant for the edge.
fn hint(care: &Care) {
    static THROTTLE: Throttle = Throttle::new();
    if let Some(left_out) = THROTTLE.pass() {
        tracing::warn!(
            upstream = care.asker.way().upstream(),
            left_out,
            "the app has accepted a WebSocket with `Sec-WebSocket-Extensions: grip`, which it was not offered: its messages reach \
             clients with their prefix (`m:`), and so do those for the edge. Give the route `grip: true`"
        );
    }
}

/// A WebSocket that the app has taken, and whose client is about to hear of it.
struct Holding {
    care: Care,
    first: First,
    subscriber: Option<Subscriber>,
    max_message: usize,
    /// What the client has to take.
    read_rate: config::MinRate,
    metrics: Rc<WebSocketMetrics>,
}

/// What the app has said to OPEN.
struct First {
    answer: Answer,
    prefix: Option<Bytes>,
}

impl Takeover for Holding {
    fn run(self: Box<Self>, io: ClientIo, exchange: Rc<Exchange>) -> Running {
        Box::pin(drive::drive(*self, io, exchange))
    }
}
