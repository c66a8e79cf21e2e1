//! Several parts of a body in one: `multipart/byteranges` (RFC 9110, 14.6).
//!
//! Static files and stored responses answer with it. What the parts are read from is told by a function, which is asked for one
//! part at a time, when the one before it has gone.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;

use super::range::ByteRange;
use super::{Body, Source};
use crate::error::Error;
use crate::runtime::Span;

/// Several parts in one body.
#[derive(Debug)]
pub struct Multipart {
    /// `multipart/byteranges` with the boundary between the parts.
    pub content_type: HeaderValue,
    /// Bytes of the body.
    pub length: u64,
    /// The parts, each behind its head.
    pub body: Body,
}

/// Parts of a body that has `length` bytes, in the order of `ranges`. `content_type` is the body's own; `part` opens a range of it.
#[must_use]
pub fn multipart(
    ranges: &[ByteRange],
    length: u64,
    content_type: Option<&HeaderValue>,
    part: impl FnMut(ByteRange) -> Body + 'static,
) -> Multipart {
    let frame = Frame::new(length, content_type);
    let mut parts: VecDeque<_> =
        (0..).zip(ranges).map(|(number, range)| (frame.head(number, *range), Some(*range))).collect();
    parts.push_back((frame.tail(), None));
    let left = parts.iter().map(|(text, range)| text.len() as u64 + range.map_or(0, ByteRange::len)).sum();
    let body = Body::Stream(Box::new(Parts { now: Body::Empty, parts, open: part, left }));
    Multipart { content_type: frame.content_type(), length: left, body }
}

/// What stands around the parts.
struct Frame {
    boundary: String,
    length: u64,
    /// The field that each part repeats, with its line end.
    content_type: Vec<u8>,
}

impl Frame {
    fn new(length: u64, content_type: Option<&HeaderValue>) -> Self {
        let content_type =
            content_type.map_or_else(Vec::new, |value| [b"Content-Type: ", value.as_bytes(), b"\r\n"].concat());
        Self { boundary: boundary(), length, content_type }
    }

    fn content_type(&self) -> HeaderValue {
        let value = format!("multipart/byteranges; boundary={}", self.boundary);
        // Letters and digits: always a value.
        HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("multipart/byteranges"))
    }

    /// What stands before a part.
    fn head(&self, number: usize, range: ByteRange) -> Bytes {
        let line_end = if number == 0 { "" } else { "\r\n" };
        let ByteRange { first, last } = range;
        let mut head = format!("{line_end}--{}\r\n", self.boundary).into_bytes();
        head.extend_from_slice(&self.content_type);
        head.extend_from_slice(format!("Content-Range: bytes {first}-{last}/{}\r\n\r\n", self.length).as_bytes());
        head.into()
    }

    fn tail(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.boundary).into()
    }
}

/// Of 128 random bits, new for every answer: no content has it, by chance or on purpose.
fn boundary() -> String {
    // The standard library's hasher keys come from the system's random source.
    let keys = RandomState::new();
    let mut boundary = String::with_capacity(32);
    for number in 0..2_u8 {
        // Writing to a String cannot fail.
        let _ = write!(boundary, "{:016x}", keys.hash_one(number));
    }
    boundary
}

/// Parts, each behind a text.
struct Parts<F> {
    /// The part that is being read.
    now: Body,
    /// What comes behind it. The last has no range.
    parts: VecDeque<(Bytes, Option<ByteRange>)>,
    open: F,
    /// Bytes to come, texts included.
    left: u64,
}

impl<F: FnMut(ByteRange) -> Body> Source for Parts<F> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let next = match ready!(self.now.poll_data(cx)) {
            Some(next) => next?,
            None => {
                let Some((text, range)) = self.parts.pop_front() else { return Poll::Ready(None) };
                self.now = range.map_or(Body::Empty, &mut self.open);
                text
            }
        };
        self.left -= next.len() as u64;
        Poll::Ready(Some(Ok(next)))
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.left)
    }

    fn span(&self) -> Option<Span> {
        self.now.span()
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.now.poll_cut(cx)
    }

    fn sent(&mut self, bytes: u64) {
        self.now.sent(bytes);
        self.left -= bytes;
    }
}

/// The same of content that is in memory.
#[must_use]
pub fn multipart_bytes(bytes: &Bytes, ranges: &[ByteRange], content_type: Option<&HeaderValue>) -> Multipart {
    let bytes = bytes.clone();
    let length = bytes.len() as u64;
    multipart(ranges, length, content_type, move |range| Body::Full(slice(&bytes, range)))
}

/// The bytes of a range, as far as they are there.
#[must_use]
pub fn slice(bytes: &Bytes, range: ByteRange) -> Bytes {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(place(range.first)..place(range.last.saturating_add(1)))
}
