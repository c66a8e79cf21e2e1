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
    /// Bytes that the stream has taken, in all.
    taken: u64,
    /// Whether writing has had to wait for the socket.
    is_full: bool,
    /// Whether we have said that we close.
    is_shut: bool,
}

impl Inner {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(out) = &self.out {
            let written = ready!(Pin::new(&mut self.io.stream).poll_write(cx, &out[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
            self.taken += written as u64;
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
#[derive(Clone)]
pub(super) struct Flusher(Rc<RefCell<Inner>>);

/// Wraps a stream; `first` was read from it before.
pub(super) fn coalesce(stream: Stream, first: Buffer) -> (Coalescing, Flusher) {
    let inner = Rc::new(RefCell::new(Inner {
        io: ReadAhead::with(stream, first),
        out: None,
        sent: 0,
        taken: 0,
        is_full: false,
        is_shut: false,
    }));
    (Coalescing(Rc::clone(&inner)), Flusher(inner))
}

impl Flusher {
    /// Writes what has been kept.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }

    /// Bytes that the stream has taken, in all.
    pub(super) fn taken(&self) -> u64 {
        self.0.borrow().taken
    }

    /// The same, with what is still kept here.
    pub(super) fn put(&self) -> u64 {
        let inner = self.0.borrow();
        inner.taken + inner.out.as_ref().map_or(0, |out| out.len() - inner.sent) as u64
    }

    /// How many of them the other end has acknowledged, where the kernel tells; those of records count as the bytes in
    /// them.
    pub(super) fn acknowledged(&self) -> Option<u64> {
        let inner = self.0.borrow();
        let unread = inner.io.stream.socket().unacknowledged()?;
        Some(inner.taken.saturating_sub(u64::from(unread)))
    }

    /// Whether the codec has bytes that were not taken from it, since this was asked last.
    pub(super) fn was_full(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().is_full)
    }

    /// Whether nothing has come that was not read.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.borrow_mut().io.stream.is_quiet(true)
    }

    /// Makes the end of the connection a reset, so that the kernel keeps nothing of what the other end does not take.
    pub(super) fn reset_on_close(&self) {
        self.0.borrow().io.stream.socket().reset_on_close();
    }

    /// Says that we close, and waits until the other end has closed as well. At most `left` of what may still come is
    /// read: a socket that is closed with something unread takes our last words with it.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>, left: &mut usize) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        // Once: each shutdown wakes whoever waits for the socket.
        if !inner.is_shut {
            ready!(Pin::new(&mut inner.io.stream).poll_shutdown(cx))?;
            inner.is_shut = true;
        }
        let unread = inner.io.unread().len();
        inner.io.consume(unread);
        while *left > 0 {
            let read = ready!(inner.io.poll_fill(cx))?;
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            *left = left.saturating_sub(read);
            inner.io.consume(read);
        }
        inner.io.stream.socket().poll_closed(cx).map(Ok)
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
            inner.is_full = true;
            ready!(inner.poll_flush(cx))?;
            inner.is_full = false;
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::net::UnixStream;

    use super::*;
    use crate::runtime::Socket;

    #[tokio::test]
    async fn a_socket_that_never_takes_all_does_not_let_the_buffer_grow() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&ours).set_send_buffer_size(4 << 10).unwrap();
        let (mut codec, flusher) = coalesce(Stream::Plain(Socket::Unix(ours)), Buffer::take());
        let mut cx = Context::from_waker(Waker::noop());
        let (mut written, mut received) = (Vec::new(), Vec::new());
        let mut piece = [0; 1 << 10];
        for number in 0..2000_u32 {
            let bytes = number.to_le_bytes().repeat(1 << 10);
            if let Poll::Ready(Ok(count)) = Pin::new(&mut codec).poll_write(&mut cx, &bytes) {
                written.extend_from_slice(&bytes[..count]);
            }
            let _ = flusher.poll_flush(&mut cx);
            if let Ok(read) = theirs.try_read(&mut piece) {
                received.extend_from_slice(&piece[..read]);
            }
            let held = flusher.0.borrow().out.as_ref().map_or(0, |out| out.len());
            assert!(held < 2 * HIGH, "{held} bytes after {number} writes");
            tokio::task::yield_now().await;
        }
        assert!(received.len() > 100 << 10, "{} bytes came through", received.len());
        assert_eq!(received[..], written[..received.len()], "in order");
    }
}
