//! Whatever a client writes into the fields in which proxies speak, what a trusted proxy appends to them, on the same line or on
//! one of its own, is what counts. The first byte chooses the field; lines of the input are lines of the field.

#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use hostler::http::forwarded::{Claims, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

const NOW: Duration = Duration::from_secs(1_795_374_000);

/// 10.0.0.0/8 is ours.
fn is_ours(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

fn read(name: &HeaderName, lines: &[Vec<u8>]) -> Option<Claims> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name, HeaderValue::from_bytes(line).ok()?);
    }
    Some(Claims::read(&headers, NOW, is_ours))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, text)) = bytes.split_first() else { return };
    let lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let names = ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-port", "x-request-start"];
    let which = usize::from(*kind) % names.len();
    let name = HeaderName::from_static(names[which]);
    let Some(forged) = read(&name, &lines) else { return };
    if let Some(port) = forged.port {
        assert_ne!(port, 0);
    }
    if let Some(started) = forged.started {
        assert!(started <= NOW + Duration::from_secs(1) && started + Duration::from_secs(600) >= NOW);
    }
    let appended: &[(&str, Option<IpAddr>, Option<Scheme>)] = match which {
        0 => &[("192.0.2.7", Some(CLIENT), None), ("192.0.2.7, 10.0.0.1,10.0.0.2", Some(CLIENT), None), ("unknown", None, None)],
        1 => &[
            ("for=192.0.2.7;proto=https", Some(CLIENT), Some(Scheme::Https)),
            ("by=\"a\\\",b;c\";for=\"192.0.2.7:80\", proto=http;for=10.0.0.1", Some(CLIENT), Some(Scheme::Http)),
            ("for=_hidden", None, None),
        ],
        2 => &[("https", None, Some(Scheme::Https)), ("http", None, Some(Scheme::Http)), ("ftp", None, None)],
        _ => &[],
    };
    for (element, client, scheme) in appended {
        let mut on_its_own = lines.clone();
        on_its_own.push(element.as_bytes().to_vec());
        let mut on_the_same = lines.clone();
        let last = on_the_same.last_mut().expect("there is a line at least");
        *last = [&last[..], b", ", element.as_bytes()].concat();
        for lines in [on_its_own, on_the_same] {
            let claims = read(&name, &lines).expect("they are values");
            assert_eq!((claims.client, claims.scheme), (*client, *scheme), "{element}");
        }
    }
});
