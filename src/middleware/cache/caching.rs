//! How a route caches, compiled: for all threads.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

use crate::cache::Cache;
use crate::cache::key::{Base, By, Key, Parts};
use crate::cache::policy::vary::{variant, variant_of};
use crate::cache::policy::{Asked, Context, Rules, Stored};
use crate::cache::purge::Labels;
use crate::cache::store::{Object, Store};
use crate::config;
use crate::http::forwarded::Scheme;
use crate::http::{Body, Exchange, Host, Request, fields};
use crate::observe::metrics::CacheMetrics;

/// The least time for which one waits for another's answer before one asks for oneself: a route whose answers are quick has slow
/// pages, too, and machines are busy.
const LEAST_PATIENCE: Duration = Duration::from_secs(3);
/// The most; also where nothing is known yet.
const MOST_PATIENCE: Duration = Duration::from_secs(5);
/// How many times as long as usual another's answer may take.
const SERVICE_TIMES: u32 = 2;
/// The part of what is known that a newer answer changes.
const SHARE: u64 = 8;

thread_local! {
    /// Where keys are written before they are hashed.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where a route stands, and what its keys are made of beside requests.
#[derive(Debug, Clone)]
pub struct Place {
    /// The name of the site.
    pub site: Box<str>,
    /// The name of the route.
    pub route: Box<str>,
    /// The name of the upstream.
    pub upstream: Box<str>,
    /// Fields by which the edge tells apps who asks.
    pub identity: Arc<[HeaderName]>,
    /// Who may purge with the method PURGE.
    pub purgers: config::AllowedClients,
}

/// How a route caches.
pub struct Caching {
    place: Place,
    base: Base,
    rules: Rules,
    by: By,
    labels: Labels,
    /// Fields in which an answer's tags are named.
    tags: Vec<HeaderName>,
    /// Only those come here who were let in: each is somebody.
    is_guarded: bool,
    cache: Arc<Cache>,
    metrics: Arc<CacheMetrics>,
    /// How long its answers take, in milliseconds.
    service: AtomicU64,
}

impl Caching {
    /// That of a route. `None`: it keeps nothing.
    #[must_use]
    pub fn compile(
        route: &config::Route,
        place: &Place,
        cache: &Arc<Cache>,
        metrics: Arc<CacheMetrics>,
    ) -> Option<Arc<Self>> {
        let settings = route.cache.as_ref().filter(|_| route.caches())?;
        Some(Arc::new(Self::of(settings, route.auth.is_some(), place.clone(), Arc::clone(cache), metrics)))
    }

    pub(super) fn of(
        settings: &config::RouteCache,
        is_guarded: bool,
        place: Place,
        cache: Arc<Cache>,
        metrics: Arc<CacheMetrics>,
    ) -> Self {
        let labels = Labels::compile(&settings.by);
        cache.wide().add(labels);
        Self {
            rules: Rules::compile(settings, &place.identity),
            by: By::compile(&settings.by),
            labels,
            tags: fields::compile_names(&settings.tags),
            is_guarded,
            base: Base::new([&place.site, &place.route], &place.upstream),
            place,
            cache,
            metrics,
            service: AtomicU64::new(0),
        }
    }

    /// Where answers are kept.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        self.cache.store()
    }

    /// Who may purge with the method PURGE.
    #[must_use]
    pub const fn purgers(&self) -> &config::AllowedClients {
        &self.place.purgers
    }

    pub(super) const fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) const fn labels(&self) -> Labels {
        self.labels
    }

    pub(super) fn tags(&self) -> &[HeaderName] {
        &self.tags
    }

    pub(super) fn metrics(&self) -> &CacheMetrics {
        &self.metrics
    }

    /// What a request says.
    pub(super) fn asked(&self, request: &Request) -> Asked {
        let context = Context {
            has_body: !matches!(request.body, Body::Empty),
            is_identified: self.is_guarded || is_identified(&request.exchange),
            is_upgrade: request.exchange.upgrade.get().is_some(),
        };
        Asked::of(&request.method, &request.headers, context, &self.rules)
    }

    /// The steady clock at the last tick of an exchange, in milliseconds.
    pub(super) fn now(&self, exchange: &Exchange) -> u64 {
        self.cache.clock().steady_at(exchange.now())
    }

    /// The key of all that a request may be answered with.
    pub(super) fn key(&self, request: &Request) -> Key {
        let exchange = &request.exchange;
        let (path, query) = request.target.raw_parts();
        let parts = Parts {
            base: &self.base,
            is_secure: exchange.scheme() == Scheme::Https,
            host: exchange.host.as_ref().map_or(&b""[..], Host::as_bytes),
            path,
            query,
            headers: &request.headers,
        };
        SCRATCH.with_borrow_mut(|scratch| self.by.key(&parts, scratch))
    }

    /// The key of what a request with these fields is answered with.
    pub(super) fn variant(&self, primary: Key, names: &[HeaderName], headers: &HeaderMap) -> Key {
        SCRATCH.with_borrow_mut(|scratch| variant(primary, names, headers, &self.rules, scratch))
    }

    /// The same for names that are read where they are stored.
    pub(super) fn variant_of(&self, primary: Key, names: impl Iterator<Item = HeaderName>, headers: &HeaderMap) -> Key {
        SCRATCH.with_borrow_mut(|scratch| variant_of(primary, names, headers, &self.rules, scratch))
    }

    /// What a stored response is used by. `None`: another version has stored it.
    pub(super) fn stored(&self, object: &Object, now: u64) -> Option<Stored> {
        let facts: &[u8; Stored::LENGTH] = object.facts().try_into().ok()?;
        let stored = Stored::from_bytes(facts)?.resumed(now);
        Some(object.purged_at().map_or(stored, |at| stored.purged(at, now)))
    }

    /// For how long one waits for another's answer.
    pub(super) fn patience(&self) -> Duration {
        let usual = match self.service.load(Relaxed) {
            0 => MOST_PATIENCE,
            known => Duration::from_millis(known),
        };
        (usual * SERVICE_TIMES).clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }

    /// An answer has taken so long. Of two at the same time one may not count.
    pub(super) fn has_taken(&self, time: Duration) {
        let new = u64::try_from(time.min(MOST_PATIENCE).as_millis()).unwrap_or(u64::MAX);
        let known = self.service.load(Relaxed);
        let new = new.max(1);
        let next = if known == 0 { new } else { (known * (SHARE - 1) + new) / SHARE };
        self.service.store(next, Relaxed);
    }
}

/// Whether the edge knows who asks, and tells the app.
fn is_identified(exchange: &Exchange) -> bool {
    !exchange.identity.fields().is_empty()
        || exchange.credentials.get().is_some()
        || exchange.connection.client_subject.is_some()
}
