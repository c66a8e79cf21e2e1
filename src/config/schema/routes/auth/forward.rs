//! `auth.forward`: whom to ask for what, and what of the answer the app is told.

use std::time::Duration;

use super::identity_name;
use crate::config::auth::{Auth, Forward};
use crate::config::decode::{Decoder, Section};
use crate::config::node::{Node, Span};
use crate::config::report::quoted;
use crate::config::schema::process::{HOUR, timeout};
use crate::config::schema::routes::upstream::upstream_named;
use crate::config::schema::{Given, target};

pub(in crate::config::schema) static FORWARD: Section = Section {
    name: "routes[].auth.forward",
    keys: &["upstream", "path", "headers", "timeout"],
    later: &[],
    elsewhere: &[
        ("proxy", "upstream"),
        ("proxy_pass", "upstream"),
        ("address", "upstream"),
        ("url", "upstream"),
        ("auth_request", "path"),
        ("uri", "path"),
        ("auth_request_set", "headers"),
        ("authResponseHeaders", "headers"),
        ("auth_response_headers", "headers"),
        ("copy_headers", "headers"),
    ],
};

const REMOTE_USER: &str = "remote-user";

pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node, given: &Given<'_>) -> Option<Forward> {
    let fields = decoder.fields(node, &FORWARD)?;
    let upstream = fields
        .required(
            decoder,
            "upstream",
            "name the upstream that is asked: forward: { upstream: auth, path: /verify }. It may be the app itself",
        )
        .and_then(|node| upstream_named(decoder, "upstream", node, given));
    let path = fields
        .required(decoder, "path", "write what it is asked for: path: /verify, perhaps with a query")
        .and_then(|node| target(decoder, "path", node));
    let headers = fields.get("headers").map_or_else(|| Some(Vec::new()), |node| headers(decoder, node));
    let timeout = fields.duration(decoder, "timeout", timeout(HOUR), Duration::from_secs(5));
    Some(Forward { upstream: upstream?, path: path?, headers: headers?, timeout })
}

/// Fields of its answer for the app, which no client can send from now on.
fn headers(decoder: &mut Decoder<'_>, node: &Node) -> Option<Vec<String>> {
    let mut names: Vec<(String, &Span)> = Vec::new();
    let mut is_whole = true;
    for item in decoder.list("headers", node)? {
        let text = decoder.scalar("headers", item, "the name of a header");
        let Some(name) = text.and_then(|text| decoder.fault(&item.span, identity_name(&text))) else {
            is_whole = false;
            continue;
        };
        if let Some((_, first)) = names.iter().find(|(known, _)| *known == name) {
            decoder
                .error(&item.span, format!("the header {} stands here twice", quoted(&name)))
                .also(first, "first here")
                .help("case makes no difference: keep one of them");
        }
        names.push((name, &item.span));
    }
    is_whole.then(|| names.into_iter().map(|(name, _)| name).collect())
}

/// One name cannot have two values.
pub(super) fn check_beside_others(decoder: &mut Decoder<'_>, auth: &Auth, at: &Span) {
    let Some(forward) = &auth.forward else { return };
    if auth.basic.is_some() && forward.headers.iter().any(|name| name == REMOTE_USER) {
        decoder
            .error(at, "`basic` tells the app its user as Remote-User, and so would `forward`")
            .help("take Remote-User out of its `headers`");
    }
    let claims = auth.jwt.iter().flat_map(|jwt| &jwt.claims).map(|(_, name)| name);
    for name in claims.filter(|name| forward.headers.contains(name)) {
        decoder
            .error(
                at,
                format!("a claim of `jwt` and an answer of `forward` cannot both have the header {}", quoted(name)),
            )
            .help("write another name for the claim, or take it out of `headers`");
    }
}
