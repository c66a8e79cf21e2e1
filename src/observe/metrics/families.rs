//! Name, help and labels of every family: the one list that dashboards and rules are written against.

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};

use super::process::Process;

/// From what feels instant to the longest default deadline.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

pub(super) struct Families {
    pub(super) requests: IntCounterVec,
    pub(super) request_seconds: HistogramVec,
    pub(super) waiting_seconds: HistogramVec,
    pub(super) waiting: IntGaugeVec,
    pub(super) in_flight: IntGaugeVec,
    pub(super) streams: IntGaugeVec,
    pub(super) workers: IntGaugeVec,
    pub(super) worker_seconds: HistogramVec,
    pub(super) endpoint_up: IntGaugeVec,
    pub(super) endpoint_in_flight: IntGaugeVec,
    pub(super) probes: IntCounterVec,
    pub(super) failures: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) informational: IntCounterVec,
    pub(super) cache_requests: IntCounterVec,
    pub(super) compressed: IntCounterVec,
    pub(super) compressed_in_bytes: IntCounterVec,
    pub(super) compressed_out_bytes: IntCounterVec,
    pub(super) compression_skipped: IntCounter,
    pub(super) connections: IntGaugeVec,
    pub(super) connections_refused: IntCounterVec,
    pub(super) connections_evicted: IntCounter,
    pub(super) proxy_headers: IntCounterVec,
    pub(super) handshakes: IntCounterVec,
    pub(super) certificate_expiry: IntGaugeVec,
    pub(super) certificate_reloads: IntCounterVec,
    pub(super) http2_refused: IntCounterVec,
    pub(super) spool_bytes: IntGaugeVec,
    pub(super) spool_limit_bytes: IntGaugeVec,
    pub(super) spool_files: IntGauge,
    pub(super) cache_bytes: IntGaugeVec,
    pub(super) cache_limit_bytes: IntGaugeVec,
    pub(super) cache_objects: IntGaugeVec,
    pub(super) cache_indexed: IntGauge,
    pub(super) cache_evicted: IntCounterVec,
    pub(super) cache_purged: IntCounter,
    pub(super) cache_given_up: IntCounter,
    pub(super) cache_corrupted: IntCounter,
    pub(super) cache_disk_errors: IntCounterVec,
    pub(super) cache_disk_skipped: IntCounterVec,
    pub(super) access_log_dropped: IntCounter,
    pub(super) log_dropped: IntCounter,
    pub(super) password_checks: IntCounter,
    pub(super) auth_sources_failing: IntGauge,
    pub(super) reloads: IntCounterVec,
    pub(super) config_generation: IntGauge,
    pub(super) headers_dropped: IntCounterVec,
    pub(super) rate_limited: IntCounterVec,
    pub(super) holds: IntGaugeVec,
    pub(super) published: IntCounterVec,
    pub(super) deliveries: IntCounter,
    pub(super) hold_losses: IntCounterVec,
    pub(super) links: IntCounterVec,
    pub(super) websocket_messages: IntCounterVec,
    pub(super) websocket_requests: IntCounterVec,
    pub(super) build_info: IntGaugeVec,
}

impl Families {
    /// # Panics
    /// A definition below is malformed or appears twice; nothing from outside has a part in that.
    pub(super) fn register(registry: &Registry) -> Self {
        Self::try_register(registry).expect("the definitions of the metrics are valid")
    }

    fn try_register(r: &Registry) -> Result<Self> {
        add(r, Process::new()?)?;
        Ok(Self {
            requests: counters(
                r,
                "requests_total",
                "Requests answered, by site, route, method and status.",
                &["site", "route", "method", "status"],
            )?,
            request_seconds: histograms(
                r,
                "request_seconds",
                "From the complete head of a request to the last byte of its answer.",
                "route",
            )?,
            waiting_seconds: histograms(
                r,
                "waiting_seconds",
                "How long requests waited for a worker to come free.",
                "upstream",
            )?,
            waiting: gauges(r, "waiting", "Requests that wait for a worker now.", &["upstream"])?,
            in_flight: gauges(r, "in_flight", "Workers that are busy with an exchange now.", &["upstream"])?,
            streams: gauges(
                r,
                "streams",
                "Workers that are pinned now by a response at its client's speed.",
                &["upstream"],
            )?,
            workers: gauges(
                r,
                "workers",
                "Exchanges the upstream may have in flight; absent when unlimited.",
                &["upstream"],
            )?,
            worker_seconds: histograms(r, "worker_seconds", "How long exchanges kept a worker busy.", "upstream")?,
            endpoint_up: gauges(
                r,
                "endpoint_up",
                "Whether the endpoint takes exchanges: not while it does not answer, probes fail, it is ejected or drained.",
                &["upstream", "endpoint"],
            )?,
            endpoint_in_flight: gauges(
                r,
                "endpoint_in_flight",
                "Exchanges and probes in flight at the endpoint now.",
                &["upstream", "endpoint"],
            )?,
            probes: counters(
                r,
                "probes_total",
                "Probes that were due: good, failed, served (skipped, an exchange had ended well instead) or skipped.",
                &["upstream", "endpoint", "result"],
            )?,
            failures: counters(
                r,
                "failures_total",
                "Exchanges that ended otherwise than with the app's answer; upstream is empty where none was involved.",
                &["upstream", "reason"],
            )?,
            retries: counters(
                r,
                "retries_total",
                "Requests sent again, by the failure that was the cause.",
                &["upstream", "reason"],
            )?,
            informational: counters(
                r,
                "informational_total",
                "Interim answers (1xx) taken from workers.",
                &["upstream"],
            )?,
            cache_requests: counters(
                r,
                "cache_requests_total",
                "Requests of routes with a cache, by what it made of them: hit, stale, revalidated, collapsed (answered with what another one brought), miss, pass (known not to be stored), bypass (nothing to do with it) or unavailable (only-if-cached, and there is nothing).",
                &["route", "verdict"],
            )?,
            compressed: counters(r, "compressed_total", "Answers that were compressed here.", &["coding"])?,
            compressed_in_bytes: counters(
                r,
                "compressed_in_bytes_total",
                "Bytes of answers that were compressed here, before it.",
                &["coding"],
            )?,
            compressed_out_bytes: counters(
                r,
                "compressed_out_bytes_total",
                "Bytes of answers that were compressed here, after it.",
                &["coding"],
            )?,
            compression_skipped: add(
                r,
                IntCounter::new(
                    "hostler_compression_skipped_total",
                    "Answers that went out as they are because as many as there is memory for were being compressed.",
                )?,
            )?,
            connections: gauges(
                r,
                "connections",
                "Client connections open now, by what they speak.",
                &["listener", "protocol"],
            )?,
            connections_refused: counters(
                r,
                "connections_refused_total",
                "Connections turned away because too many are open, in all or of one client.",
                &["listener", "reason"],
            )?,
            connections_evicted: add(
                r,
                IntCounter::new(
                    "hostler_connections_evicted_total",
                    "Idle connections closed before their time to make room for others.",
                )?,
            )?,
            proxy_headers: counters(
                r,
                "proxy_headers_total",
                "Connections that had to begin with a PROXY header: ok, or why they were closed.",
                &["listener", "result"],
            )?,
            handshakes: counters(r, "tls_handshakes_total", "TLS handshakes that ended.", &["version", "result"])?,
            certificate_expiry: gauges(
                r,
                "certificate_expiry_timestamp_seconds",
                "When the certificate that clients are shown expires, in seconds since 1970.",
                &["listener", "name"],
            )?,
            certificate_reloads: counters(
                r,
                "certificate_reloads_total",
                "Certificates, OCSP responses and authorities that came into use while serving (ok), or could not, or are over (failed).",
                &["listener", "result"],
            )?,
            http2_refused: counters(
                r,
                "http2_refused_total",
                "Streams that were reset and connections that were ended because of what the client sent or did not take.",
                &["scope", "kind"],
            )?,
            spool_bytes: gauges(r, "spool_bytes", "Bytes of bodies in the spool now.", &["where"])?,
            spool_limit_bytes: gauges(r, "spool_limit_bytes", "Bytes of bodies the spool may hold.", &["where"])?,
            spool_files: add(r, IntGauge::new("hostler_spool_files", "Files that hold bodies in the spool now.")?)?,
            cache_bytes: gauges(
                r,
                "cache_bytes",
                "Bytes in the cache now, with what each object takes beside its own.",
                &["where"],
            )?,
            cache_limit_bytes: gauges(r, "cache_limit_bytes", "Bytes that the cache may have.", &["where"])?,
            cache_objects: gauges(
                r,
                "cache_objects",
                "Objects in the cache now; on disk, those that have been found since the start.",
                &["where"],
            )?,
            cache_indexed: add(
                r,
                IntGauge::new(
                    "hostler_cache_indexed",
                    "Whether all files of the cache have been found since the start.",
                )?,
            )?,
            cache_evicted: counters(
                r,
                "cache_evicted_total",
                "Objects of the cache that others have driven out.",
                &["where"],
            )?,
            cache_purged: add(
                r,
                IntCounter::new(
                    "hostler_cache_purged_total",
                    "Objects of the cache that purges and unsafe requests have struck.",
                )?,
            )?,
            cache_given_up: add(
                r,
                IntCounter::new(
                    "hostler_cache_given_up_total",
                    "Answers that were being stored and proved too large, or for which there was no room.",
                )?,
            )?,
            cache_corrupted: add(
                r,
                IntCounter::new(
                    "hostler_cache_corrupted_total",
                    "Files of the cache that were not as they were written, and were dropped.",
                )?,
            )?,
            cache_disk_errors: counters(
                r,
                "cache_disk_errors_total",
                "What the cache's disk would not read or write: it is full, read-only or failing.",
                &["operation"],
            )?,
            cache_disk_skipped: counters(
                r,
                "cache_disk_skipped_total",
                "What the cache has not read or written because its disk was behind with its work.",
                &["operation"],
            )?,
            access_log_dropped: add(
                r,
                IntCounter::new(
                    "hostler_access_log_dropped_total",
                    "Access log lines lost because the target was too slow or failed.",
                )?,
            )?,
            log_dropped: add(
                r,
                IntCounter::new(
                    "hostler_log_dropped_total",
                    "Lines of the operator's log lost because stderr was full or failed.",
                )?,
            )?,
            password_checks: add(
                r,
                IntCounter::new(
                    "hostler_password_checks_total",
                    "Passwords that were hashed for auth.basic; those that are remembered are not.",
                )?,
            )?,
            auth_sources_failing: add(
                r,
                IntGauge::new(
                    "hostler_auth_sources_failing",
                    "Files of users and sources of keys whose last reading failed; what was good before is in force.",
                )?,
            )?,
            reloads: counters(r, "config_reloads_total", "Reloads of the configuration.", &["result"])?,
            config_generation: add(
                r,
                IntGauge::new("hostler_config_generation", "Which configuration since the start is in force.")?,
            )?,
            headers_dropped: counters(
                r,
                "headers_dropped_total",
                "Header fields of clients that were removed.",
                &["kind"],
            )?,
            rate_limited: counters(
                r,
                "rate_limited_total",
                "Requests beyond a route's rate_limit: refused, or dry_run (let in all the same).",
                &["route", "outcome"],
            )?,
            holds: gauges(
                r,
                "holds",
                "Clients that are held now: until there is an answer, with a stream, with a WebSocket that ends here, or with one that passes through (tunnel).",
                &["kind"],
            )?,
            published: counters(
                r,
                "published_total",
                "Items that were published: released at once, parked until the one before them, or duplicate; and requests to publish that were refused.",
                &["outcome"],
            )?,
            deliveries: add(
                r,
                IntCounter::new(
                    "hostler_deliveries_total",
                    "Published items that were brought to clients that are held.",
                )?,
            )?,
            hold_losses: counters(
                r,
                "hold_losses_total",
                "Clients that were given up while they were held: buffer_full (they took too little), unrecovered (their app could not say what they had missed).",
                &["reason"],
            )?,
            links: counters(
                r,
                "grip_links_total",
                "Times that an app was to be asked what a stream has missed: asked, failed, or skipped because the gateway knew.",
                &["outcome"],
            )?,
            websocket_messages: counters(
                r,
                "websocket_messages_total",
                "Messages of WebSockets that end here: in (of clients) and out (to them).",
                &["route", "direction"],
            )?,
            websocket_requests: counters(
                r,
                "websocket_requests_total",
                "Requests to apps for the sake of WebSockets that end here: answered (with events), refused (answered with something else) or failed (not answered).",
                &["route", "outcome"],
            )?,
            build_info: gauges(r, "build_info", "Always 1; the version is in the label.", &["version"])?,
        })
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
    add(registry, IntCounterVec::new(Opts::new(format!("hostler_{name}"), help), labels)?)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
    add(registry, IntGaugeVec::new(Opts::new(format!("hostler_{name}"), help), labels)?)
}

fn histograms(registry: &Registry, name: &str, help: &str, label: &str) -> Result<HistogramVec> {
    let options = HistogramOpts::new(format!("hostler_{name}"), help).buckets(SECONDS.to_vec());
    add(registry, HistogramVec::new(options, &[label])?)
}
