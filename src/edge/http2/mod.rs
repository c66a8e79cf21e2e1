//! HTTP/2 (RFC 9113): hyper's server on a stream whose writes are coalesced, spoken to our stack.
//!
//! What hyper leaves to us: an end to connections without streams, the drain, and the conversion of messages.

mod message;

use std::cell::{Cell, RefCell};
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
use tokio::time::Instant;

use self::message::ResponseBody;
use super::coalesce::coalesce;
use crate::http::{ConnectionInfo, ExchangeGuard, Service};
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
/// How long a client may send nothing of a body, or take nothing of a response, that is waited for.
const STALL: Duration = Duration::from_secs(60);

/// Runs a future on the thread's own runtime.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// The streams of a connection that have not ended.
#[derive(Default)]
struct Streams(RefCell<Vec<Rc<Cell<Option<Instant>>>>>);

impl Streams {
    fn are_open(&self) -> bool {
        !self.0.borrow().is_empty()
    }

    /// Whether a client has taken nothing of a stream's response, which waits for it, for all of [`STALL`].
    fn has_stalled(&self) -> bool {
        self.0.borrow().iter().any(|gave_data| gave_data.get().is_some_and(|since| since.elapsed() >= STALL))
    }
}

/// Counts a stream for as long as anything of it lives.
struct StreamGuard {
    streams: Rc<Streams>,
    /// Since when the codec has had bytes of the response that the client's window does not take.
    gave_data: Rc<Cell<Option<Instant>>>,
}

impl StreamGuard {
    fn new(streams: &Rc<Streams>) -> Self {
        let gave_data = Rc::new(Cell::new(None));
        streams.0.borrow_mut().push(Rc::clone(&gave_data));
        Self { streams: Rc::clone(streams), gave_data }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.streams.0.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.gave_data));
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<E>(stream: Stream, first: Buffer, info: Rc<ConnectionInfo>, limits: Limits, entry: E)
where
    E: Entry + Clone + 'static,
{
    let (io, flusher) = coalesce(stream, first);
    let streams = Rc::new(Streams::default());
    let opened = Rc::clone(&streams);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let stream = StreamGuard::new(&opened);
        answer(entry.clone(), Rc::clone(&info), (limits.header_count, limits.header_size as usize), request, stream)
    });
    let connection = http2::Builder::new(Local)
        .max_concurrent_streams(limits.streams)
        // More than the limit, so that what exceeds it reaches the stack and is refused there, with its reason.
        .max_header_list_size(limits.header_size.saturating_mul(2))
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
            match idle.poll(&streams, cx) {
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

    fn poll(&mut self, streams: &Streams, cx: &mut std::task::Context<'_>) -> Next {
        let is_busy = streams.are_open();
        if is_busy != self.was_busy {
            self.was_busy = is_busy;
            self.deadline.arm(match (is_busy, self.said_goodbye) {
                (true, _) => STALL,
                (false, true) => GOODBYE,
                (false, false) => self.timeout,
            });
        }
        let mut is_over = self.deadline.poll(cx).is_ready();
        if is_over && is_busy {
            if streams.has_stalled() {
                return Next::End;
            }
            self.deadline.arm(STALL);
            is_over = self.deadline.poll(cx).is_ready();
        }
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
    head: (usize, usize),
    request: http::Request<Incoming>,
    stream: StreamGuard,
) -> Result<http::Response<ResponseBody>, Infallible> {
    let request = message::request(info, head, request);
    let exchange = Rc::clone(&request.exchange);
    let guard = ExchangeGuard(Rc::clone(&exchange));
    let stack = entry.current();
    let response = match stack.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    Ok(message::response(response, &exchange, guard, stream))
}
