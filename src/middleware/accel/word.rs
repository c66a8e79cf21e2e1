//! Encoded words (RFC 2047): what Django makes of a field's value that is not Latin-1, such as a file's name in Cyrillic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The text of a value that is one encoded word in UTF-8; `None`: it is anything else.
pub(super) fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let (charset, rest) = value.strip_prefix(b"=?")?.split_at_checked(5)?;
    let (form, rest) = rest.strip_prefix(b"?").filter(|_| charset.eq_ignore_ascii_case(b"utf-8"))?.split_first()?;
    let text = rest.strip_prefix(b"?")?.strip_suffix(b"?=")?;
    if text.contains(&b'?') {
        return None;
    }
    match form.to_ascii_lowercase() {
        b'b' => STANDARD.decode(text).ok(),
        b'q' => quoted(text),
        _ => None,
    }
}

/// RFC 2047, 4.2.
fn quoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'_' => out.push(b' '),
            b'=' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                out.push(hex(digits)?);
                rest = tail;
            }
            _ => out.push(*byte),
        }
    }
    Some(out)
}

/// Two hex digits.
pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match digits {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_word_in_utf_8_is_read_and_nothing_else() {
        for (value, text) in [
            ("=?utf-8?b?L3AvZmlsZS3QuC5wZGY=?=", Some("/p/file-и.pdf")),
            ("=?UTF-8?Q?/p/a=C3=A9_b=5F.pdf?=", Some("/p/aé b_.pdf")),
            ("=?utf-8?q??=", Some("")),
            ("/p/a=?utf-8?q?a?=", None),
            ("=?utf-8?q?a?= =?utf-8?q?b?=", None),
            ("=?utf-8?q?=C?=", None),
            ("=?utf-8?q?=zz?=", None),
            ("=?utf-8?b?L3?=", None),
            ("=?utf-8?x?a?=", None),
            ("=?latin1?q?a?=", None),
            ("=?", None),
            ("", None),
        ] {
            let told = decode(value.as_bytes()).map(|text| String::from_utf8(text).unwrap());
            assert_eq!(told.as_deref(), text, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(value in "(=\\?utf-8\\?[bqQ]\\?)?[-=?_a-zA-Z0-9/é]{0,40}(\\?=)?") {
            let _ = decode(value.as_bytes());
        }
    }
}
