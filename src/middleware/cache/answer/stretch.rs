//! A part of a body that comes from its beginning: what lies before it passes by.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::error::{Error, Reason};
use crate::http::range::ByteRange;
use crate::http::{Body, Source};

/// The part, in a body of its own.
pub(super) struct Stretch {
    body: Body,
    /// Bytes before the part.
    before: u64,
    /// Bytes of the part that are still to come.
    left: u64,
}

impl Stretch {
    pub(super) fn new(body: Body, range: ByteRange) -> Self {
        Self { body, before: range.first, left: range.len() }
    }

    /// What of this belongs to the part.
    fn cut(&mut self, mut data: Bytes) -> Bytes {
        let within = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(data.len());
        let passed = within(self.before);
        self.before -= passed as u64;
        data = data.split_off(passed);
        data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= data.len() as u64;
        data
    }
}

impl Source for Stretch {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        while self.left > 0 {
            let Some(data) = ready!(self.body.poll_data(cx)) else {
                let detail = "the response ended before the part of it that was asked for";
                return Poll::Ready(Some(Err(Error::new(Reason::EofInBody).detail(detail))));
            };
            let data = self.cut(data?);
            if self.left == 0 {
                // What is behind it is nobody's here: who waits for its reader goes on.
                self.body = Body::Empty;
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
        Poll::Ready(None)
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.left)
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.body.poll_cut(cx)
    }
}
