//! A request body on its stream.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;

use super::incoming::Incoming;
use super::{LINGER, LINGER_BYTES};
use crate::config::MinRate;
use crate::error::{Error, Reason};
use crate::http::Source;
use crate::runtime::{Allowance, Deadline};

/// What a body and the exchange that it belongs to share.
pub(super) struct BodyLink {
    waits_for_continue: bool,
    /// Of a stream that may leave HTTP: what the client sends is for whoever takes it over, and nobody else reads it.
    is_kept: bool,
    /// The body is waited for, and its client waits to be asked for it.
    is_continue_due: Cell<bool>,
    /// There until all of it was read, or somebody else has taken it.
    incoming: RefCell<Option<Incoming>>,
    /// Whether nobody will read what is left.
    is_left: Cell<bool>,
    /// Bytes of it that were dropped then, and not given back to the client's windows.
    discarded: Cell<usize>,
}

impl BodyLink {
    /// `waits_for_continue`: the client does not begin before it is told to.
    pub(super) fn new(stream: RecvStream, waits_for_continue: bool) -> Self {
        Self::with(stream, waits_for_continue, false)
    }

    /// Of a stream that may leave HTTP.
    pub(super) fn keeping(stream: RecvStream) -> Self {
        Self::with(stream, false, true)
    }

    fn with(stream: RecvStream, waits_for_continue: bool, is_kept: bool) -> Self {
        Self {
            waits_for_continue,
            is_kept,
            is_continue_due: Cell::new(false),
            incoming: RefCell::new(Some(Incoming::new(stream))),
            is_left: Cell::new(false),
            discarded: Cell::new(0),
        }
    }

    /// The stream, where it leaves HTTP, for whoever takes it over, and what has come on it.
    pub(super) fn take(&self) -> Option<(RecvStream, Bytes)> {
        self.incoming.take().map(Incoming::into_parts)
    }

    /// The stream stays in HTTP.
    pub(super) fn stays(&self) {
        self.is_left.set(self.is_left.get() || self.is_kept);
    }

    /// Whether a 100 is to be sent now. Said once.
    pub(super) fn take_continue(&self) -> bool {
        self.is_continue_due.replace(false)
    }

    /// To be called by whoever drives the exchange when it waits: takes in what has come, and drops it where nobody will read
    /// it. No more comes than the client's window lets it send.
    pub(super) fn gather(&self, cx: &mut Context<'_>) {
        let mut incoming = self.incoming.borrow_mut();
        let Some(incoming) = &mut *incoming else { return };
        if self.is_left.get() {
            self.discarded.set(self.discarded.get() + incoming.discard(cx));
        } else {
            incoming.gather(cx);
        }
    }

    /// The exchange is over. Who reads all the same is left alone with it.
    pub(super) fn end(&self) {
        if let Some(incoming) = &mut *self.incoming.borrow_mut() {
            incoming.wake_reader();
        }
    }

    /// Behind a whole answer in mid-upload: the client has time to look at it. A reset that comes at once makes some (curl
    /// up to 7.88) forget the answer. The window for what is still read stands behind it: who uses that has read it.
    pub(super) async fn linger(&self) {
        if !self.is_left.get() {
            return;
        }
        let Some(mut incoming) = self.incoming.take() else { return };
        let discarded = self.discarded.take();
        // An error is a stream that has ended, which the next look tells as well.
        let _ = incoming.release(discarded);
        let mut left = LINGER_BYTES.saturating_sub(discarded);
        let ended = poll_fn(|cx| {
            while let (1.., Some(Ok(data))) = (left, ready!(incoming.poll_data(cx))) {
                left = left.saturating_sub(data.len());
                let _ = incoming.release(data.len());
            }
            Poll::Ready(())
        });
        // However it ends, the stream is dropped now, and `h2` resets it with NO_ERROR.
        let _ = Deadline::new().bound(LINGER, ended).await;
    }
}

/// A request body. Its length, where one was said, is held to by `h2`; its speed by `limits.body_rate`.
pub(super) struct RequestBody {
    left: Option<u64>,
    allowance: Allowance,
    deadline: Deadline,
    link: Rc<BodyLink>,
    is_asked_for: bool,
}

impl RequestBody {
    /// `length` is what Content-Length says.
    pub(super) fn new(length: Option<u64>, rate: MinRate, link: Rc<BodyLink>) -> Self {
        let (allowance, deadline) = (Allowance::new(rate), Deadline::new());
        Self { left: length, allowance, deadline, link, is_asked_for: false }
    }

    /// Gives the client its window back at once: whoever reads has room for what was read.
    fn take(&mut self, data: Bytes) -> Result<Bytes, Error> {
        self.allowance.moved(data.len() as u64, &self.deadline);
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        let released = self.link.incoming.borrow_mut().as_mut().map(|incoming| incoming.release(data.len()));
        match released {
            Some(Err(error)) => Err(self.refusal(&error)),
            _ => Ok(data),
        }
    }

    /// Why a body has no end: the client has gone, unless `h2` itself has broken it off.
    fn refusal(&self, error: &h2::Error) -> Error {
        let is_ours = !error.is_remote() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
        let reason = if is_ours && self.left.is_some() { Reason::BodyLengthMismatch } else { Reason::ClientGone };
        Error::new(reason).detail(error.to_string())
    }
}

impl Source for RequestBody {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let polled = match &mut *self.link.incoming.borrow_mut() {
            Some(incoming) => incoming.poll_data(cx),
            // Whose exchange is over: it must not be taken for a whole one.
            None => return Poll::Ready(Some(Err(Reason::ClientGone.into()))),
        };
        Poll::Ready(match polled {
            Poll::Ready(Some(Ok(data))) => Some(self.take(data)),
            Poll::Ready(Some(Err(error))) => Some(Err(self.refusal(&error))),
            // Trailers end here.
            Poll::Ready(None) => None,
            Poll::Pending => {
                if self.link.waits_for_continue && !std::mem::replace(&mut self.is_asked_for, true) {
                    self.link.is_continue_due.set(true);
                }
                let waited = self.allowance.poll_wait(&self.deadline, cx);
                return waited.map(|()| Some(Err(Error::new(Reason::BodyTimeout))));
            }
        })
    }

    fn remaining(&self) -> Option<u64> {
        self.left
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.link.is_left.set(true);
        let mut incoming = self.link.incoming.borrow_mut();
        if incoming.as_ref().is_some_and(Incoming::is_read) {
            *incoming = None;
        }
    }
}
