//! Content that is made for one client: `build-id` and `var-subst`.
//!
//! | in the content | becomes |
//! |---|---|
//! | `%I` | the client's id, as its `id_format` says it |
//! | `%(text)I` | the text; in hex, where ids are |
//! | `%(name)s` | the client's metadata of that name |
//! | `%%` | `%` |
//!
//! In `id_format`, `%(channel)s` is the id at which the client is on that channel. What is nothing of this is left as it is:
//! django-eventstream, for one, puts percent-encoded names into bodies that are rendered.

use super::filter::value;
use super::item::Meta;
use super::{Filter, Filters};

/// How an id is written into content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdEncoding {
    /// As it is.
    Plain,
    /// `id_encoding="hex"`.
    Hex,
}

/// The content for a client with these filters and this metadata. `position` is the id at which it is on a channel.
#[must_use]
pub fn render<'a>(
    content: &[u8],
    filters: Filters,
    meta: &Meta,
    position: impl Fn(&str) -> Option<&'a str>,
) -> Vec<u8> {
    let id = built_id(filters, meta, position);
    render_with(content, filters, meta, id.as_deref())
}

/// The id that `%I` becomes for a client, before it is encoded.
pub(super) fn built_id<'a>(
    filters: Filters,
    meta: &Meta,
    position: impl Fn(&str) -> Option<&'a str>,
) -> Option<Vec<u8>> {
    value(meta, "id_format").filter(|_| filters.has(Filter::BuildId)).map(|format| id(format, position))
}

/// The same as [`render`] with an id that has been built before.
pub(super) fn render_with(content: &[u8], filters: Filters, meta: &Meta, id: Option<&[u8]>) -> Vec<u8> {
    let encoding = match value(meta, "id_encoding") {
        Some("hex") => IdEncoding::Hex,
        _ => IdEncoding::Plain,
    };
    let written = |id: &[u8]| match encoding {
        IdEncoding::Plain => id.to_vec(),
        IdEncoding::Hex => id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect(),
    };
    process(content, |directive, argument| match directive {
        b'I' if filters.has(Filter::BuildId) => match argument {
            Some(text) => Some(written(text)),
            None => id.map(written),
        },
        b's' if filters.has(Filter::VarSubst) => {
            let name = std::str::from_utf8(argument?).ok()?;
            value(meta, name).map(|value| value.as_bytes().to_vec())
        }
        _ => None,
    })
}

/// What `id_format` says.
fn id<'a>(format: &str, position: impl Fn(&str) -> Option<&'a str>) -> Vec<u8> {
    process(format.as_bytes(), |directive, argument| {
        let channel = std::str::from_utf8(argument?).ok()?;
        (directive == b's').then(|| position(channel).unwrap_or_default().as_bytes().to_vec())
    })
}

/// Replaces directives. `replace` has the letter and, where there is one, what stands in the brackets; `None`: it stays.
fn process(format: &[u8], replace: impl Fn(u8, Option<&[u8]>) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(format.len() + 32);
    let mut rest = format;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let after = &rest[at + 1..];
        let (replaced, length) = match after.first() {
            Some(b'%') => (Some(vec![b'%']), 1),
            Some(b'(') => match argument(&after[1..]) {
                Some((argument, length)) => match after.get(1 + length) {
                    Some(directive) => (replace(*directive, Some(&argument)), length + 2),
                    None => (None, 0),
                },
                None => (None, 0),
            },
            Some(directive) => (replace(*directive, None), 1),
            None => (None, 0),
        };
        match replaced {
            Some(replaced) => {
                out.extend_from_slice(&replaced);
                rest = &after[length..];
            }
            None => {
                out.push(b'%');
                rest = after;
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

/// What stands before `)`, with `\` before what would end it, and how many bytes that takes, the bracket included.
fn argument(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut argument = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b')' => return Some((argument, at + 1)),
            b'\\' => argument.push(*bytes.next()?.1),
            byte => argument.push(*byte),
        }
    }
    None
}

fn digit(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value & 15)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meta(pairs: &[(&str, &str)]) -> Meta {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn rendered(content: &str, filters: &[&str], pairs: &[(&str, &str)]) -> String {
        let position = |channel: &str| match channel {
            "a" => Some("1"),
            "events-room%201" => Some("7"),
            "a)b" => Some("2"),
            _ => None,
        };
        let filters = Filters::named(filters.iter().copied());
        String::from_utf8(render(content.as_bytes(), filters, &meta(pairs), position)).unwrap()
    }

    #[test]
    fn an_id_is_built_as_the_client_has_it() {
        let eventstream = [("id_format", "room%%201:%(events-room%201)s")];
        for (content, pairs, expected) in [
            ("id: %I\ndata: 100%%\n", &eventstream[..], "id: room%201:7\ndata: 100%\n"),
            ("id: room%201:1\n%I", &eventstream, "id: room%201:1\nroom%201:7"),
            ("%I", &[("id_format", "%(a)s,%(none)s,%(a\\)b)s")], "1,,2"),
            ("%I %(x)I", &[("id_format", "%(a)s"), ("id_encoding", "hex")], "31 78"),
            ("%(x)I", &[], "x"),
            ("%I", &[], "%I"),
        ] {
            assert_eq!(rendered(content, &["build-id"], pairs), expected, "{content}");
        }
    }

    #[test]
    fn variables_are_put_in_and_what_is_none_stays() {
        let pairs = [("user", "ann")];
        for (content, expected) in [
            ("hello %(user)s!", "hello ann!"),
            ("%(nobody)s %s %(user %(user)", "%(nobody)s %s %(user %(user)"),
            ("50% of %%", "50% of %"),
            ("%", "%"),
            ("%(", "%("),
            ("%(user\\", "%(user\\"),
            ("%I", "%I"),
        ] {
            assert_eq!(rendered(content, &["var-subst"], &pairs), expected, "{content}");
        }
    }

    proptest! {
        #[test]
        fn no_content_does_harm(content in "[%()Is\\\\a-c ]{0,60}", format in "[%()s\\\\a-c ]{0,40}") {
            let all = Filters::named(["build-id", "var-subst"]);
            let pairs = meta(&[("id_format", &format), ("a", "%I")]);
            let out = render(content.as_bytes(), all, &pairs, |_| Some("x"));
            // Nothing is rendered twice, so that it cannot grow without bound.
            prop_assert!(out.len() <= content.len() * (format.len() + 4));
        }

        #[test]
        fn content_without_a_percent_sign_stays(content in "[^%]{0,60}") {
            let all = Filters::named(["build-id", "var-subst"]);
            let pairs = meta(&[("id_format", "x")]);
            prop_assert_eq!(render(content.as_bytes(), all, &pairs, |_| None), content.as_bytes());
        }
    }
}
