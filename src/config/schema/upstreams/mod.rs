//! `upstreams`: named groups of endpoints that run the same app.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

mod balance;
mod endpoints;
mod exchange;
mod health;
mod protocol;
mod room;
mod sent;

use super::process::{DAY, HOUR};
use crate::config::decode::{Decoder, Fields, Section, seconds};
use crate::config::node::{Entry, Node, Span, Value};
use crate::config::report::quoted;
use crate::config::{Balance, ClientAddress, Place, Resolve, Upstream};

pub(super) use balance::BALANCE;
pub(super) use endpoints::ENDPOINT;
pub(in crate::config) use endpoints::EndpointDraft;
pub(super) use exchange::{KEEPALIVE, RETRY, TIMEOUTS};
pub(super) use health::{EJECTION, HEALTH};
pub(super) use protocol::{TLS, UWSGI};
pub(super) use room::{STREAMING, WAITING_ROOM};
pub(in crate::config) use sent::is_server_name;
pub(super) use sent::target;

/// An upstream and its places.
pub(in crate::config) struct UpstreamDraft {
    /// `None` when something in it is wrong: its name can still be referred to.
    pub(in crate::config) upstream: Option<Upstream>,
    pub(in crate::config) name: String,
    /// The place of the name.
    pub(in crate::config) span: Span,
    pub(in crate::config) endpoints: Vec<EndpointDraft>,
    /// Whether every endpoint could be read: only then can one be said to be missing.
    pub(in crate::config) endpoints_are_whole: bool,
    pub(in crate::config) places: UpstreamPlaces,
}

/// Where an upstream says what the checks across keys look at; `None`: it does not.
#[derive(Default)]
pub(in crate::config) struct UpstreamPlaces {
    /// The value of `workers`.
    pub(in crate::config) workers: Option<Span>,
    /// The value of `streaming.max`.
    pub(in crate::config) streaming_max: Option<Span>,
    /// The value of `client_address`.
    pub(in crate::config) client_address: Option<Span>,
    /// The key `uwsgi`.
    pub(in crate::config) uwsgi: Option<Span>,
    /// The key `tls`.
    pub(in crate::config) tls: Option<Span>,
}

impl UpstreamDraft {
    /// The unix sockets among the endpoints.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (PathBuf, Span)> {
        self.endpoints.iter().filter_map(|draft| match &draft.endpoint.address.place {
            Place::Unix(path) => Some((path.clone(), draft.span.clone())),
            Place::Tcp { .. } => None,
        })
    }

    /// The names among the endpoints: what has to be looked up.
    pub(super) fn names(&self) -> impl Iterator<Item = (String, Span)> {
        self.endpoints.iter().filter_map(|draft| match &draft.endpoint.address.place {
            Place::Tcp { host, .. } if host.parse::<IpAddr>().is_err() => Some((host.clone(), draft.span.clone())),
            _ => None,
        })
    }
}

pub(super) static UPSTREAM: Section = Section {
    name: "upstreams.*",
    keys: &[
        "endpoints",
        "workers",
        "streaming",
        "waiting_room",
        "abandon",
        "balance",
        "slow_start",
        "keepalive",
        "timeouts",
        "hold",
        "retry",
        "health",
        "ejection",
        "client_address",
        "uwsgi",
        "tls",
        "host",
        "prefix",
        "resolve",
    ],
    later: &[],
    elsewhere: &[
        ("servers", "endpoints"),
        ("server", "endpoints"),
        ("address", "endpoints"),
        ("queue", "waiting_room"),
        ("retries", "retry"),
        ("health_check", "health"),
        ("healthcheck", "health"),
        ("lb_policy", "balance"),
        ("proxy_protocol", "client_address"),
        ("send_proxy", "client_address"),
        ("ssl", "tls"),
    ],
};

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
    let mut draft = UpstreamDraft {
        upstream: None,
        name,
        span,
        endpoints: Vec::new(),
        endpoints_are_whole: false,
        places: UpstreamPlaces::default(),
    };
    if let Value::Null = entry.value.value {
        decoder.error(&draft.span, format!("the upstream {} is empty", quoted(&draft.name))).help(endpoints::HELP);
        return draft;
    }
    if let Some(fields) = decoder.fields(&entry.value, &UPSTREAM) {
        let errors = decoder.error_count();
        draft.endpoints = endpoints::decode(decoder, &fields, &draft.span);
        draft.endpoints_are_whole = decoder.error_count() == errors;
        draft.upstream = Some(upstream(decoder, &fields, &mut draft));
    }
    draft
}

fn upstream(decoder: &mut Decoder<'_>, fields: &Fields<'_>, draft: &mut UpstreamDraft) -> Upstream {
    let value_at = |key| fields.get(key).map(|node| node.span.clone());
    let key_at = |key| fields.entry(key).map(|entry| entry.key.span.clone());
    let workers = room::workers(decoder, fields.get("workers"), &draft.endpoints);
    let (streaming_max, streaming_at) = room::streaming_max(decoder, fields.get("streaming"), workers);
    draft.places = UpstreamPlaces {
        workers: value_at("workers"),
        streaming_max: streaming_at,
        client_address: value_at("client_address"),
        uwsgi: key_at("uwsgi"),
        tls: key_at("tls"),
    };
    Upstream {
        name: draft.name.clone(),
        endpoints: draft.endpoints.iter().map(|draft| draft.endpoint.clone()).collect(),
        workers,
        streaming_max,
        waiting_room: room::waiting_room(decoder, fields.get("waiting_room"), workers),
        abandon: fields.duration(decoder, "abandon", seconds(0, DAY), Duration::from_secs(60)),
        keepalive: exchange::keepalive(decoder, fields.get("keepalive")),
        timeouts: exchange::timeouts(decoder, fields.get("timeouts")),
        balance: fields.get("balance").and_then(|node| balance::decode(decoder, node)).unwrap_or(Balance::LeastBusy),
        slow_start: fields.duration(decoder, "slow_start", seconds(0, HOUR), Duration::ZERO),
        hold: fields.duration(decoder, "hold", seconds(0, HOUR), Duration::from_secs(30)),
        retry: exchange::retry(decoder, fields.get("retry")),
        health: fields.get("health").and_then(|node| health::health(decoder, node)),
        ejection: health::ejection(decoder, fields.get("ejection")),
        client_address: fields
            .get("client_address")
            .and_then(|node| protocol::client_address(decoder, node))
            .unwrap_or(ClientAddress::Headers),
        uwsgi: protocol::uwsgi(decoder, fields.get("uwsgi")),
        tls: protocol::tls(decoder, fields.get("tls")),
        host: fields.get("host").and_then(|node| sent::host(decoder, node)),
        prefix: fields.get("prefix").and_then(|node| sent::prefix(decoder, node)),
        resolve: fields.get("resolve").and_then(|node| protocol::resolve(decoder, node)).unwrap_or(Resolve::Ttl),
    }
}
