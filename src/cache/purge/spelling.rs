//! One spelling of paths and queries for all that are the same to an app.
//!
//! Clients encode what they like: `/news/%61rticle` and `/news/article` are one page for a WSGI app, which decodes the path, and
//! `?q=it's` and `?q=it%27s` are one query. The cache's key takes them as received; whoever purges means them all. So what is stored is
//! labelled with one spelling, and orders are read into the same one.
//!
//! | | as it is | encoded, with capital digits |
//! |---|---|---|
//! | path | unreserved, sub-delims, `:`, `@` and `/` (RFC 3986), however they were received | all else |
//! | query | the same, but `&`, `=`, `+` and `;` only as received: encoded, they are part of a value | all else |

use std::borrow::Cow;
use std::fmt::Write as _;

/// Of path and query.
pub(super) fn of_target(target: &str) -> Cow<'_, str> {
    let mut bytes = target.bytes();
    // Most are spelled so already.
    if bytes.by_ref().find(|byte| !is_plain(*byte)).is_none_or(|byte| byte == b'?' && bytes.all(is_plain)) {
        return Cow::Borrowed(target);
    }
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut out = String::with_capacity(target.len() + 16);
    spell(&mut out, path.as_bytes(), b"");
    if let Some(query) = query.strip_prefix('?') {
        out.push('?');
        spell(&mut out, query.as_bytes(), b"&=+;");
    }
    Cow::Owned(out)
}

/// Of how paths and queries begin. What may be half of an escape says nothing, and is left out.
pub(super) fn of_beginning(target: &str) -> Cow<'_, str> {
    let cut = match target.as_bytes() {
        [.., b'%'] => 1,
        [.., b'%', digit] if digit.is_ascii_hexdigit() => 2,
        _ => 0,
    };
    of_target(&target[..target.len() - cut])
}

/// `delimiters`: those that do not mean the same when they are encoded.
fn spell(out: &mut String, mut text: &[u8], delimiters: &[u8]) {
    while let [byte, rest @ ..] = text {
        let (byte, is_escaped) = match (byte, escaped(rest)) {
            (b'%', Some(escaped)) => (escaped, true),
            _ => (*byte, false),
        };
        text = if is_escaped { &rest[2..] } else { rest };
        if is_plain(byte) && !(is_escaped && delimiters.contains(&byte)) {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// What two hex digits at the beginning stand for.
fn escaped(text: &[u8]) -> Option<u8> {
    let [high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
                | b'/'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_page_are_one() {
        for (one, others) in [
            ("/news/article", &["/news/%61rticle", "/n%65ws%2Farticle"][..]),
            ("/caf%C3%A9", &["/caf%c3%a9", "/%63af%C3%a9"]),
            ("/a%7Bb%7D%5E", &["/a{b}^", "/a%7bb}%5e"]),
            ("/a?q=it's", &["/a?q=it%27s", "/%61?%71=it's"]),
            ("/a?q=%60%22", &["/a?q=`%22"]),
            ("/a?q=%2B%25", &["/a?q=%2b%", "/a?q=%2b%25"]),
        ] {
            assert!(matches!(of_target(one), Cow::Borrowed(_)) || one.contains('%'), "{one}");
            for other in others.iter().chain([&one]) {
                assert_eq!(of_target(other), one, "{other}");
            }
        }
    }

    #[test]
    fn what_an_app_tells_apart_stays_apart() {
        for (one, other) in
            [("/a?b=1%26c=2", "/a?b=1&c=2"), ("/a%3Fb", "/a?b"), ("/a?b%3D1", "/a?b=1"), ("/a?b=%2B", "/a?b=+")]
        {
            assert_ne!(of_target(one), of_target(other));
        }
    }

    #[test]
    fn the_half_of_an_escape_is_no_beginning() {
        for (beginning, spelled) in
            [("/a?q=%", "/a?q="), ("/a?q=%C", "/a?q="), ("/a?q=%c3", "/a?q=%C3"), ("/a?q=5", "/a?q=5")]
        {
            assert_eq!(of_beginning(beginning), spelled);
        }
    }

    proptest! {
        #[test]
        fn a_spelling_is_its_own(target in "/[ -~]{0,40}") {
            let spelled = of_target(&target);
            prop_assert_eq!(of_target(&spelled), &*spelled);
        }
    }
}
