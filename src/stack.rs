//! THE stack: every layer in request order, with the reason for each position.
//!
//! A [`Blueprint`] is a configuration compiled into what all threads share. Each thread builds its own [`Stack`] from
//! it, once per configuration; every connection of the thread uses that one.

mod action;
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
use crate::config::{self, Config, Descriptors};
use crate::files::{self, Room};
use crate::http::{Handovers, Redispatch};
use crate::middleware::access_log::{AccessLogLayer, Logged};
use crate::middleware::auth::Forward;
use crate::middleware::client_ip::{ClientIpLayer, ClientIps, Hints};
use crate::middleware::compress::Compressor;
use crate::middleware::metrics::{Counted, MetricsLayer};
use crate::middleware::request_id::{RequestIdLayer, RequestIds};
use crate::middleware::rescue::{ErrorPages, RescueLayer, Rescued};
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::router::{Route, Router, Site};
use crate::upstream::spool::Budget;
use crate::upstream::{Client, Connector, Upstream};

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
}

#[cfg(test)]
impl Shared {
    /// Of a process that serves nobody.
    #[allow(clippy::unwrap_used)]
    pub(crate) fn idle() -> Self {
        let metrics = Metrics::new();
        let compressor = Compressor::new(1, metrics.compression());
        let access_log = AccessLog::start(None, metrics.access_log_dropped.clone()).unwrap();
        Self {
            metrics,
            access_log,
            budget: Budget::new(&config::Spool::default()),
            checks: Arc::new(Checks::of_a_test()),
            compressor,
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
        let routes = Plan::compile_all(&config.sites, before, &shared, &mut sources);
        let sources = sources.gathered();
        let identity_names = identity_names(&config.sites);
        let error_pages = config.sites.iter().map(|site| ErrorPages::compile(&site.error_pages)).collect();
        let trusted = Arc::new(config.trusted_proxies.clone());
        let hints = Arc::default();
        let room = room_for_files(&config);
        Self { config, upstreams, routes, identity_names, error_pages, sources, trusted, hints, room, shared }
    }

    /// Lets the waiting rooms obey it from now on.
    pub fn put_in_force(&self, previous: Option<&Self>) {
        for upstream in &self.upstreams {
            upstream.put_in_force();
        }
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

    /// The configuration it was made from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A stack for the calling thread, and what of it wants a sweep now and then: its clients and what it keeps of files.
    #[must_use]
    pub fn build(&self) -> (Stack, Vec<Rc<Client>>, Rc<files::Cache>) {
        let client = |upstream: &Arc<Upstream>| {
            Rc::new(Client::new(
                Arc::clone(upstream),
                Arc::clone(&self.shared.budget),
                Arc::clone(&self.shared.metrics),
            ))
        };
        let clients: Vec<_> = self.upstreams.iter().map(client).collect();
        let metrics = self.routes.iter().map(|plan| Arc::clone(&plan.metrics)).collect();
        let redispatch = Redispatch::default();
        let cache = Rc::new(files::Cache::new(self.room));
        let sites = self.sites(&Means { clients: &clients, cache: &cache, redispatch: &redispatch });
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
                        service: plan.build(route, action, self.forward(route, means.clients), handovers, means),
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
        Action::compile(route, handovers, budget, names, plan.folder.as_ref(), means)
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
    /// What is kept of files.
    cache: &'a Rc<files::Cache>,
    /// To the router, once it is there.
    redispatch: &'a Redispatch,
}

/// What the app of a route may hand over. Who writes an `internal` route lets the apps of its site lead there.
fn handovers(site: &config::Site, route: &config::Route) -> Handovers {
    let asks_app = matches!(route.action, config::Action::Proxy(_));
    Handovers { to_routes: asks_app && site.has_internal(), to_files: asks_app && route.sendfile.is_some() }
}

/// Each thread's part of the files that may be kept open.
fn room_for_files(config: &Config) -> Room {
    let threads = config.runtime.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
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
