//! A stream that leaves HTTP (RFC 8441): the 200, and then whoever has taken it over.
//!
//! What the client sends is given back to its windows as it is taken, byte by byte: whoever does not read holds no more than
//! the stream's window, without the frames around it. Its small frames are counted otherwise than those of an upload: see the
//! frame guard's `budgets`.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream, SendStream};
use http::{StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::exchange::{gone, refused};
use super::message;
use super::shared::{Shared, WebSocketGuard};
use crate::http::{Body, ClientStream, Exchange, Finish, Response};

/// Writes the head and drives what takes the stream over to its end.
pub(super) async fn run(
    shared: &Rc<Shared>,
    exchange: &Rc<Exchange>,
    mut response: Response,
    mut respond: SendResponse<Bytes>,
    recv: Option<(RecvStream, Bytes)>,
) -> Finish {
    let (Body::Takeover(takeover), Some((recv, piece))) = (std::mem::take(response.body_mut()), recv) else {
        return Finish::Cut;
    };
    exchange.begin_response();
    // What says so in HTTP/1.1 (RFC 8441, 5.1).
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    let head = message::takeover_head(response, exchange);
    let send = match respond.send_response(head, false) {
        Ok(send) => send,
        Err(error) => return refused(shared, exchange, &error, respond),
    };
    drop(respond);
    let guard = shared.websocket(recv.stream_id().as_u32());
    let io = Io {
        recv,
        piece,
        ahead: BytesMut::new(),
        send,
        shared: Rc::clone(shared),
        exchange: Rc::clone(exchange),
        is_shut: false,
        guard,
    };
    let result = takeover.run(Box::new(io), Rc::clone(exchange)).await;
    match exchange.end_of(result) {
        Finish::ClientGone => gone(shared, exchange),
        finish => finish,
    }
}

/// The stream as whoever has taken it over sees it.
struct Io {
    recv: RecvStream,
    /// What has come and has not been taken: first this, then `ahead`.
    piece: Bytes,
    ahead: BytesMut,
    send: SendStream<Bytes>,
    shared: Rc<Shared>,
    exchange: Rc<Exchange>,
    is_shut: bool,
    #[allow(dead_code, reason = "held for as long as the stream is a WebSocket")]
    guard: WebSocketGuard,
}

impl ClientStream for Io {
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => self.ahead.extend_from_slice(&data),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => break,
            }
        }
        // Behind the end of its side it may still break the other one off.
        if self.send.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        let before = buf.filled().len();
        // As many small frames as there are: each for itself would be a write of its own.
        while buf.remaining() > 0 {
            let is_first = buf.filled().len() == before;
            match io.poll_piece(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Err(error)) if is_first => return Poll::Ready(Err(error)),
                Poll::Pending if is_first => return Poll::Pending,
                // What came before goes first.
                Poll::Ready(Ok(false) | Err(_)) | Poll::Pending => break,
            }
            let count = io.piece.len().min(buf.remaining());
            buf.put_slice(&io.piece[..count]);
            io.piece.advance(count);
        }
        let count = buf.filled().len() - before;
        // An error is a stream that has ended, which the next look tells as well.
        let _ = io.recv.flow_control().release_capacity(count);
        io.exchange.bytes_in.set(io.exchange.bytes_in.get() + count as u64);
        Poll::Ready(Ok(()))
    }
}

impl Io {
    /// Sees to it that there is a piece. `false`: the client has ended its side.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.piece.is_empty() {
            if !self.ahead.is_empty() {
                self.piece = std::mem::take(&mut self.ahead).freeze();
                break;
            }
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // More cannot be used at a time, and would be kept from other streams.
        io.send.reserve_capacity(bytes.len().min(super::SEND_BUFFER));
        let granted = match io.send.capacity() {
            0 => match ready!(io.send.poll_capacity(cx)) {
                Some(granted) => granted.map_err(broken)?,
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            },
            granted => granted,
        };
        if granted == 0 {
            // The window has been taken back meanwhile: who waits for the next is woken with it.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = granted.min(ready!(io.shared.poll_room(cx))).min(bytes.len());
        io.shared.take_room(count);
        io.send.send_data(Bytes::copy_from_slice(&bytes[..count]), false).map_err(broken)?;
        if count < granted {
            io.send.reserve_capacity(0);
        }
        io.exchange.bytes_out.set(io.exchange.bytes_out.get() + count as u64);
        Poll::Ready(Ok(count))
    }

    /// Whoever drives the connection writes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        if !std::mem::replace(&mut io.is_shut, true) {
            io.send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if !self.is_shut {
            self.send.send_reset(Code::CANCEL);
        }
    }
}

/// The client has reset the stream, or the connection has ended.
fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
