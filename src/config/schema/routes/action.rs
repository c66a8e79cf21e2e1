//! `proxy`, `redirect` and `respond`: what answers on a route.

use crate::config::Action;
use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Entry, Node};
use crate::config::report::quoted;
use crate::config::schema::Given;
use crate::config::values::{Fault, nearest, whole_number};

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

const ACTIONS: [&str; 3] = ["proxy", "redirect", "respond"];

/// Exactly one action.
pub(super) fn decode(decoder: &mut Decoder<'_>, fields: &Fields<'_>, given: &Given<'_>) -> Option<Action> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
