//! `/status` as JSON. Names are public interface: they are added to, never changed.

use super::{CacheStatus, EndpointStatus, Status, UpstreamStatus};
use crate::observe::json::Object;

pub(super) fn render(status: &Status) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 10);
    let mut object = Object::begin(&mut out);
    object
        .text("version", env!("CARGO_PKG_VERSION"))
        .decimal("uptime_seconds", status.uptime.as_secs_f64())
        .integer("generation", status.generation)
        .boolean("ready", status.is_ready)
        .list("upstreams", &status.upstreams, upstream);
    match &status.cache {
        None => object.null("cache"),
        Some(cache) => object.object("cache", |object| write_cache(object, cache)),
    };
    object.end();
    out.push(b'\n');
    out
}

fn write_cache(object: &mut Object<'_>, cache: &CacheStatus) {
    let now = &cache.numbers;
    let place = |object: &mut Object<'_>, bytes: u64, limit: u64, objects: u64| {
        object.integer("bytes", bytes).integer("limit", limit).integer("objects", objects);
    };
    object.object("memory", |object| place(object, now.memory_bytes, cache.memory_limit, now.memory_objects));
    match cache.disk_limit {
        None => object.null("disk"),
        Some(limit) => object.object("disk", |object| {
            place(object, now.disk_bytes, limit, now.disk_objects);
            object
                .boolean("indexed", now.is_indexed)
                .integer("corrupted", now.corrupted)
                .integer("errors", now.read_failures + now.write_failures);
        }),
    };
    object.integer("purged", now.purged);
}

/// One upstream.
pub(in crate::admin) fn upstream(object: &mut Object<'_>, upstream: &UpstreamStatus) {
    let room = &upstream.room;
    object.text("name", &*upstream.name);
    optional(object, "workers", room.workers.map(f64::from));
    object.boolean("workers_assumed", upstream.workers_assumed).integer("in_flight", room.in_flight.into());
    optional(object, "utilisation", upstream.utilisation());
    object.integer("waiting", room.waiting as u64).object("waiting_room", |object| {
        object
            .integer("limit", upstream.waiting_limit as u64)
            .decimal("timeout_seconds", upstream.waiting_timeout.as_secs_f64());
    });
    object.object("streams", |object| {
        object.integer("now", room.streams.into()).integer("max", upstream.streams_max.into());
    });
    object.boolean("paused", room.is_paused);
    match room.outage {
        None => object.null("outage"),
        Some((lasted, reason)) => object.object("outage", |object| {
            object
                .decimal("seconds", lasted.as_secs_f64())
                .text("reason", reason.as_str())
                .boolean("failing", room.is_failing);
        }),
    };
    optional(object, "arrivals_per_second", room.needed.map(|needed| needed.arrivals_per_second));
    optional(object, "service_seconds", room.needed.map(|needed| needed.service_seconds));
    optional(object, "workers_hint", room.needed.map(|needed| needed.workers_hint.into()));
    object.list("endpoints", &upstream.endpoints, endpoint);
}

fn endpoint(object: &mut Object<'_>, endpoint: &EndpointStatus) {
    object
        .text("address", &endpoint.address)
        .text("condition", endpoint.condition.as_str())
        .integer("in_flight", endpoint.in_flight.into());
    optional(object, "workers", endpoint.workers.map(f64::from));
    object.integer("weight", endpoint.weight.into()).boolean("backup", endpoint.is_backup);
}

/// A number, or `null`.
fn optional(object: &mut Object<'_>, key: &str, value: Option<f64>) {
    match value {
        Some(value) => object.decimal(key, value),
        None => object.null(key),
    };
}
