//! One send for all that HTTP/2 writes within one poll of its connection.
//!
//! `h2` flushes after nearly every DATA frame: a system call and a TLS record for each answer. Here `poll_write` keeps
//! the bytes and `poll_flush` does nothing; the future that drives the connection calls [`Flusher::poll_flush`] once
//! after each poll, when the answers of all streams that were ready lie side by side. Nothing is held longer than that.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http1::ReadAhead;
use crate::runtime::Stream;
use crate::runtime::buffers::Buffer;

/// Bytes kept before writing waits for the socket.
const HIGH: usize = 48 << 10;

struct Inner {
    io: ReadAhead<Stream>,
    /// Held only while there is something in it.
    out: Option<Buffer>,
    sent: usize,
}

impl Inner {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(out) = &self.out {
            let written = ready!(Pin::new(&mut self.io.stream).poll_write(cx, &out[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
            if self.sent == out.len() {
                self.out = None;
                self.sent = 0;
            }
        }
        Pin::new(&mut self.io.stream).poll_flush(cx)
    }
}

/// The stream as the HTTP/2 codec sees it.
pub(super) struct Coalescing(Rc<RefCell<Inner>>);

/// The other end of the same: what really writes.
pub(super) struct Flusher(Rc<RefCell<Inner>>);

/// Wraps a stream; `first` was read from it before.
pub(super) fn coalesce(stream: Stream, first: Buffer) -> (Coalescing, Flusher) {
    let inner = Rc::new(RefCell::new(Inner { io: ReadAhead::with(stream, first), out: None, sent: 0 }));
    (Coalescing(Rc::clone(&inner)), Flusher(inner))
}

impl Flusher {
    /// Writes what has been kept.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }
}

impl AsyncRead for Coalescing {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = &mut self.0.borrow_mut().io;
        let unread = io.unread();
        if unread.is_empty() {
            return Pin::new(&mut io.stream).poll_read(cx, buf);
        }
        let count = unread.len().min(buf.remaining());
        buf.put_slice(&unread[..count]);
        io.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Coalescing {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let kept = inner.out.as_ref().map_or(0, |out| out.len() - inner.sent);
        if kept >= HIGH {
            ready!(inner.poll_flush(cx))?;
        }
        let out = inner.out.get_or_insert_with(Buffer::take);
        // What has gone goes out of the buffer, too: a socket that never takes all would let it grow for ever.
        out.drain(..std::mem::take(&mut inner.sent));
        out.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.io.stream).poll_shutdown(cx)
    }
}
