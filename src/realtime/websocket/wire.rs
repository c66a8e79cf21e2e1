//! The client's end of a WebSocket: its frames become messages, by tungstenite; what is answered to them at once, and all that
//! is sent, goes into one [`Outbox`].
//!
//! Nothing is written while a message is read, and an idle connection holds one small buffer to read into.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tungstenite::error::CapacityError;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::boundary::Boundary;
use super::{Outbox, close};
use crate::config::MinRate;
use crate::error::Reason;
use crate::http::ClientStream;
use crate::runtime::{Allowance, Deadline};

/// What an idle connection holds to read into.
const READ_BUFFER: usize = 4 << 10;
/// A frame beyond this had a buffer of its own, which is let go between two messages.
const LARGE: u64 = 8 << 10;
/// Pongs are not written for somebody who does not take them: his pings are not read before.
const MAX_UNREAD_ANSWERS: usize = 64 << 10;
/// How much of what a client still sends is read after a Close, and for how long.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// What has come from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A whole text, UTF-8.
    Text(Bytes),
    /// Whole bytes.
    Binary(Bytes),
    /// A ping, which has its answer already, or a pong.
    Sign,
    /// The client's Close, which has no answer yet: its code and reason.
    Close(Option<u16>, String),
    /// What is no WebSocket. Nothing can be read any more.
    Broken(Broken),
    /// The connection has ended without a Close.
    Gone,
}

/// What a client has done wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The code of the Close that it gets.
    pub code: u16,
    /// What it is called in the log.
    pub reason: Reason,
    /// For the operator.
    pub detail: String,
}

/// A connection on which a WebSocket is spoken.
pub struct Wire<I> {
    io: I,
    context: WebSocketContext,
    /// What is to be written.
    pub outbox: Outbox,
    config: WebSocketConfig,
    boundary: Boundary,
    /// Bytes that have been read, in all.
    read: u64,
}

impl<I: ClientStream> Wire<I> {
    /// On a connection whose handshake is over. A message may have `max_message` bytes.
    #[must_use]
    pub fn new(io: I, max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let context = WebSocketContext::new(Role::Server, Some(config));
        Self { io, context, outbox: Outbox::default(), config, boundary: Boundary::default(), read: 0 }
    }

    /// Bytes that the client has sent so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// The next message. To be called again only after one that is neither a Close nor the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        if self.outbox.len() > MAX_UNREAD_ANSWERS {
            // Whoever writes them wakes the task.
            return Poll::Pending;
        }
        let (context, mut stream) = self.parts(cx);
        let received = match context.read(&mut stream) {
            Ok(Message::Text(text)) => Received::Text(text.into()),
            Ok(Message::Binary(bytes)) => Received::Binary(bytes),
            Ok(Message::Ping(_)) => {
                self.answer(cx);
                Received::Sign
            }
            Ok(Message::Pong(_) | Message::Frame(_)) => Received::Sign,
            Ok(Message::Close(None)) => Received::Close(None, String::new()),
            Ok(Message::Close(Some(frame))) => closed(frame.code.into(), frame.reason.to_string()),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.let_go();
                return Poll::Pending;
            }
            Err(error) => failed(error),
        };
        Poll::Ready(received)
    }

    /// What tungstenite knows of the connection, and the connection as it wants it.
    fn parts<'a, 'b>(&'a mut self, cx: &'a mut Context<'b>) -> (&'a mut WebSocketContext, Stream<'a, 'b, I>) {
        let Self { io, context, outbox, boundary, read, .. } = self;
        (context, Stream { io, cx, outbox, read, boundary })
    }

    /// Nothing is here but whole messages, which have been taken: the memory of a large one is not kept for the next.
    fn let_go(&mut self) {
        if self.boundary.largest() > LARGE && self.boundary.is_between() {
            self.context = WebSocketContext::new(Role::Server, Some(self.config));
            self.boundary = Boundary::default();
        }
    }

    /// Puts the answer to a ping into the outbox now: what comes behind it is not to overtake it.
    fn answer(&mut self, cx: &mut Context<'_>) {
        let (context, mut stream) = self.parts(cx);
        // An outbox takes everything.
        let _ = context.flush(&mut stream);
    }

    /// Takes in what has come and was not read, for when it is: see [`ClientStream::poll_gather`]. Who has left is told by
    /// reading.
    pub fn gather(&mut self, cx: &mut Context<'_>) {
        let _ = self.io.poll_gather(cx);
    }

    /// Writes what is in the outbox.
    ///
    /// # Errors
    /// As [`Outbox::poll_write`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_write(&mut self.io, cx)
    }

    /// Ends the connection in good order: our side first, as RFC 6455, 7.1.1 wants it of servers; then what the client may
    /// still be sending is read, so that the system does not take the Close from it with a reset.
    ///
    /// A client that takes less than `rate` (`limits.read_rate`) has had its time, and so has one that goes on sending.
    pub async fn end(mut self, rate: MinRate) {
        if self.write_all(rate).await.is_err() {
            return;
        }
        let (mut is_shut, mut left) = (false, LINGER_BYTES);
        let mut discarded = [0; 1 << 10];
        let ended = poll_fn(|cx| {
            if !is_shut {
                ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
                is_shut = true;
            }
            loop {
                let mut buffer = ReadBuf::new(&mut discarded);
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
                left = left.saturating_sub(buffer.filled().len());
                if buffer.filled().is_empty() || left == 0 {
                    return Poll::Ready(io::Result::Ok(()));
                }
            }
        });
        // However it ends, the connection is dropped now.
        let _ = Deadline::new().bound(LINGER, ended).await;
    }

    /// Writes what is in the outbox, to a client that takes it at this rate.
    async fn write_all(&mut self, rate: MinRate) -> io::Result<()> {
        let (mut allowance, deadline) = (Allowance::new(rate), Deadline::new());
        poll_fn(|cx| {
            let before = self.outbox.len();
            if let Poll::Ready(written) = self.outbox.poll_write(&mut self.io, cx) {
                return Poll::Ready(written);
            }
            let went = before - self.outbox.len();
            if went > 0 {
                allowance.moved(went as u64, &deadline);
            }
            self.gather(cx);
            allowance.poll_wait(&deadline, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }
}

/// tungstenite says that a code is none by answering with another.
fn closed(code: u16, reason: String) -> Received {
    if code == close::PROTOCOL_ERROR && reason == "Protocol violation" {
        return broken(code, Reason::WebsocketProtocol, "a Close with a code that may not be sent".to_owned());
    }
    Received::Close(Some(code), reason)
}

fn broken(code: u16, reason: Reason, detail: String) -> Received {
    Received::Broken(Broken { code, reason, detail })
}

fn failed(error: Error) -> Received {
    use tungstenite::error::ProtocolError;
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::Io(_)
        | Error::ConnectionClosed
        | Error::AlreadyClosed => Received::Gone,
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => broken(
            close::TOO_BIG,
            Reason::WebsocketTooBig,
            format!("a message of {size} bytes or more; the limit is {max_size} (websocket.max_message)"),
        ),
        Error::Utf8(_) => broken(close::INVALID_TEXT, Reason::WebsocketProtocol, "a text that is not UTF-8".to_owned()),
        error => broken(close::PROTOCOL_ERROR, Reason::WebsocketProtocol, error.to_string()),
    }
}

/// A connection as tungstenite wants it: it reads there, and writes into the outbox.
struct Stream<'a, 'b, I> {
    io: &'a mut I,
    cx: &'a mut Context<'b>,
    outbox: &'a mut Outbox,
    read: &'a mut u64,
    boundary: &'a mut Boundary,
}

impl<I: AsyncRead + Unpin> Read for Stream<'_, '_, I> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut *self.io).poll_read(self.cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                *self.read += count as u64;
                self.boundary.feed(buffer.filled());
                Ok(count)
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<I> Write for Stream<'_, '_, I> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbox.copy(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::realtime::websocket::Opcode;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    /// A short frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap()];
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    async fn next(wire: &mut Wire<DuplexStream>) -> Received {
        poll_fn(|cx| wire.poll_read(cx)).await
    }

    impl ClientStream for DuplexStream {}

    /// What a client has to take.
    const RATE: MinRate = MinRate { min: 500, after: Duration::from_secs(60) };

    fn paused(test: impl AsyncFnOnce(Wire<DuplexStream>, DuplexStream)) {
        crate::runtime::paused(async || {
            let (near, far) = duplex(1 << 20);
            test(Wire::new(near, 1000), far).await;
        });
    }

    #[test]
    fn frames_become_messages_and_pings_are_answered_before_what_follows() {
        paused(async |mut wire, mut client| {
            let all = [
                frame(0x01, b"he"),
                frame(0x89, b"there?"),
                frame(0x80, b"llo"),
                frame(0x82, b"\xff"),
                frame(0x8a, b""),
                frame(0x88, b"\x03\xe8bye"),
            ];
            client.write_all(&all.concat()).await.unwrap();
            assert_eq!(next(&mut wire).await, Received::Sign);
            wire.outbox.frame(Opcode::Text, &Bytes::from_static(b"a"));
            assert_eq!(next(&mut wire).await, Received::Text(Bytes::from_static(b"hello")));
            assert_eq!(next(&mut wire).await, Received::Binary(Bytes::from_static(b"\xff")));
            assert_eq!(next(&mut wire).await, Received::Sign);
            assert_eq!(next(&mut wire).await, Received::Close(Some(1000), "bye".to_owned()));
            assert_eq!(wire.bytes_read(), all.concat().len() as u64);
            wire.outbox.close(Some(1000), "");
            wire.end(RATE).await;
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"\x8a\x06there?\x81\x01a\x88\x02\x03\xe8", "its Close is not answered by itself");
        });
    }

    #[test]
    fn the_memory_of_a_large_message_is_let_go() {
        crate::runtime::paused(async || {
            let (near, mut client) = duplex(1 << 20);
            let mut wire = Wire::new(near, 1 << 20);
            let large = |first: u8| [&[first, 0xfe][..], &40_000_u16.to_be_bytes(), &[0; 4], &[b'x'; 40_000]].concat();
            for (parts, expected) in [(vec![large(0x82)], 40_000), (vec![large(0x02), large(0x80)], 80_000)] {
                client.write_all(&[parts.concat(), frame(0x82, b"next")[..3].to_vec()].concat()).await.unwrap();
                let Received::Binary(message) = next(&mut wire).await else { panic!() };
                assert_eq!(message.len(), expected);
                let is_quiet = async |wire: &mut Wire<DuplexStream>| {
                    poll_fn(|cx| Poll::Ready(wire.poll_read(cx).is_pending())).await
                };
                assert!(is_quiet(&mut wire).await);
                assert!(wire.boundary.largest() > LARGE, "the next frame has begun");
                client.write_all(&frame(0x82, b"next")[3..]).await.unwrap();
                assert_eq!(next(&mut wire).await, Received::Binary(Bytes::from_static(b"next")));
                assert!(is_quiet(&mut wire).await);
                assert_eq!(wire.boundary.largest(), 0, "it is a new one");
            }
            client.write_all(&frame(0x81, b"on")).await.unwrap();
            assert_eq!(next(&mut wire).await, Received::Text(Bytes::from_static(b"on")));
        });
    }

    #[test]
    fn what_is_wrong_has_its_code_and_reason() {
        use Reason::{WebsocketProtocol as Protocol, WebsocketTooBig as TooBig};
        for (bytes, code, reason) in [
            (frame(0x81, b"\xff"), 1007, Protocol),
            (frame(0x88, b"x"), 1002, Protocol),
            (frame(0x88, b"\x03\xed"), 1002, Protocol),
            (frame(0x88, b"\x03\xe8\xff"), 1007, Protocol),
            (frame(0x83, b""), 1002, Protocol),
            (frame(0xc1, b"x"), 1002, Protocol),
            (frame(0x80, b"x"), 1002, Protocol),
            (b"\x81\x01x".to_vec(), 1002, Protocol),
            (b"\x82\xfe\x03\xe9\0\0\0\0".to_vec(), 1009, TooBig),
        ] {
            paused(async |mut wire, mut client| {
                client.write_all(&bytes).await.unwrap();
                let Received::Broken(broken) = next(&mut wire).await else { panic!("{}", bytes.escape_ascii()) };
                assert_eq!((broken.code, broken.reason), (code, reason), "{}", bytes.escape_ascii());
                assert!(!broken.detail.is_empty());
            });
        }
    }

    #[test]
    fn the_end_without_a_close_is_no_close() {
        for bytes in [&b""[..], &frame(0x01, b"he"), &frame(0x81, b"hello")[..4]] {
            paused(async |mut wire, mut client| {
                client.write_all(bytes).await.unwrap();
                drop(client);
                assert_eq!(next(&mut wire).await, Received::Gone);
            });
        }
    }

    #[test]
    fn who_does_not_read_answers_sends_no_more_pings() {
        paused(async |mut wire, mut client| {
            client.write_all(&frame(0x89, &[7; 125]).repeat(2000)).await.unwrap();
            let mut pings = 0;
            while poll_fn(|cx| Poll::Ready(wire.poll_read(cx).is_ready())).await {
                pings += 1;
            }
            assert!(pings < 1000 && wire.outbox.len() <= MAX_UNREAD_ANSWERS + 200, "{pings}");
        });
    }

    #[test]
    fn a_client_that_takes_a_byte_now_and_then_does_not_keep_it_either() {
        crate::runtime::paused(async || {
            let (near, mut client) = duplex(64);
            let mut wire = Wire::new(near, 1000);
            wire.outbox.copy(&[7; 10_000]);
            wire.outbox.close(Some(1001), "");
            let begun = tokio::time::Instant::now();
            let reading = tokio::task::spawn_local(async move {
                let mut byte = [0];
                while client.read(&mut byte).await.is_ok_and(|count| count > 0) {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            });
            wire.end(RATE).await;
            let lasted = begun.elapsed();
            assert!(lasted >= RATE.after && lasted < RATE.after * 2, "{lasted:?}");
            reading.await.unwrap();
        });
    }

    #[test]
    fn a_client_that_goes_on_sending_does_not_keep_its_connection() {
        paused(async |mut wire, mut client| {
            wire.outbox.close(Some(1002), "");
            let sending = tokio::task::spawn_local(async move {
                while client.write_all(&[0; 1000]).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            wire.end(RATE).await;
            sending.await.unwrap();
        });
    }
}
