//! A request body on its stream.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;

use super::{LINGER, LINGER_BYTES};
use crate::config::MinRate;
use crate::error::{Error, Reason};
use crate::http::Source;
use crate::runtime::{Allowance, Deadline};

/// What a body and the exchange that it belongs to tell each other.
pub(super) struct BodyLink {
    waits_for_continue: bool,
    /// The body is waited for, and its client waits to be asked for it.
    is_continue_due: Cell<bool>,
    /// A body that was dropped before its end.
    left: Cell<Option<RecvStream>>,
}

impl BodyLink {
    /// `waits_for_continue`: the client does not begin before it is told to.
    pub(super) fn new(waits_for_continue: bool) -> Self {
        Self { waits_for_continue, is_continue_due: Cell::new(false), left: Cell::new(None) }
    }

    /// Of a stream that may leave HTTP: what the client sends is for whoever takes it over.
    pub(super) fn keeping(stream: RecvStream) -> Self {
        Self { waits_for_continue: false, is_continue_due: Cell::new(false), left: Cell::new(Some(stream)) }
    }

    /// What [`Self::keeping`] has kept.
    pub(super) fn take(&self) -> Option<RecvStream> {
        self.left.take()
    }

    /// Whether a 100 is to be sent now. Said once.
    pub(super) fn take_continue(&self) -> bool {
        self.is_continue_due.replace(false)
    }

    /// Behind a whole answer in mid-upload: the client has time to look at it. A reset that comes at once makes some (curl
    /// up to 7.88) forget the answer. The window for what is still read stands behind it: who uses that has read it.
    pub(super) async fn linger(&self) {
        let Some(mut stream) = self.left.take() else { return };
        let mut left = LINGER_BYTES;
        let ended = poll_fn(|cx| {
            while let (1.., Some(Ok(data))) = (left, ready!(stream.poll_data(cx))) {
                left = left.saturating_sub(data.len());
                // An error is a stream that has ended, which the next look tells as well.
                let _ = stream.flow_control().release_capacity(data.len());
            }
            Poll::Ready(())
        });
        // However it ends, the stream is dropped now, and `h2` resets it with NO_ERROR.
        let _ = Deadline::new().bound(LINGER, ended).await;
    }
}

/// A request body. Its length, where one was said, is held to by `h2`; its speed by `limits.body_rate`.
pub(super) struct RequestBody {
    /// There until it is dropped.
    stream: Option<RecvStream>,
    left: Option<u64>,
    allowance: Allowance,
    deadline: Deadline,
    link: Rc<BodyLink>,
    is_asked_for: bool,
}

impl RequestBody {
    /// `length` is what Content-Length says.
    pub(super) fn new(stream: RecvStream, length: Option<u64>, rate: MinRate, link: Rc<BodyLink>) -> Self {
        let (allowance, deadline) = (Allowance::new(rate), Deadline::new());
        Self { stream: Some(stream), left: length, allowance, deadline, link, is_asked_for: false }
    }

    /// Gives the client its window back at once: whoever reads has room for what was read.
    fn take(&mut self, data: Bytes) -> Result<Bytes, Error> {
        self.allowance.moved(data.len() as u64, &self.deadline);
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        match self.stream.as_mut().map(|stream| stream.flow_control().release_capacity(data.len())) {
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
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        Poll::Ready(match stream.poll_data(cx) {
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
        self.link.left.set(self.stream.take().filter(|stream| !stream.is_end_stream()));
    }
}
