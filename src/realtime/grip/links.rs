//! How many questions of a route go at a time, over all threads: so that thousands of held clients cannot take the workers from
//! everybody else.
//!
//! Those for which a client waits have places of their own. Polls and farewells, of which thousands may come at once and for which
//! nobody waits, stand in another line.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::ask::Question;
use crate::config;

/// What of its upstream's workers a route's held clients may have at a time, for questions to the app: one of so many.
const SHARE: usize = 4;
/// And no more than that.
const MOST_AT_A_TIME: usize = 8;
/// Farewells that wait to be said. More are left out: an app is no better off with all that were said hours ago.
const FAREWELLS: usize = 1_000;

/// Bytes of pages that their clients have not taken yet. They are no part of what waits for one client.
const PAGES: usize = 64 << 20;

/// The places of a route.
#[derive(Debug)]
pub struct Links {
    /// For those who wait.
    waited_for: Semaphore,
    /// For the rest.
    aside: Semaphore,
    places: usize,
    farewells: AtomicUsize,
    /// Bytes of pages.
    pages: AtomicUsize,
}

impl Links {
    /// Those of a route to this upstream. Streams outlive a reload: its places stay the same then, unless there are to be more or
    /// fewer.
    #[must_use]
    pub fn compile(upstream: &config::Upstream, previous: Option<&Arc<Self>>) -> Arc<Self> {
        let slots = upstream.workers.slots().map_or(MOST_AT_A_TIME, |slots| slots as usize / SHARE);
        let places = slots.clamp(1, MOST_AT_A_TIME);
        let known = previous.filter(|previous| previous.places == places);
        known.map_or_else(|| Arc::new(Self::of(places)), Arc::clone)
    }

    fn of(places: usize) -> Self {
        let aside = Semaphore::new((places / 2).max(1));
        Self {
            waited_for: Semaphore::new(places),
            aside,
            places,
            farewells: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
        }
    }

    /// A place for a question. It is never closed, so that there always is one in the end.
    pub(super) async fn turn(&self, question: Question) -> Option<SemaphorePermit<'_>> {
        let line = match question {
            Question::Again | Question::Recover => &self.waited_for,
            Question::Poll | Question::Gone => &self.aside,
        };
        line.acquire().await.ok()
    }

    /// Room for a page. `None`: too many are not taken yet by their clients.
    pub(super) fn page(self: &Arc<Self>, bytes: usize) -> Option<PageRoom> {
        let room = PageRoom { links: Arc::clone(self), bytes };
        (self.pages.fetch_add(bytes, Ordering::Relaxed) + bytes <= PAGES).then_some(room)
    }

    /// How many questions go at a time for which clients wait.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.places
    }

    /// Bytes of pages that have room.
    #[cfg(test)]
    pub(super) fn page_bytes(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    /// A place among the farewells that wait. `None`: there are enough.
    pub(super) fn farewell(self: &Arc<Self>) -> Option<Parting> {
        if self.farewells.fetch_add(1, Ordering::Relaxed) >= FAREWELLS {
            self.farewells.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Parting(Arc::clone(self)))
    }
}

/// Room that a page takes until its client has it.
#[derive(Debug)]
pub(super) struct PageRoom {
    links: Arc<Links>,
    bytes: usize,
}

impl PageRoom {
    /// The page has become so large for its client, however much room there is.
    pub(super) fn grow(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.links.pages.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
    }
}

impl Drop for PageRoom {
    fn drop(&mut self) {
        self.links.pages.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A farewell that waits, or is being said.
pub(super) struct Parting(Arc<Links>);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.farewells.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn who_waits_does_not_stand_behind_polls_and_farewells() {
        let links = Links::of(1);
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = pin!(links.turn(Question::Poll));
        let mut gone = pin!(links.turn(Question::Gone));
        let place = poll.as_mut().poll(&mut cx);
        assert!(place.is_ready() && gone.as_mut().poll(&mut cx).is_pending());
        assert!(pin!(links.turn(Question::Again)).poll(&mut cx).is_ready());
    }

    #[test]
    fn a_reload_keeps_the_places_unless_there_are_others() {
        let upstream = |workers: u32| {
            let text = format!(
                "upstreams: {{ app: {{ endpoints: [\"unix:/app\"], workers: {workers} }} }}\nsites: [{{ routes: [{{ path: /, proxy: app }}] }}]\n"
            );
            let loaded = config::load_str(&text, "hostler.yaml", std::path::Path::new("/"), &|_| None);
            loaded.unwrap_or_else(|report| panic!("{report}")).config.upstreams.remove(0)
        };
        let links = Links::compile(&upstream(8), None);
        assert!(Arc::ptr_eq(&links, &Links::compile(&upstream(9), Some(&links))));
        assert_eq!(Links::compile(&upstream(16), Some(&links)).places, 4);
    }

    #[test]
    fn pages_that_nobody_takes_are_bounded_in_all() {
        let links = Arc::new(Links::of(1));
        let mut all: Vec<PageRoom> = std::iter::from_fn(|| links.page(4 << 20)).take(100).collect();
        assert_eq!(all.len(), PAGES / (4 << 20));
        all[0].grow(5 << 20);
        assert!(links.page(1).is_none());
        all.truncate(1);
        assert_eq!(links.page_bytes(), 5 << 20);
        drop(all);
        assert_eq!(links.page_bytes(), 0);
    }

    #[test]
    fn farewells_do_not_wait_without_bound() {
        let links = Arc::new(Links::of(1));
        let mut all: Vec<Parting> = std::iter::from_fn(|| links.farewell()).take(2 * FAREWELLS).collect();
        assert_eq!(all.len(), FAREWELLS);
        all.pop();
        assert!(links.farewell().is_some());
    }
}
