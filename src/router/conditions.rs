//! What a route asks of a request: its path as the app will see it, then `when`.

use crate::config::{PathPattern, When};
use crate::http::{Request, query};

/// What a route says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    /// The path is the prefix but for its final slash.
    MissingSlash,
}

pub(super) fn compare(pattern: &PathPattern, path: &[u8]) -> Match {
    match pattern {
        PathPattern::Exact(exact) if exact.as_bytes() == path => Match::Yes,
        PathPattern::Exact(_) => Match::No,
        // `OPTIONS *` asks about the whole server.
        PathPattern::Prefix(prefix) if prefix == "/" => Match::Yes,
        PathPattern::Prefix(prefix) => match (path.strip_prefix(prefix.as_bytes()), prefix.strip_suffix('/')) {
            (Some([] | [b'/', ..]), _) | (Some(_), Some(_)) => Match::Yes,
            (None, Some(folder)) if folder.as_bytes() == path => Match::MissingSlash,
            _ => Match::No,
        },
        // It is no path, whatever `.*` says to it.
        PathPattern::Regex(_) if path == b"*" => Match::No,
        PathPattern::Regex(regex) if regex.is_match(path) => Match::Yes,
        PathPattern::Regex(_) => Match::No,
    }
}

/// Whether all of `when` holds.
pub(super) fn holds(when: &When, request: &Request) -> bool {
    let Request { method, headers, target, .. } = request;
    let has_line =
        |name: &str, value: &str| headers.get_all(name).iter().any(|line| line.as_bytes() == value.as_bytes());
    (when.methods.is_empty() || when.methods.iter().any(|asked| asked == method.as_str()))
        && when.headers.iter().all(|(name, value)| has_line(name, value))
        && when.query.iter().all(|(name, value)| query::has(target.query_with_mark(), name, value))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::rc::Rc;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::config;
    use crate::http::{Body, ConnectionInfo, Exchange, Protocol, Target};

    fn route(keys: &str) -> config::Route {
        let text = format!("sites: [{{ routes: [{{ {keys}, respond: {{}} }}] }}]");
        let loaded =
            config::load_str(&text, "f", Path::new("/"), &|_| None).unwrap_or_else(|report| panic!("{report}"));
        loaded.config.sites[0].routes[0].clone()
    }

    #[test]
    fn prefixes_end_at_segments() {
        for (pattern, path, expected) in [
            ("path: /static/", "/static/a", Match::Yes),
            ("path: /static/", "/static/", Match::Yes),
            ("path: /static/", "/static", Match::MissingSlash),
            ("path: /static/", "/staticx", Match::No),
            ("path: /api", "/api", Match::Yes),
            ("path: /api", "/api/x", Match::Yes),
            ("path: /api", "/apix", Match::No),
            ("path: /", "/", Match::Yes),
            ("path: /", "*", Match::Yes),
            ("path_exact: /up", "/up", Match::Yes),
            ("path_exact: /up", "/up/", Match::No),
            ("path_regex: '^/a/[0-9]+$'", "/a/12", Match::Yes),
            ("path_regex: '^/a/[0-9]+$'", "/a/12/", Match::No),
            ("path_regex: 'a'", "/bab", Match::Yes),
            ("path_regex: '.*'", "*", Match::No),
        ] {
            assert_eq!(compare(&route(pattern).path, path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    fn request(method: &str, target: &str, fields: &[(&'static str, &'static str)]) -> Request {
        let target = Bytes::copy_from_slice(target.as_bytes());
        let connection = Rc::new(ConnectionInfo::new("80"));
        let method: Method = method.parse().unwrap();
        let exchange = Exchange::new(connection, Protocol::Http11, method.clone(), target.clone(), None, None);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let target = Target::parse(target).unwrap();
        Request { method, target, headers, body: Body::Empty, exchange: Rc::new(exchange), refused: None }
    }

    #[test]
    fn every_condition_must_hold() {
        let when = |keys: &str| route(&format!("path: /, when: {{ {keys} }}")).when.unwrap();
        let beta: &[(&str, &str)] = &[("x-beta", "1")];
        let twice: &[(&str, &str)] = &[("x-beta", "0"), ("x-beta", "1")];
        for (keys, method, target, fields, expected) in [
            ("methods: [GET, HEAD]", "HEAD", "/", &[][..], true),
            ("methods: [GET]", "HEAD", "/", &[], false),
            ("methods: [GET]", "POST", "/", &[], false),
            ("methods: [PROPFIND]", "PROPFIND", "/", &[], true),
            ("headers: { X-Beta: 1 }", "GET", "/", beta, true),
            ("headers: { X-Beta: \"1\" }", "GET", "/", twice, true),
            ("headers: { x-beta: 2 }", "GET", "/", beta, false),
            ("headers: { x-beta: 1 }", "GET", "/", &[], false),
            ("headers: { x-beta: 1, x-other: 1 }", "GET", "/", beta, false),
            ("query: { v: 2 }", "GET", "/?a=1&v=2", &[], true),
            ("query: { v: 2, a: b }", "GET", "/?v=2", &[], false),
            ("query: { beta: true }", "GET", "/?beta=true", &[], true),
            ("methods: [GET], headers: { x-beta: 1 }, query: { v: 2 }", "GET", "/?v=2", beta, true),
            ("methods: [GET], headers: { x-beta: 1 }, query: { v: 2 }", "POST", "/?v=2", beta, false),
            ("methods: [GET], headers: { x-beta: 1 }, query: { v: 2 }", "GET", "/?v=3", beta, false),
        ] {
            assert_eq!(holds(&when(keys), &request(method, target, fields)), expected, "{keys} {method} {target}");
        }
    }
}
