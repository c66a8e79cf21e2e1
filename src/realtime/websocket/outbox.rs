//! What is still to be written to a client: small frames in one piece, large ones as they are, and no memory when there are
//! none.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::close;

/// What is worth a copy, so that a burst of small frames is one write.
const SMALL: usize = 1 << 10;
/// Memory that is kept for the next frame when all is written.
const KEPT: usize = 1 << 9;

/// The kinds of frames that a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A whole text.
    Text,
    /// Whole bytes.
    Binary,
    /// The end.
    Close,
    /// Wants a pong.
    Ping,
    /// Says that the other is there.
    Pong,
}

impl Opcode {
    const fn bits(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// Bytes on their way to a client, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Those that go first.
    whole: VecDeque<Bytes>,
    /// Those behind them, from `written` on.
    tail: Vec<u8>,
    written: usize,
    length: usize,
    /// What was written may not have been handed on: TLS keeps what the socket does not take.
    is_unflushed: bool,
}

impl Outbox {
    /// Bytes that are not written yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether [`Self::poll_write`] has nothing to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.length == 0 && !self.is_unflushed
    }

    /// Appends a frame, final and unmasked as a server's are (RFC 6455, 5.1). Of a control frame no more than fits into one.
    pub fn frame(&mut self, opcode: Opcode, payload: &Bytes) {
        let is_control = opcode.bits() & 8 != 0;
        let payload = if is_control { payload.slice(..payload.len().min(125)) } else { payload.clone() };
        let before = self.tail.len();
        self.tail.push(0x80 | opcode.bits());
        match payload.len() {
            length @ 0..=125 => self.tail.push(u8::try_from(length).unwrap_or_default()),
            length => match u16::try_from(length) {
                Ok(length) => {
                    self.tail.push(126);
                    self.tail.extend_from_slice(&length.to_be_bytes());
                }
                Err(_) => {
                    self.tail.push(127);
                    self.tail.extend_from_slice(&(length as u64).to_be_bytes());
                }
            },
        }
        self.length += self.tail.len() - before;
        self.bytes(payload);
    }

    /// Appends a Close. The code has to be one that may be sent.
    pub fn close(&mut self, code: Option<u16>, reason: &str) {
        let payload = match code {
            None => Bytes::new(),
            Some(code) => Bytes::from([&code.to_be_bytes(), close::reason_that_fits(reason).as_bytes()].concat()),
        };
        self.frame(Opcode::Close, &payload);
    }

    /// Appends frames as they are on the wire.
    pub fn bytes(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if bytes.len() <= SMALL {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        self.settle();
        self.whole.push_back(bytes);
    }

    /// The same from somebody else's memory.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.tail.extend_from_slice(bytes);
    }

    /// Forgets what is not written.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What has been gathered goes before what comes.
    fn settle(&mut self) {
        if self.tail.len() == self.written {
            (self.tail, self.written) = (Vec::new(), 0);
            return;
        }
        let gathered = Bytes::from(std::mem::take(&mut self.tail));
        self.whole.push_back(gathered.slice(std::mem::take(&mut self.written)..));
    }

    /// Writes until everything is written and handed on, or the other end takes no more.
    ///
    /// # Errors
    /// What the other end's connection says; it takes no more then.
    pub fn poll_write<I: AsyncWrite + Unpin>(&mut self, io: &mut I, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.length > 0 {
            let next = self.whole.front().map_or(&self.tail[self.written..], |bytes| &bytes[..]);
            let count = ready!(Pin::new(&mut *io).poll_write(cx, next))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, count: usize) {
        self.length -= count;
        match self.whole.front_mut() {
            Some(bytes) if bytes.len() == count => {
                self.whole.pop_front();
                if self.whole.is_empty() {
                    self.whole = VecDeque::new();
                }
            }
            Some(bytes) => *bytes = bytes.slice(count..),
            None => {
                self.written += count;
                if self.written < self.tail.len() {
                    // Where there is always more, the end is never reached: what is written does not stay until then.
                    if self.written >= KEPT && self.written * 2 >= self.tail.len() {
                        self.tail.drain(..std::mem::take(&mut self.written));
                    }
                    return;
                }
                self.written = 0;
                if self.tail.capacity() > KEPT { self.tail = Vec::new() } else { self.tail.clear() }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// All that is written, to somebody who takes little at a time.
    fn written(outbox: &mut Outbox) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(100);
            let mut all = Vec::new();
            tokio::join!(
                async {
                    poll_fn(|cx| outbox.poll_write(&mut near, cx)).await.unwrap();
                    drop(near);
                },
                far.read_to_end(&mut all)
            )
            .1
            .unwrap();
            all
        })
    }

    #[test]
    fn lengths_are_written_in_the_shortest_form() {
        for (length, head) in [
            (0_usize, &[0x82_u8, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65535, &[0x82, 126, 255, 255]),
            (65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut outbox = Outbox::default();
            outbox.frame(Opcode::Binary, &Bytes::from(vec![7; length]));
            assert_eq!(outbox.len(), head.len() + length);
            let all = written(&mut outbox);
            assert_eq!((&all[..head.len()], all.len()), (head, head.len() + length));
            assert!(outbox.is_empty());
        }
    }

    #[test]
    fn an_empty_outbox_keeps_next_to_no_memory() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            outbox.frame(Opcode::Text, &Bytes::from(vec![b'x'; 500]));
            outbox.frame(Opcode::Text, &Bytes::from(vec![b'x'; 5000]));
        }
        written(&mut outbox);
        assert!(outbox.is_empty() && outbox.tail.capacity() <= KEPT && outbox.whole.capacity() == 0);
    }

    /// Takes a thousand bytes at a time.
    struct Slow(usize);

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.0 == 0 {
                return Poll::Pending;
            }
            let count = bytes.len().min(self.0);
            self.0 -= count;
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn who_is_always_a_little_behind_costs_no_more_than_what_he_has_not_taken() {
        let mut outbox = Outbox::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        outbox.copy(&[7; 60_000]);
        for _ in 0..10_000 {
            outbox.copy(&[7; 1_000]);
            assert!(outbox.poll_write(&mut Slow(1_000), &mut cx).is_pending());
            assert_eq!(outbox.len(), 60_000);
        }
        assert!(outbox.tail.capacity() < 4 * 61_000, "{}", outbox.tail.capacity());
    }

    #[test]
    fn a_close_has_a_code_and_as_much_of_its_reason_as_fits() {
        for (code, reason, expected) in [
            (None, "lost", vec![0x88, 0]),
            (Some(1000), "", vec![0x88, 2, 3, 0xe8]),
            (Some(1001), "bye", vec![0x88, 5, 3, 0xe9, b'b', b'y', b'e']),
        ] {
            let mut outbox = Outbox::default();
            outbox.close(code, reason);
            assert_eq!(written(&mut outbox), expected);
        }
        let mut outbox = Outbox::default();
        outbox.close(Some(1000), &"x".repeat(200));
        assert_eq!(written(&mut outbox)[..2], [0x88, 125]);
    }

    /// Takes everything, and is not done with it before it has been asked twice.
    #[derive(Default)]
    struct Lazy {
        taken: usize,
        flushes: usize,
    }

    impl AsyncWrite for Lazy {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.taken += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes == 1 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_tls_has_taken_is_not_done_before_the_socket_has_it() {
        let (mut outbox, mut io) = (Outbox::default(), Lazy::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(outbox.is_done());
        outbox.copy(b"abc");
        assert!(outbox.poll_write(&mut io, &mut cx).is_pending());
        assert_eq!((io.taken, outbox.is_empty(), outbox.is_done()), (3, true, false));
        assert!(outbox.poll_write(&mut io, &mut cx).is_ready());
        assert!(outbox.is_done());
        assert!(outbox.poll_write(&mut io, &mut cx).is_ready());
        assert_eq!(io.flushes, 2, "there is nothing to hand on");
    }

    proptest! {
        #[test]
        fn frames_go_out_in_order_whatever_their_size(sizes in proptest::collection::vec(0_usize..3000, 0..12)) {
            let (mut outbox, mut expected) = (Outbox::default(), Vec::new());
            for (index, size) in sizes.iter().enumerate() {
                let bytes = vec![u8::try_from(index).unwrap(); *size];
                expected.extend_from_slice(&bytes);
                if index % 2 == 0 { outbox.bytes(Bytes::from(bytes)) } else { outbox.copy(&bytes) }
            }
            prop_assert_eq!(outbox.len(), expected.len());
            prop_assert_eq!(written(&mut outbox), expected);
        }
    }
}
