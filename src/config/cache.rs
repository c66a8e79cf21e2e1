//! `cache` and `routes[].cache`: types and defaults.

use std::path::PathBuf;
use std::time::Duration;

use super::AllowedClients;

/// Cookies that pages hold a token of (Django, Tornado, others): pages that depend on cookies depend on these, whatever the file says.
pub const TOKEN_COOKIES: [&str; 3] = ["csrftoken", "_xsrf", "csrf_token"];

/// `routes[].cache`: what of a route's answers is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCache {
    /// How long an answer that says nothing of its freshness is kept for anonymous clients. Zero: it is not. Default zero.
    pub default_ttl: Duration,
    /// How long a stale answer is served while a new one is fetched, where it does not say so itself. Default zero.
    pub stale_while_revalidate: Duration,
    /// How long a stale answer stands in for a failure, where it does not say so itself. Default zero.
    pub stale_if_error: Duration,
    /// What tells requests apart. Default host, path and query.
    pub by: Vec<CacheBy>,
    /// Cookies that stand for somebody, beside those that always do; a `*` at the end stands for any end.
    pub bypass_cookies: Vec<String>,
    /// Cookies that do not count, beside those that never do, in the same form.
    pub ignore_cookies: Vec<String>,
    /// Whether what says `public` is kept and given out whoever asks. Default false.
    pub public: bool,
    /// Whether clients may ask for what is newer than it need be. Default false.
    pub obey_clients: bool,
    /// Fields in which the app names the tags of an answer, in lower case. Default `surrogate-key` and `cache-tag`.
    pub tags: Vec<String>,
}

impl Default for RouteCache {
    fn default() -> Self {
        Self {
            default_ttl: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            by: vec![CacheBy::Host, CacheBy::Path, CacheBy::Query],
            bypass_cookies: Vec::new(),
            ignore_cookies: Vec::new(),
            public: false,
            obey_clients: false,
            tags: vec!["surrogate-key".into(), "cache-tag".into()],
        }
    }
}

/// A part of requests by which they are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheBy {
    /// `host`.
    Host,
    /// `path`.
    Path,
    /// `query`: all of it.
    Query,
    /// `query:NAME`: a parameter of it, decoded.
    Parameter(String),
    /// `header:NAME`, in lower case.
    Header(String),
    /// `cookie:NAME`.
    Cookie(String),
}

/// `cache`: where answers are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Bytes in memory. Default 256 MiB.
    pub memory: u64,
    /// `cache.disk`; `None`: memory alone.
    pub disk: Option<CacheDisk>,
    /// Bytes of the largest answer that is kept. Default 64 MiB.
    pub max_object: u64,
    /// Who may purge with the method PURGE. Default nobody.
    pub purge: AllowedClients,
}

impl Default for Cache {
    fn default() -> Self {
        Self { memory: 256 << 20, disk: None, max_object: 64 << 20, purge: AllowedClients::default() }
    }
}

/// `cache.disk`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDisk {
    /// A folder that is the cache's alone.
    pub path: PathBuf,
    /// Bytes in it. Default 10 GiB.
    pub size: u64,
}
