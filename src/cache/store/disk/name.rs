//! The names that keys have in the folder.

use super::super::Key;

/// Letters of a key.
const HEX: usize = 2 * Key::LENGTH;

/// A key in hexadecimal, in lower case.
pub(super) fn hex(key: &Key) -> [u8; HEX] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; HEX];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(key.as_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    hex
}

/// The key of this name. `None`: it is the name of none.
pub(super) fn from_hex(hex: &[u8]) -> Option<Key> {
    let digit = |letter: u8| match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    };
    if hex.len() != HEX {
        return None;
    }
    let mut key = [0; Key::LENGTH];
    for (byte, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(Key::from_bytes(key))
}

/// Where the file of a key is: `ab/cd/abcd…`.
pub(super) fn path_of(key: &Key) -> String {
    let hex = hex(key);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (first, second, all) = (text(&hex[..2]), text(&hex[2..4]), text(&hex));
    format!("{first}/{second}/{all}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_name() {
        let key = Key::from_bytes(std::array::from_fn(|at| at as u8 * 8 + 3));
        let name = hex(&key);
        assert_eq!(from_hex(&name), Some(key));
        assert!(path_of(&key).starts_with("03/0b/030b131b"));
        assert_eq!(from_hex(&name.to_ascii_uppercase()), None);
        assert_eq!(from_hex(&name[1..]), None);
        assert_eq!(from_hex(&[b'g'; HEX]), None);
    }
}
