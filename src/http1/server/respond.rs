//! Writing a response as its bytes come: head and small body in one send, large pieces from where they lie.

use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use tokio::io::AsyncWrite;

use super::connection::Connection;
use super::taken::Taken;
use super::{Limits, Terms};
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, Finish, Protocol, Response, fields};
use crate::http1::write::{self, Delimiter};
use crate::runtime::buffers::{self, Buffer};
use crate::runtime::{Deadline, Socket, Span, Stream};

/// The value of `Connection` where the protocol changes, or may, and the line that names it.
const UPGRADE: &str = "Upgrade\r\nupgrade: websocket";
const UPGRADE_AND_CLOSE: &str = "close, Upgrade\r\nupgrade: websocket";

/// How writing ended.
pub(super) struct Written {
    pub(super) how: Finish,
    pub(super) keep_alive: bool,
}

/// Writes one response. What comes before the first write is done at once: its future holds what is to be written, and
/// nothing of what that was made from.
pub(super) fn write<'a>(
    connection: &'a Connection,
    limits: &Limits,
    exchange: &'a Exchange,
    response: Response,
    terms: Terms,
) -> impl Future<Output = Written> + use<'a> {
    exchange.begin_response();
    let (mut writer, keep_alive) = begin(connection, limits, exchange, response, terms);
    let ends_by_close = writer.delimiter == Delimiter::Close;
    if ends_by_close {
        // Where the end of the connection is the end of the body, only a reset tells a cut one: for a client that has closed its
        // side and reads on, and whatever ends us before it has all.
        connection.io.borrow().stream.socket().reset_on_close();
    }
    poll_fn(move |cx| {
        let result = ready!(writer.poll(cx, connection));
        connection.deadline.disarm();
        exchange.bytes_out.set(writer.bytes);
        let how = match result {
            Ok(()) => {
                if ends_by_close {
                    connection.io.borrow().stream.socket().close_in_order();
                }
                Finish::Complete
            }
            Err(error) if error.reason == Reason::ClientGone => Finish::ClientGone,
            Err(error) => {
                exchange.fail(error.reason);
                connection.io.borrow().stream.socket().reset_on_close();
                Finish::Cut
            }
        };
        Poll::Ready(Written { how, keep_alive })
    })
}

/// The head, and what else is to be written. Whether the connection may live on.
fn begin(
    connection: &Connection,
    limits: &Limits,
    exchange: &Exchange,
    response: Response,
    terms: Terms,
) -> (Writer, bool) {
    let (mut head, body) = response.into_parts();
    let delimiter = delimiter(head.status, &body, terms);
    let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if is_switch || head.status == StatusCode::NO_CONTENT {
        head.headers.remove(http::header::CONTENT_LENGTH);
    }
    // An answer of our own to HEAD says how long its body would be; an app's says it itself.
    if let Some(length @ 1..) = body.remaining().filter(|_| terms.is_head) {
        head.headers.insert(http::header::CONTENT_LENGTH, length.into());
    }
    let keep_alive = terms.keep_alive && delimiter != Delimiter::Close;
    let field = match (keep_alive, terms.protocol) {
        _ if is_switch => Some(UPGRADE),
        // RFC 9110, 15.5.22.
        (false, _) if exchange.reason.get() == Some(Reason::WebsocketVersion) => Some(UPGRADE_AND_CLOSE),
        (true, _) if exchange.reason.get() == Some(Reason::WebsocketVersion) => Some(UPGRADE),
        (false, _) => Some("close"),
        (true, Protocol::Http10) => Some("keep-alive"),
        (true, _) => None,
    };
    let mut out = Buffer::take();
    out.extend_from_slice(connection.begun_interim());
    write::response_head(&mut out, head.status, &head.headers, delimiter, field, exchange);
    fields::give_map(head.headers);
    let body = if delimiter == Delimiter::NoBody { Body::Empty } else { body };
    let writer = Writer {
        out: Some(out),
        sent: 0,
        large: Bytes::new(),
        after: b"",
        span: None,
        reads_files: false,
        body,
        body_is_done: false,
        delimiter,
        bytes: 0,
        taken: Taken::new(limits.read_rate),
    };
    (writer, keep_alive)
}

fn delimiter(status: StatusCode, body: &Body, terms: Terms) -> Delimiter {
    if terms.is_head || matches!(status.as_u16(), 101 | 204 | 304) {
        return Delimiter::NoBody;
    }
    match (body.remaining(), terms.protocol) {
        (Some(length), _) => Delimiter::Length(length),
        (None, Protocol::Http10) => Delimiter::Close,
        (None, _) => Delimiter::Chunked,
    }
}

/// How much has been sent.
enum Went {
    /// All that is here.
    All,
    /// As much as may be in one turn.
    Turn,
}

/// What is on its way: the small bytes in `out`, then `large`, then `after`, then the rest of the body.
struct Writer {
    /// Held only while there is something in it.
    out: Option<Buffer>,
    sent: usize,
    large: Bytes,
    after: &'static [u8],
    /// What comes after those, and is sent from its file.
    span: Option<Span>,
    /// The system does not send from a file.
    reads_files: bool,
    body: Body,
    body_is_done: bool,
    delimiter: Delimiter,
    /// Bytes of the body taken from its source.
    bytes: u64,
    taken: Taken,
}

impl Writer {
    fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<Result<(), Error>> {
        loop {
            let mut waits_for_body = false;
            while !self.body_is_done && self.has_room() {
                if self.is_in_file(connection) {
                    break;
                }
                match self.body.poll_data(cx) {
                    Poll::Ready(Some(data)) => self.push(data?),
                    Poll::Ready(None) => self.end(),
                    Poll::Pending => {
                        waits_for_body = true;
                        break;
                    }
                }
            }
            let is_in_file = self.span.is_some();
            match self.poll_send(cx, connection) {
                Poll::Ready(Ok(Went::All)) if self.body_is_done => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(Went::Turn)) => {
                    self.taken.all(&connection.deadline);
                    // The thread's other tasks have theirs.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(Went::All)) => {
                    self.taken.all(&connection.deadline);
                    if waits_for_body {
                        // Nothing to write: a client that leaves now is seen by reading.
                        ready!(connection.poll_gone(cx));
                        return Poll::Ready(Err(Reason::ClientGone.into()));
                    }
                }
                Poll::Ready(Err(())) => return Poll::Ready(Err(Reason::ClientGone.into())),
                Poll::Pending => {
                    if let Poll::Ready(error) = self.body.poll_cut(cx) {
                        return Poll::Ready(Err(error));
                    }
                    // With all of it in TLS's hands, being polled again means that the socket has taken some.
                    let is_flushing =
                        self.out.is_none() && self.large.is_empty() && self.after.is_empty() && !is_in_file;
                    let stalled = self.taken.poll_stalled(cx, connection, is_flushing);
                    return stalled.map(|()| Err(Reason::ClientStalled.into()));
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.large.is_empty()
            && self.after.is_empty()
            && self.out.as_ref().is_none_or(|out| out.len() < buffers::SIZE / 2)
    }

    fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.bytes += data.len() as u64;
        let out = self.out.get_or_insert_with(Buffer::take);
        let chunked = self.delimiter == Delimiter::Chunked;
        if chunked {
            write::append_chunk_size(out, data.len());
        }
        if out.len() + data.len() + 2 <= buffers::SIZE {
            out.extend_from_slice(&data);
            if chunked {
                out.extend_from_slice(b"\r\n");
            }
        } else {
            self.large = data;
            self.after = if chunked { b"\r\n" } else { b"" };
        }
    }

    fn end(&mut self) {
        self.body_is_done = true;
        self.body = Body::Empty;
        if self.delimiter == Delimiter::Chunked {
            self.out.get_or_insert_with(Buffer::take).extend_from_slice(b"0\r\n\r\n");
        }
    }

    /// Whether what comes next is to be sent from a file.
    fn is_in_file(&mut self, connection: &Connection) -> bool {
        let may_be = !self.reads_files && self.delimiter != Delimiter::Chunked;
        if self.span.is_none() && may_be && matches!(connection.io.borrow().stream, Stream::Plain(_)) {
            self.span = self.body.span();
        }
        self.span.is_some()
    }

    /// Sends all that is here. An error is the client's end of the connection gone.
    fn poll_send(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<Result<Went, ()>> {
        let mut io = connection.io.borrow_mut();
        loop {
            let small = self.out.as_ref().map_or(&[][..], |out| &out[self.sent..]);
            let slices = [IoSlice::new(small), IoSlice::new(&self.large), IoSlice::new(self.after)];
            let stream = Pin::new(&mut io.stream);
            let written = match (small.is_empty(), self.large.is_empty()) {
                (true, true) if self.after.is_empty() => break,
                // The head of a file leaves with the file's first bytes. Only plain streams have spans.
                (false, true) if self.span.is_some() => ready!(io.stream.socket().poll_send_more(cx, small)),
                (false, true) if self.after.is_empty() => ready!(stream.poll_write(cx, small)),
                _ => ready!(stream.poll_write_vectored(cx, &slices)),
            };
            match written {
                Ok(count) if count > 0 => {
                    self.advance(count);
                    self.taken.some(count, &connection.deadline);
                }
                _ => return Poll::Ready(Err(())),
            }
        }
        if self.span.is_some() {
            return self.poll_send_span(cx, io.stream.socket(), &connection.deadline);
        }
        Pin::new(&mut io.stream).poll_flush(cx).map_ok(|()| Went::All).map_err(|_| ())
    }

    /// Sends what lies in a file, from there.
    fn poll_send_span(&mut self, cx: &mut Context<'_>, socket: &Socket, deadline: &Deadline) -> Poll<Result<Went, ()>> {
        while let Some(span) = &mut self.span {
            let Poll::Ready(sent) = socket.poll_send_file(cx, span) else {
                // Until the client has taken what the kernel has, the file may be out of memory again.
                self.span = None;
                return Poll::Pending;
            };
            let Some(count) = sent.map_err(|_| ())? else {
                self.reads_files = true;
                self.span = None;
                break;
            };
            let went = span.advance(count);
            self.bytes += count as u64;
            self.body.sent(count as u64);
            self.taken.some(count, deadline);
            if went {
                self.span = None;
                return Poll::Ready(Ok(Went::Turn));
            }
        }
        Poll::Ready(Ok(Went::All))
    }

    fn advance(&mut self, mut count: usize) {
        if let Some(out) = &self.out {
            let small = count.min(out.len() - self.sent);
            self.sent += small;
            count -= small;
            if self.sent == out.len() {
                self.out = None;
                self.sent = 0;
            }
        }
        let large = count.min(self.large.len());
        self.large = self.large.split_off(large);
        self.after = &self.after[count - large..];
    }
}
