//! Addresses as the operator writes them: where to listen, and where a worker listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// `bind`: where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `443`, `":443"`, `"[::]:443"`: every address, IPv4 and IPv6.
    Any(u16),
    /// One address and port. `localhost` is 127.0.0.1.
    Tcp(SocketAddr),
    /// `unix:/path`, absolute.
    Unix(PathBuf),
}

impl Bind {
    /// Reads `port`, `:port`, `host:port` (an address or `localhost`) or `unix:/path`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what an address looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "write a port (443), address:port (127.0.0.1:8080, \"[::1]:8080\") or unix:/path";
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(format!("the path after `unix:` is empty: {FORMS}"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if let Some(port) = parse_port(text.strip_prefix(':').unwrap_or(text)) {
            return Ok(Self::Any(port));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = parse_port(port).ok_or_else(|| format!("`{port}` is not a port: {FORMS}"))?;
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        match text.parse::<SocketAddr>() {
            Ok(SocketAddr::V6(all)) if all.ip().is_unspecified() => Ok(Self::Any(all.port())),
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() => {
                Err(format!("`{text}` is not a port: ports are 0 to 65535"))
            }
            Err(_) => Err(format!("`{text}` is not an address to listen on: {FORMS}")),
        }
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Any(_) => false,
            Self::Tcp(address) => super::is_loopback(address.ip()),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(port) => write!(f, "[::]:{port}"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where a worker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// `http://host:port`; the host is an address, or a name that is looked up when a connection is opened.
    Tcp {
        /// A name or an address literal without brackets.
        host: String,
        /// 1 to 65535. Default 80.
        port: u16,
    },
    /// `unix:/path`, absolute.
    Unix(PathBuf),
}

impl EndpointAddress {
    /// Reads `unix:/path` or `http://host[:port]`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what an endpoint looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "write unix:/run/gunicorn.sock or http://10.0.0.5:8000";
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(format!("the path after `unix:` is empty: {FORMS}"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let Some(authority) = text.strip_prefix("http://") else {
            return Err(format!("`{text}` is not an endpoint: {FORMS}"));
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(format!("`{text}` has more than a host and a port: {FORMS}"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| format!("`{authority}` has no valid port: {FORMS}"))?;
        let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(is_part) {
            return Err(format!("`{text}` has no valid host: {FORMS}"));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

/// Decimal digits and nothing else: the standard parser takes a plus sign as well.
fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` → host without brackets, port (80 when absent).
fn split_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    match port {
        None => Some((host, 80)),
        Some(port) => parse_port(port).filter(|port| *port != 0).map(|port| (host, port)),
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_means_every_address() {
        for text in ["443", ":443", "[::]:443"] {
            assert_eq!(Bind::parse(text), Ok(Bind::Any(443)), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms() {
        for text in
            ["", "99999", "localhost", "example.com:80", "127.0.0.1", "unix:", "::1:80x", "+80", ":-1", "localhost:+80"]
        {
            assert!(Bind::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn endpoints_are_unix_or_http() {
        let tcp = |host: &str, port| Ok(EndpointAddress::Tcp { host: host.into(), port });
        assert_eq!(EndpointAddress::parse("http://10.0.0.5:8000"), tcp("10.0.0.5", 8000));
        assert_eq!(EndpointAddress::parse("http://app/"), tcp("app", 80));
        assert_eq!(EndpointAddress::parse("http://[::1]:81"), tcp("::1", 81));
        assert_eq!(EndpointAddress::parse("unix:/a.sock"), Ok(EndpointAddress::Unix("/a.sock".into())));
        for text in [
            "10.0.0.5:8000",
            "http://",
            "http://a/b",
            "http://a:0",
            "http://u@a",
            "unix:",
            "http://::1:80",
            "http://a:+80",
            "http://a,b",
            "http://é",
        ] {
            assert!(EndpointAddress::parse(text).is_err(), "{text}");
        }
    }
}
