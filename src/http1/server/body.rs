//! The body of the request at hand, read from the connection as it is asked for.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::connection::Connection;
use crate::config::MinRate;
use crate::error::{Error, Reason};
use crate::http::Source;
use crate::http1::body::{BodyReader, Cut};
use crate::http1::head::Framing;
use crate::runtime::Allowance;

/// RFC 9110, 15.2.1.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is taken from a body before the thread's other tasks have their turn: bytes, and for each piece of it at least so
/// many, because a body in chunks of one byte costs by the chunk.
const TURN: usize = 64 << 10;
const PIECE: usize = 256;

/// The body of the request at hand.
pub(super) struct RequestBody {
    connection: Rc<Connection>,
    reader: BodyReader,
    /// How slow the client may be. The connection's deadline is the body's while the body is read.
    allowance: Allowance,
    /// What was taken in this turn.
    turn: usize,
}

impl RequestBody {
    /// Begins the body of the request whose head has just been read.
    pub(super) fn begin(connection: Rc<Connection>, framing: Framing, expects_continue: bool, rate: MinRate) -> Self {
        connection.set_body_is_read(false);
        connection.interim.set(if expects_continue { CONTINUE } else { b"" });
        Self { connection, reader: BodyReader::new(framing), allowance: Allowance::new(rate), turn: 0 }
    }
}

impl Source for RequestBody {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if self.turn >= TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Self { connection, reader, allowance, turn } = self;
        let (mut io, deadline) = (connection.io.borrow_mut(), &connection.deadline);
        let mut interim = connection.interim.get();
        // A client that has begun its body does not wait for the 100 any more.
        let next = match interim.is_empty() || !io.unread().is_empty() {
            true => reader.poll_data(&mut io, cx),
            false => {
                let written = io.poll_write_all(cx, &mut interim);
                connection.interim.set(interim);
                match written {
                    Poll::Ready(Ok(())) => reader.poll_data(&mut io, cx),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(Cut::Failed(error))),
                    Poll::Pending => Poll::Pending,
                }
            }
        };
        let Poll::Ready(next) = next else {
            *turn = 0;
            ready!(allowance.poll_wait(deadline, cx));
            connection.note_eviction();
            return Poll::Ready(Some(Err(Error::new(Reason::BodyTimeout))));
        };
        let bytes = next.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len);
        allowance.moved(bytes as u64, deadline);
        *turn += bytes.max(PIECE);
        if reader.is_end() {
            connection.set_body_is_read(true);
        }
        Poll::Ready(next.map_err(refusal).transpose())
    }

    fn remaining(&self) -> Option<u64> {
        self.reader.remaining()
    }
}

fn refusal(cut: Cut) -> Error {
    match cut {
        Cut::Eof => Error::new(Reason::ClientGone),
        Cut::Failed(source) => Error::new(Reason::ClientGone).source(source),
        Cut::Malformed => Error::new(Reason::BadChunk),
    }
}
