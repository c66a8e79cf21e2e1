//! `/metrics`: what Prometheus reads.

use http::StatusCode;

use super::{Admin, answer};
use crate::cache::store::Numbers;
use crate::http::Response;
use crate::observe::metrics::{CONTENT_TYPE, CacheTotals, CacheUse};

impl From<&Numbers> for CacheTotals {
    fn from(numbers: &Numbers) -> Self {
        Self {
            evicted_memory: numbers.evicted_memory,
            evicted_disk: numbers.evicted_disk,
            purged: numbers.purged,
            given_up: numbers.abandoned,
            corrupted: numbers.corrupted,
            read_errors: numbers.read_failures,
            write_errors: numbers.write_failures,
            reads_skipped: numbers.reads_skipped,
            writes_skipped: numbers.writes_skipped,
        }
    }
}

impl Admin {
    fn report_cache(&self) {
        let cache = self.running.cache();
        let now = cache.store.numbers();
        let memory = CacheUse { bytes: now.memory_bytes, limit: cache.memory_limit, objects: now.memory_objects };
        let disk = CacheUse { bytes: now.disk_bytes, limit: cache.disk_limit.unwrap_or(0), objects: now.disk_objects };
        self.metrics.cache_store(memory, disk, now.is_indexed, &CacheTotals::from(&now));
    }

    /// All metrics. Gauges that nobody keeps up to date in between are set here.
    pub(super) fn metrics(&self) -> Response {
        self.running.upstreams().iter().for_each(|upstream| upstream.report());
        let failing = self.running.failing_sources();
        self.metrics.auth_sources_failing.set(i64::try_from(failing).unwrap_or(i64::MAX));
        let certificates = self.running.certificates();
        self.metrics.certificates_shown(
            certificates.iter().map(|(listener, shown)| (&**listener, &*shown.name, shown.not_after)),
        );
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.spool_memory.set(gauge(self.budget.memory_used()));
        self.metrics.spool_disk.set(gauge(self.budget.disk_used()));
        self.metrics.spool_memory_limit.set(gauge(self.budget.memory_limit()));
        self.metrics.spool_disk_limit.set(gauge(self.budget.disk_limit()));
        self.metrics.spool_files.set(gauge(self.budget.files_used()));
        self.report_cache();
        answer(StatusCode::OK, CONTENT_TYPE, self.metrics.render().into())
    }
}
