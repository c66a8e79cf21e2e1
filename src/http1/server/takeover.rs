//! A connection that leaves HTTP: the 101, and then whoever has taken it over.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::{Limits, Terms, respond};
use crate::http::{Body, ClientStream, Exchange, Finish, Response};

/// Writes the head and drives what takes the connection over to its end. The connection ends with it.
pub(super) async fn run(
    connection: &Rc<Connection>,
    limits: &Limits,
    exchange: &Rc<Exchange>,
    mut response: Response,
    terms: Terms,
) {
    let Body::Takeover(takeover) = std::mem::take(response.body_mut()) else { return };
    let written = respond::write(connection, limits, exchange, response, Terms { keep_alive: true, ..terms }).await;
    if written.how != Finish::Complete {
        exchange.finish(written.how);
        return;
    }
    connection.io.borrow().stream.socket().keep_alive();
    let is_shut = Rc::new(Cell::new(false));
    let io = Io { connection: Rc::clone(connection), exchange: Rc::clone(exchange), is_shut: Rc::clone(&is_shut) };
    let result = takeover.run(Box::new(io), Rc::clone(exchange)).await;
    exchange.finish(exchange.end_of(result));
    if is_shut.get() {
        // The client gets to read our last words.
        connection.end().await;
    }
}

/// The connection as whoever has taken it over sees it.
struct Io {
    connection: Rc<Connection>,
    exchange: Rc<Exchange>,
    is_shut: Rc<Cell<bool>>,
}

impl ClientStream for Io {
    fn is_left(&self) -> bool {
        self.connection.io.borrow().stream.socket().is_left()
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut io = self.connection.io.borrow_mut();
        let before = buf.filled().len();
        let unread = io.unread();
        if unread.is_empty() {
            ready!(Pin::new(&mut io.stream).poll_read(cx, buf))?;
        } else {
            let count = unread.len().min(buf.remaining());
            buf.put_slice(&unread[..count]);
            io.consume(count);
        }
        let bytes_in = &self.exchange.bytes_in;
        bytes_in.set(bytes_in.get() + (buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.connection.io.borrow_mut().stream).poll_write(cx, bytes))?;
        let bytes_out = &self.exchange.bytes_out;
        bytes_out.set(bytes_out.get() + count as u64);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection.io.borrow_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Once: each shutdown wakes whoever waits for the socket.
        if !self.is_shut.get() {
            ready!(Pin::new(&mut self.connection.io.borrow_mut().stream).poll_shutdown(cx))?;
            self.is_shut.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if !self.is_shut.get() {
            self.connection.io.borrow().stream.socket().reset_on_close();
        }
    }
}
