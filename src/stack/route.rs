//! The stack of one route: the layers that go by its policy, in request order, with the reason for each position.
//!
//! A [`Plan`] is what all threads share of a route, compiled once for a configuration; each thread builds the layers from
//! it. Every layer is always there, so that all routes have one type: off costs one branch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use http::HeaderName;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;

use super::keeping::Keeping;
use super::{Action, Means, Sent, Shared};
use crate::access::Gathering;
use crate::config;
use crate::files::Folder;
use crate::http::{Handovers, RouteLabel};
use crate::middleware::accel::{Accel, AccelLayer};
use crate::middleware::auth::{AuthLayer, Authorized, Forward, Policy};
use crate::middleware::cache::Cached;
use crate::middleware::compress::{CompressLayer, Compressed, Compression};
use crate::middleware::cors::{CorsLayer, CrossOrigin};
use crate::middleware::missing_slash::MissingSlash;
use crate::middleware::rate_limit::{RateLimit, RateLimitLayer, RateLimited};
use crate::middleware::request_headers::{RequestHeaders, RequestHeadersLayer};
use crate::middleware::response_headers::{ResponseHeaders, ResponseHeadersLayer};
use crate::middleware::websocket::{WebSocketLayer, WebSockets, Websocketed};
use crate::observe::metrics::RouteMetrics;
use crate::realtime::ask::Way;
use crate::realtime::grip::{Grip, GripLayer, Links, Terms};

/// The layers that the requests of a route pass, and its action.
pub type RouteStack = ResponseHeaders<
    CrossOrigin<RateLimited<Authorized<Compressed<RequestHeaders<Cached<Websocketed<Accel<Grip<Action>, Sent>>>>>>>>,
>;

/// What of them is passed by requests that lack the slash at the end of its prefix.
pub type SlashStack = ResponseHeaders<CrossOrigin<MissingSlash>>;

/// What all threads share of a route.
pub(super) struct Plan {
    pub(super) label: Arc<RouteLabel>,
    pub(super) metrics: Arc<RouteMetrics>,
    rate_limit: Option<Arc<RateLimit>>,
    /// `None`: it is open to everybody.
    auth: Option<Arc<Policy>>,
    /// Whose files it serves, if it does.
    pub(super) folder: Option<Arc<Folder>>,
    /// `None`: answers go out as they are.
    compression: Option<Arc<Compression>>,
    /// What of its answers is kept.
    keeping: Keeping,
    /// `None`: it takes no WebSockets.
    websockets: Option<Arc<WebSockets>>,
    /// How many questions for clients that are held go at a time; `None`: nobody is held.
    pub(super) links: Option<Arc<Links>>,
    /// How many requests for its WebSockets go at a time; `None`: none ends here.
    pub(super) places: Option<Arc<Semaphore>>,
}

impl Plan {
    /// Of all sites and routes, in their order; the first stands for requests without a route. What outlives a reload is
    /// taken over from the route of `previous` by the same names; where there are several, from the first, then the second.
    pub(super) fn compile_all(
        config: &config::Config,
        previous: &[Self],
        shared: &Shared,
        identity: &Arc<[HeaderName]>,
        sources: &mut Gathering<'_>,
    ) -> Vec<Self> {
        let mut before: HashMap<(&str, &str), VecDeque<&Self>> = HashMap::new();
        for plan in previous {
            before.entry((&plan.label.site, &plan.label.route)).or_default().push_back(plan);
        }
        let written = config.sites.iter().flat_map(|site| site.routes.iter().map(|route| (&*site.name, Some(route))));
        let mut plans = Vec::new();
        for (index, (site, route)) in std::iter::once(("", None)).chain(written).enumerate() {
            let name = route.map_or("", |route| &*route.name);
            let previous = before.get_mut(&(site, name)).and_then(VecDeque::pop_front);
            let label = Arc::new(RouteLabel { index, site: site.into(), route: name.into() });
            let keeping =
                route.map_or(Keeping::Nothing, |route| Keeping::compile(&label, route, config, shared, identity));
            plans.push(Self::compile(label, route, config, previous, shared, sources, keeping));
        }
        plans
    }

    /// `route` is `None` for requests without one.
    fn compile(
        label: Arc<RouteLabel>,
        route: Option<&config::Route>,
        config: &config::Config,
        previous: Option<&Self>,
        shared: &Shared,
        sources: &mut Gathering<'_>,
        keeping: Keeping,
    ) -> Self {
        let metrics = previous.map(|previous| Arc::clone(&previous.metrics));
        let metrics = metrics.unwrap_or_else(|| shared.metrics.route(&label.site, &label.route));
        let rate_limit = route.and_then(|route| route.rate_limit.as_ref()).map(|limit| {
            let limited = shared.metrics.rate_limited(&label.route, limit.dry_run);
            let known = previous.and_then(|previous| previous.rate_limit.as_deref());
            RateLimit::compile(limit, Arc::clone(&label), limited, known)
        });
        let auth = route.and_then(|route| route.auth.as_ref());
        let auth = auth.map(|auth| Arc::new(Policy::compile(auth, &shared.checks, sources)));
        let folder = route.and_then(|route| match &route.action {
            config::Action::Files(files) => Some(Arc::new(Folder::compile(files, &route.path))),
            config::Action::Proxy(_) | config::Action::Redirect { .. } | config::Action::Respond { .. } => None,
        });
        let compression = route.and_then(|route| Compression::compile(route, &shared.compressor));
        let websockets = route.and_then(|route| {
            let known = previous.and_then(|previous| previous.websockets.as_deref());
            let kind = route.websocket.as_ref().map_or("tunnel", |websocket| match websocket.mode {
                config::WebSocketMode::Tunnel => "tunnel",
                config::WebSocketMode::OverHttp => "websocket",
            });
            let (tunnels, clients) = (&shared.tunnels, &shared.websocket_clients);
            WebSockets::compile(route, known, tunnels, clients, &config.trusted_proxies, shared.metrics.holds(kind))
        });
        let links = route.and_then(|route| match route.action {
            config::Action::Proxy(at) if route.grip => {
                let known = previous.and_then(|previous| previous.links.as_ref());
                config.upstreams.get(at).map(|upstream| Links::compile(upstream, known))
            }
            _ => None,
        });
        let places = route.and_then(|route| match (route.action.clone(), &route.websocket) {
            (config::Action::Proxy(at), Some(websocket)) if websocket.mode == config::WebSocketMode::OverHttp => {
                config.upstreams.get(at).map(Way::places)
            }
            _ => None,
        });
        Self { label, metrics, rate_limit, auth, folder, compression, keeping, websockets, links, places }
    }

    /// The layers of the route, for the calling thread, whose are `action`, `forward` and `grip`.
    pub(super) fn build(
        &self,
        route: &config::Route,
        action: Action,
        forward: Option<Forward>,
        grip: Option<Terms>,
        handovers: Handovers,
        means: &Means<'_>,
    ) -> RouteStack {
        ServiceBuilder::new()
            // Outermost: what it wants on refusals, too, has to be asked for above whatever refuses.
            .layer(ResponseHeadersLayer::compile(route))
            // A script sees no answer without its fields, not even a refusal; a preflight brings no credentials.
            .layer(CorsLayer::compile(route))
            // Before auth, so that whoever asks too often costs nothing further down.
            .layer(RateLimitLayer::new(self.rate_limit.clone()))
            // Before anything is received for a stranger.
            .layer(AuthLayer::new(self.auth.clone(), forward))
            // By what the client says it takes, and not by what the app is told of that.
            .layer(CompressLayer::new(self.compression.clone()))
            // Below what goes by the client's own fields.
            .layer(RequestHeadersLayer::compile(route))
            // Below what changes answers for one client (compress: what is kept serves all who take whatever coding) or requests for
            // all (request_headers), and below whatever refuses; above what is not the app's own page before it is told
            // (websocket, accel, grip): what they make of it is kept if it says so.
            .layer(self.keeping.layer())
            // Below what looks at requests: whatever else is wrong with one is told first, and a stranger learns nothing.
            .layer(WebSocketLayer::new(route, self.websockets.clone()))
            // Low: all layers of the route see what comes of a download, and none what the app has said.
            .layer(AccelLayer::compile(handovers, Sent::roots(route, means.cache), means.redispatch))
            // Just above the action: everything above sees the answer that a held client gets, and no instructions.
            .layer(GripLayer::new(grip))
            .service(action)
    }

    /// What answers where only a slash is missing: with what the route wants on all its answers, and asking nobody.
    pub(super) fn missing_slash(route: &config::Route) -> SlashStack {
        ServiceBuilder::new()
            // As above.
            .layer(ResponseHeadersLayer::compile(route))
            // A redirected preflight fails: the slash is told to what comes after it.
            .layer(CorsLayer::compile(route))
            .service(MissingSlash)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::access::Sources;

    fn plans(routes: &str, previous: &[Plan]) -> Vec<Plan> {
        let text = format!("sites: [{{ hosts: [shop.example], routes: [{routes}] }}, {{ routes: [{routes}] }}]");
        let loaded = config::load_str(&text, "f", std::path::Path::new("/"), &|_| None).unwrap();
        let mut sources = Sources::following(None);
        Plan::compile_all(&loaded.config, previous, &Shared::idle(), &Arc::from([]), &mut sources)
    }

    #[test]
    fn a_route_takes_over_from_the_one_by_its_names() {
        let (one, other) = ("{ path_exact: /a, respond: {} }", "{ path_exact: /b, respond: {} }");
        let first = plans(one, &[]);
        // A second route by the same names, with something of its own to hand on.
        let before: Vec<Plan> = first.into_iter().chain(plans(one, &[]).into_iter().skip(1)).collect();
        let after = plans(&format!("{other}, {one}, {one}"), &before);
        let names: Vec<_> =
            after.iter().map(|plan| (plan.label.index, &*plan.label.site, &*plan.label.route)).collect();
        assert_eq!(names[..3], [(0, "", ""), (1, "shop.example", "/b"), (2, "shop.example", "/a")]);
        assert_eq!(names[4..], [(4, "any", "/b"), (5, "any", "/a"), (6, "any", "/a")]);
        let from = |plan: &Plan| before.iter().position(|known| Arc::ptr_eq(&known.metrics, &plan.metrics));
        let found: Vec<_> = after.iter().map(from).collect();
        assert_eq!(found, [Some(0), None, Some(1), Some(3), None, Some(2), Some(4)]);
    }
}
