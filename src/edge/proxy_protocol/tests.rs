use proptest::prelude::*;

use super::*;

/// Version 2 with this command, family and what follows the length.
fn block(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

fn behind(source: &str, destination: &str) -> Sender {
    Sender::Behind { source: source.parse().unwrap(), destination: destination.parse().unwrap(), tls: false }
}

fn v4_ends() -> Vec<u8> {
    [&[192, 0, 2, 1, 198, 51, 100, 7][..], &56324_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat()
}

fn v6_ends() -> Vec<u8> {
    let [from, to] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
    [&from[..], &to, &1_u16.to_be_bytes(), &65535_u16.to_be_bytes()].concat()
}

#[test]
fn a_balancer_says_that_its_client_speaks_tls() {
    let says = |tlvs: &[u8]| {
        let header = parse(&block(0x21, 0x11, &[&v4_ends(), tlvs].concat())).map(Option::unwrap);
        header.map(|header| matches!(header.sender, Sender::Behind { tls: true, .. }))
    };
    let version = [0x21, 0, 7, b'T', b'L', b'S', b'v', b'1', b'.', b'3'];
    assert_eq!(says(&[0x20, 0, 5, 1, 0, 0, 0, 1]), Ok(true));
    assert_eq!(
        says(&[&[0x04, 0, 1, 0, 0x20, 0, 15, 7, 0, 0, 0, 0][..], &version].concat()),
        Ok(true),
        "as HAProxy does"
    );
    assert_eq!(says(&[0x20, 0, 5, 6, 0, 0, 0, 0]), Ok(false), "flags of certificates alone");
    assert_eq!(says(&[0x20, 0, 1, 1]), Ok(false), "too short to say anything");
    assert_eq!(says(&[0x21, 0, 5, 1, 0, 0, 0, 0]), Ok(false), "another kind");
    assert_eq!(says(&[0x20, 0, 6, 1, 0, 0, 0, 0]), Err(Malformed::Tlv));
}

#[test]
fn headers_are_read() {
    let tlvs: &[u8] = &[0x04, 0, 3, 0, 0, 0, 0x20, 0, 0];
    for (bytes, sender) in [
        (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n".to_vec(), behind("192.0.2.1:56324", "198.51.100.7:443")),
        (
            b"PROXY TCP6 2001:db8::1 2001:DB8:0::2 1 65535\r\n".to_vec(),
            behind("[2001:db8::1]:1", "[2001:db8::2]:65535"),
        ),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 443\r\n".to_vec(), behind("192.0.2.1:0", "[::1]:443")),
        (b"PROXY UNKNOWN\r\n".to_vec(), Sender::Hidden),
        (b"PROXY UNKNOWN ffff::1 whatever\r\n".to_vec(), Sender::Hidden),
        (block(0x21, 0x11, &v4_ends()), behind("192.0.2.1:56324", "198.51.100.7:443")),
        (block(0x21, 0x11, &[&v4_ends(), tlvs].concat()), behind("192.0.2.1:56324", "198.51.100.7:443")),
        (block(0x21, 0x21, &v6_ends()), behind("[2001:db8::1]:1", "[2001:db8::2]:65535")),
        (block(0x21, 0x31, &[b'a'; 216]), Sender::Hidden),
        (block(0x21, 0x00, &[]), Sender::Hidden),
        (block(0x21, 0x00, tlvs), Sender::Hidden),
        (block(0x20, 0x00, &[]), Sender::Peer),
        // Whatever a probe says of addresses is stepped over.
        (block(0x20, 0x11, &v4_ends()), Sender::Peer),
        (block(0x20, 0xff, &[0xff; 30]), Sender::Peer),
    ] {
        let header = Header { sender, length: bytes.len() };
        assert_eq!(parse(&bytes), Ok(Some(header)), "{bytes:?}");
        assert_eq!(parse(&[&bytes, &b"GET /"[..]].concat()), Ok(Some(header)), "what follows changes nothing");
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{end} bytes of {bytes:?}");
        }
    }
}

#[test]
fn lines_that_are_not_exactly_headers_are_refused() {
    for (line, why) in [
        ("GET / HTTP/1.1\r\n", Malformed::NoHeader),
        ("proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Malformed::NoHeader),
        ("PROXY\r\n", Malformed::NoHeader),
        (" PROXY UNKNOWN\r\n", Malformed::NoHeader),
        ("\x16\x03\x01", Malformed::Tls),
        ("PROXY \r\n", Malformed::Family),
        ("PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", Malformed::Family),
        ("PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", Malformed::Family),
        ("PROXY UNKNOWNS\r\n", Malformed::Family),
        ("PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Malformed::Family),
        ("PROXY TCP4\r\n", Malformed::Words),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", Malformed::Words),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", Malformed::Words),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", Malformed::Words),
        ("PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n", Malformed::Words),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", Malformed::Words),
        ("PROXY UNKNOWN\n", Malformed::Words),
        ("PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n", Malformed::Address),
        ("PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n", Malformed::Address),
        ("PROXY TCP4 ::1 ::2 1 2\r\n", Malformed::Address),
        ("PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", Malformed::Address),
        ("PROXY TCP6 fe80::1%1 ::2 1 2\r\n", Malformed::Address),
        ("PROXY TCP4 1.1.1.1 shop.example 1 2\r\n", Malformed::Address),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", Malformed::Port),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", Malformed::Port),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", Malformed::Port),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n", Malformed::Port),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(why), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
    assert_eq!(long.len(), MAX_V1);
    assert!(matches!(parse(long.as_bytes()), Ok(Some(_))));
    assert_eq!(parse(format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 15)).as_bytes()), Err(Malformed::TooLong));
    assert_eq!(parse("PROXY TCP4 \u{e9} 2.2.2.2 1 2\r\n".as_bytes()), Err(Malformed::Address));
    assert_eq!(parse(b"PROXY TCP4 \xff 2.2.2.2 1 2\r\n"), Err(Malformed::Words));
}

#[test]
fn blocks_that_are_not_exactly_headers_are_refused() {
    let v4 = v4_ends();
    for (bytes, why) in [
        (block(0x11, 0x11, &v4), Malformed::Version),
        (block(0x31, 0x11, &v4), Malformed::Version),
        (block(0x22, 0x11, &v4), Malformed::Command),
        (block(0x2f, 0x11, &v4), Malformed::Command),
        (block(0x21, 0x12, &v4), Malformed::Transport),
        (block(0x21, 0x22, &v6_ends()), Malformed::Transport),
        (block(0x21, 0x10, &v4), Malformed::Transport),
        (block(0x21, 0x01, &v4), Malformed::Transport),
        (block(0x21, 0x41, &v4), Malformed::Transport),
        (block(0x21, 0x11, &v4[..11]), Malformed::Short),
        (block(0x21, 0x21, &v4), Malformed::Short),
        (block(0x21, 0x31, &[0; 215]), Malformed::Short),
        (block(0x21, 0x11, &[&v4[..], &[1]].concat()), Malformed::Tlv),
        (block(0x21, 0x11, &[&v4[..], &[1, 0]].concat()), Malformed::Tlv),
        (block(0x21, 0x11, &[&v4[..], &[1, 0, 2, 0]].concat()), Malformed::Tlv),
        (block(0x21, 0x00, &[1, 0xff, 0xff]), Malformed::Tlv),
        (block(0x20, 0x00, &[0; MAX_V2 + 1]), Malformed::Length),
        (b"\r\n\r\n\0\r\nQUIT\r\n".to_vec(), Malformed::NoHeader),
    ] {
        assert_eq!(parse(&bytes), Err(why), "{bytes:?}");
    }
    // What cannot become one is refused before it is whole.
    assert_eq!(parse(&block(0x21, 0x12, &[])[..14]), Err(Malformed::Transport));
    assert_eq!(parse(&block(0x20, 0, &[0; MAX_V2 + 1])[..FIXED]), Err(Malformed::Length));
    assert!(matches!(parse(&block(0x20, 0, &[0; MAX_V2])), Ok(Some(Header { length: MAX, .. }))));
}

/// Bytes of which headers are made, and headers with a few bytes changed.
fn near_headers() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(
        &["PROXY", "TCP4", "TCP6", "UNKNOWN", "1.1.1.1", "::1", "80", "0", "", "x", "\r\n", "\n"][..],
    );
    let line = prop::collection::vec(words, 0..9).prop_map(|words| format!("{}\r\n", words.join(" ")).into_bytes());
    let rest = prop_oneof![Just(v4_ends()), Just(v6_ends()), prop::collection::vec(any::<u8>(), 0..300)];
    let command = prop::sample::select(&[0x20, 0x21, 0x22, 0x11][..]);
    let family = prop::sample::select(&[0x00, 0x11, 0x12, 0x21, 0x31, 0x41][..]);
    let tlvs = prop::collection::vec(any::<u8>(), 0..6);
    let block = (command, family, rest, tlvs).prop_map(|(c, f, rest, tlvs)| block(c, f, &[rest, tlvs].concat()));
    let change = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
    (prop_oneof![line, block], change).prop_map(|(mut bytes, change)| {
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_the_same_bytes_agrees(bytes in near_headers(), more in prop::collection::vec(any::<u8>(), 0..20)) {
        match parse(&bytes) {
            Ok(Some(header)) => {
                prop_assert!(header.length <= bytes.len().min(MAX));
                for end in 0..header.length {
                    prop_assert_eq!(parse(&bytes[..end]), Ok(None), "{} bytes", end);
                }
                prop_assert_eq!(parse(&[bytes, more].concat()), Ok(Some(header)));
            }
            // Once refused, whatever else comes.
            Err(why) => prop_assert_eq!(parse(&[bytes, more].concat()), Err(why)),
            Ok(None) => {}
        }
    }

    #[test]
    fn addresses_are_read_as_they_were_written(from: u128, to: u128, v4: bool, ports: (u16, u16), version_1: bool) {
        let [source, destination] = [from, to].map(|bits| match v4 {
            true => IpAddr::from(((bits >> 96) as u32).to_be_bytes()),
            false => IpAddr::from(bits.to_be_bytes()),
        });
        let bytes = if version_1 {
            let family = if v4 { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {source} {destination} {} {}\r\n", ports.0, ports.1).into_bytes()
        } else {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let rest = [octets(source), octets(destination), ports.0.to_be_bytes().into(), ports.1.to_be_bytes().into()];
            block(0x21, if v4 { 0x11 } else { 0x21 }, &rest.concat())
        };
        let sender =
            Sender::Behind { source: socket(source, ports.0), destination: socket(destination, ports.1), tls: false };
        prop_assert_eq!(parse(&bytes), Ok(Some(Header { sender, length: bytes.len() })));
    }
}
