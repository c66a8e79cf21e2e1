//! The PROXY protocol, versions 1 and 2, as a receiver: a load balancer that passes bytes on says in front of them who its
//! client is. Pure; [`read`] takes it from a socket.
//!
//! Strict, because whoever speaks it is trusted, and whatever is not exactly a header was not said by him:
//!
//! | what comes | what we make of it |
//! |---|---|
//! | v1 `TCP4`, `TCP6`; v2 PROXY over TCP with IPv4 or IPv6 | the addresses in it |
//! | v1 `UNKNOWN`; v2 PROXY with no family or a unix socket | the peer's address stands, but nothing that is said over the connection is the peer's word |
//! | v2 LOCAL: the balancer speaks for itself (a probe) | the peer |
//! | v2 TLV PP2_TYPE_SSL | whether the client speaks TLS with the balancer |
//! | other v2 TLVs | stepped over; they must fit |
//! | v1 longer than 107 bytes; v2 with more than [`MAX_V2`] bytes | refused |
//! | everything else: other versions, commands, families, datagrams, spare bytes, numbers with a leading zero | refused |

mod read;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use read::{ReadError, read};

use crate::http::Sender;

/// Bytes of a header of version 1, its line end included.
const MAX_V1: usize = 107;
/// Bytes that follow the first 16 of a header of version 2: addresses and TLVs. Senders with certificates in TLVs need some
/// hundred.
pub const MAX_V2: usize = 4096;
/// Bytes of the longest header.
pub const MAX: usize = FIXED + MAX_V2;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The part of version 2 that is always there: signature, command, family, length.
const FIXED: usize = 16;
const WORD: &[u8] = b"PROXY ";
/// The TLV about TLS, and its flag for a client that speaks it.
pub(crate) const TYPE_SSL: u8 = 0x20;
pub(crate) const CLIENT_SSL: u8 = 0x01;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whom it names.
    pub sender: Sender,
    /// How many bytes it takes; what follows is the client's.
    pub length: usize,
}

/// Why the bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They begin like neither version.
    NoHeader,
    /// They begin like TLS.
    Tls,
    /// Version 1 without an end.
    TooLong,
    /// Version 1: another word than TCP4, TCP6 and UNKNOWN.
    Family,
    /// Version 1: not four words with one space between.
    Words,
    /// Version 1: not an address of the family.
    Address,
    /// Version 1: not a port.
    Port,
    /// Version 2: not version 2.
    Version,
    /// Version 2: neither LOCAL nor PROXY.
    Command,
    /// Version 2: a family that is not known, or not a stream.
    Transport,
    /// Version 2: more bytes than we take.
    Length,
    /// Version 2: fewer bytes than the addresses of the family have.
    Short,
    /// Version 2: TLVs that do not fill what is left.
    Tlv,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "the first bytes are not a PROXY header",
            Self::Tls => "the first bytes are TLS, not a PROXY header",
            Self::TooLong => "the PROXY line does not end within 107 bytes",
            Self::Family => "the PROXY line has a family other than TCP4, TCP6 and UNKNOWN",
            Self::Words => "the PROXY line does not have two addresses and two ports with one space between",
            Self::Address => "the PROXY line has an address that is none of its family",
            Self::Port => "the PROXY line has a port that is none",
            Self::Version => "the PROXY header has a version other than 1 and 2",
            Self::Command => "the PROXY header has a command other than LOCAL and PROXY",
            Self::Transport => "the PROXY header has an unknown family, or one that is no stream",
            Self::Length => "the PROXY header is longer than 4 KiB",
            Self::Short => "the PROXY header is too short for its addresses",
            Self::Tlv => "the PROXY header has TLVs that do not fill it",
        })
    }
}

impl std::error::Error for Malformed {}

/// Looks at the first bytes of a connection. `None`: a header may become of them, and all of them are its own.
///
/// # Errors
/// No header can become of them, whatever follows.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if begins(bytes, SIGNATURE) {
        return version_2(bytes);
    }
    if begins(bytes, WORD) {
        return version_1(bytes);
    }
    Err(if bytes.first() == Some(&0x16) { Malformed::Tls } else { Malformed::NoHeader })
}

/// Whether the bytes begin with `start`, as far as they are here.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let here = bytes.len().min(start.len());
    bytes[..here] == start[..here]
}

/// `PROXY TCP4 source destination port port CRLF` (section 2.1).
fn version_1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        return if line.len() == MAX_V1 { Err(Malformed::TooLong) } else { Ok(None) };
    };
    let text = line[..end].strip_suffix(b"\r").ok_or(Malformed::Words)?;
    let text = text.strip_prefix(WORD).ok_or(Malformed::NoHeader)?;
    // No byte of it but in UNKNOWN's rest, which nobody reads, may be anything but ASCII.
    if text == b"UNKNOWN" || text.starts_with(b"UNKNOWN ") {
        return Ok(Some(Header { sender: Sender::Hidden, length: end + 1 }));
    }
    let text = std::str::from_utf8(text).map_err(|_| Malformed::Words)?;
    let (family, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is_v6 = match family {
        "TCP4" => false,
        "TCP6" => true,
        _ => return Err(Malformed::Family),
    };
    let mut words = rest.split(' ');
    let mut word = || words.next().filter(|word| !word.is_empty()).ok_or(Malformed::Words);
    let (source, destination, from, to) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(Malformed::Words);
    }
    let sender = Sender::Behind {
        source: socket(address(source, is_v6)?, port(from)?),
        destination: socket(address(destination, is_v6)?, port(to)?),
        tls: false,
    };
    Ok(Some(Header { sender, length: end + 1 }))
}

fn address(text: &str, is_v6: bool) -> Result<IpAddr, Malformed> {
    let parsed = if is_v6 { text.parse().map(IpAddr::V6) } else { text.parse().map(IpAddr::V4) };
    parsed.map_err(|_| Malformed::Address)
}

fn port(text: &str) -> Result<u16, Malformed> {
    let is_number =
        text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_number).ok_or(Malformed::Port)
}

/// Signature, version and command, family, length, addresses, TLVs (section 2.2).
fn version_2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let command = bytes.get(12).copied().map(command).transpose()?;
    let family = bytes.get(13).copied();
    if let (Some(Command::Proxy), Some(family)) = (command, family) {
        addresses_length(family)?;
    }
    let (Some(command), Some(family), Some([high, low])) = (command, family, bytes.get(14..FIXED)) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_V2 {
        return Err(Malformed::Length);
    }
    let needed = if command == Command::Proxy { addresses_length(family)? } else { 0 };
    if length < needed {
        return Err(Malformed::Short);
    }
    let Some(rest) = bytes.get(FIXED..FIXED + length) else { return Ok(None) };
    let sender = match command {
        Command::Local => Sender::Peer,
        Command::Proxy => {
            let (addresses, tlvs) = rest.split_at(needed);
            let tls = says_tls(tlvs)?;
            ends(addresses, tls)
        }
    };
    Ok(Some(Header { sender, length: FIXED + length }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Local,
    Proxy,
}

fn command(byte: u8) -> Result<Command, Malformed> {
    match byte {
        0x20 => Ok(Command::Local),
        0x21 => Ok(Command::Proxy),
        _ if byte >> 4 != 2 => Err(Malformed::Version),
        _ => Err(Malformed::Command),
    }
}

/// Bytes of two addresses and two ports; of a unix socket, two paths; of no family, nothing.
fn addresses_length(family: u8) -> Result<usize, Malformed> {
    match family {
        0x00 => Ok(0),
        0x11 => Ok(12),
        0x21 => Ok(36),
        0x31 => Ok(216),
        _ => Err(Malformed::Transport),
    }
}

/// The addresses, by their length.
fn ends(addresses: &[u8], tls: bool) -> Sender {
    fn both<const SIZE: usize>(addresses: &[u8], tls: bool) -> Option<Sender>
    where
        IpAddr: From<[u8; SIZE]>,
    {
        let (source, rest) = addresses.split_first_chunk::<SIZE>()?;
        let (destination, rest) = rest.split_first_chunk::<SIZE>()?;
        let (from, rest) = rest.split_first_chunk()?;
        let to = rest.first_chunk()?;
        Some(Sender::Behind {
            source: socket(IpAddr::from(*source), u16::from_be_bytes(*from)),
            destination: socket(IpAddr::from(*destination), u16::from_be_bytes(*to)),
            tls,
        })
    }
    const V4: usize = size_of::<Ipv4Addr>();
    const V6: usize = size_of::<Ipv6Addr>();
    let known = match addresses.len() {
        12 => both::<V4>(addresses, tls),
        36 => both::<V6>(addresses, tls),
        _ => None,
    };
    known.unwrap_or(Sender::Hidden)
}

/// Type, length in two bytes, value; as many as there are. Whether one says that the client has come over TLS (section
/// 2.2.6): flags, four bytes about its certificate, and more that is of no interest.
fn says_tls(mut rest: &[u8]) -> Result<bool, Malformed> {
    let mut tls = false;
    while !rest.is_empty() {
        let [kind, high, low, tail @ ..] = rest else { return Err(Malformed::Tlv) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = tail.split_at_checked(length).ok_or(Malformed::Tlv)?;
        if let (&TYPE_SSL, [flags, _, _, _, _, ..]) = (kind, value) {
            tls |= flags & CLIENT_SSL != 0;
        }
        rest = after;
    }
    Ok(tls)
}

/// IPv4 in IPv6's clothes is IPv4.
fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}
