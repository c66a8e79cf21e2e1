//! The server's side of HTTP/1.1: one future per connection, one exchange after the other.
//!
//! 1. read a head ([`connection::Connection::read_head`]), strictly and within its limits;
//! 2. call the stack, while watching for the client to leave;
//! 3. write the response as its bytes come ([`respond`]);
//! 4. hand the connection over where the answer says so ([`takeover`]), or
//! 5. go on with what has been pipelined, or end: at once, or after a lingering read where the client may still be
//!    sending, so that it gets to see the answer (RFC 9112, 9.6).

mod body;
mod connection;
mod respond;
mod taken;
mod takeover;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, header};

use self::body::RequestBody;
use self::connection::{Connection, Read};
use super::head::{Framing, HeadLimits};
use super::request::{self, Refusal, RequestHead};
use crate::config::MinRate;
use crate::error::{Error, Reason};
use crate::http::{Body, ConnectionInfo, Exchange, ExchangeGuard, Finish, Protocol, Request, Service, Target, fields};
use crate::runtime::buffers::Buffer;
use crate::runtime::{Stream, drain};

/// What a connection is held to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The size of a head.
    pub head: HeadLimits,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// From one exchange to the next.
    pub idle_timeout: Duration,
    /// What a client keeps up when it sends a body.
    pub body_rate: MinRate,
    /// What it keeps up when it takes a response.
    pub read_rate: MinRate,
}

/// Where each request of a connection enters: the stack of the configuration in force at that moment.
pub trait Entry {
    /// The stack.
    type Stack: Service<Error = Infallible>;

    /// The stack in force now.
    fn current(&self) -> Rc<Self::Stack>;
}

/// Serves a connection to its end. `first` holds the bytes that were read from it before.
pub async fn serve<E: Entry>(stream: Stream, first: Buffer, info: Rc<ConnectionInfo>, limits: Limits, entry: &E) {
    let connection = Rc::new(Connection::new(stream, first));
    let mut is_first = true;
    loop {
        let (request, terms) = match connection.read_head(&limits, is_first).await {
            Read::Head(bytes) => match request::parse(&bytes, &limits.head) {
                Ok(head) => accept(&connection, &info, head, limits.body_rate),
                Err(refusal) => refuse(&info, refusal),
            },
            Read::Refused(reason) => refuse(&info, Refusal { reason, method: None, target: Bytes::new() }),
            Read::Gone => return,
            Read::Idle => return connection.shutdown().await,
        };
        if !exchange(&connection, &limits, entry, request, terms).await {
            return;
        }
        is_first = false;
    }
}

/// What of the request decides how its response is written.
#[derive(Debug, Clone, Copy)]
struct Terms {
    protocol: Protocol,
    is_head: bool,
    keep_alive: bool,
    /// The client has said that this is its last request.
    is_last: bool,
}

/// One exchange. Whether the connection lives on.
async fn exchange<E: Entry>(
    connection: &Rc<Connection>,
    limits: &Limits,
    entry: &E,
    request: Box<Request>,
    terms: Terms,
) -> bool {
    let exchange = Rc::clone(&request.exchange);
    let guard = ExchangeGuard(Rc::clone(&exchange));
    let stack = entry.current();
    let Some(response) = call(connection, &*stack, request).await else { return false };
    drop(stack);
    if exchange.reason.get() == Some(Reason::ClientGone) {
        return false;
    }
    if matches!(response.body(), Body::Takeover(_)) {
        // Boxed: what hardly a connection does is not to make room in all of them.
        Box::pin(takeover::run(connection, limits, &exchange, response, terms)).await;
        return false;
    }
    let keep_alive = terms.keep_alive && connection.body_is_read() && !connection.is_last() && !drain::is_draining();
    let finish = respond::write(connection, limits, &exchange, response, Terms { keep_alive, ..terms }).await;
    exchange.finish(finish.how);
    drop(guard);
    match finish.how {
        Finish::Complete if finish.keep_alive => true,
        Finish::Complete => {
            // Nobody sends any more who has said so and sent all: there is nothing that a close could take the answer with. A
            // refusal is not relied on to have been asked for so.
            let is_served = exchange.reason.get().is_none();
            if is_served && terms.is_last && connection.is_spent() && !drain::is_draining() {
                connection.close().await;
            } else {
                connection.end().await;
            }
            false
        }
        Finish::Cut | Finish::ClientGone => false,
    }
}

/// The stack's answer, or `None` when the client left before it.
async fn call<S: Service<Error = Infallible>>(
    connection: &Connection,
    stack: &S,
    request: Box<Request>,
) -> Option<crate::http::Response> {
    // Boxed: an idle connection does not hold the room that a request needs on its way through all layers.
    let mut call = Box::pin(stack.call(request));
    poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
        Poll::Ready(Err(never)) => match never {},
        // While the body is being read, its reader sees the client leave.
        Poll::Pending if connection.body_is_read() => connection.poll_gone(cx).map(|()| None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

fn accept(
    connection: &Rc<Connection>,
    info: &Rc<ConnectionInfo>,
    head: RequestHead,
    rate: MinRate,
) -> (Box<Request>, Terms) {
    let terms = Terms {
        protocol: head.protocol,
        is_head: head.method == Method::HEAD,
        keep_alive: head.keep_alive,
        is_last: !head.keep_alive,
    };
    let exchange = Rc::new(Exchange::new(
        Rc::clone(info),
        head.protocol,
        head.method.clone(),
        head.target.bytes(),
        head.host,
        fields::first(&head.headers, &header::USER_AGENT).cloned(),
    ));
    if let Some(upgrade) = head.upgrade {
        exchange.asks_for(upgrade, &head.headers);
    }
    let body = match head.framing {
        Framing::None | Framing::Length(0) | Framing::Close => Body::Empty,
        framing => {
            Body::Stream(Box::new(RequestBody::begin(Rc::clone(connection), framing, head.expects_continue, rate)))
        }
    };
    let request =
        Request { method: head.method, target: head.target, headers: head.headers, body, exchange, refused: None };
    (Box::new(request), terms)
}

/// A request that is not read any further goes through the stack like any other, with the error it is to be answered with.
fn refuse(info: &Rc<ConnectionInfo>, refusal: Refusal) -> (Box<Request>, Terms) {
    let method = refusal.method.unwrap_or_else(|| Method::from_bytes(b"-").unwrap_or_default());
    let is_head = method == Method::HEAD;
    let terms = Terms { protocol: Protocol::Http11, is_head, keep_alive: false, is_last: false };
    let exchange =
        Rc::new(Exchange::new(Rc::clone(info), Protocol::Http11, method.clone(), refusal.target, None, None));
    let request = Request {
        method,
        target: Target::from_static("/"),
        headers: HeaderMap::new(),
        body: Body::Empty,
        exchange,
        refused: Some(Error::new(refusal.reason)),
    };
    (Box::new(request), terms)
}
