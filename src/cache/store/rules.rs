//! What was purged, and when: for whatever could not be reached just then, because it was being written, or is a file that has
//! not been found yet.
//!
//! The store counts what happens ("moments"). A response is as old as the moment at which the app was asked for it: every purge
//! that came later strikes it, whenever it is stored.

use std::collections::VecDeque;

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
    /// Whether it strikes a response of which this was told.
    pub(super) fn strikes<'t>(&self, host: &[u8], path: &[u8], mut tags: impl Iterator<Item = &'t [u8]>) -> bool {
        match self {
            Self::Url { host: of, path: at } => **of == *host && **at == *path,
            Self::Prefix { host: of, path: beneath } => **of == *host && path.starts_with(beneath),
            Self::Host(of) => **of == *host,
            Self::Tag(tag) => tags.any(|one| **tag == *one),
            Self::All => true,
        }
    }
}

/// A purge that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) at: u64,
    pub(super) what: Purge,
    pub(super) manner: Manner,
}

/// The purges that may still strike somebody.
#[derive(Debug)]
pub(super) struct Rules {
    list: VecDeque<Rule>,
    /// What is older may have been struck by a purge that is no longer in the list.
    floor: u64,
    most: usize,
}

/// Purges that are kept for what is being written: a busy site's unsafe requests of some seconds are among them.
pub(super) const FEW: usize = 8192;
/// Purges that are kept while not all files have been found.
pub(super) const MANY: usize = 65_536;

impl Rules {
    pub(super) fn new(most: usize) -> Self {
        Self { list: VecDeque::new(), floor: 0, most }
    }

    /// Changes how many are kept.
    pub(super) fn keep(&mut self, most: usize) {
        self.most = most;
        self.forget();
    }

    /// Adds the youngest.
    pub(super) fn push(&mut self, rule: Rule) {
        self.list.push_back(rule);
        self.forget();
    }

    fn forget(&mut self) {
        while self.list.len() > self.most {
            let gone = self.list.pop_front();
            self.floor = self.floor.max(gone.map_or(0, |rule| rule.at));
        }
    }

    /// What has become of a response that is as old as `since`, and of which this was told. `None`: nobody has purged it.
    pub(super) fn verdict<'t>(
        &self,
        since: u64,
        host: &[u8],
        path: &[u8],
        tags: impl Iterator<Item = &'t [u8]> + Clone,
    ) -> Option<Manner> {
        if since < self.floor {
            return Some(Manner::Hard);
        }
        let later = self.list.iter().rev().take_while(|rule| rule.at > since);
        later.filter(|rule| rule.what.strikes(host, path, tags.clone())).map(|rule| rule.manner).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(at: u64, what: Purge, manner: Manner) -> Rule {
        Rule { at, what, manner }
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
            rules.push(rule(10, what.clone(), Manner::Soft));
            for ((host, path, tags), strikes) in told.iter().zip(expected) {
                let verdict = |since| rules.verdict(since, host.as_bytes(), path.as_bytes(), tags.iter().copied());
                assert_eq!(verdict(9), strikes.then_some(Manner::Soft), "{what:?} {host} {path}");
                assert_eq!(verdict(10), None, "it is younger");
            }
        }
    }

    #[test]
    fn the_harder_of_two_purges_counts() {
        let mut rules = Rules::new(FEW);
        for (at, manner) in [(1, Manner::Soft), (2, Manner::Hard), (3, Manner::Soft)] {
            rules.push(rule(at, Purge::All, manner));
        }
        let verdict = |since| rules.verdict(since, b"", b"", std::iter::empty());
        assert_eq!([verdict(0), verdict(2), verdict(3)], [Some(Manner::Hard), Some(Manner::Soft), None]);
    }

    #[test]
    fn what_may_have_been_struck_by_a_purge_that_was_forgotten_counts_as_purged() {
        let mut rules = Rules::new(2);
        for at in [10, 20, 30] {
            rules.push(rule(at, Purge::Host(b"other".as_slice().into()), Manner::Soft));
        }
        let verdict = |since| rules.verdict(since, b"shop", b"/", std::iter::empty());
        assert_eq!([verdict(9), verdict(10), verdict(25)], [Some(Manner::Hard), None, None]);
    }
}
