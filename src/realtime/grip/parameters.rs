//! Fields with parameters, as GRIP writes them: `value; name=value; name="quoted", value; …`.
//!
//! The Python libraries quote what stands in `Grip-Set-Meta` and nothing else, so that a quote begins only behind `=`, and a
//! link is whole between `<` and `>`.

use std::borrow::Cow;

/// One element of a list: its first token, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters<'a> {
    /// What stands before the first `;`, with its own value where it has one.
    pub first: (&'a str, Option<Cow<'a, str>>),
    /// The rest.
    pub rest: Vec<(&'a str, Option<Cow<'a, str>>)>,
}

impl Parameters<'_> {
    /// The value of the first parameter of this name, in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.rest.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value.as_deref().unwrap_or_default())
    }
}

/// The elements of one line. `is_list`: commas separate elements; else there is one.
#[must_use]
pub fn split(line: &str, is_list: bool) -> Vec<Parameters<'_>> {
    let commas = if is_list { pieces(line, b',') } else { vec![line] };
    let elements = commas.into_iter().filter_map(|element| {
        let mut parts = pieces(element, b';').into_iter();
        let first = pair(parts.next()?);
        let rest = parts.map(pair).filter(|(name, _)| !name.is_empty()).collect();
        Some(Parameters { first, rest })
    });
    elements.filter(|element| element.first != ("", None) || !element.rest.is_empty()).collect()
}

/// The parts between separators that stand neither in quotes nor in a link.
fn pieces(text: &str, separator: u8) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let (mut begin, mut at) = (0, 0);
    // Whether the last byte that is no space was `=`, or a separator.
    let (mut after_equals, mut at_start) = (false, true);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' if after_equals => at = end_of_quotes(bytes, at),
            b'<' if at_start => at += memchr::memchr(b'>', &bytes[at..]).unwrap_or(0),
            byte if *byte == separator => {
                pieces.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
        let last = bytes.get(at).copied().unwrap_or(b'"');
        if !matches!(last, b' ' | b'\t') {
            after_equals = last == b'=';
            at_start = matches!(last, b',' | b';');
        }
        at += 1;
    }
    pieces.push(&text[begin.min(text.len())..]);
    pieces
}

/// The place of the closing quote, or of the last byte.
fn end_of_quotes(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `name`, `name=value` or `name="value"`. What stands in a link has no name.
fn pair(text: &str) -> (&str, Option<Cow<'_, str>>) {
    let text = text.trim_matches([' ', '\t']);
    if text.starts_with('<') {
        return (text, None);
    }
    let Some((name, value)) = text.split_once('=') else { return (text, None) };
    let value = value.trim_matches([' ', '\t']);
    let value = match value.strip_prefix('"') {
        Some(quoted) => unquoted(quoted),
        None => Cow::Borrowed(value),
    };
    (name.trim_matches([' ', '\t']), Some(value))
}

/// To the closing quote, without the backslashes that keep a quote or a backslash from being one.
fn unquoted(text: &str) -> Cow<'_, str> {
    match text.find(['"', '\\']) {
        None => Cow::Borrowed(text),
        Some(at) if text.as_bytes()[at] == b'"' => Cow::Borrowed(&text[..at]),
        Some(_) => {
            let mut value = String::with_capacity(text.len());
            let mut symbols = text.chars();
            while let Some(symbol) = symbols.next() {
                match symbol {
                    '"' => break,
                    // django-grip escapes quotes alone: any other backslash is one.
                    '\\' => match symbols.clone().next() {
                        Some(escaped @ ('"' | '\\')) => {
                            symbols.next();
                            value.push(escaped);
                        }
                        _ => value.push('\\'),
                    },
                    symbol => value.push(symbol),
                }
            }
            Cow::Owned(value)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `first[=value] | name[=value] …` for each element.
    fn told(line: &str, is_list: bool) -> Vec<String> {
        let pair = |(name, value): &(&str, Option<Cow<'_, str>>)| match value {
            Some(value) => format!("{name}={value}"),
            None => (*name).to_owned(),
        };
        let element = |element: &Parameters<'_>| {
            let all = std::iter::once(&element.first).chain(&element.rest);
            all.map(pair).collect::<Vec<_>>().join(" | ")
        };
        split(line, is_list).iter().map(element).collect()
    }

    #[test]
    fn lists_are_split_as_the_libraries_write_them() {
        for (line, expected) in [
            ("room/1", &["room/1"][..]),
            ("a, b", &["a", "b"]),
            ("a;prev-id=3 ; filter=build-id;filter=x,b", &["a | prev-id=3 | filter=build-id | filter=x", "b"]),
            (
                "events-room%201; prev-id=1; filter=build-id; filter=skip-users, user-anonymous; filter=require-sub",
                &[
                    "events-room%201 | prev-id=1 | filter=build-id | filter=skip-users",
                    "user-anonymous | filter=require-sub",
                ],
            ),
            ("k=\"v, w; x\", k2 = \"a\\\"b\\\\c\\d\"", &["k=v, w; x", "k2=a\"b\\c\\d"]),
            (
                "id_format=\"room%%201:%(events-room%201)s\", user=\"anonymous\"",
                &["id_format=room%%201:%(events-room%201)s", "user=anonymous"],
            ),
            (
                "</ev/?a=1,2;b=\"x\"&es-meta=eyJ>; rel=next; timeout=5, </g>; rel=gone",
                &["</ev/?a=1,2;b=\"x\"&es-meta=eyJ> | rel=next | timeout=5", "</g> | rel=gone"],
            ),
            (" , ,", &[]),
            ("k=\"open, x", &["k=open, x"]),
            ("it's \"so\", b", &["it's \"so\"", "b"]),
            ("<open, b", &["<open", "b"]),
            ("k=", &["k="]),
        ] {
            assert_eq!(told(line, true), expected, "{line}");
        }
        assert_eq!(
            told("event: ka\\ndata:x, y\\n\\n; format=cstring; timeout=20", false),
            ["event: ka\\ndata:x, y\\n\\n | format=cstring | timeout=20"]
        );
    }

    proptest! {
        #[test]
        fn no_line_does_harm(line in "[-a-c=;,<>\" \\\\é]{0,60}") {
            for is_list in [true, false] {
                let elements = split(&line, is_list);
                let length: usize = elements.iter().map(|element| {
                    let all = std::iter::once(&element.first).chain(&element.rest);
                    all.map(|(name, value)| name.len() + value.as_deref().map_or(0, str::len)).sum::<usize>()
                }).sum();
                prop_assert!(length <= line.len());
            }
        }

        #[test]
        fn what_is_quoted_is_read_as_it_was(value in "[ -~é]{0,30}", name in "[a-z_]{1,8}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let line = format!("{name}=\"{quoted}\", other=\"x\"");
            let elements = split(&line, true);
            prop_assert_eq!(elements.len(), 2);
            prop_assert_eq!(elements[0].first.0, name.as_str());
            prop_assert_eq!(elements[0].first.1.as_deref(), Some(value.as_str()));
        }
    }
}
