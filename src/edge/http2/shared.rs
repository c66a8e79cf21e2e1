//! What the streams of a connection share with each other and with whoever drives it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Limits;
use crate::edge::coalesce::Flusher;
use crate::edge::frame_guard::Guard;
use crate::error::Reason;
use crate::http::ConnectionInfo;

/// Bytes that all streams together may hand to `h2` before it has passed them on to the socket's buffer: a client that
/// reads nothing makes a connection hold this, and no more, whatever its windows say.
const ROOM: usize = 128 << 10;

/// One connection's streams.
pub(super) struct Shared {
    pub(super) info: Rc<ConnectionInfo>,
    pub(super) limits: Limits,
    pub(super) wire: Flusher,
    guard: Rc<Guard>,
    /// Streams that have left HTTP.
    websockets: Cell<u32>,
    /// Streams of which anything is left here.
    open: Cell<usize>,
    room: Cell<usize>,
    /// Streams that have bytes and no room.
    waiting: RefCell<Vec<Waker>>,
    /// Why all exchanges end before their time, where it is neither the client's leaving nor our stopping.
    ended: Cell<Option<Reason>>,
}

impl Shared {
    pub(super) fn new(info: Rc<ConnectionInfo>, limits: Limits, wire: Flusher, guard: Rc<Guard>) -> Rc<Self> {
        Rc::new(Self {
            info,
            limits,
            wire,
            guard,
            websockets: Cell::new(0),
            open: Cell::new(0),
            room: Cell::new(ROOM),
            waiting: RefCell::default(),
            ended: Cell::new(None),
        })
    }

    /// Counts a stream for as long as anything of it lives.
    pub(super) fn open(self: &Rc<Self>) -> StreamGuard {
        self.open.set(self.open.get() + 1);
        StreamGuard(Rc::clone(self))
    }

    /// A stream leaves HTTP, until what is returned is dropped.
    pub(super) fn websocket(self: &Rc<Self>, stream: u32) -> WebSocketGuard {
        self.websockets.set(self.websockets.get() + 1);
        self.guard.websocket(stream, true);
        WebSocketGuard { shared: Rc::clone(self), stream }
    }

    /// How many have.
    pub(super) fn websockets(&self) -> u32 {
        self.websockets.get()
    }

    /// Whether a stream has not ended.
    pub(super) fn is_busy(&self) -> bool {
        self.open.get() > 0
    }

    /// How many bytes may be handed to `h2`, at least one.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        match self.room.get() {
            0 => {
                let mut waiting = self.waiting.borrow_mut();
                // At most one for each stream, however often it is woken by something else.
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    /// Bytes are handed to `h2`.
    pub(super) fn take_room(&self, bytes: usize) {
        self.room.set(self.room.get().saturating_sub(bytes));
    }

    /// How many bytes will have been sent when all that is here has gone, but for the headers of frames.
    pub(super) fn position(&self) -> u64 {
        self.wire.put() + (ROOM - self.room.get()) as u64
    }

    /// `h2` has passed on all that it had.
    pub(super) fn make_room(&self) {
        self.room.set(ROOM);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// The connection ends now, for this reason.
    pub(super) fn end(&self, reason: Reason) {
        self.ended.set(Some(reason));
    }

    /// What [`Self::end`] was told.
    pub(super) fn ended(&self) -> Option<Reason> {
        self.ended.get()
    }
}

/// A stream that has left HTTP.
pub(super) struct WebSocketGuard {
    shared: Rc<Shared>,
    stream: u32,
}

impl Drop for WebSocketGuard {
    fn drop(&mut self) {
        self.shared.websockets.set(self.shared.websockets.get() - 1);
        self.shared.guard.websocket(self.stream, false);
    }
}

/// An open stream.
pub(super) struct StreamGuard(Rc<Shared>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}
