//! How old a response is, how long it is fresh, and how long it may be used after that (RFC 9111, 4.2).
//!
//! Two clocks are handed in. The **wall clock**, in seconds since 1970, is held against `Date` and `Expires` once, when a
//! response arrives. The **steady clock**, in milliseconds, says how long it has been here: that of the wall when the process
//! started, and from then on a monotonic one, so that setting the wall clock changes no age. Of two threads that have read it at
//! slightly different times, one may be behind: that is an age of nothing, not of centuries.

use std::time::Duration;

use http::header::{self, HeaderMap};

use super::cache_control::MAX_SECONDS;
use super::date;
use super::rules::Rules;
use super::said::Source;
use crate::cache::clock::SLACK;

/// The most that a part of its age keeps a response fresh, in seconds: a day, after which RFC 9111, 4.2.2 wants to be told.
pub const MAX_HEURISTIC: u32 = 86_400;

/// What no time is: the response says nothing of it.
const UNSAID: u32 = u32::MAX;

/// When a request went out and its response came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When the request was sent to the app, by the steady clock, in milliseconds.
    pub requested: u64,
    /// When the head of the response came, by the steady clock, in milliseconds.
    pub received: u64,
    /// The same by the wall clock, in seconds since 1970.
    pub wall: u64,
}

/// What a stored response is used by: read once, when it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// When it came, by the steady clock, in milliseconds.
    received: u64,
    /// How old it was then, in milliseconds.
    initial_age: u64,
    /// How old it may get and be fresh, in milliseconds.
    lifetime: u64,
    /// In seconds; [`UNSAID`]: what the route says.
    stale_while_revalidate: u32,
    stale_if_error: u32,
    /// How long after its arrival it was purged softly, in seconds; [`UNSAID`]: it was not.
    purged: u32,
    flags: u8,
    source: Source,
    /// Of the response.
    status: u16,
}

/// What [`super::storable`] has found out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) times: Times,
    pub(super) initial_age: u64,
    pub(super) lifetime: Duration,
    pub(super) source: Source,
    pub(super) stale_while_revalidate: Option<u32>,
    pub(super) stale_if_error: Option<u32>,
    pub(super) flags: u8,
    pub(super) status: u16,
}

impl Stored {
    /// Every use needs a word of the app (`no-cache`).
    pub(super) const NO_CACHE: u8 = 1;
    /// It is never used stale (`must-revalidate`, `proxy-revalidate`).
    pub(super) const NEVER_STALE: u8 = 1 << 1;
    /// It is used stale only as it says itself (`s-maxage`).
    pub(super) const STALE_IF_SAID: u8 = 1 << 2;
    /// It may be given to whoever sends `Authorization` (RFC 9111, 3.5).
    pub(super) const FOR_AUTHORIZATION: u8 = 1 << 3;
    /// It may be given to anybody (`public`).
    pub(super) const FOR_ANYBODY: u8 = 1 << 4;
    /// It does not change while it is fresh (RFC 8246).
    pub(super) const IMMUTABLE: u8 = 1 << 5;
    /// It can be asked for again by a condition.
    pub(super) const HAS_VALIDATOR: u8 = 1 << 6;

    /// Bytes of [`Stored::to_bytes`].
    pub const LENGTH: usize = 40;

    pub(super) fn new(facts: Facts) -> Self {
        let lifetime = u64::try_from(facts.lifetime.as_millis()).unwrap_or(u64::MAX);
        Self {
            received: facts.times.received,
            initial_age: facts.initial_age,
            lifetime: lifetime.min(u64::from(MAX_SECONDS) * 1000),
            stale_while_revalidate: facts.stale_while_revalidate.unwrap_or(UNSAID),
            stale_if_error: facts.stale_if_error.unwrap_or(UNSAID),
            purged: UNSAID,
            flags: facts.flags,
            source: facts.source,
            status: facts.status,
        }
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Its age at `now` by the steady clock (4.2.3), in milliseconds.
    #[must_use]
    pub const fn age(&self, now: u64) -> u64 {
        self.initial_age.saturating_add(now.saturating_sub(self.received))
    }

    /// The value of its `Age` (5.1), in seconds.
    #[must_use]
    pub const fn age_seconds(&self, now: u64) -> u64 {
        let seconds = self.age(now) / 1000;
        if seconds > MAX_SECONDS as u64 { MAX_SECONDS as u64 } else { seconds }
    }

    /// How much of its time is over, in milliseconds: its age. But what the edge was told or decides by itself is counted from the
    /// arrival, as nginx does: a page that takes a second is worth keeping for one, too.
    const fn used(&self, now: u64) -> u64 {
        let here = now.saturating_sub(self.received);
        if self.counts_from_arrival() { here } else { self.initial_age.saturating_add(here) }
    }

    const fn counts_from_arrival(&self) -> bool {
        // What is older than can be known is so by any count.
        matches!(self.source, Source::Accel | Source::AccelDate | Source::Default) && self.initial_age < u64::MAX
    }

    /// How much of its time there is: its lifetime, or less if it was purged.
    const fn limit(&self) -> u64 {
        if self.purged == UNSAID {
            return self.lifetime;
        }
        let purged = self.used(self.received.saturating_add(self.purged as u64 * 1000));
        if purged < self.lifetime { purged } else { self.lifetime }
    }

    /// Whether its time is not yet over (4.2). What needs a word of the app before each use can be fresh, too.
    #[must_use]
    pub const fn is_fresh(&self, now: u64) -> bool {
        self.used(now) < self.limit()
    }

    /// How long it stays fresh, in seconds, rounded down; less than zero: how long it has been stale (RFC 9211, 2.4).
    #[must_use]
    pub fn ttl(&self, now: u64) -> i64 {
        // Nobody reads more than the most seconds that there are.
        let signed = |time: u64| i64::try_from(time.min(2 * 1000 * u64::from(MAX_SECONDS))).unwrap_or(i64::MAX);
        (signed(self.limit()) - signed(self.used(now))).div_euclid(1000)
    }

    /// How long it has been stale, in milliseconds; 0: it is not.
    #[must_use]
    pub const fn staleness(&self, now: u64) -> u64 {
        self.used(now).saturating_sub(self.limit())
    }

    /// How long it stays fresh, in milliseconds.
    pub(super) const fn left(&self, now: u64) -> u64 {
        self.limit().saturating_sub(self.used(now))
    }

    /// How long it would be fresh if it were new, in milliseconds.
    #[must_use]
    pub const fn lifetime(&self) -> u64 {
        self.lifetime
    }

    /// Whose word that is.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// The status of the response.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether there is anything to ask the app by whether it is still good.
    #[must_use]
    pub const fn has_validator(&self) -> bool {
        self.has(Self::HAS_VALIDATOR)
    }

    /// When it can no longer be used at all without a word of the app, by the steady clock, in milliseconds: what a store may
    /// go by when it looks for what is worth least. A response with a validator is still good for being asked for.
    #[must_use]
    pub fn ends(&self, rules: &Rules) -> u64 {
        if self.has(Self::NO_CACHE) {
            return self.received;
        }
        let left = self.limit().saturating_add(self.window_if_error(rules)).saturating_sub(self.used(self.received));
        self.received.saturating_add(left)
    }

    /// Whether it may be used now although it is stale, while a new one is fetched (RFC 5861, 3).
    pub(super) fn may_be_stale(&self, rules: &Rules, now: u64) -> bool {
        let window = self.window(self.stale_while_revalidate, rules.stale_while_revalidate);
        // Without a window the very moment at which it gets stale is none.
        window > 0 && self.staleness(now) <= window
    }

    /// Whether anybody may be answered with it now who asks for nothing in particular.
    #[must_use]
    pub fn is_useful(&self, rules: &Rules, now: u64) -> bool {
        !self.has(Self::NO_CACHE) && (self.is_fresh(now) || self.may_be_stale(rules, now))
    }

    /// Whether nothing forbids to use it stale, to a client that takes it so (RFC 9111, 4.2.4 and 5.2.1.2).
    pub(super) const fn may_be_stale_for_clients(&self) -> bool {
        !self.has(Self::NO_CACHE | Self::NEVER_STALE | Self::STALE_IF_SAID)
    }

    /// Whether it may be used instead of a failure (RFC 5861, 4): the app does not answer, answers with 500, 502, 503 or 504, or
    /// there is no place in its waiting room.
    #[must_use]
    pub fn may_replace_failure(&self, rules: &Rules, now: u64) -> bool {
        if self.has(Self::NO_CACHE) {
            return false;
        }
        let window = self.window_if_error(rules);
        self.is_fresh(now) || (window > 0 && self.staleness(now) <= window)
    }

    /// The longer of both: what may be used before anybody has asked may be used all the more when asking fails.
    fn window_if_error(&self, rules: &Rules) -> u64 {
        let if_error = self.window(self.stale_if_error, rules.stale_if_error);
        if_error.max(self.window(self.stale_while_revalidate, rules.stale_while_revalidate))
    }

    /// In milliseconds.
    fn window(&self, said: u32, of_route: Duration) -> u64 {
        match said {
            _ if self.has(Self::NEVER_STALE | Self::NO_CACHE) => 0,
            UNSAID if self.has(Self::STALE_IF_SAID) => 0,
            UNSAID => u64::try_from(of_route.as_millis()).unwrap_or(u64::MAX),
            seconds => u64::from(seconds) * 1000,
        }
    }

    /// The same, stale from `now` on: what a soft purge makes of it.
    #[must_use]
    pub fn expired(mut self, now: u64) -> Self {
        let seconds = u32::try_from(now.saturating_sub(self.received) / 1000).unwrap_or(UNSAID - 1);
        self.purged = self.purged.min(seconds);
        self
    }

    /// The same as whoever looks at `now` has it, when a soft purge struck it at `at`, by the steady clock, in milliseconds: stale, and
    /// its windows count from then, however often it is looked at.
    #[must_use]
    pub fn purged(self, at: u64, now: u64) -> Self {
        // Who looks may have read the clock before the purge came, and finds it stale all the same. If that was in what is the
        // future now, the clock has been set back, and nobody knows when it was: as early as can be.
        let is_of_the_future = at > now.saturating_add(SLACK);
        self.expired(if is_of_the_future { 0 } else { at.min(now) })
    }

    /// The same as an earlier process stored it: if that was in what is the future now, the clock has been set back and nobody
    /// knows how old it is. It is then stale beyond every window.
    #[must_use]
    pub fn resumed(mut self, now: u64) -> Self {
        if self.received > now.saturating_add(SLACK) {
            self.received = 0;
            self.initial_age = u64::MAX;
            self.lifetime = 0;
        }
        self
    }

    /// As it lies on disk.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.received.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.initial_age.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lifetime.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.stale_while_revalidate.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.stale_if_error.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.purged.to_le_bytes());
        bytes[36] = self.flags;
        bytes[37] = self.source as u8;
        bytes[38..].copy_from_slice(&self.status.to_le_bytes());
        bytes
    }

    /// As it lay there. `None`: another version wrote it. Not yet [resumed](Self::resumed).
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let (longs, _) = bytes.as_chunks::<8>();
        let [received, initial_age, lifetime, windows, rest] = longs else { return None };
        let [p0, p1, p2, p3, flags, source, low, high] = *rest;
        let (windows, _) = windows.as_chunks::<4>();
        let [stale_while_revalidate, stale_if_error] = windows else { return None };
        Some(Self {
            received: u64::from_le_bytes(*received),
            initial_age: u64::from_le_bytes(*initial_age),
            lifetime: u64::from_le_bytes(*lifetime),
            stale_while_revalidate: u32::from_le_bytes(*stale_while_revalidate),
            stale_if_error: u32::from_le_bytes(*stale_if_error),
            purged: u32::from_le_bytes([p0, p1, p2, p3]),
            flags,
            source: *Source::ALL.get(usize::from(source))?,
            status: u16::from_le_bytes([low, high]),
        })
    }
}

/// The age of a response on its arrival (4.2.3), in milliseconds. `date` is its own, in seconds since 1970.
#[must_use]
pub fn initial_age(headers: &HeaderMap, date: u64, times: &Times) -> u64 {
    let apparent = times.wall.saturating_sub(date).saturating_mul(1000);
    let delay = times.received.saturating_sub(times.requested);
    let corrected = age_field(headers).saturating_mul(1000).saturating_add(delay);
    apparent.max(corrected)
}

/// `Age` in seconds, 0 without one: of a list the first value, of what is no number nothing (5.1).
fn age_field(headers: &HeaderMap) -> u64 {
    let Some(line) = headers.get(header::AGE) else { return 0 };
    let first = line.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let number = first.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add((digit - b'0').into()));
    number.min(MAX_SECONDS.into())
}

/// A part of the time since its last change (4.2.2), in seconds. `date` is that of the response.
pub(super) fn heuristic(headers: &HeaderMap, date: u64, percent: u8) -> Option<u32> {
    let modified = date::only(headers, &header::LAST_MODIFIED)?;
    let seconds = date.saturating_sub(modified).saturating_mul(percent.into()) / 100;
    (seconds > 0).then(|| u32::try_from(seconds).map_or(MAX_HEURISTIC, |seconds| seconds.min(MAX_HEURISTIC)))
}
