//! What a request that changes things makes of what is stored (RFC 9111, 4.4).

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

use crate::http::without_dots;

/// Bytes of a `Location` that are read.
const MAX_LENGTH: usize = 8192;

/// Whether the answer to a request makes what is stored under its target invalid: a method that is not known to be safe, and an answer
/// that is no failure.
#[must_use]
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    (status.is_success() || status.is_redirection()) && !is_safe(method)
}

/// Methods that are registered as safe. Of others nobody knows.
fn is_safe(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY" | "PRI")
}

/// Where a request went.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Whether over TLS.
    pub is_secure: bool,
    /// Host, with its port if it was written.
    pub host: &'a str,
    /// The path, as received.
    pub path: &'a str,
}

/// The further targets (path and query) that such an answer names by `Location` and `Content-Location`, as far as they are of the
/// same origin: an app must not be able to make what others have stored invalid.
#[must_use]
pub fn targets(origin: &Origin<'_>, headers: &HeaderMap) -> Vec<String> {
    let mut targets = Vec::new();
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        if let Some(target) = target(origin, headers, &name)
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    targets
}

fn target(origin: &Origin<'_>, headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok().filter(|text| text.len() <= MAX_LENGTH)?;
    let text = &text[..text.find('#').unwrap_or(text.len())];
    let local = local(origin, text)?;
    let (path, query) = local.split_at(local.find('?').unwrap_or(local.len()));
    let path = match path {
        "" if query.is_empty() && text.is_empty() => return None,
        "" if is_relative(text) => origin.path.to_owned(),
        "" => "/".to_owned(),
        path if path.starts_with('/') => without_dots(path),
        path => {
            let folder = origin.path.rfind('/').map_or("/", |end| &origin.path[..=end]);
            without_dots(&[folder, path].concat())
        }
    };
    Some([&path, query].concat())
}

/// Without scheme and authority, if those are the origin's.
fn local<'t>(origin: &Origin<'_>, text: &'t str) -> Option<&'t str> {
    let (is_secure, rest) = match scheme(text) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some(_) => return None,
        None => (origin.is_secure, text),
    };
    let Some(rest) = rest.strip_prefix("//") else {
        // `http:/path` names no host: nobody writes it, and readers differ.
        return scheme(text).is_none().then_some(text);
    };
    let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_same = is_secure == origin.is_secure && same_authority(authority, origin.host, is_secure);
    is_same.then_some(local)
}

fn is_relative(text: &str) -> bool {
    scheme(text).is_none() && !text.starts_with("//")
}

fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then_some((scheme, rest))
}

fn same_authority(one: &str, other: &str, is_secure: bool) -> bool {
    let usual = if is_secure { ":443" } else { ":80" };
    let bare = |text: &str| {
        let text = text.strip_suffix(usual).or_else(|| text.strip_suffix(':')).unwrap_or(text);
        text.to_ascii_lowercase()
    };
    bare(one) == bare(other)
}
