//! A stream and the bytes read ahead of it.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::runtime::buffers::{self, Buffer};

/// A stream and the bytes read ahead of it. Holds a buffer only while there are unread bytes.
#[derive(Debug)]
pub struct ReadAhead<S> {
    /// The stream; writing goes past the buffer.
    pub stream: S,
    buffer: Option<Buffer>,
    start: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReadAhead<S> {
    /// Nothing read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: None, start: 0 }
    }

    /// `first` was read from the stream before.
    pub fn with(stream: S, first: Buffer) -> Self {
        Self { stream, buffer: (!first.is_empty()).then_some(first), start: 0 }
    }

    /// Bytes read and not yet used.
    pub fn unread(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.start..])
    }

    /// Steps over bytes; gives the buffer back once it is empty.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.unread().is_empty() {
            self.buffer = None;
            self.start = 0;
        }
    }

    /// Reads more bytes behind the unread ones. Zero at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = self.buffer.take().unwrap_or_else(Buffer::take);
        if buffer.len() == buffer.capacity() {
            // Full: first close the gap, then grow. The limits of what is being read bound it.
            buffer.drain(..self.start);
            self.start = 0;
            if buffer.len() == buffer.capacity() {
                buffer.reserve(buffers::SIZE);
            }
        }
        let read = self.poll_read(cx, &mut *buffer);
        if buffer.len() > self.start {
            self.buffer = Some(buffer);
        } else {
            self.start = 0;
        }
        read
    }

    /// Reads past the buffer, as much as `into` has room for.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut impl BufMut) -> Poll<io::Result<usize>> {
        // The future keeps no state between two polls.
        pin!(self.stream.read_buf(into)).poll(cx)
    }

    /// Writes all of `bytes`, advancing over what has gone.
    pub fn poll_write_all(&mut self, cx: &mut Context<'_>, bytes: &mut impl Buf) -> Poll<io::Result<()>> {
        while bytes.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes.chunk()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}
