//! The body of an answer on its way into the store, at the app's pace: whoever wants it follows at his own.
//!
//! A body that the store gives up, because it has grown too large, goes on as long as anybody follows
//! ([`Crowd`]). One that nobody follows is fetched for the store alone, and that not for ever: a body that is silent, or has no end,
//! would hold a worker.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::caching::Caching;
use super::marker;
use crate::cache::crowd::{BEHIND, Crowd};
use crate::cache::key::Key;
use crate::cache::store::{Moment, NotStored, Writer};
use crate::error::{Error, Reason};
use crate::http::Body;

/// For how long a body that nobody follows may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// How long it may take in all.
const FOR_NOBODY: Duration = Duration::from_secs(120);
/// How often it is looked whether anybody follows.
const LOOK: Duration = Duration::from_secs(1);
/// For how long a disk that is behind may keep a body waiting: after that it is given up by the store if the disk stays behind.
const DISK: Duration = Duration::from_secs(5);

/// A body on its way.
pub(super) struct Pump {
    body: Body,
    writer: Writer,
    crowd: Arc<Crowd>,
    place: (Arc<Caching>, Key, Key, Moment),
    /// Since when nobody follows.
    alone: Option<Instant>,
    disk: Patience,
    length: u64,
}

impl Pump {
    pub(super) fn new(body: Body, writer: Writer, crowd: Arc<Crowd>, place: (Arc<Caching>, Key, Key, Moment)) -> Self {
        Self { body, writer, crowd, place, alone: None, disk: Patience::default(), length: 0 }
    }

    /// Fetches all of it. Whether it is stored. `given_up` is called when the store gives it up: who comes later cannot have
    /// the beginning any more.
    pub(super) async fn run(mut self, given_up: impl FnOnce()) -> bool {
        let mut given_up = Some(given_up);
        let cut = loop {
            match self.next().await {
                Some(Ok(data)) => {
                    // Only the last of it is kept from here on.
                    if self.outgrows(&data) && self.crowd.keep_together(self.length, self.behind()).await.is_err() {
                        break Reason::ClientGone;
                    }
                    self.take(&data).await;
                    if !self.writer.is_stored()
                        && let Some(given_up) = given_up.take()
                    {
                        given_up();
                    }
                }
                Some(Err(error)) => break error.reason,
                None => return self.finish().await,
            }
        };
        self.writer.fail(cut);
        false
    }

    /// Whether the store does not take any more of it.
    fn outgrows(&self, data: &Bytes) -> bool {
        let length = self.length + data.len() as u64;
        length > self.place.0.store().largest() || !self.writer.is_stored()
    }

    /// How far those may be behind who follow what is not stored.
    fn behind(&self) -> u64 {
        if self.writer.is_short() { 0 } else { BEHIND }
    }

    async fn take(&mut self, data: &Bytes) {
        // A disk that hangs longer than that has the body given up.
        self.disk.wait(poll_fn(|cx| self.writer.poll_ready(cx))).await;
        self.length += data.len() as u64;
        self.writer.push(data);
    }

    /// The next piece. Nobody's silence ends as if the worker had left.
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        let silent_since = Instant::now();
        loop {
            if !self.crowd.is_empty() {
                self.alone = None;
            } else if self.alone.get_or_insert_with(Instant::now).elapsed() >= FOR_NOBODY {
                return Some(Err(Error::new(Reason::ClientGone)));
            }
            tokio::select! {
                biased;
                data = self.body.data() => return data,
                () = sleep(LOOK) => {}
            }
            let is_silent = silent_since.elapsed() >= SILENCE;
            if is_silent && self.alone.is_some_and(|alone| alone.elapsed() >= SILENCE) && self.crowd.is_empty() {
                return Some(Err(Error::new(Reason::ClientGone)));
            }
        }
    }

    async fn finish(self) -> bool {
        let (caching, primary, key, since) = self.place;
        match self.writer.finish().await {
            Ok(_) => true,
            Err(why) => {
                if why == NotStored::TooLarge {
                    marker::remember(&caching, &primary, &key, since);
                }
                false
            }
        }
    }
}

/// With a disk: all in all, not for each piece, until it has caught up.
#[derive(Debug, Default)]
struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// Waits until the disk is ready, or has been behind for too long.
    async fn wait(&mut self, ready: impl Future<Output = ()>) {
        let until = *self.until.get_or_insert_with(|| Instant::now() + DISK);
        if timeout_at(until, ready).await.is_ok() {
            self.until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_waited_for_once_and_not_for_each_piece() {
        let (mut disk, begun) = (Patience::default(), Instant::now());
        for _ in 0..100 {
            disk.wait(pending()).await;
        }
        assert_eq!(begun.elapsed(), DISK);
        // It has caught up.
        disk.wait(ready(())).await;
        disk.wait(pending()).await;
        assert_eq!(begun.elapsed(), DISK * 2);
    }
}
