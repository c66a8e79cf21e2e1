//! `Cache-Status`: what the cache has done with a request (RFC 9211).

use std::cell::RefCell;

use http::header::{HeaderName, HeaderValue};

use super::request::Bypass;
use super::serve::{Serve, Why};
use super::storable::Refusal;
use crate::http::text::append_decimal;

/// Values that are kept for hits.
const KEPT: usize = 64;

thread_local! {
    /// Those of hits, by how long what is stored stays fresh: a page that is asked for often has the same for a second.
    static HITS: RefCell<[(i64, Option<HeaderValue>); KEPT]> = const { RefCell::new([const { (0, None) }; KEPT]) };
    /// Where values are written before they get as much memory as they need.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// `Cache-Status`.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went on to the app (2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The cache was not to handle it.
    Bypass,
    /// Its method has the app asked.
    Method,
    /// Nothing is stored for its target.
    UriMiss,
    /// Something is, but no variant for it.
    VaryMiss,
    /// Nothing is stored that may be used.
    Miss,
    /// Something may be used, but its own directives have the app asked.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only a part of it is stored.
    Partial,
}

impl Forward {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// The edge's member of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatus {
    /// Why the app was asked; `None`: it was not, the answer is a stored one.
    pub forward: Option<Forward>,
    /// The status of the app's answer, where the client gets another.
    pub forward_status: Option<u16>,
    /// How long what is stored stays fresh, in seconds; less than zero: how long it has been stale.
    pub ttl: Option<i64>,
    /// Whether the app's answer was stored.
    pub is_stored: bool,
    /// Whether this request waited for the answer to another one.
    pub is_collapsed: bool,
    /// What else there is to say: a token.
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    const NOTHING: Self =
        Self { forward: None, forward_status: None, ttl: None, is_stored: false, is_collapsed: false, detail: None };

    /// Of an answer to PURGE: nothing was asked for, and the app was not asked.
    pub const PURGE: Self = Self { detail: Some("purge"), ..Self::NOTHING };

    /// Of an answer that is a stored one.
    #[must_use]
    pub const fn hit(ttl: i64) -> Self {
        Self { ttl: Some(ttl), ..Self::NOTHING }
    }

    /// Of a request that went on.
    #[must_use]
    pub const fn forwarded(why: Forward) -> Self {
        Self { forward: Some(why), ..Self::NOTHING }
    }

    /// Of what was decided. `is_known`: something is stored for the target, if not for this request; `ttl`: of what is
    /// stored. [`Serve::Unavailable`] is neither a hit nor forwarded, and its member has a detail alone.
    #[must_use]
    pub const fn of(serve: Serve, is_known: bool, ttl: i64) -> Self {
        match serve {
            Serve::Hit => Self::hit(ttl),
            Serve::Stale { .. } => Self { detail: Some("stale"), ..Self::hit(ttl) },
            Serve::Revalidate(Why::Stale) => Self::forwarded(Forward::Stale),
            // What is stored may be used only when the app has said so: to a client that is as if it were stale.
            Serve::Revalidate(Why::NoCache) => Self { detail: Some("no-cache"), ..Self::forwarded(Forward::Stale) },
            Serve::Revalidate(Why::Request) => Self::forwarded(Forward::Request),
            Serve::Miss if is_known => Self::forwarded(Forward::VaryMiss),
            Serve::Miss => Self::forwarded(Forward::UriMiss),
            Serve::Bypass(Bypass::Method) => Self::forwarded(Forward::Method),
            Serve::Bypass(why) => Self { detail: Some(detail(why)), ..Self::forwarded(Forward::Bypass) },
            Serve::Unavailable => Self { detail: Some("only-if-cached"), ..Self::NOTHING },
        }
    }

    /// With the status of the app's answer.
    #[must_use]
    pub const fn answered(self, status: u16) -> Self {
        Self { forward_status: Some(status), ..self }
    }

    /// Of an answer that was stored, or why it was not.
    #[must_use]
    pub const fn stored(self, stored: Result<(), Refusal>) -> Self {
        match stored {
            Ok(()) => Self { is_stored: true, ..self },
            // What is said already says why.
            Err(_) if self.detail.is_some() => self,
            Err(refusal) => Self { detail: Some(refusal.as_str()), ..self },
        }
    }

    /// Of a request that waited for another's answer.
    #[must_use]
    pub const fn collapsed(self) -> Self {
        Self { is_collapsed: true, ..self }
    }

    /// Appends the member. It stands behind those of the caches that are nearer to the app (2).
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"hostler");
        let mut put = |name: &[u8], value: &[u8]| {
            out.extend_from_slice(name);
            out.extend_from_slice(value);
        };
        match self.forward {
            None if self.ttl.is_some() => put(b"; hit", b""),
            None => {}
            Some(why) => put(b"; fwd=", why.as_str().as_bytes()),
        }
        if let Some(status) = self.forward_status {
            put(b"; fwd-status=", b"");
            append_decimal(out, status.into());
        }
        if let Some(ttl) = self.ttl {
            out.extend_from_slice(if ttl < 0 { b"; ttl=-" } else { b"; ttl=" });
            append_decimal(out, ttl.unsigned_abs());
        }
        if self.is_stored {
            out.extend_from_slice(b"; stored");
        }
        if self.is_collapsed {
            out.extend_from_slice(b"; collapsed");
        }
        if let Some(detail) = self.detail {
            out.extend_from_slice(b"; detail=");
            out.extend_from_slice(detail.as_bytes());
        }
    }

    /// The same as the value of a field.
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        match self.ttl {
            Some(ttl) if *self == Self::hit(ttl) => self.of_hit(ttl),
            _ => self.written(),
        }
    }

    /// That of a hit, which was written a moment ago, or is now.
    fn of_hit(&self, ttl: i64) -> HeaderValue {
        HITS.with_borrow_mut(|hits| {
            let (known, value) = &mut hits[ttl.unsigned_abs() as usize % KEPT];
            if *known != ttl {
                *value = None;
                *known = ttl;
            }
            value.get_or_insert_with(|| self.written()).clone()
        })
    }

    fn written(&self) -> HeaderValue {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            self.write(scratch);
            // Tokens and numbers.
            HeaderValue::from_bytes(scratch).unwrap_or(HeaderValue::from_static("hostler"))
        })
    }
}

const fn detail(why: Bypass) -> &'static str {
    match why {
        Bypass::Method => "method",
        Bypass::Body => "request-body",
        Bypass::Upgrade => "upgrade",
        Bypass::Precondition => "precondition",
        Bypass::Credentials => "credentials",
    }
}
