//! What was purged, and when: for whatever could not be reached just then, because it was being written, or is a file that has
//! not been found yet.
//!
//! The store counts what happens ("moments"). A response is as old as the moment at which the app was asked for it: every purge
//! that came later strikes it, whenever it is stored.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;

use super::stale::StaleFrom;

/// What is to be purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// What is stored of one URL, exactly so with its query, in all variants.
    Url {
        /// As it was told with the response.
        host: Box<[u8]>,
        /// With the query.
        path: Box<[u8]>,
    },
    /// What is stored of a host below a path: whatever begins so, letter for letter.
    Prefix {
        /// As it was told with the response.
        host: Box<[u8]>,
        /// How paths begin.
        path: Box<[u8]>,
    },
    /// All of a host.
    Host(Box<[u8]>),
    /// All that has a tag.
    Tag(Box<[u8]>),
    /// Everything.
    All,
}

/// How it is purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// It is stale from now on, but may serve where a stale response may.
    Soft,
    /// It is gone.
    Hard,
}

impl Purge {
    /// Bytes of the names in it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Url { host, path } | Self::Prefix { host, path } => host.len() + path.len(),
            Self::Host(name) | Self::Tag(name) => name.len(),
            Self::All => 0,
        }
    }
}

/// What becomes of a response by a purge, or by several: the least counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Gone,
    /// It may serve, stale since then, if it is at all.
    Stays(StaleFrom),
}

impl Fate {
    /// Nobody has purged it.
    pub(super) const UNTOUCHED: Self = Self::Stays(StaleFrom::NEVER);

    /// The same where an earlier process may have written it: see [`StaleFrom::told`].
    pub(super) fn told(self, now: u64) -> Self {
        match self {
            Self::Gone => Self::Gone,
            Self::Stays(from) => Self::Stays(from.told(now)),
        }
    }

    /// Since when it is stale. `None`: it is gone.
    pub(super) fn stays(self) -> Option<StaleFrom> {
        match self {
            Self::Gone => None,
            Self::Stays(from) => Some(from),
        }
    }
}

/// A purge that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) at: u64,
    pub(super) what: Purge,
    /// Of what it strikes.
    pub(super) fate: Fate,
}

/// What is kept of a purge.
#[derive(Debug)]
enum Kept {
    /// What stands for the one URL, host or tag that it names, or for everything. Where those of two should be the same, more is
    /// struck than was meant.
    One(u64),
    Beneath {
        host: Box<[u8]>,
        path: Box<[u8]>,
    },
}

/// The purges that may still strike somebody.
///
/// What they name is looked up, but for the beginnings of paths, which are gone through: what an unsafe request strikes is a
/// URL, and there may be thousands of those, where beginnings are an operator's.
#[derive(Debug)]
pub(super) struct Rules {
    /// Oldest first.
    list: VecDeque<(u64, Fate, Kept)>,
    /// By what stands for them: when those of the list came last that are hard.
    hard: HashMap<u64, u64>,
    /// Those that are soft: since when what they strike is stale, by what stands for them, and when they came. All of them: the
    /// first that strikes somebody counts.
    soft: BTreeMap<(u64, u64), StaleFrom>,
    /// How many of the list name the beginning of a path.
    beginnings: usize,
    hash: RandomState,
    /// Of the list.
    bytes: usize,
    /// What is older may have been struck by a purge that is no longer in the list.
    floor: u64,
    most: usize,
}

/// Purges that are kept for what is being written: a busy site's unsafe requests of some seconds are among them.
pub(super) const FEW: usize = 8192;
/// Purges that are kept while not all files have been found.
pub(super) const MANY: usize = 65_536;
/// Bytes that they may take, by which the names of paths are meant.
const MOST_BYTES: usize = 16 << 20;
/// What one takes beside its names, in bytes.
const PER_RULE: usize = 120;

impl Rules {
    pub(super) fn new(most: usize) -> Self {
        let (list, hard, soft, hash) = Default::default();
        Self { list, hard, soft, beginnings: 0, hash, bytes: 0, floor: 0, most }
    }

    /// Changes how many are kept.
    pub(super) fn keep(&mut self, most: usize) {
        self.most = most;
        self.forget();
    }

    /// Adds the youngest.
    pub(super) fn push(&mut self, rule: &Rule) {
        let kept = match &rule.what {
            Purge::Url { host, path } => Kept::One(self.url(host, path)),
            Purge::Prefix { host, path } => Kept::Beneath { host: host.clone(), path: path.clone() },
            Purge::Host(host) => Kept::One(self.host(host)),
            Purge::Tag(tag) => Kept::One(self.tag(tag)),
            Purge::All => Kept::One(self.all()),
        };
        match (&kept, rule.fate) {
            (Kept::One(hash), Fate::Gone) => {
                self.hard.insert(*hash, rule.at);
            }
            (Kept::One(hash), Fate::Stays(from)) => {
                self.soft.insert((*hash, rule.at), from);
            }
            (Kept::Beneath { .. }, _) => self.beginnings += 1,
        }
        self.bytes += kept.bytes();
        self.list.push_back((rule.at, rule.fate, kept));
        self.forget();
    }

    fn forget(&mut self) {
        while self.list.len() > self.most || self.bytes > MOST_BYTES {
            let Some((at, fate, kept)) = self.list.pop_front() else { return };
            self.floor = self.floor.max(at);
            self.bytes -= kept.bytes();
            match (kept, fate) {
                (Kept::Beneath { .. }, _) => self.beginnings -= 1,
                (Kept::One(hash), Fate::Stays(_)) => {
                    self.soft.remove(&(hash, at));
                }
                // Unless the same was purged again.
                (Kept::One(hash), Fate::Gone) if self.hard.get(&hash) == Some(&at) => {
                    self.hard.remove(&hash);
                }
                (Kept::One(_), Fate::Gone) => {}
            }
        }
    }

    fn url(&self, host: &[u8], path: &[u8]) -> u64 {
        self.hash.hash_one((0_u8, host, path))
    }

    fn host(&self, host: &[u8]) -> u64 {
        self.hash.hash_one((1_u8, host))
    }

    fn tag(&self, tag: &[u8]) -> u64 {
        self.hash.hash_one((2_u8, tag))
    }

    fn all(&self) -> u64 {
        self.hash.hash_one(3_u8)
    }

    /// What has become of a response that is as old as `since`, and of which this was told.
    pub(super) fn verdict<'t>(
        &self,
        since: u64,
        host: &[u8],
        path: &[u8],
        tags: impl Iterator<Item = &'t [u8]>,
    ) -> Fate {
        if since < self.floor {
            return Fate::Gone;
        }
        // Nearly always nobody has purged anything since.
        if self.list.back().is_none_or(|(at, ..)| *at <= since) {
            return Fate::UNTOUCHED;
        }
        let names = [self.all(), self.host(host), self.url(host, path)];
        let all = names.into_iter().chain(tags.map(|tag| self.tag(tag)));
        let named = all.map(|name| self.of_name(name, since)).min().unwrap_or(Fate::UNTOUCHED);
        named.min(self.of_beginnings(since, host, path).unwrap_or(Fate::UNTOUCHED))
    }

    fn of_name(&self, name: u64, since: u64) -> Fate {
        if self.hard.get(&name).is_some_and(|at| *at > since) {
            return Fate::Gone;
        }
        let later = self.soft.range((name, since.saturating_add(1))..=(name, u64::MAX));
        Fate::Stays(later.map(|(_, from)| *from).next().unwrap_or(StaleFrom::NEVER))
    }

    fn of_beginnings(&self, since: u64, host: &[u8], path: &[u8]) -> Option<Fate> {
        if self.beginnings == 0 {
            return None;
        }
        let later = self.list.iter().rev().take_while(|(at, ..)| *at > since);
        let strikes = |kept: &Kept| matches!(kept, Kept::Beneath { host: of, path: beneath } if **of == *host && path.starts_with(beneath));
        later.filter(|(.., kept)| strikes(kept)).map(|(_, fate, _)| *fate).min()
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        match self {
            Self::One(_) => PER_RULE,
            Self::Beneath { host, path } => PER_RULE + host.len() + path.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One that comes at `at`, and a thousand milliseconds by the clock later than the one before.
    fn rule(at: u64, what: Purge, manner: Manner) -> Rule {
        let fate = if manner == Manner::Hard { Fate::Gone } else { soft(at) };
        Rule { at, what, fate }
    }

    /// What a soft purge does that came at `at`.
    fn soft(at: u64) -> Fate {
        Fate::Stays(StaleFrom::at(at * 1000))
    }

    #[test]
    fn a_purge_strikes_what_is_older_and_what_it_names() {
        let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
        let host = || bytes("shop");
        let purges = [
            (Purge::Url { host: host(), path: bytes("/a?b") }, [true, false, false, false]),
            (Purge::Url { host: host(), path: bytes("/a") }, [false; 4]),
            (Purge::Prefix { host: host(), path: bytes("/a") }, [true, true, false, false]),
            (Purge::Prefix { host: host(), path: bytes("") }, [true, true, true, false]),
            (Purge::Host(host()), [true, true, true, false]),
            (Purge::Tag(bytes("t")), [true, false, false, true]),
            (Purge::All, [true; 4]),
        ];
        let (t, tt): (&[&[u8]], &[&[u8]]) = (&[b"s", b"t"], &[b"tt"]);
        let told = [("shop", "/a?b", t), ("shop", "/ab", tt), ("shop", "/b", tt), ("other", "/a", t)];
        for (what, expected) in purges {
            let mut rules = Rules::new(FEW);
            rules.push(&rule(10, what.clone(), Manner::Soft));
            for ((host, path, tags), strikes) in told.iter().zip(expected) {
                let verdict = |since| rules.verdict(since, host.as_bytes(), path.as_bytes(), tags.iter().copied());
                let expected = if strikes { soft(10) } else { Fate::UNTOUCHED };
                assert_eq!(verdict(9), expected, "{what:?} {host} {path}");
                assert_eq!(verdict(10), Fate::UNTOUCHED, "it is younger");
            }
        }
    }

    #[test]
    fn the_harder_of_two_purges_counts() {
        let mut rules = Rules::new(FEW);
        for (at, manner) in [(1, Manner::Soft), (2, Manner::Hard), (3, Manner::Soft)] {
            rules.push(&rule(at, Purge::All, manner));
        }
        let verdict = |since| rules.verdict(since, b"", b"", std::iter::empty());
        assert_eq!([verdict(0), verdict(2), verdict(3)], [Fate::Gone, soft(3), Fate::UNTOUCHED]);
    }

    #[test]
    fn of_soft_purges_the_first_counts_that_strikes_somebody() {
        let beneath = Purge::Prefix { host: b"shop".as_slice().into(), path: b"/".as_slice().into() };
        for what in [Purge::All, beneath] {
            let mut rules = Rules::new(3);
            (1..=4).for_each(|at| rules.push(&rule(at, what.clone(), Manner::Soft)));
            let verdict = |since| rules.verdict(since, b"shop", b"/", std::iter::empty());
            assert_eq!(
                [0, 1, 2, 3, 4].map(verdict),
                [Fate::Gone, soft(2), soft(3), soft(4), Fate::UNTOUCHED],
                "{what:?}"
            );
        }
    }

    #[test]
    fn what_may_have_been_struck_by_a_purge_that_was_forgotten_counts_as_purged() {
        let mut rules = Rules::new(2);
        for at in [10, 20, 30] {
            rules.push(&rule(at, Purge::Host(b"other".as_slice().into()), Manner::Soft));
        }
        let verdict = |since| rules.verdict(since, b"shop", b"/", std::iter::empty());
        assert_eq!([verdict(9), verdict(10), verdict(25)], [Fate::Gone, Fate::UNTOUCHED, Fate::UNTOUCHED]);
    }

    #[test]
    fn purges_take_no_more_bytes_than_they_may_and_the_oldest_are_forgotten_first() {
        let long = |number: u64| -> Box<[u8]> { format!("/{number}/{}", "x".repeat(8000)).into_bytes().into() };
        let beneath = |number| Purge::Prefix { host: b"shop".as_slice().into(), path: long(number) };
        let url = |number| Purge::Url { host: b"shop".as_slice().into(), path: long(number) };
        let mut rules = Rules::new(MANY);
        // The paths of URLs are not kept.
        (1..=10_000).for_each(|at| rules.push(&rule(at, url(at), Manner::Hard)));
        assert_eq!((rules.list.len(), rules.floor), (10_000, 0));
        (10_001..=20_000).for_each(|at| rules.push(&rule(at, beneath(at), Manner::Soft)));
        let held: usize = rules.list.iter().map(|(.., kept)| kept.bytes()).sum();
        assert!(held <= MOST_BYTES && rules.bytes == held, "{held} of {MOST_BYTES}");
        assert!(rules.list.len() > 1000 && rules.floor as usize + rules.list.len() == 20_000, "{}", rules.floor);
        assert!(rules.hard.is_empty() && rules.soft.is_empty(), "those have been forgotten");
        let verdict = |since, at| rules.verdict(since, b"shop", &long(at), std::iter::empty());
        assert_eq!(verdict(rules.floor - 1, 1), Fate::Gone, "it may have been struck");
        assert_eq!([verdict(rules.floor, 1), verdict(rules.floor, 20_000)], [Fate::UNTOUCHED, soft(20_000)]);
    }

    #[test]
    fn what_was_purged_twice_is_forgotten_with_the_second() {
        let mut rules = Rules::new(2);
        let url = |path: &str| Purge::Url { host: b"shop".as_slice().into(), path: path.as_bytes().into() };
        for (at, path) in [(1, "/a"), (2, "/a"), (3, "/b")] {
            rules.push(&rule(at, url(path), Manner::Hard));
        }
        let verdict = |rules: &Rules| rules.verdict(1, b"shop", b"/a", std::iter::empty());
        assert_eq!(verdict(&rules), Fate::Gone);
        rules.push(&rule(4, url("/c"), Manner::Soft));
        assert_eq!((rules.floor, rules.hard.len(), rules.soft.len()), (2, 1, 1));
        assert_eq!(rules.verdict(2, b"shop", b"/a", std::iter::empty()), Fate::UNTOUCHED);
    }

    proptest! {
        #[test]
        fn what_is_looked_up_is_what_one_finds_who_goes_through_all(
            purges in proptest::collection::vec((0_u8..5, 0_usize..3, any::<bool>()), 0..20), since in 0_u64..20,
            told in (0_usize..3, 0_usize..3),
        ) {
            let names: [&[u8]; 3] = [b"", b"/a", b"/ab"];
            let what = |kind, name: usize| match kind {
                0 => Purge::Url { host: names[name].into(), path: names[name].into() },
                1 => Purge::Prefix { host: names[name].into(), path: names[1].into() },
                2 => Purge::Host(names[name].into()),
                3 => Purge::Tag(names[name].into()),
                _ => Purge::All,
            };
            let (host, path) = (names[told.0], names[told.1]);
            let strikes = |kind, name: usize| match kind {
                0 => host == names[name] && path == names[name],
                1 => host == names[name] && path.starts_with(names[1]),
                2 => host == names[name],
                3 => path == names[name],
                _ => true,
            };
            let (mut rules, mut expected) = (Rules::new(FEW), Fate::UNTOUCHED);
            for (at, (kind, name, is_hard)) in (1..).zip(purges) {
                let manner = if is_hard { Manner::Hard } else { Manner::Soft };
                rules.push(&rule(at, what(kind, name), manner));
                if at > since && strikes(kind, name) {
                    expected = expected.min(if is_hard { Fate::Gone } else { soft(at) });
                }
            }
            prop_assert_eq!(rules.verdict(since, host, path, [path].into_iter()), expected);
        }
    }
}
