//! What an app says to caches in front of it alone: `CDN-Cache-Control` (RFC 9213) and `Surrogate-Control` (the W3C's Edge
//! Architecture Specification of 2001, as Fastly and Varnish have it).
//!
//! `CDN-Cache-Control` is a structured field (RFC 9651), a dictionary, and is read as strictly as those are: what breaks the
//! grammar anywhere, has a known directive with a value of another type, or is empty is ignored whole (RFC 9213, 2.1 and 2.2).
//! Of a name that stands there twice the last counts, as that grammar has it.
//!
//! Of `Surrogate-Control` `max-age`, whose second number (`max-age=60+30`) is how long it may be served stale, and `no-store`
//! are read. `content` is the capability of another kind of edge, `no-store-remote` is for those that are far from the app, and
//! what is aimed at one surrogate by its name (`;name`) is not ours.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::cache_control::{CacheControl, Flags, MAX_SECONDS, elements};

/// `CDN-Cache-Control`.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// `Surrogate-Control`.
pub const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// Bytes of a `CDN-Cache-Control`, over all lines, that are read; more than these are no valid field.
const MAX_LENGTH: usize = 4096;

/// What `CDN-Cache-Control` says. `None`: there is none that is valid and not empty.
#[must_use]
pub fn cdn(headers: &HeaderMap) -> Option<CacheControl> {
    let mut lines = headers.get_all(CDN_CACHE_CONTROL).iter().map(HeaderValue::as_bytes);
    let first = lines.next()?;
    let more: Vec<&[u8]> = lines.collect();
    if more.is_empty() {
        return dictionary(first);
    }
    let all: Vec<&[u8]> = std::iter::once(first).chain(more).collect();
    dictionary(&all.join(&b", "[..]))
}

/// Reads the value of such a field.
#[must_use]
pub fn dictionary(text: &[u8]) -> Option<CacheControl> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let mut reader = Reader { rest: text };
    reader.skip(b" ");
    let mut control = None;
    while !reader.rest.is_empty() {
        let (key, value) = reader.member()?;
        apply(control.get_or_insert_default(), key, &value)?;
        reader.skip(b" \t");
        match reader.rest {
            [] => break,
            [b',', after @ ..] => reader.rest = after,
            _ => return None,
        }
        reader.skip(b" \t");
        if reader.rest.is_empty() {
            return None; // a comma at the end
        }
    }
    control
}

/// `None`: the directive is known, and its value is of another type than it has.
fn apply(control: &mut CacheControl, key: &[u8], value: &Value<'_>) -> Option<()> {
    let flag = match key {
        b"no-store" => Flags::NO_STORE,
        b"public" => Flags::PUBLIC,
        b"must-revalidate" => Flags::MUST_REVALIDATE.and(Flags::MUST_REVALIDATE_PERMITS),
        b"proxy-revalidate" => Flags::PROXY_REVALIDATE,
        b"must-understand" => Flags::MUST_UNDERSTAND,
        b"no-transform" => Flags::NO_TRANSFORM,
        b"immutable" => Flags::IMMUTABLE,
        b"no-cache" => return about(&mut control.flags, Flags::NO_CACHE, &mut control.unshared, value),
        b"private" => return about(&mut control.flags, Flags::PRIVATE, &mut control.private, value),
        b"max-age" => return seconds(&mut control.max_age, value),
        b"s-maxage" => return seconds(&mut control.s_maxage, value),
        b"stale-while-revalidate" => return seconds(&mut control.stale_while_revalidate, value),
        b"stale-if-error" => return seconds(&mut control.stale_if_error, value),
        _ => return Some(()),
    };
    let Value::Boolean(is_there) = value else { return None };
    control.flags = control.flags.without(flag);
    if *is_there {
        control.flags = control.flags.and(flag);
    }
    Some(())
}

fn seconds(known: &mut Option<u32>, value: &Value<'_>) -> Option<()> {
    let Value::Integer(number) = value else { return None };
    // Less than nothing is nothing.
    *known = Some(u32::try_from((*number).max(0)).map_or(MAX_SECONDS, |seconds| seconds.min(MAX_SECONDS)));
    Some(())
}

fn about(flags: &mut Flags, whole: Flags, names: &mut Vec<HeaderName>, value: &Value<'_>) -> Option<()> {
    names.clear();
    *flags = flags.without(whole);
    match value {
        Value::Boolean(false) => {}
        Value::Text(text) => {
            // A quoted string of one directive is a list, as in Cache-Control.
            let quoted = ["no-cache=\"", text, "\""].concat();
            let read = CacheControl::parse(quoted.as_bytes());
            names.extend(read.unshared);
            if names.is_empty() {
                *flags = flags.and(whole);
            }
        }
        Value::Boolean(true) => *flags = flags.and(whole),
        Value::Integer(_) | Value::Other(_) => return None,
    }
    Some(())
}

/// What stands behind a key (RFC 9651, 3.3), as far as directives have it.
enum Value<'a> {
    Boolean(bool),
    Integer(i64),
    /// A string or a token.
    Text(&'a str),
    /// A decimal, a date, bytes, text with other letters, an inner list.
    Other(()),
}

/// The grammar of RFC 9651, 4.2, for dictionaries.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn skip(&mut self, bytes: &[u8]) {
        while let [first, after @ ..] = self.rest
            && bytes.contains(first)
        {
            self.rest = after;
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        let (first, after) = self.rest.split_first()?;
        self.rest = after;
        (*first == wanted).then_some(())
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| !fits(*byte)).unwrap_or(self.rest.len());
        let (taken, after) = self.rest.split_at(length);
        self.rest = after;
        taken
    }

    fn member(&mut self) -> Option<(&'a [u8], Value<'a>)> {
        let key = self.key()?;
        let mut value = Value::Boolean(true);
        if let [b'=', after @ ..] = self.rest {
            self.rest = after;
            value = if after.starts_with(b"(") { self.inner_list()? } else { self.bare_item()? };
        }
        self.parameters()?;
        Some((key, value))
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        matches!(self.rest.first()?, b'a'..=b'z' | b'*').then_some(())?;
        Some(self.take_while(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')))
    }

    /// They are read and mean nothing (RFC 9213, 2.1).
    fn parameters(&mut self) -> Option<()> {
        while let [b';', after @ ..] = self.rest {
            self.rest = after;
            self.skip(b" ");
            self.key()?;
            if let [b'=', after @ ..] = self.rest {
                self.rest = after;
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn inner_list(&mut self) -> Option<Value<'a>> {
        self.take(b'(')?;
        loop {
            self.skip(b" ");
            if let [b')', after @ ..] = self.rest {
                self.rest = after;
                return Some(Value::Other(()));
            }
            self.bare_item()?;
            self.parameters()?;
            matches!(self.rest.first()?, b' ' | b')').then_some(())?;
        }
    }

    fn bare_item(&mut self) -> Option<Value<'a>> {
        match self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'A'..=b'Z' | b'a'..=b'z' | b'*' => {
                let token =
                    self.take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                std::str::from_utf8(token).ok().map(Value::Text)
            }
            b'?' => {
                self.take(b'?')?;
                let (bit, after) = self.rest.split_first()?;
                self.rest = after;
                matches!(bit, b'0' | b'1').then_some(Value::Boolean(*bit == b'1'))
            }
            b':' => {
                self.take(b':')?;
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.take(b':')?;
                Some(Value::Other(()))
            }
            b'@' => {
                self.take(b'@')?;
                match self.number()? {
                    Value::Integer(_) => Some(Value::Other(())),
                    _ => None,
                }
            }
            b'%' => {
                self.take(b'%')?;
                self.take(b'"')?;
                self.take_while(|byte| matches!(byte, b' '..=b'~') && byte != b'"');
                self.take(b'"')?;
                Some(Value::Other(()))
            }
            _ => None,
        }
    }

    /// An integer of 15 digits, or a decimal of 12 and 3 (4.2.4).
    fn number(&mut self) -> Option<Value<'a>> {
        let is_negative = self.rest.first() == Some(&b'-');
        if is_negative {
            self.take(b'-')?;
        }
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        if digits.is_empty() || digits.len() > 15 {
            return None;
        }
        if let [b'.', after @ ..] = self.rest {
            self.rest = after;
            let fraction = self.take_while(|byte| byte.is_ascii_digit()).len();
            return (digits.len() <= 12 && (1..=3).contains(&fraction)).then_some(Value::Other(()));
        }
        let number = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        Some(Value::Integer(if is_negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Value<'a>> {
        self.take(b'"')?;
        let text = self.rest;
        let mut has_escapes = false;
        loop {
            let plain = self.take_while(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
            let _ = plain;
            match self.rest {
                [b'"', after @ ..] => {
                    let length = text.len() - self.rest.len();
                    self.rest = after;
                    // No name of a field has what is escaped.
                    let text = std::str::from_utf8(&text[..length]).ok()?;
                    return Some(Value::Text(if has_escapes { "" } else { text }));
                }
                [b'\\', b'"' | b'\\', after @ ..] => {
                    has_escapes = true;
                    self.rest = after;
                }
                _ => return None,
            }
        }
    }
}

/// What `Surrogate-Control` says. `None`: nothing that is read.
#[must_use]
pub fn surrogate(headers: &HeaderMap) -> Option<CacheControl> {
    let mut control: Option<CacheControl> = None;
    for element in headers.get_all(SURROGATE_CONTROL).iter().flat_map(|line| elements(line.as_bytes())) {
        if element.argument.is_some_and(|text| !element.is_quoted && text.contains(&b';')) {
            continue;
        }
        if element.name.eq_ignore_ascii_case(b"no-store") {
            let control = control.get_or_insert_default();
            control.flags = control.flags.and(Flags::NO_STORE);
        } else if element.name.eq_ignore_ascii_case(b"max-age") {
            let control = control.get_or_insert_default();
            let (fresh, stale) = fresh_and_stale(element.argument.unwrap_or_default());
            control.max_age = Some(control.max_age.map_or(fresh, |known| known.min(fresh)));
            let known = control.stale_while_revalidate;
            control.stale_while_revalidate = known.into_iter().chain(stale).min();
        }
    }
    control
}

/// `60` or `60+30`; what is neither is stale.
fn fresh_and_stale(text: &[u8]) -> (u32, Option<u32>) {
    let read = |digits: &[u8]| elements(&[b"a=", digits].concat()).next().and_then(|element| element.seconds());
    match memchr::memchr(b'+', text) {
        None => (read(text).unwrap_or(0), None),
        Some(at) => match (read(&text[..at]), read(&text[at + 1..])) {
            (Some(fresh), Some(stale)) => (fresh, Some(stale)),
            _ => (0, Some(0)),
        },
    }
}
