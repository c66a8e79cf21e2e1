//! Signed tokens: JWT (RFC 7519) in the compact form of JWS (RFC 7515), read as RFC 8725 advises.
//!
//! The one who asks decides how tokens are signed, and with whose keys; a token only chooses among them. What it says about
//! keys otherwise (`jku`, `jwk`, `x5u`, `x5c`) is not looked at. Nothing of its claims is read before its signature is found
//! good.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::json::{Json, Map, object};
use super::jwk::{Algorithm, Key, KeySet, LONGEST_ID};

/// Bytes of a token: what is larger does not fit into many servers' heads either.
pub const LONGEST: usize = 16 << 10;
/// A token that names no key is tried with those that fit, the first ones: each is work that every stranger can ask for.
const MOST_TRIES: usize = 8;
/// Bytes of a claim that becomes a field.
const LONGEST_CLAIM: usize = 4 << 10;

/// What a token must be to be good here.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// How it may be signed. Not empty.
    pub algorithms: Vec<Algorithm>,
    /// `iss`, to the letter.
    pub issuer: String,
    /// One of these must be in `aud`. Not empty.
    pub audience: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $words:literal;)*) => {
        /// Why a token is not good.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            /// For the client (`error_description`, RFC 6750) and the log.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
        }
    };
}

refusals! {
    /// More than [`LONGEST`] bytes.
    TooLong = "the token is too long";
    /// Not three parts of base64url with dots between, or not JSON in them.
    Malformed = "the token is malformed";
    /// `alg` is not one of [`Expected::algorithms`].
    Algorithm = "the token is not signed in a way that is taken here";
    /// `crit`, `b64`, `cty` or `typ` say that it is something else than a plain JWT.
    Kind = "the token is of a kind that is not taken here";
    /// No key by its `kid`, or none that fits its `alg`.
    UnknownKey = "the token is signed with an unknown key";
    /// The signature is not of this token and this key.
    Signature = "the signature of the token is wrong";
    /// `exp` has passed.
    Expired = "the token has expired";
    /// `nbf` or `iat` has not come.
    NotYet = "the token is not valid yet";
    /// `iss` is another, or missing.
    Issuer = "the token is of another issuer";
    /// `aud` does not have us, or is missing.
    Audience = "the token is for another audience";
    /// A claim is missing, or is of the wrong type.
    Claims = "a claim of the token is missing or malformed";
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token whose signature has not been looked at: what it says is not to be believed. Neither this nor [`Claims`] can be
/// printed, so that none gets into a log.
pub struct Unverified<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    /// What was signed.
    message: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
}

/// What a good token says.
pub struct Claims(Map);

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// Why it cannot be good, whatever the keys are.
    pub fn parse(token: &'a [u8], expected: &Expected) -> Result<Self, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::TooLong);
        }
        let token = std::str::from_utf8(token).map_err(|_| Refusal::Malformed)?;
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Malformed);
        };
        let header = object(&decoded(header)?).map_err(|_| Refusal::Malformed)?;
        let algorithm = algorithm(&header, expected)?;
        check_kind(&header)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Json::Text(id)) if id.len() <= LONGEST_ID => Some(id.clone()),
            Some(_) => return Err(Refusal::UnknownKey),
        };
        let message = &token[..token.len() - signature.len() - 1];
        Ok(Self { algorithm, key_id, message, claims, signature: decoded(signature)? })
    }

    /// Verifies the signature, then the claims. `now` is since 1970.
    ///
    /// # Errors
    /// Why it is not good. [`Refusal::UnknownKey`] may pass when the keys are read anew.
    pub fn verify(&self, keys: &KeySet, expected: &Expected, now: Duration) -> Result<Claims, Refusal> {
        let mut candidates = keys.keys().iter().filter(|key| self.may_be_of(key)).take(MOST_TRIES).peekable();
        if candidates.peek().is_none() {
            return Err(Refusal::UnknownKey);
        }
        if !candidates.any(|key| key.has_signed(self.algorithm, self.message.as_bytes(), &self.signature)) {
            return Err(Refusal::Signature);
        }
        let claims = object(&decoded(self.claims)?).map_err(|_| Refusal::Malformed)?;
        check_claims(&claims, expected, now)?;
        Ok(Claims(claims))
    }

    fn may_be_of(&self, key: &Key) -> bool {
        key.fits(self.algorithm) && self.key_id.as_deref().is_none_or(|id| key.id() == Some(id))
    }
}

/// Strict: no padding, no other alphabet, no bits that nobody looks at. The same token has one spelling.
fn decoded(part: &str) -> Result<Vec<u8>, Refusal> {
    if part.is_empty() {
        return Err(Refusal::Malformed);
    }
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)
}

fn algorithm(header: &Map, expected: &Expected) -> Result<Algorithm, Refusal> {
    let name = header.get("alg").and_then(Json::text).ok_or(Refusal::Algorithm)?;
    Algorithm::named(name).filter(|algorithm| expected.algorithms.contains(algorithm)).ok_or(Refusal::Algorithm)
}

/// A plain JWT or an access token (RFC 9068): not a logout token, a proof of possession, or a token within a token. Extensions
/// that must be understood (`crit`) are not.
fn check_kind(header: &Map) -> Result<(), Refusal> {
    let is_strange = ["crit", "b64", "cty", "enc", "zip"].iter().any(|name| header.contains_key(*name));
    let is_known = header.get("typ").is_none_or(|kind| {
        let kind = kind.text().map(str::to_ascii_lowercase).unwrap_or_default();
        matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
    });
    if is_strange || !is_known { Err(Refusal::Kind) } else { Ok(()) }
}

fn check_claims(claims: &Map, expected: &Expected, now: Duration) -> Result<(), Refusal> {
    let (now, leeway) = (now.as_secs_f64(), expected.leeway.as_secs_f64());
    let expires = time(claims, "exp")?.ok_or(Refusal::Claims)?;
    if now >= expires + leeway {
        return Err(Refusal::Expired);
    }
    for name in ["nbf", "iat"] {
        if time(claims, name)?.is_some_and(|from| from > now + leeway) {
            return Err(Refusal::NotYet);
        }
    }
    if claims.get("iss").and_then(Json::text) != Some(&expected.issuer) {
        return Err(Refusal::Issuer);
    }
    let is_ours =
        |audience: &Json| audience.text().is_some_and(|name| expected.audience.iter().any(|ours| ours == name));
    let is_for_us = match claims.get("aud") {
        Some(Json::List(list)) => list.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    };
    if is_for_us { Ok(()) } else { Err(Refusal::Audience) }
}

/// Seconds since 1970 (RFC 7519, 2: NumericDate).
fn time(claims: &Map, name: &str) -> Result<Option<f64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Number(number)) => {
            number.as_f64().filter(|seconds| *seconds >= 0.0).map(Some).ok_or(Refusal::Claims)
        }
        Some(_) => Err(Refusal::Claims),
    }
}

impl Claims {
    /// A claim as a field can have it: text, a number, a truth value, or a list of texts with commas between. `None`: the
    /// token does not have it, or it is empty.
    ///
    /// # Errors
    /// [`Refusal::Claims`] when it is nothing of that, is too long, has control characters, or is a list that could be read
    /// otherwise.
    pub fn field(&self, name: &str) -> Result<Option<String>, Refusal> {
        let text = match self.0.get(name) {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::Text(text)) => text.clone(),
            Some(Json::Number(number)) => number.to_string(),
            Some(Json::Bool(value)) => value.to_string(),
            Some(Json::List(list)) => {
                let texts: Option<Vec<&str>> = list.iter().map(Json::text).collect();
                let texts = texts.ok_or(Refusal::Claims)?;
                if texts.iter().any(|text| text.is_empty() || text.contains(',') || text.trim() != *text) {
                    return Err(Refusal::Claims);
                }
                texts.join(",")
            }
            Some(Json::Map(_)) => return Err(Refusal::Claims),
        };
        // A value begins and ends with something that can be seen (RFC 9110, 5.5).
        let is_value = text.len() <= LONGEST_CLAIM && text.trim() == text && !text.chars().any(char::is_control);
        if is_value { Ok(Some(text).filter(|text| !text.is_empty())) } else { Err(Refusal::Claims) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
