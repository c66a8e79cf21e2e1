//! `websocket`: a mode, or what is to be otherwise than usual.

use std::time::Duration;

use super::cors::origin;
use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Node, Value};
use crate::config::report::quoted;
use crate::config::values::Fault;
use crate::config::{PageOrigins, WebSocket, WebSocketMode};

pub(in crate::config::schema) static WEBSOCKET: Section = Section {
    name: "routes[].websocket",
    keys: &["mode", "origins", "ping", "max_message", "max"],
    later: &[],
    elsewhere: &[
        ("origin", "origins"),
        ("allowed_origins", "origins"),
        ("allow_origins", "origins"),
        ("ping_interval", "ping"),
        ("heartbeat", "ping"),
        ("keep_alive", "ping"),
        ("keepalive", "ping"),
        ("max_size", "max_message"),
        ("max_message_size", "max_message"),
        ("max_connections", "max"),
        ("limit", "max"),
        ("upgrade", "mode"),
    ],
};

/// How often at most, and at least, somebody is pinged.
const PINGS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const LARGEST_MESSAGE: u64 = 1 << 30;
const MOST: u64 = 1_000_000;

const MODES: [(&str, Option<WebSocketMode>); 3] =
    [("over_http", Some(WebSocketMode::OverHttp)), ("tunnel", Some(WebSocketMode::Tunnel)), ("off", None)];

/// `None`: the route takes no WebSockets, or there is something wrong with it, which has been told.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<WebSocket> {
    if !matches!(node.value, Value::Map(_) | Value::List(_)) {
        return mode(decoder, "websocket", node).map(WebSocket::of);
    }
    let fields = decoder.fields(node, &WEBSOCKET)?;
    let mode_node = fields.required(
        decoder,
        "mode",
        "write mode: over_http, or mode: tunnel for an app that speaks WebSocket itself",
    )?;
    let default = WebSocket::of(mode(decoder, "mode", mode_node)?);
    if let (WebSocketMode::Tunnel, Some(entry)) = (default.mode, fields.entry("max_message")) {
        decoder
            .error(&entry.key.span, "`max_message` does not go with `mode: tunnel`")
            .label("messages pass through as they come: the app sees to their size")
            .help("take it out, and set the limit of the app's server (uvicorn: --ws-max-size)");
    }
    let origins = match fields.get("origins") {
        Some(node) => origins(decoder, node)?,
        None => default.origins,
    };
    Some(WebSocket {
        mode: default.mode,
        origins,
        ping: ping(decoder, &fields, default.ping),
        max_message: fields.size(decoder, "max_message", 1..=LARGEST_MESSAGE, default.max_message),
        max: fields.number(decoder, "max", 1..=MOST, default.max),
    })
}

/// `None`: off, or none at all, which has been told.
fn mode(decoder: &mut Decoder<'_>, key: &'static str, node: &Node) -> Option<WebSocketMode> {
    decoder.choice(key, node, &MODES)?
}

/// `off`, or a duration.
fn ping(decoder: &mut Decoder<'_>, fields: &Fields<'_>, default: Option<Duration>) -> Option<Duration> {
    match fields.get("ping") {
        None => default,
        Some(node) if matches!(&node.value, Value::Text(text) if text == "off") => None,
        Some(node) => decoder.duration("ping", node, PINGS).or(default),
    }
}

/// `same`, `any`, or a list. `None`: there is something wrong with it, which has been told: it must not become another one.
fn origins(decoder: &mut Decoder<'_>, node: &Node) -> Option<PageOrigins> {
    if !matches!(node.value, Value::List(_)) {
        let words = [("same", PageOriginsWord::Same), ("any", PageOriginsWord::Any)];
        return match decoder.choice("origins", node, &words)? {
            PageOriginsWord::Same => Some(PageOrigins::Same),
            PageOriginsWord::Any => Some(PageOrigins::Any),
        };
    }
    let errors = decoder.error_count();
    let mut listed = Vec::new();
    for item in decoder.list("origins", node).unwrap_or_default() {
        let text = decoder.scalar("origins", item, "an origin");
        listed.extend(text.and_then(|text| decoder.fault(&item.span, page_origin(&text))));
    }
    (decoder.error_count() == errors).then_some(PageOrigins::Listed(listed))
}

#[derive(Clone, Copy)]
enum PageOriginsWord {
    Same,
    Any,
}

fn page_origin(text: &str) -> Result<String, Fault> {
    match text {
        "*" => Err(Fault::new("`*` is every origin", "write origins: any")),
        "null" => Err(Fault::new(
            "`null` is the origin of every page in a sandbox",
            "write the origin of the page itself, or origins: any",
        )),
        "same" | "any" => Err(Fault::new(
            format!("{} does not stand in a list", quoted(text)),
            format!("write origins: {text}, or the origins themselves"),
        )),
        _ => origin(text),
    }
}
