//! One exchange with a worker: `keepalive`, `timeouts`, `retry`.

use crate::config::decode::{Decoder, Section, seconds};
use crate::config::node::Node;
use crate::config::schema::process::{DAY, HOUR, timeout};
use crate::config::{KeepAlive, Retry, Timeouts};

pub(in crate::config::schema) static KEEPALIVE: Section =
    Section { name: "upstreams.*.keepalive", keys: &["idle", "max"], later: &[], elsewhere: &[] };
pub(in crate::config::schema) static TIMEOUTS: Section = Section {
    name: "upstreams.*.timeouts",
    keys: &["connect", "head", "idle"],
    later: &[],
    elsewhere: &[("read", "head"), ("proxy_read_timeout", "head"), ("proxy_connect_timeout", "connect")],
};
pub(in crate::config::schema) static RETRY: Section = Section {
    name: "upstreams.*.retry",
    keys: &["attempts", "expect"],
    later: &[],
    elsewhere: &[("tries", "attempts"), ("max", "attempts")],
};

pub(super) fn keepalive(decoder: &mut Decoder<'_>, node: Option<&Node>) -> KeepAlive {
    let default = KeepAlive::default();
    let Some(fields) = node.and_then(|node| decoder.fields(node, &KEEPALIVE)) else { return default };
    KeepAlive {
        idle: fields.duration(decoder, "idle", seconds(0, HOUR), default.idle),
        max: fields.number(decoder, "max", 1..=10_000, default.max),
    }
}

pub(super) fn timeouts(decoder: &mut Decoder<'_>, node: Option<&Node>) -> Timeouts {
    let default = Timeouts::default();
    let Some(fields) = node.and_then(|node| decoder.fields(node, &TIMEOUTS)) else { return default };
    Timeouts {
        connect: fields.duration(decoder, "connect", timeout(HOUR), default.connect),
        head: fields.duration(decoder, "head", timeout(DAY), default.head),
        idle: fields.duration(decoder, "idle", timeout(DAY), default.idle),
    }
}

pub(super) fn retry(decoder: &mut Decoder<'_>, node: Option<&Node>) -> Retry {
    let default = Retry::default();
    let Some(fields) = node.and_then(|node| decoder.fields(node, &RETRY)) else { return default };
    Retry {
        attempts: fields.number(decoder, "attempts", 0..=10, default.attempts),
        expect: fields.boolean(decoder, "expect", default.expect),
    }
}
