//! `when`: what a request must have beside its path.

use crate::config::When;
use crate::config::decode::{Decoder, Section};
use crate::config::node::{Entry, Node};
use crate::config::report::quoted;
use crate::config::schema::field_name;
use crate::config::schema::key::is_token;
use crate::config::values::Fault;

pub(in crate::config::schema) static WHEN: Section = Section {
    name: "routes[].when",
    keys: &["methods", "headers", "query"],
    later: &[],
    elsewhere: &[("method", "methods"), ("header", "headers"), ("args", "query"), ("params", "query")],
};

/// The conditions; `None` when there are none, or when one cannot be read.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<When> {
    let fields = decoder.fields(node, &WHEN)?;
    let errors = decoder.error_count();
    let methods = fields.get("methods").map_or_else(Vec::new, |node| methods(decoder, node));
    let headers = fields.get("headers").map_or_else(Vec::new, |node| headers(decoder, node));
    let query = fields.get("query").map_or_else(Vec::new, |node| query(decoder, node));
    let when = When { methods, headers, query };
    if when == When::default() && decoder.error_count() == errors {
        decoder
            .error(&node.span, "`when` has no condition")
            .help("write when: { methods: [GET, HEAD] }, or take it out for any request");
    }
    Some(when)
}

fn methods(decoder: &mut Decoder<'_>, node: &Node) -> Vec<String> {
    let items = decoder.list("methods", node).unwrap_or_default();
    let mut method = |item: &Node| {
        let text = decoder.scalar("methods", item, "a method")?;
        decoder.fault(&item.span, check_method(&text))?;
        Some(text)
    };
    items.iter().filter_map(&mut method).collect()
}

/// Methods are told apart by case (RFC 9110, 9.1).
pub(super) fn check_method(text: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: String| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    if !is_token(text) {
        return fault("is not a method", "write methods such as [GET, HEAD, POST]".into());
    }
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        return fault("is not in upper case", format!("write {}", text.to_ascii_uppercase()));
    }
    if matches!(text, "CONNECT" | "TRACE") {
        return fault("never arrives: it is refused with 501", "take it out".into());
    }
    Ok(())
}

fn headers(decoder: &mut Decoder<'_>, node: &Node) -> Vec<(String, String)> {
    let entries = decoder.mapping("headers", node, "when: { headers: { x-beta: \"1\" } }").unwrap_or_default();
    let mut header = |entry: &Entry| {
        let name = decoder.fault(&entry.key.span, field_name::of_condition(&entry.key.text));
        let value = decoder.scalar(&entry.key.text, &entry.value, "a value")?;
        decoder.fault(&entry.value.span, field_name::check_value(&value))?;
        Some((name?, value))
    };
    entries.iter().filter_map(&mut header).collect()
}

fn query(decoder: &mut Decoder<'_>, node: &Node) -> Vec<(String, String)> {
    let entries = decoder.mapping("query", node, "when: { query: { v: \"2\" } }").unwrap_or_default();
    let mut pair = |entry: &Entry| {
        let value = decoder.scalar(&entry.key.text, &entry.value, "a value")?;
        Some((entry.key.text.clone(), value))
    };
    entries.iter().filter_map(&mut pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_a_token_in_upper_case_that_can_arrive() {
        for text in ["GET", "HEAD", "PROPFIND", "M-SEARCH"] {
            assert_eq!(check_method(text), Ok(()), "{text}");
        }
        for text in ["", "get", "Get", "CONNECT", "TRACE", "A B", "GET,HEAD", "É"] {
            assert!(check_method(text).is_err(), "{text}");
        }
    }
}
