//! One stream: call the stack, while watching for the client to leave; then write the response as its bytes come.
//!
//! Dropping the stream's handles is its end. Where the client is still sending a body that nobody wants any more, `h2`
//! resets the stream with NO_ERROR then, behind the whole answer (RFC 9113, 8.1).

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream};
use http::StatusCode;

use super::body::BodyLink;
use super::message;
use super::send::Sending;
use super::shared::{Shared, StreamGuard};
use super::takeover;
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, ExchangeGuard, Finish, Request, Response, Service};
use crate::http1::server::Entry;

/// Serves a stream to its end.
pub(super) async fn serve<E: Entry>(
    entry: E,
    shared: Rc<Shared>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    open: StreamGuard,
) {
    let (request, link) = message::request(&shared, request);
    let exchange = Rc::clone(&request.exchange);
    let guard = ExchangeGuard(Rc::clone(&exchange));
    let response = call(&*entry.current(), request, &mut respond, link.as_deref()).await;
    let finish = match response {
        Some(response) if matches!(response.body(), Body::Takeover(_)) => {
            let recv = link.as_ref().and_then(|link| link.take());
            // Boxed: what hardly a stream does is not to make room in all of them.
            Box::pin(takeover::run(&shared, &exchange, response, respond, recv)).await
        }
        Some(response) => {
            let link = link.as_deref();
            link.inspect(|link| link.stays());
            answer(&shared, &exchange, response, respond, link).await
        }
        None => gone(&shared, &exchange),
    };
    exchange.finish(finish);
    drop(guard);
    link.as_deref().inspect(|link| link.end());
    if let Some(link) = link.filter(|_| finish == Finish::Complete) {
        link.linger().await;
    }
    drop(open);
}

/// The stack's answer, or `None` when the client left before it.
async fn call<S: Service<Error = Infallible>>(
    stack: &S,
    request: Box<Request>,
    respond: &mut SendResponse<Bytes>,
    link: Option<&BodyLink>,
) -> Option<Response> {
    let mut call = pin!(stack.call(request));
    poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => {
            if let Some(link) = link {
                if link.take_continue() {
                    send_continue(respond);
                }
                link.gather(cx);
            }
            respond.poll_reset(cx).map(|_| None)
        }
    })
    .await
}

/// The body is waited for, and the client waits to be asked for it (RFC 9110, 10.1.1).
fn send_continue(respond: &mut SendResponse<Bytes>) {
    let mut interim = http::Response::new(());
    *interim.status_mut() = StatusCode::CONTINUE;
    // An error is a stream that has ended, which the next look tells as well.
    let _ = respond.send_informational(interim);
}

/// Writes the response. How that ended.
async fn answer(
    shared: &Rc<Shared>,
    exchange: &Exchange,
    response: Response,
    mut respond: SendResponse<Bytes>,
    link: Option<&BodyLink>,
) -> Finish {
    // The client is gone already, in the phase that stands there: nobody gets this answer.
    if exchange.reason.get() == Some(Reason::ClientGone) {
        exchange.finish(Finish::ClientGone);
    }
    exchange.begin_response();
    let (head, body) = message::response(response, exchange);
    let is_whole = body.remaining() == Some(0);
    let stream = match respond.send_response(head, is_whole) {
        Ok(stream) => stream,
        Err(error) => return refused(shared, exchange, &error, respond),
    };
    drop(respond);
    if is_whole {
        return Finish::Complete;
    }
    write(shared, exchange, body, stream, link).await
}

async fn write(
    shared: &Rc<Shared>,
    exchange: &Exchange,
    body: Body,
    stream: h2::SendStream<Bytes>,
    link: Option<&BodyLink>,
) -> Finish {
    let mut sending = Sending::new(stream, body, shared);
    let result = poll_fn(|cx: &mut Context<'_>| {
        let sent = sending.poll(cx, exchange);
        if let (Poll::Pending, Some(link)) = (&sent, link) {
            link.gather(cx);
        }
        sent
    })
    .await;
    let Err(error) = result else { return Finish::Complete };
    if error.reason == Reason::ClientGone {
        return gone(shared, exchange);
    }
    exchange.fail(error.reason);
    // A reset, so that what has been sent is never taken for the whole.
    sending.reset(if error.reason == Reason::ClientStalled { Code::CANCEL } else { Code::INTERNAL_ERROR });
    Finish::Cut
}

/// `h2` does not take the head: the stream has ended, or we have made a head that must not be sent.
pub(super) fn refused(
    shared: &Shared,
    exchange: &Exchange,
    error: &h2::Error,
    mut respond: SendResponse<Bytes>,
) -> Finish {
    let cause = Error::new(Reason::Internal).detail(error.to_string());
    if respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready() {
        return gone(shared, exchange);
    }
    tracing::error!("a response could not be said in HTTP/2: {cause}");
    exchange.fail(cause.reason);
    respond.send_reset(Code::INTERNAL_ERROR);
    Finish::Cut
}

/// The client has reset the stream or closed the connection; or the connection was ended, which has a reason.
pub(super) fn gone(shared: &Shared, exchange: &Exchange) -> Finish {
    match shared.ended() {
        Some(reason) => {
            exchange.fail(reason);
            Finish::Cut
        }
        None => Finish::ClientGone,
    }
}
