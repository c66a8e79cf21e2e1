//! The cache's store in numbers, as they are when somebody looks.

use std::sync::{Mutex, PoisonError};

use prometheus::IntGaugeVec;

use super::families::Families;

/// What is kept in one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// `hostler_cache_bytes`
    pub bytes: u64,
    /// `hostler_cache_limit_bytes`; zero where nothing is kept there.
    pub limit: u64,
    /// `hostler_cache_objects`
    pub objects: u64,
}

/// What has been counted since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheTotals {
    /// `hostler_cache_evicted_total{where="memory"}`
    pub evicted_memory: u64,
    /// `hostler_cache_evicted_total{where="disk"}`
    pub evicted_disk: u64,
    /// `hostler_cache_purged_total`
    pub purged: u64,
    /// `hostler_cache_given_up_total`
    pub given_up: u64,
    /// `hostler_cache_corrupted_total`
    pub corrupted: u64,
    /// `hostler_cache_disk_errors_total{operation="read"}`
    pub read_errors: u64,
    /// `hostler_cache_disk_errors_total{operation="write"}`
    pub write_errors: u64,
    /// `hostler_cache_disk_skipped_total{operation="read"}`
    pub reads_skipped: u64,
    /// `hostler_cache_disk_skipped_total{operation="write"}`
    pub writes_skipped: u64,
}

impl CacheTotals {
    /// Both of each, put together so.
    fn with(&self, other: &Self, by: fn(u64, u64) -> u64) -> Self {
        Self {
            evicted_memory: by(self.evicted_memory, other.evicted_memory),
            evicted_disk: by(self.evicted_disk, other.evicted_disk),
            purged: by(self.purged, other.purged),
            given_up: by(self.given_up, other.given_up),
            corrupted: by(self.corrupted, other.corrupted),
            read_errors: by(self.read_errors, other.read_errors),
            write_errors: by(self.write_errors, other.write_errors),
            reads_skipped: by(self.reads_skipped, other.reads_skipped),
            writes_skipped: by(self.writes_skipped, other.writes_skipped),
        }
    }
}

/// What stores have counted in whose place a reload has put others: each counts for itself, and counters never go back.
#[derive(Debug, Default)]
pub(super) struct Former(Mutex<CacheTotals>);

impl Former {
    pub(super) fn add(&self, left: &CacheTotals) {
        self.put(left, u64::saturating_add);
    }

    pub(super) fn take(&self, again: &CacheTotals) {
        self.put(again, u64::saturating_sub);
    }

    fn put(&self, totals: &CacheTotals, by: fn(u64, u64) -> u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.with(totals, by);
    }

    fn and(&self, now: &CacheTotals) -> CacheTotals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).with(now, u64::saturating_add)
    }
}

pub(super) fn note(
    families: &Families,
    former: &Former,
    memory: CacheUse,
    disk: CacheUse,
    is_indexed: bool,
    now: &CacheTotals,
) {
    let totals = former.and(now);
    for (place, now) in [("memory", memory), ("disk", disk)] {
        set(&families.cache_bytes, place, now.bytes);
        set(&families.cache_limit_bytes, place, now.limit);
        set(&families.cache_objects, place, now.objects);
    }
    families.cache_indexed.set(i64::from(is_indexed));
    let by_place = |place| families.cache_evicted.with_label_values(&[place]);
    let errors = |operation| families.cache_disk_errors.with_label_values(&[operation]);
    let skipped = |operation| families.cache_disk_skipped.with_label_values(&[operation]);
    for (counter, total) in [
        (by_place("memory"), totals.evicted_memory),
        (by_place("disk"), totals.evicted_disk),
        (families.cache_purged.clone(), totals.purged),
        (families.cache_given_up.clone(), totals.given_up),
        (families.cache_corrupted.clone(), totals.corrupted),
        (errors("read"), totals.read_errors),
        (errors("write"), totals.write_errors),
        (skipped("read"), totals.reads_skipped),
        (skipped("write"), totals.writes_skipped),
    ] {
        // Less is there for a moment only, between two stores.
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}

fn set(family: &IntGaugeVec, place: &str, value: u64) {
    family.with_label_values(&[place]).set(i64::try_from(value).unwrap_or(i64::MAX));
}
