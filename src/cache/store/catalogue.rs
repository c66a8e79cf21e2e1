//! Which objects a host, a path and a tag have: what a purge asks.
//!
//! One lock. It is held while something is entered or leaves, which is a few steps in a tree however many have the same tag or
//! lie at the same path, and while some are copied of those that are asked for: a [`Walk`] meets them a part at a time. Objects
//! are named by what stands for their key in the index, and by their id, which no other object has.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Key;

/// Beyond the variants that a primary key may have, so many are looked at.
const MORE_VARIANTS: usize = 64;

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
    host: Arc<[u8]>,
    path: Arc<[u8]>,
    /// Hashes; that of the primary key is among them.
    tags: Option<Box<[u64]>>,
}

/// By path and id: what stands for the key.
type Paths = BTreeMap<(Arc<[u8]>, u64), u64>;

#[derive(Debug, Default)]
struct Inner {
    hosts: BTreeMap<Arc<[u8]>, Paths>,
    /// By tag and id: what stands for the key.
    tags: BTreeMap<(u64, u64), u64>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    inner: Mutex<Inner>,
    hash: RandomState,
}

/// Where somebody is who goes through some of them, oldest first at each path and in each tag. Those that leave or come
/// meanwhile, behind him or before him, move nobody else.
#[derive(Debug)]
pub(super) struct Walk {
    among: Among,
    is_over: bool,
}

#[derive(Debug)]
enum Among {
    Paths {
        host: Box<[u8]>,
        path: Arc<[u8]>,
        /// That path, rather than all that begin so.
        is_whole: bool,
        from: (Arc<[u8]>, u64),
    },
    Tag {
        tag: u64,
        from: u64,
    },
}

impl Walk {
    /// Those at a path.
    pub(super) fn at(host: &[u8], path: &[u8]) -> Self {
        Self::paths(host, path, true)
    }

    /// Those whose path begins so.
    pub(super) fn beneath(host: &[u8], path: &[u8]) -> Self {
        Self::paths(host, path, false)
    }

    fn paths(host: &[u8], path: &[u8], is_whole: bool) -> Self {
        let path: Arc<[u8]> = path.into();
        let from = (Arc::clone(&path), 0);
        Self { among: Among::Paths { host: host.into(), path, is_whole, from }, is_over: false }
    }

    /// Whether all have been met.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }
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
        let path = path.into();
        let inner = &mut *self.lock();
        for tag in &tags {
            inner.tags.insert((*tag, named.id), named.hash);
        }
        let (host, path) = inner.enter_path(named, host, path);
        Labels { host, path, tags: (!tags.is_empty()).then(|| tags.into()) }
    }

    /// An object has gone.
    pub(super) fn leave(&self, named: Named, labels: Labels) {
        let Labels { host, path, tags } = labels;
        let inner = &mut *self.lock();
        if let Some(paths) = inner.hosts.get_mut(&host) {
            paths.remove(&(path, named.id));
            if paths.is_empty() {
                inner.hosts.remove(&host);
            }
        }
        for tag in tags.iter().flatten() {
            inner.tags.remove(&(*tag, named.id));
        }
    }

    /// Those that have a tag.
    pub(super) fn walk_tag(&self, tag: &[u8]) -> Walk {
        Walk { among: Among::Tag { tag: self.tag(tag), from: 0 }, is_over: false }
    }

    /// The next of a walk, `count` at most.
    pub(super) fn part(&self, walk: &mut Walk, count: usize) -> Vec<Named> {
        let inner = self.lock();
        let (some, goes_on) = match &mut walk.among {
            Among::Paths { host, path, is_whole, from } => match inner.hosts.get(&**host) {
                Some(paths) => {
                    let is_one = |at: &[u8]| if *is_whole { *at == path[..] } else { at.starts_with(&path[..]) };
                    let rest = paths.range::<(Arc<[u8]>, u64), _>((Bound::Included(&*from), Bound::Unbounded));
                    let mut rest = rest.take_while(|((path, _), _)| is_one(path));
                    let some =
                        rest.by_ref().take(count).map(|((_, id), hash)| Named { hash: *hash, id: *id }).collect();
                    (some, rest.next().map(|(next, _)| from.clone_from(next)).is_some())
                }
                None => (Vec::new(), false),
            },
            Among::Tag { tag, from } => {
                let mut rest = inner.tags.range((*tag, *from)..=(*tag, u64::MAX));
                let some = rest.by_ref().take(count).map(|((_, id), hash)| Named { hash: *hash, id: *id }).collect();
                (some, rest.next().map(|((_, next), _)| *from = *next).is_some())
            }
        };
        walk.is_over = !goes_on;
        some
    }

    /// The variants of a primary key, youngest first, where there are more than `most`: of very many, some.
    pub(super) fn variants(&self, primary: &Key, most: usize) -> Vec<Named> {
        let tag = self.primary(primary);
        let inner = self.lock();
        let all = inner.tags.range((tag, 0)..=(tag, u64::MAX)).rev();
        if all.clone().nth(most).is_none() {
            return Vec::new();
        }
        all.take(most + MORE_VARIANTS).map(|((_, id), hash)| Named { hash: *hash, id: *id }).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.hosts.is_empty() && inner.tags.is_empty()
    }

    #[cfg(test)]
    pub(super) fn at(&self, host: &[u8], path: &[u8]) -> Vec<Named> {
        self.part(&mut Walk::at(host, path), usize::MAX)
    }
}

impl Inner {
    /// Enters a path of a host: both as others have them already, if there are any.
    fn enter_path(&mut self, named: Named, host: &[u8], path: Arc<[u8]>) -> (Arc<[u8]>, Arc<[u8]>) {
        let there = self.hosts.get_key_value(host).map(|(host, _)| Arc::clone(host));
        let host = there.unwrap_or_else(|| host.into());
        let paths = self.hosts.entry(Arc::clone(&host)).or_default();
        let first = (path, 0);
        let there = paths.range::<(Arc<[u8]>, u64), _>(&first..).next().filter(|((path, _), _)| *path == first.0);
        let there = there.map(|((path, _), _)| Arc::clone(path));
        let path = there.unwrap_or(first.0);
        paths.insert((Arc::clone(&path), named.id), named.hash);
        (host, path)
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

    /// All of a walk, in parts of `count`.
    fn all(catalogue: &Catalogue, mut walk: Walk, count: usize) -> Vec<u64> {
        let mut all = Vec::new();
        while !walk.is_over() {
            let some = catalogue.part(&mut walk, count);
            assert!(some.len() <= count, "{} at once", some.len());
            all.extend(some.iter().map(|named| named.id));
        }
        all
    }

    #[test]
    fn objects_are_found_by_path_prefix_and_tag_until_they_leave() {
        let catalogue = Catalogue::default();
        let paths = ["/a", "/a", "/a/b", "/b", "/a?c"];
        let labels: Vec<_> =
            (0..).zip(paths).map(|(number, path)| enter(&catalogue, number, path, &["t", "u"])).collect();
        for count in 1..6 {
            let all = |walk| all(&catalogue, walk, count);
            assert_eq!(all(Walk::at(b"shop", b"/a")), [0, 1]);
            assert!(all(Walk::at(b"other", b"/a")).is_empty());
            assert_eq!(all(Walk::beneath(b"shop", b"/a")), [0, 1, 2, 4]);
            assert_eq!(all(Walk::beneath(b"shop", b"")).len(), 5);
            assert_eq!(all(catalogue.walk_tag(b"t")), [0, 1, 2, 3, 4]);
            assert!(all(catalogue.walk_tag(b"v")).is_empty());
        }
        for (number, labels) in (0..).zip(labels) {
            catalogue.leave(named(number), labels);
        }
        assert!(catalogue.is_empty());
    }

    #[test]
    fn no_more_are_told_at_once_than_were_asked_for_however_many_lie_at_one_path() {
        let catalogue = Catalogue::default();
        let labels: Vec<_> = (0..10_000).map(|number| enter(&catalogue, number, "/all?*", &["all"])).collect();
        for walk in [Walk::at(b"shop", b"/all?*"), Walk::beneath(b"shop", b"/"), catalogue.walk_tag(b"all")] {
            assert_eq!(all(&catalogue, walk, 100).len(), 10_000);
        }
        assert!(Arc::ptr_eq(&labels[0].path, &labels[9_999].path), "the path is there once");
        assert!(Arc::ptr_eq(&labels[0].host, &labels[9_999].host), "and its host");
    }

    #[test]
    fn whoever_goes_through_some_meets_all_though_they_leave_meanwhile() {
        let catalogue = Catalogue::default();
        for walk in [catalogue.walk_tag(b"t"), Walk::at(b"shop", b"/"), Walk::beneath(b"shop", b"")] {
            let mut walk = walk;
            let mut labels: Vec<_> = (0..1000).map(|number| Some(enter(&catalogue, number, "/", &["t"]))).collect();
            let mut met = std::collections::HashSet::new();
            while !walk.is_over() {
                for named in catalogue.part(&mut walk, 7) {
                    met.insert(named.id);
                    // It leaves, and so does one that has not been met, perhaps.
                    for gone in [named.id, (named.id * 7) % 1000] {
                        if let Some(labels) = labels[gone as usize].take() {
                            catalogue.leave(self::named(gone), labels);
                            met.insert(gone);
                        }
                    }
                }
            }
            assert_eq!(met.len(), 1000);
            assert!(catalogue.is_empty());
        }
    }

    #[test]
    fn the_variants_of_a_primary_key_are_told_where_they_are_too_many() {
        let catalogue = Catalogue::default();
        let primary = Key::from_bytes([1; Key::LENGTH]);
        for number in 0..200 {
            catalogue.enter(named(number), b"shop", b"/", std::iter::empty(), Some(&primary));
        }
        assert_eq!(catalogue.variants(&primary, 200), []);
        assert_eq!(catalogue.variants(&Key::from_bytes([2; Key::LENGTH]), 0), []);
        assert_eq!(catalogue.variants(&primary, 199).len(), 200);
        let some = catalogue.variants(&primary, 4);
        assert_eq!((some.len(), some[0]), (4 + MORE_VARIANTS, named(199)));
    }

    #[test]
    fn who_leaves_late_takes_nobody_along_who_came_to_the_same_place() {
        let catalogue = Catalogue::default();
        let old = enter(&catalogue, 1, "/", &[]);
        let young = Named { hash: 1, id: 2 };
        let labels = catalogue.enter(young, b"shop", b"/", std::iter::empty(), None);
        catalogue.leave(named(1), old);
        assert_eq!(catalogue.at(b"shop", b"/"), [young]);
        catalogue.leave(young, labels);
        assert!(catalogue.is_empty());
    }
}
