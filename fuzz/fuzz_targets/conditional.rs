//! Whatever a client writes into If-Match and If-None-Match: only what holds our tag, or is `*`, matches; and a path below a
//! root holds nothing that leads up or elsewhere. The first byte says which.

#![no_main]

use hostler::files::Relative;
use hostler::http::conditional::{EntityTag, Validators, Verdict, evaluate, range_applies};
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;

const TAG: &[u8] = b"\"a\"";

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    if which % 2 == 0 { tags(bytes) } else { path(bytes) }
});

fn tags(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let says_so = bytes.windows(TAG.len()).any(|part| part == TAG) || bytes.trim_ascii() == b"*";
    let ours = Validators { tag: EntityTag::parse(TAG), modified: Some(784_111_777), modified_is_strong: true };
    for (name, matched) in [("if-match", Verdict::Proceed), ("if-none-match", Verdict::NotModified)] {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.clone());
        assert!(evaluate(&Method::GET, &headers, &ours) != matched || says_so);
    }
    let mut headers = HeaderMap::new();
    for name in ["if-range", "if-modified-since", "if-unmodified-since"] {
        headers.insert(name, value.clone());
    }
    let _ = (range_applies(&headers, &ours), evaluate(&Method::GET, &headers, &ours));
}

fn path(bytes: &[u8]) {
    let Some(path) = Relative::parse(bytes) else { return };
    let path = path.as_bytes();
    let is_good = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..") && !segment.contains(&0);
    assert!(path.is_empty() || path.split(|byte| *byte == b'/').all(is_good));
}
