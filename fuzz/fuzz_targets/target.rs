//! A target that we take is sent as received, and its path has no dot segments, however it was encoded.

#![no_main]

use bytes::Bytes;
use hostler::http::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(target) = Target::parse(Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(target.as_str().as_bytes(), bytes);
    assert!(target.path().split(|b| *b == b'/').all(|segment| segment != b"." && segment != b".."));
    assert!(!target.path().iter().any(|b| matches!(b, 0 | b'\\')));
});
