//! `sites[].routes`: a path, and what answers there.

mod action;
mod auth;
mod body;
mod compress;
mod cors;
mod files;
mod headers;
mod path;
mod places;
mod rate_limit;
mod sendfile;
mod upstream;
mod websocket;
mod when;

use super::process::{HOUR, timeout};
use super::sites::RouteDraft;
use super::{Given, cache};
use crate::config::decode::{Decoder, Section};
use crate::config::node::{Entry, Node};
use crate::config::report::quoted;
use crate::config::values::{Fault, whole_number};
use crate::config::{Action, Buffer, Compress, HeaderRules, Route, When};

pub(super) use self::action::{REDIRECT, RESPOND};
pub(super) use self::auth::{AUTH, BASIC, FORWARD, JWT};
pub(super) use self::body::BUFFER;
pub(super) use self::compress::COMPRESS;
pub(super) use self::cors::CORS;
pub(super) use self::files::FILES;
pub(super) use self::headers::{HEADERS, REQUEST, RESPONSE};
pub(super) use self::path::check_path;
pub(super) use self::rate_limit::RATE_LIMIT;
pub(super) use self::sendfile::SENDFILE;
pub(super) use self::websocket::WEBSOCKET;
pub(super) use self::when::WHEN;

pub(super) static ROUTE: Section = Section {
    name: "routes[]",
    keys: &[
        "path",
        "path_exact",
        "path_regex",
        "when",
        "proxy",
        "files",
        "redirect",
        "respond",
        "mount",
        "strip_prefix",
        "priority",
        "body_limit",
        "buffer",
        "compress",
        "cache",
        "rate_limit",
        "timeout",
        "auth",
        "headers",
        "cors",
        "internal",
        "sendfile",
        "websocket",
        "grip",
    ],
    later: &["task", "respond_async"],
    elsewhere: &[
        ("location", "path"),
        ("regex", "path_regex"),
        ("match", "when"),
        ("methods", "when"),
        ("prefix", "path"),
        ("proxy_pass", "proxy"),
        ("upstream", "proxy"),
        ("alias", "files"),
        ("root", "files"),
        ("static", "files"),
        ("try_files", "files"),
        ("return", "respond"),
        ("script_name", "mount"),
        ("client_max_body_size", "body_limit"),
        ("proxy_buffering", "buffer"),
        ("gzip", "compress"),
        ("gzip_types", "compress"),
        ("brotli", "compress"),
        ("encode", "compress"),
        ("proxy_cache", "cache"),
        ("proxy_cache_valid", "cache"),
        ("uwsgi_cache", "cache"),
        ("default_ttl", "cache"),
        ("cache_page", "cache"),
        ("limit_req", "rate_limit"),
        ("proxy_read_timeout", "timeout"),
        ("add_header", "headers"),
        ("proxy_set_header", "headers"),
        ("auth_basic", "auth"),
        ("auth_request", "auth"),
        ("forward_auth", "auth"),
        ("allow", "auth"),
        ("satisfy", "auth"),
        ("pushpin", "grip"),
        ("sse", "grip"),
        ("x_sendfile", "sendfile"),
        ("websockets", "websocket"),
        ("ws", "websocket"),
        ("proxy_http_version", "websocket"),
        ("xsendfile", "sendfile"),
        ("xsendfilepath", "sendfile"),
    ],
};

/// One route.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node, given: &Given<'_>) -> Option<RouteDraft> {
    let fields = decoder.fields(node, &ROUTE)?;
    let path = path::decode(decoder, &fields);
    let when = fields.get("when").map(|node| when::decode(decoder, node));
    let internal = fields.boolean(decoder, "internal", false);
    let pattern = path.as_ref().map(|(_, pattern, _)| pattern);
    let grip = fields.boolean(decoder, "grip", false);
    let action = action::decode(decoder, &fields, given, pattern, internal);
    let body_limit = body::limit(decoder, &fields).unwrap_or(given.body_limit);
    let buffer = fields.get("buffer").map_or_else(Buffer::default, |node| body::buffer(decoder, node));
    let compress =
        fields.get("compress").map_or_else(|| Some(Compress::default()), |node| compress::decode(decoder, node));
    let cache = fields.get("cache").and_then(|node| cache::route(decoder, node));
    let priority = fields.get("priority").and_then(|node| priority(decoder, node)).unwrap_or(0);
    let rate_limit = fields.get("rate_limit").and_then(|node| rate_limit::decode(decoder, node));
    let timeout = fields.get("timeout").and_then(|node| decoder.duration("timeout", node, timeout(HOUR)));
    let mount = fields.get("mount").and_then(|node| path::mount(decoder, node, path.as_ref()));
    let strip_prefix = path::strip_prefix(decoder, &fields, path.as_ref());
    let auth = fields.get("auth").map(|node| auth::decode(decoder, node, given));
    let cors = fields.get("cors").map(|node| cors::decode(decoder, node));
    let headers = fields.get("headers").map_or_else(HeaderRules::default, |node| headers::decode(decoder, node));
    let when = when.flatten();
    let sendfile = fields.get("sendfile").and_then(|node| sendfile::decode(decoder, node));
    let websocket = fields.get("websocket").and_then(|node| websocket::decode(decoder, node));
    let (sendfile, sendfile_roots) = sendfile.map_or((None, Vec::new()), |(sendfile, at)| (Some(sendfile), at));
    if let (Some(entry), Some(when)) = (fields.entry("cors"), &when) {
        preflights_arrive(decoder, entry, when);
    }
    let (name, path, entry) = path?;
    let action = action?;
    let auth = auth.flatten();
    // They hold for whoever is asked whether the request may pass as well.
    let is_asked = auth.as_ref().is_some_and(|auth| auth.forward.is_some());
    let keys = [
        ("mount", false),
        ("strip_prefix", false),
        ("sendfile", false),
        ("grip", false),
        ("cache", false),
        ("priority", is_asked),
        ("timeout", is_asked),
    ];
    for (key, is_used) in keys {
        if let (Some(entry), false) = (fields.entry(key), is_used || asks_app(&action)) {
            decoder
                .warning(&entry.key.span, format!("`{key}` says nothing here: this route asks no app"))
                .help("take it out, or give the route `proxy`");
        }
    }
    if let (Some(entry), false) = (fields.entry("headers"), headers.request.is_empty() || asks_app(&action)) {
        decoder
            .warning(&entry.key.span, "`headers.request` says nothing here: this route asks no app")
            .help("take it out, or give the route `proxy`");
    }
    if let (Some(entry), Some(_), false) = (fields.entry("websocket"), &websocket, asks_app(&action)) {
        decoder
            .error(&entry.key.span, "`websocket` says nothing here: this route asks no app")
            .help("take it out, or give the route `proxy`");
    }
    let route = Route {
        name,
        path,
        when,
        action,
        body_limit,
        priority,
        mount,
        strip_prefix,
        buffer,
        compress,
        cache,
        rate_limit,
        timeout,
        auth,
        cors: cors.flatten(),
        headers,
        internal,
        sendfile,
        websocket,
        grip,
    };
    let root = fields.get("files").map(|node| files::root_span(node).clone());
    let places = places::of(&route, &fields);
    Some(RouteDraft { route, span: entry.value.span.clone(), root, sendfile_roots, places })
}

fn asks_app(action: &Action) -> bool {
    matches!(action, Action::Proxy(_))
}

/// A preflight is an OPTIONS request: it has to be the route's as well.
fn preflights_arrive(decoder: &mut Decoder<'_>, cors: &Entry, when: &When) {
    if !when.methods.is_empty() && !when.methods.iter().any(|method| method == "OPTIONS") {
        decoder
            .warning(&cors.key.span, "preflights do not come to this route")
            .label("`when.methods` is without OPTIONS")
            .help("add OPTIONS: browsers ask with it before they send anything but simple requests");
    }
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
