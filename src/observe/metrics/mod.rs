//! The metrics of the process, in Prometheus' words.
//!
//! Names and labels are public interface. Whoever counts per request holds a handle ([`RouteMetrics`],
//! [`UpstreamMetrics`], [`ListenerMetrics`]) that was resolved when the configuration was compiled; no label is looked
//! up on the way of a request. Handles are kept by name, so that a reload goes on counting. Labels come from the
//! configuration or from closed sets, never from what a client sends.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus::{IntCounter, IntGauge, Registry, TextEncoder};

use crate::error::Reason;

mod cache;
mod cache_store;
mod compression;
mod families;
mod http2;
mod listener;
mod process;
mod realtime;
mod reasons;
mod route;
#[cfg(test)]
mod tests;
mod upstream;
mod websocket;

pub use cache::CacheMetrics;
pub use cache_store::{CacheTotals, CacheUse};
pub use compression::{CodingMetrics, CompressionMetrics};
pub use http2::Http2Refusal;
pub use listener::{ConnectionGuard, HandshakeResult, HandshakeVersion, ListenerMetrics, Protocol, ProxyHeaderResult};
pub use realtime::{HoldGuard, HoldKind, HoldLoss, LinkOutcome, RealtimeMetrics};
pub use route::RouteMetrics;
pub use upstream::{EndpointReport, ProbeResult, UpstreamMetrics};
pub use websocket::{WebSocketMetrics, WebSocketOutcome};

use families::Families;
use http2::Http2Refusals;
use listener::Handshakes;
use reasons::ReasonCounters;

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    families: Families,
    routes: Mutex<HashMap<(String, String), Arc<RouteMetrics>>>,
    upstreams: Mutex<HashMap<String, Arc<UpstreamMetrics>>>,
    listeners: Mutex<HashMap<String, Arc<ListenerMetrics>>>,
    failures: ReasonCounters,
    handshakes: Handshakes,
    http2_refused: Http2Refusals,
    headers_dropped: [IntCounter; HeaderKind::ALL.len()],
    former_cache_stores: cache_store::Former,
    reloads_ok: IntCounter,
    reloads_failed: IntCounter,
    /// `hostler_spool_bytes{where="memory"}`
    pub spool_memory: IntGauge,
    /// `hostler_spool_bytes{where="disk"}`
    pub spool_disk: IntGauge,
    /// `hostler_spool_limit_bytes{where="memory"}`
    pub spool_memory_limit: IntGauge,
    /// `hostler_spool_limit_bytes{where="disk"}`
    pub spool_disk_limit: IntGauge,
    /// `hostler_connections_evicted_total`
    pub connections_evicted: IntCounter,
    /// `hostler_spool_files`
    pub spool_files: IntGauge,
    /// `hostler_access_log_dropped_total`
    pub access_log_dropped: IntCounter,
    /// `hostler_log_dropped_total`
    pub log_dropped: IntCounter,
    /// `hostler_password_checks_total`
    pub password_checks: IntCounter,
    /// `hostler_auth_sources_failing`
    pub auth_sources_failing: IntGauge,
}

/// Why a header field of a client was removed: the `kind` of `hostler_headers_dropped_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderKind {
    /// An underscore in the name: CGI variables cannot tell it from a hyphen.
    Underscore,
    /// `X-Forwarded-*`, `Forwarded` and their kin from a peer that is not trusted.
    Forwarded,
    /// A header that only the app may send: `X-Accel-*`, `X-Sendfile*`, `Grip-*`.
    Internal,
    /// A header that the worker takes for something the edge has said: `Remote-User`, `Script-Name`, `Path-Info`.
    Identity,
}

impl HeaderKind {
    const ALL: &'static [Self] = &[Self::Underscore, Self::Forwarded, Self::Internal, Self::Identity];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Underscore => "underscore",
            Self::Forwarded => "forwarded",
            Self::Internal => "internal",
            Self::Identity => "identity",
        }
    }
}

impl Metrics {
    /// The metrics of this process; one per process.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let families = Families::register(&registry);
        families.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Arc::new(Self {
            routes: Mutex::default(),
            upstreams: Mutex::default(),
            listeners: Mutex::default(),
            failures: ReasonCounters::new(&families.failures, ""),
            handshakes: Handshakes::new(&families.handshakes),
            http2_refused: Http2Refusals::new(&families),
            headers_dropped: std::array::from_fn(|i| {
                families.headers_dropped.with_label_values(&[HeaderKind::ALL[i].as_str()])
            }),
            former_cache_stores: cache_store::Former::default(),
            reloads_ok: families.reloads.with_label_values(&["ok"]),
            reloads_failed: families.reloads.with_label_values(&["failed"]),
            spool_memory: families.spool_bytes.with_label_values(&["memory"]),
            spool_disk: families.spool_bytes.with_label_values(&["disk"]),
            spool_memory_limit: families.spool_limit_bytes.with_label_values(&["memory"]),
            spool_disk_limit: families.spool_limit_bytes.with_label_values(&["disk"]),
            connections_evicted: families.connections_evicted.clone(),
            spool_files: families.spool_files.clone(),
            access_log_dropped: families.access_log_dropped.clone(),
            log_dropped: families.log_dropped.clone(),
            password_checks: families.password_checks.clone(),
            auth_sources_failing: families.auth_sources_failing.clone(),
            families,
            registry,
        })
    }

    /// The handle of a route; the same one for the same names.
    #[must_use]
    pub fn route(&self, site: &str, route: &str) -> Arc<RouteMetrics> {
        kept(&self.routes, (site.to_owned(), route.to_owned()), || RouteMetrics::new(&self.families, site, route))
    }

    /// What counts the requests that a route refuses because its client asks too often, or would if it were no dry run.
    #[must_use]
    pub fn rate_limited(&self, route: &str, is_dry_run: bool) -> IntCounter {
        let outcome = if is_dry_run { "dry_run" } else { "refused" };
        self.families.rate_limited.with_label_values(&[route, outcome])
    }

    /// The counters of a route's cache.
    #[must_use]
    pub fn cache(&self, route: &str) -> Arc<CacheMetrics> {
        Arc::new(CacheMetrics::new(&self.families, route))
    }

    /// The gauge of clients that are held open at the edge for this: `tunnel`, a WebSocket that passes through to an app.
    #[must_use]
    pub fn holds(&self, kind: &str) -> IntGauge {
        self.families.holds.with_label_values(&[kind])
    }

    /// The counters of a route whose WebSockets end here.
    #[must_use]
    pub fn websocket(&self, route: &str) -> WebSocketMetrics {
        WebSocketMetrics::new(&self.families, route)
    }

    /// The counters of compression.
    #[must_use]
    pub fn compression(&self) -> CompressionMetrics {
        CompressionMetrics::new(&self.families)
    }

    /// Notes what the cache's store has in memory and on disk, and what it has counted since it was opened.
    pub fn cache_store(&self, memory: CacheUse, disk: CacheUse, is_indexed: bool, totals: &CacheTotals) {
        cache_store::note(&self.families, &self.former_cache_stores, memory, disk, is_indexed, totals);
    }

    /// Another store is noted from now on; this is what the one before has counted.
    pub fn cache_store_left(&self, totals: &CacheTotals) {
        self.former_cache_stores.add(totals);
    }

    /// The store that was left with so much is noted again.
    pub fn cache_store_again(&self, totals: &CacheTotals) {
        self.former_cache_stores.take(totals);
    }

    /// What is counted of clients that are held.
    #[must_use]
    pub fn realtime(&self) -> RealtimeMetrics {
        RealtimeMetrics::new(&self.families)
    }

    /// The handle of an upstream; the same one for the same name.
    #[must_use]
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        kept(&self.upstreams, name.to_owned(), || UpstreamMetrics::new(&self.families, name))
    }

    /// The handle of a listener; the same one for the same name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        kept(&self.listeners, name.to_owned(), || ListenerMetrics::new(&self.families, name))
    }

    /// Counts a failure of the client or of the edge: one with `upstream=""`.
    pub fn failure(&self, reason: Reason) {
        self.failures.inc(reason);
    }

    /// Counts a header field that was removed.
    pub fn header_dropped(&self, kind: HeaderKind) {
        self.headers_dropped[kind as usize].inc();
    }

    /// Notes what clients are shown now: listener, name and end of each certificate. Of several with one name, an ECDSA and
    /// an RSA one, the first to end counts. Those that are not shown any more are forgotten.
    pub fn certificates_shown<'a>(&self, all: impl IntoIterator<Item = (&'a str, &'a str, SystemTime)>) {
        let mut ends: HashMap<(&str, &str), i64> = HashMap::new();
        for (listener, name, not_after) in all {
            let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            ends.entry((listener, name)).and_modify(|end| *end = seconds.min(*end)).or_insert(seconds);
        }
        self.families.certificate_expiry.reset();
        for ((listener, name), end) in ends {
            self.families.certificate_expiry.with_label_values(&[listener, name]).set(end);
        }
    }

    /// Counts a TLS handshake that has ended.
    pub fn tls_handshake(&self, version: HandshakeVersion, result: HandshakeResult) {
        self.handshakes.inc(version, result);
    }

    /// Counts a stream or a connection of HTTP/2 that was refused.
    pub fn http2_refused(&self, refusal: Http2Refusal) {
        self.http2_refused.inc(refusal);
    }

    /// Notes the configuration that is in force, after the start and after every reload that succeeded.
    pub fn config_in_force(&self, generation: u64) {
        self.families.config_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// Counts a reload.
    pub fn config_reloaded(&self, succeeded: bool) {
        if succeeded { &self.reloads_ok } else { &self.reloads_failed }.inc();
    }

    /// All of it in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!("cannot write the metrics, the list is incomplete: {error}");
        }
        text
    }
}

/// The handle kept under a name, made when there is none.
fn kept<K: Hash + Eq, V>(handles: &Mutex<HashMap<K, Arc<V>>>, name: K, make: impl FnOnce() -> V) -> Arc<V> {
    let mut handles = handles.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(handles.entry(name).or_insert_with(|| Arc::new(make())))
}
