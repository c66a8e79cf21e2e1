//! A WebSocket between its client and a worker: bytes both ways, until both have said what they had to say.
//!
//! Nothing is framed anew, so that extensions, masks and fragments pass as they are, and a message costs a read and a write.
//! Only where frames end is followed ([`frames`]), so that the edge can say a word of its own in between ([`said`]): that it
//! is going away (1001), that the worker has (1011), or a ping.
//!
//! - Each direction holds one buffer at most, and only while there is something in it: who does not read stops who writes.
//! - The end of one direction is passed on, and the other goes on. Once one has ended, [`LINGER`] without a byte ends both.
//! - There is no limit of time: a WebSocket may be silent for as long as it likes. Whether the ends are still there, the system
//!   asks (TCP keep-alive), and the edge, where `websocket.ping` says so.
//! - It holds no slot of the waiting room: that is given back with the worker's 101.

mod frames;
mod said;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use self::frames::Frames;
use self::said::{Said, Word};
use super::endpoint::Endpoint;
use super::exchange::Client;
use crate::error::{Error, Reason};
use crate::http::upgrade::Running;
use crate::http::{ClientIo, Exchange, Takeover};
use crate::http1::client::Connection;
use crate::runtime::buffers::Buffer;
use crate::runtime::{Deadline, drain};

/// How long the other direction may be silent once one has ended.
const LINGER: Duration = Duration::from_secs(10);
/// The same while the client does not take what has been said to it.
const STALLED: Duration = Duration::from_secs(60);
/// How often it is looked whether a client is there still of whom nothing is read.
const LOOK: Duration = Duration::from_secs(5);
/// Reads of one direction in one poll.
const TURNS: u32 = 16;
/// Pings in a row that may stay without a word.
const UNANSWERED: u32 = 3;

/// The close codes that the edge says (RFC 6455, 7.4.1).
const GOING_AWAY: u16 = 1001;
const INTERNAL_ERROR: u16 = 1011;

/// A worker's connection that has left HTTP.
pub(super) struct Tunnel {
    pub(super) worker: Box<Connection>,
    /// For whom its failures are counted.
    pub(super) client: Rc<Client>,
    pub(super) endpoint: Arc<Endpoint>,
    /// After how long without a word the client is asked for one.
    pub(super) ping: Option<Duration>,
}

impl Takeover for Tunnel {
    fn run(self: Box<Self>, io: ClientIo, exchange: Rc<Exchange>) -> Running {
        let Self { mut worker, client, endpoint, ping } = *self;
        worker.switched().stream.socket().keep_alive();
        let mut pass = Pass::new(io, worker, ping);
        Box::pin(async move {
            let result = poll_fn(|cx| pass.poll(cx)).await;
            drop(pass);
            if let Err(error) = &result
                && error.reason == Reason::WebsocketCut
            {
                client.failed(error, &endpoint, &exchange);
            }
            result
        })
    }
}

/// Both ends, and what is on its way between them.
struct Pass {
    client: ClientIo,
    worker: Box<Connection>,
    up: Way,
    /// Where the client's frames end.
    asked: Frames,
    down: Way,
    said: Said,
    /// Of the next ping, or of the end.
    deadline: Deadline,
    ping: Option<Duration>,
    /// Bytes of the client when the last ping was due, and pings since it has said anything.
    heard: u64,
    unanswered: u32,
    is_draining: bool,
    /// When the client is told that we are going away: not all hear it at once, for they come back at once.
    parting: Option<Deadline>,
    /// Whether the client has been told that we are going away.
    has_said_goodbye: bool,
    /// Whether the client has closed its side behind what the worker does not take.
    has_left: bool,
    /// Whether the deadline is that of the next look for such a client.
    is_looking: bool,
    /// Why it ends, once that is certain.
    ended: Option<Reason>,
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What has been read and not been written, from `start` on. Held only while there is something in it.
    held: Option<Buffer>,
    start: usize,
    /// Whether the writer may keep some of what it was given.
    is_unflushed: bool,
    /// Whether its source has ended.
    is_over: bool,
    /// Whether its target has been told so, or takes nothing any more.
    is_done: bool,
    /// Bytes in all.
    bytes: u64,
}

impl Way {
    /// Whether its target does not take what there is.
    fn is_blocked(&self) -> bool {
        self.held.is_some() || self.is_unflushed
    }

    /// Writes what is held. Ready when nothing is.
    fn poll_write<W: AsyncWrite + Unpin>(&mut self, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(held) = &self.held {
            if self.start < held.len() {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, &held[self.start..]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += count;
                self.bytes += count as u64;
                self.is_unflushed = true;
            }
            if self.start == held.len() {
                (self.held, self.start) = (None, 0);
            }
        }
        if self.is_unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into an empty buffer. Zero at the end.
    fn poll_read<R: AsyncRead + Unpin>(from: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<Buffer>> {
        let mut buffer = Buffer::take();
        // The future keeps no state between two polls.
        ready!(pin!(from.read_buf(&mut *buffer)).poll(cx))?;
        Poll::Ready(Ok(buffer))
    }
}

impl Pass {
    fn new(client: ClientIo, worker: Box<Connection>, ping: Option<Duration>) -> Self {
        let deadline = Deadline::new();
        if let Some(ping) = ping {
            deadline.arm(ping);
        }
        Self {
            client,
            worker,
            up: Way::default(),
            asked: Frames::default(),
            down: Way::default(),
            said: Said::default(),
            deadline,
            ping,
            heard: 0,
            unanswered: 0,
            is_draining: false,
            parting: None,
            has_said_goodbye: false,
            has_left: false,
            is_looking: false,
            ended: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_drain(cx);
        let before = self.progress();
        loop {
            if let Poll::Ready(Err(error)) = self.poll_up(cx) {
                return Poll::Ready(self.broken(error));
            }
            if let Poll::Ready(Err(error)) = self.poll_down(cx) {
                return Poll::Ready(self.broken(error));
            }
            if self.up.is_done && self.down.is_done {
                return Poll::Ready(self.end());
            }
            if self.is_half_over() && !self.has_said_goodbye && self.progress() != before {
                self.deadline.arm(if self.down.is_blocked() { STALLED } else { LINGER });
            }
            if self.may_look() && self.up.is_blocked() && !std::mem::replace(&mut self.is_looking, true) {
                self.deadline.arm(LOOK);
            }
            ready!(self.deadline.poll(cx));
            if let Some(result) = self.time_is_over() {
                return Poll::Ready(result);
            }
        }
    }

    /// Looks whether the edge is stopping, and whether it is this client's turn to hear of it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) {
        if drain::is_draining() && !std::mem::replace(&mut self.is_draining, true) {
            let parting = Deadline::new();
            parting.arm(drain::ending().moment());
            self.parting = Some(parting);
        }
        if self.parting.as_ref().is_some_and(|parting| parting.poll(cx).is_ready()) {
            self.parting = None;
            self.say_goodbye();
        }
    }

    /// From the client to the worker.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut turns = 0;
        while !self.up.is_done {
            ready!(another(&mut turns, cx));
            let Poll::Ready(written) = self.up.poll_write(&mut self.worker.switched().stream, cx) else {
                if !self.has_left {
                    ready!(self.client.poll_gather(cx)).map_err(client_gone)?;
                    self.has_left = true;
                }
                return Poll::Pending;
            };
            if written.is_err() {
                // It takes no more. What it has said before is still to be read, and its end.
                self.up.is_done = true;
                break;
            }
            if self.up.is_over {
                // An error is a worker that has gone, which reading tells as well.
                let _ = ready!(Pin::new(&mut self.worker.switched().stream).poll_shutdown(cx));
                self.up.is_done = true;
                break;
            }
            let read = ready!(Way::poll_read(&mut self.client, cx)).map_err(client_gone)?;
            if read.is_empty() {
                self.client_is_over();
                continue;
            }
            self.asked.follow(&read);
            self.up.held = Some(read);
        }
        if !self.up.is_over {
            // The worker takes no more. Whether the client has gone, writing to it tells.
            let _ = self.client.poll_gather(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// From the worker to the client.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut turns = 0;
        while !self.down.is_done {
            ready!(another(&mut turns, cx));
            ready!(self.down.poll_write(&mut self.client, cx)).map_err(client_gone)?;
            if self.said.has_word() && self.said.is_between() {
                self.said.speak(self.down.held.get_or_insert_with(Buffer::take));
                continue;
            }
            if self.down.is_over {
                if !self.said.is_between() {
                    // Cut within a frame: nothing can be said any more that would be understood.
                    return Poll::Ready(Err(self.cut()));
                }
                ready!(Pin::new(&mut self.client).poll_shutdown(cx)).map_err(client_gone)?;
                self.down.is_done = true;
                break;
            }
            let read = ready!(self.poll_worker(cx));
            match read {
                Ok(mut read) if !read.is_empty() => {
                    self.said.pass(&mut read);
                    self.down.held = (!read.is_empty()).then_some(read);
                }
                _ => self.worker_is_over(),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_worker(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Buffer>> {
        let worker = self.worker.switched();
        if worker.unread().is_empty() {
            return Way::poll_read(&mut worker.stream, cx);
        }
        // What came together with its 101.
        let mut first = Buffer::take();
        first.extend_from_slice(worker.unread());
        worker.consume(first.len());
        Poll::Ready(Ok(first))
    }

    /// The client has closed its side. It has left without a word where nobody had said goodbye.
    fn client_is_over(&mut self) {
        self.up.is_over = true;
        if !self.asked.has_closed() && !self.said.is_closed() {
            self.ended = self.ended.or(Some(Reason::ClientGone));
        }
    }

    /// The worker has closed, or failed. The client hears so, unless it has heard a close frame, or has left itself.
    fn worker_is_over(&mut self) {
        self.down.is_over = true;
        if self.said.is_closed() || self.asked.has_closed() || self.up.is_over {
            return;
        }
        self.ended = self.ended.or(Some(Reason::WebsocketCut));
        if self.said.is_between() {
            self.said.say(Word::Close(INTERNAL_ERROR));
        }
    }

    /// We are going away: the client is told, and has some time to say goodbye to the worker.
    fn say_goodbye(&mut self) {
        if self.said.is_closed() || self.down.is_over {
            return;
        }
        self.has_said_goodbye = true;
        self.ended = self.ended.or(Some(Reason::ShuttingDown));
        self.said.say(Word::Close(GOING_AWAY));
        self.ping = None;
        self.deadline.arm(drain::ending().patience);
    }

    /// What tells that something has happened.
    fn progress(&self) -> (u64, u64, bool, bool) {
        (self.up.bytes, self.down.bytes, self.is_half_over(), self.down.is_blocked())
    }

    /// Whether the deadline is free to look for a client that has gone while nothing of it is read.
    fn may_look(&self) -> bool {
        self.ping.is_none() && !self.is_half_over() && !self.has_said_goodbye
    }

    fn is_half_over(&self) -> bool {
        self.up.is_over || self.down.is_over || self.up.is_done || self.said.is_closed() || self.has_left
    }

    /// What the deadline was armed for. `None`: it goes on.
    fn time_is_over(&mut self) -> Option<Result<(), Error>> {
        if !self.is_half_over() && !self.has_said_goodbye && self.up.is_blocked() && self.client.is_left() {
            self.has_left = true;
            return None;
        }
        if self.may_look() {
            self.is_looking = false;
            self.deadline.disarm();
            return None;
        }
        if let Some(ping) = self.ping.filter(|_| !self.is_half_over()) {
            if self.up.bytes != std::mem::replace(&mut self.heard, self.up.bytes) {
                self.unanswered = 0;
            } else if self.said.has_word() || self.down.is_blocked() || self.up.is_blocked() {
                // It has not been asked yet, as it takes nothing of what comes before; or the worker does not take what it says.
            } else if self.unanswered == UNANSWERED {
                return Some(Err(Error::new(Reason::PingTimeout)));
            } else {
                self.unanswered += 1;
                self.said.say(Word::Ping);
            }
            self.deadline.arm(ping);
            return None;
        }
        Some(self.end_now())
    }

    /// One has ended and the other has had its time.
    fn end_now(&mut self) -> Result<(), Error> {
        if self.has_left {
            self.ended = self.ended.or(Some(Reason::ClientGone));
        }
        // At once, or not at all: nobody waits any longer.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let is_whole = self.said.is_between() && !self.down.is_blocked();
        if is_whole && matches!(Pin::new(&mut self.client).poll_shutdown(&mut cx), Poll::Ready(Ok(()))) {
            return self.end();
        }
        Err(Error::new(self.ended.unwrap_or(Reason::ClientStalled)))
    }

    /// Both have ended.
    fn end(&self) -> Result<(), Error> {
        match self.ended {
            None => Ok(()),
            Some(reason) => Err(Error::new(reason).detail(detail(reason))),
        }
    }

    /// The client has gone. Where that is no more than the consequence of what was certain before, that is the reason; and who
    /// has said goodbye and heard it may go as he likes.
    fn broken(&self, error: Error) -> Result<(), Error> {
        let has_parted = self.said.is_closed() && self.asked.has_closed();
        if self.ended.is_some() || has_parted { self.end() } else { Err(error) }
    }

    fn cut(&self) -> Error {
        let reason = self.ended.unwrap_or(Reason::WebsocketCut);
        Error::new(reason).detail(detail(reason))
    }
}

/// Whether there is another turn in this poll: the thread's other tasks, and the other direction, have theirs.
fn another(turns: &mut u32, cx: &mut Context<'_>) -> Poll<()> {
    *turns += 1;
    if *turns > TURNS {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(())
}

fn detail(reason: Reason) -> &'static str {
    match reason {
        Reason::WebsocketCut => "the worker closed the connection of a WebSocket without a close frame",
        _ => "",
    }
}

/// The client has closed in the middle, or does not answer the system any more.
fn client_gone(source: io::Error) -> Error {
    Error::new(Reason::ClientGone).source(source)
}
