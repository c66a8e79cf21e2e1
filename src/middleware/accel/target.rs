//! The value of `X-Accel-Redirect` as a target.

use bytes::Bytes;
use http::HeaderValue;

use super::word;
use crate::http::Target;

/// Reads it as nginx does: a path, percent-encoded, and perhaps a query. Apps often write a file's name as it is; what
/// cannot stand in a target so is encoded here.
///
/// # Errors
/// Why it is followed nowhere, for the operator.
pub(super) fn read(value: &HeaderValue) -> Result<Target, &'static str> {
    let plain = word::decode(value.as_bytes());
    let value = plain.as_deref().unwrap_or(value.as_bytes());
    match value.first() {
        Some(b'/') => {}
        Some(b'@') => {
            return Err("there are no named locations here: let the app name the path of an `internal` route");
        }
        _ => return Err("it is no path of this site: it has to begin with a slash"),
    }
    let (path, query) = value.split_at(memchr::memchr(b'?', value).unwrap_or(value.len()));
    let mut target = Vec::with_capacity(value.len());
    append_encoded(&mut target, path, b"<>`#");
    append_encoded(&mut target, query, b"<>\"#");
    Target::parse(Bytes::from(target)).map_err(|_| {
        "its path can be read in two ways: it has a segment `.` or `..`, a backslash, a zero byte, or a % without two hex digits"
    })
}

fn append_encoded(out: &mut Vec<u8>, text: &[u8], more: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if matches!(byte, 0x21..=0x7E) && !more.contains(byte) {
            out.push(*byte);
        } else {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(value: &str) -> Result<String, &'static str> {
        read(&HeaderValue::from_bytes(value.as_bytes()).unwrap()).map(|target| target.as_str().to_owned())
    }

    #[test]
    fn a_path_is_taken_as_it_is_and_a_name_is_encoded() {
        for (value, expected) in [
            ("/protected/a.pdf", "/protected/a.pdf"),
            ("/protected/my%20file.pdf?v=1&w=%zz", "/protected/my%20file.pdf?v=1&w=%zz"),
            ("/protected/my file#1.pdf", "/protected/my%20file%231.pdf"),
            ("/protected/café.pdf", "/protected/caf%C3%A9.pdf"),
            ("/protected/<a>.pdf?q=\"b c\"", "/protected/%3Ca%3E.pdf?q=%22b%20c%22"),
            ("/a//b;c=1", "/a//b;c=1"),
            ("=?utf-8?b?L3AvZmlsZS3QuC5wZGY=?=", "/p/file-%D0%B8.pdf"),
        ] {
            assert_eq!(target(value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused_with_what_is_wrong() {
        for (value, why) in [
            ("", "it has to begin"),
            ("protected/a", "it has to begin"),
            ("http://other.example/a", "it has to begin"),
            ("?a", "it has to begin"),
            ("@media", "no named locations"),
            ("/protected/../a", "`..`"),
            ("/protected/%2e%2e/a", "`..`"),
            ("/protected/..", "`..`"),
            ("/a%00b", "a zero byte"),
            ("/a\\b", "a backslash"),
            ("/a%5cb", "a backslash"),
            ("/100%.pdf", "two hex digits"),
        ] {
            assert!(target(value).is_err_and(|told| told.contains(why)), "{value}: {:?}", target(value));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_leads_out_of_no_folder(value in "(/|%2[eE]|\\.|%2[fF]|[a-z #?é]|\\\\|%){0,30}") {
            if let Ok(target) = read(&HeaderValue::from_bytes(format!("/{value}").as_bytes()).unwrap()) {
                prop_assert!(!target.path().split(|byte| *byte == b'/').any(|part| part == b".." || part == b"."));
                prop_assert!(target.as_str().bytes().all(|byte| matches!(byte, 0x21..=0x7E)));
            }
        }
    }
}
