//! `headers`: fields that a route adds or takes away, on the way to the app and on the way back.

use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Entry, Node, Value};
use crate::config::schema::field_name;
use crate::config::values::Fault;
use crate::config::{FieldRules, HeaderRules};

pub(in crate::config::schema) static HEADERS: Section = Section {
    name: "routes[].headers",
    keys: &["request", "response"],
    later: &[],
    elsewhere: &[("set", "response"), ("add_header", "response"), ("proxy_set_header", "request")],
};
pub(in crate::config::schema) static REQUEST: Section = Section {
    name: "routes[].headers.request",
    keys: &["set", "remove"],
    later: &[],
    elsewhere: &[("add", "set"), ("hide", "remove"), ("delete", "remove")],
};
pub(in crate::config::schema) static RESPONSE: Section = Section {
    name: "routes[].headers.response",
    keys: &["set", "remove", "security"],
    later: &[],
    elsewhere: &[("add", "set"), ("hide", "remove"), ("delete", "remove")],
};

/// What may be done with a field of this name; the name in lower case.
type Check = fn(&str) -> Result<String, Fault>;

pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> HeaderRules {
    let Some(fields) = decoder.fields(node, &HEADERS) else { return HeaderRules::default() };
    let mut rules = HeaderRules::default();
    if let Some(request) = fields.get("request").and_then(|node| decoder.fields(node, &REQUEST)) {
        rules.request = field_rules(decoder, &request, field_name::of_request_rule);
    }
    if let Some(response) = fields.get("response").and_then(|node| decoder.fields(node, &RESPONSE)) {
        rules.response = field_rules(decoder, &response, field_name::of_response_rule);
        rules.security = response.boolean(decoder, "security", false);
    }
    rules
}

fn field_rules(decoder: &mut Decoder<'_>, fields: &Fields<'_>, check: Check) -> FieldRules {
    FieldRules {
        set: fields.get("set").map_or_else(Vec::new, |node| set(decoder, node, check)),
        remove: fields.get("remove").map_or_else(Vec::new, |node| remove(decoder, node, check)),
    }
}

fn set(decoder: &mut Decoder<'_>, node: &Node, check: Check) -> Vec<(String, String)> {
    let entries = match &node.value {
        Value::Map(entries) if entries.is_empty() => return Vec::new(),
        _ => decoder.mapping("set", node, "set: { X-Frame-Options: DENY }").unwrap_or_default(),
    };
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(entries.len());
    for Entry { key, value } in entries {
        let name = decoder.fault(&key.span, check(&key.text));
        let text = decoder.scalar(&key.text, value, "a value");
        let text = text.and_then(|text| decoder.fault(&value.span, field_name::check_value(&text).map(|()| text)));
        let Some((name, text)) = name.zip(text) else { continue };
        if pairs.iter().any(|(known, _)| *known == name) {
            decoder
                .error(&key.span, format!("the header `{name}` stands here twice"))
                .help("case makes no difference: keep one of them");
        }
        pairs.push((name, text));
    }
    pairs
}

fn remove(decoder: &mut Decoder<'_>, node: &Node, check: Check) -> Vec<String> {
    let items = match &node.value {
        Value::List(items) if items.is_empty() => return Vec::new(),
        _ => decoder.list("remove", node).unwrap_or_default(),
    };
    let mut name = |item: &Node| {
        let text = decoder.scalar("remove", item, "the name of a header")?;
        decoder.fault(&item.span, check(&text))
    };
    items.iter().filter_map(&mut name).collect()
}
