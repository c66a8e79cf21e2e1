//! YAML text → a tree in which every key and value knows where it stands in the file.
//!
//! The tree keeps what a plain `Deserialize` would lose: duplicate keys (both of them), the place of each node, and
//! numbers in the words of the operator (`1.2` stays `1.2`). Anchors and merge keys are already resolved.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A byte range of the file.
pub(super) type Span = Range<usize>;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) span: Span,
}

/// What stands there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`, unquoted.
    Bool(bool),
    /// An unquoted number, as written.
    Number(String),
    /// Any other scalar.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written, duplicates included.
    Map(Vec<Entry>),
}

/// One line of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) value: Node,
}

/// A key as text (`502` and `"502"` are the same), and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) span: Span,
}

impl Value {
    /// The word for messages: "found a list".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Why there is no tree.
#[derive(Debug)]
pub(super) enum Unread {
    /// A mapping key that is itself a list, a mapping or nothing stands here.
    Key(Span),
    /// The text is not YAML, or asks for too much.
    Yaml(Box<serde_saphyr::Error>),
}

/// Reads one document. `None`: the text holds none.
pub(super) fn parse(source: &str) -> Result<Option<Node>, Unread> {
    let raw: Option<Raw> =
        serde_saphyr::from_str_with_options(source, options()).map_err(|e| Unread::Yaml(Box::new(e)))?;
    raw.map(|raw| place(raw, source)).transpose()
}

/// Strict YAML 1.2, duplicates passed on, and a budget no real file comes near.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 400_000,
            max_nodes: 100_000,
            max_depth: 32,
            flow_nesting_limit: 32,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
        },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// A node as the deserializer hands it over: places are still those of the YAML library.
type Raw = Spanned<RawValue>;

enum RawValue {
    Null,
    Bool(bool),
    Number,
    Text(String),
    List(Vec<Raw>),
    Map(Vec<(Raw, Raw)>),
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
        Ok(RawValue::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<RawValue, E> {
        Ok(RawValue::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<RawValue, E> {
        Ok(RawValue::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<RawValue, E> {
        Ok(RawValue::Number)
    }

    fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
        Ok(RawValue::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<RawValue, E> {
        Ok(RawValue::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Map(entries))
    }
}

/// Gives a raw node its byte range, and numbers and keys their text.
fn place(raw: Raw, source: &str) -> Result<Node, Unread> {
    let mut span = span_of(&raw, source);
    let value = match raw.value {
        RawValue::Null => Value::Null,
        RawValue::Bool(value) => Value::Bool(value),
        RawValue::Number => Value::Number(source.get(span.clone()).unwrap_or_default().to_owned()),
        RawValue::Text(text) => Value::Text(text),
        RawValue::List(items) => {
            span = mark_of_list(span, source);
            Value::List(items.into_iter().map(|item| place(item, source)).collect::<Result<_, _>>()?)
        }
        RawValue::Map(entries) => {
            let entry = |(key, value)| Ok(Entry { key: place_key(key, source)?, value: place(value, source)? });
            let entries: Vec<Entry> = entries.into_iter().map(entry).collect::<Result<_, _>>()?;
            span = mark_of_map(span, &entries);
            Value::Map(entries)
        }
    };
    Ok(Node { value, span })
}

fn place_key(raw: Raw, source: &str) -> Result<Key, Unread> {
    let span = span_of(&raw, source);
    let written = || source.get(span.clone()).unwrap_or_default().to_owned();
    let text = match raw.value {
        RawValue::Text(text) => text,
        RawValue::Bool(_) | RawValue::Number => written(),
        RawValue::Null | RawValue::List(_) | RawValue::Map(_) => return Err(Unread::Key(span)),
    };
    Ok(Key { text, span })
}

/// The byte range of a node, cut to the file. A block mapping has no token of its own: see [`mark_of_map`].
fn span_of(raw: &Raw, source: &str) -> Span {
    let span = raw.defined.span();
    let byte = |offset: Option<u64>| usize::try_from(offset.unwrap_or(0)).unwrap_or(usize::MAX);
    let start = byte(span.byte_offset()).min(source.len());
    let end = start.saturating_add(byte(span.byte_len())).min(source.len());
    if source.is_char_boundary(start) && source.is_char_boundary(end) { start..end } else { 0..0 }
}

/// Where to point when a whole mapping is meant: its brace, or its first key.
fn mark_of_map(own: Span, entries: &[Entry]) -> Span {
    match entries.first() {
        Some(first) if own.is_empty() => first.key.span.clone(),
        _ => own,
    }
}

/// Where to point when a whole list is meant: its bracket, or its first dash.
fn mark_of_list(own: Span, source: &str) -> Span {
    if own.is_empty() && source[own.start..].starts_with('-') { own.start..own.start + 1 } else { own }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn map(source: &str) -> Vec<Entry> {
        match parse(source).unwrap().unwrap().value {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_of_two_equal_keys_arrive_with_their_places() {
        let source = "é: 1\na: 2\né: 3\n";
        let entries = map(source);
        let places: Vec<_> = entries.iter().map(|e| (e.key.text.as_str(), e.key.span.start)).collect();
        assert_eq!(places, [("é", 0), ("a", 6), ("é", 11)]);
        assert_eq!(&source[entries[2].value.span.clone()], "3");
    }

    #[test]
    fn numbers_keep_the_words_of_the_operator() {
        for text in ["1.20", "0x10", "1_000", "012", "-0"] {
            assert_eq!(map(&format!("v: {text}"))[0].value.value, Value::Number(text.into()));
        }
        assert_eq!(map("v: \"1.20\"")[0].value.value, Value::Text("1.20".into()));
        assert_eq!(map("502: x")[0].key.text, "502");
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        assert_eq!(map("v: true")[0].value.value, Value::Bool(true));
        for text in ["yes", "no", "on", "off", "y"] {
            assert_eq!(map(&format!("v: {text}"))[0].value.value, Value::Text(text.into()));
        }
    }

    #[test]
    fn anchors_and_merges_are_resolved() {
        let entries = map("a: &a { k: 1, l: 2 }\nb:\n  <<: *a\n  k: 3\n");
        let Value::Map(merged) = &entries[1].value.value else { panic!() };
        let mut pairs: Vec<_> = merged.iter().map(|e| (e.key.text.as_str(), &e.value.value)).collect();
        pairs.sort_by_key(|(key, _)| *key);
        assert_eq!(pairs, [("k", &Value::Number("3".into())), ("l", &Value::Number("2".into()))]);
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut source = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let inner = format!("*a{}", level - 1);
            source += &format!("a{level}: &a{level} [{}]\n", [inner.as_str(); 9].join(", "));
        }
        assert!(parse(&source).is_err());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let source = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(parse(&source).is_err());
    }
}
