//! What is kept of a route's answers, and which routes are watched for what makes that invalid.

use std::sync::Arc;

use http::HeaderName;

use super::Shared;
use crate::cache::Cache;
use crate::config::{self, Config};
use crate::http::RouteLabel;
use crate::middleware::cache::{CacheLayer, Caching, Place};

/// What is kept of a route's answers: one for all threads.
pub(super) enum Keeping {
    /// As its `cache` says.
    Some(Arc<Caching>),
    /// None of them. But another route keeps some, perhaps of the same URL, which an unsafe request to this one makes invalid.
    Watching(Arc<Cache>),
    /// None of any route's, or no app is asked.
    Nothing,
}

impl Keeping {
    /// Of one route. Names tell routes apart, not their places: a restart over the same folder, or another order of the routes, mixes
    /// nothing.
    pub(super) fn compile(
        label: &RouteLabel,
        route: &config::Route,
        config: &Config,
        shared: &Shared,
        identity: &Arc<[HeaderName]>,
    ) -> Self {
        let config::Action::Proxy(upstream) = route.action else { return Self::Nothing };
        let place = Place {
            site: label.site.clone(),
            route: label.route.clone(),
            upstream: config.upstreams.get(upstream).map(|upstream| upstream.name.as_str().into()).unwrap_or_default(),
            identity: Arc::clone(identity),
            purgers: config.cache.purge.clone(),
        };
        let caching = || Caching::compile(route, &place, &shared.cache, shared.metrics.cache(&label.route));
        match route.cache.as_ref().and_then(|_| caching()) {
            Some(caching) => Self::Some(caching),
            None if config.caches() => Self::Watching(Arc::clone(&shared.cache)),
            None => Self::Nothing,
        }
    }

    /// The layer, for the calling thread.
    pub(super) fn layer(&self) -> CacheLayer {
        match self {
            Self::Some(caching) => CacheLayer::new(Some(Arc::clone(caching))),
            Self::Watching(cache) => CacheLayer::watching(Arc::clone(cache)),
            Self::Nothing => CacheLayer::new(None),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn routes_to_apps_are_watched_where_another_one_keeps_something() {
        let kinds = |routes: &str| -> String {
            let text = format!(
                "upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:1\"], workers: 1 }} }}\n\
                 sites: [{{ routes: [{routes}] }}]\n"
            );
            let config = config::load_str(&text, "f", std::path::Path::new("/"), &|_| None).unwrap().config;
            let (shared, identity) = (Shared::idle(), Arc::from([]));
            let label = RouteLabel { index: 1, site: "any".into(), route: "/".into() };
            let kind = |route| match Keeping::compile(&label, route, &config, &shared, &identity) {
                Keeping::Some(_) => 's',
                Keeping::Watching(_) => 'w',
                Keeping::Nothing => '-',
            };
            config.sites[0].routes.iter().map(kind).collect()
        };
        let (kept, plain) = ("{ path: /a, proxy: app, cache: true }", "{ path: /b, proxy: app }");
        assert_eq!(kinds(&format!("{kept}, {plain}, {{ path: /c, respond: {{}} }}")), "sw-");
        assert_eq!(kinds(&format!("{plain}, {{ path: /c, respond: {{}}, cache: true }}")), "--");
    }
}
