//! `body_limit` and `buffer`: how large bodies may be, and where they wait.

use crate::config::Buffer;
use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::Node;
use crate::config::schema::process::{LARGEST, body_size};

pub(in crate::config::schema) static BUFFER: Section =
    Section { name: "routes[].buffer", keys: &["response", "memory", "disk"], later: &["request"], elsewhere: &[] };

/// Bytes of a request body; `None`: nothing else than `limits.body`.
pub(super) fn limit(decoder: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<u64> {
    body_size(decoder, "body_limit", fields.get("body_limit")?)
}

/// Of one request or answer, within the spool's budget.
pub(super) fn buffer(decoder: &mut Decoder<'_>, node: &Node) -> Buffer {
    let default = Buffer::default();
    let Some(fields) = decoder.fields(node, &BUFFER) else { return default };
    Buffer {
        response: fields.boolean(decoder, "response", default.response),
        memory: fields.size(decoder, "memory", 1 << 10..=LARGEST, default.memory),
        disk: fields.size(decoder, "disk", 0..=LARGEST, default.disk),
    }
}
