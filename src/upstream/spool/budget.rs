//! The one budget for all bodies of the process.
//!
//! A client may have as much of it as is free still: alone, half of it; where many want some, each less. So nobody fills
//! it for all, and nothing is kept back while nobody else is there.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config;
use crate::http::network;

/// Where there is disk, this fraction of the memory is for whoever comes first. Beyond it a body has this many bytes there:
/// what piles up for clients that do not read is as well off on disk, and costs the process nothing.
const PLENTY: u64 = 16;
const WHEN_CROWDED: u64 = 32 << 10;

/// Sums of a row. Every client is added up in one of each row, by a hash that nobody can foresee, and has what the lesser of the two
/// says: two clients may meet in one row, but hardly in both.
const SUMS: usize = 4096;
const ROWS: usize = 2;

/// A client whose part has no room left but this fraction of the whole, or less than two pieces, begins nothing new.
const MARGIN: u64 = 64;
const TWO_PIECES: u64 = 128 << 10;

/// The one budget for all bodies of the process, in memory and on disk.
#[derive(Debug)]
pub struct Budget {
    memory: Account,
    disk: Account,
    files: Account,
    folder: Mutex<PathBuf>,
    /// Whether the last thing that was to be written to it could not.
    disk_has_failed: AtomicBool,
    hash: RandomState,
}

/// Whose part it is: the place of a sum in each row, `None` for who has no address.
type Holder = Option<[u16; ROWS]>;

#[derive(Debug)]
struct Account {
    used: AtomicU64,
    limit: AtomicU64,
    rows: [Box<[AtomicU64]>; ROWS],
}

impl Account {
    fn new() -> Self {
        let row = || std::iter::repeat_with(AtomicU64::default).take(SUMS).collect();
        Self { used: AtomicU64::default(), limit: AtomicU64::default(), rows: [row(), row()] }
    }

    /// The sums of a client, one of each row.
    fn sums(&self, holder: Holder) -> impl Iterator<Item = &AtomicU64> {
        let places = holder.into_iter().flatten();
        self.rows.iter().zip(places).filter_map(|(row, place)| row.get(usize::from(place)))
    }

    /// What a client has: no less than that, and no more but where he meets others in all rows.
    fn held(&self, holder: Holder) -> u64 {
        self.sums(holder).map(|sum| sum.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    fn take(&self, bytes: u64, holder: Holder) -> bool {
        self.take_of(bytes, holder, u64::MAX)
    }

    /// The same, where the client may have no more than `most`.
    fn take_of(&self, bytes: u64, holder: Holder, most: u64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let held = self.held(holder);
        let take = |used: u64| {
            let sum = used.checked_add(bytes).filter(|sum| *sum <= limit)?;
            (held == 0 || held.saturating_add(bytes) <= (limit - used).min(most)).then_some(sum)
        };
        let is_taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).is_ok();
        if is_taken {
            for sum in self.sums(holder) {
                sum.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        is_taken
    }

    fn give(&self, bytes: u64, holder: Holder) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        for sum in self.sums(holder) {
            sum.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether this client has had its part: not much more than it holds is left for all others.
    fn is_had_by(&self, least: u64, holder: impl Fn() -> Holder) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let margin = (limit / MARGIN).max(least).min(limit / 4);
        let free = limit.saturating_sub(self.used.load(Ordering::Relaxed));
        // Nobody can before: what one client holds is a part of what is used.
        if free > limit / 2 + margin {
            return false;
        }
        let held = self.held(holder());
        held > 0 && held.saturating_add(margin) >= free
    }

    /// Whether less than an eighth is free.
    fn is_short(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit > 0 && self.used.load(Ordering::Relaxed) > limit - limit / 8
    }
}

impl Budget {
    /// A budget with these bounds.
    #[must_use]
    pub fn new(config: &config::Spool) -> Arc<Self> {
        let budget = Self {
            memory: Account::new(),
            disk: Account::new(),
            files: Account::new(),
            folder: Mutex::default(),
            disk_has_failed: AtomicBool::new(false),
            hash: RandomState::new(),
        };
        budget.configure(config);
        budget.allow_files(usize::MAX);
        Arc::new(budget)
    }

    /// Changes the bounds. What is in use stays in use.
    pub fn configure(&self, config: &config::Spool) {
        self.memory.limit.store(config.memory, Ordering::Relaxed);
        self.disk.limit.store(config.disk, Ordering::Relaxed);
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&config.dir);
    }

    /// Changes how many files there may be. Each is a descriptor that somebody else may need.
    pub fn allow_files(&self, limit: usize) {
        self.files.limit.store(limit as u64, Ordering::Relaxed);
    }

    /// Files now.
    #[must_use]
    pub fn files_used(&self) -> u64 {
        self.files.used.load(Ordering::Relaxed)
    }

    /// Bytes in memory now.
    #[must_use]
    pub fn memory_used(&self) -> u64 {
        self.memory.used.load(Ordering::Relaxed)
    }

    /// Bytes in files now.
    #[must_use]
    pub fn disk_used(&self) -> u64 {
        self.disk.used.load(Ordering::Relaxed)
    }

    /// Bytes that memory may hold.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        self.memory.limit.load(Ordering::Relaxed)
    }

    /// Bytes that files may hold.
    #[must_use]
    pub fn disk_limit(&self) -> u64 {
        self.disk.limit.load(Ordering::Relaxed)
    }

    /// Whether it is nearly used up: whoever makes no progress has to go. Memory alone is not short while there is disk.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.bytes().is_short() || self.files.is_short()
    }

    fn has_disk(&self) -> bool {
        self.disk.limit.load(Ordering::Relaxed) > 0
    }

    /// What bodies end up in.
    fn bytes(&self) -> &Account {
        if self.has_disk() { &self.disk } else { &self.memory }
    }

    /// Memory for the bodies of one client. What is more is as well off on disk, where there is any.
    fn memory_per_client(&self) -> u64 {
        if self.has_disk() { self.memory.limit.load(Ordering::Relaxed) / 16 } else { u64::MAX }
    }

    /// Memory for one body that may go to disk.
    fn memory_per_body(&self) -> u64 {
        let is_crowded = self.memory_used() > self.memory.limit.load(Ordering::Relaxed) / PLENTY;
        let is_good = self.has_disk() && !self.disk_has_failed.load(Ordering::Relaxed);
        if is_crowded && is_good { WHEN_CROWDED } else { u64::MAX }
    }

    /// Something was written to disk, or could not be: then nothing is sent there that has another place.
    pub(super) fn note_disk(&self, is_written: bool) {
        self.disk_has_failed.store(!is_written, Ordering::Relaxed);
    }

    /// Whether this client has had its part. Its further responses would have to wait at their workers until it reads.
    #[must_use]
    pub fn is_had_by(&self, client: Option<IpAddr>) -> bool {
        let holder = || self.holder(client);
        self.bytes().is_had_by(TWO_PIECES, holder) || self.files.is_had_by(1, holder)
    }

    fn holder(&self, client: Option<IpAddr>) -> Holder {
        // The bits of one hash are as good as two hashes.
        let place = |bits: u64| (bits % SUMS as u64) as u16;
        let hash = self.hash.hash_one(network(client?));
        Some([place(hash), place(hash >> 32)])
    }

    /// Where files are made.
    pub(super) fn folder(&self) -> PathBuf {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one body has of the budget. Dropping it gives all of it back.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Arc<Budget>,
    holder: Holder,
    memory: u64,
    disk: u64,
    has_file: bool,
}

impl Lease {
    pub(super) fn new(budget: Arc<Budget>, client: Option<IpAddr>) -> Self {
        let holder = budget.holder(client);
        Self { budget, holder, memory: 0, disk: 0, has_file: false }
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    pub(super) fn disk(&self) -> u64 {
        self.disk
    }

    /// Whether so many bytes more would be better off on disk. Where they cannot go there, they may have memory all the same.
    pub(super) fn is_for_disk(&self, bytes: u64) -> bool {
        self.is_too_much(self.memory.saturating_add(bytes))
    }

    /// Whether so many bytes of one body are more than memory has for each.
    pub(super) fn is_too_much(&self, bytes: u64) -> bool {
        bytes > self.budget.memory_per_body()
    }

    /// Takes more memory, if there is any.
    pub(super) fn take_memory(&mut self, bytes: u64) -> bool {
        let taken = self.budget.memory.take_of(bytes, self.holder, self.budget.memory_per_client());
        if taken {
            self.memory += bytes;
        }
        taken
    }

    pub(super) fn give_memory(&mut self, bytes: u64) {
        let bytes = bytes.min(self.memory);
        self.memory -= bytes;
        self.budget.memory.give(bytes, self.holder);
    }

    /// Takes more disk, if there is any; with it a file, to begin with.
    pub(super) fn take_disk(&mut self, bytes: u64) -> bool {
        if !self.has_file && !self.budget.files.take(1, self.holder) {
            return false;
        }
        let taken = self.budget.disk.take(bytes, self.holder);
        if taken {
            self.disk += bytes;
            self.has_file = true;
        } else if !self.has_file {
            self.budget.files.give(1, self.holder);
        }
        taken
    }

    pub(super) fn give_back_disk(&mut self, bytes: u64) {
        let bytes = bytes.min(self.disk);
        self.disk -= bytes;
        self.budget.disk.give(bytes, self.holder);
    }

    pub(super) fn give_disk(&mut self) {
        self.budget.disk.give(self.disk, self.holder);
        self.disk = 0;
        self.give_file();
    }

    fn give_file(&mut self) {
        if std::mem::take(&mut self.has_file) {
            self.budget.files.give(1, self.holder);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.memory.give(self.memory, self.holder);
        self.budget.disk.give(self.disk, self.holder);
        self.give_file();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_lease_gives_everything_back() {
        let budget = Budget::new(&config::Spool { dir: "/tmp".into(), memory: 100, disk: 10 });
        let mut first = Lease::new(Arc::clone(&budget), None);
        let mut second = Lease::new(Arc::clone(&budget), None);
        assert!(first.take_memory(60) && first.take_disk(10));
        assert!(!second.take_memory(41) && second.take_memory(40) && !second.take_disk(1));
        drop(first);
        assert_eq!((budget.memory_used(), budget.disk_used(), budget.files_used()), (40, 0, 0));
    }

    #[test]
    fn without_a_file_there_is_no_disk() {
        let budget = Budget::new(&config::Spool { dir: "/tmp".into(), memory: 100, disk: 10 });
        budget.allow_files(1);
        let mut first = Lease::new(Arc::clone(&budget), None);
        let mut second = Lease::new(Arc::clone(&budget), None);
        assert!(!first.take_disk(11));
        assert!(first.take_disk(1) && first.take_disk(1) && !second.take_disk(1));
        assert_eq!((budget.disk_used(), budget.files_used()), (2, 1));
        first.give_disk();
        assert!(second.take_disk(1), "a file that has been read to its end is closed");
        assert_eq!((budget.disk_used(), budget.files_used()), (1, 1));
    }

    #[test]
    fn one_client_leaves_as_much_to_others_as_it_has() {
        let budget = Budget::new(&config::Spool { dir: "/tmp".into(), memory: 1000, disk: 0 });
        // Three who do not meet.
        let mut clients: Vec<_> = (0..=255).map(|last| Some(IpAddr::from([192, 0, 2, last]))).collect();
        clients.sort_by_key(|client| budget.holder(*client));
        clients.dedup_by_key(|client| budget.holder(*client));
        let lease = |of: usize| Lease::new(Arc::clone(&budget), clients[of]);
        let fill = |lease: &mut Lease| (0..1000).take_while(|_| lease.take_memory(10)).count() * 10;
        let (mut one, mut same, mut two, mut three) = (lease(1), lease(1), lease(2), lease(3));
        assert_eq!((fill(&mut one), fill(&mut same)), (500, 0));
        assert_eq!((fill(&mut two), fill(&mut three)), (250, 130));
        assert!(budget.is_short());
        drop(one);
        assert_eq!(fill(&mut same), 310);
        assert!(!budget.is_short());
        drop((same, two, three));
        let sums = budget.memory.rows.iter().flatten().map(|sum| sum.load(Ordering::Relaxed)).sum::<u64>();
        assert_eq!((budget.memory_used(), sums), (0, 0));
        let mut unknown = Lease::new(Arc::clone(&budget), None);
        assert_eq!(fill(&mut unknown), 1000, "who has no address is nobody's neighbour");
    }

    /// Two clients who meet in this row, and in no other.
    fn meeting_in(row: usize, budget: &Budget) -> [Option<IpAddr>; 2] {
        let clients = (0..=u16::MAX).map(|last| Some(IpAddr::from([10, 0, (last >> 8) as u8, last as u8])));
        let mut met = std::collections::HashMap::new();
        for client in clients {
            let places = budget.holder(client).unwrap();
            if let Some((other, of_other)) = met.insert(places[row], (client, places))
                && of_other[1 - row] != places[1 - row]
            {
                return [other, client];
            }
        }
        panic!("all of them meet in both rows, or none does")
    }

    #[test]
    fn two_clients_who_meet_in_one_sum_have_each_a_part_of_their_own() {
        for row in 0..ROWS {
            let budget = Budget::new(&config::Spool { dir: "/tmp".into(), memory: 1000, disk: 0 });
            let [greedy, honest] = meeting_in(row, &budget);
            let mut all = Lease::new(Arc::clone(&budget), greedy);
            assert!(all.take_memory(300) && all.take_memory(200) && !all.take_memory(10));
            assert!(budget.is_had_by(greedy) && !budget.is_had_by(honest), "row {row}");
            let mut some = Lease::new(Arc::clone(&budget), honest);
            assert!(some.take_memory(100) && some.take_memory(100), "row {row}");
            drop(all);
            let held = |client| budget.memory.held(budget.holder(client));
            assert_eq!((held(honest), held(greedy)), (200, 0));
        }
    }

    #[test]
    fn beyond_a_sixteenth_of_the_memory_bodies_are_better_off_on_disk_where_there_is_one() {
        let spool = |disk| config::Spool { dir: "/tmp".into(), memory: 8 << 20, disk };
        let budget = Budget::new(&spool(1 << 30));
        let mut leases: Vec<_> = (0..100).map(|_| Lease::new(Arc::clone(&budget), None)).collect();
        let fill = |lease: &mut Lease| {
            (0..16).take_while(|_| !lease.is_for_disk(16 << 10) && lease.take_memory(16 << 10)).count()
        };
        let taken: Vec<usize> = leases.iter_mut().map(fill).collect();
        assert_eq!((taken[..2].to_vec(), taken[3..].to_vec()), (vec![16; 2], vec![2; 97]));
        drop(leases);
        budget.configure(&spool(0));
        assert_eq!((0..3).map(|_| fill(&mut Lease::new(Arc::clone(&budget), None))).sum::<usize>(), 48);
    }

    #[test]
    fn a_first_piece_needs_no_more_room_than_its_own() {
        let budget = Budget::new(&config::Spool { dir: "/tmp".into(), memory: 100, disk: 0 });
        let mut other = Lease::new(Arc::clone(&budget), None);
        assert!(other.take_memory(20));
        let mut large = Lease::new(Arc::clone(&budget), Some(IpAddr::from([192, 0, 2, 1])));
        assert!(large.take_memory(80) && !large.take_memory(1));
    }

    #[test]
    fn a_client_has_had_its_part_when_as_much_is_left_for_all_others() {
        let budget = Budget::new(&config::Spool { dir: "/tmp".into(), memory: 0, disk: 6400 << 10 });
        let (one, other) = ("2001:db8::1".parse().ok(), Some(IpAddr::from([198, 51, 100, 1])));
        let same_64 = "2001:db8::ffff:2".parse().ok();
        let mut lease = Lease::new(Arc::clone(&budget), one);
        assert!(lease.take_disk(3000 << 10) && !budget.is_had_by(one), "3400 KiB are left");
        assert!(lease.take_disk(150 << 10));
        assert!(budget.is_had_by(one) && !budget.is_had_by(other) && !budget.is_had_by(None));
        assert!(budget.is_had_by(same_64), "an IPv6 client has a whole /64 of addresses");
        let mut others = Lease::new(Arc::clone(&budget), other);
        assert!(others.take_disk(3000 << 10) && budget.is_had_by(other), "250 KiB are left");
        drop(lease);
        assert!(!budget.is_had_by(one) && !budget.is_had_by(other));
    }
}
