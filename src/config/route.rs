//! `sites` and their routes: types and defaults.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Auth, Compress, Cors, Fallback, Files, HeaderRules, PathRegex, RateLimit, RouteCache, Template, WebSocket,
};

/// One `sites` entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// The first host as written, or `any`: the site's name in logs and metrics.
    pub name: String,
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// Whether it also takes hosts that no site has. Default false.
    pub default: bool,
    /// Pages for the edge's own answers, a single status before its class.
    pub error_pages: Vec<ErrorPage>,
    /// First match wins, in the order written.
    pub routes: Vec<Route>,
}

/// One entry of `sites[].error_pages`, read with the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// One status, or a class: 400 to 499, 500 to 599.
    pub statuses: RangeInclusive<u16>,
    /// Where it was read.
    pub file: PathBuf,
    /// Its bytes, 1 MiB at most.
    pub body: Bytes,
}

impl std::fmt::Debug for ErrorPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErrorPage").field("statuses", &self.statuses).field("file", &self.file).finish_non_exhaustive()
    }
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
    /// What else must hold.
    pub when: Option<When>,
    /// What answers.
    pub action: Action,
    /// Bytes of a request body; `limits.body` when not written.
    pub body_limit: u64,
    /// Its place in the waiting room: higher goes first. -100 to 100, default 0.
    pub priority: i32,
    /// The prefix under which the app lives (SCRIPT_NAME), without a slash at the end. `path` is within it. It has only
    /// what a URL and a header can carry as it is.
    pub mount: Option<String>,
    /// The prefix that is taken away before the path is sent, without a slash at the end. `path` is within it. The app is
    /// told nothing of it; a route has this or `mount`.
    pub strip_prefix: Option<String>,
    /// How bodies are buffered.
    pub buffer: Buffer,
    /// How its answers are compressed; `None`: they go out as they are.
    pub compress: Option<Compress>,
    /// What of its answers is kept; `None`: nothing.
    pub cache: Option<RouteCache>,
    /// How often the same client may ask; `None`: as often as it likes.
    pub rate_limit: Option<RateLimit>,
    /// From the whole request to the head of the answer, waiting included; `None`: as long as the upstream's own take.
    pub timeout: Option<Duration>,
    /// Which pages of other origins may read its answers; `None`: the app says.
    pub cors: Option<Cors>,
    /// Fields that are added or taken away.
    pub headers: HeaderRules,
    /// Who may use it; `None`: everybody.
    pub auth: Option<Auth>,
    /// Whether only requests that another route hands on (`X-Accel-Redirect`) come to it.
    pub internal: bool,
    /// Which files the app may hand to clients by name (`X-Sendfile`); `None`: none.
    pub sendfile: Option<Sendfile>,
    /// How it takes WebSockets; `None`: it does not.
    pub websocket: Option<WebSocket>,
    /// Whether the app may have its clients held (`Grip-Hold`); requests to it are signed then. Default false.
    pub grip: bool,
}

impl Site {
    /// Whether its apps may hand requests on to its routes: it has one for that.
    #[must_use]
    pub fn has_internal(&self) -> bool {
        self.routes.iter().any(|route| route.internal)
    }
}

impl Route {
    /// The upstreams that its requests come to, by their indices: the one that answers, and the one that is asked before.
    pub fn upstreams(&self) -> impl Iterator<Item = usize> {
        let answers = match self.action {
            Action::Proxy(at) => Some(at),
            Action::Files(_) | Action::Redirect { .. } | Action::Respond { .. } => None,
        };
        let asked = self.auth.as_ref().and_then(|auth| auth.forward.as_ref()).map(|forward| forward.upstream);
        answers.into_iter().chain(asked)
    }

    /// Whether anything is kept of its answers: they are an app's, then.
    #[must_use]
    pub fn caches(&self) -> bool {
        self.cache.is_some() && matches!(self.action, Action::Proxy(_))
    }

    /// Fields by which the app is told who asks, in lower case: on every route, what clients send under these names is
    /// removed.
    pub fn identity_names(&self) -> impl Iterator<Item = &str> {
        self.auth.iter().flat_map(Auth::identity_names)
    }

    /// Whether it leaves requests to the routes behind it.
    pub(super) fn hands_on(&self) -> bool {
        matches!(&self.action, Action::Files(Files { fallback: Fallback::Next, .. }))
    }
}

/// `routes[].sendfile`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sendfile {
    /// Folders, absolute and without `..`: files below them may be sent. At least one.
    pub roots: Vec<PathBuf>,
}

impl Sendfile {
    /// What is sent from each of them.
    pub fn files(&self) -> impl Iterator<Item = Files> {
        self.roots.iter().cloned().map(Files::by_name)
    }
}

/// `routes[].when`: all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct When {
    /// Empty: any.
    pub methods: Vec<String>,
    /// Names in lower case, and the value that one of the lines must have.
    pub headers: Vec<(String, String)>,
    /// Decoded names, and the decoded value that one of the occurrences must have.
    pub query: Vec<(String, String)>,
}

impl When {
    /// Whether every request that fits `other` fits this one, as far as the text tells.
    pub(super) fn is_as_wide_as(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || !other.methods.is_empty() && other.methods.iter().all(|method| self.methods.contains(method));
        methods
            && self.headers.iter().all(|pair| other.headers.contains(pair))
            && self.query.iter().all(|pair| other.query.contains(pair))
    }
}

/// `path`, `path_exact` or `path_regex`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// A prefix on segment boundaries: `/static/` matches `/static/a`, and `/static` is redirected to it with 308.
    Prefix(String),
    /// The whole path.
    Exact(String),
    /// A regular expression that is found in it.
    Regex(PathRegex),
}

impl PathPattern {
    /// Whether one path alone fits.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }
}

/// What a route does: exactly one.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// To the upstream at this index of [`Config::upstreams`](super::Config::upstreams).
    Proxy(usize),
    /// From a folder.
    Files(Files),
    /// A redirect.
    Redirect {
        /// The `Location`, absolute or a path.
        to: Template,
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
