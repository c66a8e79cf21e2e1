//! What a client sends on a stream, whether or not anybody reads it at the moment.
//!
//! In `h2` each frame that waits costs hundreds of bytes beside its own, and small ones that wait are soon too many for it
//! ([`super::DATA_FRAMES`]). So whoever drives a stream takes in what its reader has left ([`Incoming::gather`]): then it is no
//! more than bytes, of which the client's windows let no more come than they say.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;

/// A frame with less than this is put together with its neighbours: as a part of what `h2` has read at once, it would keep all of
/// that.
const SMALL: usize = 4 << 10;
/// As far as a piece of them goes: whoever reads takes one at a time, and gives its window back before the next.
const PIECE: usize = 16 << 10;

/// The DATA of a stream.
pub(super) struct Incoming {
    stream: RecvStream,
    /// What was taken in and is not read yet: first these, then `small`.
    ahead: VecDeque<Bytes>,
    small: BytesMut,
    /// Whether nothing more comes.
    is_over: bool,
    /// Who waits for more.
    reader: Option<Waker>,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, ahead: VecDeque::new(), small: BytesMut::new(), is_over: false, reader: None }
    }

    /// The next bytes, which still count against the client's windows; `None` at the end.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if let Some(data) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(data)));
        }
        if !self.small.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.small).freeze())));
        }
        // Behind its end it tells the same again.
        let polled = self.stream.poll_data(cx);
        if polled.is_pending() && !self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
        polled
    }

    /// Takes in what has come. The task of `cx` is woken when there is more.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>) {
        let mut is_news = false;
        while !self.is_over {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.put(data),
                Poll::Ready(Some(Err(_)) | None) => self.is_over = true,
                Poll::Pending => break,
            }
            is_news = true;
        }
        // `h2` wakes one task alone, which is this one now.
        if let Some(reader) = self.reader.take_if(|reader| is_news && !reader.will_wake(cx.waker())) {
            reader.wake();
        }
    }

    fn put(&mut self, data: Bytes) {
        let is_small = data.len() < SMALL;
        if !self.small.is_empty() && (!is_small || self.small.len() + data.len() > PIECE) {
            self.ahead.push_back(std::mem::take(&mut self.small).freeze());
        }
        if is_small {
            self.small.extend_from_slice(&data);
        } else {
            self.ahead.push_back(data);
        }
    }

    /// To be called by whoever has gathered and does so no more: another reader has to ask `h2` itself from now on.
    pub(super) fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Takes in what has come and drops it, and what was taken in before. How many bytes; their windows stay used.
    pub(super) fn discard(&mut self, cx: &mut Context<'_>) -> usize {
        self.gather(cx);
        let ahead: usize = self.ahead.drain(..).map(|data| data.len()).sum();
        ahead + std::mem::take(&mut self.small).len()
    }

    /// Lets the client send so many bytes more.
    ///
    /// # Errors
    /// The stream has ended.
    pub(super) fn release(&mut self, bytes: usize) -> Result<(), h2::Error> {
        self.stream.flow_control().release_capacity(bytes)
    }

    /// Whether the client has ended its side, and all that came before was read.
    pub(super) fn is_read(&self) -> bool {
        self.ahead.is_empty() && self.small.is_empty() && self.stream.is_end_stream()
    }

    /// The stream, and what has been taken in of it.
    pub(super) fn into_parts(self) -> (RecvStream, Bytes) {
        let Self { stream, mut ahead, small, .. } = self;
        let first = match (ahead.pop_front(), ahead.is_empty() && small.is_empty()) {
            (None, _) => small.freeze(),
            (Some(only), true) => only,
            (Some(first), false) => {
                let mut all = BytesMut::from(first);
                ahead.iter().for_each(|data| all.extend_from_slice(data));
                all.extend_from_slice(&small);
                all.freeze()
            }
        };
        (stream, first)
    }
}
