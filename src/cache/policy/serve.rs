//! What a request is answered with, given what is stored (RFC 9111, 4).

use super::freshness::Stored;
use super::request::{Asked, Bypass};
use super::rules::Rules;
use super::storable::is_for;

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    /// What is stored is the answer.
    Hit,
    /// What is stored is the answer although it is stale; `refresh`: a new one is to be fetched meanwhile.
    Stale {
        /// Whether to fetch a new one: not where it was the client that wanted it so.
        refresh: bool,
    },
    /// The app is to be asked whether what is stored is still good. Whether it may be used if that fails says
    /// [`Stored::may_replace_failure`] then.
    Revalidate(Why),
    /// Nothing is stored: the app is to be asked.
    Miss,
    /// The app is to be asked, and the cache keeps out of it.
    Bypass(Bypass),
    /// 504: only what is stored was asked for, and there is nothing that may be used (RFC 9111, 5.2.1.7).
    Unavailable,
}

/// Why what is stored is not used as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is stale.
    Stale,
    /// It says that it is to be asked for again each time.
    NoCache,
    /// The client wants it so.
    Request,
}

/// Decides. `stored`: of the variant that fits the request; `now`: by the steady clock, in milliseconds.
#[must_use]
pub fn serve(stored: Option<&Stored>, asked: &Asked, rules: &Rules, now: u64) -> Serve {
    let verdict = match (asked.bypass(rules), stored) {
        (Some(why), _) => Serve::Bypass(why),
        (None, None) => Serve::Miss,
        // It is for others. What this one gets may be for everybody, and is stored then.
        (None, Some(stored)) if !is_for(asked, stored) => Serve::Bypass(Bypass::Credentials),
        (None, Some(stored)) => among(stored, asked, rules, now),
    };
    match verdict {
        Serve::Hit | Serve::Stale { .. } | Serve::Bypass(Bypass::Method) => verdict,
        _ if asked.is_only_if_cached() => Serve::Unavailable,
        _ => verdict,
    }
}

fn among(stored: &Stored, asked: &Asked, rules: &Rules, now: u64) -> Serve {
    if stored.has(Stored::NO_CACHE) {
        return Serve::Revalidate(Why::NoCache);
    }
    let is_fresh = stored.is_fresh(now);
    let is_good_for_client = takes(stored, asked, now);
    if is_fresh && is_good_for_client {
        return Serve::Hit;
    }
    if is_good_for_client && stored.may_be_stale(rules, now) {
        return Serve::Stale { refresh: true };
    }
    if !is_fresh && takes_stale(stored, asked, now) {
        return Serve::Stale { refresh: false };
    }
    Serve::Revalidate(if is_fresh { Why::Request } else { Why::Stale })
}

/// Whether the client takes something of this age (5.2.1.1, 5.2.1.3, 5.2.1.4).
fn takes(stored: &Stored, asked: &Asked, now: u64) -> bool {
    let age = stored.age(now);
    // A reload asks for max-age=0. What does not change while it is fresh is not asked for again then (RFC 8246, 2).
    let is_reload = asked.max_age() == 0 && stored.has(Stored::IMMUTABLE) && stored.is_fresh(now);
    let is_young = is_reload || asked.max_age() == u32::MAX || age <= milliseconds(asked.max_age());
    let min_fresh = milliseconds(asked.min_fresh());
    let stays = min_fresh == 0 || stored.left(now) >= min_fresh;
    is_young && stays && !asked.wants_validation()
}

/// Whether the client takes something as stale as this (5.2.1.2), and nothing forbids it.
fn takes_stale(stored: &Stored, asked: &Asked, now: u64) -> bool {
    let most = if asked.max_stale() == u32::MAX { u64::MAX } else { milliseconds(asked.max_stale()) };
    let is_young = asked.max_age() == u32::MAX || stored.age(now) <= milliseconds(asked.max_age()).saturating_add(most);
    let fits = most > 0 && stored.staleness(now) <= most && is_young;
    fits && asked.min_fresh() == 0 && !asked.wants_validation() && stored.may_be_stale_for_clients()
}

fn milliseconds(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}
