//! JSON written straight into a byte buffer, for lines that are made once per request and for `/status`.
//!
//! Whatever bytes go in, one valid JSON text without a line break comes out: control bytes (C1 and the Unicode line
//! separators with them, because terminals and line readers act on them) are escaped, and what is no UTF-8 becomes
//! U+FFFD. Numbers are written without allocation and without `core::fmt`.

use std::time::Duration;

use crate::http::text::{append_address, append_decimal, append_padded};

/// An object under construction. [`Object::end`] closes it; dropping it leaves it open.
#[derive(Debug)]
#[must_use = "an object that is not ended is not JSON"]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Opens an object at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// A string member, from any bytes.
    pub fn text(&mut self, key: &str, value: impl AsRef<[u8]>) -> &mut Self {
        string(self.key(key), value.as_ref());
        self
    }

    /// An address.
    pub fn address(&mut self, key: &str, value: std::net::IpAddr) -> &mut Self {
        let out = self.key(key);
        out.push(b'"');
        append_address(out, value);
        out.push(b'"');
        self
    }

    /// A whole number.
    pub fn integer(&mut self, key: &str, value: u64) -> &mut Self {
        integer(self.key(key), value);
        self
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key).extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// A duration as milliseconds with three decimals.
    pub fn millis(&mut self, key: &str, value: Duration) -> &mut Self {
        millis(self.key(key), value);
        self
    }

    /// A duration as seconds with six decimals.
    pub fn seconds(&mut self, key: &str, value: Duration) -> &mut Self {
        seconds(self.key(key), value);
        self
    }

    /// A moment as an RFC 3339 string in UTC with milliseconds.
    pub fn timestamp(&mut self, key: &str, unix_millis: u64) -> &mut Self {
        let out = self.key(key);
        out.push(b'"');
        timestamp(out, unix_millis);
        out.push(b'"');
        self
    }

    /// A number with at most six decimals; what is no number is `null`.
    pub fn decimal(&mut self, key: &str, value: f64) -> &mut Self {
        let out = self.key(key);
        match value.is_finite() {
            // Rounded first, so that 0.1 stays 0.1.
            true => out.extend_from_slice(((value * 1e6).round() / 1e6).to_string().as_bytes()),
            false => out.extend_from_slice(b"null"),
        }
        self
    }

    /// A member that has no value now.
    pub fn null(&mut self, key: &str) -> &mut Self {
        self.key(key).extend_from_slice(b"null");
        self
    }

    /// An object within this one.
    pub fn object(&mut self, key: &str, write: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        let mut object = Object::begin(self.key(key));
        write(&mut object);
        object.end();
        self
    }

    /// A list of objects.
    pub fn list<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Object<'_>, T),
    ) -> &mut Self {
        let out = self.key(key);
        out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let mut object = Object::begin(out);
            write(&mut object, item);
            object.end();
        }
        out.push(b']');
        self
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        string(self.out, key.as_bytes());
        self.out.push(b':');
        self.out
    }
}

/// Appends a JSON string with its quotes, from any bytes.
pub fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let mut rest = bytes;
    loop {
        let plain = rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(plain);
        out.extend_from_slice(head);
        let Some((&byte, after)) = tail.split_first() else { break };
        if byte.is_ascii() {
            escape_ascii(out, byte);
            rest = after;
        } else {
            // No UTF-8 sequence reaches past the next ASCII byte, so the run stands for itself.
            let run = tail.iter().position(u8::is_ascii).unwrap_or(tail.len());
            let (run, after) = tail.split_at(run);
            non_ascii(out, run);
            rest = after;
        }
    }
    out.push(b'"');
}

const fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

fn escape_ascii(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => return escape_code(out, u16::from(byte)),
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn escape_code(out: &mut Vec<u8>, code: u16) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u");
    out.extend([12, 8, 4, 0].map(|shift| HEX[usize::from(code >> shift & 0xf)]));
}

fn non_ascii(out: &mut Vec<u8>, run: &[u8]) {
    for chunk in run.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => escape_code(out, character as u16),
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends a whole number.
pub fn integer(out: &mut Vec<u8>, value: u64) {
    append_decimal(out, value);
}

/// Appends a duration as milliseconds with three decimals: `12.345`.
pub fn millis(out: &mut Vec<u8>, value: Duration) {
    integer(out, value.as_secs().saturating_mul(1000).saturating_add(u64::from(value.subsec_millis())));
    out.push(b'.');
    append_padded(out, u64::from(value.subsec_micros() % 1000), 3);
}

/// Appends a duration as seconds with six decimals: `0.012345`.
pub fn seconds(out: &mut Vec<u8>, value: Duration) {
    integer(out, value.as_secs());
    out.push(b'.');
    append_padded(out, u64::from(value.subsec_micros()), 6);
}

/// Appends a moment as `2026-11-22T21:03:00.123Z`, without quotes.
pub fn timestamp(out: &mut Vec<u8>, unix_millis: u64) {
    let seconds = unix_millis / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    for (value, width, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (of_day / 3600, 2, b':'),
        (of_day / 60 % 60, 2, b':'),
        (of_day % 60, 2, b'.'),
        (unix_millis % 1000, 3, b'Z'),
    ] {
        append_padded(out, value, width);
        out.push(after);
    }
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
pub(super) fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last day of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_valid_line_that_says_the_same(key in ".*", value in prop::collection::vec(any::<u8>(), 0..200)) {
            let line = written(|out| {
                let mut object = Object::begin(out);
                object.text(&key, &value).integer("n", 1);
                object.end();
            });
            prop_assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}'), "{line:?}");
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
            if key != "n" {
                prop_assert_eq!(parsed[&key].as_str().unwrap(), String::from_utf8_lossy(&value));
            }
        }

        #[test]
        fn numbers_read_back_exactly(value in any::<u64>()) {
            prop_assert_eq!(written(|out| integer(out, value)), value.to_string());
            let micros = value % (1 << 50);
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(written(|out| millis(out, duration)), format!("{}.{:03}", micros / 1000, micros % 1000));
            prop_assert_eq!(written(|out| seconds(out, duration)), format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
        }
    }

    #[test]
    fn quotes_controls_and_broken_utf8_are_escaped() {
        let text = |bytes: &[u8]| written(|out| string(out, bytes));
        assert_eq!(text(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(text(b"\n\r\t\0\x1b\x7f"), r#""\n\r\t\u0000\u001b\u007f""#);
        assert_eq!(text("é\u{85}\u{2028}😀".as_bytes()), "\"é\\u0085\\u2028😀\"");
        assert_eq!(text(b"a\xff\xc3\x28\xe2\x82"), "\"a\u{fffd}\u{fffd}(\u{fffd}\"");
    }

    #[test]
    fn members_are_separated_and_typed() {
        let line = written(|out| {
            let mut object = Object::begin(out);
            object
                .boolean("ok", true)
                .millis("ms", Duration::from_micros(12_345))
                .seconds("s", Duration::from_millis(7));
            object.timestamp("time", 0);
            object.end();
        });
        assert_eq!(line, r#"{"ok":true,"ms":12.345,"s":0.007000,"time":"1970-01-01T00:00:00.000Z"}"#);
        assert_eq!(written(|out| Object::begin(out).end()), "{}");
    }

    #[test]
    fn objects_and_lists_stand_within_others() {
        let line = written(|out| {
            let mut object = Object::begin(out);
            object.decimal("a", 0.1 + 0.2).decimal("b", f64::NAN).null("c").object("d", |d| {
                d.integer("e", 1);
            });
            object.list("f", [1, 2], |item, n| {
                item.integer("n", n);
            });
            object.list("g", [0; 0], |_, _| {});
            object.end();
        });
        assert_eq!(line, r#"{"a":0.3,"b":null,"c":null,"d":{"e":1},"f":[{"n":1},{"n":2}],"g":[]}"#);
    }

    #[test]
    fn durations_beyond_the_range_do_not_wrap() {
        assert_eq!(written(|out| millis(out, Duration::MAX)), "18446744073709551615.999");
        assert_eq!(written(|out| seconds(out, Duration::MAX)), "18446744073709551615.999999");
    }

    #[test]
    fn timestamps_know_the_calendar() {
        for (millis, text) in [
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_795_381_380_123, "2026-11-22T21:03:00.123Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(written(|out| timestamp(out, millis)), text);
        }
        assert!(written(|out| timestamp(out, u64::MAX)).ends_with('Z'));
    }
}
