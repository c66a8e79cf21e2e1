//! Pieces of the common log format, straight into a byte buffer.

use super::json::civil;
use crate::http::text::append_padded;

/// Appends what a client has sent, to stand between quotes: `"`, `\` and whatever is not printable ASCII as `\xHH`, as
/// nginx does. Nothing at all is `-`.
pub fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    escaped(out, bytes, |byte| matches!(byte, b' '..=b'~'));
}

/// The same to stand between spaces, of which it has none.
pub fn word(out: &mut Vec<u8>, bytes: &[u8]) {
    escaped(out, bytes, |byte| byte.is_ascii_graphic());
}

fn escaped(out: &mut Vec<u8>, bytes: &[u8], is_plain: impl Fn(u8) -> bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if bytes.is_empty() {
        return out.push(b'-');
    }
    for &byte in bytes {
        if is_plain(byte) && byte != b'"' && byte != b'\\' {
            out.push(byte);
        } else {
            out.extend_from_slice(b"\\x");
            out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

/// Appends a moment as `28/Nov/2026:21:30:00 +0000`, from seconds since 1970.
pub fn time(out: &mut Vec<u8>, unix_seconds: u64) {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (year, month, day) = civil(unix_seconds / 86_400);
    let of_day = unix_seconds % 86_400;
    append_padded(out, day, 2);
    out.push(b'/');
    let month = usize::try_from(month).unwrap_or(1).clamp(1, 12) - 1;
    out.extend_from_slice(&MONTHS[month * 3..month * 3 + 3]);
    out.push(b'/');
    append_padded(out, year, 4);
    for part in [of_day / 3600, of_day / 60 % 60, of_day % 60] {
        out.push(b':');
        append_padded(out, part, 2);
    }
    out.extend_from_slice(b" +0000");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// What the escapes stand for.
    fn read(text: &str) -> Vec<u8> {
        let mut parts = text.split("\\x");
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_field_ends_itself_or_its_line_and_each_can_be_read_back(bytes in prop::collection::vec(any::<u8>(), 1..100)) {
            let text = written(|out| field(out, &bytes));
            prop_assert!(text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"'), "{text:?}");
            prop_assert_eq!(read(&text), &bytes[..]);
            let text = written(|out| word(out, &bytes));
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b'"'), "{text:?}");
            prop_assert_eq!(read(&text), &bytes[..]);
        }
    }

    #[test]
    fn fields_are_escaped_as_nginx_does() {
        assert_eq!(written(|out| field(out, b"")), "-");
        assert_eq!(written(|out| field(out, b"Mozilla/5.0 (X11)")), "Mozilla/5.0 (X11)");
        assert_eq!(written(|out| field(out, b"a\" \r\n\\ \xc3\xa9")), "a\\x22 \\x0D\\x0A\\x5C \\xC3\\xA9");
    }

    #[test]
    fn the_time_is_the_one_of_the_common_log_format() {
        assert_eq!(written(|out| time(out, 0)), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(written(|out| time(out, 1_795_381_380)), "22/Nov/2026:21:03:00 +0000");
        assert_eq!(written(|out| time(out, 951_782_399 + 86_400)), "29/Feb/2000:23:59:59 +0000");
    }
}
