//! HTTP/2 (RFC 9113): hyper's server on a stream whose writes are coalesced, spoken to our stack.
//!
//! What hyper leaves to us: an end to connections without streams, the drain, and the conversion of messages.

mod message;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use self::message::ResponseBody;
use super::coalesce::coalesce;
use crate::error::Reason;
use crate::http::{ConnectionInfo, ExchangeGuard, Finish, Service};
use crate::http1::server::Entry;
use crate::runtime::buffers::Buffer;
use crate::runtime::{Deadline, Stream, drain};

/// What a connection is held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) streams: u32,
    /// Bytes of a header list.
    pub(super) header_size: u32,
    pub(super) header_count: usize,
    /// To the first request.
    pub(super) header_timeout: Duration,
    /// Without a stream.
    pub(super) idle_timeout: Duration,
}

/// Bytes a client may send on one stream, and on all streams of a connection, before we have taken them.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of one stream's response that wait for the client's window.
const SEND_BUFFER: usize = 64 << 10;
/// Resets that one connection may cause or provoke before it is told to calm down (rapid reset, MadeYouReset).
const RESETS: usize = 128;
const PENDING_RESETS: usize = 32;
/// From GOAWAY to the end of a connection without streams.
const GOODBYE: Duration = Duration::from_secs(5);

/// Runs a future on the thread's own runtime.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Counts a stream for as long as anything of it lives.
struct StreamGuard(Rc<Cell<usize>>);

impl StreamGuard {
    fn new(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<E>(stream: Stream, first: Buffer, info: Rc<ConnectionInfo>, limits: Limits, entry: E)
where
    E: Entry + Clone + 'static,
{
    let (io, flusher) = coalesce(stream, first);
    let open = Rc::new(Cell::new(0));
    let answered = Rc::clone(&open);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let stream = StreamGuard::new(&answered);
        answer(entry.clone(), Rc::clone(&info), limits.header_count, request, stream)
    });
    let connection = http2::Builder::new(Local)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_size)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_local_error_reset_streams(RESETS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let mut idle = Idle::new(limits);
    poll_fn(|cx| {
        loop {
            let done = connection.as_mut().poll(cx).is_ready();
            // Once after each poll: the answers of all streams that were ready go out together.
            let flushed = flusher.poll_flush(cx);
            if done || matches!(flushed, Poll::Ready(Err(_))) {
                return Poll::Ready(());
            }
            match idle.poll(open.get(), cx) {
                Next::Wait => return Poll::Pending,
                Next::Goodbye => connection.as_mut().graceful_shutdown(),
                Next::End => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// When a connection without streams ends.
struct Idle {
    deadline: Deadline,
    timeout: Duration,
    was_busy: bool,
    said_goodbye: bool,
}

enum Next {
    Wait,
    Goodbye,
    End,
}

impl Idle {
    fn new(limits: Limits) -> Self {
        let deadline = Deadline::new();
        deadline.arm(limits.header_timeout);
        Self { deadline, timeout: limits.idle_timeout, was_busy: false, said_goodbye: false }
    }

    fn poll(&mut self, open: usize, cx: &mut std::task::Context<'_>) -> Next {
        let is_busy = open > 0;
        if is_busy != self.was_busy {
            self.was_busy = is_busy;
            if is_busy {
                self.deadline.disarm();
            } else {
                self.deadline.arm(if self.said_goodbye { GOODBYE } else { self.timeout });
            }
        }
        let is_over = self.deadline.poll(cx).is_ready();
        if self.said_goodbye {
            return if is_over { Next::End } else { Next::Wait };
        }
        if is_over || drain::is_draining() {
            self.said_goodbye = true;
            if !is_busy {
                self.deadline.arm(GOODBYE);
            }
            return Next::Goodbye;
        }
        Next::Wait
    }
}

async fn answer<E: Entry>(
    entry: E,
    info: Rc<ConnectionInfo>,
    header_count: usize,
    request: http::Request<Incoming>,
    stream: StreamGuard,
) -> Result<http::Response<ResponseBody>, Infallible> {
    let request = message::request(info, header_count, request);
    let exchange = Rc::clone(&request.exchange);
    let guard = ExchangeGuard(Rc::clone(&exchange));
    let stack = entry.current();
    let response = match stack.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    // It left within its body: the answer that hyper is given is for nobody.
    if exchange.reason.get() == Some(Reason::ClientGone) {
        exchange.finish(Finish::ClientGone);
    }
    Ok(message::response(response, &exchange, guard, stream))
}
