//! The PROXY protocol, versions 1 and 2, as a sender: who the client is, said before the first byte of the request, so
//! that a server that takes it has the client's address for its peer's, with no change to the app.
//!
//! An exchange without a client address (a client on a unix socket, a probe of our own) is said to come from 0.0.0.0,
//! port 0. The specification's words for that are of no use with the servers that are met here: gunicorn answers 400 to
//! `UNKNOWN`, and gives the app None for its REMOTE_ADDR after `LOCAL`.
//!
//! Version 2 also says that the client has come over TLS (section 2.2.6), for a server that is another proxy: a TCP
//! connection of its own is not what tells it. The version of TLS is left out: it may be known to a proxy before us alone.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::edge::proxy_protocol::{CLIENT_SSL, TYPE_SSL};
use crate::http::Exchange;
use crate::http::forwarded::Scheme;

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A line of text.
    V1,
    /// A block of bytes.
    V2,
}

/// The longest that either form gets (version 1 with two IPv6 addresses).
pub(super) const MAX: usize = 107;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// AF_INET and AF_INET6, SOCK_STREAM.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// A TLV about TLS: its length, its flags, and that no certificate of the client was verified.
const OVER_TLS: &[u8] = &[TYPE_SSL, 0, 5, CLIENT_SSL, 0, 0, 0, 1];

/// Both ends of the client's connection, in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    V4 { source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16) },
    V6 { source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16) },
}

/// Appends the preamble for an exchange; `None` for one of our own.
pub(super) fn append(out: &mut Vec<u8>, version: Version, exchange: Option<&Exchange>) {
    let ends = match exchange {
        Some(exchange) => {
            let connection = &exchange.connection;
            Ends::of(exchange.client.get(), connection.source(), connection.destination())
        }
        None => Ends::of(None, None, None),
    };
    match version {
        Version::V1 => ends.append_line(out),
        Version::V2 => ends.append_block(out, exchange.is_some_and(|exchange| exchange.scheme() == Scheme::Https)),
    }
}

impl Ends {
    /// `client` is who it is, as far as the edge believes it; `peer` is who has connected. The port is the peer's, and
    /// says nothing of a client behind it.
    fn of(client: Option<IpAddr>, peer: Option<SocketAddr>, local: Option<SocketAddr>) -> Self {
        let port = peer.filter(|peer| Some(peer.ip().to_canonical()) == client).map_or(0, |peer| peer.port());
        let (to, to_port) =
            local.map_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), |local| (local.ip().to_canonical(), local.port()));
        match (client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Self::V4 { source: (from, port), destination: (to, to_port) },
            // There is no IPv4 form of where it arrived.
            (IpAddr::V4(from), IpAddr::V6(_)) => {
                Self::V4 { source: (from, port), destination: (Ipv4Addr::UNSPECIFIED, to_port) }
            }
            (IpAddr::V6(from), IpAddr::V4(to)) => {
                Self::V6 { source: (from, port), destination: (to.to_ipv6_mapped(), to_port) }
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => Self::V6 { source: (from, port), destination: (to, to_port) },
        }
    }

    /// Version 1 (section 2.1).
    fn append_line(self, out: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = match self {
            Self::V4 { source: (from, port), destination: (to, to_port) } => {
                write!(out, "PROXY TCP4 {from} {to} {port} {to_port}\r\n")
            }
            Self::V6 { source: (from, port), destination: (to, to_port) } => {
                write!(out, "PROXY TCP6 {from} {to} {port} {to_port}\r\n")
            }
        };
    }

    /// Version 2 (section 2.2).
    fn append_block(self, out: &mut Vec<u8>, tls: bool) {
        const TLV: u8 = OVER_TLS.len() as u8;
        out.extend_from_slice(SIGNATURE);
        let (family, length) = match self {
            Self::V4 { .. } => (TCP4, 12),
            Self::V6 { .. } => (TCP6, 36),
        };
        out.extend_from_slice(&[PROXY, family, 0, if tls { length + TLV } else { length }]);
        let (port, to_port) = match self {
            Self::V4 { source: (from, port), destination: (to, to_port) } => {
                out.extend_from_slice(&from.octets());
                out.extend_from_slice(&to.octets());
                (port, to_port)
            }
            Self::V6 { source: (from, port), destination: (to, to_port) } => {
                out.extend_from_slice(&from.octets());
                out.extend_from_slice(&to.octets());
                (port, to_port)
            }
        };
        out.extend_from_slice(&port.to_be_bytes());
        out.extend_from_slice(&to_port.to_be_bytes());
        if tls {
            out.extend_from_slice(OVER_TLS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, peer: &str, local: &str) -> Ends {
        Ends::of(client.parse().ok(), peer.parse().ok(), local.parse().ok())
    }

    fn line(ends: Ends) -> String {
        let mut out = Vec::new();
        ends.append_line(&mut out);
        assert!(out.len() <= MAX);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn version_1_is_one_line_of_text() {
        for (client, peer, local, expected) in [
            ("192.0.2.1", "192.0.2.1:56324", "198.51.100.7:443", "TCP4 192.0.2.1 198.51.100.7 56324 443"),
            // A dual-stack listener has IPv4 clients in the mapped form.
            ("192.0.2.1", "[::ffff:192.0.2.1]:1", "[::ffff:198.51.100.7]:443", "TCP4 192.0.2.1 198.51.100.7 1 443"),
            ("2001:db8::1", "[2001:db8::1]:65535", "[2001:db8::2]:80", "TCP6 2001:db8::1 2001:db8::2 65535 80"),
            // The client stands behind a proxy that is believed.
            ("203.0.113.9", "10.0.0.1:1234", "10.0.0.2:80", "TCP4 203.0.113.9 10.0.0.2 0 80"),
            ("2001:db8::1", "10.0.0.1:1234", "10.0.0.2:80", "TCP6 2001:db8::1 ::ffff:10.0.0.2 0 80"),
            ("203.0.113.9", "[2001:db8::5]:1", "[2001:db8::2]:80", "TCP4 203.0.113.9 0.0.0.0 0 80"),
            // A unix socket, or nobody.
            ("", "", "", "TCP4 0.0.0.0 0.0.0.0 0 0"),
        ] {
            assert_eq!(line(ends(client, peer, local)), format!("PROXY {expected}\r\n"));
        }
        let longest = "ffff:f0ff:ffff:ffff:ffff:ffff:ffff:ffff";
        let address = format!("[{longest}]:65535");
        assert_eq!(line(ends(longest, &address, &address)).len(), MAX - 3, "the specification's bound counts UNKNOWN");
    }

    #[test]
    fn what_is_sent_is_what_the_edge_takes() {
        use crate::edge::proxy_protocol::{Header, parse};
        use crate::http::Sender;
        for (client, peer, local, source, destination) in [
            ("192.0.2.1", "192.0.2.1:56324", "198.51.100.7:443", "192.0.2.1:56324", "198.51.100.7:443"),
            ("2001:db8::1", "[2001:db8::1]:65535", "[2001:db8::2]:80", "[2001:db8::1]:65535", "[2001:db8::2]:80"),
            ("2001:db8::1", "10.0.0.1:1234", "10.0.0.2:80", "[2001:db8::1]:0", "10.0.0.2:80"),
            ("", "", "", "0.0.0.0:0", "0.0.0.0:0"),
        ] {
            let ends = ends(client, peer, local);
            let block = |tls| {
                let mut block = Vec::new();
                ends.append_block(&mut block, tls);
                assert!(block.len() <= MAX);
                block
            };
            for (bytes, tls) in [(block(false), false), (block(true), true), (line(ends).into_bytes(), false)] {
                let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
                let sender = Sender::Behind { source, destination, tls };
                assert_eq!(parse(&bytes), Ok(Some(Header { sender, length: bytes.len() })), "{bytes:?}");
            }
        }
    }

    #[test]
    fn version_2_is_a_block_of_bytes() {
        let mut out = Vec::new();
        ends("192.0.2.1", "192.0.2.1:56324", "198.51.100.7:443").append_block(&mut out, false);
        let expected = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x0C\
                         \xC0\x00\x02\x01\xC6\x33\x64\x07\xDC\x04\x01\xBB";
        assert_eq!(out, expected);
        out.clear();
        ends("2001:db8::1", "[2001:db8::1]:256", "[::1]:80").append_block(&mut out, false);
        let expected = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x21\x00\x24\
                         \x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x00\x00\x50";
        assert_eq!(out, expected);
    }
}
