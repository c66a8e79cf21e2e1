//! Flights: one request asks the app, the others for the same wait for what it brings.
//!
//! ```text
//! join ─ nobody flies ─► Lead ── land ──► all are told, who comes later joins what has landed, until it is whole
//!   │                     │  └── tell ──► all are told, and the flight is over
//!   │                     │  └── fail ──► the same, if nobody else leads; else those are told who have waited as long as it led
//!   │                     │  └── leave ─► the first who waits leads, or, after some of them, all are told
//!   │                     └── dropped ──► the first who waits leads
//!   └─ somebody does ──► Waiter ─ has waited too long ─► leads as well; the others wait for that one
//! ```
//! So one who waits is never lost: as long as there is a flight, somebody leads it, and when it is over everybody is told. A
//! leader that hangs costs the app one more request each time that patience is over, not one for each who waits. And where all
//! hang and fail, whoever waits hears of it from the first leader that began after he came.
//!
//! A flight that began *quietly*, in the background, gives way: whoever really waits leads at once.
//!
//! One for the process, shared by its threads; each lock is one of many, held for a moment, and nobody is woken under it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::key::Key;

/// Locks.
const SHARDS: usize = 64;
/// So many may wait before those who have left are looked for.
const PRUNE: usize = 64;

/// What is in flight. `T`: what all who wait are told.
pub struct Flights<T: Clone> {
    shards: Box<[Shard<T>]>,
    ids: AtomicU64,
}

type Shard<T> = Mutex<HashMap<Key, Flight<T>>>;

struct Flight<T: Clone> {
    id: u64,
    /// Who is on the way to the app for it: the numbers of their turns, the eldest first.
    leading: Vec<u64>,
    /// The next turn: who waits has one, and so has who leads.
    next: u64,
    /// How often a leader has left it to the next.
    heirs: u32,
    /// Nobody waits for it but a stale response.
    is_quiet: bool,
    /// When the last of them began.
    led_at: Instant,
    waiters: VecDeque<Waiting<T>>,
    prune_at: usize,
    landed: Option<T>,
}

/// Somebody who waits, for the flight.
struct Waiting<T: Clone> {
    turn: u64,
    told: oneshot::Sender<Told<T>>,
}

impl<T: Clone> Flight<T> {
    fn turn(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// One more leads, from now on. The number of its turn.
    fn led(&mut self) -> u64 {
        let turn = self.turn();
        self.leading.push(turn);
        self.led_at = Instant::now();
        turn
    }

    fn is_led_no_more_by(&mut self, turn: u64) {
        self.leading.retain(|leading| *leading != turn);
    }

    /// One of several leaders has failed: who hears of it. Nobody, while an elder one may yet bring something; otherwise those who
    /// waited already when it began. For them it has been asked for as long as for anybody, and where the app hangs, each of
    /// the others would have it hang again.
    fn failed(&mut self, turn: u64) -> VecDeque<Waiting<T>> {
        let is_eldest = self.leading.first() == Some(&turn);
        self.is_led_no_more_by(turn);
        if !is_eldest {
            return VecDeque::new();
        }
        let (told, waiting) = std::mem::take(&mut self.waiters).into_iter().partition(|waiting| waiting.turn < turn);
        self.waiters = waiting;
        told
    }
}

/// What somebody who waits is told.
pub enum Told<T: Clone> {
    /// What has come of it.
    News(T),
    /// To go on in the leader's place.
    Lead(Lead<T>),
    /// Nothing: the flight is over, and whatever it was is in the store.
    Over,
}

/// What becomes of a request.
pub enum Joined<T: Clone> {
    /// It asks the app, and hears like the others what has come of it, should somebody else be faster.
    Lead(Lead<T>, Waiter<T>),
    /// It waits.
    Wait(Waiter<T>),
    /// Something has landed that is not yet in the store.
    Landed(T, FlightId),
}

/// Which flight it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightId(u64);

impl<T: Clone> Flights<T> {
    /// Nobody flies.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards, ids: AtomicU64::new(1) })
    }

    /// Joins the flight of a key, or begins one.
    #[must_use]
    pub fn join(self: &Arc<Self>, key: &Key) -> Joined<T> {
        let mut shard = self.shard(key);
        match shard.entry(*key) {
            Entry::Vacant(place) => self.lead(key, place.insert(self.flight(false))),
            Entry::Occupied(mut place) => {
                let flight = place.get_mut();
                if let Some(landed) = &flight.landed {
                    return Joined::Landed(landed.clone(), FlightId(flight.id));
                }
                if std::mem::take(&mut flight.is_quiet) {
                    return self.lead(key, flight);
                }
                Joined::Wait(self.waiter(key, flight))
            }
        }
    }

    /// The same for who cannot use what has landed: begins another flight in its place, if it is still that one.
    #[must_use]
    pub fn join_anew(self: &Arc<Self>, key: &Key, unusable: FlightId) -> Joined<T> {
        let mut shard = self.shard(key);
        let is_it = shard.get(key).is_some_and(|flight| flight.id == unusable.0 && flight.landed.is_some());
        let gone = if is_it { shard.remove(key) } else { None };
        drop((shard, gone));
        self.join(key)
    }

    /// Begins a flight for which nobody waits. `None`: there is one.
    #[must_use]
    pub fn lead_quietly(self: &Arc<Self>, key: &Key) -> Option<Lead<T>> {
        let mut shard = self.shard(key);
        let Entry::Vacant(place) = shard.entry(*key) else { return None };
        let flight = place.insert(self.flight(true));
        Some(self.leader(key, flight))
    }

    /// How many flights there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn flight(&self, is_quiet: bool) -> Flight<T> {
        Flight {
            id: self.ids.fetch_add(1, Relaxed),
            leading: Vec::new(),
            next: 0,
            heirs: 0,
            is_quiet,
            led_at: Instant::now(),
            waiters: VecDeque::new(),
            prune_at: PRUNE,
            landed: None,
        }
    }

    fn lead(self: &Arc<Self>, key: &Key, flight: &mut Flight<T>) -> Joined<T> {
        // Its own client hears from it directly.
        let (lead, waiter) = (self.leader(key, flight), self.waiter(key, flight));
        Joined::Lead(lead, waiter)
    }

    fn leader(self: &Arc<Self>, key: &Key, flight: &mut Flight<T>) -> Lead<T> {
        Lead { flights: Arc::clone(self), key: *key, id: flight.id, turn: flight.led(), is_done: false }
    }

    fn waiter(self: &Arc<Self>, key: &Key, flight: &mut Flight<T>) -> Waiter<T> {
        if flight.waiters.len() >= flight.prune_at {
            flight.waiters.retain(|waiting| !waiting.told.is_closed());
            flight.prune_at = (flight.waiters.len() * 2).max(PRUNE);
        }
        let (told, news) = oneshot::channel();
        let turn = flight.turn();
        flight.waiters.push_back(Waiting { turn, told });
        Waiter { flights: Arc::clone(self), key: *key, id: flight.id, news: Some(news) }
    }

    /// Ends a flight: what all are to be told who wait. `None`: it has ended already, or landed.
    fn end(&self, key: &Key, id: u64) -> Option<Flight<T>> {
        let mut shard = self.shard(key);
        let is_it = |flight: &Flight<T>| flight.id == id && flight.landed.is_none();
        if shard.get(key).is_some_and(is_it) { shard.remove(key) } else { None }
    }

    /// A leader has gone without a word: somebody who waits goes on.
    fn succeed(self: &Arc<Self>, key: &Key, id: u64, mut turn: u64) {
        loop {
            let mut shard = self.shard(key);
            let Some(flight) = shard.get_mut(key).filter(|flight| flight.id == id && flight.landed.is_none()) else {
                return;
            };
            flight.is_led_no_more_by(turn);
            if !flight.leading.is_empty() {
                return;
            }
            let heir = std::iter::from_fn(|| flight.waiters.pop_front()).find(|waiting| !waiting.told.is_closed());
            let Some(heir) = heir else {
                shard.remove(key);
                return;
            };
            flight.is_quiet = false;
            let lead = self.leader(key, flight);
            drop(shard);
            match heir.told.send(Told::Lead(lead)) {
                // It has left just now: the next one.
                Err(Told::Lead(mut lead)) => (lead.is_done, turn) = (true, lead.turn),
                _ => return,
            }
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Flight<T>>> {
        // The bytes of a key are those of a hash.
        lock(&self.shards[usize::from(key.as_bytes()[Key::LENGTH - 1]) % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone> fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

/// Whoever asks the app for a flight. Dropped without a word, it leaves that to the first who waits.
pub struct Lead<T: Clone> {
    flights: Arc<Flights<T>>,
    key: Key,
    id: u64,
    turn: u64,
    is_done: bool,
}

impl<T: Clone> Lead<T> {
    /// Tells all who wait what has come, and who comes later, until what is returned is dropped.
    #[must_use]
    pub fn land(mut self, news: &T) -> Landed<T> {
        self.is_done = true;
        let mut shard = self.flights.shard(&self.key);
        let flight = shard.get_mut(&self.key).filter(|flight| flight.id == self.id && flight.landed.is_none());
        let waiters = flight.map(|flight| {
            flight.landed = Some(news.clone());
            std::mem::take(&mut flight.waiters)
        });
        drop(shard);
        let is_first = waiters.is_some();
        tell(waiters.into_iter().flatten(), news);
        Landed { flights: Arc::clone(&self.flights), key: self.key, id: self.id, is_first }
    }

    /// Tells all who wait, and ends the flight, whoever else may lead it.
    pub fn tell(mut self, news: &T) {
        self.is_done = true;
        if let Some(flight) = self.flights.end(&self.key, self.id) {
            tell(flight.waiters.into_iter(), news);
        }
    }

    /// The same for what others who lead it may yet do better: if there are any, they go on, and of those who wait only they are
    /// told who waited already when this one began, unless an elder one goes on.
    pub fn fail(mut self, news: &T) {
        let mut shard = self.flights.shard(&self.key);
        if let Some(flight) = shard.get_mut(&self.key).filter(|flight| flight.id == self.id)
            && flight.leading.len() > 1
        {
            let told = flight.failed(self.turn);
            self.is_done = true;
            drop(shard);
            tell(told.into_iter(), news);
            return;
        }
        drop(shard);
        self.tell(news);
    }

    /// What it has brought says nothing of what the others would get: the first who waits leads. After so many of them all are
    /// told: whether it has come to that.
    pub fn leave(self, most: u32, news: &T) -> bool {
        let mut shard = self.flights.shard(&self.key);
        let flight = shard.get_mut(&self.key).filter(|flight| flight.id == self.id);
        let Some(flight) = flight else { return false };
        flight.heirs += 1;
        let is_enough = flight.heirs > most;
        drop(shard);
        if is_enough {
            self.tell(news);
        }
        is_enough
    }

    /// Whether anybody wants what it brings: somebody waits, or it is a quiet one that nobody has overtaken.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let shard = self.flights.shard(&self.key);
        let flight = shard.get(&self.key).filter(|flight| flight.id == self.id && flight.landed.is_none());
        flight.is_some_and(|flight| flight.is_quiet || flight.waiters.iter().any(|waiting| !waiting.told.is_closed()))
    }
}

fn tell<T: Clone>(waiters: impl Iterator<Item = Waiting<T>>, news: &T) {
    for waiting in waiters {
        // Who has left is told nothing.
        drop(waiting.told.send(Told::News(news.clone())));
    }
}

impl<T: Clone> Drop for Lead<T> {
    fn drop(&mut self) {
        if !self.is_done {
            self.flights.succeed(&self.key, self.id, self.turn);
        }
    }
}

/// What has landed, as long as it is not in the store.
pub struct Landed<T: Clone> {
    flights: Arc<Flights<T>>,
    key: Key,
    id: u64,
    is_first: bool,
}

impl<T: Clone> Drop for Landed<T> {
    fn drop(&mut self) {
        if !self.is_first {
            return;
        }
        let mut shard = self.flights.shard(&self.key);
        let is_it = shard.get(&self.key).is_some_and(|flight| flight.id == self.id);
        let gone = if is_it { shard.remove(&self.key) } else { None };
        // What has landed may be large: it goes without the lock.
        drop((shard, gone));
    }
}

/// Whoever waits.
pub struct Waiter<T: Clone> {
    flights: Arc<Flights<T>>,
    key: Key,
    id: u64,
    /// `None`: it has been told.
    news: Option<oneshot::Receiver<Told<T>>>,
}

impl<T: Clone> Waiter<T> {
    /// Waits for news, however long; once it was told, for ever: who leads in another's place has nobody to wait for.
    pub async fn news(&mut self) -> Told<T> {
        let Some(news) = &mut self.news else { return std::future::pending().await };
        // Who holds the other end tells before it lets go.
        let told = news.await.unwrap_or(Told::Over);
        self.news = None;
        told
    }

    /// The same; but if nothing has come so long after the last leader began, this one leads as well, and can wait on for the
    /// others with this.
    pub async fn news_or_turn(&mut self, patience: Duration) -> Told<T> {
        loop {
            let Some(led_at) = self.led_at() else { return self.news().await };
            tokio::select! {
                biased;
                told = self.news() => return told,
                () = sleep_until(led_at + patience) => {}
            }
            if let Some(lead) = self.take_turn(patience) {
                return Told::Lead(lead);
            }
        }
    }

    /// When the last leader began. `None`: the news is there.
    fn led_at(&self) -> Option<Instant> {
        let shard = self.flights.shard(&self.key);
        shard.get(&self.key).filter(|flight| flight.id == self.id).map(|flight| flight.led_at)
    }

    fn take_turn(&self, patience: Duration) -> Option<Lead<T>> {
        let mut shard = self.flights.shard(&self.key);
        let flight = shard.get_mut(&self.key).filter(|flight| flight.id == self.id && flight.landed.is_none())?;
        if Instant::now() < flight.led_at + patience {
            // Somebody else was first.
            return None;
        }
        Some(self.flights.leader(&self.key, flight))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
