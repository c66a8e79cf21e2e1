//! `sites` and their routes: types and defaults.

use super::Auth;

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
    /// Who may use it; `None`: everybody.
    pub auth: Option<Auth>,
}

impl Route {
    /// Fields by which the app is told who asks, in lower case: on every route, what clients send under these names is
    /// removed.
    pub fn identity_names(&self) -> impl Iterator<Item = &str> {
        self.auth.iter().flat_map(Auth::identity_names)
    }
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
    /// To the upstream at this index of [`Config::upstreams`](super::Config::upstreams).
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
