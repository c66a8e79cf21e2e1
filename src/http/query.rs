//! The query of a request as an app reads it: pairs of name and value with `&` between them, `+` for a space, `%41` for `A`.
//!
//! A `%` that no two hex digits follow is itself, as Python's `urllib.parse` has it.

/// The pairs, encoded, in their order. A piece without `=` has an empty value.
pub fn pairs(query: &str) -> impl Iterator<Item = (&[u8], &[u8])> {
    let query = query.strip_prefix('?').unwrap_or(query).as_bytes();
    query.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()).map(|piece| {
        let end = memchr::memchr(b'=', piece).unwrap_or(piece.len());
        (&piece[..end], piece.get(end + 1..).unwrap_or_default())
    })
}

/// Whether there is a pair of this name and this value, both decoded.
#[must_use]
pub fn has(query: &str, name: &str, value: &str) -> bool {
    pairs(query).any(|(piece, of)| is(piece, name) && is(of, value))
}

/// Whether a piece stands for this text.
#[must_use]
pub fn is(piece: &[u8], text: &str) -> bool {
    decoded(piece).eq(text.bytes())
}

/// The bytes that a piece stands for.
fn decoded(piece: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        rest = after;
        match (first, escape(after)) {
            (b'+', _) => Some(b' '),
            (b'%', Some(byte)) => {
                rest = &after[2..];
                Some(byte)
            }
            (byte, _) => Some(*byte),
        }
    })
}

/// The byte of the two hex digits that `rest` begins with.
fn escape(rest: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pair_is_found_as_the_app_reads_it() {
        for (query, name, value, is_there) in [
            ("?v=2", "v", "2", true),
            ("?a=1&v=2", "v", "2", true),
            ("?v=1&v=2", "v", "2", true),
            ("?v=22", "v", "2", false),
            ("?V=2", "v", "2", false),
            ("?v=%32", "v", "2", true),
            ("?%76=2", "v", "2", true),
            ("?q=a+b", "q", "a b", true),
            ("?q=a%2Bb", "q", "a+b", true),
            ("?q=caf%C3%A9", "q", "café", true),
            ("?q=50%", "q", "50%", true),
            ("?q=%zz", "q", "%zz", true),
            ("?q=%4", "q", "%4", true),
            ("?beta", "beta", "", true),
            ("?beta=", "beta", "", true),
            ("?=x", "", "x", true),
            ("?q=a=b", "q", "a=b", true),
            ("?a;v=2", "v", "2", false),
            ("?", "", "", false),
            ("", "", "", false),
            ("?&&", "", "", false),
        ] {
            assert_eq!(has(query, name, value), is_there, "{query} {name}={value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_encoded_is_read_back(name in "\\PC{0,6}", value in "\\PC{0,6}", before in "[a&=%+]{0,6}") {
            let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let query = format!("?{before}&{}={}", encode(&name), encode(&value));
            prop_assert!(has(&query, &name, &value));
        }
    }
}
