//! `auth.jwt`: a signed token, in `Authorization` (RFC 6750), in another field, or in a cookie.
//!
//! The app gets the request as it came, token included, and the claims that `claims` names in fields of their own.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::basic::parameter;
use super::unauthorized;
use crate::access::{Keys, NoKeys};
use crate::config::{Jwt, TokenSource};
use crate::credentials::jwt::{Claims, Expected, Refusal};
use crate::error::{Error, Reason};
use crate::http::Request;

pub(super) struct Tokens {
    keys: Arc<Keys>,
    expected: Expected,
    from: Source,
    claims: Vec<(String, HeaderName)>,
    realm: String,
    /// For whoever has brought none (RFC 6750, 3.1: without an error).
    challenge: HeaderValue,
}

enum Source {
    Bearer,
    Header(HeaderName),
    Cookie(String),
}

impl Tokens {
    pub(super) fn compile(jwt: &Jwt, keys: Arc<Keys>) -> Self {
        let named = |(claim, name): &(String, String)| Some((claim.clone(), name.parse().ok()?));
        Self {
            keys,
            expected: jwt.expected.clone(),
            from: match &jwt.from {
                TokenSource::Bearer => Source::Bearer,
                // Checked by the configuration, as the names of claims are.
                TokenSource::Header(name) => name.parse().map_or(Source::Bearer, Source::Header),
                TokenSource::Cookie(name) => Source::Cookie(name.clone()),
            },
            claims: jwt.claims.iter().filter_map(named).collect(),
            realm: jwt.realm.clone(),
            challenge: challenge(&jwt.realm, None),
        }
    }

    pub(super) async fn admit(&self, request: &mut Request) -> Result<(), Error> {
        let token = match self.from.token(&request.headers) {
            Ok(Some(token)) => token,
            Ok(None) => return Err(unauthorized(request, &self.challenge, "no token")),
            Err(refusal) => return Err(self.refused(request, refusal)),
        };
        let claims = match self.keys.verify(token, &self.expected).await {
            Ok(Ok(claims)) => claims,
            Ok(Err(refusal)) => return Err(self.refused(request, refusal)),
            Err(NoKeys) => {
                return Err(Error::new(Reason::AuthUnavailable).detail("the keys for tokens have not been fetched yet"));
            }
        };
        self.tell(request, &claims).map_err(|refusal| self.refused(request, refusal))
    }

    /// What the app is to know of the claims: all of it or nothing.
    fn tell(&self, request: &Request, claims: &Claims) -> Result<(), Refusal> {
        let field = |(claim, name): &(String, HeaderName)| {
            let Some(text) = claims.field(claim)? else { return Ok(None) };
            let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Refusal::Claims)?;
            Ok(Some((name.clone(), value)))
        };
        let fields: Vec<_> = self.claims.iter().map(field).collect::<Result<_, _>>()?;
        for (name, value) in fields.into_iter().flatten() {
            request.exchange.identity.tell(name, value);
        }
        Ok(())
    }

    fn refused(&self, request: &Request, refusal: Refusal) -> Error {
        unauthorized(request, &challenge(&self.realm, Some(refusal)), refusal.as_str())
    }
}

/// RFC 6750, 3.
fn challenge(realm: &str, refusal: Option<Refusal>) -> HeaderValue {
    let error = refusal.map(|refusal| format!(", error=\"invalid_token\", error_description=\"{refusal}\""));
    let text = format!("Bearer realm=\"{realm}\"{}", error.unwrap_or_default());
    // The configuration lets no other realm pass.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

impl Source {
    /// The token; `None`: there is none. Two are as good as a malformed one: which of them would count is a guess.
    fn token<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a [u8]>, Refusal> {
        let one = |name: &HeaderName| {
            let mut fields = headers.get_all(name).iter().map(HeaderValue::as_bytes);
            match (fields.next(), fields.next()) {
                (field, None) => Ok(field),
                _ => Err(Refusal::Malformed),
            }
        };
        match self {
            // Of another scheme: the client has not understood what is wanted.
            Self::Bearer => Ok(one(&header::AUTHORIZATION)?.and_then(|field| parameter(field, b"bearer"))),
            Self::Header(name) => Ok(one(name)?.filter(|field| !field.is_empty())),
            Self::Cookie(name) => cookie(headers, name),
        }
    }
}

/// The one cookie of this name (RFC 6265, 5.4; HTTP/2 clients split the field).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, Refusal> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let value = |pair: &'a [u8]| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    let mut values = pairs.filter_map(value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value.filter(|value| !value.is_empty())),
        _ => Err(Refusal::Malformed),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn a_token_is_found_where_it_is_looked_for_and_only_there() {
        let (bearer, header, cookie) =
            (Source::Bearer, Source::Header(HeaderName::from_static("x-token")), Source::Cookie("t".into()));
        for (source, fields, token) in [
            (&bearer, &[("authorization", "Bearer a.b.c")][..], Ok(Some("a.b.c"))),
            (&bearer, &[("authorization", "bearer  a.b.c ")], Ok(Some("a.b.c"))),
            (&bearer, &[("authorization", "Basic YTpi")], Ok(None)),
            (&bearer, &[("authorization", "Bearer")], Ok(None)),
            (&bearer, &[("x-token", "a.b.c"), ("cookie", "t=a.b.c")], Ok(None)),
            (&bearer, &[("authorization", "Bearer a"), ("authorization", "Bearer b")], Err(Refusal::Malformed)),
            (&header, &[("x-token", "a.b.c")], Ok(Some("a.b.c"))),
            (&header, &[("x-token", "")], Ok(None)),
            (&header, &[("x-token", "a"), ("x-token", "b")], Err(Refusal::Malformed)),
            (&cookie, &[("cookie", "s=1; t=a.b.c; u=2")], Ok(Some("a.b.c"))),
            (&cookie, &[("cookie", "s=1"), ("cookie", "t=a.b.c")], Ok(Some("a.b.c"))),
            (&cookie, &[("cookie", "tt=1; xt=2; T=3; t")], Ok(None)),
            (&cookie, &[("cookie", "t=")], Ok(None)),
            (&cookie, &[("cookie", "t=a; t=b")], Err(Refusal::Malformed)),
            (&cookie, &[("cookie", "t=a"), ("cookie", "t=a")], Err(Refusal::Malformed)),
        ] {
            let headers = headers(fields);
            let found = source.token(&headers).map(|token| token.map(|token| std::str::from_utf8(token).unwrap()));
            assert_eq!(found, token, "{fields:?}");
        }
    }

    #[test]
    fn a_challenge_tells_what_was_wrong_to_who_has_brought_something() {
        assert_eq!(challenge("Shop", None), "Bearer realm=\"Shop\"");
        assert_eq!(
            challenge("Shop", Some(Refusal::Expired)),
            "Bearer realm=\"Shop\", error=\"invalid_token\", error_description=\"the token has expired\""
        );
    }
}
