//! THE stack: every layer in request order, with the reason for each position.
//!
//! A [`Blueprint`] is a configuration compiled into what all threads share. Each thread builds its own [`Stack`] from
//! it, once per configuration; every connection of the thread uses that one.

mod action;
mod keeping;
mod route;
mod sent;

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

pub use action::Action;
use http::HeaderName;
use route::Plan;
pub use route::{RouteStack, SlashStack};
pub use sent::Sent;
use tower::ServiceBuilder;

use crate::access::{Checks, Sources};
use crate::cache::Cache;
use crate::config::{self, Config, Descriptors, WebSocketMode};
use crate::files::{self, Room};
use crate::http::{Handovers, Redispatch};
use crate::middleware::access_log::{AccessLogLayer, Logged};
use crate::middleware::auth::Forward;
use crate::middleware::client_ip::{ClientIpLayer, ClientIps, Hints};
use crate::middleware::compress::Compressor;
use crate::middleware::metrics::{Counted, MetricsLayer};
use crate::middleware::proxy::Proxy;
use crate::middleware::request_id::{RequestIdLayer, RequestIds};
use crate::middleware::rescue::{ErrorPages, RescueLayer, Rescued};
use crate::middleware::websocket::{self, Tunnels};
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::realtime::ask::Way;
use crate::realtime::grip::{Signer, SigningKey, Terms};
use crate::realtime::hub::{Channels, Local};
use crate::realtime::over_http::{Grip, OverHttp};
use crate::router::{Route, Router, Site};
use crate::upstream::spool::Budget;
use crate::upstream::{Client, Connector, InForce, Upstream};

/// The layers that every request passes.
pub type Stack = ClientIps<RequestIds<Logged<Counted<Rescued<Rc<Router<RouteStack, SlashStack>>>>>>>;

/// What is one for the process, whatever the configuration.
#[derive(Clone)]
pub struct Shared {
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Where access lines go.
    pub access_log: AccessLog,
    /// Memory and disk of all bodies.
    pub budget: Arc<Budget>,
    /// How many passwords are checked at a time.
    pub checks: Arc<Checks>,
    /// What compression may take of the machine.
    pub compressor: Arc<Compressor>,
    /// What is published, and to whom.
    pub channels: Channels,
    /// How many WebSockets may pass through to workers.
    pub tunnels: Arc<Tunnels>,
    /// How many WebSockets each client has.
    pub websocket_clients: Arc<websocket::Clients>,
    /// What of apps' answers is kept. A configuration with another folder has another one.
    pub cache: Arc<Cache>,
}

#[cfg(test)]
impl Shared {
    /// Of a process that serves nobody.
    #[allow(clippy::unwrap_used)]
    pub(crate) fn idle() -> Self {
        use crate::cache::store::{Settings, Store};
        let metrics = Metrics::new();
        let compressor = Compressor::new(1, metrics.compression());
        let access_log = AccessLog::start(None, metrics.access_log_dropped.clone()).unwrap();
        let store = Settings { memory: 1 << 20, max_object: 1 << 20, variants: 1, open_files: 0, disk: None };
        let store = Store::open(&store).unwrap();
        Self {
            channels: Channels::new(metrics.realtime()),
            metrics,
            access_log,
            budget: Budget::new(&config::Spool::default()),
            checks: Arc::new(Checks::of_a_test()),
            compressor,
            tunnels: Arc::default(),
            websocket_clients: Arc::default(),
            cache: Cache::new(store),
        }
    }
}

/// A configuration compiled into what all threads share.
pub struct Blueprint {
    config: Config,
    upstreams: Vec<Arc<Upstream>>,
    /// In the order of sites and routes; the first stands for requests without a route.
    routes: Vec<Plan>,
    /// By which any route tells its app who asks.
    identity_names: Arc<[HeaderName]>,
    /// Of each site.
    error_pages: Arc<[ErrorPages]>,
    /// Who is known to any route.
    sources: Sources,
    /// What requests to apps are signed with: one for all that was ever in force, since clients are held through reloads.
    signing: Arc<SigningKey>,
    /// What that is to be once this is in force.
    signing_next: Arc<SigningKey>,
    trusted: Arc<config::TrustedProxies>,
    hints: Arc<Hints>,
    /// How much of files each thread keeps.
    room: Room,
    shared: Shared,
}

impl Blueprint {
    /// Compiles. Waiting rooms of upstreams that `previous` knows by the same name are taken over, so that no reload ever
    /// lets more requests through than there are workers. Nothing changes before [`Self::put_in_force`].
    ///
    /// `connectors` has the ways to the endpoints of each upstream, in the order of the configuration.
    #[must_use]
    pub fn compile(config: Config, connectors: Vec<Vec<Connector>>, previous: Option<&Self>, shared: Shared) -> Self {
        let upstreams = config.upstreams.iter().zip(connectors).map(|(upstream, connectors)| {
            let before =
                previous.and_then(|previous| previous.upstreams.iter().find(|known| *known.name == *upstream.name));
            let metrics = shared.metrics.upstream(&upstream.name);
            Arc::new(Upstream::compile(upstream, connectors, before.map(|known| &**known), metrics))
        });
        let upstreams: Vec<_> = upstreams.collect();
        let before = previous.map_or(&[][..], |previous| &previous.routes);
        let mut sources = Sources::following(previous.map(|previous| &previous.sources));
        let identity_names = identity_names(&config.sites);
        let routes = Plan::compile_all(&config, before, &shared, &identity_names, &mut sources);
        let sources = sources.gathered();
        let error_pages = config.sites.iter().map(|site| ErrorPages::compile(&site.error_pages)).collect();
        let signing_next = SigningKey::compile(&config.realtime.grip);
        let signing = Arc::clone(previous.map_or(&signing_next, |previous| &previous.signing));
        let trusted = Arc::new(config.trusted_proxies.clone());
        let hints = Arc::default();
        let room = room_for_files(&config);
        Self {
            config,
            upstreams,
            routes,
            identity_names,
            error_pages,
            sources,
            signing,
            signing_next,
            trusted,
            hints,
            room,
            shared,
        }
    }

    /// Lets the waiting rooms obey it from now on, and those who are held already.
    pub fn put_in_force(&self, previous: Option<&Self>) {
        for upstream in &self.upstreams {
            upstream.put_in_force();
        }
        self.signing.follow(&self.signing_next);
        let is_gone = |known: &&Arc<Upstream>| !self.upstreams.iter().any(|upstream| upstream.name == known.name);
        for gone in previous.iter().flat_map(|previous| &previous.upstreams).filter(is_gone) {
            let metrics = self.shared.metrics.upstream(&gone.name);
            metrics.set_workers(None);
            metrics.report_endpoints(std::iter::empty());
        }
    }

    /// Upstreams in the order written.
    #[must_use]
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// The users and keys that routes go by.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What of apps' answers is kept.
    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.shared.cache
    }

    /// The configuration it was made from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A stack for the calling thread, and what of it wants a sweep now and then: its clients and what it keeps of files.
    ///
    /// From then on its clients are those `in_force`. `local` is the thread's part of the hub.
    #[must_use]
    pub fn build(&self, in_force: &InForce, local: &Rc<Local>) -> (Stack, Vec<Rc<Client>>, Rc<files::Cache>) {
        let client = |upstream: &Arc<Upstream>| {
            Rc::new(Client::new(
                Arc::clone(upstream),
                Arc::clone(&self.shared.budget),
                Arc::clone(&self.shared.metrics),
            ))
        };
        let clients: Vec<_> = self.upstreams.iter().map(client).collect();
        in_force.put(&clients);
        let metrics = self.routes.iter().map(|plan| Arc::clone(&plan.metrics)).collect();
        let redispatch = Redispatch::default();
        let cache = Rc::new(files::Cache::new(self.room));
        let signer = Rc::new(Signer::new(Arc::clone(&self.signing)));
        let means =
            Means { clients: &clients, in_force, cache: &cache, redispatch: &redispatch, local, signer: &signer };
        let sites = self.sites(&means);
        let router = Rc::new(Router::new(sites, &self.config.probe_paths));
        redispatch.connect(&router);
        let stack = ServiceBuilder::new()
            // First: everything below goes by the client that is found here.
            .layer(ClientIpLayer::new(Arc::clone(&self.trusted), Arc::clone(&self.hints)))
            // Before all that speaks, so that every line below and every page can name the exchange.
            .layer(RequestIdLayer)
            // Above rescue: error answers are logged and counted as the client saw them.
            .layer(AccessLogLayer::new(
                self.shared.access_log.sink(),
                self.config.logging.access.clone().unwrap_or_default(),
            ))
            .layer(MetricsLayer::new(Arc::clone(&self.shared.metrics), metrics))
            // Everything below fails with a reason; here it becomes an answer. Refused bytes turn back here, too.
            .layer(RescueLayer::new(Arc::clone(&self.error_pages)))
            // Names site and route; what needs a route's policy comes below: see `route`.
            .service(router);
        (stack, clients, cache)
    }

    fn sites(&self, means: &Means<'_>) -> Vec<Site<RouteStack, SlashStack>> {
        let mut plans = self.routes.iter().skip(1);
        let mut site = |site: &config::Site| Site {
            hosts: site.hosts.clone(),
            is_default: site.default,
            routes: site
                .routes
                .iter()
                .zip(plans.by_ref())
                .map(|(route, plan)| {
                    let handovers = handovers(site, route);
                    let action = self.action(route, handovers, plan, means);
                    Route {
                        path: route.path.clone(),
                        when: route.when.clone(),
                        is_internal: route.internal,
                        label: Arc::clone(&plan.label),
                        service: plan.build(
                            route,
                            action,
                            self.forward(route, means.clients),
                            self.grip(route, plan, means),
                            handovers,
                            means,
                        ),
                        missing_slash: Plan::missing_slash(route),
                    }
                })
                .collect(),
        };
        self.config.sites.iter().map(&mut site).collect()
    }

    /// The bottom of a route.
    fn action(&self, route: &config::Route, handovers: Handovers, plan: &Plan, means: &Means<'_>) -> Action {
        let (budget, names) = (&self.shared.budget, &self.identity_names);
        let sockets = self.sockets(route, plan, means);
        Action::compile(route, handovers, budget, names, plan.folder.as_ref(), sockets, means)
    }

    /// What takes the WebSockets of a route that has them end here.
    fn sockets(&self, route: &config::Route, plan: &Plan, means: &Means<'_>) -> Option<OverHttp> {
        let websocket = route.websocket.as_ref().filter(|websocket| websocket.mode == WebSocketMode::OverHttp)?;
        let config::Action::Proxy(upstream) = route.action else { return None };
        let (budget, names) = (Arc::clone(&self.shared.budget), Arc::clone(&self.identity_names));
        let client = Rc::clone(&means.clients[upstream]);
        let way = Way::compile(route, client, means.in_force.clone(), budget, names, Arc::clone(plan.places.as_ref()?));
        let metrics = Rc::new(self.shared.metrics.websocket(&route.name));
        let grip = route.grip.then(|| Grip { signer: Rc::clone(means.signer), local: Rc::clone(means.local) });
        Some(OverHttp::compile(route, websocket, &self.config, Rc::new(way), grip, metrics))
    }

    /// How the clients of a route are held.
    fn grip(&self, route: &config::Route, plan: &Plan, means: &Means<'_>) -> Option<Terms> {
        let links = Arc::clone(plan.links.as_ref()?);
        let config::Action::Proxy(at) = route.action else { return None };
        // Nothing is handed over to a client that is held already.
        let terms = Proxy::terms(route, Handovers::default(), Arc::clone(&self.identity_names));
        let client = (Rc::clone(&means.clients[at]), means.in_force.clone());
        let (signer, local) = (Rc::clone(means.signer), Rc::clone(means.local));
        Some(Terms::compile(route, &self.config.realtime, client, terms, links, signer, local))
    }

    /// Whom a route asks before. `clients` as above.
    fn forward(&self, route: &config::Route, clients: &[Rc<Client>]) -> Option<Forward> {
        let forward = route.auth.as_ref()?.forward.as_ref()?;
        let client = Rc::clone(&clients[forward.upstream]);
        let mount = self.config.mount_of(forward.upstream);
        Some(Forward::compile(forward, route, client, mount, Arc::clone(&self.identity_names)))
    }
}

/// What the calling thread has of its own for all routes.
struct Means<'a> {
    /// One for each upstream.
    clients: &'a [Rc<Client>],
    /// Those, and whichever come after them.
    in_force: &'a InForce,
    /// What is kept of files.
    cache: &'a Rc<files::Cache>,
    /// To the router, once it is there.
    redispatch: &'a Redispatch,
    /// Who is held.
    local: &'a Rc<Local>,
    /// What signs requests to apps.
    signer: &'a Rc<Signer>,
}

/// What the app of a route may hand over. Who writes an `internal` route lets the apps of its site lead there.
fn handovers(site: &config::Site, route: &config::Route) -> Handovers {
    let asks_app = matches!(route.action, config::Action::Proxy(_));
    Handovers { to_routes: asks_app && site.has_internal(), to_files: asks_app && route.sendfile.is_some() }
}

/// How many threads serve.
fn threads(config: &Config) -> usize {
    config.runtime.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Each thread's part of the files that may be kept open.
fn room_for_files(config: &Config) -> Room {
    let threads = threads(config);
    let (limit, _) = config::open_files();
    Room::of_thread(threads, Descriptors::share(config, limit, threads).kept)
}

/// Names that the configuration has checked.
fn identity_names(sites: &[config::Site]) -> Arc<[HeaderName]> {
    let routes = sites.iter().flat_map(|site| &site.routes);
    let names: HashSet<HeaderName> =
        routes.flat_map(config::Route::identity_names).filter_map(|name| name.parse().ok()).collect();
    names.into_iter().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_was_held_before_a_reload_is_asked_for_with_the_key_of_after_it() {
        let compile = |secret: &str, previous: Option<&Blueprint>| {
            let text = format!(
                "realtime: {{ publish: {{ bind: \"127.0.0.1:5561\" }}, grip: {{ secret: \"{secret}\" }} }}\n\
                 sites: [{{ routes: [{{ path: /, respond: {{ body: ok }} }}] }}]\n"
            );
            let loaded = config::load_str(&text, "hostler.yaml", Path::new("/"), &|_| None);
            let config = loaded.unwrap_or_else(|report| panic!("{report}")).config;
            Blueprint::compile(config, Vec::new(), previous, Shared::idle())
        };
        let first = compile("0123456789abcdef0123456789abcdef", None);
        first.put_in_force(None);
        let signer = Signer::new(Arc::clone(&first.signing));
        let now = Duration::from_secs(60);
        let before = signer.signature(now).unwrap();
        let second = compile("fedcba9876543210fedcba9876543210", Some(&first));
        assert_eq!(signer.signature(now).unwrap(), before, "it is not in force yet");
        second.put_in_force(Some(&first));
        assert_ne!(signer.signature(now).unwrap(), before);
    }
}
