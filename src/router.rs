//! Host and path → route.
//!
//! Hosts are compared in lower case, without port and trailing dot: exact names first, then the longest wildcard, then
//! the site without hosts. Paths are compared as the app will see them, in the order written; the first match wins.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};

use crate::config::{HostPattern, PathPattern};
use crate::error::{Error, Reason};
use crate::http::forwarded::Scheme;
use crate::http::{Body, Host, Request, Response, RouteLabel, Service, Target};

/// One site, compiled.
pub struct Site<S> {
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// In the order written.
    pub routes: Vec<Route<S>>,
}

/// One route, compiled.
pub struct Route<S> {
    /// What it takes.
    pub path: PathPattern,
    /// Its names in log and metrics.
    pub label: Arc<RouteLabel>,
    /// The layers and the action of this route.
    pub service: S,
}

/// Finds the route of each request and hands the request to it.
pub struct Router<S> {
    sites: Vec<Site<S>>,
    exact: HashMap<Box<str>, usize>,
    /// `.shop.example` → site, the longest first.
    wildcards: Vec<(Box<str>, usize)>,
    any: Option<usize>,
}

impl<S> Router<S> {
    /// Compiles the table of hosts.
    #[must_use]
    pub fn new(sites: Vec<Site<S>>) -> Self {
        let mut wildcards: Vec<(Box<str>, usize)> = Vec::new();
        let (mut exact, mut any) = (HashMap::new(), None);
        for (index, site) in sites.iter().enumerate() {
            if site.hosts.is_empty() {
                any.get_or_insert(index);
            }
            for host in &site.hosts {
                match host {
                    HostPattern::Exact(name) => {
                        exact.entry(name.as_str().into()).or_insert(index);
                    }
                    HostPattern::Wildcard(suffix) => wildcards.push((Box::from(suffix.as_str()), index)),
                }
            }
        }
        wildcards.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        Self { sites, exact, wildcards, any }
    }

    fn site(&self, host: Option<&Host>) -> Option<&Site<S>> {
        let index = host.and_then(|host| self.named(host.name())).or(self.any)?;
        self.sites.get(index)
    }

    fn named(&self, name: &str) -> Option<usize> {
        if self.exact.is_empty() && self.wildcards.is_empty() {
            return None;
        }
        let lowered;
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lowered = name.to_ascii_lowercase();
            &lowered
        } else {
            name
        };
        self.exact.get(name).copied().or_else(|| {
            let matches = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix);
            self.wildcards.iter().find(|(suffix, _)| matches(suffix)).map(|(_, index)| *index)
        })
    }
}

/// What a pattern says to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// The path is the prefix but for its final slash.
    MissingSlash,
}

fn compare(pattern: &PathPattern, path: &[u8]) -> Match {
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
    }
}

impl<S: Service<Error = Error>> Service for Router<S> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let exchange = &request.exchange;
        let site = self.site(exchange.host.as_ref()).ok_or(Error::new(Reason::UnknownHost))?;
        // A client that speaks TLS to a trusted proxy is where the redirect leads.
        if let Some(port) = exchange.connection.redirect_https
            && exchange.scheme() == Scheme::Http
        {
            let host = exchange.host.as_ref().ok_or(Error::new(Reason::MissingHost))?;
            return redirect(&to_https(host, port, &request.target));
        }
        let path = request.target.path();
        let (route, matched) = site
            .routes
            .iter()
            .map(|route| (route, compare(&route.path, path)))
            .find(|(_, matched)| *matched != Match::No)
            .ok_or(Error::new(Reason::NoRoute))?;
        // It is set once; a second route of the same exchange keeps the first one's names.
        let _ = exchange.route.set(Arc::clone(&route.label));
        if matched == Match::MissingSlash {
            return redirect(&format!("{}/{}", request.target.raw_path(), request.target.query_with_mark()));
        }
        route.service.call(request).await
    }
}

fn to_https(host: &Host, port: u16, target: &Target) -> String {
    let name = host.name();
    match port {
        443 => format!("https://{name}{}", target.as_str()),
        _ => format!("https://{name}:{port}{}", target.as_str()),
    }
}

/// 308 keeps method and body (RFC 9110, 15.4.9).
fn redirect(to: &str) -> Result<Response, Error> {
    let location = HeaderValue::from_str(to).map_err(|_| Error::new(Reason::BadTarget))?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn router(sites: &[&[HostPattern]]) -> Router<()> {
        Router::new(sites.iter().map(|hosts| Site { hosts: hosts.to_vec(), routes: Vec::new() }).collect())
    }

    fn found(router: &Router<()>, host: &str) -> Option<usize> {
        let host = Host::parse(Bytes::copy_from_slice(host.as_bytes())).unwrap();
        let site = router.site(Some(&host))?;
        router.sites.iter().position(|other| std::ptr::eq(other, site))
    }

    #[test]
    fn exact_before_wildcard_before_any() {
        let exact = |name: &str| HostPattern::Exact(name.into());
        let wildcard = |name: &str| HostPattern::Wildcard(name.into());
        let named: &[&[HostPattern]] =
            &[&[wildcard(".example")], &[exact("a.shop.example"), exact("[::1]")], &[wildcard(".shop.example")]];
        let router = router(named);
        for (host, site) in [
            ("A.Shop.Example.:8443", Some(1)),
            ("b.shop.example", Some(2)),
            ("c.b.shop.example", Some(2)),
            ("shop.example", Some(0)),
            ("example", None),
            ("shop.example.org", None),
            ("[::1]:80", Some(1)),
        ] {
            assert_eq!(found(&router, host), site, "{host}");
        }
        let with_any = super::tests::router(&[named[0], &[]]);
        assert_eq!(found(&with_any, "unknown.org"), Some(1));
    }

    #[test]
    fn prefixes_end_at_segments() {
        let prefix = |text: &str| PathPattern::Prefix(text.into());
        for (pattern, path, expected) in [
            (prefix("/static/"), "/static/a", Match::Yes),
            (prefix("/static/"), "/static/", Match::Yes),
            (prefix("/static/"), "/static", Match::MissingSlash),
            (prefix("/static/"), "/staticx", Match::No),
            (prefix("/api"), "/api", Match::Yes),
            (prefix("/api"), "/api/x", Match::Yes),
            (prefix("/api"), "/apix", Match::No),
            (prefix("/"), "/", Match::Yes),
            (prefix("/"), "*", Match::Yes),
            (PathPattern::Exact("/up".into()), "/up", Match::Yes),
            (PathPattern::Exact("/up".into()), "/up/", Match::No),
        ] {
            assert_eq!(compare(&pattern, path.as_bytes()), expected, "{pattern:?} {path}");
        }
    }
}
