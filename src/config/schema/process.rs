//! What holds for the whole process: `trusted_proxies`, `limits`, `shutdown`, `spool`, `admin`, `runtime`.

use std::time::Duration;

use super::Places;
use super::listeners::bind;
use crate::config::decode::{Decoder, Section, seconds};
use crate::config::node::{Node, Span};
use crate::config::report::quoted;
use crate::config::{Admin, Limits, MinRate, Runtime, Secret, Shutdown, Spool, TrustedProxies};

/// More than any body, and far from overflow.
pub(super) const LARGEST: u64 = 1 << 40;
/// The longest wait that makes sense within one request.
pub(super) const HOUR: u64 = 3_600;
pub(super) const DAY: u64 = 24 * HOUR;

pub(super) static LIMITS: Section = Section {
    name: "limits",
    keys: &[
        "connections",
        "connections_per_client",
        "header_size",
        "header_count",
        "body",
        "header_timeout",
        "idle_timeout",
        "body_rate",
        "read_rate",
        "streams",
    ],
    later: &[],
    elsewhere: &[
        ("client_max_body_size", "body"),
        ("body_limit", "body"),
        ("keepalive_timeout", "idle_timeout"),
        ("client_header_timeout", "header_timeout"),
        ("large_client_header_buffers", "header_size"),
        ("worker_connections", "connections"),
        ("maxconn", "connections"),
        ("client_body_timeout", "body_rate"),
        ("send_timeout", "read_rate"),
    ],
};
pub(super) static BODY_RATE: Section =
    Section { name: "limits.body_rate", keys: &["min", "after"], later: &[], elsewhere: &[("timeout", "after")] };
pub(super) static READ_RATE: Section =
    Section { name: "limits.read_rate", keys: &["min", "after"], later: &[], elsewhere: &[("timeout", "after")] };
pub(super) static SHUTDOWN: Section =
    Section { name: "shutdown", keys: &["delay", "timeout"], later: &[], elsewhere: &[] };
pub(super) static SPOOL: Section =
    Section { name: "spool", keys: &["dir", "memory", "disk"], later: &[], elsewhere: &[("path", "dir")] };
pub(super) static ADMIN: Section = Section {
    name: "admin",
    keys: &["bind", "token"],
    later: &[],
    elsewhere: &[("listen", "bind"), ("address", "bind"), ("port", "bind"), ("secret", "token"), ("password", "token")],
};
pub(super) static RUNTIME: Section = Section {
    name: "runtime",
    keys: &["threads"],
    later: &[],
    elsewhere: &[("workers", "threads"), ("worker_processes", "threads")],
};

/// A timeout: never zero, at most `most` seconds.
pub(super) fn timeout(most: u64) -> std::ops::RangeInclusive<Duration> {
    Duration::from_millis(1)..=Duration::from_secs(most)
}

/// Addresses, networks, `private`, `unix`.
pub(super) fn trusted_proxies(decoder: &mut Decoder<'_>, node: &Node) -> TrustedProxies {
    let mut trusted = TrustedProxies::default();
    for item in decoder.list("trusted_proxies", node).unwrap_or_default() {
        let Some(text) = decoder.scalar("trusted_proxies", item, "an address or a network") else { continue };
        let added = trusted.add(&text);
        decoder.fault(&item.span, added);
        if trusted.networks.last().is_some_and(|network| network.is_everybody()) && text.contains('/') {
            decoder
                .warning(&item.span, format!("{} trusts everybody", quoted(&text)))
                .label("any client can choose its address and scheme")
                .help("write the network of your load balancers; fine only where nobody else can connect");
        }
    }
    trusted
}

pub(super) fn limits(decoder: &mut Decoder<'_>, node: &Node, places: &mut Places) -> Limits {
    let default = Limits::default();
    let Some(fields) = decoder.fields(node, &LIMITS) else { return default };
    places.connections = fields.get("connections").map(|node| node.span.clone());
    Limits {
        connections: fields.number(decoder, "connections", 1..=10_000_000, default.connections),
        connections_per_client: fields.number(
            decoder,
            "connections_per_client",
            1..=10_000_000,
            default.connections_per_client,
        ),
        header_size: fields.size(decoder, "header_size", 1 << 10..=1 << 20, default.header_size),
        header_count: fields.number(decoder, "header_count", 1..=1_000, default.header_count),
        body: fields.get("body").and_then(|node| body_size(decoder, "body", node)).unwrap_or(default.body),
        header_timeout: fields.duration(decoder, "header_timeout", timeout(HOUR), default.header_timeout),
        idle_timeout: fields.duration(decoder, "idle_timeout", timeout(DAY), default.idle_timeout),
        body_rate: min_rate(decoder, fields.get("body_rate"), &BODY_RATE, default.body_rate),
        read_rate: min_rate(decoder, fields.get("read_rate"), &READ_RATE, default.read_rate),
        streams: fields.number(decoder, "streams", 1..=10_000, default.streams),
    }
}

/// A rate that a client has to keep up, in bytes per second.
fn min_rate(decoder: &mut Decoder<'_>, node: Option<&Node>, section: &'static Section, default: MinRate) -> MinRate {
    let Some(fields) = node.and_then(|node| decoder.fields(node, section)) else { return default };
    MinRate {
        min: fields.size(decoder, "min", 1..=1 << 30, default.min),
        after: fields.duration(decoder, "after", seconds(1, HOUR), default.after),
    }
}

/// The largest body. Zero is refused because it means "no limit" in nginx, and would mean "no body" here.
pub(super) fn body_size(decoder: &mut Decoder<'_>, key: &str, node: &Node) -> Option<u64> {
    let text = decoder.scalar(key, node, "a size")?;
    if crate::config::values::size(&text) == Ok(0) {
        decoder
            .error(&node.span, format!("`{key}` cannot be 0"))
            .help("there is no way to take bodies without limit: write the largest one you expect, such as 10GiB");
        return None;
    }
    decoder.size(key, node, 1..=LARGEST)
}

pub(super) fn shutdown(decoder: &mut Decoder<'_>, node: &Node) -> Shutdown {
    let default = Shutdown::default();
    let Some(fields) = decoder.fields(node, &SHUTDOWN) else { return default };
    Shutdown {
        delay: fields.duration(decoder, "delay", seconds(0, HOUR), default.delay),
        timeout: fields.duration(decoder, "timeout", seconds(0, DAY), default.timeout),
    }
}

pub(super) fn spool(decoder: &mut Decoder<'_>, node: &Node, places: &mut Places) -> Spool {
    let default = Spool::default();
    let Some(fields) = decoder.fields(node, &SPOOL) else { return default };
    let dir = fields.get("dir");
    places.spool = dir.map(|node| node.span.clone());
    Spool {
        dir: dir.and_then(|node| decoder.path("dir", node)).unwrap_or(default.dir),
        memory: fields.size(decoder, "memory", 1 << 10..=LARGEST, default.memory),
        disk: fields.size(decoder, "disk", 0..=LARGEST << 10, default.disk),
    }
}

pub(super) fn admin(decoder: &mut Decoder<'_>, node: &Node) -> Option<(Admin, Span)> {
    let fields = decoder.fields(node, &ADMIN)?;
    let errors = decoder.error_count();
    let token = fields.get("token").and_then(|node| token(decoder, node));
    let is_without_token = token.is_none() && decoder.error_count() == errors && !fields.means("token");
    let node = fields.required(decoder, "bind", "write bind: 127.0.0.1:9180, or bind: unix:/run/hostler/admin.sock")?;
    let (text, bind) = bind(decoder, node)?;
    if bind.is_local() == Some(false) && is_without_token {
        let port = match &bind {
            crate::config::Bind::Any(port) => *port,
            crate::config::Bind::Tcp(address) => address.port(),
            crate::config::Bind::Unix(_) | crate::config::Bind::Systemd(_) => 0,
        };
        decoder
            .error(&node.span, format!("`admin` needs a `token` to listen on {}", quoted(&text)))
            .label("other machines can reach it")
            .help("whoever reaches it controls Hostler: write token: \"${HOSTLER_ADMIN_TOKEN}\" and set that variable")
            .help(format!("or let only this machine in: 127.0.0.1:{port} or unix:/run/hostler/admin.sock"));
        return None;
    }
    Some((Admin { bind, token }, node.span.clone()))
}

/// What `Authorization: Bearer` can carry (RFC 6750, 2.1). Empty, as an unset variable leaves it: none. No message
/// repeats it.
fn token(decoder: &mut Decoder<'_>, node: &Node) -> Option<Secret> {
    const LEAST: usize = 16;
    const HELP: &str = "make one with: openssl rand -hex 32";
    let text = decoder.scalar("token", node, "a text")?;
    if text.is_empty() {
        return None;
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)) {
        decoder
            .error(&node.span, "`token` holds a character that a token cannot have")
            .help("it can have letters, digits and any of - . _ ~ + / =")
            .help(HELP);
        return None;
    }
    if text.len() < LEAST {
        decoder.error(&node.span, format!("`token` is shorter than {LEAST} characters")).help(HELP);
        return None;
    }
    Some(Secret::new(text))
}

pub(super) fn runtime(decoder: &mut Decoder<'_>, node: &Node) -> Runtime {
    let Some(fields) = decoder.fields(node, &RUNTIME) else { return Runtime::default() };
    Runtime { threads: fields.get("threads").and_then(|node| threads(decoder, node)) }
}

fn threads(decoder: &mut Decoder<'_>, node: &Node) -> Option<usize> {
    let text = decoder.scalar("threads", node, "auto or a number")?;
    if text == "auto" {
        return None;
    }
    let threads = decoder.number_from("threads", &node.span, &text, 1..=1_024)?;
    usize::try_from(threads).ok()
}
