//! `/status` as JSON. Names are public interface: they are added to, never changed.

use super::{EndpointStatus, Status, UpstreamStatus};
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
    object.end();
    out.push(b'\n');
    out
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
