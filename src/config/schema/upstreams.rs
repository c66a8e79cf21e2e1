//! `upstreams`: named groups of endpoints that run the same app.

use std::path::PathBuf;

use super::listeners::{socket_path, split_fault};
use super::process::{DAY, HOUR, timeout};
use crate::config::decode::{Decoder, Fields, Section, seconds};
use crate::config::node::{Entry, Node, Span, Value};
use crate::config::report::quoted;
use crate::config::{
    Balance, ClientAddress, Ejection, Endpoint, EndpointAddress, KeepAlive, Place, Resolve, Retry, Timeouts, Upstream,
    UpstreamTls, Uwsgi, WaitingRoom, Workers,
};

/// An upstream and its places.
pub(in crate::config) struct UpstreamDraft {
    /// `None` when something in it is wrong: its name can still be referred to.
    pub(in crate::config) upstream: Option<Upstream>,
    pub(in crate::config) name: String,
    /// The place of the name.
    pub(in crate::config) span: Span,
    /// One for each endpoint.
    pub(in crate::config) endpoints: Vec<(Endpoint, Span)>,
}

impl UpstreamDraft {
    /// The unix sockets among the endpoints.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (PathBuf, Span)> {
        self.endpoints.iter().filter_map(|(endpoint, span)| match &endpoint.address.place {
            Place::Unix(path) => Some((path.clone(), span.clone())),
            Place::Tcp { .. } => None,
        })
    }
}

pub(super) static UPSTREAM: Section = Section {
    name: "upstreams.*",
    keys: &["endpoints", "workers", "waiting_room", "abandon", "keepalive", "timeouts", "retry"],
    later: &[
        "streaming",
        "balance",
        "slow_start",
        "hold",
        "health",
        "ejection",
        "client_address",
        "uwsgi",
        "tls",
        "host",
        "prefix",
        "resolve",
    ],
    elsewhere: &[
        ("servers", "endpoints"),
        ("server", "endpoints"),
        ("address", "endpoints"),
        ("queue", "waiting_room"),
        ("retries", "retry"),
    ],
};
pub(super) static ENDPOINT: Section = Section {
    name: "upstreams.*.endpoints[]",
    keys: &["address"],
    later: &["weight", "workers", "backup"],
    elsewhere: &[("server", "address"), ("url", "address")],
};
pub(super) static WAITING_ROOM: Section =
    Section { name: "upstreams.*.waiting_room", keys: &["limit", "timeout"], later: &["fair_by"], elsewhere: &[] };
pub(super) static KEEPALIVE: Section =
    Section { name: "upstreams.*.keepalive", keys: &["idle", "max"], later: &[], elsewhere: &[] };
pub(super) static TIMEOUTS: Section = Section {
    name: "upstreams.*.timeouts",
    keys: &["connect", "head", "idle"],
    later: &[],
    elsewhere: &[("read", "head"), ("proxy_read_timeout", "head"), ("proxy_connect_timeout", "connect")],
};
pub(super) static RETRY: Section =
    Section { name: "upstreams.*.retry", keys: &["attempts"], later: &[], elsewhere: &[] };

/// All upstreams, in the order written. `None`: there is no telling which there are.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<Vec<UpstreamDraft>> {
    let entries = match &node.value {
        Value::Map(entries) => entries,
        Value::Null => return Some(Vec::new()),
        other => {
            let kind = other.kind();
            decoder
                .error(&node.span, format!("`upstreams` takes a mapping, not {kind}"))
                .help("write the name of each upstream as a key: upstreams: { app: { endpoints: [...] } }");
            return None;
        }
    };
    decoder.refuse_duplicate_keys(entries);
    Some(entries.iter().map(|entry| named(decoder, entry)).collect())
}

fn named(decoder: &mut Decoder<'_>, entry: &Entry) -> UpstreamDraft {
    let (name, span) = (entry.key.text.clone(), entry.key.span.clone());
    let is_label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_label) {
        decoder
            .error(&span, format!("{} is not a name for an upstream", quoted(&name)))
            .help("names have 1 to 64 letters, digits, `_`, `-` and `.`; they appear in logs and metrics");
    }
    if let Value::Null = entry.value.value {
        decoder.error(&span, format!("the upstream {} is empty", quoted(&name))).help(ENDPOINTS_HELP);
        return UpstreamDraft { upstream: None, name, span, endpoints: Vec::new() };
    }
    let fields = decoder.fields(&entry.value, &UPSTREAM);
    let endpoints = fields.as_ref().map_or_else(Vec::new, |fields| endpoints(decoder, fields, &span));
    let upstream = fields.map(|fields| upstream(decoder, &fields, &name, &endpoints));
    UpstreamDraft { upstream, name, span, endpoints }
}

const ENDPOINTS_HELP: &str = "write where the workers listen: endpoints: [\"unix:/run/gunicorn.sock\"]";

fn upstream(decoder: &mut Decoder<'_>, fields: &Fields<'_>, name: &str, endpoints: &[(Endpoint, Span)]) -> Upstream {
    let workers = fields.get("workers").and_then(|node| workers(decoder, node)).unwrap_or(Workers::Unset);
    Upstream {
        name: name.to_owned(),
        endpoints: endpoints.iter().map(|(endpoint, _)| endpoint.clone()).collect(),
        workers,
        waiting_room: waiting_room(decoder, fields.get("waiting_room"), workers),
        abandon: fields.duration(decoder, "abandon", seconds(0, DAY), std::time::Duration::from_secs(60)),
        keepalive: keepalive(decoder, fields.get("keepalive")),
        timeouts: timeouts(decoder, fields.get("timeouts")),
        retry: retry(decoder, fields.get("retry")),
        streaming_max: workers.slots().unwrap_or(u32::MAX).saturating_sub(1).max(1),
        balance: Balance::default(),
        slow_start: std::time::Duration::ZERO,
        hold: std::time::Duration::from_secs(30),
        health: None,
        ejection: Ejection::default(),
        client_address: ClientAddress::default(),
        uwsgi: Uwsgi::default(),
        tls: UpstreamTls::default(),
        host: None,
        prefix: None,
        resolve: Resolve::default(),
    }
}

fn workers(decoder: &mut Decoder<'_>, node: &Node) -> Option<Workers> {
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

/// Waiting requests: ten for each worker, at least 100.
fn waiting_room(decoder: &mut Decoder<'_>, node: Option<&Node>, workers: Workers) -> WaitingRoom {
    let slots = workers.slots().and_then(|slots| usize::try_from(slots).ok()).unwrap_or(0);
    let default = WaitingRoom {
        limit: slots.saturating_mul(10).max(100),
        timeout: std::time::Duration::from_secs(30),
        is_fair: true,
    };
    let Some(fields) = node.and_then(|node| decoder.fields(node, &WAITING_ROOM)) else { return default };
    WaitingRoom {
        limit: fields.number(decoder, "limit", 0..=1_000_000, default.limit),
        timeout: fields.duration(decoder, "timeout", timeout(HOUR), default.timeout),
        is_fair: default.is_fair,
    }
}

fn keepalive(decoder: &mut Decoder<'_>, node: Option<&Node>) -> KeepAlive {
    let default = KeepAlive::default();
    let Some(fields) = node.and_then(|node| decoder.fields(node, &KEEPALIVE)) else { return default };
    KeepAlive {
        idle: fields.duration(decoder, "idle", seconds(0, HOUR), default.idle),
        max: fields.number(decoder, "max", 1..=10_000, default.max),
    }
}

fn timeouts(decoder: &mut Decoder<'_>, node: Option<&Node>) -> Timeouts {
    let default = Timeouts::default();
    let Some(fields) = node.and_then(|node| decoder.fields(node, &TIMEOUTS)) else { return default };
    Timeouts {
        connect: fields.duration(decoder, "connect", timeout(HOUR), default.connect),
        head: fields.duration(decoder, "head", timeout(DAY), default.head),
        idle: fields.duration(decoder, "idle", timeout(DAY), default.idle),
    }
}

fn retry(decoder: &mut Decoder<'_>, node: Option<&Node>) -> Retry {
    let default = Retry::default();
    let Some(fields) = node.and_then(|node| decoder.fields(node, &RETRY)) else { return default };
    Retry { attempts: fields.number(decoder, "attempts", 0..=10, default.attempts), expect: default.expect }
}

fn endpoints(decoder: &mut Decoder<'_>, fields: &Fields<'_>, name: &Span) -> Vec<(Endpoint, Span)> {
    let Some(node) = fields.get("endpoints") else {
        if !fields.means("endpoints") {
            decoder.error(name, "this upstream has no `endpoints`").help(ENDPOINTS_HELP);
        }
        return Vec::new();
    };
    let items = decoder.list("endpoints", node).unwrap_or_default();
    items.iter().filter_map(|item| endpoint(decoder, item)).collect()
}

/// `unix:/path`, `http://…`, or a mapping with `address`.
fn endpoint(decoder: &mut Decoder<'_>, node: &Node) -> Option<(Endpoint, Span)> {
    let node = match &node.value {
        Value::Map(_) => {
            decoder.fields(node, &ENDPOINT)?.required(decoder, "address", "write address: http://10.0.0.5:8000")?
        }
        _ => node,
    };
    let text = decoder.scalar("address", node, "an address")?;
    for scheme in ["https:", "h2c:"] {
        if text.starts_with(scheme) {
            decoder
                .error(&node.span, format!("`{scheme}` endpoints are not available in this version"))
                .help("let the app's server speak HTTP: unix:/run/gunicorn.sock or http://10.0.0.5:8000");
            return None;
        }
    }
    let parsed = EndpointAddress::parse(&text).map_err(|sentence| with_scheme(&text, sentence));
    let mut address = decoder.fault(&node.span, parsed)?;
    if let Place::Unix(path) = address.place {
        address.place = Place::Unix(socket_path(decoder, "address", &node.span, path)?);
    }
    Some((Endpoint { address, weight: 1, workers: None, backup: false }, node.span.clone()))
}

/// `10.0.0.5:8000`, `/run/gunicorn.sock`: what is missing is the scheme.
fn with_scheme(text: &str, sentence: String) -> crate::config::values::Fault {
    let mut fault = split_fault(sentence);
    let meant = if text.starts_with(['/', '.']) { format!("unix:{text}") } else { format!("http://{text}") };
    if !text.contains("://") && EndpointAddress::parse(&meant).is_ok() {
        fault.help = format!("write {meant}");
    }
    fault
}
