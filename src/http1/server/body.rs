//! The body of the request at hand, read from the connection as it is asked for.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use super::connection::Connection;
use crate::error::{Error, Reason};
use crate::http::Source;
use crate::http1::body::{BodyReader, Cut};
use crate::http1::head::Framing;

/// RFC 9110, 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The body of the request at hand.
pub(super) struct RequestBody {
    connection: Rc<Connection>,
    reader: BodyReader,
    /// What is still to be written of the 100 that the client waits for.
    interim: &'static [u8],
    /// How long nothing may come. The connection's deadline is the body's while the body is read.
    patience: Duration,
}

impl RequestBody {
    /// Begins the body of the request whose head has just been read.
    pub(super) fn begin(
        connection: Rc<Connection>,
        framing: Framing,
        expects_continue: bool,
        patience: Duration,
    ) -> Self {
        connection.set_body_is_read(false);
        Self {
            connection,
            reader: BodyReader::new(framing),
            interim: if expects_continue { CONTINUE } else { b"" },
            patience,
        }
    }
}

impl Source for RequestBody {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let mut io = self.connection.io.borrow_mut();
        // A client that has begun its body does not wait for the 100 any more.
        if !self.interim.is_empty()
            && io.unread().is_empty()
            && ready!(io.poll_write_all(cx, &mut self.interim)).is_err()
        {
            return Poll::Ready(Some(Err(Reason::ClientGone.into())));
        }
        let deadline = &self.connection.deadline;
        let Poll::Ready(next) = self.reader.poll_data(&mut io, cx) else {
            if !deadline.is_armed() {
                deadline.arm(self.patience);
            }
            return deadline.poll(cx).map(|()| Some(Err(Error::new(Reason::BodyTimeout))));
        };
        deadline.disarm();
        if self.reader.is_end() {
            self.connection.set_body_is_read(true);
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
