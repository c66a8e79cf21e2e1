//! Whose pages may open a WebSocket (`websocket.origins`). Pure.
//!
//! A browser sends its cookies with every WebSocket, whoever has written the page, and no app asks for a CSRF token in its
//! handshake. What it cannot be made to lie about is `Origin`.
//!
//! | `Origin` | `same` | a list | `any` |
//! |---|---|---|---|
//! | none: no browser | taken | taken | taken |
//! | the host and port that the request is for | taken | if it is listed | taken |
//! | another, `null`, more than one, or none that can be read | refused | if it is listed, letter by letter | taken |
//!
//! What counts is `Origin` as the client has sent it: a route may take it away from its app, or write another (`headers.request`).
//!
//! A port that is not written is the one of its scheme: the origin's own, and that by which the client speaks to us, or to the
//! proxy that is believed. Where neither is written, a page over https is taken as well if we are spoken to without TLS: it
//! ended before us, at somebody who does not say so. The host is Host, or what a believed proxy says that it was.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::PageOrigins;
use crate::http::Exchange;
use crate::http::forwarded::Scheme;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether a request with these fields may open one.
pub(super) fn is_taken(origins: &PageOrigins, headers: &HeaderMap, exchange: &Exchange) -> bool {
    let now;
    let sent = match exchange.origins.get() {
        Some(sent) => &**sent,
        None => {
            now = headers.get_all(header::ORIGIN).iter().cloned().collect::<Vec<_>>();
            &now
        }
    };
    let origin = match sent {
        [] => return true,
        [origin] => origin,
        _ => return *origins == PageOrigins::Any,
    };
    match origins {
        PageOrigins::Any => true,
        PageOrigins::Listed(listed) => listed.iter().any(|known| origin == known.as_str()),
        PageOrigins::Same => {
            let is_believed = exchange.claims.get().is_some();
            let forwarded = headers.get_all(X_FORWARDED_HOST).into_iter().next_back().filter(|_| is_believed);
            let host = match forwarded.map(last) {
                Some(host) => host,
                None => exchange.host.as_ref().map(|host| host.as_str()),
            };
            host.is_some_and(|host| is_same(origin, host, exchange.scheme()))
        }
    }
}

/// The last element of a list, if it is text.
fn last(value: &HeaderValue) -> Option<&str> {
    Some(value.to_str().ok()?.rsplit(',').next()?.trim_matches([' ', '\t']))
}

/// Whether an origin is that of a page which `host` serves to whoever speaks `scheme`.
fn is_same(origin: &HeaderValue, host: &str, scheme: Scheme) -> bool {
    let Some((page_scheme, page)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let page_scheme = match page_scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return false,
    };
    let (Some((page_name, page_port)), Some((name, port))) = (name_and_port(page), name_and_port(host)) else {
        return false;
    };
    let is_same_port = match (page_port, port) {
        (None, None) => page_scheme == scheme || page_scheme == Scheme::Https,
        _ => page_port.unwrap_or(page_scheme.default_port()) == port.unwrap_or(scheme.default_port()),
    };
    is_same_port && page_name.eq_ignore_ascii_case(name)
}

/// A name without one trailing dot, and the port that is written. `None`: there is more, or it is no port.
fn name_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (authority, None),
    };
    let is_port = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(Some(port).filter(is_port)?.parse().ok()?),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty() && !name.contains(['/', '@', '?', '#', ' '])).then_some((name, port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use http::Method;

    use super::*;
    use crate::http::forwarded::Claims;
    use crate::http::{ConnectionInfo, Handshake, Host, Protocol, Upgrade};

    fn exchange(host: &'static str, tls: bool) -> Exchange {
        let connection = Rc::new(ConnectionInfo::new("443").over_tls(tls));
        let host = Host::parse(Bytes::from_static(host.as_bytes())).ok();
        Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::new(), host, None)
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn same(origin: &str, host: &'static str, tls: bool) -> bool {
        is_taken(&PageOrigins::Same, &headers(&[("origin", origin)]), &exchange(host, tls))
    }

    #[test]
    fn a_page_of_the_same_host_and_port_is_taken() {
        for (origin, host, tls) in [
            ("https://shop.example", "shop.example", true),
            ("https://shop.example", "shop.example:443", true),
            ("https://shop.example", "Shop.Example.", true),
            ("https://shop.example:8443", "shop.example:8443", true),
            ("http://shop.example", "shop.example", false),
            ("http://shop.example:8080", "shop.example:8080", false),
            ("http://[::1]:8080", "[::1]:8080", false),
            ("https://[::1]", "[::1]", true),
            // TLS has ended before us.
            ("https://shop.example", "shop.example", false),
            ("https://shop.example:8443", "shop.example:8443", false),
        ] {
            assert!(same(origin, host, tls), "{origin} {host} {tls}");
        }
    }

    #[test]
    fn every_other_page_is_refused() {
        for (origin, host, tls) in [
            ("https://evil.example", "shop.example", true),
            ("https://shop.example.evil.example", "shop.example", true),
            ("https://a.shop.example", "shop.example", true),
            ("https://shop.example:8443", "shop.example", true),
            ("https://shop.example", "shop.example:8443", true),
            ("https://shop.example:80", "shop.example", true),
            // A page that anybody on the way may have changed.
            ("http://shop.example", "shop.example", true),
            ("null", "shop.example", true),
            ("", "shop.example", true),
            ("shop.example", "shop.example", true),
            ("https://", "shop.example", true),
            ("https://shop.example/", "shop.example", true),
            ("https://shop.example@evil.example", "shop.example", true),
            ("https://evil.example@shop.example", "shop.example", true),
            ("https://shop.example:x", "shop.example", true),
            ("https://shop.example:99999", "shop.example", true),
            ("ws://shop.example", "shop.example", false),
            ("chrome-extension://shop.example", "shop.example", true),
        ] {
            assert!(!same(origin, host, tls), "{origin} {host} {tls}");
        }
        let twice = headers(&[("origin", "https://shop.example"), ("origin", "https://shop.example")]);
        assert!(!is_taken(&PageOrigins::Same, &twice, &exchange("shop.example", true)));
    }

    #[test]
    fn who_sends_no_origin_is_no_browser() {
        for origins in [PageOrigins::Same, PageOrigins::Any, PageOrigins::Listed(Vec::new())] {
            assert!(is_taken(&origins, &HeaderMap::new(), &exchange("shop.example", true)), "{origins:?}");
        }
    }

    #[test]
    fn what_a_route_makes_of_the_field_does_not_count() {
        let (foreign, own) =
            (headers(&[("origin", "https://evil.example")]), headers(&[("origin", "https://shop.example")]));
        for (sent, now, taken) in
            [(&foreign, &own, false), (&foreign, &HeaderMap::new(), false), (&own, &foreign, true), (&own, &own, true)]
        {
            let exchange = exchange("shop.example", true);
            exchange.asks_for(Upgrade::WebSocket(Handshake { key: None }), sent);
            assert_eq!(is_taken(&PageOrigins::Same, now, &exchange), taken, "{sent:?} {now:?}");
        }
    }

    #[test]
    fn a_list_is_compared_letter_by_letter() {
        let listed = PageOrigins::Listed(vec!["https://app.example".into(), "tauri://localhost".into()]);
        for (origin, taken) in [
            ("https://app.example", true),
            ("tauri://localhost", true),
            ("https://app.example:443", false),
            ("https://APP.example", false),
            ("https://shop.example", false),
            ("null", false),
        ] {
            let fields = headers(&[("origin", origin)]);
            assert_eq!(is_taken(&listed, &fields, &exchange("shop.example", true)), taken, "{origin}");
            assert!(is_taken(&PageOrigins::Any, &fields, &exchange("shop.example", true)));
        }
    }

    #[test]
    fn a_believed_proxy_says_which_host_it_was() {
        let fields = headers(&[("origin", "https://shop.example"), ("x-forwarded-host", "evil.example, shop.example")]);
        let behind = exchange("app.internal:8000", false);
        assert!(!is_taken(&PageOrigins::Same, &fields, &behind), "nobody is believed");
        behind.claims.set(Claims { scheme: Some(Scheme::Https), ..Claims::default() }).unwrap();
        assert!(is_taken(&PageOrigins::Same, &fields, &behind));
        let plain = headers(&[("origin", "https://shop.example")]);
        assert!(!is_taken(&PageOrigins::Same, &plain, &behind), "it does not say");
        let passing = exchange("shop.example", false);
        passing.claims.set(Claims { scheme: Some(Scheme::Https), ..Claims::default() }).unwrap();
        assert!(is_taken(&PageOrigins::Same, &plain, &passing), "it leaves Host as it is");
    }
}
