//! HTTP/2 by prior knowledge to a worker (`h2c://`), one exchange at a time on a connection.
//!
//! gunicorn serves the streams of a connection one after the other, so that a second one beside the first would wait
//! behind it unseen; alone, an exchange holds its connection as it does with HTTP/1.1, and connections are pooled alike.
//! The request is taken from the head that is written for HTTP/1.1: one set of rules for what may pass. Runs inside the
//! future of the exchange, without a task of its own.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{Error, Reason, Retry};
use crate::http::Body;
use crate::http1::client::{MAX_HEAD, MAX_INTERIM, Patience};
use crate::runtime::{Deadline, Stream};

/// Bytes that a worker may send before we have taken them.
const WINDOW: u32 = 256 << 10;

/// A connection to a worker, between exchanges or in one.
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    driver: h2::client::Connection<Shared, Bytes>,
    io: Shared,
    deadline: Deadline,
    /// Nothing more will come.
    is_over: bool,
    /// What is left of an exchange that a worker may still be busy with.
    waiting: Waiting,
}

enum Waiting {
    Nothing,
    Head(ResponseFuture),
    Body(RecvStream),
}

/// A response whose body is still on the connection.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: ResponseBody,
    /// Interim responses that came before it.
    pub(super) interim: u32,
}

/// The body of a response, and the connection it is read from.
pub(super) struct ResponseBody {
    connection: Connection,
    sending: Sending,
    idle: Duration,
    /// What Content-Length says is still to come. `h2` holds the worker to it.
    left: Option<u64>,
    is_end: bool,
}

/// An exchange that brought no response.
pub(super) struct Failed {
    pub(super) error: Error,
    /// After a deadline: the connection, whose worker may still be busy with the request.
    pub(super) busy: Option<Connection>,
}

impl Connection {
    /// Sends the preface.
    ///
    /// # Errors
    /// The connection has ended already.
    pub(super) async fn open(stream: Stream) -> Result<Self, Error> {
        let io = Shared(Rc::new(Inner { stream: RefCell::new(stream), written: Cell::new(0) }));
        let handshake = Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(MAX_HEAD)
            .handshake(io.clone())
            .await;
        let (sender, driver) = handshake.map_err(|error| failure(&error, false).retry(Retry::Unsent))?;
        let (deadline, waiting) = (Deadline::new(), Waiting::Nothing);
        Ok(Self { sender, driver, io, deadline, is_over: false, waiting })
    }

    /// Whether, between exchanges, the worker has neither closed nor said that it will. What else it has to say (pings,
    /// settings) is answered on the way.
    pub(super) fn is_quiet(&mut self, surely: bool) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.drive(&mut cx);
        !self.is_over
            && matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Ok(())))
            && self.io.0.stream.borrow_mut().is_quiet(surely)
    }

    /// Moves frames. What ends the connection reaches its streams.
    fn drive(&mut self, cx: &mut Context<'_>) {
        self.is_over = self.is_over || Pin::new(&mut self.driver).poll(cx).is_ready();
    }

    /// Sends a request and reads the head of its response. `head` is that of HTTP/1.1.
    ///
    /// # Errors
    /// What kept the worker from answering.
    pub(super) async fn exchange(
        mut self,
        head: &[u8],
        body: Body,
        method: &Method,
        patience: Patience,
    ) -> Result<Response, Failed> {
        let alone = |error| Failed { error, busy: None };
        let request =
            request(head).map_err(|reason| alone(Error::new(reason).detail("the request cannot be said in HTTP/2")))?;
        self.deadline.arm(patience.idle);
        let mut sending = self.begin(request, body).await.map_err(alone)?;
        self.deadline.arm(if sending.done { patience.head } else { patience.idle });
        let written = self.io.0.written.get();
        let mut interim = 0;
        let result = poll_fn(|cx| {
            let (before, was_done) = (sending.sent, sending.done);
            if let Err(error) = sending.poll(cx) {
                return Poll::Ready(Err((error, false)));
            }
            if sending.done && !was_done {
                self.deadline.arm(patience.head);
            } else if sending.sent > before {
                self.deadline.arm(patience.idle);
            }
            self.drive(cx);
            match self.poll_head(&mut interim, cx) {
                Poll::Ready(result) => Poll::Ready(result.map_err(|error| {
                    let is_unsent = self.io.0.written.get() == written;
                    (if is_unsent { error.retry(Retry::Unsent) } else { error }, false)
                })),
                Poll::Pending => self.deadline.poll(cx).map(|()| Err((sending.timeout(), true))),
            }
        })
        .await;
        self.deadline.disarm();
        match result {
            Ok(response) => Ok(self.response(response, sending, method, patience.idle, interim)),
            Err((error, is_busy)) => Err(Failed { error, busy: (is_busy && sending.complete).then_some(self) }),
        }
    }

    /// Opens the stream. Nothing is written before the next [`Self::drive`].
    async fn begin(&mut self, request: http::Request<()>, body: Body) -> Result<Sending, Error> {
        let ready = poll_fn(|cx| {
            // The worker's first settings may allow no stream yet.
            self.drive(cx);
            if let Poll::Ready(ready) = self.sender.poll_ready(cx) {
                return Poll::Ready(ready.map_err(|error| failure(&error, false)));
            }
            self.deadline.poll(cx).map(|()| Err(Error::new(Reason::IdleTimeout)))
        });
        ready.await.map_err(|error| error.retry(Retry::Unsent))?;
        let is_whole = body.remaining() == Some(0);
        let sent = self.sender.send_request(request, is_whole);
        let (response, stream) = sent.map_err(|error| failure(&error, false).retry(Retry::Unsent))?;
        self.waiting = Waiting::Head(response);
        Ok(Sending { stream, body, piece: Bytes::new(), sent: 0, done: is_whole, complete: is_whole })
    }

    fn poll_head(&mut self, interim: &mut u32, cx: &mut Context<'_>) -> Poll<Result<http::Response<()>, Error>> {
        let Waiting::Head(response) = &mut self.waiting else {
            return Poll::Ready(Err(Error::new(Reason::Internal)));
        };
        while let Poll::Ready(Some(Ok(head))) = response.poll_informational(cx) {
            *interim += 1;
            if head.status() == StatusCode::SWITCHING_PROTOCOLS || *interim > MAX_INTERIM {
                let detail = "it switched protocols unasked, or sent too many interim responses";
                return Poll::Ready(Err(Error::new(Reason::BadHead).detail(detail)));
            }
        }
        let head = ready!(Pin::new(response).poll(cx)).map_err(|error| failure(&error, false))?;
        let (parts, body) = head.into_parts();
        self.waiting = Waiting::Body(body);
        Poll::Ready(Ok(http::Response::from_parts(parts, ())))
    }

    fn response(
        self,
        response: http::Response<()>,
        sending: Sending,
        method: &Method,
        idle: Duration,
        interim: u32,
    ) -> Response {
        let (parts, ()) = response.into_parts();
        let is_bodiless =
            *method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let said = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let is_end = matches!(&self.waiting, Waiting::Body(body) if body.is_end_stream());
        let left = if is_bodiless || is_end { Some(0) } else { said };
        let body = ResponseBody { connection: self, sending, idle, left, is_end };
        Response { status: parts.status, headers: parts.headers, body, interim }
    }

    /// Waits until the worker is done with the request that was given up, at most for `limit`.
    pub(super) async fn closed(mut self, limit: Duration) {
        let deadline = Deadline::new();
        let mut interim = 0;
        let ended = poll_fn(|cx| {
            self.drive(cx);
            if matches!(self.waiting, Waiting::Head(_)) && ready!(self.poll_head(&mut interim, cx)).is_err() {
                return Poll::Ready(());
            }
            let Waiting::Body(body) = &mut self.waiting else { return Poll::Ready(()) };
            while let Some(Ok(data)) = ready!(body.poll_data(cx)) {
                // An error is a stream that has ended, which the next look tells as well.
                let _ = body.flow_control().release_capacity(data.len());
            }
            Poll::Ready(())
        });
        // Either way the connection is dropped now.
        let _ = deadline.bound(limit, ended).await;
    }
}

/// Leaving a worker in the middle of an answer that may never end by itself.
impl Connection {
    /// Resets the stream, says goodbye, and waits until the worker has closed, at most for `limit`.
    pub(super) async fn abandoned(self, limit: Duration) {
        let Self { sender, mut driver, io, waiting, .. } = self;
        // `h2` resets streams that nobody reads any more, and closes a connection that nobody can use any more.
        drop((sender, waiting));
        let closed = async {
            // An error is a connection that has ended.
            let _ = Pin::new(&mut driver).await;
            let mut unread = [0; 1 << 10];
            let mut stream = io.clone();
            poll_fn(|cx| {
                loop {
                    let mut into = ReadBuf::new(&mut unread);
                    match ready!(Pin::new(&mut stream).poll_read(cx, &mut into)) {
                        Ok(()) if !into.filled().is_empty() => {}
                        _ => return Poll::Ready(()),
                    }
                }
            })
            .await;
        };
        // Either way the connection is dropped now.
        let _ = Deadline::new().bound(limit, closed).await;
    }
}

/// The request body on its way out.
struct Sending {
    stream: SendStream<Bytes>,
    body: Body,
    piece: Bytes,
    sent: u64,
    /// Nothing more will be sent: all has gone, or the worker takes no more.
    done: bool,
    /// All has gone.
    complete: bool,
}

impl Sending {
    /// Gives `h2` what the worker's window takes. Only the body's own source can fail here: a worker that has reset the
    /// stream may still have answered, which reading will tell.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while !self.done {
            if self.piece.is_empty() {
                match self.body.poll_data(cx) {
                    Poll::Ready(Some(piece)) => self.piece = piece?,
                    Poll::Ready(None) => {
                        self.complete = self.stream.send_data(Bytes::new(), true).is_ok();
                        self.done = true;
                    }
                    Poll::Pending => return Ok(()),
                }
                continue;
            }
            self.stream.reserve_capacity(self.piece.len());
            let granted = match self.stream.capacity() {
                0 => match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(granted))) => granted,
                    Poll::Ready(_) => {
                        self.done = true;
                        return Ok(());
                    }
                    Poll::Pending => return Ok(()),
                },
                granted => granted,
            };
            let piece = self.piece.split_to(granted.min(self.piece.len()));
            self.sent += piece.len() as u64;
            self.done = self.stream.send_data(piece, false).is_err();
        }
        Ok(())
    }

    fn timeout(&self) -> Error {
        Error::new(if self.done { Reason::HeadTimeout } else { Reason::IdleTimeout }).retry(Retry::IfIdempotent)
    }
}

impl ResponseBody {
    /// The bytes still to come, where the head tells.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.left
    }

    /// Whether nothing is left.
    pub(super) fn is_end(&self) -> bool {
        self.is_end
    }

    /// The next piece, `None` at the end. Goes on sending meanwhile: a worker may answer before it has read all.
    ///
    /// # Errors
    /// [`Reason::EofInBody`], [`Reason::BadBody`] or [`Reason::IdleTimeout`], or what keeps the request from being read.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>, Error> {
        if self.is_end {
            return Ok(None);
        }
        let data = poll_fn(|cx| {
            let before = self.sending.sent;
            self.sending.poll(cx)?;
            self.connection.drive(cx);
            if let Poll::Ready(data) = self.poll_data(cx) {
                return Poll::Ready(data);
            }
            let deadline = &self.connection.deadline;
            if !deadline.is_armed() || self.sending.sent > before {
                deadline.arm(self.idle);
            }
            deadline.poll(cx).map(|()| Err(Error::new(Reason::IdleTimeout)))
        })
        .await;
        self.connection.deadline.disarm();
        data
    }

    /// Trailers end here.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        let Waiting::Body(body) = &mut self.connection.waiting else { return Poll::Ready(Ok(None)) };
        loop {
            let Some(data) = ready!(body.poll_data(cx)) else {
                self.is_end = true;
                return Poll::Ready(Ok(None));
            };
            let data = data.map_err(|error| failure(&error, true))?;
            // Taken at once: the pipe above does not ask for more than it has room for.
            body.flow_control().release_capacity(data.len()).map_err(|error| failure(&error, true))?;
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(data)));
            }
        }
    }

    /// The connection to a worker that is still busy with the request.
    pub(super) fn into_busy(self) -> Connection {
        self.connection
    }

    /// The connection, if it can serve another exchange.
    pub(super) fn into_end(mut self) -> Option<Connection> {
        self.connection.waiting = Waiting::Nothing;
        (self.is_end && self.sending.complete && !self.connection.is_over).then_some(self.connection)
    }
}

/// From `GET / HTTP/1.1` and its field lines, as we have written them, to a request of HTTP/2 (RFC 9113, 8.3.1).
fn request(head: &[u8]) -> Result<http::Request<()>, Reason> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut first = lines.next().unwrap_or_default().splitn(3, |byte| *byte == b' ');
    let method = Method::from_bytes(first.next().unwrap_or_default()).map_err(|_| Reason::BadMethod)?;
    let target = first.next().unwrap_or_default();
    let mut headers = HeaderMap::with_capacity(32);
    let mut authority = HeaderValue::from_static("localhost");
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Reason::BadHeaderName)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Reason::BadHeaderName)?;
        let value =
            HeaderValue::from_bytes(line[colon + 1..].trim_ascii_start()).map_err(|_| Reason::BadHeaderValue)?;
        match name {
            header::HOST => authority = value,
            // They speak of a connection of HTTP/1.1 (RFC 9113, 8.2.2).
            header::CONNECTION | header::EXPECT => {}
            name => {
                headers.append(name, value);
            }
        }
    }
    let uri = Uri::builder().scheme("http").authority(authority.as_bytes()).path_and_query(target);
    let mut request = http::Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri.build().map_err(|_| Reason::BadTarget)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

/// What `h2` says, in our words, with what the wire tells about sending the request again.
fn failure(error: &h2::Error, in_body: bool) -> Error {
    let (before_head, within) = match error.get_io() {
        Some(io) if io.kind() == io::ErrorKind::ConnectionReset => (Reason::ResetBeforeHead, Reason::EofInBody),
        Some(_) => (Reason::EofBeforeHead, Reason::EofInBody),
        None if error.is_remote() => (Reason::ResetBeforeHead, Reason::EofInBody),
        None => (Reason::BadHead, Reason::BadBody),
    };
    // RFC 9113, 8.7. `h2` gives GOAWAY to the streams beyond its last one only.
    let is_refused = error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
    let (reason, retry) = match (in_body, is_refused) {
        (true, _) => (within, Retry::Never),
        (false, true) => (before_head, Retry::Unsent),
        (false, false) if before_head == Reason::BadHead => (before_head, Retry::Never),
        (false, false) => (before_head, Retry::IfIdempotent),
    };
    Error::new(reason).retry(retry).detail(error.to_string())
}

/// The stream under a connection, which can still be asked whether anything has come.
#[derive(Clone)]
struct Shared(Rc<Inner>);

struct Inner {
    /// Borrowed within one poll at most.
    stream: RefCell<Stream>,
    /// Bytes written so far.
    written: Cell<u64>,
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, into)
    }
}

impl Shared {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.0.written.set(self.0.written.get() + count as u64);
        }
        written
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write_vectored(cx, bytes);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_http_1_becomes_a_request_of_http_2() {
        let head = b"POST /a?b=1 HTTP/1.1\r\nhost: shop.example:8443\r\ncookie: a=1; b=2\r\nx-a: 1\r\nx-a: \xE9\r\n\
                     connection: close\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
        let request = request(head).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "http://shop.example:8443/a?b=1");
        let fields: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let expected: [(&str, &[u8]); 4] =
            [("cookie", b"a=1; b=2"), ("x-a", b"1"), ("x-a", b"\xE9"), ("content-length", b"3")];
        assert_eq!(fields, expected);
        let star = super::request(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!(star.uri().path(), "*");
    }
}
