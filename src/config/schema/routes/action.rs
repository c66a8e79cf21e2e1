//! `proxy`, `files`, `redirect` and `respond`: what answers on a route.

use super::files;
use super::upstream::upstream_named;
use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Entry, Node};
use crate::config::report::quoted;
use crate::config::schema::Given;
use crate::config::values::whole_number;
use crate::config::{Action, PathPattern, Template};

pub(in crate::config::schema) static REDIRECT: Section = Section {
    name: "routes[].redirect",
    keys: &["to", "status"],
    later: &[],
    elsewhere: &[("url", "to"), ("location", "to"), ("code", "status")],
};
pub(in crate::config::schema) static RESPOND: Section = Section {
    name: "routes[].respond",
    keys: &["status", "body"],
    later: &[],
    elsewhere: &[("text", "body"), ("code", "status")],
};

const ACTIONS: [&str; 4] = ["proxy", "files", "redirect", "respond"];

/// Exactly one action. `path` is the route's, when it could be read; `internal` tells whether the route is.
pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    fields: &Fields<'_>,
    given: &Given<'_>,
    path: Option<&PathPattern>,
    internal: bool,
) -> Option<Action> {
    let written: Vec<&Entry> = ACTIONS.iter().filter_map(|key| fields.entry(key)).collect();
    match written.as_slice() {
        [] if ACTIONS.iter().chain(&["task"]).any(|key| fields.means(key)) => return None,
        [] => {
            decoder
                .error(&fields.span, "this route does nothing")
                .help("give it one of: proxy: NAME, files: ./staticfiles, redirect: { to: /new }, respond: { status: 200, body: ok }");
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
        "files" => files::decode(decoder, &entry.value, internal).map(Action::Files),
        "redirect" => redirect(decoder, &entry.value, path),
        _ => respond(decoder, &entry.value),
    });
    let first = actions.next().flatten();
    actions.for_each(drop); // for the errors within them
    first
}

fn proxy(decoder: &mut Decoder<'_>, node: &Node, given: &Given<'_>) -> Option<Action> {
    upstream_named(decoder, "proxy", node, given).map(Action::Proxy)
}

fn redirect(decoder: &mut Decoder<'_>, node: &Node, path: Option<&PathPattern>) -> Option<Action> {
    let fields = decoder.fields(node, &REDIRECT)?;
    let status = fields.get("status").map_or(Some(308), |node| redirect_status(decoder, node));
    let to_node = fields.required(decoder, "to", "write redirect: { to: /new }")?;
    let to = decoder.scalar("to", to_node, "a path or a URL")?;
    let to = decoder.fault(&to_node.span, Template::parse(&to, path))?;
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
