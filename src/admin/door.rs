//! Who may ask, and who may control.
//!
//! With a token, whoever brings it may do both. Without one, whoever can connect may: the address is this machine's
//! alone then, or a unix socket. What still has to be kept out is the operator's own browser, through which any web page
//! can reach loopback. It cannot add a header of its own to a request that it sends unasked, it names the page as
//! `Origin`, and when a page has its own name point to loopback (DNS rebinding), that name stands in Host.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{not_allowed, text};
use crate::config::Secret;
use crate::http::{Host, Request, Response};
use crate::runtime::Socket;

/// What a control request without a token has to carry, with the value 1.
const CONTROL: &str = "x-hostler-control";

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// Over TCP; `None`: it is gone already.
    Tcp(Option<SocketAddr>),
    /// Over a unix socket.
    Unix {
        /// `None`: the system does not tell.
        user: Option<u32>,
        /// The process, where it is known.
        process: Option<i32>,
    },
}

impl Caller {
    pub(super) fn of(socket: &Socket) -> Self {
        match socket {
            Socket::Tcp(stream) => Self::Tcp(stream.peer_addr().ok()),
            Socket::Unix(stream) => {
                let peer = stream.peer_cred().ok();
                Self::Unix { user: peer.map(|peer| peer.uid()), process: peer.and_then(|peer| peer.pid()) }
            }
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(Some(address)) => address.fmt(f),
            Self::Unix { user: Some(user), process: Some(process) } => write!(f, "user {user}, process {process}"),
            Self::Unix { user: Some(user), process: None } => write!(f, "user {user}"),
            Self::Tcp(None) | Self::Unix { .. } => f.write_str("unknown"),
        }
    }
}

/// The answer to a request that does not bring the token.
pub(super) fn refusal(request: &Request, token: Option<&Secret>) -> Option<Response> {
    if token.is_none_or(|token| brings(&request.headers, token)) {
        return None;
    }
    let mut response = text(StatusCode::UNAUTHORIZED, "write `Authorization: Bearer` and admin.token\n".into());
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Some(response)
}

/// The answer to a request that may not change anything. `is_known`: it has brought the token.
pub(super) fn refuse_control(request: &Request, caller: &Caller, is_known: bool) -> Option<Response> {
    if request.method != Method::POST {
        return Some(not_allowed("POST"));
    }
    if is_known {
        return None;
    }
    let host = request.exchange.host.as_ref();
    let sentence = fault(&request.headers, host, matches!(caller, Caller::Unix { .. }))?;
    Some(text(StatusCode::FORBIDDEN, format!("{sentence}\n")))
}

/// The answer to a request that may not see how the gateway is. `is_known`: it has brought the token.
pub(super) fn refuse_view(request: &Request, caller: &Caller, is_known: bool) -> Option<Response> {
    if is_known || matches!(caller, Caller::Unix { .. }) {
        return None;
    }
    let sentence = view_fault(&request.headers, request.exchange.host.as_ref())?;
    Some(text(StatusCode::FORBIDDEN, format!("{sentence}\n")))
}

/// What keeps a request over TCP without a token from seeing. The operator may look with a browser, at its address.
fn view_fault(headers: &HeaderMap, host: Option<&Host>) -> Option<&'static str> {
    let is_own = |site: &HeaderValue| site == "none" || site == "same-origin";
    if headers.contains_key(header::ORIGIN) || !headers.get_all("sec-fetch-site").iter().all(is_own) {
        return Some("a web page may not look at Hostler: this request says that it comes from one");
    }
    if !host.is_some_and(is_this_machine) {
        return Some("without admin.token the Host of a request must be localhost or a loopback address");
    }
    None
}

/// What keeps a request without a token from controlling.
fn fault(headers: &HeaderMap, host: Option<&Host>, is_unix: bool) -> Option<&'static str> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Some("a web page may not control Hostler: this request says that it comes from a browser");
    }
    let mut control = headers.get_all(CONTROL).iter();
    if control.next().is_none_or(|value| value != "1") || control.next().is_some() {
        return Some("without admin.token a control request needs the header `X-Hostler-Control: 1`");
    }
    // No name leads a browser to a unix socket.
    if !is_unix && !host.is_some_and(is_this_machine) {
        return Some("without admin.token the Host of a control request must be localhost or a loopback address");
    }
    None
}

fn is_this_machine(host: &Host) -> bool {
    let name = host.name();
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok_and(crate::config::is_loopback)
}

/// Whether the one `Authorization` field holds the token. The time it takes does not tell how much of it was right.
fn brings(headers: &HeaderMap, token: &Secret) -> bool {
    const SCHEME: &[u8] = b"bearer ";
    let mut fields = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let Some((scheme, brought)) = field.split_at_checked(SCHEME.len()) else { return false };
    scheme.eq_ignore_ascii_case(SCHEME) && token.is(brought)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = Secret::new("0123456789abcdef");
        let brings = |values: &[&'static str]| {
            let fields: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            super::brings(&headers(&fields), &token)
        };
        assert!(brings(&["Bearer 0123456789abcdef"]));
        assert!(brings(&["bearer 0123456789abcdef"]));
        for fields in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdee"],
            &["Bearer 0123456789abcdeff"],
            &["Basic  0123456789abcdef"],
            &["0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            assert!(!brings(fields), "{fields:?}");
        }
    }

    #[test]
    fn without_a_token_no_web_page_sees_and_its_operator_does() {
        let fault = |fields: &[(&'static str, &'static str)], host: &'static str| {
            view_fault(&headers(fields), Host::parse(Bytes::from_static(host.as_bytes())).ok().as_ref())
        };
        for host in ["localhost", "LOCALHOST:9180", "127.0.0.1:9180", "127.1.2.3", "[::1]:9180"] {
            for fields in [&[][..], &[("sec-fetch-site", "none")], &[("sec-fetch-site", "same-origin")]] {
                assert_eq!(fault(fields, host), None, "{host} {fields:?}");
            }
        }
        for host in ["shop.example", "127.0.0.1.shop.example", "10.0.0.1", "[::2]", ""] {
            assert!(fault(&[], host).is_some(), "{host}");
        }
        for fields in [
            &[("origin", "http://shop.example")][..],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(fault(fields, "localhost").is_some(), "{fields:?}");
        }
    }

    #[test]
    fn without_a_token_no_request_of_a_web_page_controls() {
        let fault = |fields: &[(&'static str, &'static str)], host: &'static str, is_unix: bool| {
            super::fault(&headers(fields), Host::parse(Bytes::from_static(host.as_bytes())).ok().as_ref(), is_unix)
        };
        const RIGHT: (&str, &str) = ("x-hostler-control", "1");
        for host in ["localhost", "LOCALHOST:9180", "127.0.0.1:9180", "127.1.2.3", "[::1]:9180", "localhost."] {
            assert_eq!(fault(&[RIGHT], host, false), None, "{host}");
        }
        for host in ["shop.example", "127.0.0.1.shop.example", "10.0.0.1", "localhost.shop.example", "[::2]", ""] {
            assert!(fault(&[RIGHT], host, false).is_some(), "{host}");
            assert_eq!(fault(&[RIGHT], host, true), None, "{host} over a unix socket");
        }
        for fields in [
            &[][..],
            &[("x-hostler-control", "0")],
            &[RIGHT, RIGHT],
            &[RIGHT, ("origin", "http://shop.example")],
            &[RIGHT, ("origin", "null")],
            &[RIGHT, ("sec-fetch-site", "same-origin")],
        ] {
            assert!(fault(fields, "localhost", true).is_some(), "{fields:?}");
        }
    }
}
