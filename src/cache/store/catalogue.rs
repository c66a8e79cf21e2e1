//! Which objects a host, a path and a tag have: what a purge asks.
//!
//! One lock, which is held while something is entered, leaves, or is asked for: a moment each. Objects are named by what
//! stands for their key in the index, and by their id.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::Key;

/// An object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    /// What stands for its key in the index.
    pub(super) hash: u64,
    pub(super) id: u64,
}

/// Where an object is entered: to be handed back when it leaves.
#[derive(Debug)]
pub(super) struct Labels {
    path: Arc<[u8]>,
    /// Hashes; that of the primary key is among them.
    tags: Option<Box<[u64]>>,
    host: u32,
}

/// One object, as nearly always, or several.
#[derive(Debug)]
enum Several {
    One(Named),
    // No larger than one: nearly all are.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Named>>),
}

impl Several {
    fn as_slice(&self) -> &[Named] {
        match self {
            Self::One(named) => std::slice::from_ref(named),
            Self::Many(all) => all,
        }
    }

    fn push(&mut self, named: Named) {
        match self {
            Self::One(one) => *self = Self::Many(Box::new(vec![*one, named])),
            Self::Many(all) => all.push(named),
        }
    }

    /// Whether nobody is left.
    fn remove(&mut self, named: Named) -> bool {
        match self {
            Self::One(one) => *one == named,
            Self::Many(all) => {
                if let Some(at) = all.iter().position(|one| *one == named) {
                    all.swap_remove(at);
                }
                all.is_empty()
            }
        }
    }
}

/// Those of a tag, in the order in which they came. Who has left stays in the list until half of them have.
#[derive(Debug, Default)]
struct Tagged {
    all: Vec<Named>,
    /// The ids of those.
    gone: Vec<u64>,
}

impl Tagged {
    fn live(&self) -> usize {
        self.all.len() - self.gone.len()
    }

    /// Whether nobody is left.
    fn leave(&mut self, named: Named) -> bool {
        self.gone.push(named.id);
        if self.gone.len() > self.all.len() / 2 + 8 {
            self.gone.sort_unstable();
            self.all.retain(|named| self.gone.binary_search(&named.id).is_err());
            self.all.shrink_to(2 * self.all.len());
            self.gone = Vec::new();
        }
        self.live() == 0
    }
}

#[derive(Debug, Default)]
struct Host {
    name: Arc<[u8]>,
    paths: BTreeMap<Arc<[u8]>, Several>,
}

#[derive(Debug, Default)]
struct Inner {
    names: HashMap<Arc<[u8]>, u32>,
    hosts: Vec<Host>,
    free: Vec<u32>,
    tags: HashMap<u64, Tagged>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    inner: Mutex<Inner>,
    hash: RandomState,
}

impl Catalogue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tag(&self, tag: &[u8]) -> u64 {
        self.hash.hash_one((0_u8, tag))
    }

    fn primary(&self, key: &Key) -> u64 {
        self.hash.hash_one((1_u8, key))
    }

    /// Enters an object.
    pub(super) fn enter<'t>(
        &self,
        named: Named,
        host: &[u8],
        path: &[u8],
        tags: impl Iterator<Item = &'t [u8]>,
        primary: Option<&Key>,
    ) -> Labels {
        let mut tags: Vec<u64> = tags.map(|tag| self.tag(tag)).chain(primary.map(|key| self.primary(key))).collect();
        tags.sort_unstable();
        tags.dedup();
        let inner = &mut *self.lock();
        for tag in &tags {
            inner.tags.entry(*tag).or_default().all.push(named);
        }
        let number = inner.host(host);
        let path = inner.hosts[number as usize].enter(path, named);
        Labels { path, tags: (!tags.is_empty()).then(|| tags.into()), host: number }
    }

    /// An object has gone.
    pub(super) fn leave(&self, named: Named, labels: &Labels) {
        let inner = &mut *self.lock();
        inner.leave_host(named, labels);
        for tag in labels.tags.iter().flatten() {
            if inner.tags.get_mut(tag).is_some_and(|tagged| tagged.leave(named)) {
                inner.tags.remove(tag);
            }
        }
    }

    /// Those at a path.
    pub(super) fn at(&self, host: &[u8], path: &[u8]) -> Vec<Named> {
        let inner = self.lock();
        let found = inner.find(host).and_then(|host| host.paths.get(path));
        found.map_or_else(Vec::new, |several| several.as_slice().to_vec())
    }

    /// About `count` of those whose path begins so, from the one behind `after` on; and where to go on, if there are more.
    pub(super) fn beneath(
        &self,
        host: &[u8],
        prefix: &[u8],
        after: Option<&Arc<[u8]>>,
        count: usize,
    ) -> (Vec<Named>, Option<Arc<[u8]>>) {
        let inner = self.lock();
        let Some(host) = inner.find(host) else { return (Vec::new(), None) };
        let from = after.map_or(Bound::Included(prefix), |path| Bound::Excluded(&path[..]));
        let mut found = Vec::new();
        for (path, several) in host.paths.range::<[u8], _>((from, Bound::Unbounded)) {
            if !path.starts_with(prefix) {
                break;
            }
            found.extend_from_slice(several.as_slice());
            if found.len() >= count {
                return (found, Some(Arc::clone(path)));
            }
        }
        (found, None)
    }

    /// About `count` of those that have a tag, and of some that had it, the youngest first: those before place `before`, and
    /// the place before which to go on. Who leaves meanwhile moves others to lower places, so that none is passed over.
    pub(super) fn tagged(&self, tag: &[u8], before: usize, count: usize) -> (Vec<Named>, usize) {
        let tag = self.tag(tag);
        let inner = self.lock();
        let Some(tagged) = inner.tags.get(&tag) else { return (Vec::new(), 0) };
        let end = before.min(tagged.all.len());
        let start = end.saturating_sub(count);
        (tagged.all[start..end].to_vec(), start)
    }

    /// The variants of a primary key, and some that were, oldest first; none, where there are no more than `most`.
    pub(super) fn variants(&self, primary: &Key, most: usize) -> Vec<Named> {
        let tag = self.primary(primary);
        let inner = self.lock();
        inner.tags.get(&tag).filter(|tagged| tagged.live() > most).map_or_else(Vec::new, |tagged| tagged.all.clone())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.names.is_empty() && inner.tags.is_empty() && inner.hosts.iter().all(|host| host.paths.is_empty())
    }
}

impl Inner {
    fn find(&self, host: &[u8]) -> Option<&Host> {
        self.hosts.get(*self.names.get(host)? as usize)
    }

    fn host(&mut self, name: &[u8]) -> u32 {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let host = Host { name: name.into(), paths: BTreeMap::new() };
        let name = Arc::clone(&host.name);
        let number = match self.free.pop() {
            Some(number) => {
                self.hosts[number as usize] = host;
                number
            }
            None => {
                self.hosts.push(host);
                (self.hosts.len() - 1) as u32
            }
        };
        self.names.insert(name, number);
        number
    }

    fn leave_host(&mut self, named: Named, labels: &Labels) {
        let Some(host) = self.hosts.get_mut(labels.host as usize) else { return };
        if host.paths.get_mut(&labels.path).is_some_and(|several| several.remove(named)) {
            host.paths.remove(&labels.path);
        }
        if host.paths.is_empty() {
            let name = std::mem::take(&mut host.name);
            if self.names.remove(&name).is_some() {
                self.free.push(labels.host);
            }
        }
    }
}

impl Host {
    fn enter(&mut self, path: &[u8], named: Named) -> Arc<[u8]> {
        if let Some((path, _)) = self.paths.get_key_value(path) {
            let path = Arc::clone(path);
            if let Some(several) = self.paths.get_mut(&path) {
                several.push(named);
            }
            return path;
        }
        let path: Arc<[u8]> = path.into();
        self.paths.insert(Arc::clone(&path), Several::One(named));
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(number: u64) -> Named {
        Named { hash: number, id: number }
    }

    fn enter(catalogue: &Catalogue, number: u64, path: &str, tags: &[&str]) -> Labels {
        let tags = tags.iter().map(|tag| tag.as_bytes());
        catalogue.enter(named(number), b"shop", path.as_bytes(), tags, None)
    }

    #[test]
    fn objects_are_found_by_path_prefix_and_tag_until_they_leave() {
        let catalogue = Catalogue::default();
        let paths = ["/a", "/a", "/a/b", "/b", "/a?c"];
        let labels: Vec<_> =
            (0..).zip(paths).map(|(number, path)| enter(&catalogue, number, path, &["t", "u"])).collect();
        assert_eq!(catalogue.at(b"shop", b"/a"), [named(0), named(1)]);
        assert_eq!(catalogue.at(b"other", b"/a"), []);
        let (found, more) = catalogue.beneath(b"shop", b"/a", None, 3);
        assert_eq!(found, [named(0), named(1), named(2)]);
        let (found, more) = catalogue.beneath(b"shop", b"/a", more.as_ref(), 3);
        assert_eq!((found, more), (vec![named(4)], None));
        assert_eq!(catalogue.tagged(b"t", 9, 9).0.len(), 5);
        for (number, labels) in (0..).zip(&labels) {
            catalogue.leave(named(number), labels);
        }
        assert!(catalogue.is_empty());
    }

    #[test]
    fn a_tag_that_many_have_had_holds_little_more_than_those_that_have_it() {
        let catalogue = Catalogue::default();
        let mut there = std::collections::VecDeque::new();
        for number in 0..10_000 {
            there.push_back((number, enter(&catalogue, number, "/", &["all"])));
            if there.len() > 10 {
                let (gone, labels) = there.pop_front().unwrap();
                catalogue.leave(named(gone), &labels);
            }
            assert!(catalogue.tagged(b"all", usize::MAX, usize::MAX).0.len() <= 40);
        }
        assert_eq!(catalogue.at(b"shop", b"/").len(), 10);
    }

    #[test]
    fn whoever_goes_through_a_tag_meets_all_though_they_leave_meanwhile() {
        let catalogue = Catalogue::default();
        let labels: Vec<_> = (0..1000).map(|number| Some(enter(&catalogue, number, "/", &["t"]))).collect();
        let (mut labels, mut place, mut met) = (labels, usize::MAX, std::collections::HashSet::new());
        while place > 0 {
            let (some, next) = catalogue.tagged(b"t", place, 7);
            place = next;
            for named in some {
                met.insert(named.id);
                // It leaves, and so does one that has not been met.
                for gone in [named.id, (named.id * 7) % 500] {
                    if let Some(labels) = labels[gone as usize].take() {
                        catalogue.leave(self::named(gone), &labels);
                        met.insert(gone);
                    }
                }
            }
        }
        assert_eq!(met.len(), 1000);
        assert!(catalogue.is_empty());
    }

    #[test]
    fn who_leaves_late_takes_nobody_along_who_came_to_the_same_place() {
        let catalogue = Catalogue::default();
        let old = enter(&catalogue, 1, "/", &[]);
        let young = Named { hash: 1, id: 2 };
        let labels = catalogue.enter(young, b"shop", b"/", std::iter::empty(), None);
        catalogue.leave(named(1), &old);
        assert_eq!(catalogue.at(b"shop", b"/"), [young]);
        catalogue.leave(young, &labels);
        assert!(catalogue.is_empty());
    }
}
