//! What the operator may write: types and defaults, and how a file becomes them.
//!
//! [`load`] reads a file into a [`Config`] or into a [`Report`] that holds every error of the file at once, each with
//! its snippet, line and column. The types here are plain values: paths are absolute, names are resolved, ranges are
//! checked. Nothing in this module imports anything else of ours.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

mod address;
mod certificate;
mod check;
mod decode;
mod descriptors;
mod load;
mod network;
mod node;
mod report;
mod schema;
mod semantics;
mod syntax;
mod upstream;
mod values;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use address::{Bind, EndpointAddress, EndpointProtocol, Place};
pub use check::{Checked, check, spool_trouble};
pub use descriptors::{Descriptors, open_files};
pub use load::{Loaded, folder_of, load, load_admin, load_str, resolve};
pub use network::{Network, TrustedProxies};
pub use report::{Report, Warning};
pub use upstream::{
    Authority, Balance, ClientAddress, Ejection, Endpoint, HashBy, Health, KeepAlive, Resolve, Retry, Scheme, Timeouts,
    Upstream, UpstreamTls, Uwsgi, WaitingRoom, Workers,
};

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
    /// The operator's listener; absent: none.
    pub admin: Option<Admin>,
    /// Logs.
    pub logging: Logging,
    /// Threads.
    pub runtime: Runtime,
}

/// One `listeners` entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// The address as the operator wrote it: the listener's name in logs and metrics.
    pub name: String,
    /// Where to listen.
    pub bind: Bind,
    /// Absent: plain HTTP/1.1 and prior-knowledge HTTP/2.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is offered (by ALPN with TLS, by prior knowledge without). Default true.
    pub http2: bool,
    /// Whether every connection begins with a PROXY header, which trusted peers alone may send. Default false.
    pub proxy_protocol: bool,
    /// When set, every request of a known host is answered with a redirect to https on this port.
    pub redirect_https: Option<u16>,
}

/// `listeners[].tls`. At least one of `certificates` and `local` is set.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Chosen by SNI; the first one also serves clients without a matching name.
    pub certificates: Vec<Certificate>,
    /// Certificates for localhost from Hostler's own local CA, for development.
    pub local: bool,
    /// The oldest version accepted. Default TLS 1.2.
    pub min_version: TlsVersion,
}

/// A certificate chain and its key, both PEM files that were readable and matched when the file was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key of the leaf (PKCS#8, PKCS#1 or SEC1).
    pub private_key: PathBuf,
}

/// `listeners[].tls.min_version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
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

/// One `sites` entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// The first host as written, or `any`: the site's name in logs and metrics.
    pub name: String,
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// First match wins, in the order written.
    pub routes: Vec<Route>,
}

/// One entry of `sites[].hosts`, in lower case, without port or trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `shop.example`, or an address literal (IPv6 with its brackets).
    Exact(String),
    /// `*.shop.example`, kept as `.shop.example`: any name with at least one more label.
    Wildcard(String),
}

/// One `routes` entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The pattern as written: the route's name in logs and metrics.
    pub name: String,
    /// What the decoded request path must look like.
    pub path: PathPattern,
    /// What answers.
    pub action: Action,
    /// Bytes of a request body; `limits.body` when not written.
    pub body_limit: u64,
    /// Its place in the waiting room: higher goes first. -100 to 100, default 0.
    pub priority: i32,
    /// The prefix under which the app lives (SCRIPT_NAME), without a slash at the end. `path` is within it. It has only
    /// what a URL and a header can carry as it is.
    pub mount: Option<String>,
    /// How bodies are buffered.
    pub buffer: Buffer,
}

/// `path` or `path_exact`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// A prefix on segment boundaries: `/static/` matches `/static/a`, and `/static` is redirected to it with 308.
    Prefix(String),
    /// The whole path.
    Exact(String),
}

/// What a route does: exactly one.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// To the upstream at this index of [`Config::upstreams`].
    Proxy(usize),
    /// A redirect.
    Redirect {
        /// The `Location`, absolute or a path.
        to: String,
        /// 301, 302, 303, 307 or 308. Default 308.
        status: u16,
    },
    /// A fixed answer.
    Respond {
        /// 200 to 599. Default 200.
        status: u16,
        /// Sent as `text/plain; charset=utf-8`.
        body: String,
    },
}

/// `routes[].buffer`: per exchange, within the global spool.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// Whether responses are read ahead into the spool. Default true.
    pub response: bool,
    /// Bytes of one body in memory before it goes to a file. Default 256 KiB.
    pub memory: u64,
    /// Bytes of one body in a file. Default 1 GiB.
    pub disk: u64,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { response: true, memory: 256 << 10, disk: 1 << 30 }
    }
}

/// `admin`: metrics, probes and control.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// A loopback address or a unix socket; any address with a token.
    pub bind: Bind,
    /// What `Authorization: Bearer` must hold; `None`: everybody who can connect may ask and control.
    pub token: Option<String>,
}

/// `logging`.
#[derive(Debug, Clone, PartialEq)]
pub struct Logging {
    /// The least severe message that is written. Default info.
    pub level: Level,
    /// The form of the operator's log, which goes to stderr. Default text.
    pub format: LogFormat,
    /// Where the access log (JSON lines) goes; `None`: off. Default stdout.
    pub access: Option<AccessTarget>,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: Level::Info, format: LogFormat::Text, access: Some(AccessTarget::Stdout) }
    }
}

/// `logging.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// `logging.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

/// `logging.access.to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTarget {
    /// `stdout`
    Stdout,
    /// `stderr`
    Stderr,
    /// A file that is appended to.
    File(PathBuf),
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
