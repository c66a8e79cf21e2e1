//! One address of an upstream: what is known of it now, and how many exchanges it has.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::{millis, now};
use super::connect::Connector;
use crate::config;
use crate::config::EndpointAddress;

/// An endpoint as the configuration in force has it.
pub struct Endpoint {
    /// Never the same twice in a process: connections are kept under it.
    pub(super) id: usize,
    pub(super) address: EndpointAddress,
    pub(super) connector: Connector,
    pub(super) weight: u32,
    pub(super) is_backup: bool,
    /// Exchanges in flight here, whatever the upstream's number.
    pub(super) workers: u32,
    /// What a reload does not change.
    pub(super) state: Arc<State>,
}

/// Who has not been told yet that an exchange was answered: the probes.
const FOR_HEALTH: u8 = 1;
/// The count of failures.
const FOR_EJECTION: u8 = 2;

/// What is known of an address, from the moment it is first named.
#[derive(Debug)]
pub(super) struct State {
    /// The address as the operator wrote it.
    pub(super) name: Arc<str>,
    in_flight: AtomicU32,
    marks: AtomicU8,
    /// Whether it has answered an exchange well since somebody last asked.
    has_served: AtomicU8,
    /// Milliseconds of the process' clock until which it is left out; 0: it is not.
    ejected_until: AtomicU64,
    /// Milliseconds of the process' clock since which it takes part again; 0: it has always done.
    back_since: AtomicU64,
    /// When it failed of late.
    failures: Mutex<VecDeque<u64>>,
    /// Whether it has ever sent the `100 Continue` that it was asked for.
    pub(super) answers_continue: AtomicBool,
}

/// Why an endpoint takes no exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mark {
    /// It refuses connections, or its socket is missing.
    Silent = 1,
    /// Probes fail.
    Unhealthy = 2,
    /// The operator has taken it out.
    Drained = 4,
}

/// What an operator reads of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It takes exchanges.
    Up,
    /// It refuses connections, or its socket is missing.
    Silent,
    /// Probes fail.
    Unhealthy,
    /// It failed too often and is left out for a while.
    Ejected,
    /// The operator has taken it out.
    Drained,
}

impl Condition {
    /// The name in logs and in `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Silent => "silent",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Drained => "drained",
        }
    }
}

impl Endpoint {
    /// `state` is that of the same address before a reload, if there was one.
    pub(super) fn compile(config: &config::Endpoint, connector: Connector, state: Option<Arc<State>>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            address: config.address.clone(),
            connector,
            weight: config.weight,
            is_backup: config.backup,
            workers: config.workers.unwrap_or(u32::MAX),
            state: state.unwrap_or_else(|| Arc::new(State::new(&config.address))),
        }
    }

    /// The address as the operator wrote it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Where its workers listen.
    #[must_use]
    pub fn address(&self) -> &EndpointAddress {
        &self.address
    }

    /// Its share of the exchanges against the others.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Whether it is used only while no other endpoint can be.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        self.is_backup
    }

    /// Its own number of workers; `None`: only the upstream's holds.
    #[must_use]
    pub fn workers(&self) -> Option<u32> {
        (self.workers < u32::MAX).then_some(self.workers)
    }

    /// Exchanges in flight here.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.state.in_flight()
    }

    /// Whether it takes exchanges now, and if not, why.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.state.condition()
    }

    /// Takes one of its slots.
    pub(super) fn acquire(&self) -> bool {
        let take = |taken: u32| (taken < self.workers).then_some(taken + 1);
        self.state.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// The same for a probe, which leaves one to users, unless none is in use. `is_used`: whether exchanges are sent here;
    /// if not, it takes any of them. `slots`: the upstream's.
    pub(super) fn acquire_for_probe(&self, is_used: bool, slots: u32) -> bool {
        let workers = self.workers.min(slots);
        let is_free = |taken: u32| taken < workers && (!is_used || taken == 0 || taken + 2 <= workers);
        let take = |taken: u32| is_free(taken).then_some(taken + 1);
        self.state.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Gives a slot back.
    pub(super) fn release(&self) {
        self.state.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name()).field("state", &self.state).finish_non_exhaustive()
    }
}

impl State {
    fn new(address: &EndpointAddress) -> Self {
        Self {
            name: address.to_string().into(),
            in_flight: AtomicU32::new(0),
            marks: AtomicU8::new(0),
            has_served: AtomicU8::new(0),
            ejected_until: AtomicU64::new(0),
            back_since: AtomicU64::new(0),
            failures: Mutex::default(),
            answers_continue: AtomicBool::new(false),
        }
    }

    /// Exchanges in flight here.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Whether it takes exchanges now.
    pub(super) fn is_up(&self) -> bool {
        if self.marks.load(Ordering::Acquire) != 0 {
            return false;
        }
        // The clock is read only while there is something to compare it with.
        match self.ejected_until.load(Ordering::Acquire) {
            0 => true,
            until if until <= now() => {
                // An error is a new ejection meanwhile, or another thread that was as quick.
                let _ = self.ejected_until.compare_exchange(until, 0, Ordering::AcqRel, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    pub(super) fn condition(&self) -> Condition {
        let marks = self.marks.load(Ordering::Acquire);
        let has = |mark: Mark| marks & mark as u8 != 0;
        match () {
            () if has(Mark::Drained) => Condition::Drained,
            () if has(Mark::Silent) => Condition::Silent,
            () if has(Mark::Unhealthy) => Condition::Unhealthy,
            () if self.is_up() => Condition::Up,
            () => Condition::Ejected,
        }
    }

    pub(super) fn has(&self, mark: Mark) -> bool {
        self.marks.load(Ordering::Acquire) & mark as u8 != 0
    }

    /// Sets or takes away a mark. Whether that changed anything.
    pub(super) fn set(&self, mark: Mark, on: bool) -> bool {
        let bit = mark as u8;
        let before =
            if on { self.marks.fetch_or(bit, Ordering::AcqRel) } else { self.marks.fetch_and(!bit, Ordering::AcqRel) };
        let changed = (before & bit != 0) != on;
        if changed && !on {
            self.back_since.store(now(), Ordering::Release);
        }
        changed
    }

    /// It has answered an exchange, and not with a failure of its own.
    pub(super) fn served(&self) {
        // Read far more often than written: the line stays shared between threads.
        if self.has_served.load(Ordering::Relaxed) != FOR_HEALTH | FOR_EJECTION {
            self.has_served.store(FOR_HEALTH | FOR_EJECTION, Ordering::Relaxed);
        }
    }

    /// Whether it has, since this was last asked.
    pub(super) fn take_served(&self) -> bool {
        self.has_served.fetch_and(!FOR_HEALTH, Ordering::Relaxed) & FOR_HEALTH != 0
    }

    /// Leaves it out from now on for so long.
    pub(super) fn eject(&self, duration: Duration) {
        let until = now().saturating_add(millis(duration));
        self.ejected_until.store(until, Ordering::Release);
        self.back_since.store(until, Ordering::Release);
    }

    /// Ends its being left out for a while, if nothing else keeps it out. Whether that changed anything.
    pub(super) fn pardon(&self) -> bool {
        let is_ejected = self.condition() == Condition::Ejected;
        if is_ejected {
            self.ejected_until.store(0, Ordering::Release);
            self.back_since.store(now(), Ordering::Release);
        }
        is_ejected
    }

    /// Counts a failure. Whether there have been `limit` of them within `window` with no answer in between: a page that
    /// kills its worker, and whoever asks for it again and again, is not to take a good endpoint away from everybody.
    /// Then it begins anew.
    pub(super) fn failed(&self, limit: u32, window: Duration) -> bool {
        let now = now();
        let begin = now.saturating_sub(millis(window));
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_served.fetch_and(!FOR_EJECTION, Ordering::Relaxed) & FOR_EJECTION != 0 {
            failures.clear();
        }
        while failures.front().is_some_and(|at| *at < begin) {
            failures.pop_front();
        }
        failures.push_back(now);
        let is_over = u32::try_from(failures.len()).unwrap_or(u32::MAX) >= limit;
        if is_over {
            failures.clear();
        }
        is_over
    }

    /// How much of its weight counts while it warms up: 0.1 to 1.
    pub(super) fn warmth(&self, slow_start: Duration) -> f64 {
        let since = self.back_since.load(Ordering::Acquire);
        if since == 0 || slow_start.is_zero() {
            return 1.0;
        }
        let back = Duration::from_millis(now().saturating_sub(since));
        (back.as_secs_f64() / slow_start.as_secs_f64()).clamp(0.1, 1.0)
    }
}

#[cfg(test)]
pub(super) fn test_endpoint(name: &str, weight: u32, workers: Option<u32>, backup: bool) -> Arc<Endpoint> {
    let address = EndpointAddress::parse(name).unwrap();
    let connector = Connector::plain(&address);
    Arc::new(Endpoint::compile(&config::Endpoint { address, weight, workers, backup }, connector, None))
}

#[cfg(test)]
mod tests {
    use super::super::clock;
    use super::*;

    #[test]
    fn its_own_number_of_workers_holds() {
        let endpoint = test_endpoint("unix:/a", 1, Some(2), false);
        assert_eq!([endpoint.acquire(), endpoint.acquire(), endpoint.acquire()], [true, true, false]);
        endpoint.release();
        assert!(endpoint.acquire());
    }

    #[test]
    fn marks_come_and_go_one_by_one() {
        let endpoint = test_endpoint("unix:/a", 1, None, false);
        let state = &endpoint.state;
        assert_eq!(state.condition(), Condition::Up);
        assert!(state.set(Mark::Silent, true) && !state.set(Mark::Silent, true));
        state.set(Mark::Unhealthy, true);
        state.set(Mark::Silent, false);
        assert_eq!((state.is_up(), state.condition()), (false, Condition::Unhealthy));
        state.set(Mark::Unhealthy, false);
        assert!(state.is_up());
        state.eject(Duration::from_secs(60));
        assert_eq!((state.is_up(), state.condition()), (false, Condition::Ejected));
        state.eject(Duration::ZERO);
        assert!(state.is_up());
    }

    #[test]
    fn failures_count_within_their_window() {
        let endpoint = test_endpoint("unix:/a", 1, None, false);
        let window = Duration::from_secs(60);
        assert_eq!([1, 2, 3, 4].map(|_| endpoint.state.failed(3, window)), [false, false, true, false]);
        clock::advance(Duration::from_secs(50));
        assert!(!endpoint.state.failed(3, window), "the second within a minute");
        clock::advance(Duration::from_secs(11));
        assert!(!endpoint.state.failed(3, window), "the first of those is too old by now");
        clock::advance(Duration::from_secs(40));
        assert!(endpoint.state.failed(3, window), "wherever the window begins");
    }

    #[test]
    fn an_answer_ends_a_row_of_failures() {
        let endpoint = test_endpoint("unix:/a", 1, None, false);
        let fails = || endpoint.state.failed(3, Duration::from_secs(60));
        assert!(!fails() && !fails());
        endpoint.state.served();
        assert!(!fails() && !fails() && fails());
        endpoint.state.served();
        assert!(endpoint.state.take_served() && !endpoint.state.take_served(), "the probes are told as well, once");
    }

    #[test]
    fn an_ejection_ends_by_itself_or_by_pardon() {
        let endpoint = test_endpoint("unix:/a", 1, None, false);
        let state = &endpoint.state;
        state.eject(Duration::from_secs(10));
        clock::advance(Duration::from_secs(9));
        assert!(!state.is_up());
        clock::advance(Duration::from_secs(2));
        assert!(state.is_up() && !state.pardon());
        state.eject(Duration::from_secs(10));
        state.set(Mark::Drained, true);
        assert!(!state.pardon(), "it would not be up");
        state.set(Mark::Drained, false);
        assert!(state.pardon() && state.is_up());
    }

    #[test]
    fn a_probe_leaves_a_slot_to_users() {
        let endpoint = test_endpoint("unix:/a", 1, Some(3), false);
        assert!(endpoint.acquire_for_probe(true, 8), "an idle endpoint");
        assert!(endpoint.acquire_for_probe(true, 8), "two are free");
        assert!(
            !endpoint.acquire_for_probe(true, 8) && endpoint.acquire_for_probe(false, 8),
            "nobody else is sent there"
        );
        assert!(!endpoint.acquire_for_probe(false, 8), "nor more than it has");
        let one = test_endpoint("unix:/b", 1, None, false);
        assert!(one.acquire_for_probe(true, 1) && !one.acquire_for_probe(false, 1));
    }
}
