//! `/status`: what an operator wants to know first, as JSON, or as lines for a terminal (`Accept: text/plain`).
//!
//! ```text
//! take (one look at everything) ─► Status ─► json | table
//! ```

mod json;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

pub(super) use self::json::upstream as write_upstream;
use super::{Admin, CacheInForce, text, wants_text};
use crate::cache::store::Numbers;
use crate::config::Workers;
use crate::http::Response;
use crate::upstream::{Condition, Endpoint, RoomStatus, Upstream};

/// A demand older than this is measured anew when somebody asks.
const FRESH: Duration = Duration::from_secs(1);

/// The gateway at one moment.
pub(super) struct Status {
    /// For how long it has run.
    pub(super) uptime: Duration,
    /// How many configurations have been in force, this one included.
    pub(super) generation: u64,
    pub(super) is_ready: bool,
    pub(super) upstreams: Vec<UpstreamStatus>,
    /// `None`: nothing is kept of any route's answers.
    pub(super) cache: Option<CacheStatus>,
}

/// What is kept of apps' answers at one moment.
pub(super) struct CacheStatus {
    pub(super) numbers: Numbers,
    /// Bytes.
    pub(super) memory_limit: u64,
    /// The same on disk, where it has one.
    pub(super) disk_limit: Option<u64>,
}

/// An upstream at one moment.
pub(super) struct UpstreamStatus {
    pub(super) name: Arc<str>,
    pub(super) room: RoomStatus,
    /// Whether the number of workers was never written down.
    pub(super) workers_assumed: bool,
    pub(super) streams_max: u32,
    pub(super) waiting_limit: usize,
    pub(super) waiting_timeout: Duration,
    pub(super) endpoints: Vec<EndpointStatus>,
}

/// An endpoint at one moment.
pub(super) struct EndpointStatus {
    pub(super) address: String,
    pub(super) condition: Condition,
    pub(super) in_flight: u32,
    pub(super) workers: Option<u32>,
    pub(super) weight: u32,
    pub(super) is_backup: bool,
}

impl Status {
    fn take(admin: &Admin) -> Self {
        Self {
            uptime: admin.started.elapsed(),
            generation: admin.running.generation(),
            is_ready: admin.is_ready(),
            upstreams: admin.running.upstreams().iter().map(|upstream| UpstreamStatus::take(upstream)).collect(),
            cache: CacheStatus::take(&admin.running.cache()),
        }
    }
}

impl CacheStatus {
    fn take(cache: &CacheInForce) -> Option<Self> {
        let (memory_limit, disk_limit) = (cache.memory_limit, cache.disk_limit);
        cache.is_used.then(|| Self { numbers: cache.store.numbers(), memory_limit, disk_limit })
    }
}

impl UpstreamStatus {
    pub(super) fn take(upstream: &Upstream) -> Self {
        upstream.sample(FRESH);
        let config = upstream.config();
        Self {
            name: Arc::clone(&upstream.name),
            room: upstream.room.status(),
            workers_assumed: config.workers == Workers::Unset,
            streams_max: config.streaming_max,
            waiting_limit: config.waiting_room.limit,
            waiting_timeout: config.waiting_room.timeout,
            endpoints: upstream.endpoints().iter().map(|endpoint| EndpointStatus::take(endpoint)).collect(),
        }
    }

    /// Busy workers of all; `None`: there is no number of them.
    fn utilisation(&self) -> Option<f64> {
        self.room.workers.map(|workers| f64::from(self.room.in_flight) / f64::from(workers.max(1)))
    }
}

impl EndpointStatus {
    fn take(endpoint: &Endpoint) -> Self {
        Self {
            address: endpoint.name().to_owned(),
            condition: endpoint.condition(),
            in_flight: endpoint.in_flight(),
            workers: endpoint.workers(),
            weight: endpoint.weight(),
            is_backup: endpoint.is_backup(),
        }
    }
}

/// Answers `/status`.
pub(super) fn answer(admin: &Admin, headers: &HeaderMap) -> Response {
    let status = Status::take(admin);
    match wants_text(headers) {
        true => text(StatusCode::OK, table::render(&status)),
        false => super::json(StatusCode::OK, json::render(&status)),
    }
}
