//! A host that we take is a name and a port and nothing else: to us, to a second reading, and to the parser of authorities that
//! HTTP/2 goes through.

#![no_main]

use bytes::Bytes;
use hostler::http::Host;
use http::uri::Authority;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../src/http1/tests/reference.rs"]
mod reference;

fuzz_target!(|bytes: &[u8]| {
    let parsed = Host::parse(Bytes::copy_from_slice(bytes));
    assert_eq!(parsed.is_ok(), std::str::from_utf8(bytes).is_ok_and(reference::is_host));
    let Ok(host) = parsed else { return };
    assert_eq!(host.as_str().as_bytes(), bytes);
    assert!(!host.name().is_empty() && !host.name().ends_with('.'));
    assert!(bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(b)));
    // Written anew from its parts, it is the same place.
    let port = host.port().map_or_else(String::new, |port| format!(":{port}"));
    let anew = Host::parse(Bytes::from(format!("{}{port}", host.name()))).expect("its parts are a host");
    assert_eq!((anew.name(), anew.port()), (host.name(), host.port()));
    let authority = Authority::try_from(bytes).expect("HTTP/2 can say it as well");
    assert_eq!(authority.host().strip_suffix('.').unwrap_or(authority.host()), host.name());
    assert_eq!(authority.port_u16(), host.port());
});
