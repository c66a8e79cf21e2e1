//! `sites[].routes`: a path, and what answers there.

mod action;
mod auth;
mod body;
mod path;

use super::Given;
use super::sites::RouteDraft;
use crate::config::decode::{Decoder, Section};
use crate::config::node::Node;
use crate::config::report::quoted;
use crate::config::values::{Fault, whole_number};
use crate::config::{Action, Buffer, Route};

pub(super) use self::action::{REDIRECT, RESPOND};
pub(super) use self::auth::{AUTH, BASIC, JWT};
pub(super) use self::body::BUFFER;

pub(super) static ROUTE: Section = Section {
    name: "routes[]",
    keys: &["path", "path_exact", "proxy", "redirect", "respond", "mount", "priority", "body_limit", "buffer", "auth"],
    later: &[
        "path_regex",
        "when",
        "files",
        "internal",
        "websocket",
        "grip",
        "task",
        "strip_prefix",
        "cache",
        "compress",
        "rate_limit",
        "timeout",
        "headers",
        "cors",
        "sendfile",
        "respond_async",
    ],
    elsewhere: &[
        ("location", "path"),
        ("prefix", "path"),
        ("proxy_pass", "proxy"),
        ("upstream", "proxy"),
        ("return", "respond"),
        ("script_name", "mount"),
        ("client_max_body_size", "body_limit"),
        ("proxy_buffering", "buffer"),
        ("auth_basic", "auth"),
        ("auth_request", "auth"),
        ("allow", "auth"),
        ("satisfy", "auth"),
    ],
};

/// One route.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node, given: &Given<'_>) -> Option<RouteDraft> {
    let fields = decoder.fields(node, &ROUTE)?;
    let path = path::decode(decoder, &fields);
    let action = action::decode(decoder, &fields, given);
    let body_limit = body::limit(decoder, &fields).unwrap_or(given.body_limit);
    let buffer = fields.get("buffer").map_or_else(Buffer::default, |node| body::buffer(decoder, node));
    let priority = fields.get("priority").and_then(|node| priority(decoder, node)).unwrap_or(0);
    let mount = fields.get("mount").and_then(|node| path::mount(decoder, node, path.as_ref()));
    let auth = fields.get("auth").map(|node| auth::decode(decoder, node));
    let (name, path, entry) = path?;
    let action = action?;
    for key in ["mount", "priority"] {
        if let (Some(entry), false) = (fields.entry(key), matches!(action, Action::Proxy(_))) {
            decoder
                .warning(&entry.key.span, format!("`{key}` says nothing here: this route asks no app"))
                .help("take it out, or give the route `proxy`");
        }
    }
    let route = Route { name, path, action, body_limit, priority, mount, buffer, auth: auth.flatten() };
    Some(RouteDraft { route, span: entry.value.span.clone() })
}

/// -100 to 100.
fn priority(decoder: &mut Decoder<'_>, node: &Node) -> Option<i32> {
    const HELP: &str = "`priority` can be -100 to 100; what is higher goes first, and 0 is the default";
    let text = decoder.scalar("priority", node, "a whole number")?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.as_str()),
    };
    let number = decoder.fault(
        &node.span,
        whole_number(digits).map_err(|_| Fault::new(format!("{} is not a whole number", quoted(&text)), HELP)),
    )?;
    let priority = i32::try_from(number).ok().filter(|number| *number <= 100);
    if priority.is_none() {
        decoder.error(&node.span, format!("`priority` is out of range: {}", quoted(&text))).help(HELP);
    }
    priority.map(|number| sign * number)
}
