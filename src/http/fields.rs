//! Which fields may pass from one side to the other.
//!
//! Fields are skipped while a head is written, not removed from the map before: one look at each name instead of one
//! hash lookup for each name that might be there.

use std::cell::RefCell;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::error::Reason;

thread_local! {
    static EMPTY_MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// Maps that a thread keeps for the next head, and the largest that is worth keeping.
const KEPT_MAPS: usize = 64;
const LARGEST_KEPT_MAP: usize = 64;

/// An empty map with room for `count` fields: one of the thread's own, when there is one.
#[must_use]
pub fn take_map(count: usize) -> HeaderMap {
    let mut map = EMPTY_MAPS.with_borrow_mut(Vec::pop).unwrap_or_default();
    map.reserve(count);
    map
}

/// Whether there is such a field, for one that hardly any head has: a look at each name takes less time than one by hash.
#[must_use]
pub fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|there| there == name)
}

/// Keeps a map's memory for the next head.
pub fn give_map(mut map: HeaderMap) {
    if map.capacity() > LARGEST_KEPT_MAP {
        return;
    }
    map.clear();
    EMPTY_MAPS.with_borrow_mut(|maps| {
        if maps.len() < KEPT_MAPS {
            maps.push(map);
        }
    });
}

/// The first line of a field, found by a look at each name.
#[must_use]
pub fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    headers.iter().find(|(there, _)| *there == name).map(|(_, value)| value)
}

/// Why a request field is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It belongs to the client's connection (RFC 9110, 7.6.1), or to the framing, which is written anew.
    Hop,
    /// What a proxy says about the client: `X-Forwarded-*` and their kin.
    Forwarded,
    /// What it says about the request: `X-Request-ID`, `X-Request-Start`.
    Traced,
    /// What only the app says to the edge: `X-Accel-*`, `X-Sendfile*`, `Grip-*`.
    Internal,
    /// What an app may take for its server's knowledge: `Remote-User`, `Client-Cert`, `Script-Name`, `Path-Info`, `Proxy`.
    Identity,
    /// A name with an underscore: a WSGI server makes the same variable of it as of the name with a hyphen.
    Underscore,
}

/// Whether a client's field must not reach the app.
///
/// Content-Length is among the hop-by-hop ones: it is written anew from the body that is here.
#[must_use]
pub fn request_field(name: &HeaderName) -> Option<Dropped> {
    let text = name.as_str();
    if is_hop_by_hop(text) || matches!(text, "content-length" | "expect" | "http2-settings") {
        return Some(Dropped::Hop);
    }
    if text.bytes().any(|b| b == b'_') {
        return Some(Dropped::Underscore);
    }
    match text.as_bytes()[0] {
        b'x' => forged(&text[1..]),
        // RFC 9440.
        b'c' => matches!(text, "client-cert" | "client-cert-chain").then_some(Dropped::Identity),
        b'f' => matches!(text, "forwarded" | "front-end-https").then_some(Dropped::Forwarded),
        b'g' => text.starts_with("grip-").then_some(Dropped::Internal),
        b'r' => matches!(text, "remote-user" | "remote-addr").then_some(Dropped::Identity),
        b's' => (text == "script-name").then_some(Dropped::Identity),
        b'p' => matches!(text, "path-info" | "proxy").then_some(Dropped::Identity),
        _ => None,
    }
}

/// The same where the edge has further names, in `identity`, to tell the app who asks.
#[must_use]
pub fn request_field_beside(name: &HeaderName, identity: &[HeaderName]) -> Option<Dropped> {
    request_field(name).or_else(|| identity.contains(name).then_some(Dropped::Identity))
}

/// The same for what follows the `x` of a name.
fn forged(rest: &str) -> Option<Dropped> {
    match rest {
        "-real-ip" => Some(Dropped::Forwarded),
        "-request-id" | "-request-start" | "-queue-start" => Some(Dropped::Traced),
        "-remote-user" | "-script-name" | "-client-cert-subject" => Some(Dropped::Identity),
        "-lighttpd-send-file" => Some(Dropped::Internal),
        _ if rest.starts_with("-forwarded") => Some(Dropped::Forwarded),
        _ if rest.starts_with("-accel-") || rest.starts_with("-sendfile") => Some(Dropped::Internal),
        _ => None,
    }
}

/// Whether an app's field must not reach the client. Content-Length is the writer's business, and X-Request-ID is ours.
#[must_use]
pub fn response_field_is_dropped(name: &HeaderName) -> bool {
    let text = name.as_str();
    is_hop_by_hop(text)
        || match text.as_bytes()[0] {
            b'x' => {
                text.starts_with("x-accel-")
                    || text.starts_with("x-sendfile")
                    || matches!(text, "x-lighttpd-send-file" | "x-request-id")
            }
            b'g' => text.starts_with("grip-"),
            _ => false,
        }
}

/// Whether an app's answer tells the edge to hold its client (GRIP): by a field, or by its type.
#[must_use]
pub fn has_instructions(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("grip-")) || is_instruction(headers)
}

/// Whether it is nothing but instructions.
#[must_use]
pub fn is_instruction(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/grip-instruct")
    })
}

fn is_hop_by_hop(text: &str) -> bool {
    match text.len() {
        2 => text == "te",
        7 => matches!(text, "trailer" | "upgrade"),
        10 => matches!(text, "connection" | "keep-alive"),
        16 => text == "proxy-connection",
        17 => text == "transfer-encoding",
        18 => text == "proxy-authenticate",
        19 => text == "proxy-authorization",
        _ => false,
    }
}

/// Names and values of the configuration, which has refused what cannot be one.
#[must_use]
pub fn compile(fields: &[(String, String)]) -> Vec<(HeaderName, HeaderValue)> {
    let field = |(name, value): &(String, String)| Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?));
    fields.iter().filter_map(field).collect()
}

/// The same for names alone.
#[must_use]
pub fn compile_names(names: &[String]) -> Vec<HeaderName> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Whether there is more than one line of this field.
#[must_use]
pub fn is_repeated(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// Whether the client waits for a 100 before it sends its body. An empty list is no expectation (RFC 9110, 5.6.1.2 and 10.1.1).
///
/// # Errors
/// [`Reason::ExpectationFailed`] when it expects anything but `100-continue`.
pub fn expects_continue(headers: &HeaderMap) -> Result<bool, Reason> {
    let mut expects = false;
    for value in headers.get_all(header::EXPECT).iter().map(HeaderValue::as_bytes) {
        if value.iter().all(|byte| matches!(byte, b',' | b' ' | b'\t')) {
            continue;
        }
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Reason::ExpectationFailed);
        }
        expects = true;
    }
    Ok(expects)
}

/// The names that `Connection` fields declare to be hop-by-hop, besides those that always are.
///
/// Nobody can name away what the edge itself says or what frames and routes the message.
#[must_use]
pub fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for token in tokens(headers, &header::CONNECTION) {
        if token.eq_ignore_ascii_case("close") || token.eq_ignore_ascii_case("keep-alive") {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(token.as_bytes())
            && !is_hop_by_hop(name.as_str())
            && !is_end_to_end(&name)
            && !is_of_the_edge(&name)
        {
            names.push(name);
        }
    }
    names
}

/// Whether a client's `Connection` must not name this field: it is meant for every recipient, or the edge alone writes it.
#[must_use]
pub fn is_for_every_recipient(name: &str) -> bool {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return false };
    is_end_to_end(&name)
        || name == header::TRANSFER_ENCODING
        || matches!(
            request_field(&name),
            Some(Dropped::Forwarded | Dropped::Traced | Dropped::Internal | Dropped::Identity)
        )
}

/// What no `Connection` can make hop-by-hop: what routes, frames and identifies a message.
fn is_end_to_end(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST | header::COOKIE | header::AUTHORIZATION | header::CONTENT_TYPE | header::CONTENT_LENGTH
    )
}

/// What the edge itself says to clients.
fn is_of_the_edge(name: &HeaderName) -> bool {
    matches!(*name, header::DATE | header::RETRY_AFTER) || matches!(name.as_str(), "x-request-id" | "proxy-status")
}

/// Whether a list-valued field holds this token, in any case.
#[must_use]
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

/// The elements of a comma-separated field, over all its lines.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value: &HeaderValue| value.as_bytes().split(|b| *b == b','))
        // An element that is no text names nothing; the others of its line still do.
        .filter_map(|token| std::str::from_utf8(token).ok())
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_edge_may_say_is_dropped() {
        use Dropped::{Forwarded, Identity, Internal, Traced};
        for (names, why) in [
            (&["x-forwarded-for", "x-forwarded-proto", "x-forwarded-ssl", "x-forwarded-prefix"][..], Forwarded),
            (&["forwarded", "front-end-https", "x-real-ip"], Forwarded),
            (&["x-request-id", "x-request-start", "x-queue-start"], Traced),
            (&["x-accel-redirect", "x-sendfile", "x-sendfile-type", "x-lighttpd-send-file", "grip-sig"], Internal),
            (&["remote-user", "x-remote-user", "script-name", "path-info", "proxy"], Identity),
            (&["x-client-cert-subject", "client-cert", "client-cert-chain"], Identity),
        ] {
            for name in names {
                assert_eq!(request_field(&HeaderName::from_static(name)), Some(why), "{name}");
            }
        }
        for name in ["script_name", "x_forwarded_for", "remote_user"] {
            assert_eq!(request_field(&HeaderName::from_static(name)), Some(Dropped::Underscore), "{name}");
        }
        for name in ["connection", "te", "transfer-encoding", "content-length", "expect", "keep-alive", "upgrade"] {
            assert_eq!(request_field(&HeaderName::from_static(name)), Some(Dropped::Hop), "{name}");
        }
        for name in [
            "host",
            "cookie",
            "client",
            "content-type",
            "x-requested-with",
            "origin",
            "referer",
            "x-csrftoken",
            "priority",
            "range",
        ] {
            assert_eq!(request_field(&HeaderName::from_static(name)), None, "{name}");
        }
    }

    #[test]
    fn a_name_of_the_configuration_is_dropped_beside_those() {
        let own = [HeaderName::from_static("x-role")];
        for (name, why) in [("x-role", Some(Dropped::Identity)), ("x-roles", None), ("te", Some(Dropped::Hop))] {
            assert_eq!(request_field_beside(&HeaderName::from_static(name), &own), why, "{name}");
        }
        assert_eq!(request_field_beside(&own[0], &[]), None);
    }

    #[test]
    fn connection_cannot_name_away_what_frames_the_message() {
        let mut headers = HeaderMap::new();
        headers.append("connection", "close, X-Secret, host".parse().unwrap());
        headers.append("connection", "content-length ,, Cookie".parse().unwrap());
        assert_eq!(named_by_connection(&headers), [HeaderName::from_static("x-secret")]);
    }

    #[test]
    fn connection_may_name_what_is_between_two_ends_alone() {
        for name in [
            "Host",
            "cookie",
            "Content-Length",
            "Transfer-Encoding",
            "X-Forwarded-For",
            "X-Request-ID",
            "Remote-User",
            "Grip-Sig",
        ] {
            assert!(is_for_every_recipient(name), "{name}");
        }
        for name in ["TE", "Upgrade", "HTTP2-Settings", "X-Custom", "Keep-Alive", "Trailer", "", "a b", "X_Custom"] {
            assert!(!is_for_every_recipient(name), "{name}");
        }
    }

    #[test]
    fn a_field_is_there_by_its_name_however_many_lines_it_has() {
        let mut headers = HeaderMap::new();
        assert!(!has(&headers, &header::CONNECTION));
        headers.append("x-connection", HeaderValue::from_static("connection"));
        assert!(!has(&headers, &header::CONNECTION));
        for line in ["close", "te"] {
            headers.append("Connection", HeaderValue::from_static(line));
            headers.append("X-Own", HeaderValue::from_static(line));
            assert!(has(&headers, &header::CONNECTION) && has(&headers, &HeaderName::from_static("x-own")));
            assert_eq!(first(&headers, &header::CONNECTION).unwrap(), "close");
        }
        headers.remove(header::CONNECTION);
        assert!(!has(&headers, &header::CONNECTION) && first(&headers, &header::CONNECTION).is_none());
    }

    #[test]
    fn a_map_has_room_for_what_was_asked_for_be_it_new_or_used() {
        for count in [0, 1, 3, 24, 25, 7, 200, 2] {
            let map = take_map(count);
            assert!(map.is_empty() && map.capacity() >= count, "{count}");
            give_map(map);
        }
    }

    #[test]
    fn an_element_that_is_no_text_does_not_hide_its_neighbours() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_bytes(b"\xff, close, x-secret").unwrap());
        assert!(has_token(&headers, &header::CONNECTION, "close"));
        assert_eq!(named_by_connection(&headers), [HeaderName::from_static("x-secret")]);
    }
}
