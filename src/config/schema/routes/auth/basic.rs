//! `auth.basic`: the realm, and the file of users, which is read at once.

use std::sync::Arc;

use super::realm;
use crate::config::auth::Basic;
use crate::config::decode::{Decoder, Section};
use crate::config::node::Node;
use crate::credentials::{self, Users};

pub(in crate::config::schema) static BASIC: Section = Section {
    name: "routes[].auth.basic",
    keys: &["realm", "users"],
    later: &[],
    elsewhere: &[
        ("file", "users"),
        ("htpasswd", "users"),
        ("auth_basic_user_file", "users"),
        ("user_file", "users"),
        ("name", "realm"),
    ],
};

pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<Basic> {
    let fields = decoder.fields(node, &BASIC)?;
    let realm = fields.get("realm").map_or_else(|| Some("Restricted".into()), |node| realm(decoder, node));
    let help = "name the file with the users: users: /etc/hostler/htpasswd. Make it with: htpasswd -c -B FILE NAME";
    let node = fields.required(decoder, "users", help)?;
    let path = decoder.path("users", node)?;
    let read = credentials::read(&path, "the users").and_then(|contents| Users::parse(&contents.bytes, &path));
    let users = decoder.fault(&node.span, read.map_err(Into::into))?;
    Some(Basic { realm: realm?, path, users: Arc::new(users) })
}
