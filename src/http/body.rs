//! The one body type: nothing, bytes that are here, or a source that is polled for more.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Takeover;
use crate::error::Error;
use crate::runtime::Span;

/// A message body without framing. Trailers are dropped wherever a body is read.
#[derive(Default)]
pub enum Body {
    /// No body at all; not even an empty one where that differs.
    #[default]
    Empty,
    /// All of it.
    Full(Bytes),
    /// Read on demand.
    Stream(Box<dyn Source>),
    /// None, of an answer that takes the connection over: 101.
    Takeover(Box<dyn Takeover>),
}

/// Where the bytes of a [`Body::Stream`] come from.
pub trait Source {
    /// The next piece, `None` at the end. After an error or the end it is not polled again.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>>;

    /// The bytes still to come, where that is known from the framing.
    fn remaining(&self) -> Option<u64>;

    /// The stretch of a file that comes next, for whoever can send it without reading it. It is in memory, so that nobody
    /// has to wait for a disk. `None`: whatever comes next is to be had by [`Self::poll_data`], as it always is.
    fn span(&self) -> Option<Span> {
        None
    }

    /// Why nothing further comes, while what came before is not taken: a source that cannot wait for its reader says so. It is
    /// polled only then, and not again after it was ready.
    fn poll_cut(&mut self, _cx: &mut Context<'_>) -> Poll<Error> {
        Poll::Pending
    }

    /// So many bytes from the beginning of the last [`Self::span`] have been sent.
    fn sent(&mut self, _bytes: u64) {}
}

impl Body {
    /// The bytes still to come, where that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Empty | Self::Takeover(_) => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Stream(source) => source.remaining(),
        }
    }

    /// The next piece, `None` at the end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        match self {
            Self::Empty | Self::Takeover(_) => Poll::Ready(None),
            Self::Full(_) => {
                let Self::Full(bytes) = std::mem::take(self) else { return Poll::Ready(None) };
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            Self::Stream(source) => source.poll_data(cx),
        }
    }

    /// As [`Source::span`].
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::Stream(source) => source.span(),
            Self::Empty | Self::Full(_) | Self::Takeover(_) => None,
        }
    }

    /// As [`Source::poll_cut`].
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match self {
            Self::Stream(source) => source.poll_cut(cx),
            Self::Empty | Self::Full(_) | Self::Takeover(_) => Poll::Pending,
        }
    }

    /// As [`Source::sent`].
    pub fn sent(&mut self, bytes: u64) {
        if let Self::Stream(source) = self {
            source.sent(bytes);
        }
    }

    /// The next piece, `None` at the end.
    ///
    /// # Errors
    /// What cut the body short.
    pub async fn data(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(source) => write!(f, "Stream({:?} bytes)", source.remaining()),
            Self::Takeover(_) => f.write_str("Takeover"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_no_larger_than_it_was_without_takeovers() {
        assert!(size_of::<Body>() <= 40, "{}", size_of::<Body>());
    }
}
