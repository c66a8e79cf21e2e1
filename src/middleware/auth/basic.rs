//! `auth.basic`: a name and a password in `Authorization` (RFC 7617).
//!
//! Whoever passes is `Remote-User` for the app. The password is not for the app: `Authorization` is removed. Where a request is
//! handed on from route to route, the exchange keeps it for the next one that asks.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{self, HeaderMap, HeaderValue};

use super::unauthorized;
use crate::access::{Checks, Overloaded, UserFile};
use crate::config::Basic;
use crate::error::{Error, Reason};
use crate::http::Request;
use crate::http::identity::REMOTE_USER;

/// Letters of base64: far more than a name and a password have.
const LONGEST: usize = 2048;

pub(super) struct Passwords {
    users: Arc<UserFile>,
    checks: Arc<Checks>,
    challenge: HeaderValue,
}

impl Passwords {
    pub(super) fn compile(basic: &Basic, users: Arc<UserFile>, checks: Arc<Checks>) -> Self {
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", basic.realm);
        // The configuration lets no other realm pass.
        let challenge =
            HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Basic realm=\"Restricted\""));
        Self { users, checks, challenge }
    }

    pub(super) async fn admit(&self, request: &mut Request) -> Result<(), Error> {
        let refused = |why| Err(unauthorized(request, &self.challenge, why));
        // What was taken away is what the client has sent: a field that is there again is one that a route has set for its app.
        let taken = request.exchange.credentials.get();
        let text = match taken.map_or_else(|| credentials(&request.headers), |field| text(field.as_bytes())) {
            Ok(text) => text,
            Err(why) => return refused(why),
        };
        let Some((name, password)) = text.split_once(':') else {
            return refused("the credentials have no colon");
        };
        match self.users.admits(&self.checks, name, password).await {
            Ok(true) => {}
            Ok(false) => return refused("an unknown user, or a wrong password"),
            Err(Overloaded) => {
                return Err(Error::new(Reason::AuthOverloaded).detail("too many passwords are being checked"));
            }
        }
        // What users are called is what a field can have.
        if let Ok(name) = HeaderValue::from_bytes(name.as_bytes()) {
            request.exchange.identity.tell(REMOTE_USER, name);
        }
        if let Some(field) = request.headers.remove(header::AUTHORIZATION) {
            // The first one's is the client's.
            let _ = request.exchange.credentials.set(Box::new(field));
        }
        Ok(())
    }
}

/// Name and password as they came, with the colon between; or why there are none.
fn credentials(headers: &HeaderMap) -> Result<String, &'static str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let field = match (fields.next(), fields.next()) {
        (None, _) => return Err("no credentials"),
        (Some(field), None) => field,
        (Some(_), Some(_)) => return Err("two Authorization fields"),
    };
    text(field)
}

/// The same of one field.
fn text(field: &[u8]) -> Result<String, &'static str> {
    let letters = parameter(field, b"basic").ok_or("credentials of another scheme than Basic")?;
    if letters.len() > LONGEST {
        return Err("credentials that are too long");
    }
    let bytes = BASE64_STANDARD.decode(letters).map_err(|_| "credentials that are not base64")?;
    // We have asked for UTF-8; an old client that sends another encoding has ASCII in common with it.
    let text = String::from_utf8(bytes).map_err(|_| "credentials that are not UTF-8")?;
    if text.chars().any(char::is_control) { Err("credentials with control characters") } else { Ok(text) }
}

/// What follows the name of a scheme, in lower case here, and spaces (RFC 9110, 11.4).
pub(super) fn parameter<'a>(field: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (name, rest) = field.split_at_checked(scheme.len())?;
    let is_scheme = name.eq_ignore_ascii_case(scheme) && rest.first() == Some(&b' ');
    is_scheme.then(|| rest.trim_ascii()).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(fields: &[&[u8]]) -> Result<String, &'static str> {
        let value = |field: &&[u8]| (header::AUTHORIZATION, HeaderValue::from_bytes(field).unwrap());
        credentials(&fields.iter().map(value).collect())
    }

    #[test]
    fn credentials_are_read_in_every_way_that_they_are_written() {
        for (field, text) in [
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin:open sesame"),
            ("basic   QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin:open sesame"),
            ("BASIC QWxhZGRpbjpvcGVuIHNlc2FtZQ== ", "Aladdin:open sesame"),
            ("Basic dGVzdDoxMjPCow==", "test:123£"),
            ("Basic OmE=", ":a"),
            ("Basic YTo=", "a:"),
            ("Basic YTpiOmM=", "a:b:c"),
        ] {
            assert_eq!(read(&[field.as_bytes()]).as_deref(), Ok(text), "{field}");
        }
    }

    #[test]
    fn whatever_is_not_whole_is_refused_with_a_reason() {
        let long = format!("Basic {}", "YTpi".repeat(LONGEST / 4 + 1));
        for (field, why) in [
            ("", "credentials of another scheme than Basic"),
            ("Basic", "credentials of another scheme than Basic"),
            ("Basic ", "credentials of another scheme than Basic"),
            ("Basically YTpi", "credentials of another scheme than Basic"),
            ("Bearer YTpi", "credentials of another scheme than Basic"),
            ("Basic\tYTpi", "credentials of another scheme than Basic"),
            ("Basic YTpi=", "credentials that are not base64"),
            ("Basic YTo", "credentials that are not base64"),
            ("Basic YT pi", "credentials that are not base64"),
            ("Basic YTpi,x", "credentials that are not base64"),
            ("Basic ////", "credentials that are not UTF-8"),
            ("Basic YQA6Yg==", "credentials with control characters"),
            ("Basic YTpiCg==", "credentials with control characters"),
            (&long, "credentials that are too long"),
        ] {
            assert_eq!(read(&[field.as_bytes()]), Err(why), "{field:.40}");
        }
        assert_eq!(read(&[]), Err("no credentials"));
        assert_eq!(read(&[b"Basic YTpi", b"Basic YTpi"]), Err("two Authorization fields"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_fall(bytes in prop::collection::vec(32_u8..=255, 0..80), name in "[^:\\p{Cc}]{0,20}", password in "\\P{Cc}{0,20}") {
            let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != 127).collect();
            let _ = read(&[&bytes]);
            let text = format!("{name}:{password}");
            let field = format!("Basic {}", BASE64_STANDARD.encode(&text));
            prop_assert_eq!(read(&[field.as_bytes()]), Ok(text));
        }
    }
}
