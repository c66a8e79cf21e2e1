//! A response body on its way out: no more of it than the client's windows take.
//!
//! Bytes are handed to `h2` only when they can leave at once, so that behind a closed window they stay where they are
//! accounted: in the spool. Who takes nothing, or too little, uses up its allowance (`limits.read_rate`).

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason as Code, SendStream};

use super::shared::Shared;
use super::stall::Stall;
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange};

/// A response body and the stream it goes to.
pub(super) struct Sending {
    stream: SendStream<Bytes>,
    body: Body,
    /// What has been taken from the body and not been sent.
    piece: Bytes,
    sent: u64,
    shared: Rc<Shared>,
    /// Made when the client's window is closed for the first time.
    stall: Option<Box<Stall>>,
    /// Where in all that is sent on the connection the last byte of ours is.
    last: u64,
}

impl Sending {
    pub(super) fn new(stream: SendStream<Bytes>, body: Body, shared: &Rc<Shared>) -> Self {
        Self { stream, body, piece: Bytes::new(), sent: 0, shared: Rc::clone(shared), stall: None, last: 0 }
    }

    /// Breaks the response off.
    pub(super) fn reset(&mut self, code: Code) {
        self.stream.send_reset(code);
    }

    /// Ready when all of it has been handed over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<Result<(), Error>> {
        loop {
            if self.piece.is_empty() {
                // Where more is sure to come, it is not taken out of the spool before it can go. Else the end may be next,
                // which needs no window.
                if let Some(left @ 1..) = self.body.remaining() {
                    match self.poll_window(usize::try_from(left).unwrap_or(usize::MAX), cx) {
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return self.poll_left(cx),
                    }
                }
                match self.body.poll_data(cx) {
                    Poll::Ready(Some(Ok(piece))) => self.piece = piece,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => return Poll::Ready(self.send(Bytes::new(), true)),
                    Poll::Pending => {
                        // Others may have what this one has no use for yet.
                        self.stream.reserve_capacity(0);
                        return self.poll_left(cx);
                    }
                }
                continue;
            }
            let count = match self.poll_window(self.piece.len(), cx) {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_left(cx),
            };
            let piece = self.piece.split_to(count);
            let is_last = self.piece.is_empty() && self.body.remaining() == Some(0);
            self.send(piece, is_last)?;
            self.sent += count as u64;
            exchange.bytes_out.set(self.sent);
            if is_last {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn send(&mut self, piece: Bytes, is_last: bool) -> Result<(), Error> {
        self.shared.take_room(piece.len());
        if let Some(stall) = &mut self.stall {
            stall.moved(piece.len() as u64);
        }
        self.stream.send_data(piece, is_last).map_err(|_| Error::new(Reason::ClientGone))
    }

    /// How many of so many bytes may go now.
    fn poll_window(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        // More cannot be used at a time, and would be kept from other streams.
        self.stream.reserve_capacity(wanted.min(super::SEND_BUFFER));
        let granted = match self.stream.capacity() {
            0 => match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(granted))) => granted,
                Poll::Ready(_) => return Poll::Ready(Err(Reason::ClientGone.into())),
                Poll::Pending => return self.poll_stall(cx).map(|()| Err(Reason::ClientStalled.into())),
            },
            granted => granted,
        };
        // A socket that takes nothing stops all streams: that is for the connection to judge.
        self.shared.poll_room(cx).map(|room| Ok(granted.min(room).min(wanted)))
    }

    /// Whether the client has left, or its body has been cut, while something else is waited for.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.piece.is_empty()
            && let Poll::Ready(error) = self.body.poll_cut(cx)
        {
            return Poll::Ready(Err(error));
        }
        self.stream.poll_reset(cx).map(|_| Err(Reason::ClientGone.into()))
    }

    /// The window is closed. Before the client can open it, it must have read what lies in the socket: of that, what came
    /// before the end of ours is its progress. What other streams send meanwhile is not.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &*self.shared;
        let stall = self.stall.get_or_insert_with(|| Box::new(Stall::new(shared.limits.read_rate)));
        if !stall.is_waiting() {
            self.last = shared.position();
        }
        let last = self.last;
        stall.poll(cx, || shared.wire.acknowledged().map(|bytes| bytes.min(last)))
    }
}
