//! The value of `X-Sendfile` as paths of files.
//!
//! Apps write the path as it is (Werkzeug, django-sendfile2); some encode it, which Apache and lighttpd decode. An app that
//! writes it as it is has checked it as it is, so that what is decoded must have the same folders. WSGI carries text as
//! Latin-1, so that a name beyond ASCII may arrive in that, and Django makes an encoded word of what Latin-1 has no letter
//! for.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::word;

/// What the app may mean, the plainest first: absolute paths, without `.` and `..`. None of a value that is no such path.
pub(super) fn spellings(value: &[u8]) -> impl Iterator<Item = PathBuf> {
    let word = word::decode(value);
    let others = if word.is_some() { [None, None, None] } else { [Some(value.to_vec()), decoded(value), utf8(value)] };
    [word].into_iter().chain(others).flatten().filter_map(|path| normal(&path))
}

/// The path without percent-encoding, where it has some, and none that makes a slash, a NUL or a segment that leads elsewhere:
/// that is a file's odd name, or somebody who tries to get out.
fn decoded(value: &[u8]) -> Option<Vec<u8>> {
    let first = memchr::memchr(b'%', value)?;
    let (plain, mut rest) = value.split_at(first);
    let mut out = plain.to_vec();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        out.push(word::hex(digits).filter(|byte| !matches!(byte, b'/' | 0))?);
        rest = tail;
    }
    // No slash has come in: the segments are the same, one by one.
    let segments = |path| <[u8]>::split(path, |byte| *byte == b'/');
    let leads = |segment: &[u8]| matches!(segment, b"." | b"..");
    let is_same = segments(value).zip(segments(&out)).all(|(before, after)| before == after || !leads(after));
    is_same.then_some(out)
}

/// Latin-1 as UTF-8.
fn utf8(value: &[u8]) -> Option<Vec<u8>> {
    let is_latin = std::str::from_utf8(value).is_err();
    is_latin.then(|| value.iter().copied().map(char::from).collect::<String>().into_bytes())
}

/// As Python's `normpath` has it. What a symbolic link makes of `..` is nobody's to use: whatever comes of it is looked for
/// below the roots alone.
fn normal(path: &[u8]) -> Option<PathBuf> {
    if path.first() != Some(&b'/') || path.contains(&0) {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let mut out = vec![b'/'];
    out.extend_from_slice(&parts.join(&b'/'));
    Some(PathBuf::from(OsString::from_vec(out)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn all(value: &[u8]) -> Vec<Vec<u8>> {
        spellings(value).map(|path| path.as_os_str().as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_path_is_taken_as_it_is_and_then_in_the_other_ways_that_apps_write_it() {
        for (value, paths) in [
            (&b"/srv/media/a.pdf"[..], &[&b"/srv/media/a.pdf"[..]][..]),
            (b"/srv/media/a%20b.pdf", &[b"/srv/media/a%20b.pdf", b"/srv/media/a b.pdf"]),
            (b"/srv/media/100%.pdf", &[b"/srv/media/100%.pdf"]),
            ("/srv/é".as_bytes(), &["/srv/é".as_bytes()]),
            (b"/srv/\xe9", &[b"/srv/\xe9", "/srv/é".as_bytes()]),
            (b"=?utf-8?q?/srv/=D0=B8?=", &["/srv/и".as_bytes()]),
            (b"/srv/app/../media//a/./b", &[b"/srv/media/a/b"]),
            (b"/../../etc/passwd", &[b"/etc/passwd"]),
            (b"/srv/%2e%2e/etc", &[b"/srv/%2e%2e/etc"]),
            (b"/srv/.%2E/etc", &[b"/srv/.%2E/etc"]),
            (b"/srv/%2e/etc", &[b"/srv/%2e/etc"]),
            (b"/srv/a%2f..%2fb", &[b"/srv/a%2f..%2fb"]),
            (b"/srv/a%2Fb", &[b"/srv/a%2Fb"]),
            (b"/srv/a/../b%20c", &[b"/srv/b%20c", b"/srv/b c"]),
            (b"/srv/%2ehidden", &[b"/srv/%2ehidden", b"/srv/.hidden"]),
            (b"%2fsrv/a", &[]),
            (b"/a%00b", &[b"/a%00b"]),
            (b"a/b", &[]),
            (b"", &[]),
            (b"./a", &[]),
        ] {
            assert_eq!(all(value), paths, "{}", value.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn decoding_makes_no_other_folders(value in "(/|\\.|%2[eEfF0]|%00|a){0,20}") {
            if let Some(decoded) = decoded(value.as_bytes()) {
                let leading = |path: &[u8]| path.split(|byte| *byte == b'/').filter(|part| matches!(*part, b"." | b"..")).count();
                let slashes = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count();
                prop_assert_eq!(leading(&decoded), leading(value.as_bytes()));
                prop_assert_eq!(slashes(&decoded), slashes(value.as_bytes()));
                prop_assert!(!decoded.contains(&0));
            }
        }

        #[test]
        fn every_spelling_is_plain(value in prop::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), Just(b'%'), Just(b'2'), Just(b'e'), any::<u8>()], 0..60)
        ) {
            for path in spellings(&value) {
                prop_assert!(path.is_absolute());
                prop_assert!(path.components().skip(1).all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(!path.as_os_str().as_bytes().contains(&0));
            }
        }
    }
}
