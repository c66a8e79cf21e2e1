//! A value that opens a door: no log, message or debug output tells it, and no answer how much of a guess was right.

use std::fmt;
use std::hint::black_box;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// A token or a key, as the operator wrote it.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps it.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Whether this is it. The time that takes tells at most whether the length was right.
    #[must_use]
    pub fn is(&self, brought: &[u8]) -> bool {
        let differences = brought.iter().zip(self.0.as_bytes()).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
        brought.len() == self.0.len() && differences == 0
    }

    /// Its bytes as a key: with `base64:` before it, what that stands for, as in a `GRIP_URL`. `None`: it stands for nothing.
    #[must_use]
    pub fn key(&self) -> Option<Vec<u8>> {
        match self.0.strip_prefix("base64:") {
            Some(encoded) => BASE64_STANDARD.decode(encoded).ok().filter(|key| !key.is_empty()),
            None => Some(self.0.as_bytes().to_vec()),
        }
    }

    /// The value itself, for whoever has to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.0.as_bytes())
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_it() {
        let secret = Secret::new("0123456789abcdef");
        assert!(secret.is(b"0123456789abcdef") && secret == Secret::new(secret.expose()));
        for at in 0..16 {
            let mut guess = *b"0123456789abcdef";
            guess[at] ^= 1;
            assert!(!secret.is(&guess), "wrong at {at}");
            assert!(!secret.is(&b"0123456789abcdef"[..at]), "cut at {at}");
        }
        assert!(!secret.is(b"0123456789abcdef0") && !secret.is(b""));
    }

    #[test]
    fn as_a_key_it_may_be_written_in_base64() {
        assert_eq!(Secret::new("changeme").key().unwrap(), b"changeme");
        assert_eq!(Secret::new("base64:AAH/").key().unwrap(), [0, 1, 255]);
        assert_eq!((Secret::new("base64:").key(), Secret::new("base64:a b").key()), (None, None));
    }

    #[test]
    fn debug_output_does_not_tell_it() {
        let admin =
            crate::config::Admin { bind: crate::config::Bind::Any(9180), token: Some(Secret::new("0123456789abcdef")) };
        let told = format!("{admin:?} {:#?}", admin.token);
        assert!(told.contains("Secret(***)") && !told.contains("0123456789abcdef"), "{told}");
    }
}
