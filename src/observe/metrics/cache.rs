//! What is counted of a route's cache.

use prometheus::IntCounter;

use super::families::Families;
use crate::http::CacheVerdict;

/// The counters of one route's cache.
#[derive(Clone)]
pub struct CacheMetrics {
    /// `hostler_cache_requests_total`, by verdict.
    requests: [IntCounter; CacheVerdict::ALL.len()],
}

impl CacheMetrics {
    pub(super) fn new(families: &Families, route: &str) -> Self {
        let of = |verdict: CacheVerdict| families.cache_requests.with_label_values(&[route, verdict.as_str()]);
        Self { requests: CacheVerdict::ALL.map(of) }
    }

    /// Counts a request.
    pub fn request(&self, verdict: CacheVerdict) {
        self.requests[verdict as usize].inc();
    }

    /// How many there were.
    #[cfg(test)]
    pub(crate) fn requests(&self, verdict: CacheVerdict) -> u64 {
        self.requests[verdict as usize].get()
    }
}
