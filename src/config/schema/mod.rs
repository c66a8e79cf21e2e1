//! The schema: which keys exist and what each takes, one file per part of the configuration.
//!
//! Decoders return drafts: the value with the places that the checks across sections still need.

mod cache;
mod field_name;
mod key;
mod listeners;
mod logging;
mod process;
mod realtime;
mod routes;
mod sites;
mod upstreams;

use std::path::PathBuf;

use super::decode::{Decoder, Section};
use super::node::{Node, Span, Value};
use super::values::nearest;
use super::{Admin, Bind, Cache, Files, Limits, Logging, Publish, Realtime, Runtime, Shutdown, Spool, TrustedProxies};

pub(super) use listeners::{ListenerDraft, Redirect};
pub(super) use sites::{RouteDraft, SiteDraft};
use upstreams::target;
pub(super) use upstreams::{EndpointDraft, UpstreamDraft, is_server_name};

/// The whole file, section by section.
pub(super) struct Draft {
    pub(super) listeners: Vec<ListenerDraft>,
    /// Whether every listener could be read: only then can one be said to be missing.
    pub(super) listeners_are_whole: bool,
    pub(super) trusted_proxies: TrustedProxies,
    /// Whether that list could be read: only then can somebody be said to be missing in it.
    pub(super) trusted_proxies_are_whole: bool,
    pub(super) limits: Limits,
    pub(super) shutdown: Shutdown,
    pub(super) spool: Spool,
    pub(super) upstreams: Vec<UpstreamDraft>,
    pub(super) sites: Vec<SiteDraft>,
    pub(super) probe_paths: Vec<(String, Span)>,
    /// And where its key stands.
    pub(super) cache: (Cache, Option<Span>),
    pub(super) admin: Option<(Admin, Span)>,
    /// And where `publish.bind` stands.
    pub(super) realtime: (Realtime, Option<Span>),
    pub(super) logging: Logging,
    pub(super) runtime: Runtime,
    pub(super) places: Places,
}

/// Where the file names what `check` looks at.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Places {
    /// Unix endpoints.
    pub(super) sockets: Vec<(PathBuf, Span)>,
    /// Endpoints by name.
    pub(super) names: Vec<(String, Span)>,
    /// Unix sockets that are to be made.
    pub(super) made: Vec<(PathBuf, Span)>,
    /// The names of sockets that systemd is to pass.
    pub(super) passed: Vec<(String, Span)>,
    /// `files.root` and `sendfile.roots`, and whether each may be a file.
    pub(super) roots: Vec<(Files, bool, Span)>,
    /// `spool.dir`.
    pub(super) spool: Option<Span>,
    /// `cache.disk.path`
    pub(super) cache: Option<Span>,
    /// `limits.connections`
    pub(super) connections: Option<Span>,
    /// `logging.access.to`, when it is a file.
    pub(super) access: Option<Span>,
}

/// What routes refer to in the rest of the file.
struct Given<'a> {
    upstreams: &'a [UpstreamDraft],
    /// False when `upstreams` could not be read: then no name can be called unknown.
    names_are_known: bool,
    /// `limits.body`
    body_limit: u64,
}

static FILE: Section = Section {
    name: "",
    keys: &[
        "listeners",
        "trusted_proxies",
        "limits",
        "shutdown",
        "spool",
        "upstreams",
        "sites",
        "probe_paths",
        "cache",
        "admin",
        "realtime",
        "logging",
        "runtime",
    ],
    later: &["tasks", "processes", "cluster", "tracing"],
    elsewhere: &[
        ("servers", "sites"),
        ("server", "sites"),
        ("http", "sites"),
        ("upstream", "upstreams"),
        ("set_real_ip_from", "trusted_proxies"),
        ("forwarded_allow_ips", "trusted_proxies"),
    ],
};

/// Every section, to tell where a misplaced key belongs.
static SECTIONS: [&Section; 51] = [
    &FILE,
    &listeners::LISTENER,
    &listeners::TLS,
    &listeners::CERTIFICATE,
    &listeners::REDIRECT,
    &process::LIMITS,
    &process::BODY_RATE,
    &process::READ_RATE,
    &process::SHUTDOWN,
    &process::SPOOL,
    &process::ADMIN,
    &cache::CACHE,
    &cache::DISK,
    &realtime::REALTIME,
    &realtime::PUBLISH,
    &realtime::GRIP,
    &logging::LOGGING,
    &logging::ACCESS,
    &process::RUNTIME,
    &upstreams::UPSTREAM,
    &upstreams::ENDPOINT,
    &upstreams::STREAMING,
    &upstreams::WAITING_ROOM,
    &upstreams::BALANCE,
    &upstreams::KEEPALIVE,
    &upstreams::TIMEOUTS,
    &upstreams::RETRY,
    &upstreams::HEALTH,
    &upstreams::EJECTION,
    &upstreams::UWSGI,
    &upstreams::TLS,
    &sites::SITE,
    &routes::ROUTE,
    &routes::FILES,
    &routes::REDIRECT,
    &routes::RESPOND,
    &routes::BUFFER,
    &routes::COMPRESS,
    &cache::ROUTE_CACHE,
    &routes::RATE_LIMIT,
    &routes::SENDFILE,
    &routes::WEBSOCKET,
    &routes::WHEN,
    &routes::CORS,
    &routes::HEADERS,
    &routes::REQUEST,
    &routes::RESPONSE,
    &routes::AUTH,
    &routes::BASIC,
    &routes::JWT,
    &routes::FORWARD,
];

/// Decodes the file.
pub(super) fn decode(decoder: &mut Decoder<'_>, root: &Node) -> Option<Draft> {
    let file = decoder.fields(root, &FILE)?;
    let mut places = Places::default();
    let limits = file.get("limits").map_or_else(Limits::default, |node| process::limits(decoder, node, &mut places));
    let upstreams = file.get("upstreams").map_or(Some(Vec::new()), |node| upstreams::decode(decoder, node));
    let names_are_known = upstreams.is_some() && !file.means("upstreams");
    let upstreams = upstreams.unwrap_or_default();
    let given = Given { upstreams: &upstreams, names_are_known, body_limit: limits.body };
    let sites = match file.required(decoder, "sites", "write sites: [{ routes: [{ path: /, proxy: app }] }]") {
        Some(node) => sites::decode(decoder, node, &given),
        None => Vec::new(),
    };
    places.sockets.extend(upstreams.iter().flat_map(UpstreamDraft::sockets));
    places.names.extend(upstreams.iter().flat_map(UpstreamDraft::names));
    places.roots.extend(sites.iter().flat_map(SiteDraft::roots));
    let errors = decoder.error_count();
    let trusted_proxies = file.get("trusted_proxies").map(|node| process::trusted_proxies(decoder, node));
    let trusted_proxies_are_whole = decoder.error_count() == errors && !file.means("trusted_proxies");
    let errors = decoder.error_count();
    let listeners = listeners::decode(decoder, file.get("listeners"));
    let listeners_are_whole = decoder.error_count() == errors && !file.means("listeners");
    let admin = file.get("admin").and_then(|node| process::admin(decoder, node));
    let realtime = file.get("realtime").map(|node| realtime::decode(decoder, node));
    let realtime = realtime.unwrap_or_else(|| (Realtime::default(), None));
    let cache = file
        .entry("cache")
        .map(|entry| (cache::decode(decoder, &entry.value, &mut places), Some(entry.key.span.clone())));
    let binds = listeners.iter().map(|draft| (&draft.listener.bind, &draft.span));
    let binds = binds.chain(admin.iter().map(|(admin, span)| (&admin.bind, span)));
    let publish = realtime.0.publish.as_ref().map(|publish| &publish.bind).zip(realtime.1.as_ref());
    let binds = binds.chain(publish);
    for (bind, span) in binds {
        match bind {
            Bind::Systemd(name) => places.passed.push((name.clone(), span.clone())),
            Bind::Unix(path) => places.made.push((path.clone(), span.clone())),
            Bind::Any(_) | Bind::Tcp(_) => {}
        }
    }
    Some(Draft {
        listeners,
        listeners_are_whole,
        shutdown: file.get("shutdown").map_or_else(Shutdown::default, |node| process::shutdown(decoder, node)),
        spool: file.get("spool").map_or_else(Spool::default, |node| process::spool(decoder, node, &mut places)),
        cache: cache.unwrap_or_default(),
        admin,
        realtime,
        logging: file.get("logging").map_or_else(Logging::default, |node| logging::decode(decoder, node, &mut places)),
        runtime: file.get("runtime").map_or_else(Runtime::default, |node| process::runtime(decoder, node)),
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        trusted_proxies_are_whole,
        limits,
        upstreams,
        sites,
        probe_paths: file.get("probe_paths").map_or_else(Vec::new, |node| sites::probe_paths(decoder, node)),
        places,
    })
}

/// Decodes `admin` and nothing else.
pub(super) fn admin(decoder: &mut Decoder<'_>, root: &Node) -> Option<Admin> {
    let Value::Map(entries) = &root.value else { return None };
    let entry = entries.iter().find(|entry| entry.key.text == "admin")?;
    process::admin(decoder, &entry.value).map(|(admin, _)| admin)
}

/// The key that an unknown one was probably meant to be.
pub(super) fn guess(word: &str, section: &Section) -> Option<&'static str> {
    let elsewhere = section.elsewhere.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| *ours);
    elsewhere.or_else(|| nearest(word, section.keys.iter().copied()))
}

/// What to do about a key that this section does not have.
pub(super) fn help_for_unknown(word: &str, guess: Option<&str>, section: &Section) -> String {
    if let Some(ours) = guess {
        let is_foreign = section.elsewhere.iter().any(|(theirs, _)| *theirs == word);
        return if is_foreign { format!("here it is called `{ours}`") } else { format!("did you mean `{ours}`?") };
    }
    if let Some(near) = nearest(word, section.later.iter().copied()).filter(|_| word.len() > 3) {
        return format!("did you mean `{near}`? It is not available in this version");
    }
    let owner = SECTIONS.iter().find(|other| other.keys.contains(&word) && !std::ptr::eq(**other, section));
    let belongs = match owner {
        Some(owner) if owner.name.is_empty() => format!("`{word}` belongs at the top level, without indentation; "),
        Some(owner) => format!("`{word}` belongs to `{}`; ", owner.name),
        None => String::new(),
    };
    format!("{belongs}the keys here are {}", section.keys.join(", "))
}

/// Every key of this version.
#[cfg(test)]
pub(super) fn all_keys() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().flat_map(|section| section.keys).copied()
}

/// Decodes `realtime.publish` and nothing else.
pub(super) fn publish(decoder: &mut Decoder<'_>, root: &Node) -> Option<Publish> {
    let Value::Map(entries) = &root.value else { return None };
    let entry = entries.iter().find(|entry| entry.key.text == "realtime")?;
    realtime::decode(decoder, &entry.value).0.publish
}
