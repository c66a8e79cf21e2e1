//! Purges: of what there is, what is being written, and what has not been found yet.
//!
//! A purge is a rule first, which whatever comes later is held against; then those are struck that are found, some at a time;
//! it is answered for when that is done and, with a disk, when the rule is on it ([the journal](super::disk)). Files are removed
//! afterwards.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::Key;
use super::Store;
use super::catalogue::{Named, Walk};
use super::disk::Strike;
use super::rules::{Fate, Manner, Purge, Rule};
use super::stale::StaleFrom;

/// How many are struck before others have their turn.
const AT_ONCE: usize = 256;

/// A purge is done, but the disk could not be told: should the process be killed now, what was purged may come back.
#[derive(Debug)]
pub struct NotDurable {
    /// How many objects were struck.
    pub count: u64,
    source: io::Error,
}

impl fmt::Display for NotDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} were purged, but the cache's disk could not note it down, so that they may come back after a crash: {}",
            self.count, self.source
        )
    }
}

impl std::error::Error for NotDurable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// One purge, while it is done.
struct Purging {
    store: Arc<Store>,
    rule: Rule,
    /// Until it is known which files have to go.
    _strike: Option<Strike>,
    count: u64,
}

impl Store {
    /// Purges. With the answer, none of it is found any more (or all of it is stale), and none comes back, however the process
    /// ends. How many objects that were; those are not counted that have not been found since the start.
    ///
    /// The rule is in force when this is called; a future that is not run to its end strikes only some of what was there before.
    ///
    /// # Errors
    /// The disk could not be told.
    pub fn purge(
        self: &Arc<Self>,
        what: Purge,
        manner: Manner,
    ) -> impl Future<Output = Result<u64, NotDurable>> + Send + use<> {
        let mut purging = self.begin_purge(what, manner);
        let written = purging.note_down();
        async move {
            purging.strike_all().await;
            let count = purging.count;
            let Some(written) = written else { return Ok(count) };
            match written
                .await
                .unwrap_or_else(|_| Err(io::Error::other("its thread has panicked, or too many purges wait")))
            {
                Ok(()) => Ok(count),
                Err(source) => Err(NotDurable { count, source }),
            }
        }
    }

    /// The same for one URL, and without waiting for the disk: what an unsafe request invalidates (RFC 9111, 4.4). What it
    /// strikes does not come back when the process is killed, a moment later.
    ///
    /// It is done when this returns, unless very many lie there; and when what this returns is ready or dropped, at any rate.
    pub fn invalidate(self: &Arc<Self>, host: &[u8], path: &[u8], manner: Manner) -> Invalidating {
        let purging = self.begin_purge(Purge::Url { host: host.into(), path: path.into() }, manner);
        let mut invalidating = Invalidating { purging, walk: Walk::at(host, path), is_noted: false };
        invalidating.go_on();
        invalidating
    }

    /// From here on whatever is stored is held against it.
    fn begin_purge(self: &Arc<Self>, what: Purge, manner: Manner) -> Purging {
        let strike = self.begin_strike();
        let fate = match manner {
            Manner::Hard => Fate::Gone,
            Manner::Soft => Fate::Stays(StaleFrom::at(self.steady.steady())),
        };
        let mut rules = self.rules_mut();
        let rule = Rule { at: self.tick(), what, fate };
        rules.push(&rule);
        drop(rules);
        Purging { store: Arc::clone(self), rule, _strike: strike, count: 0 }
    }
}

impl Purging {
    /// Has the rule written to the disk, if there is one, and synced.
    fn note_down(&self) -> Option<oneshot::Receiver<io::Result<()>>> {
        let disk = self.store.disk.as_ref()?;
        let (told, written) = oneshot::channel();
        self.store.owe_note(disk, self.rule.clone(), Some(told));
        Some(written)
    }

    /// Strikes all that were there before.
    async fn strike_all(&mut self) {
        let mut walk = match &self.rule.what {
            Purge::All => return self.all().await,
            Purge::Host(host) => Walk::beneath(host, b""),
            Purge::Prefix { host, path } => Walk::beneath(host, path),
            Purge::Url { host, path } => Walk::at(host, path),
            Purge::Tag(tag) => self.store.catalogue.walk_tag(tag),
        };
        loop {
            self.strike_some(&mut walk);
            if walk.is_over() {
                return;
            }
            others_turn().await;
        }
    }

    fn strike_some(&mut self, walk: &mut Walk) {
        let some = self.store.catalogue.part(walk, AT_ONCE);
        self.strike(some.into_iter());
    }

    async fn all(&mut self) {
        for shard in 0..self.store.index.shards() {
            let mut from = 0;
            while let Some(some) = self.store.index.some_of(shard, from, AT_ONCE) {
                from += AT_ONCE;
                // Whichever is there: those that have come later are left alone.
                self.strike(some.into_iter().map(|hash| Named { hash, id: 0 }));
                others_turn().await;
            }
        }
    }

    /// Strikes these, if they are older than the purge.
    fn strike(&mut self, some: impl Iterator<Item = Named>) {
        let (store, before) = (Arc::clone(&self.store), self.rule.at);
        let is_one = |named: Named| move |id: u64| (named.id == 0 || id == named.id) && id < before;
        let mut files = Vec::new();
        let struck_before = self.count;
        for named in some {
            match self.rule.fate {
                Fate::Gone => {
                    let Some(gone) = store.index.remove_hashed(named.hash, is_one(named)) else { continue };
                    let (is_object, file) = store.expel(gone);
                    self.count += u64::from(is_object);
                    files.extend(file.map(|key| (key, 0)));
                }
                Fate::Stays(from) => {
                    let Some((key, id, has_file)) = store.index.mark(named.hash, from, is_one(named)) else { continue };
                    self.count += 1;
                    files.extend(has_file.then_some((key, id)));
                }
            }
        }
        store.counters.purged.fetch_add(self.count - struck_before, Relaxed);
        self.strike_files(files);
    }

    /// Has these files removed, or marked as stale.
    fn strike_files(&self, files: Vec<(Key, u64)>) {
        let Some(disk) = self.store.disk.as_ref().filter(|_| !files.is_empty()) else { return };
        match self.rule.fate {
            Fate::Gone => self.store.owe_removal(disk, files.into_iter().map(|(key, _)| key), true),
            Fate::Stays(_) => self.store.owe_marks(disk, files.into_iter()),
        }
    }
}

/// The invalidation of one URL: how many were struck.
#[must_use = "when this is dropped, all that is left is done at once"]
pub struct Invalidating {
    purging: Purging,
    walk: Walk,
    is_noted: bool,
}

impl Invalidating {
    /// Strikes some. Whether that was all.
    fn go_on(&mut self) -> bool {
        if !self.walk.is_over() {
            self.purging.strike_some(&mut self.walk);
        }
        if self.walk.is_over() && !std::mem::replace(&mut self.is_noted, true) {
            self.note_down();
        }
        self.is_noted
    }

    /// Nearly all of them strike nothing: the disk hears only of those that may.
    fn note_down(&self) {
        let store = &self.purging.store;
        if let Some(disk) = store.disk.as_ref().filter(|disk| self.purging.count > 0 || !disk.is_indexed()) {
            store.owe_note(disk, self.purging.rule.clone(), None);
        }
    }
}

impl Future for Invalidating {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u64> {
        if self.go_on() {
            return Poll::Ready(self.purging.count);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Invalidating {
    fn drop(&mut self) {
        // Who asks next may not find what this has left.
        while !self.go_on() {}
    }
}

impl fmt::Debug for Invalidating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invalidating({} so far)", self.purging.count)
    }
}

/// Lets the thread's other tasks have their turn.
async fn others_turn() {
    let mut has_been = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut has_been, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
