//! What Hostler sends in its own name: a Host, a path, a name for TLS. Held to what the wire allows, because no client
//! has been checked for them.

use std::net::Ipv6Addr;

use rustls_pki_types::ServerName;

use crate::config::decode::Decoder;
use crate::config::node::Node;
use crate::config::report::quoted;
use crate::config::values::Fault;

/// The longest name in the DNS, with its brackets or trailing dot to spare: as the edge takes it from clients.
const LONGEST_HOST: usize = 262;

/// A Host.
pub(super) fn host(decoder: &mut Decoder<'_>, node: &Node) -> Option<String> {
    let text = decoder.scalar("host", node, "a host")?;
    decoder.fault(&node.span, check_host(&text))?;
    Some(text)
}

/// What is put before every path, without a slash at its end.
pub(super) fn prefix(decoder: &mut Decoder<'_>, node: &Node) -> Option<String> {
    let text = decoder.scalar("prefix", node, "a path")?;
    decoder.fault(&node.span, check_target("prefix", &text))?;
    if let Some(at) = text.find('?') {
        let help = format!("write {}: the client's path and query follow it", &text[..at]);
        decoder.error(&node.span, format!("`prefix` holds a query: {}", quoted(&text))).help(help);
        return None;
    }
    let prefix = text.trim_end_matches('/');
    if prefix.is_empty() {
        decoder.error(&node.span, "`prefix` adds nothing").help("write a path such as /stage, or take it out");
        return None;
    }
    Some(prefix.to_owned())
}

/// The path of a request of our own, perhaps with a query.
pub(in crate::config::schema) fn target(decoder: &mut Decoder<'_>, key: &'static str, node: &Node) -> Option<String> {
    let text = decoder.scalar(key, node, "a path")?;
    decoder.fault(&node.span, check_target(key, &text))?;
    Some(text)
}

/// The name in SNI and in the certificate.
pub(super) fn server_name(decoder: &mut Decoder<'_>, node: &Node) -> Option<String> {
    let text = decoder.scalar("server_name", node, "a name")?;
    if !is_server_name(&text) {
        decoder
            .error(&node.span, format!("{} cannot be the name in a certificate", quoted(&text)))
            .help("write the host alone, without scheme or port: api.internal");
        return None;
    }
    Some(text)
}

/// A DNS name or an address: what a certificate can be issued for.
pub(in crate::config) fn is_server_name(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}

/// `name`, `name:port`, `1.2.3.4:port` or `[v6]:port`.
fn check_host(text: &str) -> Result<(), Fault> {
    let fault = |help: String| Err(Fault::new(format!("{} is not a Host", quoted(text)), help));
    if let Some((_, rest)) = text.split_once("://") {
        return fault(format!("write the host alone: {}", rest.trim_end_matches('/')));
    }
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((literal, port)) if literal.parse::<Ipv6Addr>().is_ok() => ("v6", port),
        Some(_) => ("", ""),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse().is_ok_and(|port: u16| port > 0),
        None => port.is_empty(),
    };
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if text.len() <= LONGEST_HOST && is_port && name.split('.').all(is_label) {
        return Ok(());
    }
    fault("write a name, perhaps with a port: api.internal, or api.internal:8443".into())
}

/// An origin-form target that no server can read in two ways (RFC 9112, 3.2.1).
fn check_target(key: &str, text: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: &str| Err(Fault::new(format!("`{key}` {message}: {}", quoted(text)), help));
    if !text.starts_with('/') {
        let path = text.split_once("://").map_or(Some(text), |(_, rest)| rest.split_once('/').map(|(_, path)| path));
        let help = path.map_or_else(String::new, |path| format!("write /{path}"));
        return fault("does not begin with `/`", &help);
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '#' | '\\' | '<' | '>' | '`' | '"')) {
        let encoded: String = bad.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
        let help = match bad {
            '#' => "take the fragment out: it is never sent".into(),
            '\\' => "servers read a backslash in two ways: write a slash".into(),
            _ => format!("percent-encode it: write {encoded} for it"),
        };
        return fault("holds what cannot stand in a request", &help);
    }
    let path = text.split('?').next().unwrap_or_default();
    let Some(decoded) = percent_decoded(path) else {
        return fault("has a `%` without two hex digits", "write %25 for the sign itself");
    };
    if decoded.contains(&0) || decoded.contains(&b'\\') {
        return fault("holds what servers read in two ways", "take out %00 and %5C");
    }
    let mut segments = decoded.split(|b| *b == b'/').skip(1);
    if segments.clone().any(|segment| matches!(segment, b"." | b"..")) {
        return fault("holds a `.` or `..` segment", "write the path without it");
    }
    if segments.next().is_some_and(<[u8]>::is_empty) && decoded.len() > 1 {
        return fault("begins with two slashes", "write one: two mean a host to some servers");
    }
    Ok(())
}

fn percent_decoded(path: &str) -> Option<Vec<u8>> {
    let mut parts = path.split('%');
    let mut decoded = parts.next()?.as_bytes().to_owned();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        decoded.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(decoded)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::http::Target;

    #[test]
    fn a_host_is_what_the_wire_takes() {
        for text in ["api.internal", "API.internal:8443", "10.0.0.5:80", "[::1]", "[::1]:80", "a_b", "localhost"] {
            assert_eq!(check_host(text), Ok(()), "{text}");
        }
        let long = "a".repeat(LONGEST_HOST + 1);
        for text in [
            "",
            ".",
            "a..b",
            "a b",
            "a/b",
            "a@b",
            "[::1",
            "[x]",
            "[::1]x",
            "a:b",
            "a:0",
            "a:99999",
            "a:",
            "a:+1",
            "::1",
            "https://api.internal/",
            "é",
            "a\r\nb: c",
            "*.a",
            &long,
        ] {
            assert!(check_host(text).is_err(), "{text:?}");
        }
        assert_eq!(check_host("https://api.internal/").unwrap_err().help, "write the host alone: api.internal");
    }

    #[test]
    fn a_target_has_one_meaning() {
        for text in ["/", "/healthz", "/a/b/?x=y&z=%zz", "/caf%C3%A9", "/a//b", "/a%2Fb", "/..a"] {
            assert_eq!(check_target("path", text), Ok(()), "{text}");
        }
        for text in [
            "",
            "healthz",
            "*",
            "http://a/b",
            "/a b",
            "/é",
            "/a#b",
            "/a\\b",
            "/a%5cb",
            "/a%00",
            "/%",
            "/%a",
            "/%zz",
            "/%é",
            "/./a",
            "/a/..",
            "/%2e%2E/a",
            "//a",
            "/%2Fa",
            "/a\r\nHost: x",
            "/<a>",
            "/a?\"b\"",
        ] {
            assert!(check_target("path", text).is_err(), "{text:?}");
        }
        assert_eq!(check_target("path", "http://a/up").unwrap_err().help, "write /up");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_taken_can_be_sent(text in "/(%[0-9a-fA-F]{2}|[ -~é]){0,12}(\\?[ -~]{0,8})?") {
            if check_target("path", &text).is_ok() {
                prop_assert!(Target::parse(Bytes::from(text.clone())).is_ok(), "{}", text);
            }
        }
    }

    #[test]
    fn a_server_name_is_a_name_or_an_address() {
        for text in ["api.internal", "10.0.0.5", "::1", "a_b"] {
            assert!(is_server_name(text), "{text}");
        }
        for text in ["", "api.internal:443", "https://a", "[::1]", "*.a", "a b", "é"] {
            assert!(!is_server_name(text), "{text}");
        }
    }
}
