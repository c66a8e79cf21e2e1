//! Routes that nobody can reach, and probes that nobody answers: as far as the text tells, and no further.

use std::collections::HashMap;

use crate::config::decode::Decoder;
use crate::config::node::Span;
use crate::config::report::quoted;
use crate::config::schema::{Draft, RouteDraft, SiteDraft};
use crate::config::{Action, EndpointProtocol, PathPattern, PathRegex, Route, WebSocketMode, When};

/// Routes that an earlier one of their site covers.
pub(super) fn unreachable(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    for site in sites {
        // Requests of clients pass by what is internal; those that are handed on do not.
        let (mut of_clients, mut of_all) = (Earlier::default(), Earlier::default());
        for draft in &site.routes {
            let earlier = if draft.route.internal { &of_all } else { &of_clients };
            if let Some(cover) = earlier.covers(&draft.route) {
                let (first, label, help) = cover.told(&draft.route.path);
                decoder.warning(&draft.span, "this route can never match").also(first, label).help(help);
                continue;
            }
            if !draft.route.internal {
                of_clients.add(&draft.route, &draft.span);
            }
            of_all.add(&draft.route, &draft.span);
        }
    }
}

/// Internal routes that no app leads to.
pub(super) fn forgotten(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    let asks_app = |draft: &RouteDraft| matches!(draft.route.action, Action::Proxy(_));
    for site in sites.iter().filter(|site| !site.routes.iter().any(asks_app)) {
        for draft in site.routes.iter().filter(|draft| draft.route.internal) {
            decoder
                .warning(&draft.span, "nobody can come to this route")
                .label("clients may not, and no route of this site asks an app that could hand them on")
                .help("add a route with `proxy`, or take `internal` out");
        }
    }
}

/// Where clients can be held, somebody has to be able to publish.
pub(super) fn unpublished(decoder: &mut Decoder<'_>, draft: &Draft) {
    if draft.realtime.0.publish.is_some() {
        return;
    }
    let mut routes = draft.sites.iter().flat_map(|site| &site.routes);
    if let Some(first) = routes.find(|draft| draft.route.grip && matches!(draft.route.action, Action::Proxy(_))) {
        decoder
            .warning(&first.span, "clients of this route can be held, and nobody can publish to them")
            .label("`grip` is on here")
            .help("write realtime: { publish: { bind: unix:/run/hostler/publish.sock } }, or 127.0.0.1:5561 for a GRIP_URL");
    }
}

/// Redirects to a path of their own site that they take themselves.
pub(super) fn endless_redirects(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    for site in sites {
        for draft in &site.routes {
            let Some(path) = own_target(&draft.route) else { continue };
            let may_answer = |route: &Route| !route.internal && (may_take(route, path) || may_add_slash(route, path));
            let first = site.routes.iter().find(|other| may_answer(&other.route));
            if first.is_some_and(|first| std::ptr::eq(first, draft)) {
                let label = if may_take(&draft.route, path) {
                    format!("it takes {path} as well")
                } else {
                    format!("{path} is sent on to {path}/, which it takes as well")
                };
                decoder
                    .warning(&draft.span, "this redirect leads to itself")
                    .label(label)
                    .help("lead it elsewhere, or put a route for its target before it");
            }
        }
    }
}

/// Routes that hand on what they have no file for, with nothing behind them to take it.
pub(super) fn idle_fallbacks(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    for site in sites {
        let last = site.routes.iter().rposition(|draft| !draft.route.internal);
        for (_, draft) in site.routes.iter().enumerate().filter(|(at, _)| last.is_none_or(|last| last <= *at)) {
            if draft.route.hands_on() {
                decoder
                    .warning(&draft.span, "`fallback: next` leads nowhere: there is no route behind this one")
                    .help("put the route that is to take what is no file behind it, or take `fallback` out");
            }
        }
    }
}

/// Names by which one route tells its app who asks are removed from what clients send on all of them. Nothing else can be said
/// by them: what a route sets would never arrive, and what it asks for any client could write.
pub(super) fn names_of_the_edge(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    let drafts = || sites.iter().flat_map(|site| &site.routes);
    let mut told: HashMap<&str, &Span> = HashMap::new();
    for (name, at) in drafts().flat_map(|draft| &draft.places.of_the_edge) {
        told.entry(name).or_insert(at);
    }
    let help = "write another name here, or there; what clients send under that one is removed on every route";
    for draft in drafts() {
        for (name, at) in &draft.places.set {
            if let Some(told) = told.get(name.as_str()) {
                decoder
                    .error(at, format!("the header {} never reaches an app from here", quoted(name)))
                    .also(told, "by it only the edge tells who asks, or for what")
                    .help(help);
            }
        }
        for (name, at) in &draft.places.asked {
            if let Some(told) = told.get(name.as_str()) {
                decoder
                    .error(
                        at,
                        format!("the header {} is not taken from clients: any of them could write it", quoted(name)),
                    )
                    .also(told, "by it only the edge tells who asks, or for what")
                    .help(help);
            }
        }
    }
}

/// A tunnel is opened by an upgrade of HTTP/1.1, which not everybody speaks.
pub(super) fn tunnels_to_other_protocols(decoder: &mut Decoder<'_>, draft: &Draft) {
    for RouteDraft { route, places, .. } in draft.sites.iter().flat_map(|site| &site.routes) {
        let is_tunnel = route.websocket.as_ref().is_some_and(|websocket| websocket.mode == WebSocketMode::Tunnel);
        let (Action::Proxy(upstream), Some(at), true) = (&route.action, &places.websocket, is_tunnel) else { continue };
        let endpoints = draft.upstreams.get(*upstream).map_or(&[][..], |upstream| &upstream.endpoints);
        for endpoint in endpoints {
            let (what, help) = match endpoint.endpoint.address.protocol {
                EndpointProtocol::Http | EndpointProtocol::Https => continue,
                EndpointProtocol::Uwsgi => (
                    "uwsgi has no WebSockets: the app's server has to speak HTTP/1.1",
                    "lead the route to an upstream of http://, https:// or unix: endpoints, such as uvicorn or daphne",
                ),
                EndpointProtocol::H2c => (
                    "a WebSocket is opened by an upgrade, which only HTTP/1.1 has",
                    "write http:// for this endpoint, or lead the route to another upstream",
                ),
            };
            decoder
                .error(at, "a WebSocket cannot be passed through to this upstream")
                .also(&endpoint.span, what)
                .help(help);
            break;
        }
    }
}

/// Redirects to whatever host a client names, on sites that take any.
pub(super) fn redirects_to_any_host(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    for site in sites.iter().filter(|site| site.any_host || site.default.is_some()) {
        for draft in &site.routes {
            let Action::Redirect { to, .. } = &draft.route.action else { continue };
            if !to.leads_to_named_host() {
                continue;
            }
            let at = draft.places.redirect_to.as_ref().unwrap_or(&draft.span);
            let (why, label) = match &site.default {
                Some(default) => (default, "hosts that no site has come here"),
                None => (&site.span, "this site has no `hosts`"),
            };
            decoder
                .warning(at, "this redirect leads to whatever host a client names")
                .also(why, label)
                .help("write the host itself instead of {host}, or give the site the `hosts` that it is for");
        }
    }
}

/// The path that a redirect without conditions leads to, where it is the same for all requests and plainly written.
fn own_target(route: &Route) -> Option<&str> {
    let Action::Redirect { to, .. } = &route.action else { return None };
    if route.internal {
        return None;
    }
    let to = to.fixed().filter(|to| route.when.is_none() && to.starts_with('/') && !to.contains('%'))?;
    to.split(['?', '#']).next()
}

/// Probe paths that no route of any site takes.
pub(super) fn unanswered_probes(decoder: &mut Decoder<'_>, draft: &Draft) {
    for (path, span) in &draft.probe_paths {
        let routes = || draft.sites.iter().flat_map(|site| &site.routes).map(|draft| &draft.route);
        if !routes().any(|route| !route.internal && may_take(route, path)) {
            decoder
                .warning(span, "no route answers this path")
                .help(format!("write {{ path_exact: {path}, respond: {{ body: ok }} }} into a site"));
        }
    }
}

/// Whether a route matches a path, if its conditions let it.
fn may_take(route: &Route, path: &str) -> bool {
    match &route.path {
        PathPattern::Exact(exact) => exact == path,
        PathPattern::Prefix(prefix) => {
            path.strip_prefix(prefix.as_str()).is_some_and(|rest| ends_segment(prefix) || is_segment_end(rest))
        }
        PathPattern::Regex(regex) => regex.is_match(path.as_bytes()),
    }
}

/// Whether a route redirects this path to the one with a slash, if its conditions let it.
fn may_add_slash(route: &Route, path: &str) -> bool {
    matches!(&route.path, PathPattern::Prefix(prefix) if prefix.strip_suffix('/') == Some(path))
}

fn ends_segment(prefix: &str) -> bool {
    prefix.ends_with('/')
}

fn is_segment_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// The routes before the one that is looked at.
#[derive(Default)]
struct Earlier<'a> {
    prefixes: HashMap<&'a str, Alike<'a>>,
    exact: HashMap<&'a str, Alike<'a>>,
    regexes: HashMap<&'a str, Alike<'a>>,
    /// The first [`REMEMBERED`] of `regexes`.
    patterns: Vec<&'a PathRegex>,
    /// Prefixes that end with a slash, without it: what they redirect.
    folders: HashMap<&'a str, Alike<'a>>,
}

/// Routes with the same pattern, and what else each asks for.
type Alike<'a> = Vec<(Option<&'a When>, &'a Span)>;

/// So many of them are remembered for one pattern, and so many patterns are compared with paths: a file with more is not
/// looked at in all pairs.
const REMEMBERED: usize = 64;

/// An earlier route that keeps all requests from a later one.
enum Cover<'a> {
    Takes(&'a Span),
    /// Of which they lack the final slash, or come to what is below it.
    AddsSlash(&'a Span),
}

impl<'a> Cover<'a> {
    /// Where it is, what it does, and what to do about the route with this pattern.
    fn told(&self, later: &PathPattern) -> (&'a Span, &'static str, &'static str) {
        const SPECIFIC: &str = "the first route that matches wins: put the more specific one before the other";
        match self {
            Self::Takes(first) => (first, "this one takes its requests", SPECIFIC),
            Self::AddsSlash(first) if later.is_exact() => {
                (first, "this one redirects its requests to the path with a slash", SPECIFIC)
            }
            Self::AddsSlash(first) => (
                first,
                "this one takes its requests, and redirects those that lack the slash",
                "leave one of them out: the path without its final slash takes the same, and redirects nothing",
            ),
        }
    }
}

impl<'a> Earlier<'a> {
    fn add(&mut self, route: &'a Route, span: &'a Span) {
        let asked = (route.when.as_ref(), span);
        if let PathPattern::Prefix(path) = &route.path
            && let Some(folder) = path.strip_suffix('/')
        {
            remember(&mut self.folders, folder, asked);
        }
        // What it leaves comes to the routes behind it.
        if route.hands_on() {
            return;
        }
        match &route.path {
            PathPattern::Prefix(path) => remember(&mut self.prefixes, path, asked),
            PathPattern::Exact(path) => remember(&mut self.exact, path, asked),
            PathPattern::Regex(regex) => {
                if self.patterns.len() < REMEMBERED && !self.regexes.contains_key(regex.as_str()) {
                    self.patterns.push(regex);
                }
                remember(&mut self.regexes, regex.as_str(), asked);
            }
        }
    }

    /// Whether every request of `route` is taken before.
    fn covers(&self, route: &Route) -> Option<Cover<'a>> {
        let when = route.when.as_ref();
        let taken = match &route.path {
            PathPattern::Prefix(path) => self.prefix_of(path, true, when),
            PathPattern::Exact(path) => wide_enough(self.exact.get(path.as_str()), when)
                .or_else(|| self.prefix_of(path, true, when))
                .or_else(|| self.pattern_of(path, when)),
            PathPattern::Regex(regex) => wide_enough(self.regexes.get(regex.as_str()), when)
                .or_else(|| self.prefix_of(beginning(regex.as_str()), false, when)),
        };
        taken.map(Cover::Takes).or_else(|| self.folder_of(&route.path, when).map(Cover::AddsSlash))
    }

    /// A regular expression that is found in this path.
    fn pattern_of(&self, path: &str, when: Option<&When>) -> Option<&'a Span> {
        let mut found = self.patterns.iter().filter(|regex| regex.is_match(path.as_bytes()));
        found.find_map(|regex| wide_enough(self.regexes.get(regex.as_str()), when))
    }

    /// A prefix whose final slash these paths lack.
    fn folder_of(&self, path: &PathPattern, when: Option<&When>) -> Option<&'a Span> {
        match path {
            PathPattern::Exact(path) => wide_enough(self.folders.get(path.as_str()), when),
            PathPattern::Prefix(path) if !ends_segment(path) => {
                wide_enough(self.prefixes.get(format!("{path}/").as_str()), when)
            }
            PathPattern::Prefix(_) | PathPattern::Regex(_) => None,
        }
    }

    /// A prefix that takes what begins with `path`; what is no more than `path` counts when that is whole.
    fn prefix_of(&self, path: &str, is_whole: bool, when: Option<&When>) -> Option<&'a Span> {
        // Each place where a prefix can end: before a slash, after one, and at the end.
        let slashes = path.match_indices('/').flat_map(|(at, _)| [at, at + 1]);
        let mut ends = slashes.chain(is_whole.then_some(path.len()));
        ends.find_map(|end| wide_enough(self.prefixes.get(&path[..end]), when))
    }
}

fn remember<'a>(table: &mut HashMap<&'a str, Alike<'a>>, text: &'a str, asked: (Option<&'a When>, &'a Span)) {
    let alike = table.entry(text).or_default();
    if alike.len() < REMEMBERED {
        alike.push(asked);
    }
}

/// The first of these routes that asks for nothing that `when` does not ask for.
fn wide_enough<'a>(alike: Option<&Alike<'a>>, when: Option<&When>) -> Option<&'a Span> {
    let is_wide = |earlier: &Option<&When>| match (earlier, when) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => earlier.is_as_wide_as(later),
    };
    alike?.iter().find(|(earlier, _)| is_wide(earlier)).map(|(_, span)| *span)
}

/// What every path that a regular expression matches begins with, as far as it is plainly written. At least `/`: all paths do.
fn beginning(regex: &str) -> &str {
    let Some(text) = regex.strip_prefix('^').filter(|text| text.starts_with('/')) else { return "/" };
    // An alternative may begin otherwise, and a flag may change what letters mean.
    if text.contains('|') || text.contains("(?") {
        return "/";
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '~' | '@' | ',');
    let end = text.find(|c| !is_plain(c)).unwrap_or(text.len());
    // What a quantifier follows may be missing.
    let end = if text[end..].starts_with(['?', '*', '{']) { end - 1 } else { end };
    if end == 0 { "/" } else { &text[..end] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_pattern_is_what_is_plainly_written() {
        for (regex, plain) in [
            ("^/api/v[0-9]+/", "/api/v"),
            ("^/api/$", "/api/"),
            ("^/api", "/api"),
            ("^/apis?", "/api"),
            ("^/a{0}b", "/"),
            ("^/*", "/"),
            ("^/a+", "/a"),
            ("^/a|^/b", "/"),
            ("^/(?i)a", "/"),
            ("^/(a)", "/"),
            ("/api/", "/"),
            ("\\.php$", "/"),
            ("^/a.b", "/a"),
            ("", "/"),
        ] {
            assert_eq!(beginning(regex), plain, "{regex}");
        }
    }
}
