//! `auth`: who may use a route.

mod basic;
mod forward;
mod identity;
mod jwt;
mod url;

use crate::config::auth::{AllowedClients, Auth};
use crate::config::decode::{Decoder, Section};
use crate::config::node::Node;
use crate::config::schema::Given;
use crate::config::values::Fault;
use crate::credentials::Unusable;

pub(in crate::config::schema) use self::basic::BASIC;
pub(in crate::config::schema) use self::forward::FORWARD;
use self::identity::identity_name;
pub(in crate::config::schema) use self::jwt::JWT;

pub(in crate::config::schema) static AUTH: Section = Section {
    name: "routes[].auth",
    keys: &["allow", "basic", "jwt", "forward"],
    later: &[],
    elsewhere: &[
        ("auth_basic", "basic"),
        ("basic_auth", "basic"),
        ("users", "basic"),
        ("htpasswd", "basic"),
        ("bearer", "jwt"),
        ("auth_jwt", "jwt"),
        ("allowed", "allow"),
        ("whitelist", "allow"),
        ("auth_request", "forward"),
        ("forward_auth", "forward"),
        ("forwardAuth", "forward"),
    ],
};

/// At least one of its keys.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node, given: &Given<'_>) -> Option<Auth> {
    let errors = decoder.error_count();
    let fields = decoder.fields(node, &AUTH)?;
    let allow = fields.get("allow").map(|node| allow(decoder, node));
    let basic = fields.entry("basic").map(|entry| basic::decode(decoder, &entry.value));
    let jwt = fields.entry("jwt").map(|entry| jwt::decode(decoder, &entry.value));
    let forward = fields.entry("forward").map(|entry| forward::decode(decoder, &entry.value, given));
    let is_empty = allow.is_none() && basic.is_none() && jwt.is_none() && forward.is_none();
    // Whatever could not be read must not become a route that everybody may use.
    if decoder.error_count() > errors {
        return None;
    }
    if is_empty {
        decoder
            .error(&node.span, "this `auth` asks for nothing")
            .help("write allow, basic, jwt or forward into it, or take it out");
        return None;
    }
    let auth = Auth { allow, basic: basic.flatten(), jwt: jwt.flatten(), forward: forward.flatten() };
    if let (Some(_), Some(jwt), Some(entry)) = (&auth.basic, &auth.jwt, fields.entry("jwt")) {
        jwt::check_beside_basic(decoder, jwt, &entry.key.span);
    }
    if let Some(entry) = fields.entry("forward") {
        forward::check_beside_others(decoder, &auth, &entry.key.span);
    }
    Some(auth)
}

/// Networks, as `trusted_proxies` has them.
fn allow(decoder: &mut Decoder<'_>, node: &Node) -> AllowedClients {
    let mut clients = AllowedClients::default();
    for item in decoder.list("allow", node).unwrap_or_default() {
        if let Some(text) = decoder.scalar("allow", item, "a network") {
            let added = clients.0.add(&text);
            decoder.fault(&item.span, added);
        }
    }
    clients
}

/// What browsers show, in a quoted string of a header (RFC 9110, 5.6.4).
fn realm(decoder: &mut Decoder<'_>, node: &Node) -> Option<String> {
    const LONGEST: usize = 100;
    let text = decoder.scalar("realm", node, "a text")?;
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
    if text.is_empty() || text.len() > LONGEST || !is_plain {
        decoder
            .error(&node.span, "`realm` cannot be shown by every browser")
            .help("it has 1 to 100 letters, digits and signs of ASCII, without \" and \\");
        return None;
    }
    Some(text)
}

/// What is wrong with a file, at the place that names it.
impl From<Unusable> for Fault {
    fn from(unusable: Unusable) -> Self {
        Self::new(unusable.message, unusable.help)
    }
}
