//! The bytes of a file as a body: all of it, a part, or several parts in one (`multipart/byteranges`, RFC 9110, 14.6).
//!
//! A body holds its file open and promises a length. What is in the page cache is read where the body is polled, or sent
//! from where it lies ([`Span`]); what the kernel has to fetch from the disk is another thread's work ([`PieceReader`]). A
//! file that gets shorter meanwhile cuts its answer ([`Reason::FileChanged`]); one that grows sends what was promised.
//!
//! Closing a file that was only read costs no wait for a disk: the last holder drops it wherever that is.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;

use crate::error::{Error, Reason};
use crate::http::range::ByteRange;
use crate::http::{Body, Source};
use crate::observe::throttle::Throttles;
use crate::runtime::{PieceReader, Span};

/// All of a file that has `length` bytes.
#[must_use]
pub fn whole(file: Arc<File>, length: u64) -> Body {
    stretch(file, 0, length)
}

/// A part of a file, which has it.
#[must_use]
pub fn part(file: Arc<File>, range: ByteRange) -> Body {
    stretch(file, range.first, range.last.saturating_add(1))
}

fn stretch(file: Arc<File>, at: u64, end: u64) -> Body {
    if at == end {
        return Body::Full(Bytes::new());
    }
    Body::Stream(Box::new(Stretch::new(file, at, end)))
}

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

/// Parts of a file that has `length` bytes, in the order of `ranges`. `content_type` is the file's own.
#[must_use]
pub fn multipart(file: Arc<File>, ranges: &[ByteRange], length: u64, content_type: Option<&HeaderValue>) -> Multipart {
    let frame = Frame::new(length, content_type);
    let mut parts: VecDeque<_> =
        (0..).zip(ranges).map(|(number, range)| (frame.head(number, *range), Some(*range))).collect();
    parts.push_back((frame.tail(), None));
    let left = parts.iter().map(|(text, range)| text.len() as u64 + range.map_or(0, ByteRange::len)).sum();
    let body = Body::Stream(Box::new(Parts { parts, stretch: Stretch::new(file, 0, 0), left }));
    Multipart { content_type: frame.content_type(), length: left, body }
}

/// The same of content that is in memory.
#[must_use]
pub fn multipart_bytes(bytes: &Bytes, ranges: &[ByteRange], content_type: Option<&HeaderValue>) -> Multipart {
    let frame = Frame::new(bytes.len() as u64, content_type);
    let mut slices = VecDeque::with_capacity(2 * ranges.len() + 1);
    for (number, range) in (0..).zip(ranges) {
        slices.push_back(frame.head(number, *range));
        slices.push_back(slice(bytes, *range));
    }
    slices.push_back(frame.tail());
    let left = slices.iter().map(|slice| slice.len() as u64).sum();
    Multipart {
        content_type: frame.content_type(),
        length: left,
        body: Body::Stream(Box::new(Slices { slices, left })),
    }
}

fn slice(bytes: &Bytes, range: ByteRange) -> Bytes {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(place(range.first)..place(range.last.saturating_add(1)))
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

/// Bytes of a file, up to `end`.
struct Stretch {
    file: Arc<File>,
    at: u64,
    end: u64,
    pieces: PieceReader,
}

impl Stretch {
    fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Self { file, at, end, pieces: PieceReader::default() }
    }
}

impl Source for Stretch {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll(&self.file, self.at, self.end, cx));
        Poll::Ready(Some(match piece {
            Ok(piece) => {
                self.at += piece.len() as u64;
                Ok(piece)
            }
            Err(error) => Err(failed(&self.file, error)),
        }))
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.end - self.at)
    }

    fn span(&self) -> Option<Span> {
        self.pieces.span(&self.file, self.at, self.end)
    }

    fn sent(&mut self, bytes: u64) {
        self.at += bytes;
    }
}

/// Stretches of a file, each behind a text.
struct Parts {
    /// What comes behind `stretch`. The last has no stretch.
    parts: VecDeque<(Bytes, Option<ByteRange>)>,
    stretch: Stretch,
    /// Bytes to come, texts included.
    left: u64,
}

impl Source for Parts {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let next = match ready!(self.stretch.poll_data(cx)) {
            Some(next) => next?,
            None => {
                let Some((text, range)) = self.parts.pop_front() else { return Poll::Ready(None) };
                if let Some(ByteRange { first, last }) = range {
                    (self.stretch.at, self.stretch.end) = (first, last.saturating_add(1));
                }
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
        self.stretch.span()
    }

    fn sent(&mut self, bytes: u64) {
        self.stretch.sent(bytes);
        self.left -= bytes;
    }
}

/// Bytes in memory, one behind the other.
struct Slices {
    slices: VecDeque<Bytes>,
    left: u64,
}

impl Source for Slices {
    fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let next = self.slices.pop_front();
        self.left -= next.as_ref().map_or(0, |slice| slice.len() as u64);
        Poll::Ready(next.map(Ok))
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.left)
    }
}

/// Why an answer is cut. Told here, where the file is known.
fn failed(file: &File, source: io::Error) -> Error {
    static THROTTLES: Throttles = Throttles::new();
    let name = name(file);
    let error = if source.kind() == io::ErrorKind::UnexpectedEof {
        let detail = format!(
            "{name} is shorter than when its answer began, which is cut: \
             let new versions of a file be written beside it, then renamed"
        );
        Error::new(Reason::FileChanged).detail(detail)
    } else {
        Error::new(Reason::FileFailed).detail(format!("{name} could not be read to its end")).source(source)
    };
    if let Some(left_out) = THROTTLES.pass(error.reason) {
        tracing::warn!(left_out, reason = error.reason.as_str(), "{error}");
    }
    error
}

/// What the file is called now, for the operator.
fn name(file: &File) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.map_or_else(|_| "a file".to_owned(), |path| path.display().to_string())
}
