//! The address that keys are fetched from.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::auth::KeysUrl;
use crate::config::is_loopback;
use crate::config::report::quoted;
use crate::config::schema::is_server_name;
use crate::config::values::Fault;

/// `https://host[:port]/path`; `http://` for this machine alone: whoever can change the answer on its way makes the keys.
pub(super) fn parse(text: &str) -> Result<KeysUrl, Fault> {
    let fault = |message: &str, help: &str| Fault::new(format!("{} {message}", quoted(text)), help);
    let (tls, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => {
            return Err(fault(
                "is not an address that keys are fetched from",
                "write https://login.example/jwks.json, or a file",
            ));
        }
    };
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains(['#', '\\', '"', '<', '>']) {
        return Err(fault("has characters that no URL has", "percent-encode them, and leave out what comes after a #"));
    }
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(fault("has a name or a password in it", "keys are public: leave out what is before the @"));
    }
    let (host, port) = split(authority).ok_or_else(|| fault("has no host", "write https://login.example/jwks.json"))?;
    let default = if tls { 443 } else { 80 };
    let port = match port {
        None => default,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(fault("has no valid port", "a port is 1 to 65535")),
        },
        Some(_) => return Err(fault("has no valid port", "a port is 1 to 65535")),
    };
    if !is_server_name(host) {
        return Err(fault("has no valid host", "write a name or an address"));
    }
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(is_loopback);
    if !tls && !is_here {
        return Err(fault(
            "would be fetched without TLS: whoever sits between could put in keys of his own",
            "write https://, or fetch it from this machine, http://127.0.0.1:PORT/",
        ));
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok(KeysUrl {
        text: text.to_owned(),
        tls,
        host: host.to_owned(),
        port,
        authority: authority.to_owned(),
        target: [slash, target].concat(),
    })
}

/// Host without brackets, and what stands after its colon.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(literal) = authority.strip_prefix('[') {
        let (host, rest) = literal.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (text, tls, host, port, target) in [
            ("https://login.example", true, "login.example", 443, "/"),
            ("https://login.example/a/jwks.json?x=1", true, "login.example", 443, "/a/jwks.json?x=1"),
            ("https://login.example:8443?x", true, "login.example", 8443, "/?x"),
            ("https://[2001:db8::1]:8443/", true, "2001:db8::1", 8443, "/"),
            ("http://127.0.0.1:8000/jwks", false, "127.0.0.1", 8000, "/jwks"),
            ("http://[::1]/jwks", false, "::1", 80, "/jwks"),
            ("http://localhost/jwks", false, "localhost", 80, "/jwks"),
        ] {
            let url = parse(text).unwrap();
            assert_eq!((url.tls, &*url.host, url.port, &*url.target), (tls, host, port, target), "{text}");
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn keys_come_from_nowhere_else() {
        for (text, words) in [
            ("http://login.example/jwks.json", "without TLS"),
            ("http://10.0.0.5/jwks.json", "without TLS"),
            ("http://127.0.0.1.evil.example/", "without TLS"),
            ("http://localhost.evil.example/", "without TLS"),
            ("ftp://login.example/", "not an address"),
            ("HTTPS://login.example/", "not an address"),
            ("https://", "no host"),
            ("https:///jwks", "no host"),
            ("https://:443/", "no host"),
            ("https://[::1/", "no host"),
            ("https://[::1]x/", "no host"),
            ("https://a:b@login.example/", "a password"),
            ("http://127.0.0.1@evil.example/", "a password"),
            ("https://login.example:0/", "port"),
            ("https://login.example:/", "port"),
            ("https://login.example:65536/", "port"),
            ("https://login.example:+80/", "port"),
            ("https://login.example/a b", "characters"),
            ("https://login.example/#x", "characters"),
            ("https://login.example/\r\nX: y", "characters"),
            ("https://é.example/", "characters"),
            ("https://a*b/", "no valid host"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.message.contains(words) && !fault.help.is_empty(), "{text}: {}", fault.message);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_taken_is_safe_to_send(text in "https?://[\\PC]{0,30}|(https?://)?[a-z0-9.:@\\[\\]/?#]{0,30}") {
            if let Ok(url) = parse(&text) {
                prop_assert!(url.target.starts_with('/') && url.port > 0 && !url.host.is_empty());
                prop_assert!(url.target.bytes().chain(url.authority.bytes()).all(|byte| byte.is_ascii_graphic()));
                prop_assert!(url.tls || url.host == "localhost" || url.host.parse().is_ok_and(is_loopback));
            }
        }
    }
}
