//! Storing a response while it passes to its client.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;

use super::Key;
use super::blocks::Blocks;
use super::feed::{Feed, Follower, Progress, Way};
use super::object::Object;
use super::record::{self, Kind, Parts, Record};
use super::{Moment, Store};
use crate::error::Reason;

/// Bytes that may wait to be written before the writer should wait.
const AHEAD: u64 = 1 << 20;

/// What is known of a response before its body.
#[derive(Debug, Clone, Copy)]
pub struct Meta<'a> {
    /// Its status.
    pub status: StatusCode,
    /// The fields that are stored. What may not be (RFC 9111, 3.1) is left out by the caller.
    pub fields: &'a HeaderMap,
    /// What the policy wants to know again: 255 bytes at most.
    pub facts: &'a [u8],
    /// The host, for purges: in lower case, say, but always in the same manner.
    pub host: &'a [u8],
    /// The path with its query, for purges.
    pub path: &'a [u8],
    /// The tags, for purges.
    pub tags: &'a [&'a [u8]],
    /// When the app was asked.
    pub since: Moment,
    /// The key under which it was looked for first, if it is a variant.
    pub primary: Option<Key>,
    /// Bytes of the body, if they are known: one that has more or fewer is not stored.
    pub length: Option<u64>,
}

impl Meta<'_> {
    /// The record of it. `None`: it is too large.
    pub(super) fn record(&self, blocks: &Arc<Blocks>) -> Option<Record> {
        let parts = Parts {
            kind: Kind::Object,
            status: self.status.as_u16(),
            facts: self.facts,
            host: self.host,
            path: self.path,
            tags: self.tags,
        };
        let bytes = record::write(&parts, self.fields.iter())?;
        let length = bytes.len();
        Record::read(blocks.of(bytes), length)
    }
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStored {
    /// Its head or its body is larger than what is stored.
    TooLarge,
    /// There is no room: too much is being written at once.
    NoRoom,
    /// The disk is full, fails, or is behind.
    Disk,
    /// A purge has struck it.
    Purged,
    /// Something younger is stored, or what was to be replaced is not there any more.
    Overtaken,
    /// Its body is not as long as it was said to be.
    WrongLength,
}

/// What has become of a response that was written to its end.
pub type Outcome = Result<Arc<Object>, NotStored>;

/// Takes the body of a response. Dropped before its end, it leaves nothing, and those who follow are cut.
pub struct Writer {
    progress: Arc<Progress>,
    is_done: bool,
}

impl Store {
    /// Begins to store a response. Where there is no room for it now, it can be followed all the same.
    ///
    /// # Errors
    /// It is too large, as far as that is known already.
    pub fn writer(self: &Arc<Self>, key: &Key, meta: &Meta<'_>) -> Result<Writer, NotStored> {
        let length = meta.length.unwrap_or(0);
        if length > self.limits.object() || (length > self.limits.memory() && !self.has_disk()) {
            return Err(NotStored::TooLarge);
        }
        let record = meta.record(&self.blocks).ok_or(NotStored::TooLarge)?;
        let goes_to_disk = length > self.limits.behind() && self.has_disk();
        let way = if goes_to_disk { Way::Disk } else { Way::Memory };
        let store = Arc::clone(self);
        let progress = Progress::new(store, *key, meta.primary, meta.since.0, record, meta.length, way);
        let head = progress.record.end() as u64;
        if self.take_memory(head) {
            progress.lock().memory = head;
        } else {
            super::counters::count(&self.counters.abandoned);
            progress.lock().way = Way::Nowhere(NotStored::NoRoom);
        }
        Ok(Writer { progress: Arc::new(progress), is_done: false })
    }
}

impl Writer {
    /// Takes the next bytes. Never waits: see [`Self::poll_ready`].
    pub fn push(&mut self, data: &Bytes) {
        if !data.is_empty() {
            self.progress.push(data);
        }
    }

    /// Ready while little waits to be written to disk. Who goes on regardless has the response given up if the disk falls far
    /// behind; who waits without end waits for a disk that may hang.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.progress.lock();
        if state.way != Way::Disk || state.length - state.written < AHEAD || !state.is_writing {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether it still is stored.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !matches!(self.progress.lock().way, Way::Nowhere(_))
    }

    /// Whether there is no room, so that each piece is kept only until the next one comes: those who follow have to be waited for.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.progress.lock().is_short
    }

    /// Where it can be followed.
    #[must_use]
    pub fn feed(&self) -> Feed {
        Feed(Arc::clone(&self.progress))
    }

    /// Follows from the beginning. `None`: as [`Feed::follow`].
    #[must_use]
    pub fn follow(&self) -> Option<Follower> {
        self.feed().follow()
    }

    /// The body is whole: followers come to its end, and from the moment at which the answer is there, others find it. That is at
    /// once, but for a large one, whose last bytes are written first; it is stored whether anybody waits for that or not.
    #[must_use]
    pub fn finish(mut self) -> Finish {
        self.is_done = true;
        self.progress.finish()
    }

    /// The body is not whole, for this reason: nothing is stored, and followers are cut.
    pub fn fail(mut self, reason: Reason) {
        self.is_done = true;
        self.progress.cut(reason);
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({:?})", self.feed())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_done {
            // As if the worker had left.
            self.progress.cut(Reason::EofInBody);
        }
    }
}

/// Ready when a response has been stored, or not.
#[derive(Debug)]
pub enum Finish {
    /// It has.
    Now(Outcome),
    /// Its last bytes are being written.
    Later(oneshot::Receiver<Outcome>),
}

impl Future for Finish {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        match &mut *self {
            Self::Now(outcome) => Poll::Ready(outcome.clone()),
            Self::Later(outcome) => Pin::new(outcome).poll(cx).map(|told| told.unwrap_or(Err(NotStored::Disk))),
        }
    }
}
