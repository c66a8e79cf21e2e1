//! The client's side of HTTP/1.1: one exchange at a time on a worker's connection.
//!
//! Runs inside the future of the exchange, without a task of its own, and knows for every failure what had been sent
//! and received. Both directions are polled together: a worker may answer before it has read the whole request.
//!
//! What a failure proves about the app, and how a body is withheld so that it proves more, is told in [`verdict`].

mod sending;
#[cfg(test)]
mod tests;
mod verdict;
mod writing;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::ReadAhead;
use super::body::{BodyReader, Cut};
use super::head::{self, Framing};
use super::response::{self, ResponseHead};
use sending::Sending;
pub use writing::{Request, write_head};

use crate::error::{Error, Reason};
use crate::http::Body;
use crate::runtime::buffers::Buffer;
use crate::runtime::{Deadline, HangUp, Socket, Stream};

/// Bytes of a worker's response head, whatever it speaks.
pub const MAX_HEAD: u32 = 64 << 10;
/// Interim responses (1xx) before the final one.
pub const MAX_INTERIM: u32 = 32;

/// Reads a complete head; an error is the reason and the rule that was broken.
pub type ReadHead = fn(&Bytes, &Method) -> Result<ResponseHead, (Reason, Reason)>;

/// What differs between the protocols whose answers read like HTTP/1.1.
pub struct Dialect {
    /// What it takes for a head.
    pub read_head: ReadHead,
    /// For the operator: what may be behind an end without an answer. May be empty.
    pub silence: &'static str,
    /// When the worker closes without having read the request's body, if the app has not, so that a reset comes instead of
    /// an end: what the operator can do about it.
    pub unread_body: Option<&'static str>,
    /// Whether a worker can be asked for a `100 Continue`.
    pub has_continue: bool,
}

/// HTTP/1.1 itself.
pub static HTTP1: Dialect = Dialect { read_head: response::parse, silence: "", unread_body: None, has_continue: true };

/// A connection to a worker, between exchanges or in one.
pub struct Connection {
    dialect: &'static Dialect,
    io: ReadAhead<Stream>,
    deadline: Deadline,
    /// Whether the worker has answered and may wait for more of the request, or for another one, that will not come.
    owes_request: bool,
    /// Whether a request is on its way that the worker must not take for whole when the connection ends.
    is_unsent: bool,
    /// Whether the request at hand asks for another protocol, so that a 101 is an answer to it.
    may_switch: bool,
}

/// How long each part of an exchange may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the complete request to the response head.
    pub head: Duration,
    /// Between two writes, and between two reads of the body.
    pub idle: Duration,
}

/// What the body waits for, once the head has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Withhold {
    /// Nothing.
    #[default]
    Nothing,
    /// That the worker has read the head. Unix sockets tell; elsewhere this is nothing.
    UntilRead,
    /// The worker's `100 Continue`, which the head asks for.
    UntilContinue(Expect),
}

/// How long a worker has for its `100 Continue`, and what comes of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// From the complete head.
    pub patience: Duration,
    /// Whether the worker is known to send it: without it nobody has begun, and the request fails with
    /// [`Reason::HeadTimeout`]. Others may never do (RFC 9110, 10.1.1): they get the body all the same.
    pub is_known: bool,
}

/// A response whose body is still on the connection.
pub struct Response {
    /// The final head.
    pub head: ResponseHead,
    /// The body, which gives the connection back at its end.
    pub body: ResponseBody,
    /// Interim responses that came before it.
    pub interim: u32,
    /// Whether the worker has sent the `100 Continue` that it was asked for.
    pub continued: bool,
}

/// The body of a response, and the connection it is read from.
pub struct ResponseBody {
    connection: Box<Connection>,
    reader: BodyReader,
    idle: Duration,
    /// What the worker has not read yet of a request that it has begun to answer.
    sending: Sending,
    /// Whether the worker keeps the connection open after this response.
    keep_alive: bool,
    /// Whether a body may come that the answer must not have.
    may_trail: bool,
    /// Whether its end is told otherwise than by the end of the connection.
    is_framed: bool,
}

/// An exchange that brought no response.
pub struct Failed {
    /// The reason by phase, with the verdict on sending the request again.
    pub error: Error,
    /// After a deadline: the connection, whose worker may still be busy with the request.
    pub busy: Option<Box<Connection>>,
}

impl Connection {
    /// A fresh connection, on which this is spoken. Boxed: it is moved from hand to hand in every exchange.
    #[must_use]
    pub fn boxed(stream: Stream, dialect: &'static Dialect) -> Box<Self> {
        let io = ReadAhead::new(stream);
        Box::new(Self {
            dialect,
            io,
            deadline: Deadline::new(),
            owes_request: false,
            is_unsent: false,
            may_switch: false,
        })
    }

    /// Whether, between exchanges, nothing has come from the worker: neither its end nor bytes nobody asked for.
    ///
    /// The event queue's last word costs nothing, but may be a turn old: `surely` asks the kernel.
    #[must_use]
    pub fn is_quiet(&mut self, surely: bool) -> bool {
        self.io.unread().is_empty() && self.io.stream.is_quiet(surely)
    }

    /// What the body of a request that must not run twice waits for on this connection, so that a failure tells most.
    /// `expect`: what a worker on TCP is asked for a `100 Continue` with; `None`: it is not asked for one.
    #[must_use]
    pub fn withhold(&self, expect: Option<Expect>) -> Withhold {
        match (self.io.stream.socket(), expect) {
            (Socket::Unix(_), _) => Withhold::UntilRead,
            (Socket::Tcp(_), Some(expect)) if self.dialect.has_continue => Withhold::UntilContinue(expect),
            (Socket::Tcp(_), _) => Withhold::Nothing,
        }
    }

    /// The next request asks for another protocol (RFC 9110, 7.8): the worker may answer it with 101, behind which its
    /// connection is [`Self::switched`].
    pub fn may_switch(&mut self) {
        self.may_switch = true;
    }

    /// The stream, with what came behind the head of a 101.
    pub fn switched(&mut self) -> &mut ReadAhead<Stream> {
        &mut self.io
    }

    /// Sends a request and reads the head of its response. `head` is whole, with its empty line; the field that
    /// [`Withhold::UntilContinue`] needs is put into it here. A request without a body is never withheld.
    ///
    /// # Errors
    /// What kept the worker from answering.
    pub async fn exchange(
        mut self: Box<Self>,
        head: &[u8],
        body: Body,
        method: &Method,
        withhold: Withhold,
        patience: Patience,
    ) -> Result<Response, Failed> {
        let withhold = if body.remaining() == Some(0) { Withhold::Nothing } else { withhold };
        let expecting = matches!(withhold, Withhold::UntilContinue(_)).then(|| expecting(head));
        let mut head = expecting.as_ref().map_or(head, |buffer| &buffer[..]);
        let mut sending = Sending::new(head.len(), body, withhold);
        let may_switch = std::mem::take(&mut self.may_switch);
        let mut reading = Reading { dialect: self.dialect, scanned: 0, interim: 0, begun: false, may_switch };
        self.deadline.arm(patience.idle);
        self.is_unsent = true;
        let result = poll_fn(|cx| {
            loop {
                let before = sending.sent;
                if !sending.done {
                    if let Err(error) = sending.poll(&mut head, &mut self.io, cx) {
                        return Poll::Ready(Err((error, false)));
                    }
                    if sending.done {
                        self.deadline.arm(patience.head);
                    } else if sending.sent > before {
                        self.deadline.arm(sending.patience(patience));
                    }
                }
                let awaited = sending.is_awaiting_continue();
                match reading.poll(&mut self.io, method, &mut sending, cx) {
                    Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err((error, false))),
                    Poll::Pending if awaited && !sending.is_awaiting_continue() => {
                        // The 100 has come. The body's source may take longer than the worker had for that.
                        self.deadline.arm(patience.idle);
                        continue;
                    }
                    Poll::Pending => ready!(self.deadline.poll(cx)),
                }
                if sending.give_up_continue() {
                    self.deadline.arm(patience.idle);
                    continue;
                }
                let error = Error::new(sending.late());
                // What wakes up to this head after all finds the request whole, as it would without withholding.
                sending.finish_now(self.io.stream.socket());
                return Poll::Ready(Err((error, true)));
            }
        })
        .await;
        self.deadline.disarm();
        self.is_unsent = !sending.complete;
        let response_head = match result {
            Ok(head) => head,
            // On TCP the end of a request that is not whole is a reset. A unix socket knows none: there it is held.
            Err((error, is_busy)) => {
                let may_hold = sending.complete || matches!(self.io.stream.socket(), Socket::Unix(_));
                return Err(Failed { error, busy: (is_busy && may_hold).then_some(self) });
            }
        };
        let continued = sending.has_continued();
        sending.answered();
        // An answer in the middle of the request's head: the rest of that goes before the body.
        sending.piece = if head.is_empty() { sending.piece } else { Bytes::copy_from_slice(head) };
        let body = ResponseBody {
            reader: BodyReader::new(response_head.framing),
            is_framed: response_head.framing != Framing::Close,
            keep_alive: response_head.keep_alive && response_head.framing != Framing::Close,
            may_trail: response_head.may_trail,
            connection: self,
            idle: patience.idle,
            sending,
        };
        Ok(Response { head: response_head, interim: reading.interim, continued, body })
    }

    /// The rest of the answer is for nobody, and no request will follow: the worker hears the latter, and whatever still
    /// comes is read until it has closed, at most for `limit`.
    ///
    /// One that has announced more than it sends would keep the connection for the next request. Nobody can tell from
    /// here when it is done with this one; that it closes, because there will be no other, tells it.
    pub async fn done_with(mut self: Box<Self>, limit: Duration) {
        self.owes_request = true;
        self.closed(limit).await;
    }

    /// Waits until the worker has closed, at most for `limit`.
    ///
    /// A sync worker closes when it is done with the request, and only then is free for another. One that has answered
    /// and still waits for the rest of the request hears first that there is none.
    pub async fn closed(mut self: Box<Self>, limit: Duration) {
        let Self { io, deadline, owes_request, is_unsent, .. } = &mut *self;
        let closed = poll_fn(|cx| {
            if *owes_request {
                // An error is a connection that has ended, which reading tells as well.
                let _ = ready!(Pin::new(&mut io.stream).poll_shutdown(cx));
                *owes_request = false;
                *is_unsent = false;
            }
            loop {
                match ready!(io.poll_fill(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(read) => io.consume(read),
                }
            }
        });
        // Either way the connection is dropped now.
        let _ = deadline.bound(limit, closed).await;
    }
}

/// Leaving a worker in the middle of an answer that may never end by itself.
impl Connection {
    /// Makes the worker's next write fail, and waits until it has closed, at most for `limit`.
    ///
    /// A worker that has not read the whole request may wait for the rest of it. It hears that there is none by the end of
    /// the connection alone, after which nothing tells when it is done: on a unix socket this takes `limit` then.
    ///
    /// On TCP the worker hears of it at once, if it listens; else its next write is answered with a reset, and the one
    /// after that fails: when, is estimated by how long the one before took to come.
    pub async fn abandoned(mut self: Box<Self>, limit: Duration) {
        let deadline = Deadline::new();
        let io = &mut self.io;
        io.consume(io.unread().len());
        match io.stream.socket() {
            Socket::Unix(_) if self.is_unsent => {
                drop(self);
                tokio::time::sleep(limit).await;
            }
            socket @ Socket::Unix(_) => {
                if let Some(hang_up) = HangUp::begin(socket) {
                    // Either way the connection is dropped now.
                    let _ = deadline.bound(limit, hang_up.seen()).await;
                }
            }
            socket @ Socket::Tcp(_) if self.is_unsent => socket.reset_on_close(),
            Socket::Tcp(_) => {
                let begun = Instant::now();
                let next_write = async {
                    // An error is a connection that has ended, which reading tells as well.
                    let _ = poll_fn(|cx| Pin::new(&mut io.stream).poll_shutdown(cx)).await;
                    matches!(poll_fn(|cx| io.poll_fill(cx)).await, Ok(read) if read > 0)
                };
                let has_written = deadline.bound(limit, next_write).await.unwrap_or(false);
                let took = begun.elapsed();
                self.io.stream.socket().reset_on_close();
                drop(self);
                if has_written {
                    tokio::time::sleep(took.min(limit.saturating_sub(took))).await;
                }
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // gunicorn takes a plain close for the end of the body, and runs the app on what it has.
        if self.is_unsent {
            self.io.stream.socket().reset_on_close();
        }
    }
}

/// The response head on its way in.
struct Reading {
    dialect: &'static Dialect,
    scanned: usize,
    interim: u32,
    /// A byte of the response has come.
    begun: bool,
    /// Whether 101 is an answer.
    may_switch: bool,
}

impl Reading {
    fn poll(
        &mut self,
        io: &mut ReadAhead<Stream>,
        method: &Method,
        sending: &mut Sending,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Error>> {
        loop {
            while let Some(length) = head::find_end(io.unread(), &mut self.scanned) {
                let bytes = head::copy(&io.unread()[..length]);
                io.consume(length);
                self.scanned = 0;
                let head = (self.dialect.read_head)(&bytes, method).map_err(|(reason, rule)| {
                    Error::new(reason).detail(format!("its head breaks the rule `{rule}`"))
                })?;
                let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
                if !head.status.is_informational() || is_switch && self.may_switch && sending.complete {
                    return Poll::Ready(Ok(head));
                }
                if head.status == StatusCode::CONTINUE && sending.continued() {
                    // It was asked for: nothing of the answer proper has come yet.
                    self.begun = !io.unread().is_empty();
                    continue;
                }
                self.interim += 1;
                if is_switch || self.interim > MAX_INTERIM {
                    let detail = "it switched protocols unasked, or sent too many interim responses";
                    return Poll::Ready(Err(Error::new(Reason::BadHead).detail(detail)));
                }
            }
            if io.unread().len() >= MAX_HEAD as usize {
                return Poll::Ready(Err(Error::new(Reason::BadHead).detail("its head is larger than 64 KiB")));
            }
            match ready!(io.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Err(self.ended(sending.ended(self.begun, None, io.stream.socket())))),
                Ok(_) => self.begun = true,
                Err(source) => {
                    return Poll::Ready(Err(self.ended(sending.ended(self.begun, Some(source), io.stream.socket()))));
                }
            }
        }
    }

    fn ended(&self, error: Error) -> Error {
        if self.begun { error } else { error.detail(self.dialect.silence) }
    }
}

/// The head with the field that asks for a `100 Continue`, before its empty line.
fn expecting(head: &[u8]) -> Buffer {
    let mut buffer = Buffer::take();
    buffer.extend_from_slice(head.strip_suffix(b"\r\n").unwrap_or(head));
    buffer.extend_from_slice(b"expect: 100-continue\r\n\r\n");
    buffer
}

impl ResponseBody {
    /// The bytes still to come, where the framing tells.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.reader.remaining()
    }

    /// All of the rest, when it has been read together with the head: a small response in one piece.
    pub fn take_here(&mut self) -> Option<Bytes> {
        if self.reader.is_end() {
            return Some(Bytes::new());
        }
        let left = self.reader.remaining().and_then(|left| usize::try_from(left).ok())?;
        if self.connection.io.unread().len() < left {
            return None;
        }
        let body = Bytes::copy_from_slice(&self.connection.io.unread()[..left]);
        self.connection.io.consume(left);
        self.reader = BodyReader::new(Framing::None);
        Some(body)
    }

    /// The next piece, `None` at the end. Goes on sending meanwhile: a worker may answer before it has read all.
    ///
    /// # Errors
    /// [`Reason::EofInBody`], [`Reason::BadBody`] or [`Reason::IdleTimeout`], or what keeps the request from being read.
    pub async fn data(&mut self) -> Result<Option<Bytes>, Error> {
        let Self { connection, reader, idle, sending, is_framed, .. } = self;
        let Connection { io, deadline, is_unsent, dialect, .. } = &mut **connection;
        let data = poll_fn(|cx| {
            let before = sending.sent;
            if !sending.done {
                sending.poll(&mut &[][..], io, cx)?;
                *is_unsent = !sending.complete;
            }
            if let Poll::Ready(data) = reader.poll_data(io, cx) {
                // Who refused the first byte of it, has not read it either; and that told us of the reset, which reading will not.
                let is_unread = sending.is_in_body() || sending.was_refused();
                let advice = dialect.unread_body.filter(|_| is_unread);
                let is_unix = matches!(io.stream.socket(), Socket::Unix(_));
                let data = match (advice, data) {
                    // A unix socket has delivered all that was written before.
                    (Some(_), Err(cut)) if cut.is_reset() && is_unix && !*is_framed => Ok(None),
                    // TCP may have dropped the last of it, and has told the reset to whoever was writing.
                    (Some(advice), Ok(None)) if sending.was_refused() && !is_unix && !*is_framed => {
                        Err(failure(Cut::Eof).detail(advice))
                    }
                    (Some(advice), Err(cut)) if cut.is_reset() => Err(failure(cut).detail(advice)),
                    (_, data) => data.map_err(failure),
                };
                if matches!(data, Ok(None)) {
                    *reader = BodyReader::new(Framing::None);
                }
                return Poll::Ready(data);
            }
            if !deadline.is_armed() || sending.sent > before {
                deadline.arm(*idle);
            }
            deadline.poll(cx).map(|()| Err(Error::new(Reason::IdleTimeout)))
        })
        .await;
        deadline.disarm();
        data
    }

    /// The connection to a worker that is still busy with the request.
    #[must_use]
    pub fn into_busy(self) -> Box<Connection> {
        self.connection
    }

    /// What becomes of the connection after the end of the body.
    #[must_use]
    pub fn into_end(mut self) -> End {
        if !self.reader.is_end() {
            return End::Useless;
        }
        if !self.keep_alive || !self.sending.complete {
            self.connection.owes_request = !self.sending.complete;
            return End::Closing(self.connection);
        }
        if self.connection.io.unread().is_empty() && !self.may_trail {
            End::Reusable(self.connection)
        } else {
            End::Useless
        }
    }
}

/// What becomes of a connection after an exchange.
pub enum End {
    /// It can serve another exchange.
    Reusable(Box<Connection>),
    /// The worker closes it when it is done with the request.
    Closing(Box<Connection>),
    /// To be closed at once: the body was cut, or bytes came that belong to nothing.
    Useless,
}

fn failure(cut: Cut) -> Error {
    match cut {
        Cut::Eof => Error::new(Reason::EofInBody),
        Cut::Failed(source) => Error::new(Reason::EofInBody).source(source),
        Cut::Malformed => Error::new(Reason::BadBody),
    }
}
