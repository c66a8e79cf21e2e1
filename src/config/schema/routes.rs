//! `sites[].routes`: a path, and what answers there.

use super::Given;
use super::process::{LARGEST, body_size};
use super::sites::RouteDraft;
use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Entry, Node};
use crate::config::report::quoted;
use crate::config::values::{Fault, nearest, whole_number};
use crate::config::{Action, Buffer, PathPattern, Route};

pub(super) static ROUTE: Section = Section {
    name: "routes[]",
    keys: &["path", "path_exact", "proxy", "redirect", "respond", "mount", "priority", "body_limit", "buffer"],
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
        "auth",
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
    ],
};
pub(super) static REDIRECT: Section = Section {
    name: "routes[].redirect",
    keys: &["to", "status"],
    later: &[],
    elsewhere: &[("url", "to"), ("location", "to"), ("code", "status")],
};
pub(super) static RESPOND: Section = Section {
    name: "routes[].respond",
    keys: &["status", "body"],
    later: &[],
    elsewhere: &[("text", "body"), ("code", "status")],
};
pub(super) static BUFFER: Section =
    Section { name: "routes[].buffer", keys: &["response", "memory", "disk"], later: &["request"], elsewhere: &[] };

const ACTIONS: [&str; 3] = ["proxy", "redirect", "respond"];

/// One route.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node, given: &Given<'_>) -> Option<RouteDraft> {
    let fields = decoder.fields(node, &ROUTE)?;
    let path = path(decoder, &fields);
    let action = action(decoder, &fields, given);
    let body_limit = match fields.get("body_limit") {
        Some(node) => body_size(decoder, "body_limit", node).unwrap_or(given.body_limit),
        None => given.body_limit,
    };
    let buffer = fields.get("buffer").map_or_else(Buffer::default, |node| buffer(decoder, node));
    let priority = fields.get("priority").and_then(|node| priority(decoder, node)).unwrap_or(0);
    let mount = fields.get("mount").and_then(|node| mount(decoder, node, path.as_ref()));
    let (name, path, entry) = path?;
    let action = action?;
    for key in ["mount", "priority"] {
        if let (Some(entry), false) = (fields.entry(key), matches!(action, Action::Proxy(_))) {
            decoder
                .warning(&entry.key.span, format!("`{key}` says nothing here: this route asks no app"))
                .help("take it out, or give the route `proxy`");
        }
    }
    let route = Route { name, path, action, body_limit, priority, mount, buffer };
    Some(RouteDraft { route, span: entry.value.span.clone() })
}

/// The path as written, as compared, and its entry.
fn path<'n>(decoder: &mut Decoder<'_>, fields: &Fields<'n>) -> Option<(String, PathPattern, &'n Entry)> {
    let entry = match (fields.entry("path"), fields.entry("path_exact")) {
        (Some(entry), None) | (None, Some(entry)) => entry,
        (Some(prefix), Some(exact)) => {
            decoder
                .error(&exact.key.span, "a route has either `path` or `path_exact`")
                .also(&prefix.key.span, "the other one")
                .help("`path` takes everything below it, `path_exact` that one path; write two routes for both");
            return None;
        }
        (None, None) if ["path", "path_exact", "path_regex"].iter().any(|key| fields.means(key)) => return None,
        (None, None) => {
            decoder
                .error(&fields.span, "this route has no path")
                .help("write path: / for everything, or path_exact: /up for one path");
            return None;
        }
    };
    let key = entry.key.text.as_str();
    let text = decoder.scalar(key, &entry.value, "a path")?;
    decoder.fault(&entry.value.span, check_path(&text))?;
    let is_prefix = key == "path";
    if is_prefix && text.ends_with('*') {
        decoder
            .warning(&entry.value.span, "the `*` at the end stands for itself")
            .help(format!("`path` takes everything below it: write {}", text.trim_end_matches('*')));
    }
    let pattern = if is_prefix { PathPattern::Prefix(text.clone()) } else { PathPattern::Exact(text.clone()) };
    Some((text, pattern, entry))
}

/// Paths are compared with the decoded path of a request, in which none of these can appear.
fn check_path(text: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: String| Err(Fault::new(format!("the path {} {message}", quoted(text)), help));
    if text.starts_with(['~', '^']) {
        return fault(
            "looks like a regular expression",
            "they are not available in this version: write the prefix".into(),
        );
    }
    if !text.starts_with('/') {
        return fault("does not begin with `/`", format!("write /{text}"));
    }
    if let Some(at) = text.find(['?', '#']) {
        return fault(
            "holds a query or a fragment",
            format!("write {}: routes are chosen by the path alone", &text[..at]),
        );
    }
    if text.split('/').any(|segment| segment == "." || segment == "..") {
        return fault(
            "holds a `.` or `..` segment",
            "write it without: clients' paths are resolved before they are compared".into(),
        );
    }
    if text.chars().any(char::is_control) {
        return fault("holds a control character", "take it out".into());
    }
    let escapes =
        |at: usize| text.as_bytes().get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if text.match_indices('%').any(|(at, _)| escapes(at)) {
        return fault("is percent-encoded", "write the characters themselves (/café, not /caf%C3%A9)".into());
    }
    Ok(())
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

/// The prefix that the app lives under, without a slash at its end. The route's path must be within it.
fn mount(decoder: &mut Decoder<'_>, node: &Node, path: Option<&(String, PathPattern, &Entry)>) -> Option<String> {
    let text = decoder.scalar("mount", node, "a path")?;
    decoder.fault(&node.span, check_path(&text).and_then(|()| check_mount(&text)))?;
    let mount = text.trim_end_matches('/');
    let (path, _, entry) = path?;
    if !is_within(path, mount) {
        decoder
            .error(&node.span, format!("the path of this route is not within {}", quoted(mount)))
            .also(&entry.value.span, "the path")
            .help(format!("write path: {mount}/ if the app lives there; the app sees what follows as its path"));
        return None;
    }
    Some(mount.to_owned())
}

/// It goes into a header as it is, and apps put it before every link they write.
fn check_mount(text: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: &str| Err(Fault::new(format!("the mount {} {message}", quoted(text)), help));
    if text.trim_end_matches('/').is_empty() {
        return fault("says nothing", "take it out: an app without `mount` lives at /");
    }
    if text.contains("//") {
        return fault("holds two slashes in a row", "write one: at the start of a link two mean another host");
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"/-._~!$&'()*+,;=:@".contains(*c)) {
        return fault(
            &format!("holds {}, which a URL cannot have as it is", quoted(&bad.to_string())),
            "write letters, digits, `-`, `.`, `_` and `~`",
        );
    }
    Ok(())
}

/// On segment boundaries.
fn is_within(path: &str, mount: &str) -> bool {
    path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Exactly one action.
fn action(decoder: &mut Decoder<'_>, fields: &Fields<'_>, given: &Given<'_>) -> Option<Action> {
    let written: Vec<&Entry> = ACTIONS.iter().filter_map(|key| fields.entry(key)).collect();
    match written.as_slice() {
        [] if ACTIONS.iter().chain(&["files", "task"]).any(|key| fields.means(key)) => return None,
        [] => {
            decoder
                .error(&fields.span, "this route does nothing")
                .help("give it one of: proxy: NAME, redirect: { to: /new }, respond: { status: 200, body: ok }");
            return None;
        }
        [_] => {}
        [first, others @ ..] => {
            for other in others {
                decoder
                    .error(&other.key.span, format!("a route has one action, not `{}` as well", other.key.text))
                    .also(&first.key.span, "the first one")
                    .help("write two routes; the first that matches a request answers it");
            }
        }
    }
    let mut actions = written.iter().map(|entry| match entry.key.text.as_str() {
        "proxy" => proxy(decoder, &entry.value, given),
        "redirect" => redirect(decoder, &entry.value),
        _ => respond(decoder, &entry.value),
    });
    let first = actions.next().flatten();
    actions.for_each(drop); // for the errors within them
    first
}

fn proxy(decoder: &mut Decoder<'_>, node: &Node, given: &Given<'_>) -> Option<Action> {
    let name = decoder.scalar("proxy", node, "the name of an upstream")?;
    let upstreams = given.upstreams;
    if let Some(at) = upstreams.iter().position(|upstream| upstream.name == name) {
        return Some(Action::Proxy(at));
    }
    if !given.names_are_known {
        return None;
    }
    let names = upstreams.iter().map(|upstream| upstream.name.as_str());
    let near = nearest(&name, names.clone());
    let all = names.take(10).collect::<Vec<_>>().join(", ");
    let finding = decoder.error(&node.span, format!("no upstream is called {}", quoted(&name)));
    if let Some((near, upstream)) = near.and_then(|near| Some((near, upstreams.iter().find(|u| u.name == near)?))) {
        finding.also(&upstream.span, "this one is near").help(format!("did you mean `{near}`?"));
    } else if name.contains("://") || name.starts_with("unix:") {
        finding.help("`proxy` takes a name: write the address into `upstreams`, under `endpoints`");
    } else if all.is_empty() {
        finding.help(format!("write upstreams: {{ {name}: {{ endpoints: [\"unix:/run/gunicorn.sock\"] }} }}"));
    } else {
        finding.help(format!("the upstreams of this file are {all}"));
    }
    None
}

fn redirect(decoder: &mut Decoder<'_>, node: &Node) -> Option<Action> {
    let fields = decoder.fields(node, &REDIRECT)?;
    let status = fields.get("status").map_or(Some(308), |node| redirect_status(decoder, node));
    let to_node = fields.required(decoder, "to", "write redirect: { to: /new }")?;
    let to = decoder.scalar("to", to_node, "a path or a URL")?;
    decoder.fault(&to_node.span, check_location(&to))?;
    Some(Action::Redirect { to, status: status? })
}

fn redirect_status(decoder: &mut Decoder<'_>, node: &Node) -> Option<u16> {
    let text = decoder.scalar("status", node, "a status")?;
    let number = whole_number(&text).ok().and_then(|number| u16::try_from(number).ok());
    let status = number.filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308));
    if status.is_none() {
        decoder.error(&node.span, format!("{} is not a status of a redirect", quoted(&text))).help(
            "it can be 301, 302, 303, 307 or 308; 308 is permanent and keeps the method, 307 is its temporary form",
        );
    }
    status
}

/// What may stand in `Location`.
fn check_location(to: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(to)), help));
    if let Some(bad) = to.chars().find(|c| !c.is_ascii_graphic()) {
        let encoded: String = bad.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
        return fault(
            "cannot stand in a Location header as it is",
            &format!("percent-encode it: write {encoded} for it"),
        );
    }
    if to.starts_with("//") {
        return fault("leads to another host", "write https:// before it, or one slash for a path of this host");
    }
    let host = to.strip_prefix("https://").or_else(|| to.strip_prefix("http://"));
    match host {
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => {
            fault("has no host", "write https://shop.example/new")
        }
        Some(_) => Ok(()),
        None if to.starts_with('/') => Ok(()),
        None => fault("is neither a path nor a URL", "write /new, or https://shop.example/new"),
    }
}

fn respond(decoder: &mut Decoder<'_>, node: &Node) -> Option<Action> {
    let fields = decoder.fields(node, &RESPOND)?;
    let status = fields.number(decoder, "status", 200..=599, 200_u16);
    let body_node = fields.get("body");
    let body = body_node.map_or(Some(String::new()), |node| decoder.scalar("body", node, "a text"))?;
    if let (Some(node), 204 | 205 | 304, false) = (body_node, status, body.is_empty()) {
        decoder
            .error(&node.span, format!("an answer with status {status} has no body"))
            .help("take the body out, or write status: 200");
    }
    Some(Action::Respond { status, body })
}

fn buffer(decoder: &mut Decoder<'_>, node: &Node) -> Buffer {
    let default = Buffer::default();
    let Some(fields) = decoder.fields(node, &BUFFER) else { return default };
    Buffer {
        response: fields.boolean(decoder, "response", default.response),
        memory: fields.size(decoder, "memory", 1 << 10..=LARGEST, default.memory),
        disk: fields.size(decoder, "disk", 0..=LARGEST, default.disk),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_a_decoded_request_can_have() {
        for text in ["/", "/static/", "/a/b.txt", "/café", "/100%", "/a b", "/..a/"] {
            assert_eq!(check_path(text), Ok(()), "{text}");
        }
        for text in ["", "static", "/a?b", "/a#b", "/a/../b", "/.", "/caf%C3%A9", "/a\nb", "~ ^/x", "^/x"] {
            assert!(check_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mount_is_a_plain_prefix_on_segment_boundaries() {
        for text in ["/api", "/api/", "/a/b-c.d_e~", "/@x"] {
            assert_eq!(check_mount(text), Ok(()), "{text}");
        }
        for text in ["/", "//", "//evil.example", "/a//b", "/café", "/a b", "/a<b", "/100%", "/a^b"] {
            assert!(check_mount(text).is_err(), "{text}");
        }
        for (path, is_inside) in [("/api", true), ("/api/", true), ("/api/x", true), ("/apix", false), ("/", false)] {
            assert_eq!(is_within(path, "/api"), is_inside, "{path}");
        }
    }

    #[test]
    fn a_location_is_a_path_or_a_url() {
        for text in ["/", "/new?a=b#c", "https://shop.example", "http://shop.example:8080/x"] {
            assert_eq!(check_location(text), Ok(()), "{text}");
        }
        for text in
            ["", "new", "//evil.example", "https://", "https:///x", "ftp://a", "/a b", "/a\r\nSet-Cookie: x", "/é"]
        {
            assert!(check_location(text).is_err(), "{text}");
        }
    }
}
