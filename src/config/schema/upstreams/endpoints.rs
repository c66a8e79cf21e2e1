//! `upstreams.*.endpoints`: where the workers listen, and what each endpoint takes.

use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Node, Span, Value};
use crate::config::schema::listeners::{socket_path, split_fault};
use crate::config::values::Fault;
use crate::config::{Endpoint, EndpointAddress, Place};

/// An endpoint and its places.
pub(in crate::config) struct EndpointDraft {
    pub(in crate::config) endpoint: Endpoint,
    /// The place of the address.
    pub(in crate::config) span: Span,
    /// The place of the number, when it is written.
    pub(in crate::config) workers: Option<Span>,
    /// The same for `backup`.
    pub(in crate::config) backup: Option<Span>,
}

pub(in crate::config::schema) static ENDPOINT: Section = Section {
    name: "upstreams.*.endpoints[]",
    keys: &["address", "weight", "workers", "backup"],
    later: &[],
    elsewhere: &[("server", "address"), ("url", "address"), ("max_conns", "workers"), ("maxconn", "workers")],
};

pub(super) const HELP: &str = "write where the workers listen: endpoints: [\"unix:/run/gunicorn.sock\"]";

/// All endpoints of an upstream that can be read. `name`: the place of the upstream's name.
pub(super) fn decode(decoder: &mut Decoder<'_>, fields: &Fields<'_>, name: &Span) -> Vec<EndpointDraft> {
    let Some(node) = fields.get("endpoints") else {
        if !fields.means("endpoints") {
            decoder.error(name, "this upstream has no `endpoints`").help(HELP);
        }
        return Vec::new();
    };
    let items = decoder.list("endpoints", node).unwrap_or_default();
    items.iter().filter_map(|item| endpoint(decoder, item)).collect()
}

/// `unix:/path`, `http://…`, or a mapping with `address`.
fn endpoint(decoder: &mut Decoder<'_>, node: &Node) -> Option<EndpointDraft> {
    let Value::Map(_) = &node.value else {
        let address = address(decoder, node)?;
        let endpoint = Endpoint { address, weight: 1, workers: None, backup: false };
        return Some(EndpointDraft { endpoint, span: node.span.clone(), workers: None, backup: None });
    };
    let fields = decoder.fields(node, &ENDPOINT)?;
    let weight = fields.number(decoder, "weight", 1..=100, 1_u32);
    let workers_node = fields.get("workers");
    let workers = workers_node.and_then(|node| workers(decoder, node));
    let backup = fields.boolean(decoder, "backup", false);
    let address_node = fields.required(decoder, "address", "write address: http://10.0.0.5:8000")?;
    let address = address(decoder, address_node)?;
    Some(EndpointDraft {
        endpoint: Endpoint { address, weight, workers, backup },
        span: address_node.span.clone(),
        workers: workers_node.map(|node| node.span.clone()),
        backup: fields.get("backup").map(|node| node.span.clone()),
    })
}

fn workers(decoder: &mut Decoder<'_>, node: &Node) -> Option<u32> {
    let text = decoder.scalar("workers", node, "a number")?;
    let help = "an endpoint's `workers` can be 1 to 100000; without it only the upstream's number holds";
    let count = decoder.number_or("workers", &node.span, &text, 1..=100_000, help)?;
    u32::try_from(count).ok()
}

fn address(decoder: &mut Decoder<'_>, node: &Node) -> Option<EndpointAddress> {
    let text = decoder.scalar("address", node, "an address")?;
    let parsed = EndpointAddress::parse(&text).map_err(|sentence| with_scheme(&text, sentence));
    let mut address = decoder.fault(&node.span, parsed)?;
    if let Place::Unix(path) = address.place {
        address.place = Place::Unix(socket_path(decoder, "address", &node.span, path)?);
    }
    Some(address)
}

/// `10.0.0.5:8000`, `/run/gunicorn.sock`: what is missing is the scheme.
fn with_scheme(text: &str, sentence: String) -> Fault {
    let mut fault = split_fault(sentence);
    let meant = if text.starts_with(['/', '.']) { format!("unix:{text}") } else { format!("http://{text}") };
    if !text.contains("://") && EndpointAddress::parse(&meant).is_ok() {
        fault.help = format!("write {meant}");
    }
    fault
}
