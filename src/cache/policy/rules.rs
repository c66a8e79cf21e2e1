//! What a route says of its cache, compiled.

use std::time::Duration;

use http::HeaderName;

use super::cookies::Patterns;
use crate::config::{RouteCache, TOKEN_COOKIES};

/// Cookies that stand for somebody, unless the configuration says otherwise: their clients are not anonymous.
///
/// Those of Django's sessions and messages, of Flask's sessions and Flask-Login, and the language that Django's `set_language`
/// remembers: its middleware answers by that cookie and says only `Vary: Accept-Language`.
pub const BYPASS_COOKIES: [&str; 6] =
    ["sessionid", "messages", "session", "remember_token", "beaker.session.id", "django_language"];

/// Cookies that analytics set for scripts, and that no app reads, unless the configuration says otherwise.
pub const IGNORE_COOKIES: [&str; 13] =
    ["_ga", "_ga_*", "_gid", "_gat*", "_gcl_*", "_fbp", "_fbc", "__utm*", "_pk_*", "_hj*", "_clck", "_clsk", "_uet*"];

/// Cookies that count whatever the configuration says: a page with a token that belongs to one of them is its client's alone.
pub const NEVER_IGNORED: [&str; 3] = TOKEN_COOKIES;

/// What a route says of its cache.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long an answer that says nothing of its own freshness is kept, for anonymous clients. `None`: it is not.
    pub default_ttl: Option<Duration>,
    /// How long a stale answer is served while a new one is fetched, where the answer says nothing of it.
    pub stale_while_revalidate: Duration,
    /// How long a stale answer stands in for a failure, where the answer says nothing of it.
    pub stale_if_error: Duration,
    /// Which part of its age an answer without any word of its freshness stays fresh for, in percent (RFC 9111, 4.2.2);
    /// 0: none. At most [`MAX_HEURISTIC`](super::freshness::MAX_HEURISTIC).
    pub heuristic_percent: u8,
    /// Whether answers that say `public` are kept and given out whoever asks: see [`super`].
    pub shares_public: bool,
    /// Whether clients may ask for less or more than what is fresh: `no-cache`, `max-age`, `min-fresh`, `max-stale`, `Pragma`.
    /// By default they may not, as in nginx and Varnish: a key that reloads must not be able to stop an app.
    pub honours_clients: bool,
    /// Cookies that make their client somebody.
    pub bypass_cookies: Patterns,
    /// Cookies that do not count, nor in a variant. Never any of [`NEVER_IGNORED`], nor those above.
    pub ignore_cookies: Patterns,
    /// Fields by which the edge tells the app of the route who asks, beside those that it always may: what a client sends by these
    /// names does not reach the app.
    pub identity: Box<[HeaderName]>,
    /// How many names `Vary` may have.
    pub max_vary_names: usize,
    /// How many variants one key may have.
    pub max_variants: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            default_ttl: None,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            heuristic_percent: 0,
            shares_public: false,
            honours_clients: false,
            bypass_cookies: Patterns::new(&BYPASS_COOKIES),
            ignore_cookies: Patterns::new(&IGNORE_COOKIES),
            identity: Box::default(),
            max_vary_names: 8,
            max_variants: 32,
        }
    }
}

impl Rules {
    /// Of a route's configuration. The cookies that it names are added to the usual ones. `identity`: see [`Rules::identity`].
    #[must_use]
    pub fn compile(cache: &RouteCache, identity: &[HeaderName]) -> Self {
        let with = |usual: &[&str], more: &[String]| {
            let names: Vec<&str> = usual.iter().copied().chain(more.iter().map(String::as_str)).collect();
            Patterns::new(&names)
        };
        Self {
            default_ttl: Some(cache.default_ttl).filter(|ttl| !ttl.is_zero()),
            stale_while_revalidate: cache.stale_while_revalidate,
            stale_if_error: cache.stale_if_error,
            shares_public: cache.public,
            honours_clients: cache.obey_clients,
            bypass_cookies: with(&BYPASS_COOKIES, &cache.bypass_cookies),
            ignore_cookies: with(&IGNORE_COOKIES, &cache.ignore_cookies),
            identity: identity.into(),
            ..Self::default()
        }
    }

    /// Whether a cookie of this name is left out of account.
    pub(super) fn ignores(&self, name: &[u8]) -> bool {
        self.ignore_cookies.has(name)
            && !self.bypass_cookies.has(name)
            && !NEVER_IGNORED.iter().any(|known| known.as_bytes() == name)
    }
}
