//! Ends an HTTP/2 connection on which frames are a weapon: where the limits of `h2` do not reach.
//!
//! An IO wrapper between `h2` and the socket that looks at frame headers as they pass, in both directions, and copies
//! nothing. Floods (rapid reset, MadeYouReset, CONTINUATION, SETTINGS, PING and their kin: [`budgets`]) are found before
//! `h2` sees them; from then on it is given nothing more, and whoever drives the connection says goodbye with a GOAWAY.
//! What `h2` itself refuses passes here as RST_STREAM or GOAWAY and is counted: no refusal is invisible.
//!
//! Counted in `hostler_http2_refused_total{scope,kind}`; the log has a line a second of each kind at most.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub mod budgets;
pub mod frames;

use self::budgets::Budgets;
use crate::http::ConnectionInfo;
use crate::observe::metrics::{Http2Refusal, Metrics};
use crate::observe::throttle::Throttle;
use crate::runtime::deadline;

/// Bytes read in one turn of a connection. What they bring about is written before more is read, and counted with it; and
/// no connection keeps its thread from the others for longer than that.
const TURN: usize = 16 << 10;

/// What is known of a connection's frames, for whoever drives it.
pub(super) struct Guard {
    budgets: RefCell<Budgets>,
    /// Bytes read in this turn.
    read: Cell<usize>,
    verdict: Cell<Option<Http2Refusal>>,
    info: Rc<ConnectionInfo>,
    metrics: Arc<Metrics>,
}

/// The stream as the HTTP/2 codec sees it.
pub(super) struct Guarded<T> {
    io: T,
    guard: Rc<Guard>,
}

impl Guard {
    /// Watches a server's end of a connection, from the preface on. `header_list` is the codec's limit of a head;
    /// `is_proxy`: a peer that is trusted speaks for many clients.
    pub(super) fn new(header_list: u32, is_proxy: bool, info: Rc<ConnectionInfo>, metrics: Arc<Metrics>) -> Rc<Self> {
        let budgets = Budgets::new(header_list, deadline::awake());
        let budgets = RefCell::new(if is_proxy { budgets.of_many() } else { budgets });
        Rc::new(Self { budgets, read: Cell::new(0), verdict: Cell::new(None), info, metrics })
    }

    /// Puts itself between the codec and `io`.
    pub(super) fn guard<T>(self: &Rc<Self>, io: T) -> Guarded<T> {
        Guarded { io, guard: Rc::clone(self) }
    }

    /// The connection is polled.
    pub(super) fn begin_turn(&self) {
        self.read.set(0);
    }

    /// Why the connection is to end. Nothing more is read from then on.
    pub(super) fn verdict(&self) -> Option<Http2Refusal> {
        self.verdict.get()
    }

    /// The number of the head that has begun and is not complete.
    pub(super) fn open_head(&self) -> Option<u64> {
        self.budgets.borrow().open_head()
    }

    /// A stream is a WebSocket from now on, or is not any more.
    pub(super) fn websocket(&self, stream: u32, is_one: bool) {
        self.budgets.borrow_mut().websocket(stream, is_one);
    }

    /// Counts a refusal, and writes a line unless there was one just now.
    pub(super) fn tell(&self, refusal: Http2Refusal) {
        static THROTTLES: [Throttle; Http2Refusal::ALL.len()] = [const { Throttle::new() }; Http2Refusal::ALL.len()];
        self.metrics.http2_refused(refusal);
        let left_out = THROTTLES.get(refusal as usize).and_then(Throttle::pass);
        let Some(left_out) = left_out else { return };
        let (scope, kind) = (refusal.scope(), refusal.kind());
        let client = self.info.peer.map(|peer| peer.ip().to_canonical().to_string()).unwrap_or_default();
        tracing::info!(client, listener = %self.info.listener, kind, left_out, "an HTTP/2 {scope} is refused");
    }

    fn end(&self, refusal: Http2Refusal) {
        if self.verdict.get().is_none() {
            self.verdict.set(Some(refusal));
            self.tell(refusal);
        }
    }

    fn received(&self, bytes: &[u8]) {
        self.read.set(self.read.get() + bytes.len());
        let mut budgets = self.budgets.borrow_mut();
        budgets.refill(deadline::awake());
        if let Err(refusal) = budgets.received(bytes) {
            self.end(refusal);
        }
    }

    fn sent(&self, bytes: &[u8]) {
        // Our own goodbye after a verdict has been told of already.
        let has_ended = self.verdict.get().is_some();
        let tell = |refusal: Http2Refusal| {
            if !has_ended {
                self.tell(refusal);
            }
        };
        if let Err(refusal) = self.budgets.borrow_mut().sent(bytes, tell) {
            self.end(refusal);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Who drives the connection looks at the verdict after each poll: nobody waits for a wake-up.
        if self.guard.verdict().is_some() {
            return Poll::Pending;
        }
        if self.guard.read.get() >= TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.guard.received(&buf.filled()[before..]);
        if self.guard.verdict().is_some() {
            buf.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.guard.sent(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
