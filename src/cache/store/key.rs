//! What an object is found by.

use std::fmt;

/// A strong hash over everything that tells one stored response from another (RFC 9111, 2): two responses that must not be
/// mistaken for each other have two keys. Opaque to the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; Self::LENGTH]);

impl Key {
    /// Bytes of a key.
    pub const LENGTH: usize = 32;
    /// Letters of its name in a folder.
    pub(super) const HEX: usize = 2 * Self::LENGTH;

    /// In hexadecimal, in lower case.
    pub(super) fn hex(&self) -> [u8; Self::HEX] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; Self::HEX];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }

    /// The key of this name. `None`: it is the name of none.
    pub(super) fn from_hex(hex: &[u8]) -> Option<Self> {
        let digit = |letter: u8| match letter {
            b'0'..=b'9' => Some(letter - b'0'),
            b'a'..=b'f' => Some(letter - b'a' + 10),
            _ => None,
        };
        if hex.len() != Self::HEX {
            return None;
        }
        let mut key = [0; Self::LENGTH];
        for (byte, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_name() {
        let key = Key(std::array::from_fn(|at| at as u8 * 8 + 3));
        let name = key.hex();
        assert_eq!(Key::from_hex(&name), Some(key));
        assert!(name.starts_with(b"030b131b"));
        assert_eq!(Key::from_hex(&name.to_ascii_uppercase()), None);
        assert_eq!(Key::from_hex(&name[1..]), None);
        assert_eq!(Key::from_hex(&[b'g'; Key::HEX]), None);
    }
}
