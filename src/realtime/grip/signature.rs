//! `Grip-Sig`: by this an app knows that it is the gateway that asks. A JWT (RFC 7519), signed with HS256, with `iss` and `exp`.
//!
//! It says nothing of the request, so that one is good for all requests of a minute. It says what it is for, which is nothing to a
//! library that verifies it: whoever sees one, an app's log or its debugger, is not to publish by it.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderValue;

use crate::config;

/// The claim that says what it is for, and its value: the door of publishers refuses such a token.
pub(in crate::realtime) const USE: (&str, &str) = ("use", "grip-sig");
/// How long one is good for at least.
const VALID: u64 = 3_600;
/// How long one is used, in seconds.
const USED: u64 = 60;

/// What all threads sign with. Whoever is held outlives a reload, and is asked for with the key that is in force then.
pub struct SigningKey {
    current: ArcSwap<Key>,
}

struct Key {
    key: hmac::Key,
    issuer: String,
}

impl SigningKey {
    /// That of the configuration; without a secret, one that nobody knows: apps that do not verify want to see a signature, too.
    #[must_use]
    pub fn compile(grip: &config::Grip) -> Arc<Self> {
        let known = grip.secret.as_ref().and_then(config::Secret::key);
        let secret = known.unwrap_or_else(|| {
            let mut random = vec![0; 32];
            // Should there be no random numbers, nothing is given away: nobody verifies it.
            let _ = SystemRandom::new().fill(&mut random);
            random
        });
        let key = Key { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), issuer: grip.issuer.clone() };
        Arc::new(Self { current: ArcSwap::from_pointee(key) })
    }

    /// From now on it is the same as that one.
    pub fn follow(&self, other: &Self) {
        self.current.store(other.current.load_full());
    }
}

impl Key {
    /// A token that expires then, in seconds since 1970.
    fn sign(&self, expires: u64) -> Option<HeaderValue> {
        let issuer = serde_json::Value::from(self.issuer.as_str());
        let claims = format!("{{\"iss\":{issuer},\"exp\":{expires},\"{}\":\"{}\"}}", USE.0, USE.1);
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let message = format!("{}.{}", encode(br#"{"typ":"JWT","alg":"HS256"}"#), encode(claims.as_bytes()));
        let signature = hmac::sign(&self.key, message.as_bytes());
        HeaderValue::from_str(&format!("{message}.{}", encode(signature.as_ref()))).ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("issuer", &self.current.load().issuer).finish_non_exhaustive()
    }
}

/// A thread's signer: makes one signature a minute.
pub struct Signer {
    key: Arc<SigningKey>,
    /// With the minute and the key.
    last: RefCell<Option<(u64, Arc<Key>, HeaderValue)>>,
}

impl Signer {
    /// With this key.
    #[must_use]
    pub const fn new(key: Arc<SigningKey>) -> Self {
        Self { key, last: RefCell::new(None) }
    }

    /// The value of `Grip-Sig`. `now` is since 1970. `None` is a fault that has no cause.
    #[must_use]
    pub fn signature(&self, now: Duration) -> Option<HeaderValue> {
        let period = now.as_secs() / USED;
        let mut last = self.last.borrow_mut();
        let current = self.key.current.load();
        if let Some((known, key, signature)) = &*last
            && *known == period
            && Arc::ptr_eq(key, &current)
        {
            return Some(signature.clone());
        }
        let signature = current.sign((period + 1) * USED + VALID)?;
        *last = Some((period, Arc::clone(&current), signature.clone()));
        Some(signature)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn signer(secret: Option<&str>, issuer: &str) -> Signer {
        let grip = config::Grip { secret: secret.map(Secret::new), issuer: issuer.into() };
        Signer::new(SigningKey::compile(&grip))
    }

    fn parts(signature: &HeaderValue) -> (String, String) {
        let text = signature.to_str().unwrap();
        let (message, _) = text.rsplit_once('.').unwrap();
        let (_, claims) = message.split_once('.').unwrap();
        (text.to_owned(), String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap())
    }

    #[test]
    fn it_is_a_token_as_others_make_it() {
        // Made with PyJWT: jwt.encode({"iss": "hostler", "exp": 3720, "use": "grip-sig"}, "changeme-changeme-changeme-123456", headers={"typ": "JWT"})
        // differs in nothing but the order of keys, so that only the parts are compared.
        let signature = signer(Some("changeme-changeme-changeme-123456"), "hostler").signature(Duration::from_secs(61));
        let (text, claims) = parts(&signature.unwrap());
        assert_eq!(claims, r#"{"iss":"hostler","exp":3720,"use":"grip-sig"}"#);
        let (message, proof) = text.rsplit_once('.').unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"changeme-changeme-changeme-123456");
        hmac::verify(&key, message.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(proof).unwrap()).unwrap();
    }

    #[test]
    fn one_is_used_for_a_minute_and_good_for_an_hour_after_that() {
        let signer = signer(Some("base64:Y2hhbmdlbWU="), "a\"b");
        let at = |seconds| signer.signature(Duration::from_secs(seconds)).unwrap();
        assert_eq!(at(0), at(59));
        assert_ne!(at(59), at(60));
        assert_eq!(parts(&at(60)).1, r#"{"iss":"a\"b","exp":3720,"use":"grip-sig"}"#);
    }

    #[test]
    fn a_signer_of_before_a_reload_signs_with_the_key_of_after_it() {
        let key = |secret: &str, issuer: &str| {
            SigningKey::compile(&config::Grip { secret: Some(Secret::new(secret)), issuer: issuer.into() })
        };
        let in_force = key("changeme-changeme-changeme-123456", "old");
        let signer = Signer::new(Arc::clone(&in_force));
        let now = Duration::from_secs(61);
        let before = signer.signature(now).unwrap();
        let other = key("another-another-another-12345678", "new");
        in_force.follow(&other);
        let after = signer.signature(now).unwrap();
        assert_ne!(before, after);
        assert_eq!(after, Signer::new(other).signature(now).unwrap());
    }

    #[test]
    fn without_a_secret_nobody_can_make_one() {
        let now = Duration::from_secs(5);
        assert_ne!(signer(None, "x").signature(now), signer(None, "x").signature(now));
    }
}
