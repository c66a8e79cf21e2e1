//! The request on its way out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::verdict::{self, End, Proof, Sent};
use super::{Patience, ReadAhead, Withhold};
use crate::error::{Error, Reason};
use crate::http::Body;
use crate::runtime::{Socket, Stream};

/// The request on its way out.
pub(super) struct Sending {
    pub(super) piece: Bytes,
    body: Body,
    /// The system does not send from a file.
    reads_files: bool,
    /// Bytes of head and body that the kernel has taken.
    pub(super) sent: u64,
    /// Bytes of the head among them.
    head: u64,
    /// What the body waits for now.
    withhold: Withhold,
    /// What a reset means while no more than the head has gone.
    proof: Proof,
    /// A 100 was waited for and has come.
    has_continued: bool,
    /// Nothing more will be written: all has gone, or the worker takes no more.
    pub(super) done: bool,
    /// All has gone.
    pub(super) complete: bool,
    /// What writing ran into. The kernel tells a reset only once: to whoever asks first.
    failure: Option<io::Error>,
}

impl Sending {
    pub(super) fn new(head: usize, body: Body, withhold: Withhold) -> Self {
        Self {
            piece: Bytes::new(),
            body,
            reads_files: false,
            sent: 0,
            head: head as u64,
            withhold,
            proof: if matches!(withhold, Withhold::UntilContinue(_)) { Proof::Reset } else { Proof::UnixReset },
            has_continued: false,
            done: false,
            complete: false,
            failure: None,
        }
    }

    /// Writes what the socket takes: first what is left of `head`. Only the body's own source can fail here: a worker
    /// that has closed its side may still have answered, which reading will tell.
    pub(super) fn poll(
        &mut self,
        head: &mut &[u8],
        io: &mut ReadAhead<Stream>,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        loop {
            let bytes = if head.is_empty() { &self.piece[..] } else { *head };
            if bytes.is_empty() {
                if self.withhold != Withhold::Nothing && self.poll_withheld(io.stream.socket(), cx).is_pending() {
                    // TLS may have taken more than the socket has. What goes wrong is told again by the next write.
                    let _ = Pin::new(&mut io.stream).poll_flush(cx);
                    return Ok(());
                }
                if self.sends_file(&io.stream, cx) {
                    return Ok(());
                }
                match self.body.poll_data(cx) {
                    Poll::Ready(Some(piece)) => self.piece = piece?,
                    Poll::Ready(None) => {
                        // A source is not polled again after its end.
                        self.body = Body::Empty;
                        // TLS may have taken more than the socket has.
                        let Poll::Ready(flushed) = Pin::new(&mut io.stream).poll_flush(cx) else { return Ok(()) };
                        self.done = true;
                        self.complete = flushed.is_ok();
                        self.failure = flushed.err();
                        return Ok(());
                    }
                    Poll::Pending => return Ok(()),
                }
                continue;
            }
            match Pin::new(&mut io.stream).poll_write(cx, bytes) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.sent += count as u64;
                    if head.is_empty() { self.piece.advance(count) } else { *head = &head[count..] }
                }
                Poll::Ready(result) => {
                    self.failure = result.err();
                    self.done = true;
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Sends what lies in a file from there. Whether that was all for this turn.
    fn sends_file(&mut self, stream: &Stream, cx: &mut Context<'_>) -> bool {
        let Stream::Plain(socket) = stream else { return false };
        while !self.reads_files {
            let Some(span) = self.body.span() else { return false };
            match socket.poll_send_file(cx, &span) {
                Poll::Ready(Ok(Some(count))) => {
                    self.sent += count as u64;
                    self.body.sent(count as u64);
                    if count == span.length {
                        // The thread's other tasks have their turn.
                        cx.waker().wake_by_ref();
                        return true;
                    }
                }
                Poll::Ready(Ok(None)) => self.reads_files = true,
                Poll::Ready(Err(error)) => {
                    self.failure = Some(error);
                    self.done = true;
                    return true;
                }
                Poll::Pending => return true,
            }
        }
        false
    }

    /// Ready when the body may go.
    fn poll_withheld(&mut self, socket: &Socket, cx: &mut Context<'_>) -> Poll<()> {
        match self.withhold {
            Withhold::Nothing => Poll::Ready(()),
            Withhold::UntilContinue(_) => Poll::Pending,
            Withhold::UntilRead => socket.poll_all_read(cx).map(|()| self.release()),
        }
    }

    /// Lets the body go.
    fn release(&mut self) {
        self.withhold = Withhold::Nothing;
    }

    /// Whether the body waits, and for a 100.
    pub(super) fn is_awaiting_continue(&self) -> bool {
        matches!(self.withhold, Withhold::UntilContinue(_)) && self.is_withheld()
    }

    /// The time for a 100 is over. Whether the body goes without: then the worker may be one that has begun, and a reset
    /// proves nothing any more.
    pub(super) fn give_up_continue(&mut self) -> bool {
        let is_given_up =
            self.is_awaiting_continue() && matches!(self.withhold, Withhold::UntilContinue(expect) if !expect.is_known);
        if is_given_up {
            self.proof = Proof::None;
            self.release();
        }
        is_given_up
    }

    /// Whether the head has gone and the body waits.
    fn is_withheld(&self) -> bool {
        self.withhold != Withhold::Nothing && self.sent >= self.head && !self.done
    }

    /// A 100 has come. Whether it was waited for: then the body goes, and from now on the app may run.
    pub(super) fn continued(&mut self) -> bool {
        let awaited = matches!(self.withhold, Withhold::UntilContinue(_));
        if awaited {
            self.proof = Proof::None;
            self.has_continued = true;
            self.release();
        }
        awaited
    }

    /// Whether a 100 was waited for and has come.
    pub(super) fn has_continued(&self) -> bool {
        self.has_continued
    }

    /// The answer has come. A worker that gives it instead of a 100 wants no body (RFC 9110, 10.1.1); any other gets
    /// the rest.
    pub(super) fn answered(&mut self) {
        self.done |= matches!(self.withhold, Withhold::UntilContinue(_));
        self.release();
    }

    /// How long what comes next may take, after something has been sent.
    pub(super) fn patience(&self, patience: Patience) -> Duration {
        match self.withhold {
            Withhold::UntilContinue(expect) if self.is_withheld() => expect.patience,
            Withhold::UntilRead if self.is_withheld() => patience.head,
            _ => patience.idle,
        }
    }

    /// The reason when the time is over: the worker has all that it is to have for now, or does not take it.
    pub(super) fn late(&self) -> Reason {
        if self.done || self.is_withheld() { Reason::HeadTimeout } else { Reason::IdleTimeout }
    }

    /// The time is over for a worker that has not read the head. It may do so yet: as much of the body as the kernel
    /// takes goes after it, and most are taken whole. One that owes a 100 gets nothing unasked: it has not begun, and is
    /// not to.
    pub(super) fn finish_now(&mut self, socket: &Socket) {
        if !self.is_withheld() || self.is_awaiting_continue() {
            return;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            while !self.piece.is_empty() {
                let count = socket.send_now(&self.piece);
                if count == 0 {
                    return;
                }
                self.sent += count as u64;
                self.piece.advance(count);
            }
            match self.body.poll_data(&mut cx) {
                Poll::Ready(Some(Ok(piece))) => self.piece = piece,
                Poll::Ready(None) => {
                    self.complete = true;
                    return;
                }
                Poll::Ready(Some(Err(_))) | Poll::Pending => return,
            }
        }
    }

    /// The connection has ended before the head of the answer was whole: how (`None`: in good order), after what.
    pub(super) fn ended(&mut self, begun: bool, failure: Option<io::Error>, socket: &Socket) -> Error {
        let read_fine = failure.is_none();
        let failure = failure.or_else(|| self.failure.take());
        let end = match &failure {
            Some(error) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
            // The end of a TLS connection without the goodbye that it should have.
            Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => End::Closed,
            Some(_) if !read_fine => End::Failed,
            _ => End::Closed,
        };
        let proves = match self.proof {
            Proof::UnixReset => socket.reset_means_unread(),
            Proof::Reset => true,
            Proof::None => false,
        };
        let (reason, retry) = verdict::verdict(self.phase(), begun, proves, end);
        let error = Error::new(reason).retry(retry);
        match failure {
            Some(source) => error.source(source),
            None => error,
        }
    }

    /// Whether some of the body has gone.
    pub(super) fn is_in_body(&self) -> bool {
        self.phase() == Sent::More
    }

    /// Whether the worker has refused to take what was still to be written.
    pub(super) fn was_refused(&self) -> bool {
        self.failure.is_some()
    }

    fn phase(&self) -> Sent {
        match self.sent {
            sent if sent < self.head => Sent::Part,
            sent if sent == self.head => Sent::Head,
            _ => Sent::More,
        }
    }
}
