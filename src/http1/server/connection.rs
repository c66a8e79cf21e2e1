//! A client's connection: its stream, the bytes read ahead, and what is still to come of the current request's body.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{Limits, body};
use crate::error::Reason;
use crate::http1::{ReadAhead, head};
use crate::runtime::buffers::{self, Buffer};
use crate::runtime::deadline::{self, Spare};
use crate::runtime::{Deadline, Stream, drain};

/// Empty lines before a request that are stepped over (RFC 9112, 2.2).
const MAX_LEADING_LINES: usize = 4;
/// How much of what a client still sends is read before its connection is closed.
const LINGER_BYTES: usize = 1 << 20;
/// And for how long it may take its time.
const LINGER: Duration = Duration::from_secs(2);

/// While the edge drains: how long a request may still come that was on its way, on a connection that has had one.
/// Answered, it is told that the connection closes; closed upon, it would be lost.
const GRACE: Duration = Duration::ZERO;

/// What came of waiting for a head.
pub(super) enum Read {
    /// A whole head, with its empty line.
    Head(Bytes),
    /// Bytes that cannot become a head we take.
    Refused(Reason),
    /// The client has closed.
    Gone,
    /// The client had been silent for too long, or the edge is draining.
    Idle,
}

/// A connection, shared by its own future and the body of the request at hand: both run in the same task.
pub(super) struct Connection {
    pub(super) io: RefCell<ReadAhead<Stream>>,
    /// Belongs to whatever of the exchange is being waited for: a head, a body, the client's window, its end.
    pub(super) deadline: Deadline,
    /// What is still to be written of the 100 that the client of the request at hand waits for.
    pub(super) interim: Cell<&'static [u8]>,
    body_is_read: Cell<bool>,
    /// Whether it ends with the exchange at hand: its time was over when the request came.
    is_last: Cell<bool>,
    /// Whether somebody else needs its place: then it does not linger.
    is_evicted: Cell<bool>,
}

impl Connection {
    pub(super) fn new(stream: Stream, first: Buffer) -> Self {
        Self {
            io: RefCell::new(ReadAhead::with(stream, first)),
            deadline: Deadline::new(),
            interim: Cell::new(b""),
            body_is_read: Cell::new(true),
            is_last: Cell::new(false),
            is_evicted: Cell::new(false),
        }
    }

    /// Whether nothing is left of the current request's body.
    pub(super) fn body_is_read(&self) -> bool {
        self.body_is_read.get()
    }

    /// The rest of a 100 of which a part has been written: the answer comes behind it.
    pub(super) fn begun_interim(&self) -> &'static [u8] {
        let rest = self.interim.replace(b"");
        if rest.len() < body::CONTINUE.len() { rest } else { b"" }
    }

    pub(super) fn set_body_is_read(&self, is_read: bool) {
        self.body_is_read.set(is_read);
    }

    /// Whether it ends with the exchange at hand.
    pub(super) fn is_last(&self) -> bool {
        self.is_last.get()
    }

    /// To be called when the deadline is over, and before it is armed again.
    pub(super) fn note_eviction(&self) {
        self.is_evicted.set(self.is_evicted.get() || self.deadline.is_evicted());
    }

    /// Waits for a head. A new connection has `header_timeout` for it, every later one may be idle before. Where places
    /// are short it can be spared until then: at once between two requests, and after a while where a head has begun.
    pub(super) async fn read_head(&self, limits: &Limits, is_first: bool) -> Read {
        let (mut scanned, mut empty_lines) = (0, MAX_LEADING_LINES);
        let mut begun = false;
        let mut is_ending = false;
        let (patience, grace) = match is_first {
            true => (limits.header_timeout, deadline::NEWCOMER),
            false => (limits.idle_timeout, Duration::ZERO),
        };
        self.deadline.arm_spare(patience, Spare::Idle, grace);
        let read = poll_fn(|cx| {
            let mut io = self.io.borrow_mut();
            loop {
                if let Some(read) = take_head(&mut io, &mut scanned, &mut empty_lines, limits.head.size) {
                    return Poll::Ready(read);
                }
                if !begun && !io.unread().is_empty() {
                    begun = true;
                    self.deadline.arm_spare(limits.header_timeout, Spare::Idle, deadline::UNFINISHED);
                }
                match io.poll_fill(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Read::Gone),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending => {}
                }
                if !is_ending && drain::is_draining() {
                    is_ending = true;
                    self.deadline.arm(if is_first || begun { drain::FIRST_REQUEST } else { GRACE });
                }
                ready!(self.deadline.poll(cx));
                if begun && self.deadline.is_evicted() && !self.is_last.get() && !io.stream.socket().is_quiet(true) {
                    // The rest may have arrived, as below.
                    self.is_last.set(true);
                    self.deadline.arm_spare(limits.header_timeout, Spare::Idle, Duration::ZERO);
                    continue;
                }
                if begun {
                    self.note_eviction();
                    return Poll::Ready(Read::Refused(Reason::HeaderTimeout));
                }
                // The event queue may not know yet of a request that has arrived: that one is still served.
                if self.is_last.replace(true) || io.stream.socket().is_quiet(true) {
                    return Poll::Ready(Read::Idle);
                }
                self.deadline.arm(limits.header_timeout);
            }
        })
        .await;
        self.deadline.disarm();
        read
    }

    /// Says that we close, and drops what may come.
    pub(super) async fn shutdown(&self) {
        let shut = poll_fn(|cx| Pin::new(&mut self.io.borrow_mut().stream).poll_shutdown(cx));
        // However it ends, the connection is dropped now.
        let _ = self.deadline.bound(LINGER, shut).await;
    }

    /// Whether all that has come belongs to requests that are over.
    pub(super) fn is_spent(&self) -> bool {
        let io = self.io.borrow();
        self.body_is_read() && io.unread().is_empty() && io.stream.socket().is_quiet(false)
    }

    /// Closes after the last response to a client that sends nothing more. TLS says so first; TCP says it by the close.
    pub(super) async fn close(&self) {
        if matches!(self.io.borrow().stream, Stream::Tls(_)) {
            self.shutdown().await;
        }
    }

    /// Ready when the client has closed. What it pipelines meanwhile is kept for later, up to a buffer full.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut io = self.io.borrow_mut();
        while io.unread().len() < buffers::SIZE {
            match ready!(io.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Closes after the last response: our side first, then what the client may still be sending is read, so that the
    /// system does not answer it with a reset that takes the response with it.
    ///
    /// What is on its way in a fast upload is more than is worth reading. The rest stays unread, and the client, whose
    /// window is closed now, has time to look at what came. Where its place is needed, it has not.
    pub(super) async fn end(&self) {
        let mut left = if self.is_evicted.get() { 0 } else { LINGER_BYTES };
        let mut is_shut = false;
        let ended = poll_fn(|cx| {
            let mut io = self.io.borrow_mut();
            // Once: each shutdown wakes whoever waits for the socket.
            if !is_shut {
                ready!(Pin::new(&mut io.stream).poll_shutdown(cx))?;
                is_shut = true;
            }
            let unread = io.unread().len();
            io.consume(unread);
            while left > 0 {
                let read = ready!(io.poll_fill(cx))?;
                if read == 0 {
                    return Poll::Ready(Ok(()));
                }
                left = left.saturating_sub(read);
                io.consume(read);
            }
            if self.is_evicted.get() {
                return Poll::Ready(Ok(()));
            }
            io.stream.socket().poll_closed(cx).map(io::Result::Ok)
        });
        // However it ends, the connection is dropped now.
        let _ = self.deadline.bound(LINGER, ended).await;
    }
}

/// The next head, when all of it is there; a refusal as soon as it cannot be one.
fn take_head(io: &mut ReadAhead<Stream>, scanned: &mut usize, empty_lines: &mut usize, limit: usize) -> Option<Read> {
    if *scanned == 0 {
        skip_empty_lines(io, empty_lines);
    }
    let unread = io.unread();
    let first = *unread.first()?;
    if !head::is_tchar(first) {
        // A lone CR may be the first half of an empty line.
        return (unread != b"\r").then_some(Read::Refused(Reason::BadRequestLine));
    }
    match head::find_end(unread, scanned) {
        Some(length) if length <= limit => {
            let head = head::copy(&unread[..length]);
            io.consume(length);
            Some(Read::Head(head))
        }
        None if unread.len() < limit => None,
        _ => {
            let line_fits = memchr::memchr(b'\n', unread).is_some_and(|end| end < limit);
            Some(Read::Refused(if line_fits { Reason::HeadersTooLarge } else { Reason::UriTooLong }))
        }
    }
}

/// Steps over empty lines, as many as are left of those that may be.
fn skip_empty_lines(io: &mut ReadAhead<Stream>, left: &mut usize) {
    while *left > 0 && io.unread().starts_with(b"\r\n") {
        io.consume(2);
        *left -= 1;
    }
}
