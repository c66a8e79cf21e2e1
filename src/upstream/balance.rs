//! `balance`: which endpoint takes the next exchange.
//!
//! Backups take part only while no other endpoint is up. An endpoint that is down, or has all its own `workers` busy,
//! is passed over; under `hash` its keys go to the next in their own order, and come back when it has room again.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::endpoint::Endpoint;
use crate::config::{self, KeyBy};
use crate::http::Key;

/// The endpoints of an upstream, and the rule by which they are chosen.
pub(super) struct Balance {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    rule: Rule,
    slow_start: Duration,
    /// Where the next choice begins to look.
    turn: AtomicUsize,
}

enum Rule {
    LeastBusy,
    /// Indexes in the order of turns, each as often as its weight says.
    RoundRobin(Box<[usize]>),
    Hash(KeyBy),
}

/// What is known of a request when an endpoint is chosen for it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// What `hash` goes by; `None`: the request has no such thing.
    pub(super) key: Option<u64>,
    /// The endpoint that has just failed it, which it is not to have again.
    pub(super) avoid: Option<usize>,
}

impl Balance {
    pub(super) fn new(endpoints: Vec<Arc<Endpoint>>, rule: &config::Balance, slow_start: Duration) -> Self {
        let rule = match rule {
            config::Balance::LeastBusy => Rule::LeastBusy,
            config::Balance::RoundRobin => Rule::RoundRobin(turns(&endpoints)),
            config::Balance::Hash(by) => Rule::Hash(by.clone()),
        };
        Self { endpoints, rule, slow_start, turn: AtomicUsize::new(0) }
    }

    /// What the key of a request is made of; `None`: there is no need of one.
    pub(super) fn hash_by(&self) -> Option<&KeyBy> {
        match &self.rule {
            Rule::Hash(by) if self.endpoints.len() > 1 => Some(by),
            _ => None,
        }
    }

    /// Whether any endpoint takes exchanges.
    pub(super) fn is_up(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.state.is_up())
    }

    fn is_primary_up(&self) -> bool {
        self.endpoints.iter().any(|endpoint| !endpoint.is_backup && endpoint.state.is_up())
    }

    /// Whether exchanges are sent to this endpoint now.
    pub(super) fn is_used(&self, endpoint: &Endpoint) -> bool {
        endpoint.state.is_up() && !(endpoint.is_backup && self.is_primary_up())
    }

    /// Whether this endpoint is the only one that takes exchanges. A backup that could is another.
    pub(super) fn is_last(&self, endpoint: &Endpoint) -> bool {
        // An endpoint of the configuration before a reload has another number, but the same state.
        let is_other = |other: &Endpoint| !Arc::ptr_eq(&other.state, &endpoint.state);
        !self.endpoints.iter().any(|other| is_other(other) && other.state.is_up())
    }

    /// Takes back those that are left out for a while, when there is no other. Whether there are any.
    pub(super) fn pardon(&self) -> bool {
        self.endpoints.iter().filter(|endpoint| endpoint.state.pardon()).count() > 0
    }

    /// Chooses an endpoint and takes a slot of it. `None`: none is up, or all that are have their own workers busy.
    pub(super) fn acquire(&self, wish: Wish) -> Option<Arc<Endpoint>> {
        if let [only] = &self.endpoints[..] {
            let may = wish.avoid != Some(only.id) && only.state.is_up();
            return (may && only.acquire()).then(|| Arc::clone(only));
        }
        let is_primary_up = self.is_primary_up();
        let may = |endpoint: &Endpoint| {
            endpoint.is_backup != is_primary_up && endpoint.state.is_up() && wish.avoid != Some(endpoint.id)
        };
        let chosen = match (&self.rule, wish.key) {
            (Rule::RoundRobin(turns), _) => self.in_turn(turns, may),
            (Rule::Hash(_), Some(key)) => self.by_key(key, may),
            _ => self.least_busy(may),
        };
        chosen.map(Arc::clone)
    }

    fn least_busy(&self, may: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        // Those that are equally busy take turns.
        let begin = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.endpoints.len();
        let candidates = || (0..count).map(|step| &self.endpoints[(begin.wrapping_add(step)) % count]);
        // Another thread may take the last slot in between: then the next best is asked.
        let mut passed_over = Vec::new();
        loop {
            let free = |endpoint: &&Arc<Endpoint>| may(endpoint) && !passed_over.contains(&endpoint.id);
            let best = candidates().filter(free).min_by(|a, b| self.load(a).total_cmp(&self.load(b)))?;
            if best.acquire() {
                return Some(best);
            }
            passed_over.push(best.id);
        }
    }

    /// How busy it would be with one more, for its weight.
    fn load(&self, endpoint: &Endpoint) -> f64 {
        f64::from(endpoint.state.in_flight() + 1) / self.share(endpoint)
    }

    /// Its weight, or part of it while it warms up.
    fn share(&self, endpoint: &Endpoint) -> f64 {
        f64::from(endpoint.weight) * endpoint.state.warmth(self.slow_start)
    }

    fn in_turn(&self, turns: &[usize], may: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let begin = self.turn.fetch_add(1, Ordering::Relaxed);
        let candidates = || (0..turns.len()).map(|step| &self.endpoints[turns[begin.wrapping_add(step) % turns.len()]]);
        let takes_turn = part_of(begin / turns.len());
        let is_warm = |endpoint: &Endpoint| endpoint.state.warmth(self.slow_start) >= takes_turn;
        let warm = candidates().find(|endpoint| may(endpoint) && is_warm(endpoint) && endpoint.acquire());
        // Whoever is there is better than nobody.
        warm.or_else(|| candidates().find(|endpoint| may(endpoint) && endpoint.acquire()))
    }

    /// Weighted rendezvous hashing: every key has an order of endpoints of its own, which changes only where an endpoint
    /// comes or goes.
    fn by_key(&self, key: u64, may: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let rank = |endpoint: &Endpoint| rank(key, endpoint.name(), self.share(endpoint));
        let candidates = self.endpoints.iter().filter(|endpoint| may(endpoint));
        let mut ranked: Vec<_> = candidates.map(|endpoint| (rank(endpoint), endpoint)).collect();
        ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        ranked.into_iter().map(|(_, endpoint)| endpoint).find(|endpoint| endpoint.acquire())
    }
}

/// The smaller, the earlier the key is given to this endpoint.
fn rank(key: u64, name: &str, share: f64) -> f64 {
    let digest = digest(&(key, name));
    // To a number strictly between 0 and 1, of which a float holds 52 bits.
    #[allow(clippy::cast_precision_loss)]
    let unit = ((digest >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    -unit.ln() / share
}

/// A number from 0 to 1 for every round of turns, so that any few rounds in a row are spread over that range.
fn part_of(round: usize) -> f64 {
    const GOLDEN: u32 = 0x9E37_79B9;
    // Only the lower half counts, and wraps.
    #[allow(clippy::cast_possible_truncation)]
    let spread = (round as u32).wrapping_mul(GOLDEN);
    f64::from(spread) / f64::from(u32::MAX)
}

/// What [`Wish::key`] is made of.
pub(super) fn digest_of(key: Key<'_>) -> u64 {
    match key {
        Key::Client(address) => digest(&address),
        Key::Value(value) => digest(&value),
    }
}

fn digest(value: &impl Hash) -> u64 {
    // The same in all threads and after a restart: no random seed.
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Smooth weighted round robin, spelled out: no endpoint gets its turns in one lump.
fn turns(endpoints: &[Arc<Endpoint>]) -> Box<[usize]> {
    let total: i64 = endpoints.iter().map(|endpoint| i64::from(endpoint.weight)).sum();
    let mut credit = vec![0_i64; endpoints.len()];
    let next = |_| {
        for (credit, endpoint) in credit.iter_mut().zip(endpoints) {
            *credit += i64::from(endpoint.weight);
        }
        let best = (0..credit.len()).rev().max_by_key(|at| credit[*at]).unwrap_or(0);
        credit[best] -= total;
        best
    };
    (0..total).map(next).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::clock;
    use super::super::endpoint::{Mark, test_endpoint};
    use super::*;

    fn balance(rule: config::Balance, endpoints: &[(&str, u32, Option<u32>, bool)]) -> Balance {
        let endpoint = |(name, weight, workers, backup): &(&str, u32, Option<u32>, bool)| {
            test_endpoint(name, *weight, *workers, *backup)
        };
        Balance::new(endpoints.iter().map(endpoint).collect(), &rule, Duration::ZERO)
    }

    fn taken(balance: &Balance, count: usize) -> HashMap<String, usize> {
        let mut taken = HashMap::new();
        for _ in 0..count {
            if let Some(endpoint) = balance.acquire(Wish::default()) {
                *taken.entry(endpoint.name().to_owned()).or_default() += 1;
            }
        }
        taken
    }

    fn with_slow_start(rule: config::Balance) -> Balance {
        Balance { slow_start: Duration::from_secs(100), ..balance(rule, &[A, B]) }
    }

    /// How many of a thousand exchanges, which end at once but for what else is busy, the second endpoint gets.
    fn share_of_b(balance: &Balance) -> usize {
        match balance.rule {
            Rule::LeastBusy => {
                let taken = taken(balance, 1000);
                balance.endpoints.iter().for_each(|endpoint| {
                    (0..taken.get(endpoint.name()).copied().unwrap_or(0)).for_each(|_| endpoint.release());
                });
                taken.get("unix:/b").copied().unwrap_or(0)
            }
            Rule::RoundRobin(_) => taken(balance, 1000).get("unix:/b").copied().unwrap_or(0),
            Rule::Hash(_) => homes(balance).iter().filter(|name| *name == "unix:/b").count(),
        }
    }

    #[test]
    fn an_endpoint_that_is_back_warms_up_whatever_had_kept_it_out() {
        type Out = fn(&Endpoint);
        let silence: Out = |b| assert!(b.state.set(Mark::Silent, true) && b.state.set(Mark::Silent, false));
        let health: Out = |b| assert!(b.state.set(Mark::Unhealthy, true) && b.state.set(Mark::Unhealthy, false));
        let ejection: Out = |b| {
            b.state.eject(Duration::from_secs(10));
            clock::advance(Duration::from_secs(10));
        };
        let rules = || [config::Balance::LeastBusy, config::Balance::RoundRobin, config::Balance::Hash(KeyBy::Client)];
        for (rule, out) in
            rules().into_iter().flat_map(|rule| [silence, health, ejection].map(|out| (rule.clone(), out)))
        {
            let balance = with_slow_start(rule.clone());
            let full = share_of_b(&balance);
            assert!((450..=550).contains(&full), "{rule:?}: {full}");
            out(&balance.endpoints[1]);
            // A tenth against one, then a half against one.
            let cold = share_of_b(&balance);
            assert!((40..=140).contains(&cold), "{rule:?}: {cold}");
            clock::advance(Duration::from_secs(50));
            let half = share_of_b(&balance);
            assert!((220..=380).contains(&half), "{rule:?}: {half}");
            clock::advance(Duration::from_secs(50));
            assert!(share_of_b(&balance).abs_diff(full) <= 1, "{rule:?}");
        }
    }

    #[test]
    fn a_cold_endpoint_takes_all_while_it_is_alone() {
        let balance = with_slow_start(config::Balance::RoundRobin);
        balance.endpoints[1].state.set(Mark::Silent, true);
        balance.endpoints[1].state.set(Mark::Silent, false);
        balance.endpoints[0].state.set(Mark::Silent, true);
        assert_eq!(share_of_b(&balance), 1000);
    }

    #[test]
    fn a_backup_that_is_up_is_another_endpoint() {
        let balance = balance(config::Balance::LeastBusy, &[A, ("unix:/b", 1, None, true)]);
        let [a, b] = &balance.endpoints[..] else { unreachable!() };
        assert!(!balance.is_last(a) && !balance.is_last(b));
        assert!(balance.is_used(a) && !balance.is_used(b));
        b.state.set(Mark::Unhealthy, true);
        assert!(balance.is_last(a));
        a.state.eject(Duration::from_secs(60));
        assert!(!balance.is_up() && balance.pardon() && balance.is_used(a), "the only one is not left out");
    }

    const A: (&str, u32, Option<u32>, bool) = ("unix:/a", 1, None, false);
    const B: (&str, u32, Option<u32>, bool) = ("unix:/b", 1, None, false);

    #[test]
    fn the_least_busy_for_its_weight_is_next() {
        let balance = balance(config::Balance::LeastBusy, &[A, ("unix:/b", 3, None, false)]);
        let taken = taken(&balance, 40);
        assert_eq!((taken["unix:/a"], taken["unix:/b"]), (10, 30));
    }

    #[test]
    fn turns_are_spread_by_weight() {
        let balance = balance(config::Balance::RoundRobin, &[A, ("unix:/b", 2, None, false)]);
        let names: Vec<_> = (0..6).map(|_| balance.acquire(Wish::default()).unwrap().name().to_owned()).collect();
        assert_eq!(names, ["unix:/b", "unix:/a", "unix:/b", "unix:/b", "unix:/a", "unix:/b"]);
    }

    #[test]
    fn an_endpoint_takes_no_more_than_its_own_workers() {
        for rule in [config::Balance::LeastBusy, config::Balance::RoundRobin, config::Balance::Hash(KeyBy::Client)] {
            let balance = balance(rule, &[("unix:/a", 5, Some(2), false), ("unix:/b", 1, Some(3), false)]);
            let taken = taken(&balance, 10);
            assert_eq!((taken["unix:/a"], taken["unix:/b"]), (2, 3));
        }
    }

    #[test]
    fn backups_wait_until_no_other_is_up() {
        let balance =
            balance(config::Balance::LeastBusy, &[("unix:/a", 1, Some(1), false), ("unix:/b", 1, None, true)]);
        assert_eq!(taken(&balance, 3), HashMap::from([("unix:/a".to_owned(), 1)]), "busy is not down");
        balance.endpoints[0].state.set(Mark::Silent, true);
        assert_eq!(taken(&balance, 3), HashMap::from([("unix:/b".to_owned(), 3)]));
        balance.endpoints[1].state.set(Mark::Unhealthy, true);
        assert_eq!((balance.is_up(), taken(&balance, 1).len()), (false, 0));
    }

    #[test]
    fn the_endpoint_that_failed_is_not_taken_again() {
        let balance = balance(config::Balance::LeastBusy, &[A, B]);
        let first = balance.endpoints[0].id;
        let wish = Wish { avoid: Some(first), ..Wish::default() };
        for _ in 0..3 {
            assert_eq!(balance.acquire(wish).unwrap().name(), "unix:/b");
        }
        balance.endpoints[1].state.set(Mark::Silent, true);
        assert!(balance.acquire(wish).is_none());
    }

    fn homes(balance: &Balance) -> Vec<String> {
        let home = |key: u64| {
            let endpoint = balance.acquire(Wish { key: Some(digest(&key)), ..Wish::default() }).unwrap();
            endpoint.release();
            endpoint.name().to_owned()
        };
        (0..1000).map(home).collect()
    }

    #[test]
    fn a_key_keeps_its_endpoint_while_others_come_and_go() {
        let rule = || config::Balance::Hash(KeyBy::Client);
        let three = [A, B, ("unix:/c", 1, None, false)];
        let (before, balance) = (homes(&balance(rule(), &three)), balance(rule(), &three));
        assert_eq!(homes(&balance), before, "the same after a restart");
        balance.endpoints[2].state.set(Mark::Silent, true);
        let moved = homes(&balance).iter().zip(&before).filter(|(now, then)| now != then).count();
        let of_c = before.iter().filter(|name| *name == "unix:/c").count();
        assert_eq!(moved, of_c, "only what was at home there moves");
        assert!((250..420).contains(&of_c), "{of_c}");
    }

    #[test]
    fn weights_share_out_the_keys() {
        let balance = balance(config::Balance::Hash(KeyBy::Client), &[A, ("unix:/b", 3, None, false)]);
        let of_b = homes(&balance).iter().filter(|name| *name == "unix:/b").count();
        assert!((700..800).contains(&of_b), "{of_b}");
    }
}
