//! The host of a request: RFC 9110, 7.2 and RFC 3986, 3.2.2, narrowed to what names a site.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use bytes::Bytes;

use crate::error::Reason;

/// A valid Host: the text as received, and the part that names a site.
#[derive(Debug, Clone)]
pub struct Host {
    raw: Bytes,
    name_len: usize,
    port: Option<u16>,
}

/// The longest name in the DNS, with its brackets or trailing dot to spare.
const MAX: usize = 262;

impl Host {
    /// Reads `name`, `name:port`, `1.2.3.4:port` or `[v6]:port`.
    ///
    /// # Errors
    /// [`Reason::BadHost`] when it is none of them.
    pub fn parse(raw: Bytes) -> Result<Self, Reason> {
        if raw.is_empty() || raw.len() > MAX {
            return Err(Reason::BadHost);
        }
        let name_len = if raw[0] == b'[' {
            let end = memchr::memchr(b']', &raw).ok_or(Reason::BadHost)?;
            let literal = std::str::from_utf8(&raw[1..end]).map_err(|_| Reason::BadHost)?;
            literal.parse::<Ipv6Addr>().map_err(|_| Reason::BadHost)?;
            end + 1
        } else {
            let end = memchr::memchr(b':', &raw).unwrap_or(raw.len());
            let name = &raw[..end];
            if !is_name(name) {
                return Err(Reason::BadHost);
            }
            end
        };
        let port = match &raw[name_len..] {
            [] | [b':'] => None,
            [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
                let text = std::str::from_utf8(digits).map_err(|_| Reason::BadHost)?;
                Some(text.parse().map_err(|_| Reason::BadHost)?)
            }
            _ => return Err(Reason::BadHost),
        };
        Ok(Self { raw, name_len, port })
    }

    /// As received, port included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.raw).unwrap_or("")
    }

    /// The same, as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// Without port and without one trailing dot, in the case received.
    #[must_use]
    pub fn name(&self) -> &str {
        let name = &self.as_str()[..self.name_len];
        name.strip_suffix('.').unwrap_or(name)
    }

    /// The form in which hosts are compared: the name in lower case, an IPv6 literal by its value. As it is, for most.
    #[must_use]
    pub fn compared(&self) -> Cow<'_, str> {
        let name = self.name();
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match literal.and_then(|literal| literal.parse::<Ipv6Addr>().ok()) {
            Some(address) => Cow::Owned(format!("[{address}]")),
            None if name.bytes().any(|b| b.is_ascii_uppercase()) => Cow::Owned(name.to_ascii_lowercase()),
            None => Cow::Borrowed(name),
        }
    }

    /// The port, when it was written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

/// Letters, digits, `-`, `_` and dots, no empty label but one after a trailing dot.
fn is_name(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    !name.is_empty()
        && name.split(|b| *b == b'.').all(|label| {
            !label.is_empty() && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Host, Reason> {
        Host::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn name_and_port_come_apart() {
        for (text, name, port) in [
            ("shop.example", "shop.example", None),
            ("Shop.Example.:8443", "Shop.Example", Some(8443)),
            ("[::1]:80", "[::1]", Some(80)),
            ("127.0.0.1", "127.0.0.1", None),
            ("a_b", "a_b", None),
            ("localhost:", "localhost", None),
        ] {
            let host = parse(text).unwrap();
            assert_eq!((host.name(), host.port(), host.as_str()), (name, port, text));
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "", ".", "a..b", "a b", "a/b", "a@b", "[::1", "[x]", "[::1]x", "a:b", "a:99999", "a:1:2", "é", "a\0", ":80",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
