//! Where a route says what only a look at other routes, or at its site, can call wrong.

use crate::config::Route;
use crate::config::decode::Fields;
use crate::config::node::{Node, Span, Value};
use crate::config::schema::sites::RoutePlaces;

/// The places of a route that has been read.
pub(super) fn of(route: &Route, fields: &Fields<'_>) -> RoutePlaces {
    let place = |key: &'static str, name: &str| {
        let entry = fields.entry(key)?;
        let at = find(&entry.value, name).unwrap_or(&entry.key.span);
        Some((name.to_owned(), at.clone()))
    };
    let when = route.when.iter().flat_map(|when| &when.headers);
    RoutePlaces {
        redirect_to: fields.get("redirect").and_then(|node| value_of(node, "to")).map(|to| to.span.clone()),
        // What is not written is a default of the key.
        of_the_edge: route.identity_names().filter_map(|name| place("auth", name)).collect(),
        set: route.headers.request.set.iter().filter_map(|(name, _)| place("headers", name)).collect(),
        websocket: fields.entry("websocket").map(|entry| entry.key.span.clone()),
        cache_by: fields.get("cache").and_then(|node| value_of(node, "by")).map(|by| by.span.clone()),
        cache: fields.entry("cache").map(|entry| entry.key.span.clone()),
        asked: when.filter_map(|(name, _)| place("when", name)).collect(),
    }
}

fn value_of<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key.text == key).map(|entry| &entry.value)
}

/// The first place where this name stands, as a key or as a value.
fn find<'n>(node: &'n Node, name: &str) -> Option<&'n Span> {
    match &node.value {
        Value::Text(text) => text.eq_ignore_ascii_case(name).then_some(&node.span),
        Value::List(items) => items.iter().find_map(|item| find(item, name)),
        Value::Map(entries) => entries.iter().find_map(|entry| {
            let is_key = entry.key.text.eq_ignore_ascii_case(name);
            if is_key { Some(&entry.key.span) } else { find(&entry.value, name) }
        }),
        _ => None,
    }
}
