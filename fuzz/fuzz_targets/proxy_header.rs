//! A PROXY header is the same header however it arrives and whatever follows it; no header becomes of what was refused; and
//! addresses that are written anew, in either version, are the same.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use hostler::edge::proxy_protocol::{Header, MAX, parse};
use hostler::http::Sender;
use libfuzzer_sys::fuzz_target;

fn line(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = in_one_family(source.ip(), destination.ip());
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

fn block(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (from, to) = in_one_family(source.ip(), destination.ip());
    let (family, length) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    let start = [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family, 0, length][..]].concat();
    [start, octets(from), octets(to), source.port().to_be_bytes().into(), destination.port().to_be_bytes().into()].concat()
}

/// One may have been IPv4 in the form of IPv6.
fn in_one_family(from: IpAddr, to: IpAddr) -> (IpAddr, IpAddr) {
    let mapped = |address: IpAddr| match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        v6 => v6,
    };
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (mapped(from), mapped(to)) }
}

fuzz_target!(|bytes: &[u8]| {
    let read = parse(bytes);
    let more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
    match read {
        Err(why) => {
            assert!(!why.to_string().is_empty());
            assert_eq!(parse(&more), Err(why));
        }
        Ok(None) => {
            assert!(bytes.len() < MAX);
            (0..bytes.len()).for_each(|end| assert_eq!(parse(&bytes[..end]), Ok(None)));
        }
        Ok(Some(header)) => {
            assert!(header.length <= bytes.len().min(MAX));
            assert_eq!(parse(&more), Ok(Some(header)));
            (0..header.length).for_each(|end| assert_eq!(parse(&bytes[..end]), Ok(None)));
            if let Sender::Behind { source, destination, tls } = header.sender {
                assert_eq!(source.ip(), source.ip().to_canonical());
                for anew in [line(source, destination), block(source, destination)] {
                    // Neither of these says anything of TLS.
                    let sender = Sender::Behind { source, destination, tls: false };
                    assert_eq!(parse(&anew), Ok(Some(Header { sender, length: anew.len() })));
                }
                assert!(!tls || bytes.starts_with(b"\r\n"), "only version 2 can say it");
            }
        }
    }
});
