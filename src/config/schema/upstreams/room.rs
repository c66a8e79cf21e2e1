//! Who may be with the workers, and who waits: `workers`, `streaming`, `waiting_room`.

use std::time::Duration;

use super::endpoints::EndpointDraft;
use crate::config::decode::{Decoder, Section};
use crate::config::node::{Node, Span};
use crate::config::schema::process::{HOUR, timeout};
use crate::config::{WaitingRoom, Workers};

pub(in crate::config::schema) static STREAMING: Section = Section {
    name: "upstreams.*.streaming",
    keys: &["max"],
    later: &[],
    elsewhere: &[("limit", "max"), ("workers", "max")],
};
pub(in crate::config::schema) static WAITING_ROOM: Section = Section {
    name: "upstreams.*.waiting_room",
    keys: &["limit", "timeout", "fair_by"],
    later: &[],
    elsewhere: &[("max", "limit"), ("fair", "fair_by")],
};

/// As written; else the sum of the endpoints, when each has its number.
pub(super) fn workers(decoder: &mut Decoder<'_>, node: Option<&Node>, endpoints: &[EndpointDraft]) -> Workers {
    match node {
        Some(node) => written_workers(decoder, node).unwrap_or(Workers::Unset),
        None => sum(endpoints).map_or(Workers::Unset, Workers::Count),
    }
}

fn written_workers(decoder: &mut Decoder<'_>, node: &Node) -> Option<Workers> {
    let text = decoder.scalar("workers", node, "a number or unlimited")?;
    match text.as_str() {
        "unlimited" => Some(Workers::Unlimited),
        "0" => {
            decoder
                .error(&node.span, "`workers` cannot be 0")
                .help("count processes times threads of the app's server; `unlimited` takes the gate away");
            None
        }
        text => {
            let help = "`workers` can be 1 to 100000, or unlimited";
            let count = decoder.number_or("workers", &node.span, text, 1..=100_000, help)?;
            u32::try_from(count).ok().map(Workers::Count)
        }
    }
}

/// `None`: there are no endpoints, or one has no number.
fn sum(endpoints: &[EndpointDraft]) -> Option<u32> {
    let numbers = endpoints.iter().map(|draft| draft.endpoint.workers);
    numbers.reduce(|sum, number| Some(sum?.saturating_add(number?))).flatten()
}

/// The number of streams and, when it is written, its place. Default: all workers but one, and at least one.
pub(super) fn streaming_max(decoder: &mut Decoder<'_>, node: Option<&Node>, workers: Workers) -> (u32, Option<Span>) {
    let default = workers.slots().unwrap_or(u32::MAX).saturating_sub(1).max(1);
    let Some(fields) = node.and_then(|node| decoder.fields(node, &STREAMING)) else { return (default, None) };
    let max = fields.number(decoder, "max", 0..=100_000, default);
    (max, fields.get("max").map(|node| node.span.clone()))
}

/// Waiting requests: ten for each worker, at least 100.
pub(super) fn waiting_room(decoder: &mut Decoder<'_>, node: Option<&Node>, workers: Workers) -> WaitingRoom {
    const FAIR_BY: [(&str, bool); 2] = [("client", true), ("none", false)];
    let slots = workers.slots().and_then(|slots| usize::try_from(slots).ok()).unwrap_or(0);
    let default =
        WaitingRoom { limit: slots.saturating_mul(10).max(100), timeout: Duration::from_secs(30), is_fair: true };
    let Some(fields) = node.and_then(|node| decoder.fields(node, &WAITING_ROOM)) else { return default };
    let fair_by = fields.get("fair_by").and_then(|node| decoder.choice("fair_by", node, &FAIR_BY));
    WaitingRoom {
        limit: fields.number(decoder, "limit", 0..=1_000_000, default.limit),
        timeout: fields.duration(decoder, "timeout", timeout(HOUR), default.timeout),
        is_fair: fair_by.unwrap_or(default.is_fair),
    }
}
