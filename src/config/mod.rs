//! What the operator may write: types and defaults, and how a file becomes them.
//!
//! [`load`] reads a file into a [`Config`] or into a [`Report`] that holds every error of the file at once, each with
//! its snippet, line and column. The types here are plain values: paths are absolute, names are resolved, ranges are
//! checked. Nothing in this module imports anything else of ours, but what a file of users or keys must look like.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

mod address;
mod auth;
mod cache;
mod certificate;
mod check;
mod compress;
mod content_coding;
mod cors;
mod decode;
mod descriptors;
mod files;
mod header_rules;
mod key;
mod listener;
mod load;
mod logging;
mod mask;
mod network;
mod node;
mod page;
mod path_regex;
mod punycode;
mod rate;
mod rate_limit;
mod realtime;
mod report;
mod route;
mod schema;
mod secret;
mod semantics;
mod syntax;
mod template;
mod upstream;
mod values;
mod websocket;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use address::{Bind, EndpointAddress, EndpointProtocol, Place};
pub use auth::{AllowedClients, Auth, Basic, Forward, Jwt, KeySource, KeysUrl, TokenSource};
pub use cache::{Cache, CacheBy, CacheDisk, RouteCache, TOKEN_COOKIES};
pub use certificate::CERTIFICATE_WARNING;
pub use check::{Checked, cache_trouble, check, read_trouble, roots_trouble, spool_trouble};
pub use compress::{Compress, MediaRange};
pub use content_coding::ContentCoding;
pub use cors::{Cors, Origins};
pub use descriptors::{CONNECTIONS, Descriptors, Shortage, open_files};
pub use files::{Fallback, Files, Immutable, Symlinks};
pub use header_rules::{FieldRules, HeaderRules};
pub use key::KeyBy;
pub use listener::{Certificate, ClientAuth, Listener, Tls, TlsVersion};
pub use load::{Loaded, folder_of, load, load_admin, load_publish, load_str, resolve};
pub use logging::{Access, AccessFormat, AccessTarget, Level, LogFormat, Logging};
pub use network::{Network, TrustedProxies};
pub use path_regex::PathRegex;
pub use punycode::to_ascii as host_to_ascii;
pub use rate::{NotARate, Rate};
pub use rate_limit::RateLimit;
pub use realtime::{Grip, Publish, Realtime};
pub use report::{Report, Warning};
pub use route::{Action, Buffer, ErrorPage, HostPattern, PathPattern, Route, Sendfile, Site, When};
pub use secret::Secret;
pub use template::{Part, Template, Within};
pub use upstream::{
    Authority, Balance, ClientAddress, Ejection, Endpoint, Health, KeepAlive, Resolve, Retry, Scheme, Timeouts,
    Upstream, UpstreamTls, Uwsgi, WaitingRoom, Workers,
};
pub use websocket::{PageOrigins, WebSocket, WebSocketMode};

/// A whole configuration file, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect. At least one; without the key plain HTTP on 127.0.0.1:8080.
    pub listeners: Vec<Listener>,
    /// Whose word about clients is believed. Default nobody.
    pub trusted_proxies: TrustedProxies,
    /// The edge's protection.
    pub limits: Limits,
    /// What SIGTERM does.
    pub shutdown: Shutdown,
    /// The budget for all bodies together.
    pub spool: Spool,
    /// Named groups of endpoints, in the order written.
    pub upstreams: Vec<Upstream>,
    /// Hosts and their routes, in the order written.
    pub sites: Vec<Site>,
    /// Paths that are answered for any Host.
    pub probe_paths: Vec<String>,
    /// Where answers are kept.
    pub cache: Cache,
    /// The operator's listener; absent: none.
    pub admin: Option<Admin>,
    /// Clients that are held.
    pub realtime: Realtime,
    /// Logs.
    pub logging: Logging,
    /// Threads.
    pub runtime: Runtime,
}

impl Config {
    /// Whether any route takes WebSockets.
    #[must_use]
    pub fn takes_websockets(&self) -> bool {
        self.sites.iter().flat_map(|site| &site.routes).any(|route| route.websocket.is_some())
    }

    /// Whether anything is kept of any route's answers.
    #[must_use]
    pub fn caches(&self) -> bool {
        self.sites.iter().flat_map(|site| &site.routes).any(Route::caches)
    }

    /// The prefix under which the app of the upstream at this index lives, as the first route to it says.
    #[must_use]
    pub fn mount_of(&self, upstream: usize) -> Option<&str> {
        let mut routes = self.sites.iter().flat_map(|site| &site.routes);
        let mounted = |route: &&Route| route.action == Action::Proxy(upstream) && route.mount.is_some();
        routes.find(mounted)?.mount.as_deref()
    }
}

/// `limits`: the edge's protection.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Connections of clients at once, over all listeners. Default 20,000.
    pub connections: usize,
    /// Of these, connections of one client: an IPv4 address or an IPv6 /64. Default 1,000.
    pub connections_per_client: usize,
    /// Bytes of a request head. Default 32 KiB.
    pub header_size: u64,
    /// Fields of a request head. Default 100.
    pub header_count: usize,
    /// Bytes of a request body; a route's `body_limit` replaces it. Default 100 MiB.
    pub body: u64,
    /// From the first byte of a head (or the start of a handshake) to its end. Default 30 s.
    pub header_timeout: Duration,
    /// How long a connection may stay open between requests. Default 75 s.
    pub idle_timeout: Duration,
    /// What a client keeps up when it sends a body. Default 500 bytes a second, after 20 s.
    pub body_rate: MinRate,
    /// What a client keeps up when it takes an answer. Default 500 bytes a second, after 60 s.
    pub read_rate: MinRate,
    /// HTTP/2 streams per connection. Default 128.
    pub streams: u32,
}

/// The rate below which a client is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes per second. At least 1.
    pub min: u64,
    /// How far the client may fall behind: the time in which nothing at all may move.
    pub after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_client: 1_000,
            header_size: 32 << 10,
            header_count: 100,
            body: 100 << 20,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_rate: MinRate { min: 500, after: Duration::from_secs(20) },
            read_rate: MinRate { min: 500, after: Duration::from_secs(60) },
            streams: 128,
        }
    }
}

/// `shutdown`: what SIGTERM does.
#[derive(Debug, Clone, PartialEq)]
pub struct Shutdown {
    /// `/ready` says no for this long before anything else happens. Default 0 s.
    pub delay: Duration,
    /// Exchanges may take this long to end before they are cut. Default 8 s.
    pub timeout: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { delay: Duration::ZERO, timeout: Duration::from_secs(8) }
    }
}

/// `spool`: the budget for all bodies together.
#[derive(Debug, Clone, PartialEq)]
pub struct Spool {
    /// Folder of the unlinked files. Default /var/tmp.
    pub dir: PathBuf,
    /// Bytes held in memory. Default 256 MiB.
    pub memory: u64,
    /// Bytes held in files. Default 10 GiB.
    pub disk: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Self { dir: PathBuf::from("/var/tmp"), memory: 256 << 20, disk: 10 << 30 }
    }
}

/// `admin`: metrics, probes and control.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// A loopback address or a unix socket; any address with a token.
    pub bind: Bind,
    /// What `Authorization: Bearer` must hold; `None`: everybody who can connect may ask and control.
    pub token: Option<Secret>,
}

/// `runtime`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Runtime {
    /// Threads that serve; `None` (`auto`): one per core.
    pub threads: Option<usize>,
}

/// Whether an address reaches only this machine.
#[must_use]
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
