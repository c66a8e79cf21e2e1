//! The cookies of a request: whether one of them stands for somebody, and which of them count in a variant.
//!
//! Servers read `Cookie` in several ways (Django splits at `;` and strips whatever Unicode calls a space, `http.cookies` knows
//! quotes and spaces as ends), so that one reading could not see what another does. Each question is therefore asked so that
//! doubt errs to the safe side:
//!
//! - [`Patterns::is_in`] finds a name wherever some reader might: behind any byte that is no part of a name, and before a `=`.
//! - [`counting`] leaves out an ignored cookie only if it is one for every reader: a plain name, and a value without space,
//!   quote, comma or anything else in which a second cookie could hide.

use http::header::{self, HeaderMap, HeaderValue};

use super::rules::Rules;

/// Names of cookies, and beginnings of names (`_ga_*`). Names are compared byte by byte, as servers do.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Box<[Pattern]>);

#[derive(Debug, Clone)]
struct Pattern {
    finder: memchr::memmem::Finder<'static>,
    /// It is all of a name.
    is_whole: bool,
}

impl Patterns {
    /// Of names; a `*` at the end stands for any end. What is empty, or `*` alone, is left out: it would be every cookie.
    #[must_use]
    pub fn new<S: AsRef<str>>(names: &[S]) -> Self {
        let pattern = |name: &S| {
            let name = name.as_ref();
            let text = name.strip_suffix('*').unwrap_or(name);
            let finder = memchr::memmem::Finder::new(text.as_bytes()).into_owned();
            (!text.is_empty()).then_some(Pattern { finder, is_whole: text.len() == name.len() })
        };
        Self(names.iter().filter_map(pattern).collect())
    }

    /// Whether a name is one of them.
    #[must_use]
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|pattern| {
            let text = pattern.finder.needle();
            if pattern.is_whole { name == text } else { name.starts_with(text) }
        })
    }

    /// Whether some reader of this line might see a cookie by one of these names.
    #[must_use]
    pub fn is_in(&self, line: &[u8]) -> bool {
        self.0.iter().any(|pattern| pattern.is_in(line))
    }
}

impl Pattern {
    fn is_in(&self, line: &[u8]) -> bool {
        let length = self.finder.needle().len();
        self.finder.find_iter(line).any(|at| {
            // Behind `=` it is a value: nobody sees a name there.
            let begins = at.checked_sub(1).is_none_or(|before| !is_of_name(line[before]) && line[before] != b'=');
            begins && self.ends(&line[at + length..])
        })
    }

    /// Whether a `=` follows the name, whatever spaces a reader takes away before it.
    fn ends(&self, mut rest: &[u8]) -> bool {
        if !self.is_whole {
            rest = &rest[rest.iter().position(|byte| !is_of_name(*byte)).unwrap_or(rest.len())..];
        }
        let mut gap = rest.iter().skip_while(|byte| !is_of_name(**byte) && !matches!(byte, b'=' | b';' | b','));
        gap.next() == Some(&b'=')
    }
}

/// `tchar` (RFC 9110, 5.6.2).
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What stands between semicolons, without the spaces about it, over all lines.
pub(crate) fn pieces(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::COOKIE).into_iter().map(HeaderValue::as_bytes);
    let pieces = lines.flat_map(|line| line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii));
    pieces.filter(|piece| !piece.is_empty())
}

/// The cookies that are not ignored, as written, in their order.
pub(super) fn counting<'a>(headers: &'a HeaderMap, rules: &Rules) -> impl Iterator<Item = &'a [u8]> {
    pieces(headers).filter(|piece| !is_ignored(piece, rules))
}

/// The name of a piece; all of it where there is no `=`.
pub(super) fn name_of(piece: &[u8]) -> &[u8] {
    piece[..memchr::memchr(b'=', piece).unwrap_or(piece.len())].trim_ascii_end()
}

fn is_ignored(piece: &[u8], rules: &Rules) -> bool {
    let Some(equals) = memchr::memchr(b'=', piece) else { return false };
    let (name, value) = (&piece[..equals], &piece[equals + 1..]);
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    // RFC 6265, 4.1.1.
    let is_plain = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x2B | 0x2D..=0x3A | 0x3C..=0x5B | 0x5D..=0x7E);
    rules.ignores(name) && name.iter().all(|byte| is_of_name(*byte)) && value.iter().all(is_plain)
}
