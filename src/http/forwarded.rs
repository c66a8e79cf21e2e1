//! What a proxy in front of us says of the request: `X-Forwarded-*`, `Forwarded` (RFC 7239), `X-Request-Start`. Pure.
//!
//! Whoever may be believed is the caller's to know: nothing here is read for a sender that is not trusted.
//!
//! | question | answer |
//! |---|---|
//! | who is the client? | the addresses of all lines of `X-Forwarded-For`, or of `Forwarded` when there is no such line, from the right to the left: the first that is not trusted. All trusted: the leftmost. |
//! | what if both are there? | they must name the same client, else neither is believed: a proxy writes one of them and may pass the other on |
//! | what if one cannot be read (`unknown`, `_hidden`, garbage)? | nobody left of it can be believed: the one right of it |
//! | http or https? | the last value of `X-Forwarded-Proto`, when it is exactly `http` or `https`; else `proto` of the last element of `Forwarded` |
//! | which port? | the last value of `X-Forwarded-Port`, when it is a number from 1 to 65535 |
//! | since when? | `X-Request-Start`: an optional `t=`, then seconds, milliseconds or microseconds since 1970; at most ten minutes ago, and one second ahead |
//!
//! A proxy appends. So everything is read from the right, byte by byte and quoted strings included: whatever a client has put
//! to the left, an open quote for one, changes nothing of what the last proxy has said. The host is always Host.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::fields;

/// Proxies one behind the other that are followed. Nobody has more.
const MAX_HOPS: usize = 64;
/// Bytes of an X-Request-Start.
const MAX_START: usize = 32;
/// How long a request may have been with the proxies in front of us, and how much their clocks may be ahead of ours.
const OLDEST_START: Duration = Duration::from_secs(600);
const CLOCK_SLACK: Duration = Duration::from_secs(1);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");

/// How a client speaks to the outermost proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// Exactly `http` or `https`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"http" => Some(Self::Http),
            b"https" => Some(Self::Https),
            _ => None,
        }
    }

    /// As URLs have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What a trusted sender says of a request, as far as it can be read. `None`: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claims {
    /// The address nearest to the client that somebody trusted vouches for.
    pub client: Option<IpAddr>,
    /// Whether `X-Forwarded-For` and `Forwarded` name different clients. Then `client` is `None`.
    pub is_contradictory: bool,
    /// How the client speaks.
    pub scheme: Option<Scheme>,
    /// The port that the client connected to.
    pub port: Option<u16>,
    /// Since 1970: when the first of the proxies had the request.
    pub started: Option<Duration>,
}

impl Claims {
    /// Reads the fields of a request whose sender is trusted. `is_trusted` tells who else is, `now` when the request came, since
    /// 1970.
    #[must_use]
    pub fn read(headers: &HeaderMap, now: Duration, is_trusted: impl Fn(IpAddr) -> bool) -> Self {
        let last = |name: &HeaderName| last_value(headers, name);
        let scheme = match last(&X_FORWARDED_PROTO) {
            Some(value) => Scheme::parse(value),
            None => forwarded(headers).next().and_then(|element| Scheme::parse(parameter(element, b"proto")?)),
        };
        let client = client(headers, is_trusted);
        let is_recent = |started: &Duration| *started <= now + CLOCK_SLACK && *started + OLDEST_START >= now;
        Self {
            client: client.unwrap_or_default(),
            is_contradictory: client.is_err(),
            scheme,
            port: last(&X_FORWARDED_PORT).and_then(port),
            started: last(&X_REQUEST_START).and_then(request_start).filter(is_recent),
        }
    }

    /// Whether a request has what a proxy says of who its client is, readable or not.
    #[must_use]
    pub fn name_client(headers: &HeaderMap) -> bool {
        [X_FORWARDED_FOR, header::FORWARDED].iter().any(|name| fields::has(headers, name))
    }

    /// Whether a request has what a proxy says of its client.
    #[must_use]
    pub fn are_made(headers: &HeaderMap) -> bool {
        [X_FORWARDED_FOR, X_FORWARDED_PROTO, header::FORWARDED].iter().any(|name| fields::has(headers, name))
    }
}

/// There are two fields that name different clients, or one of which names none.
#[derive(Debug, Clone, Copy)]
struct Contradiction;

/// The rightmost address that is not trusted, or the leftmost before one that is none.
fn client(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Result<Option<IpAddr>, Contradiction> {
    let by_x = headers.contains_key(X_FORWARDED_FOR);
    let by_standard = headers.contains_key(header::FORWARDED);
    let of_x = || farthest(from_the_right(headers, &X_FORWARDED_FOR).map(address), &is_trusted);
    let of_standard =
        || farthest(forwarded(headers).map(|element| parameter(element, b"for").and_then(address)), &is_trusted);
    match (by_x, by_standard) {
        (true, true) => {
            let client = of_x();
            if client == of_standard() { Ok(client) } else { Err(Contradiction) }
        }
        (true, false) => Ok(of_x()),
        (false, _) => Ok(of_standard()),
    }
}

fn farthest(hops: impl Iterator<Item = Option<IpAddr>>, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut found = None;
    for address in hops.take(MAX_HOPS).map_while(|hop| hop) {
        found = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    found
}

/// The elements of `Forwarded`, the last one first.
fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    from_the_right(headers, &header::FORWARDED)
}

/// The last element of a list over all lines.
fn last_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    from_the_right(headers, name).next()
}

/// The elements of a list over all lines, the last one first; empty ones are left out (RFC 9110, 5.6.1).
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).into_iter().rev().map(HeaderValue::as_bytes);
    lines.flat_map(|line| FromTheRight { line: Some(line) }).filter(|element| !element.is_empty())
}

/// Splits a line at the commas outside of quoted strings, which are told apart from the right: the last quote closes one, and
/// the next quote to its left that has an even number of backslashes before it opens it.
struct FromTheRight<'a> {
    line: Option<&'a [u8]>,
}

impl<'a> Iterator for FromTheRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.line.take()?;
        let comma = last_outside_quotes(line, b',');
        self.line = comma.map(|at| &line[..at]);
        Some(line[comma.map_or(0, |at| at + 1)..].trim_ascii())
    }
}

/// Where this byte stands last, outside of quoted strings.
fn last_outside_quotes(text: &[u8], wanted: u8) -> Option<usize> {
    let mut is_quoted = false;
    for (at, &byte) in text.iter().enumerate().rev() {
        match byte {
            b'"' if is_quoted => {
                let escapes = text[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                is_quoted = escapes % 2 == 1;
            }
            b'"' => is_quoted = true,
            _ if byte == wanted && !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The value of a parameter of one element of `Forwarded`, without its quotes; `None` when it is not there, is there twice, or
/// is escaped, which no address and no scheme needs.
fn parameter<'a>(element: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut found = None;
    let mut rest = Some(element);
    while let Some(text) = rest {
        let semicolon = last_outside_quotes(text, b';');
        rest = semicolon.map(|at| &text[..at]);
        let pair = text[semicolon.map_or(0, |at| at + 1)..].trim_ascii();
        let Some(equals) = memchr::memchr(b'=', pair) else { continue };
        if pair[..equals].eq_ignore_ascii_case(name) && found.replace(&pair[equals + 1..]).is_some() {
            return None;
        }
    }
    let value = found?;
    let is_plain = |value: &[u8]| !value.iter().any(|byte| matches!(byte, b'"' | b'\\'));
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    is_plain(value).then_some(value)
}

/// `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`, and the first and the last with a port (RFC 7239, 6).
fn address(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?;
    let address = if let Some(literal) = text.strip_prefix('[') {
        let (literal, rest) = literal.split_once(']')?;
        if !rest.is_empty() && !is_port(rest.strip_prefix(':')?) {
            return None;
        }
        IpAddr::V6(literal.parse::<Ipv6Addr>().ok()?)
    } else {
        match text.split_once(':') {
            // One colon ends an IPv4 address, several are within an IPv6 one.
            Some((host, port)) if !port.contains(':') => {
                if !is_port(port) {
                    return None;
                }
                IpAddr::V4(host.parse().ok()?)
            }
            _ => text.parse().ok()?,
        }
    };
    Some(address.to_canonical())
}

/// Digits, or a port that is hidden (RFC 7239, 6.3).
fn is_port(text: &str) -> bool {
    let is_hidden = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    match text.strip_prefix('_') {
        Some(rest) => is_hidden(rest),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()),
    }
}

fn port(value: &[u8]) -> Option<u16> {
    let is_number = (1..=5).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number)?;
    text.parse().ok().filter(|port| *port != 0)
}

/// The unit is told by the size, as those who read the field do: all of them agree from 2001 to 2286.
fn request_start(value: &[u8]) -> Option<Duration> {
    const BILLION: u64 = 1_000_000_000;
    if value.len() > MAX_START {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    let text = text.strip_prefix("t=").unwrap_or(text);
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || fraction.is_some_and(|fraction| !is_number(fraction) || fraction.len() > 9) {
        return None;
    }
    let number: u64 = whole.parse().ok()?;
    // How many of the unit make a second.
    let unit = [1, 1_000, 1_000_000].into_iter().find(|unit| (BILLION..10 * BILLION).contains(&(number / unit)))?;
    // Nine digits, whatever is not written being zeros.
    let digits = fraction.unwrap_or("").bytes().chain(std::iter::repeat(b'0')).take(9);
    let billionths = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let nanos = number % unit * (BILLION / unit) + billionths / unit;
    Some(Duration::from_secs(number / unit) + Duration::from_nanos(nanos))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
