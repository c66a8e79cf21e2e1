//! Who may publish.
//!
//! With a secret, whoever proves that it knows it, in any way that the libraries have:
//!
//! | `Authorization` | from |
//! |---|---|
//! | `Bearer` and a token (JWT, HS256, with `exp`) | a key with an issuer, as of a `GRIP_URL` with `iss` |
//! | `Bearer` and the secret itself | a key without one |
//! | `Basic`, the secret as the password of any name | pubcontrol's `auth_basic`, which puts it between `b'` and `'` |
//!
//! Without one, whoever can connect: the address is this machine's alone then, or a unix socket. What has to be kept out there is a
//! browser on this machine, through which any page can reach loopback.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use crate::config::{Secret, is_loopback};
use crate::http::Host;
use crate::realtime::grip::USE;
use crate::realtime::grip::json::BASE64;

/// How far clocks may differ.
const LEEWAY: f64 = 30.0;
/// Bytes of a token.
const LONGEST: usize = 8 << 10;

/// Why somebody may not publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing was brought, or nothing that proves anything.
    Unproven(&'static str),
    /// It comes from a browser, or by a name that is none of this machine.
    Foreign(&'static str),
}

/// Whether a request may publish. `now` is since 1970.
pub(super) fn refusal(
    headers: &HeaderMap,
    host: Option<&Host>,
    secret: Option<&Secret>,
    is_unix: bool,
    now: Duration,
) -> Option<Refusal> {
    match secret {
        Some(secret) => unproven(headers, secret, now).map(Refusal::Unproven),
        None => foreign(headers, host, is_unix).map(Refusal::Foreign),
    }
}

fn foreign(headers: &HeaderMap, host: Option<&Host>, is_unix: bool) -> Option<&'static str> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Some("a web page may not publish: this request says that it comes from a browser");
    }
    // No name leads a browser to a unix socket.
    if !is_unix && !host.is_some_and(is_this_machine) {
        return Some("without realtime.publish.secret the Host of a request must be localhost or a loopback address");
    }
    None
}

fn is_this_machine(host: &Host) -> bool {
    let name = host.name();
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok_and(is_loopback)
}

fn unproven(headers: &HeaderMap, secret: &Secret, now: Duration) -> Option<&'static str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let field = match (fields.next(), fields.next()) {
        (Some(field), None) => field,
        (None, _) => return Some("write an Authorization that proves realtime.publish.secret"),
        (Some(_), Some(_)) => return Some("there is more than one Authorization"),
    };
    let Some(space) = memchr::memchr(b' ', field).filter(|_| field.len() <= LONGEST) else {
        return Some("the Authorization is neither Bearer nor Basic");
    };
    let (scheme, brought) = (&field[..space], field[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        let is_it = secret.is(brought) || is_signed(brought, secret, now);
        return (!is_it).then_some("the Authorization does not prove realtime.publish.secret, or has expired");
    }
    if scheme.eq_ignore_ascii_case(b"basic") {
        return (!has_password(brought, secret)).then_some("the password is not realtime.publish.secret");
    }
    Some("the Authorization is neither Bearer nor Basic")
}

/// `name:password` in base64, perhaps as Python 3 writes bytes.
fn has_password(brought: &[u8], secret: &Secret) -> bool {
    let brought = brought.strip_prefix(b"b'").and_then(|inner| inner.strip_suffix(b"'")).unwrap_or(brought);
    let Ok(pair) = BASE64.decode(brought) else { return false };
    memchr::memchr(b':', &pair).is_some_and(|colon| secret.is(&pair[colon + 1..]))
}

/// A token that the secret has signed, and that has not expired. Not one of those by which apps know the gateway: every app and
/// what it writes down sees those. Nothing of it is read before its signature is found good.
fn is_signed(token: &[u8], secret: &Secret, now: Duration) -> bool {
    let (Ok(token), Some(key)) = (std::str::from_utf8(token), secret.key()) else { return false };
    let Some((message, signature)) = token.rsplit_once('.') else { return false };
    let Some((head, claims)) = message.split_once('.') else { return false };
    let Ok(signature) = BASE64_URL_SAFE_NO_PAD.decode(signature) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    if hmac::verify(&key, message.as_bytes(), &signature).is_err() {
        return false;
    }
    let json = |part: &str| serde_json::from_slice::<Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let (Some(head), Some(claims)) = (json(head), json(claims)) else { return false };
    let expires = claims.get("exp").and_then(Value::as_f64);
    head.get("alg").and_then(Value::as_str) == Some("HS256")
        && claims.get(USE.0).and_then(Value::as_str) != Some(USE.1)
        && expires.is_some_and(|expires| expires + LEEWAY > now.as_secs_f64())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::realtime::grip::{Signer, SigningKey};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: Duration = Duration::from_secs(1_000_000);

    fn token(key: &str, head: &str, claims: &str) -> String {
        let encode = |text: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encode(head.as_bytes()), encode(claims.as_bytes()));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), message.as_bytes());
        format!("Bearer {message}.{}", encode(signature.as_ref()))
    }

    fn is_let_in(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        refusal(&headers, None, Some(&Secret::new(SECRET)), false, NOW).is_none()
    }

    #[test]
    fn whoever_knows_the_secret_is_let_in_however_the_library_says_it() {
        const HEAD: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
        let basic = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
        for value in [
            token(SECRET, HEAD, r#"{"iss":"pushpin","exp":1000010}"#),
            token(SECRET, HEAD, r#"{"exp":999980.5}"#),
            format!("Bearer {SECRET}"),
            format!("bearer  {SECRET}"),
            format!("Basic {}", basic(&format!("anybody:{SECRET}"))),
            format!("Basic b'{}'", basic(&format!("user:{SECRET}"))),
            format!("Basic {}", basic(&format!(":{SECRET}")).trim_end_matches('=')),
        ] {
            assert!(is_let_in(&[&value]), "{value}");
        }
        let wrong = "0123456789abcdef0123456789abcdee";
        for values in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &[SECRET],
            &[&format!("Bearer {wrong}")],
            &[&format!("Bearer {SECRET}x")],
            &[&format!("Digest {SECRET}")],
            &[&format!("Bearer {SECRET}"), &format!("Bearer {SECRET}")],
            &[&token(wrong, HEAD, r#"{"exp":1000010}"#)],
            &[&token(SECRET, HEAD, r#"{"exp":999969}"#)],
            &[&token(SECRET, HEAD, r#"{"iss":"pushpin"}"#)],
            &[&token(SECRET, HEAD, r#"{"exp":"1000010"}"#)],
            &[&token(SECRET, r#"{"alg":"none"}"#, r#"{"exp":1000010}"#)],
            &[&token(SECRET, HEAD, "no json")],
            &[&format!("Basic {}", basic(&format!("a:{wrong}")))],
            &[&format!("Basic {}", basic(SECRET))],
            &["Basic b'"],
            &["Basic %%%"],
            &["Bearer a.b.c"],
            &[&format!("Bearer {}", "a".repeat(LONGEST))],
        ] {
            assert!(!is_let_in(values), "{values:?}");
        }
    }

    #[test]
    fn what_an_app_is_asked_with_is_no_proof_for_publishing() {
        let grip = crate::config::Grip { secret: Some(Secret::new(SECRET)), issuer: "hostler".into() };
        let signer = Signer::new(SigningKey::compile(&grip));
        let signature = signer.signature(NOW).unwrap();
        assert!(!is_let_in(&[&format!("Bearer {}", signature.to_str().unwrap())]));
    }

    #[test]
    fn a_key_in_base64_signs_with_what_it_stands_for() {
        let secret = Secret::new(format!("base64:{}", base64::prelude::BASE64_STANDARD.encode(SECRET)));
        let mut headers = HeaderMap::new();
        let value = token(SECRET, r#"{"alg":"HS256"}"#, r#"{"exp":1000010}"#);
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
        assert_eq!(refusal(&headers, None, Some(&secret), true, NOW), None);
    }

    #[test]
    fn without_a_secret_no_page_of_a_browser_publishes() {
        let told = |fields: &[(&'static str, &'static str)], host: &'static str, is_unix: bool| {
            let headers: HeaderMap = fields
                .iter()
                .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            let host = Host::parse(Bytes::from_static(host.as_bytes())).ok();
            refusal(&headers, host.as_ref(), None, is_unix, NOW).is_none()
        };
        for host in ["localhost:5561", "127.0.0.1:5561", "[::1]"] {
            assert!(told(&[], host, false), "{host}");
        }
        assert!(told(&[], "shop.example", true) && !told(&[], "shop.example", false) && !told(&[], "", false));
        for field in [("origin", "null"), ("sec-fetch-site", "none")] {
            assert!(!told(&[field], "localhost", false) && !told(&[field], "localhost", true), "{field:?}");
        }
    }
}
