//! A host that we take is a name and a port, and nothing else.

#![no_main]

use bytes::Bytes;
use hostler::http::Host;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(host) = Host::parse(Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(host.as_str().as_bytes(), bytes);
    assert!(!host.name().is_empty());
    assert!(bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(b)));
});
