//! `Cache-Control` as a response has it (RFC 9111, 5.2), and the elements of such lists, which requests have too.
//!
//! Lines are read one by one, so that a quote that is never closed in one of them hides nothing in the next.
//!
//! | in the list | becomes |
//! |---|---|
//! | a directive in any case, its argument bare or quoted (5.2) | the same |
//! | the same directive twice | the most restrictive of both: the shortest time, every prohibition |
//! | seconds that are no digits, or a space about `=` | 0: stale (4.2.1) |
//! | seconds of 2^31 and more | 2^31 (1.2.2) |
//! | `public=…`, `immutable=…`: a permission with an argument that it does not have | no permission |
//! | `no-store=…`, `must-revalidate=…`: a prohibition with such an argument | the prohibition |
//! | `no-cache="…"`, `private="…"` with nothing, with what is no name, or with more than [`MAX_NAMES`] names | the whole response |
//! | a quote that is not closed | ends at the next comma, and is no argument |
//! | what is neither a token nor one with an argument (`private; max-age=5`) | the prohibitions among its words, and [`Flags::MALFORMED`] |
//! | whatever else | ignored (5.2.3) |

use std::fmt;

use http::header::{HeaderName, HeaderValue};

/// The most seconds that there are (RFC 9111, 1.2.2): 2^31.
pub const MAX_SECONDS: u32 = 1 << 31;

/// Names that one `no-cache="…"` or `private="…"` may have; with more it is about the whole response.
pub const MAX_NAMES: usize = 16;

/// Bytes of the longest directive that is known, `stale-while-revalidate`, and some to spare.
const LONGEST: usize = 24;

/// Directives that are there or not.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// `no-store` (5.2.2.5).
    pub const NO_STORE: Self = Self(1);
    /// `no-cache` without names (5.2.2.4).
    pub const NO_CACHE: Self = Self(1 << 1);
    /// `private` without names (5.2.2.7).
    pub const PRIVATE: Self = Self(1 << 2);
    /// `public` (5.2.2.9).
    pub const PUBLIC: Self = Self(1 << 3);
    /// `must-revalidate` (5.2.2.2).
    pub const MUST_REVALIDATE: Self = Self(1 << 4);
    /// The same, written as it should be: it lets a shared cache store what credentials were sent for (3.5).
    pub const MUST_REVALIDATE_PERMITS: Self = Self(1 << 5);
    /// `proxy-revalidate` (5.2.2.8).
    pub const PROXY_REVALIDATE: Self = Self(1 << 6);
    /// `must-understand` (5.2.2.3).
    pub const MUST_UNDERSTAND: Self = Self(1 << 7);
    /// `no-transform` (5.2.2.6).
    pub const NO_TRANSFORM: Self = Self(1 << 8);
    /// `immutable` (RFC 8246).
    pub const IMMUTABLE: Self = Self(1 << 9);
    /// There is an element that is no directive: nobody knows what else was meant, and nothing is taken for granted.
    pub const MALFORMED: Self = Self(1 << 10);

    /// Whether one of these is there.
    #[must_use]
    pub const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    /// All of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without these.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMED.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| name);
        f.debug_set().entries(named).finish()
    }
}

const NAMED: [(Flags, &str); 10] = [
    (Flags::NO_STORE, "no-store"),
    (Flags::NO_CACHE, "no-cache"),
    (Flags::PRIVATE, "private"),
    (Flags::PUBLIC, "public"),
    (Flags::MUST_REVALIDATE, "must-revalidate"),
    (Flags::PROXY_REVALIDATE, "proxy-revalidate"),
    (Flags::MUST_UNDERSTAND, "must-understand"),
    (Flags::NO_TRANSFORM, "no-transform"),
    (Flags::IMMUTABLE, "immutable"),
    // As one that is read as such.
    (Flags::MALFORMED, ";"),
];

/// What a response says of being cached. Times are in seconds, at most [`MAX_SECONDS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// What has no argument.
    pub flags: Flags,
    /// `max-age` (5.2.2.1).
    pub max_age: Option<u32>,
    /// `s-maxage` (5.2.2.10).
    pub s_maxage: Option<u32>,
    /// `stale-while-revalidate` (RFC 5861, 3).
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error` (RFC 5861, 4).
    pub stale_if_error: Option<u32>,
    /// `no-cache="…"`: fields that only the client for which the app has answered may have.
    pub unshared: Vec<HeaderName>,
    /// `private="…"`: the same.
    pub private: Vec<HeaderName>,
}

impl CacheControl {
    /// Of all lines of a `Cache-Control` field.
    #[must_use]
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut control = Self::default();
        for line in lines {
            control.read(line.as_bytes());
        }
        control
    }

    /// Of one line.
    #[must_use]
    pub fn parse(line: &[u8]) -> Self {
        let mut control = Self::default();
        control.read(line);
        control
    }

    fn read(&mut self, line: &[u8]) {
        for element in elements(line) {
            self.add(&element);
        }
    }

    fn add(&mut self, element: &Element<'_>) {
        if element.is_malformed() {
            self.flags.add(Flags::MALFORMED);
            element.words().for_each(|word| self.flags.add(prohibition(word)));
        }
        let mut lower = [0; LONGEST];
        let is_bare = element.argument.is_none();
        match element.directive(&mut lower) {
            b"no-store" => self.flags.add(Flags::NO_STORE),
            b"no-cache" => Self::about(&mut self.flags, Flags::NO_CACHE, &mut self.unshared, element),
            b"private" => Self::about(&mut self.flags, Flags::PRIVATE, &mut self.private, element),
            b"public" if is_bare => self.flags.add(Flags::PUBLIC),
            b"must-revalidate" if is_bare => {
                self.flags.add(Flags::MUST_REVALIDATE.and(Flags::MUST_REVALIDATE_PERMITS));
            }
            b"must-revalidate" => self.flags.add(Flags::MUST_REVALIDATE),
            b"proxy-revalidate" => self.flags.add(Flags::PROXY_REVALIDATE),
            // It sets no-store aside, and so is a permission, too.
            b"must-understand" if is_bare => self.flags.add(Flags::MUST_UNDERSTAND),
            b"no-transform" => self.flags.add(Flags::NO_TRANSFORM),
            b"immutable" if is_bare => self.flags.add(Flags::IMMUTABLE),
            b"max-age" => shorten(&mut self.max_age, element),
            b"s-maxage" => shorten(&mut self.s_maxage, element),
            b"stale-while-revalidate" => shorten(&mut self.stale_while_revalidate, element),
            b"stale-if-error" => shorten(&mut self.stale_if_error, element),
            _ => {}
        }
    }

    /// A directive that is about the fields that it names, or about everything.
    fn about(flags: &mut Flags, whole: Flags, names: &mut Vec<HeaderName>, element: &Element<'_>) {
        match element.names() {
            Some(more) if names.len() + more.len() <= MAX_NAMES => names.extend(more),
            _ => flags.add(whole),
        }
    }

    /// Whether a field is for the first client alone.
    #[must_use]
    pub fn keeps_back(&self, name: &HeaderName) -> bool {
        self.unshared.contains(name) || self.private.contains(name)
    }
}

/// What a word forbids, wherever it stands.
fn prohibition(word: &[u8]) -> Flags {
    match word {
        word if word.eq_ignore_ascii_case(b"no-store") => Flags::NO_STORE,
        word if word.eq_ignore_ascii_case(b"no-cache") => Flags::NO_CACHE,
        word if word.eq_ignore_ascii_case(b"private") => Flags::PRIVATE,
        _ => Flags::default(),
    }
}

/// `tchar` (RFC 9110, 5.6.2).
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn shorten(known: &mut Option<u32>, element: &Element<'_>) {
    let seconds = element.seconds().unwrap_or(0);
    *known = Some(known.map_or(seconds, |known| known.min(seconds)));
}

impl fmt::Display for CacheControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (flag, name) in NAMED {
            if self.flags.has(flag) {
                let is_malformed = flag == Flags::MUST_REVALIDATE && !self.flags.has(Flags::MUST_REVALIDATE_PERMITS);
                write!(f, "{comma}{name}{}", if is_malformed { "=0" } else { "" })?;
                comma = ", ";
            }
        }
        for (name, seconds) in [
            ("max-age", self.max_age),
            ("s-maxage", self.s_maxage),
            ("stale-while-revalidate", self.stale_while_revalidate),
            ("stale-if-error", self.stale_if_error),
        ] {
            if let Some(seconds) = seconds {
                write!(f, "{comma}{name}={seconds}")?;
                comma = ", ";
            }
        }
        for (name, fields) in [("no-cache", &self.unshared), ("private", &self.private)] {
            if !fields.is_empty() {
                let fields: Vec<&str> = fields.iter().map(HeaderName::as_str).collect();
                write!(f, "{comma}{name}=\"{}\"", fields.join(", "))?;
                comma = ", ";
            }
        }
        Ok(())
    }
}

/// One element of a list: `name`, `name=token` or `name="quoted"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    /// As written, without the spaces about it.
    pub(super) name: &'a [u8],
    /// What stands behind `=`, without its quotes, with its backslashes.
    pub(super) argument: Option<&'a [u8]>,
    pub(super) is_quoted: bool,
    /// Without spaces about `=`, and with nothing behind the closing quote.
    is_clean: bool,
    /// What stands behind the closing quote.
    junk: &'a [u8],
}

impl Element<'_> {
    /// The name in lower case; empty when it is longer than any that is known.
    pub(super) fn directive<'b>(&self, lower: &'b mut [u8; LONGEST]) -> &'b [u8] {
        let Some(lower) = lower.get_mut(..self.name.len()) else { return b"" };
        lower.copy_from_slice(self.name);
        lower.make_ascii_lowercase();
        lower
    }

    /// Whether it is neither `token`, `token=token` nor `token="quoted"`, spaces about the `=` aside.
    fn is_malformed(&self) -> bool {
        let is_token = |text: &[u8]| !text.is_empty() && text.iter().all(|byte| is_of_token(*byte));
        // `max-age=` is a directive whose argument cannot be read.
        let is_bad = |text: &[u8]| !self.is_quoted && !text.is_empty() && !is_token(text);
        !is_token(self.name) || self.argument.is_some_and(is_bad) || !self.junk.is_empty()
    }

    /// The words outside its quotes.
    fn words(&self) -> impl Iterator<Item = &[u8]> {
        let argument = self.argument.filter(|_| !self.is_quoted).unwrap_or_default();
        let texts = [self.name, argument, self.junk].into_iter();
        texts.flat_map(|text| text.split(|byte| !is_of_token(*byte)))
    }

    /// The argument without backslashes that are none of its own.
    fn text(&self) -> impl Iterator<Item = u8> {
        let mut bytes = self.argument.unwrap_or_default().iter().copied();
        let is_quoted = self.is_quoted;
        std::iter::from_fn(move || match bytes.next()? {
            b'\\' if is_quoted => bytes.next(),
            byte => Some(byte),
        })
    }

    /// The argument as delta-seconds (1.2.2), at most [`MAX_SECONDS`]. `None`: it is none.
    pub(super) fn seconds(&self) -> Option<u32> {
        let mut text = self.text().peekable();
        if !self.is_clean || text.peek().is_none() {
            return None;
        }
        text.try_fold(0, |sum: u32, byte| {
            let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
            Some(sum.saturating_mul(10).saturating_add(digit).min(MAX_SECONDS))
        })
    }

    /// The argument as names of fields. `None`: there is none, or one of them is no name.
    fn names(&self) -> Option<Vec<HeaderName>> {
        if !self.is_clean {
            return None;
        }
        let text: Vec<u8> = self.text().collect();
        let mut names = Vec::new();
        for name in text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) {
            if names.len() == MAX_NAMES {
                return None;
            }
            names.push(HeaderName::from_bytes(name).ok()?);
        }
        (!names.is_empty()).then_some(names)
    }
}

/// The elements of one line.
pub(super) fn elements(line: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        while let [b',' | b' ' | b'\t', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return None;
        }
        let (element, after) = first_of(rest);
        rest = after;
        Some(element)
    })
}

/// The element at the beginning, and what follows its comma.
fn first_of(text: &[u8]) -> (Element<'_>, &[u8]) {
    let end = |from: &[u8]| memchr::memchr(b',', from).unwrap_or(from.len());
    let name_end = memchr::memchr2(b'=', b',', text).unwrap_or(text.len());
    let name = text[..name_end].trim_ascii_end();
    let is_close = name.len() == name_end;
    let Some([b'=', argument @ ..]) = text.get(name_end..) else {
        let element = Element { name, argument: None, is_quoted: false, is_clean: true, junk: b"" };
        return (element, &text[name_end..]);
    };
    if let [b'"', quoted @ ..] = argument
        && let Some(length) = quoted_length(quoted)
    {
        let behind = &quoted[length + 1..];
        let (junk, after) = behind.split_at(end(behind));
        let junk = junk.trim_ascii();
        let is_clean = is_close && junk.is_empty();
        return (Element { name, argument: Some(&quoted[..length]), is_quoted: true, is_clean, junk }, after);
    }
    let (argument, after) = argument.split_at(end(argument));
    let is_clean = is_close && !argument.starts_with(b" ") && !argument.starts_with(b"\t");
    (Element { name, argument: Some(argument.trim_ascii()), is_quoted: false, is_clean, junk: b"" }, after)
}

/// How many bytes stand before the closing quote. `None`: there is none.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}
