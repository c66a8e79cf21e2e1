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
    /// `systemd:NAME`: every socket that systemd passes under this name (`FileDescriptorName=`).
    Systemd(String),
}

impl Bind {
    /// Reads `port`, `:port`, `host:port` (an address or `localhost`), `unix:/path` or `systemd:NAME`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what an address looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "write a port (443), address:port (127.0.0.1:8080, \"[::1]:8080\"), unix:/path or systemd:NAME";
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(format!("the path after `unix:` is empty: {FORMS}"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            // systemd.socket(5), FileDescriptorName=.
            let is_name = (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            return if is_name {
                Ok(Self::Systemd(name.to_owned()))
            } else {
                Err(format!(
                    "`{name}` is not the name of a systemd socket: write that of FileDescriptorName= in its unit"
                ))
            };
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

    /// Whether only this machine can connect; `None`: the socket that is passed has to be looked at.
    #[must_use]
    pub fn is_local(&self) -> Option<bool> {
        match self {
            Self::Any(_) => Some(false),
            Self::Tcp(address) => Some(super::is_loopback(address.ip())),
            Self::Unix(_) => Some(true),
            Self::Systemd(_) => None,
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(port) => write!(f, "[::]:{port}"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// Where a worker listens, and what is spoken there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    /// What is spoken.
    pub protocol: EndpointProtocol,
    /// Where.
    pub place: Place,
}

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointProtocol {
    /// `http://` and `unix:`: HTTP/1.1.
    Http,
    /// `https://`: HTTP/1.1 over TLS.
    Https,
    /// `uwsgi://` and `uwsgi+unix:`.
    Uwsgi,
    /// `h2c://`: HTTP/2 without TLS, by prior knowledge.
    H2c,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// The host is an address, or a name that is looked up.
    Tcp {
        /// A name or an address literal without brackets.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// A unix socket, absolute.
    Unix(PathBuf),
}

impl EndpointAddress {
    /// Reads `unix:/path`, `uwsgi+unix:/path`, `http://host[:80]`, `https://host[:443]`, `h2c://host[:80]` or
    /// `uwsgi://host:port`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what an endpoint looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "write unix:/run/gunicorn.sock, http://10.0.0.5:8000, https://api.internal, \
                             uwsgi+unix:/run/uwsgi.sock, uwsgi://10.0.0.6:3031 or h2c://10.0.0.7:8000";
        for (scheme, protocol) in [("unix:", EndpointProtocol::Http), ("uwsgi+unix:", EndpointProtocol::Uwsgi)] {
            match text.strip_prefix(scheme) {
                Some("") => return Err(format!("the path after `{scheme}` is empty: {FORMS}")),
                Some(path) => return Ok(Self { protocol, place: Place::Unix(PathBuf::from(path)) }),
                None => {}
            }
        }
        let scheme = Self::TCP_SCHEMES.iter().find_map(|scheme| Some((scheme, text.strip_prefix(scheme.0)?)));
        let Some(((_, protocol, default_port), authority)) = scheme else {
            return Err(format!("`{text}` is not an endpoint: {FORMS}"));
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(format!("`{text}` has more than a host and a port: {FORMS}"));
        }
        let no_port = || format!("`{authority}` has no valid port: {FORMS}");
        let (host, port) = split_port(authority).ok_or_else(no_port)?;
        let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(is_part) {
            return Err(format!("`{text}` has no valid host: {FORMS}"));
        }
        let port = port.or(*default_port).ok_or_else(no_port)?;
        Ok(Self { protocol: *protocol, place: Place::Tcp { host: host.to_owned(), port } })
    }

    /// Schemes over TCP, with the port of each where it has one.
    const TCP_SCHEMES: [(&'static str, EndpointProtocol, Option<u16>); 4] = [
        ("http://", EndpointProtocol::Http, Some(80)),
        ("https://", EndpointProtocol::Https, Some(443)),
        ("h2c://", EndpointProtocol::H2c, Some(80)),
        ("uwsgi://", EndpointProtocol::Uwsgi, None),
    ];
}

/// Decimal digits and nothing else: the standard parser takes a plus sign as well.
fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` → host without brackets, port where there is one.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
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
        None => Some((host, None)),
        Some(port) => parse_port(port).filter(|port| *port != 0).map(|port| (host, Some(port))),
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.protocol, &self.place) {
            (EndpointProtocol::Uwsgi, Place::Unix(_)) => "uwsgi+unix:",
            (_, Place::Unix(_)) => "unix:",
            (EndpointProtocol::Http, _) => "http://",
            (EndpointProtocol::Https, _) => "https://",
            (EndpointProtocol::H2c, _) => "h2c://",
            (EndpointProtocol::Uwsgi, _) => "uwsgi://",
        };
        match &self.place {
            Place::Tcp { host, port } if host.contains(':') => write!(f, "{scheme}[{host}]:{port}"),
            Place::Tcp { host, port } => write!(f, "{scheme}{host}:{port}"),
            Place::Unix(path) => write!(f, "{scheme}{}", path.display()),
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
    fn a_systemd_socket_goes_by_its_name() {
        assert_eq!(Bind::parse("systemd:https"), Ok(Bind::Systemd("https".into())));
        assert_eq!(Bind::Systemd("https".into()).to_string(), "systemd:https");
        let long = format!("systemd:{}", "a".repeat(256));
        for text in ["systemd:", "systemd:a:b", "systemd:a b", "systemd:é", &long] {
            assert!(Bind::parse(text).is_err(), "{text}");
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
    fn an_endpoint_says_what_is_spoken_and_where() {
        use EndpointProtocol::{H2c, Http, Https, Uwsgi};
        let tcp = |protocol, host: &str, port| {
            Ok(EndpointAddress { protocol, place: Place::Tcp { host: host.into(), port } })
        };
        let unix = |protocol, path: &str| Ok(EndpointAddress { protocol, place: Place::Unix(path.into()) });
        for (text, address) in [
            ("http://10.0.0.5:8000", tcp(Http, "10.0.0.5", 8000)),
            ("http://app/", tcp(Http, "app", 80)),
            ("http://[::1]:81", tcp(Http, "::1", 81)),
            ("https://api.internal", tcp(Https, "api.internal", 443)),
            ("h2c://app:8000", tcp(H2c, "app", 8000)),
            ("uwsgi://app:3031", tcp(Uwsgi, "app", 3031)),
            ("unix:/a.sock", unix(Http, "/a.sock")),
            ("uwsgi+unix:/a.sock", unix(Uwsgi, "/a.sock")),
        ] {
            let parsed = EndpointAddress::parse(text);
            assert_eq!(parsed, address, "{text}");
            assert_eq!(EndpointAddress::parse(&address.clone().unwrap().to_string()), address, "{text}");
        }
        for text in [
            "10.0.0.5:8000",
            "http://",
            "http://a/b",
            "http://a:0",
            "http://u@a",
            "unix:",
            "http://::1:80",
            "http://a:+80",
            "uwsgi://app",
            "uwsgi+unix:",
            "ftp://a",
            "http://a,b",
            "http://é",
        ] {
            assert!(EndpointAddress::parse(text).is_err(), "{text}");
        }
    }
}
