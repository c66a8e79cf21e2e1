//! `auth.jwt`: whose tokens are taken, where they are, and what the app is told of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{identity_name, realm, url};
use crate::config::auth::{Jwt, KeySource, TokenSource};
use crate::config::decode::{Decoder, Fields, Section, seconds};
use crate::config::node::{Entry, Node, Span, Value};
use crate::config::report::quoted;
use crate::config::schema::key::is_token;
use crate::config::values::{Fault, nearest};
use crate::credentials::jwt::Expected;
use crate::credentials::{Algorithm, KeySet};

pub(in crate::config::schema) static JWT: Section = Section {
    name: "routes[].auth.jwt",
    keys: &["jwks", "issuer", "audience", "algorithms", "leeway", "from", "claims", "refresh", "realm"],
    later: &[],
    elsewhere: &[
        ("keys", "jwks"),
        ("jwks_uri", "jwks"),
        ("jwks_url", "jwks"),
        ("iss", "issuer"),
        ("aud", "audience"),
        ("alg", "algorithms"),
        ("clock_skew", "leeway"),
        ("source", "from"),
        ("headers", "claims"),
    ],
};

const REMOTE_USER: &str = "remote-user";

pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<Jwt> {
    let fields = decoder.fields(node, &JWT)?;
    let jwks = fields
        .required(
            decoder,
            "jwks",
            "name the file or the address with the issuer's keys: jwks: https://login.example/jwks.json",
        )
        .and_then(|node| jwks(decoder, node));
    let issuer = fields
        .required(decoder, "issuer", "write who makes the tokens, as in their `iss`: issuer: https://login.example")
        .and_then(|node| filled(decoder, "issuer", node));
    let audience = fields
        .required(
            decoder,
            "audience",
            "write whom the tokens are for, as in their `aud`: audience: shop. Tokens for others would be taken",
        )
        .and_then(|node| audience(decoder, node));
    let algorithms = fields
        .required(decoder, "algorithms", "write how the issuer signs: algorithms: [RS256]. A token does not choose it")
        .and_then(|node| algorithms(decoder, node));
    let leeway = fields.duration(decoder, "leeway", seconds(0, 300), Duration::from_secs(30));
    let refresh = fields.duration(decoder, "refresh", seconds(10, 86_400), Duration::from_secs(600));
    let from = fields.get("from").map_or(Some(TokenSource::Bearer), |node| {
        let text = decoder.scalar("from", node, "bearer, header:NAME or cookie:NAME")?;
        decoder.fault(&node.span, token_source(&text))
    });
    let claims = claims(decoder, &fields);
    let realm = fields.get("realm").map_or_else(|| Some("Restricted".into()), |node| realm(decoder, node));
    if let (Some(KeySource::File { .. }), Some(entry)) = (&jwks, fields.entry("refresh")) {
        decoder
            .warning(&entry.key.span, "`refresh` says nothing here: a file is read when it changes")
            .help("take it out");
    }
    let expected = Expected { algorithms: algorithms?, issuer: issuer?, audience: audience?, leeway };
    Some(Jwt { jwks: jwks?, expected, from: from?, claims: claims?, refresh, realm: realm? })
}

/// One Authorization field cannot have a password and a token, and one name cannot have two values.
pub(super) fn check_beside_basic(decoder: &mut Decoder<'_>, jwt: &Jwt, at: &Span) {
    if jwt.from == TokenSource::Bearer {
        decoder
            .error(at, "no request can have a password and a token: both stand in Authorization")
            .help("take the token from elsewhere, from: cookie:NAME or header:NAME, or write two routes");
    }
    if jwt.claims.iter().any(|(_, name)| name == REMOTE_USER) {
        decoder
            .error(at, "`basic` tells the app its user as Remote-User, and so does a claim of `jwt`")
            .help("write another name for the claim: claims: { sub: X-Token-Subject }");
    }
}

fn jwks(decoder: &mut Decoder<'_>, node: &Node) -> Option<KeySource> {
    let text = decoder.scalar("jwks", node, "a file or a URL")?;
    if text.contains("://") {
        return Some(KeySource::Url(decoder.fault(&node.span, url::parse(&text))?));
    }
    let path = decoder.path("jwks", node)?;
    let keys = decoder.fault(&node.span, KeySet::read(&path).map_err(Into::into))?;
    for why in keys.left_out() {
        decoder
            .warning(&node.span, format!("a key in {} is left out: {why}", path.display()))
            .help("take it out of the file; a private key in it is to be replaced, because it was given away");
    }
    Some(KeySource::File { path, keys: Arc::new(keys) })
}

fn filled(decoder: &mut Decoder<'_>, key: &'static str, node: &Node) -> Option<String> {
    let text = decoder.scalar(key, node, "a text")?;
    if text.is_empty() {
        decoder.error(&node.span, format!("`{key}` is empty")).help("write what the tokens have there");
        return None;
    }
    Some(text)
}

/// One, or a list.
fn audience(decoder: &mut Decoder<'_>, node: &Node) -> Option<Vec<String>> {
    if !matches!(node.value, Value::List(_)) {
        return Some(vec![filled(decoder, "audience", node)?]);
    }
    decoder.list("audience", node)?.iter().map(|item| filled(decoder, "audience", item)).collect()
}

fn algorithms(decoder: &mut Decoder<'_>, node: &Node) -> Option<Vec<Algorithm>> {
    let mut algorithms = Vec::new();
    let mut is_whole = true;
    for item in decoder.list("algorithms", node)? {
        let text = decoder.scalar("algorithms", item, "the name of an algorithm");
        match text.and_then(|text| decoder.fault(&item.span, algorithm(&text))) {
            Some(algorithm) => algorithms.push(algorithm),
            None => is_whole = false,
        }
    }
    is_whole.then_some(algorithms)
}

fn algorithm(text: &str) -> Result<Algorithm, Fault> {
    if let Some(algorithm) = Algorithm::named(text) {
        return Ok(algorithm);
    }
    let names = || Algorithm::ALL.iter().map(|algorithm| algorithm.as_str());
    let upper = text.to_ascii_uppercase();
    if upper == "NONE" {
        return Err(Fault::new(
            "`none` is no signature: everybody could write such a token",
            "write how the issuer signs: [RS256]",
        ));
    }
    if upper.starts_with("HS") {
        let message = format!("{} is not taken: whoever can check such a token can make one", quoted(text));
        return Err(Fault::new(message, "let the issuer sign with a private key: RS256, ES256 or EdDSA"));
    }
    let help = match names().find(|name| name.eq_ignore_ascii_case(text)).or_else(|| nearest(text, names())) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("it can be {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(Fault::new(format!("{} is not an algorithm that is known", quoted(text)), help))
}

fn token_source(text: &str) -> Result<TokenSource, Fault> {
    const FORMS: &str = "it can be bearer, header:NAME or cookie:NAME";
    let fault = |message: &str, help: String| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    if text == "bearer" {
        return Ok(TokenSource::Bearer);
    }
    let Some((kind @ ("header" | "cookie"), name)) = text.split_once(':') else {
        return fault("is not a value of `from`", FORMS.into());
    };
    if !is_token(name) {
        return fault(&format!("has no valid name of a {kind}"), FORMS.into());
    }
    if kind == "cookie" {
        return Ok(TokenSource::Cookie(name.to_owned()));
    }
    if name.contains('_') {
        let help = format!("did you mean header:{}?", name.replace('_', "-"));
        return fault("never arrives: header names with an underscore are removed", help);
    }
    let name = name.to_ascii_lowercase();
    if name == "authorization" {
        return fault("has its scheme before the token", "write bearer, which is the default".into());
    }
    Ok(TokenSource::Header(name))
}

/// Claims by their names, and the field for each.
fn claims(decoder: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<Vec<(String, String)>> {
    let Some(node) = fields.get("claims") else {
        return Some(vec![("sub".into(), REMOTE_USER.into())]);
    };
    let entries: &[Entry] = match &node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        other => {
            let kind = other.kind();
            decoder
                .error(&node.span, format!("`claims` takes a mapping, not {kind}"))
                .help("write the claim, and the header for it: claims: { sub: Remote-User }");
            return None;
        }
    };
    decoder.refuse_duplicate_keys(entries);
    let mut claims = Vec::new();
    let mut taken: HashMap<String, &Span> = HashMap::new();
    let mut is_whole = true;
    for Entry { key, value } in entries {
        let text = decoder.scalar("claims", value, "the name of a header");
        let Some(name) = text.and_then(|text| decoder.fault(&value.span, identity_name(&text))) else {
            is_whole = false;
            continue;
        };
        if let Some(first) = taken.insert(name.clone(), &value.span) {
            decoder
                .error(&value.span, format!("two claims cannot have the header {}", quoted(&name)))
                .also(first, "the first one")
                .help("write another name");
        }
        claims.push((key.text.clone(), name));
    }
    is_whole.then_some(claims)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_signatures_with_a_private_key_are_pinned() {
        for algorithm in Algorithm::ALL {
            assert_eq!(super::algorithm(algorithm.as_str()), Ok(*algorithm));
        }
        for (text, help) in [
            ("none", "how the issuer signs"),
            ("NONE", "how the issuer signs"),
            ("HS256", "private key"),
            ("hs512", "private key"),
            ("rs256", "did you mean RS256?"),
            ("ES265", "did you mean ES256?"),
            ("Ed25519", "EdDSA"),
            ("", "it can be RS256"),
        ] {
            let fault = super::algorithm(text).unwrap_err();
            assert!(fault.help.contains(help), "{text}: {}", fault.help);
        }
    }

    #[test]
    fn a_token_comes_with_the_request_in_one_of_three_ways() {
        assert_eq!(token_source("bearer"), Ok(TokenSource::Bearer));
        assert_eq!(token_source("header:X-Token"), Ok(TokenSource::Header("x-token".into())));
        assert_eq!(token_source("cookie:Session_ID"), Ok(TokenSource::Cookie("Session_ID".into())));
        for text in
            ["", "Bearer", "header", "header:", "header:a b", "header:x_token", "header:Authorization", "query:x"]
        {
            assert!(token_source(text).is_err(), "{text}");
        }
    }
}
