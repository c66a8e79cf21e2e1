//! Checks across sections, once every part has been read: what is fine alone can be wrong together.

mod cache;
mod routes;
mod upstreams;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::decode::Decoder;
use super::node::Span;
use super::report::quoted;
use super::schema::{Draft, EndpointDraft, ListenerDraft, Redirect, SiteDraft};
use super::{Bind, EndpointAddress, HostPattern, Workers};

/// Runs every check. Ports of redirects are put in on the way.
pub(super) fn check(decoder: &mut Decoder<'_>, draft: &mut Draft) {
    resolve_redirects(decoder, draft);
    one_listener_per_address(decoder, draft);
    somebody_speaks_for_clients(decoder, draft);
    one_site_per_host(decoder, &draft.sites);
    routes::names_of_the_edge(decoder, &draft.sites);
    one_endpoint_per_address(decoder, draft);
    draft.upstreams.iter().for_each(|draft| upstreams::refuse(decoder, draft));
    routes::tunnels_to_other_protocols(decoder, draft);
    if !decoder.has_errors() {
        // Hints about a file that has errors would be guesses.
        routes::unreachable(decoder, &draft.sites);
        routes::forgotten(decoder, &draft.sites);
        routes::endless_redirects(decoder, &draft.sites);
        routes::idle_fallbacks(decoder, &draft.sites);
        routes::redirects_to_any_host(decoder, &draft.sites);
        routes::unanswered_probes(decoder, draft);
        routes::unpublished(decoder, draft);
        cache::unused(decoder, draft);
        cache::hosts_together(decoder, &draft.sites);
        cache::nobody_is_anonymous(decoder, &draft.sites);
        idle_upstreams(decoder, draft);
        assumed_workers(decoder, draft);
        draft.upstreams.iter().for_each(|draft| upstreams::hint(decoder, draft));
    }
}

/// `redirect: https` leads to the first TLS listener that has a port.
fn resolve_redirects(decoder: &mut Decoder<'_>, draft: &mut Draft) {
    let are_whole = draft.listeners_are_whole;
    let listeners = &mut draft.listeners;
    let first_tls =
        listeners.iter().filter(|draft| draft.listener.tls.is_some()).find_map(|draft| port(&draft.listener.bind));
    let is_passed = |draft: &&ListenerDraft| matches!(draft.listener.bind, Bind::Systemd(_));
    let is_tls_passed = listeners.iter().filter(|draft| draft.listener.tls.is_some()).any(|draft| is_passed(&draft));
    for draft in listeners {
        let Some((redirect, span)) = &draft.redirect else { continue };
        draft.listener.redirect_https = match (redirect, first_tls) {
            (Redirect::Port(port), _) => Some(*port),
            (Redirect::FirstTls, Some(0)) => {
                decoder.error(span, "the port of the TLS listener is not known yet").help(
                    "it listens on port 0, any free one: write redirect: { https: 8443 } with the port clients see",
                );
                None
            }
            (Redirect::FirstTls, Some(port)) => Some(port),
            (Redirect::FirstTls, None) if is_tls_passed => {
                decoder
                    .error(span, "the port of the TLS listener is not known here")
                    .help("systemd opens its socket: write redirect: { https: 443 } with the port clients see");
                None
            }
            (Redirect::FirstTls, None) if !are_whole => None,
            (Redirect::FirstTls, None) => {
                decoder.error(span, "there is no TLS listener to redirect to").help(
                    "add a listener with `tls`, or write redirect: { https: 443 } if something else serves https",
                );
                None
            }
        };
    }
}

fn port(bind: &Bind) -> Option<u16> {
    match bind {
        Bind::Any(port) => Some(*port),
        Bind::Tcp(address) => Some(address.port()),
        Bind::Unix(_) | Bind::Systemd(_) => None,
    }
}

/// No two listeners, `admin` and `realtime.publish` included, on one address.
fn one_listener_per_address(decoder: &mut Decoder<'_>, draft: &Draft) {
    let admin = draft.admin.iter().map(|(admin, span)| (&admin.bind, span));
    let publish = draft.realtime.0.publish.as_ref().map(|publish| &publish.bind).zip(draft.realtime.1.as_ref());
    let all: Vec<_> =
        draft.listeners.iter().map(|draft| (&draft.listener.bind, &draft.span)).chain(admin).chain(publish).collect();
    let mut seen: HashMap<Claim<'_>, &Span> = HashMap::new();
    for (bind, span) in all {
        let Some(claim) = claim(bind) else { continue };
        if let Some(first) = seen.get(&claim) {
            decoder
                .error(span, "two listeners have the same address")
                .also(first, "the other one")
                .help("give them different ports, or make one listener of them");
        } else {
            seen.insert(claim, span);
        }
    }
}

/// A listener that takes PROXY headers from trusted peers alone needs some.
fn somebody_speaks_for_clients(decoder: &mut Decoder<'_>, draft: &Draft) {
    if !draft.trusted_proxies_are_whole {
        return;
    }
    for ListenerDraft { listener, proxy_protocol, .. } in &draft.listeners {
        let Some(span) = proxy_protocol else { continue };
        if draft.trusted_proxies.has_any_for(&listener.bind) {
            continue;
        }
        let help = match &listener.bind {
            Bind::Unix(_) => {
                "write trusted_proxies: [unix] at the top level, if only the load balancer can open the socket"
            }
            _ => {
                "write trusted_proxies: [10.0.0.0/24] at the top level, with the network of the load balancer, or [private]"
            }
        };
        decoder
            .error(span, "nobody can connect to this listener")
            .label("a PROXY header is taken from `trusted_proxies` alone, and nobody is there")
            .help(help);
    }
}

/// What a listener takes for itself.
#[derive(PartialEq, Eq, Hash)]
enum Claim<'a> {
    Port(u16),
    Address(IpAddr, u16),
    Path(&'a std::path::Path),
    Name(&'a str),
}

/// `0.0.0.0:80` is within `80`, which is every address. Port 0 is a different one each time.
fn claim(bind: &Bind) -> Option<Claim<'_>> {
    match bind {
        Bind::Unix(path) => Some(Claim::Path(path)),
        Bind::Systemd(name) => Some(Claim::Name(name)),
        _ if port(bind) == Some(0) => None,
        Bind::Any(port) => Some(Claim::Port(*port)),
        Bind::Tcp(address) if address.ip().is_unspecified() => Some(Claim::Port(address.port())),
        Bind::Tcp(address) => Some(Claim::Address(address.ip(), address.port())),
    }
}

/// No host twice, and one site at most for those that no site has.
fn one_site_per_host(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    let mut seen: HashMap<&HostPattern, &Span> = HashMap::new();
    for (host, span) in sites.iter().flat_map(|site| &site.hosts) {
        if let Some(first) = seen.get(host) {
            decoder
                .error(span, format!("the host {} stands here twice", quoted(&host_text(host))))
                .also(first, "first here")
                .help("each host belongs to one site: put the routes of both into one");
        } else {
            seen.insert(host, span);
        }
    }
    let mut any = sites.iter().filter(|site| site.any_host);
    if let Some(first) = any.next() {
        for other in any {
            decoder
                .error(&other.span, "a second site without `hosts`")
                .also(&first.span, "this one takes every host already")
                .help("give it `hosts`, or put its routes into the first one");
        }
    }
    one_default_site(decoder, sites);
}

fn one_default_site(decoder: &mut Decoder<'_>, sites: &[SiteDraft]) {
    let mut defaults = sites.iter().filter_map(|site| Some((site, site.default.as_ref()?)));
    let Some((_, first)) = defaults.next() else { return };
    for (_, other) in defaults {
        decoder
            .error(other, "a second site with `default: true`")
            .also(first, "unknown hosts go to this one already")
            .help("keep one of them");
    }
    let default = sites.iter().find(|site| site.default.is_some());
    let any = sites.iter().find(|site| site.any_host);
    if let (Some(default), Some(any)) = (default, any)
        && !default.any_host
    {
        decoder
            .error(first, "unknown hosts have a site already")
            .also(&any.span, "this one has no `hosts`, so it takes them")
            .help("take `default` out, or give that site `hosts`");
    }
}

fn host_text(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(suffix) => format!("*{suffix}"),
    }
}

/// No endpoint twice in an upstream; in two upstreams it is counted twice, which is worth a word.
fn one_endpoint_per_address(decoder: &mut Decoder<'_>, draft: &Draft) {
    let mut seen: HashMap<&EndpointAddress, (usize, &Span)> = HashMap::new();
    for (owner, upstream) in draft.upstreams.iter().enumerate() {
        for EndpointDraft { endpoint, span, .. } in &upstream.endpoints {
            let address = &endpoint.address;
            match seen.get(address) {
                None => {
                    seen.insert(address, (owner, span));
                }
                Some((first_owner, first)) if *first_owner == owner => {
                    decoder
                        .error(span, format!("the endpoint {} stands here twice", quoted(&address.to_string())))
                        .also(first, "first here")
                        .help("take one out; `workers` says how much an upstream can take");
                }
                Some((_, first)) => {
                    decoder
                        .warning(span, format!("{} belongs to two upstreams", quoted(&address.to_string())))
                        .also(first, "the other one")
                        .help("each counts its workers alone, so together they may send it more than it can take");
                }
            }
        }
    }
}

/// Upstreams that no route leads to.
fn idle_upstreams(decoder: &mut Decoder<'_>, draft: &Draft) {
    let routes = draft.sites.iter().flat_map(|site| &site.routes);
    let used: HashSet<usize> = routes.flat_map(|draft| draft.route.upstreams()).collect();
    for (_, upstream) in draft.upstreams.iter().enumerate().filter(|(at, _)| !used.contains(at)) {
        decoder
            .warning(&upstream.span, format!("no route leads to the upstream {}", quoted(&upstream.name)))
            .help(format!("write proxy: {} in a route, or take it out", upstream.name));
    }
}

/// Upstreams whose number of workers we had to assume.
fn assumed_workers(decoder: &mut Decoder<'_>, draft: &Draft) {
    for draft in &draft.upstreams {
        if draft.upstream.as_ref().is_some_and(|upstream| upstream.workers == Workers::Unset) {
            let assumed = Workers::DEFAULT;
            decoder
                .warning(&draft.span, format!("`workers` is not set for {}: {assumed} is assumed", quoted(&draft.name)))
                .help("write how many requests the app serves at once: processes times threads of gunicorn or uWSGI");
        }
    }
}
