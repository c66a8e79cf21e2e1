//! What a request says that matters to a cache, read once, in one pass over its fields.
//!
//! `no-store` and `only-if-cached` are always obeyed: the one has an answer forgotten, the other asks for nothing new. What else a client may ask for
//! (RFC 9111, 5.2.1: advice, all of it) is obeyed where the route says so: see [`Rules::honours_clients`].

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::cache_control::elements;
use super::cookies;
use super::rules::Rules;

/// What is known of a request beside its fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Context {
    /// It has a body, or announces one.
    pub has_body: bool,
    /// The edge itself has found out who asks (`auth`, a client's certificate), and tells the app. What clients prove in fields of
    /// their own (`X-API-Key`) nobody can know here: such fields belong into `by`, or their routes have no cache.
    pub is_identified: bool,
    /// It wants to leave HTTP: a WebSocket's handshake.
    pub is_upgrade: bool,
}

/// Fields that are not sent to an app whose answer may be kept: they would make it one for this client.
/// A revalidation has its own: see [`super::validate::conditions`].
pub const KEPT_BACK: [HeaderName; 4] =
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE, header::RANGE];

/// A request. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    flags: u16,
    max_age: u32,
    min_fresh: u32,
    max_stale: u32,
}

/// Why a request has nothing to do with the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// Its method is neither GET nor HEAD.
    Method,
    /// It is a GET or HEAD with a body.
    Body,
    /// It wants to leave HTTP.
    Upgrade,
    /// Its preconditions (`If-Match`, `If-Unmodified-Since`) are for the app alone (RFC 9111, 4.3.2).
    Precondition,
    /// Its client is somebody, and what is stored is for anybody.
    Credentials,
}

impl Asked {
    const GET: u16 = 1;
    const HEAD: u16 = 1 << 1;
    const BODY: u16 = 1 << 2;
    const UPGRADE: u16 = 1 << 3;
    const PRECONDITION: u16 = 1 << 4;
    const AUTHORIZATION: u16 = 1 << 5;
    const PERSONAL: u16 = 1 << 6;
    const COOKIES: u16 = 1 << 7;
    const RANGE: u16 = 1 << 8;
    const NO_STORE: u16 = 1 << 9;
    const NO_CACHE: u16 = 1 << 10;
    const ONLY_IF_CACHED: u16 = 1 << 11;
    const PRAGMA: u16 = 1 << 12;
    const CACHE_CONTROL: u16 = 1 << 13;
    const HANDED_ON: u16 = 1 << 14;

    /// Reads a request.
    #[must_use]
    pub fn of(method: &Method, headers: &HeaderMap, context: Context, rules: &Rules) -> Self {
        let mut asked = Self { flags: 0, max_age: u32::MAX, min_fresh: 0, max_stale: 0 };
        match *method {
            Method::GET => asked.flags = Self::GET,
            Method::HEAD => asked.flags = Self::HEAD,
            // The rest is not asked.
            _ => return asked,
        }
        asked.set(Self::BODY, context.has_body);
        asked.set(Self::PERSONAL, context.is_identified);
        asked.set(Self::UPGRADE, context.is_upgrade);
        let mut max_stale = None;
        for (name, value) in headers {
            match name.as_str() {
                "authorization" => asked.flags |= Self::AUTHORIZATION,
                "cookie" => {
                    asked.flags |= Self::COOKIES;
                    asked.set(Self::PERSONAL, rules.bypass_cookies.is_in(value.as_bytes()));
                }
                "range" => asked.flags |= Self::RANGE,
                "if-match" | "if-unmodified-since" => asked.flags |= Self::PRECONDITION,
                "cache-control" => asked.read(value, rules, &mut max_stale),
                "pragma" => asked.set(Self::PRAGMA, says_no_cache(value)),
                _ => {}
            }
        }
        asked.max_stale = max_stale.unwrap_or(0);
        // Pragma is for those that do not know Cache-Control (5.4).
        let is_old = asked.has(Self::PRAGMA) && !asked.has(Self::CACHE_CONTROL);
        asked.set(Self::NO_CACHE, is_old && rules.honours_clients);
        if asked.has(Self::COOKIES) && cookies::counting(headers, rules).next().is_none() {
            asked.flags &= !Self::COOKIES;
        }
        asked
    }

    fn read(&mut self, line: &HeaderValue, rules: &Rules, max_stale: &mut Option<u32>) {
        self.flags |= Self::CACHE_CONTROL;
        for element in elements(line.as_bytes()) {
            let honoured = rules.honours_clients;
            match element.directive(&mut [0; _]) {
                b"no-store" => self.flags |= Self::NO_STORE,
                b"only-if-cached" => self.flags |= Self::ONLY_IF_CACHED,
                b"no-cache" if honoured => self.flags |= Self::NO_CACHE,
                b"max-age" if honoured => self.max_age = self.max_age.min(element.seconds().unwrap_or(0)),
                b"min-fresh" if honoured => self.min_fresh = self.min_fresh.max(element.seconds().unwrap_or(0)),
                b"max-stale" if honoured => {
                    // Without a number: however stale (5.2.1.2).
                    let most = if element.argument.is_none() { u32::MAX } else { element.seconds().unwrap_or(0) };
                    *max_stale = Some(max_stale.map_or(most, |known| known.min(most)));
                }
                _ => {}
            }
        }
    }

    fn set(&mut self, flag: u16, is_set: bool) {
        if is_set {
            self.flags |= flag;
        }
    }

    const fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The same, where the answer is not the app's own page: it was handed over to a file or another route, or told the edge to
    /// hold its client. Nothing is implied then: it is stored only if it says itself how long it is fresh.
    #[must_use]
    pub const fn handed_on(self) -> Self {
        Self { flags: self.flags | Self::HANDED_ON, ..self }
    }

    /// Whether nothing is implied by its answer.
    pub(super) const fn is_handed_on(self) -> bool {
        self.has(Self::HANDED_ON)
    }

    /// Why the cache has nothing to do with it, whatever is stored. Asked before a key is made.
    #[must_use]
    pub fn bypass(self, rules: &Rules) -> Option<Bypass> {
        match () {
            () if !self.has(Self::GET | Self::HEAD) => Some(Bypass::Method),
            () if self.has(Self::BODY) => Some(Bypass::Body),
            () if self.has(Self::UPGRADE) => Some(Bypass::Upgrade),
            () if self.has(Self::PRECONDITION) => Some(Bypass::Precondition),
            () if !self.is_anonymous() && !rules.shares_public => Some(Bypass::Credentials),
            () => None,
        }
    }

    /// Whether its client is nobody in particular: no credentials, and no cookie that stands for somebody.
    #[must_use]
    pub const fn is_anonymous(self) -> bool {
        !self.has(Self::AUTHORIZATION | Self::PERSONAL)
    }

    /// Whether it has cookies that stand for somebody, or the edge knows who asks.
    #[must_use]
    pub const fn is_personal(self) -> bool {
        self.has(Self::PERSONAL)
    }

    /// Whether it has `Authorization`.
    #[must_use]
    pub const fn has_authorization(self) -> bool {
        self.has(Self::AUTHORIZATION)
    }

    /// Whether it has cookies that count: any that are not ignored.
    #[must_use]
    pub const fn has_cookies(self) -> bool {
        self.has(Self::COOKIES)
    }

    /// Whether others may wait for its answer, and share it: what credentials were sent for is nobody else's until it says so.
    #[must_use]
    pub const fn may_lead(self) -> bool {
        self.is_anonymous() && self.has(Self::GET) && !self.has(Self::NO_STORE)
    }

    /// Whether the method is HEAD.
    #[must_use]
    pub const fn is_head(self) -> bool {
        self.has(Self::HEAD)
    }

    /// Whether it asks for a part.
    #[must_use]
    pub const fn is_for_range(self) -> bool {
        self.has(Self::RANGE)
    }

    /// Whether nothing of its answer may be stored (5.2.1.5).
    #[must_use]
    pub const fn forbids_storing(self) -> bool {
        self.has(Self::NO_STORE)
    }

    /// Whether it wants what is stored or nothing (5.2.1.7).
    #[must_use]
    pub const fn is_only_if_cached(self) -> bool {
        self.has(Self::ONLY_IF_CACHED)
    }

    /// Whether what is stored must be asked for again (5.2.1.4, 5.4), as far as clients are honoured.
    #[must_use]
    pub const fn wants_validation(self) -> bool {
        self.has(Self::NO_CACHE)
    }

    /// The greatest age that it takes (5.2.1.1); `u32::MAX`: any.
    #[must_use]
    pub const fn max_age(self) -> u32 {
        self.max_age
    }

    /// How long what it gets must stay fresh (5.2.1.3).
    #[must_use]
    pub const fn min_fresh(self) -> u32 {
        self.min_fresh
    }

    /// How stale what it gets may be (5.2.1.2); `u32::MAX`: however stale.
    #[must_use]
    pub const fn max_stale(self) -> u32 {
        self.max_stale
    }
}

fn says_no_cache(value: &HeaderValue) -> bool {
    elements(value.as_bytes()).any(|element| element.name.eq_ignore_ascii_case(b"no-cache"))
}
