//! A stored response, as it is given out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::disk::{FileBody, OnFile};
use super::record::Record;
use super::stale::StaleFrom;
use crate::error::Error;
use crate::http::{Body, Source};

const GONE: u8 = 1;

/// A stored response.
pub struct Object {
    id: u64,
    since: u64,
    record: Record,
    content: Content,
    marks: AtomicU8,
    /// Since when it is stale: a [`StaleFrom`].
    stale_from: AtomicU64,
}

/// Where the body is.
pub(super) enum Content {
    /// Behind the record, in the same block.
    Behind,
    /// In memory, in this order; with their length in all.
    Pieces(Box<[Bytes]>, u64),
    /// On disk.
    File(Arc<OnFile>),
}

impl Content {
    /// The same, of an object that has this id now.
    pub(super) fn with_id(mut self, id: u64) -> Self {
        if let Self::File(file) = &mut self
            && let Some(file) = Arc::get_mut(file)
        {
            file.id = id;
        }
        self
    }
}

impl Object {
    pub(super) fn new(id: u64, since: u64, record: Record, content: Content) -> Self {
        Self { id, since, record, content, marks: AtomicU8::new(0), stale_from: StaleFrom::NEVER.place() }
    }

    /// What the response's status was.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.record.status()
    }

    /// What the policy wanted to know again, as it wrote it.
    #[must_use]
    pub fn facts(&self) -> &[u8] {
        self.record.facts()
    }

    /// The fields in their order. Values share the object's bytes; nothing is allocated for them, nor for any but uncommon
    /// names.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.record.fields()
    }

    /// How many there are.
    #[must_use]
    pub fn field_count(&self) -> usize {
        self.record.field_count()
    }

    /// The fields as a map.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.field_count());
        for (name, value) in self.fields() {
            map.append(name, value);
        }
        map
    }

    /// The host that was told with the response.
    #[must_use]
    pub fn host(&self) -> &[u8] {
        self.record.host()
    }

    /// The path that was told with the response, with its query.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.record.path()
    }

    /// The tags that were told with the response.
    pub fn tags(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.record.tags()
    }

    /// Bytes of the body.
    #[must_use]
    pub fn length(&self) -> u64 {
        match &self.content {
            Content::Behind => (self.record.block().len() - self.record.end()) as u64,
            Content::Pieces(_, length) => *length,
            Content::File(file) => file.length(),
        }
    }

    /// Whether a soft purge has struck it: it is stale, whatever its facts say.
    #[must_use]
    pub fn is_purged(&self) -> bool {
        self.stale_from().is_stale()
    }

    /// When a soft purge struck it first, by the clock of its [store](super::Store::clock), in milliseconds. 0: it did, and nobody
    /// knows when; `None`: none did.
    #[must_use]
    pub fn purged_at(&self) -> Option<u64> {
        self.stale_from().milliseconds()
    }

    /// Whether its body is on disk alone.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        matches!(self.content, Content::File(_))
    }

    /// The body, all of it.
    #[must_use]
    pub fn body(self: &Arc<Self>) -> Body {
        self.part(0, self.length())
    }

    /// The bytes of the body from `start` to before `end`, as far as it has them.
    #[must_use]
    pub fn part(self: &Arc<Self>, start: u64, end: u64) -> Body {
        let end = end.min(self.length());
        let start = start.min(end);
        if start == end {
            return Body::Full(Bytes::new());
        }
        match &self.content {
            Content::Behind => {
                let place = |at: u64| self.record.end() + usize::try_from(at).unwrap_or(usize::MAX);
                Body::Full(self.record.block().slice(place(start)..place(end)))
            }
            Content::Pieces(..) => Body::Stream(Box::new(InPieces::new(Arc::clone(self), start, end))),
            Content::File(file) => Body::Stream(Box::new(FileBody::new(Arc::clone(file), start, end))),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    pub(super) fn stale_from(&self) -> StaleFrom {
        StaleFrom::of(&self.stale_from)
    }

    /// It is stale since then, if it has not been for longer.
    pub(super) fn mark_stale(&self, from: StaleFrom) {
        from.enter(&self.stale_from);
    }

    /// It was taken out, and may not be written to disk any more.
    pub(super) fn mark_gone(&self) {
        self.marks.fetch_or(GONE, Relaxed);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.marks.load(Relaxed) & GONE != 0
    }

    /// What it takes in memory, in bytes, with its entry: at least as much as it does.
    pub(super) fn weight(&self) -> u64 {
        let path = self.record.path().len() as u64;
        let bytes = match &self.content {
            Content::Behind => self.record.block().len() as u64,
            Content::Pieces(pieces, length) => {
                self.record.as_bytes().len() as u64 + length + pieces.len() as u64 * PER_PIECE
            }
            Content::File(file) => self.record.as_bytes().len() as u64 + file.weight(),
        };
        PER_OBJECT + path + bytes + self.record.tag_count() as u64 * PER_TAG
    }
}

/// What an object takes beside its record, its body and its path, in bytes: an estimate, which `tests/allocations.rs`
/// holds against what is allocated.
pub(super) const PER_OBJECT: u64 = 480;
/// What a piece of a body takes beside its bytes.
const PER_PIECE: u64 = 96;
/// What a tag takes beside its letters: its place in the catalogue.
const PER_TAG: u64 = 64;

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}, {} bytes)", self.status(), self.length())
    }
}

/// The names of the request's fields by which the responses of a primary key differ (RFC 9110, 12.5.5).
pub struct Names(pub(super) Record);

impl Names {
    /// In lower case, as they were given.
    pub fn iter(&self) -> impl Iterator<Item = HeaderName> {
        self.0.fields().map(|(name, _)| name)
    }

    /// What the policy has written down with them.
    #[must_use]
    pub fn facts(&self) -> &[u8] {
        self.0.facts()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A body that is in memory in several pieces.
struct InPieces {
    object: Arc<Object>,
    number: usize,
    /// In the piece of that number.
    at: usize,
    left: u64,
}

impl InPieces {
    fn new(object: Arc<Object>, start: u64, end: u64) -> Self {
        let (mut number, mut at) = (0, usize::try_from(start).unwrap_or(usize::MAX));
        if let Content::Pieces(pieces, _) = &object.content {
            while let Some(piece) = pieces.get(number).filter(|piece| piece.len() <= at) {
                at -= piece.len();
                number += 1;
            }
        }
        Self { object, number, at, left: end - start }
    }
}

impl Source for InPieces {
    fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Content::Pieces(pieces, _) = &self.object.content else { return Poll::Ready(None) };
        let Some(piece) = pieces.get(self.number).filter(|_| self.left > 0) else { return Poll::Ready(None) };
        let end = piece.len().min(self.at.saturating_add(usize::try_from(self.left).unwrap_or(usize::MAX)));
        let data = piece.slice(self.at..end);
        self.left -= data.len() as u64;
        (self.number, self.at) = (self.number + 1, 0);
        Poll::Ready(Some(Ok(data)))
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.left)
    }
}
