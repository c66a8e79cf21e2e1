//! `/metrics`: what Prometheus reads.

use http::StatusCode;

use super::{Admin, answer};
use crate::http::Response;
use crate::observe::metrics::CONTENT_TYPE;

impl Admin {
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
        answer(StatusCode::OK, CONTENT_TYPE, self.metrics.render().into())
    }
}
