//! Host and path → route.
//!
//! The host names the site; see `hosts` for how it is compared. Of its routes, in the order written, the first takes the
//! request whose path matches, as the app will see it, and whose conditions hold; see `conditions`.

mod conditions;
mod hosts;

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};

use self::conditions::{Match, compare, holds};
use self::hosts::Hosts;
use crate::config::{HostPattern, PathPattern, When};
use crate::error::{Error, Reason};
use crate::http::forwarded::Scheme;
use crate::http::{Body, Dispatch, Dispatched, Host, Onward, Request, Response, RouteLabel, Service, Target};

/// One site, compiled.
pub struct Site<S, M> {
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// Whether it also takes hosts that no site has.
    pub is_default: bool,
    /// In the order written.
    pub routes: Vec<Route<S, M>>,
}

/// One route, compiled.
pub struct Route<S, M> {
    /// What it takes.
    pub path: PathPattern,
    /// What else must hold.
    pub when: Option<When>,
    /// Whether only requests that another route hands on come to it.
    pub is_internal: bool,
    /// Its names in log and metrics.
    pub label: Arc<RouteLabel>,
    /// The layers and the action of this route.
    pub service: S,
    /// What answers requests that lack the slash at the end of its prefix.
    pub missing_slash: M,
}

impl<S, M> Route<S, M> {
    fn look(&self, request: &Request) -> Match {
        match compare(&self.path, request.target.path()) {
            Match::No => Match::No,
            found if self.when.as_ref().is_none_or(|when| holds(when, request)) => found,
            _ => Match::No,
        }
    }
}

/// Finds the route of each request and hands the request to it.
pub struct Router<S, M> {
    sites: Vec<Site<S, M>>,
    hosts: Hosts,
    probe_paths: Vec<Box<[u8]>>,
}

/// The route of a request.
struct Found<'a, S, M> {
    /// The place of its site.
    site: usize,
    /// Its place among the routes of that.
    place: usize,
    route: &'a Route<S, M>,
    matched: Match,
}

impl<S, M> Router<S, M> {
    /// Compiles the table of hosts. `probe_paths` are answered for any Host, and in plain HTTP everywhere.
    #[must_use]
    pub fn new(sites: Vec<Site<S, M>>, probe_paths: &[String]) -> Self {
        let hosts = Hosts::new(sites.iter().map(|site| (&site.hosts[..], site.is_default)));
        Self { sites, hosts, probe_paths: probe_paths.iter().map(|path| path.as_bytes().into()).collect() }
    }

    /// The first route of a site that takes a request of a client.
    fn find(&self, site: usize, request: &Request) -> Option<Found<'_, S, M>> {
        self.find_from(0, site, request, |route| !route.is_internal)
    }

    /// The first of those from the place `first` on.
    fn find_from(
        &self,
        first: usize,
        site: usize,
        request: &Request,
        may_take: impl Fn(&Route<S, M>) -> bool,
    ) -> Option<Found<'_, S, M>> {
        let routes = self.sites.get(site)?.routes.iter().enumerate().skip(first);
        let mut looked = routes.filter(|(_, route)| may_take(route)).map(|(place, route)| Found {
            site,
            place,
            route,
            matched: route.look(request),
        });
        looked.find(|found| found.matched != Match::No)
    }

    /// The route of a request for a probe path. A load balancer probes by address, or without Host, and does not follow
    /// redirects: where no site has its host, a route for this very path is what was meant, then any that takes it.
    fn find_probed(&self, named: Option<usize>, request: &Request) -> Option<Found<'_, S, M>> {
        let path = request.target.path();
        if !self.probe_paths.iter().any(|probed| **probed == *path) {
            return None;
        }
        let all = || 0..self.sites.len();
        let own = named.and_then(|site| self.find(site, request));
        own.or_else(|| all().find_map(|site| self.find_exact(site, request)))
            .or_else(|| self.hosts.any().into_iter().chain(all()).find_map(|site| self.find(site, request)))
    }

    fn find_exact(&self, site: usize, request: &Request) -> Option<Found<'_, S, M>> {
        let is_exact = |route: &Route<S, M>| !route.is_internal && matches!(route.path, PathPattern::Exact(_));
        self.find_from(0, site, request, is_exact)
    }
}

impl<S: Service<Error = Error>, M: Service<Error = Error>> Service for Router<S, M> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let exchange = &request.exchange;
        let named = exchange.host.as_ref().and_then(|host| self.hosts.named(host));
        let own = named.or(self.hosts.any());
        exchange.site.set(own);
        let probed = if self.probe_paths.is_empty() { None } else { self.find_probed(named, &request) };
        let found = match probed {
            Some(found) => found,
            None => {
                let site = own.ok_or(Error::new(Reason::UnknownHost))?;
                // A client that speaks TLS to a trusted proxy is where the redirect leads.
                if let Some(port) = exchange.connection.redirect_https
                    && exchange.scheme() == Scheme::Http
                {
                    let host = exchange.host.as_ref().ok_or(Error::new(Reason::MissingHost))?;
                    return redirect(&to_https(host, port, &request.target));
                }
                self.find(site, &request).ok_or(Error::new(Reason::NoRoute))?
            }
        };
        exchange.site.set(Some(found.site));
        found.call(request).await
    }
}

impl<S: Service<Error = Error>, M: Service<Error = Error>> Found<'_, S, M> {
    async fn call(self, request: Box<Request>) -> Result<Response, Error> {
        let exchange = &request.exchange;
        exchange.place.set(self.place);
        // It is set once; a second route of the same exchange keeps the first one's names.
        let _ = exchange.route.set(Arc::clone(&self.route.label));
        if self.matched == Match::MissingSlash {
            return self.route.missing_slash.call(request).await;
        }
        self.route.service.call(request).await
    }
}

impl<S: Service<Error = Error>, M: Service<Error = Error>> Dispatch for Router<S, M> {
    fn dispatch(&self, request: Box<Request>, onward: Onward) -> Dispatched<'_> {
        let exchange = &request.exchange;
        let found = exchange.site.get().and_then(|site| match onward {
            Onward::Next => self.find_from(exchange.place.get() + 1, site, &request, |route| !route.is_internal),
            // A redirect would lead the client to where it may not go.
            Onward::Internal => self.find_from(0, site, &request, |_| true).filter(|found| found.matched == Match::Yes),
        });
        Box::pin(async move { found.ok_or(Error::new(Reason::NoRoute))?.call(request).await })
    }
}

fn to_https(host: &Host, port: u16, target: &Target) -> String {
    let name = host.name();
    // `OPTIONS *` has no path that could stand behind a port.
    let target = if target.path() == b"*" { "/" } else { target.as_str() };
    match port {
        443 => format!("https://{name}{target}"),
        _ => format!("https://{name}:{port}{target}"),
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
    use std::path::Path;
    use std::rc::Rc;

    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::config;
    use crate::http::{ConnectionInfo, Exchange, Protocol};

    /// Answers with its name.
    struct Named(String);

    impl Service for Named {
        type Error = Error;

        async fn call(&self, _: Box<Request>) -> Result<Response, Error> {
            let mut response = Response::new(Body::Empty);
            response.headers_mut().insert("name", HeaderValue::from_str(&self.0).unwrap());
            Ok(response)
        }
    }

    fn router(text: &str) -> Router<Named, Named> {
        let loaded = config::load_str(text, "f", Path::new("/"), &|_| None).unwrap_or_else(|report| panic!("{report}"));
        let config = loaded.config;
        let route = |site: &config::Site, route: &config::Route| {
            let label = RouteLabel { index: 1, site: site.name.as_str().into(), route: route.name.as_str().into() };
            let service = Named(format!("{} {}", site.name, route.name));
            let missing_slash = Named(format!("{} {} without its slash", site.name, route.name));
            Route {
                path: route.path.clone(),
                when: route.when.clone(),
                is_internal: route.internal,
                label: Arc::new(label),
                service,
                missing_slash,
            }
        };
        let site = |site: &config::Site| Site {
            hosts: site.hosts.clone(),
            is_default: site.default,
            routes: site.routes.iter().map(|of| route(site, of)).collect(),
        };
        Router::new(config.sites.iter().map(site).collect(), &config.probe_paths)
    }

    /// Which route answers, or what else comes of it. `redirects`: on a listener that only does that.
    async fn answer(router: &Router<Named, Named>, host: &str, target: &str, redirects: bool) -> String {
        answer_to(router, Protocol::Http11, Method::GET, host, target, redirects).await
    }

    /// The same for any client.
    async fn answer_to(
        router: &Router<Named, Named>,
        protocol: Protocol,
        method: Method,
        host: &str,
        target: &str,
        redirects: bool,
    ) -> String {
        let mut connection = ConnectionInfo::new("80");
        connection.redirect_https = redirects.then_some(443);
        let target = Bytes::copy_from_slice(target.as_bytes());
        let host = (!host.is_empty()).then(|| Host::parse(Bytes::copy_from_slice(host.as_bytes())).unwrap());
        let exchange = Exchange::new(Rc::new(connection), protocol, method.clone(), target.clone(), host, None);
        let request = Request {
            method,
            target: Target::parse(target).unwrap(),
            headers: HeaderMap::new(),
            body: Body::Empty,
            exchange: Rc::new(exchange),
            refused: None,
        };
        let field = |response: &Response, name: &str| {
            response.headers().get(name).map(|v: &HeaderValue| v.to_str().unwrap().to_owned())
        };
        match router.call(Box::new(request)).await {
            Ok(response) => field(&response, "name").or_else(|| field(&response, "location")).unwrap(),
            Err(error) => error.reason.to_string(),
        }
    }

    const SITES: &str = "
sites:
  - hosts: [shop.example]
    routes:
      - { path: /beta/, when: { query: { v: 2 } }, respond: { body: new } }
      - { path: /beta, respond: { body: old } }
      - { path_regex: '^/[0-9]+$', respond: {} }
      - { path_exact: /up, respond: {} }
  - hosts: [blog.example]
    default: true
    routes:
      - { path_exact: /blog-up, respond: {} }
      - { path: /, when: { query: { probe: 1 } }, respond: {} }
      - { path_exact: /, respond: {} }
probe_paths: [/up, /blog-up, /nobody]
";

    #[tokio::test]
    async fn the_first_route_whose_path_and_conditions_fit_takes_the_request() {
        let router = router(SITES);
        for (host, target, answer) in [
            ("shop.example", "/beta/x?v=2", "shop.example /beta/"),
            ("shop.example", "/beta/x", "shop.example /beta"),
            ("shop.example", "/beta?v=2", "shop.example /beta/ without its slash"),
            ("shop.example", "/beta?v=3", "shop.example /beta"),
            ("shop.example", "/12", "shop.example ^/[0-9]+$"),
            ("shop.example", "/%31", "shop.example ^/[0-9]+$"),
            ("shop.example", "/x", "no_route"),
            ("unknown.example", "/", "blog.example /"),
            ("", "/", "blog.example /"),
            ("unknown.example", "/12", "no_route"),
        ] {
            assert_eq!(super::tests::answer(&router, host, target, false).await, answer, "{host} {target}");
        }
    }

    #[tokio::test]
    async fn a_probe_path_is_answered_for_any_host_and_never_redirected() {
        let text = SITES.replace("default: true", "default: false");
        for (text, unknown) in [(SITES, "blog.example /"), (text.as_str(), "unknown_host")] {
            let router = router(text);
            for (host, target, redirects, answer) in [
                ("10.0.0.1:80", "/up", false, "shop.example /up"),
                ("", "/up", false, "shop.example /up"),
                ("10.0.0.1", "/%75p", false, "shop.example /up"),
                ("10.0.0.1", "/blog-up", false, "blog.example /blog-up"),
                ("10.0.0.1", "/up?probe=1", false, "shop.example /up"),
                ("blog.example", "/up?probe=1", false, "blog.example /"),
                ("10.0.0.1", "/nobody?probe=1", false, "blog.example /"),
                ("blog.example", "/up", false, "shop.example /up"),
                ("10.0.0.1", "/up", true, "shop.example /up"),
                ("shop.example", "/up", true, "shop.example /up"),
                ("shop.example", "/upx", true, "https://shop.example/upx"),
                ("shop.example", "*", true, "https://shop.example/"),
                ("10.0.0.1", "/", false, unknown),
            ] {
                let told = super::tests::answer(&router, host, target, redirects).await;
                assert_eq!(told, answer, "{host} {target} {redirects}");
            }
            let nobody = super::tests::answer(&router, "10.0.0.1", "/nobody", false).await;
            assert_eq!(nobody, if unknown == "unknown_host" { unknown } else { "no_route" });
        }
    }

    async fn handed_on(router: &Router<Named, Named>, from: &str, target: &'static str, onward: Onward) -> String {
        let connection = ConnectionInfo::new("80");
        let host = Host::parse(Bytes::from_static(b"shop.example")).unwrap();
        let exchange =
            Exchange::new(Rc::new(connection), Protocol::Http11, Method::GET, Bytes::new(), Some(host), None);
        exchange.site.set(Some(0));
        let place = router.sites[0].routes.iter().position(|route| *route.label.route == *from).unwrap();
        exchange.place.set(place);
        let request = Request {
            method: Method::GET,
            target: Target::parse(Bytes::from_static(target.as_bytes())).unwrap(),
            headers: HeaderMap::new(),
            body: Body::Empty,
            exchange: Rc::new(exchange),
            refused: None,
        };
        match router.dispatch(Box::new(request), onward).await {
            Ok(response) => {
                let field = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                field("name").or_else(|| field("location")).unwrap()
            }
            Err(error) => error.reason.to_string(),
        }
    }

    const INTERNAL: &str = "
sites:
  - hosts: [shop.example]
    routes:
      - { path: /static/, respond: {} }
      - { path: /protected/, internal: true, respond: {} }
      - { path: /app/, respond: {} }
      - { path_exact: /protected/readme, respond: {} }
      - { path_exact: /static, respond: {} }
  - hosts: [blog.example]
    routes: [{ path: /protected/, internal: true, respond: {} }]
probe_paths: [/protected/x]
";

    #[tokio::test]
    async fn internal_routes_are_for_requests_that_another_route_hands_on() {
        let router = router(INTERNAL);
        for (target, answer) in [
            ("/protected/x", "no_route"),
            ("/protected", "no_route"),
            ("/protected/readme", "shop.example /protected/readme"),
        ] {
            assert_eq!(super::tests::answer(&router, "shop.example", target, false).await, answer, "{target}");
        }
        for (target, answer) in [
            ("/protected/x", "shop.example /protected/"),
            ("/protected/readme", "shop.example /protected/"),
            ("/protected", "no_route"),
            ("/app/", "shop.example /app/"),
            ("/static/x", "shop.example /static/"),
            ("/other", "no_route"),
        ] {
            assert_eq!(handed_on(&router, "/app/", target, Onward::Internal).await, answer, "{target}");
        }
    }

    #[tokio::test]
    async fn no_spelling_method_or_protocol_leads_a_client_to_an_internal_route() {
        let router = router(INTERNAL);
        let methods = [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::TRACE];
        for protocol in [Protocol::Http10, Protocol::Http11, Protocol::Http2] {
            for method in methods.clone() {
                // A probe path among them, with the site's host, an address and none.
                for (host, target, answer) in [
                    ("shop.example", "/protected/x", "no_route"),
                    ("shop.example", "/%70rotected/x", "no_route"),
                    ("shop.example", "/protected%2Fx", "no_route"),
                    ("shop.example", "/%70rotected/%78", "no_route"),
                    ("shop.example", "/protected/y?x=/protected/", "no_route"),
                    ("shop.example", "/protected", "no_route"),
                    ("10.0.0.1", "/protected/x", "unknown_host"),
                    ("10.0.0.1", "/%70rotected/x", "unknown_host"),
                    ("", "/protected/x", "unknown_host"),
                ] {
                    let told = answer_to(&router, protocol, method.clone(), host, target, false).await;
                    assert_eq!(told, answer, "{protocol:?} {method} {host} {target}");
                }
            }
        }
        for target in ["/protected/x", "/%70rotected/x", "/protected"] {
            assert_eq!(handed_on(&router, "/static/", target, Onward::Next).await, "no_route", "{target}");
        }
        assert_eq!(handed_on(&router, "/app/", "/%70rotected/x", Onward::Internal).await, "shop.example /protected/");
    }

    #[tokio::test]
    async fn the_next_route_is_one_behind_and_not_internal() {
        let router = router(INTERNAL);
        for (from, target, answer) in [
            ("/static/", "/static/x", "no_route"),
            ("/static/", "/static", "shop.example /static"),
            ("/static/", "/protected/readme", "shop.example /protected/readme"),
            ("/static/", "/app", "shop.example /app/ without its slash"),
            ("/static", "/static", "no_route"),
        ] {
            assert_eq!(handed_on(&router, from, target, Onward::Next).await, answer, "{from} {target}");
        }
    }
}
