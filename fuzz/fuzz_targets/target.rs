//! A target that we take is sent as received; its path has no dot segments, however it was encoded; and a second reading takes
//! the same targets and decodes the same paths.

#![no_main]

use bytes::Bytes;
use hostler::http::Target;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../src/http1/tests/reference.rs"]
mod reference;

fuzz_target!(|bytes: &[u8]| {
    let parsed = Target::parse(Bytes::copy_from_slice(bytes));
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let is_form = text.starts_with('/') || text == "*";
    let second = if is_form { reference::path(text) } else { None };
    assert_eq!(parsed.as_ref().ok().map(|target| target.path().to_vec()), second);
    let Ok(target) = parsed else { return };
    assert_eq!(target.as_str().as_bytes(), bytes);
    assert_eq!([target.raw_path(), target.query_with_mark()].concat().as_bytes(), bytes);
    assert!(target.path().split(|b| *b == b'/').all(|segment| segment != b"." && segment != b".."));
    assert!(!target.path().iter().any(|b| matches!(b, 0 | b'\\')));
    // The same path, spelled otherwise, is taken and is the same path: unless what it spells is an encoding once more.
    let spelled: String = target.path().iter().map(|byte| match byte {
        b'/' => "/".into(),
        byte => format!("%{byte:02x}"),
    }).collect();
    if target.path().starts_with(b"/") {
        let anew = Target::parse(Bytes::from(spelled)).expect("another spelling of a good path");
        assert_eq!(anew.path(), target.path());
    }
});
