//! What is fine alone and keeps nothing, or too much, together: `cache`, and the routes that have it.

use crate::config::decode::Decoder;
use crate::config::schema::{Draft, RouteDraft, SiteDraft};
use crate::config::{CacheBy, HostPattern};

/// A cache that no route has anything kept in.
pub(super) fn unused(decoder: &mut Decoder<'_>, draft: &Draft) {
    let Some(at) = &draft.cache.1 else { return };
    let mut routes = draft.sites.iter().flat_map(|site| &site.routes);
    if !routes.any(|draft| draft.route.caches()) {
        decoder
            .warning(at, "nothing is cached: no route with `proxy` has `cache`")
            .help("write cache: true into a route, or { default_ttl: 10s } where the app says nothing of it itself");
    }
}

/// Routes that tell hosts apart no more, on sites that are for several.
pub(super) fn hosts_together(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    for site in sites.iter().filter(|site| is_for_several(site)) {
        for RouteDraft { route, places, .. } in &site.routes {
            let (Some(cache), Some(at), true) = (&route.cache, &places.cache_by, route.caches()) else { continue };
            if !cache.by.contains(&CacheBy::Host) {
                decoder
                    .warning(at, "all hosts of this site get the same pages: `by` has no `host`")
                    .label("what one host's visitor was answered is answered to another's")
                    .help("write host into it, unless the app answers all hosts alike, links included");
            }
        }
    }
}

fn is_for_several(site: &SiteDraft) -> bool {
    let is_wide = |host: &HostPattern| matches!(host, HostPattern::Wildcard(_));
    site.any_host || site.default.is_some() || site.hosts.len() > 1 || site.hosts.iter().any(|(host, _)| is_wide(host))
}

/// Routes that are not for everybody: what they answer is for whom they let in, and that is nobody who is anonymous.
pub(super) fn nobody_is_anonymous(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    for RouteDraft { route, places, .. } in sites.iter().flat_map(|site| &site.routes) {
        let (Some(cache), Some(at), true) = (&route.cache, &places.cache, route.caches()) else { continue };
        if route.auth.is_some() && !cache.public {
            decoder
                .warning(at, "nothing of this route is kept: its clients are never anonymous")
                .label("`auth` lets in only some, and each of them counts as somebody")
                .help("take it out, or write public: true: then what the app itself calls `public` is kept for all who pass `auth`");
        }
    }
}
