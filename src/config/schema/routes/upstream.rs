//! Names of upstreams, where a route refers to them.

use crate::config::decode::Decoder;
use crate::config::node::Node;
use crate::config::report::quoted;
use crate::config::schema::Given;
use crate::config::values::nearest;

/// The index of the upstream that `key` names.
pub(super) fn upstream_named(
    decoder: &mut Decoder<'_>,
    key: &'static str,
    node: &Node,
    given: &Given<'_>,
) -> Option<usize> {
    let name = decoder.scalar(key, node, "the name of an upstream")?;
    let upstreams = given.upstreams;
    if let Some(at) = upstreams.iter().position(|upstream| upstream.name == name) {
        return Some(at);
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
        finding.help(format!("`{key}` takes a name: write the address into `upstreams`, under `endpoints`"));
    } else if all.is_empty() {
        finding.help(format!("write upstreams: {{ {name}: {{ endpoints: [\"unix:/run/gunicorn.sock\"] }} }}"));
    } else {
        finding.help(format!("the upstreams of this file are {all}"));
    }
    None
}
