//! Whether a response may be stored (RFC 9111, 3), for how long, and for whom.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};

use super::cache_control::{CacheControl, Flags};
use super::freshness::{Facts, Stored, Times, heuristic, initial_age};
use super::request::{Asked, Bypass};
use super::rules::Rules;
use super::said::{Said, Source};
use super::{date, fields, vary};
use crate::http::conditional::EntityTag;

/// A response that may be stored, once all of it has come.
#[derive(Debug, Clone)]
pub struct Storable {
    /// What it is used by.
    pub stored: Stored,
    /// What tells its variants apart: see [`vary`].
    pub vary: Box<[HeaderName]>,
    /// Its fields, as they are stored.
    pub fields: HeaderMap,
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A status that is about one request (206, 304, 408, 429 …), or one that `must-understand` needs understood and that is not.
    Status,
    /// `X-Accel-Expires: 0`.
    Off,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// `Set-Cookie`.
    SetCookie,
    /// `Vary: *`, or a field by which no two requests are the same.
    VaryAny,
    /// `Vary` has more names than there may be.
    VaryNames,
    /// `Vary` is another than before, in a 304.
    VaryChanged,
    /// A body without an end: events.
    Stream,
    /// It says nothing of its freshness, and the route has no `default_ttl` that fits.
    Unsaid,
    /// It is stale already, and nothing could be done with it.
    Useless,
    /// It was stale when it came, because it is old or has taken long.
    Aged,
    /// The request is no GET.
    Method,
    /// The request has a body.
    Body,
    /// `no-store` in the request.
    RequestNoStore,
    /// The client is somebody, and the response does not say that it is for everybody.
    Credentials,
    /// The request has cookies, the response says neither how long it is good nor whether it depends on them.
    Cookies,
}

impl Refusal {
    /// Whether another request for the same would very likely be answered so that it is not stored, too: worth remembering, so
    /// that nobody waits for it in vain. The other reasons are about one request, and one client must not be able to switch
    /// the cache off for the others. Only answers to anonymous clients teach this; and should a later one be storable, it is stored.
    #[must_use]
    pub const fn is_of_the_response(self) -> bool {
        match self {
            Self::Off
            | Self::NoStore
            | Self::Private
            | Self::SetCookie
            | Self::VaryAny
            | Self::VaryNames
            | Self::Stream
            | Self::Unsaid
            | Self::Useless => true,
            Self::Status
            | Self::VaryChanged
            | Self::Aged
            | Self::Method
            | Self::Body
            | Self::RequestNoStore
            | Self::Credentials
            | Self::Cookies => false,
        }
    }

    /// The same for `detail` in `Cache-Status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Off => "x-accel-expires",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::SetCookie => "set-cookie",
            Self::VaryAny => "vary",
            Self::VaryNames => "vary-too-long",
            Self::VaryChanged => "vary-changed",
            Self::Stream => "stream",
            Self::Unsaid => "no-freshness",
            Self::Useless => "stale",
            Self::Aged => "aged",
            Self::Method => "method",
            Self::Body => "request-body",
            Self::RequestNoStore => "request-no-store",
            Self::Credentials => "credentials",
            Self::Cookies => "cookies",
        }
    }
}

/// Whether the response to a request may be stored.
///
/// # Errors
/// Why not. Of several reasons one that is of the request goes first: see [`Refusal::is_of_the_response`].
pub fn storable(
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    times: &Times,
    rules: &Rules,
) -> Result<Storable, Refusal> {
    let said = Said::of(headers, times.wall);
    decide(asked, status, headers, said, times, rules)
}

/// The same for a response of which it is known what it says.
pub(super) fn decide(
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    said: Said,
    times: &Times,
    rules: &Rules,
) -> Result<Storable, Refusal> {
    asked_for(asked, rules)?;
    // What somebody gets says nothing of what the others would.
    decide_for(asked, status, headers, said, times, rules).map_err(|refusal| {
        if refusal.is_of_the_response() && !asked.is_anonymous() { Refusal::Credentials } else { refusal }
    })
}

fn decide_for(
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    said: Said,
    times: &Times,
    rules: &Rules,
) -> Result<Storable, Refusal> {
    if is_about_one_request(status) {
        return Err(Refusal::Status);
    }
    forbidden(status, headers, &said)?;
    let vary = vary::names(headers, rules)?;
    let (source, seconds) =
        said.lifetime.or_else(|| implied(status, headers, &said, rules)).unwrap_or((Source::Nothing, 0));
    let has_validator = has_validator(headers);
    // What is to be asked for again each time says so itself; without a validator it would be asked for in vain.
    if source == Source::Nothing && !(said.control.flags.has(Flags::NO_CACHE) && has_validator) {
        return Err(Refusal::Unsaid);
    }
    let lifetime = match (source, rules.default_ttl) {
        (Source::Default, Some(ttl)) => ttl,
        _ => std::time::Duration::from_secs(seconds.into()),
    };
    let stored = Stored::new(Facts {
        times: *times,
        initial_age: initial_age(headers, said.date, times),
        lifetime,
        source,
        stale_while_revalidate: said.control.stale_while_revalidate,
        stale_if_error: said.control.stale_if_error,
        flags: flags(&said, has_validator),
        status: status.as_u16(),
    });
    if !has_validator && stored.ends(rules) <= times.received {
        // Its own time was long enough: the way here was longer, this once.
        return Err(if stored.lifetime() > 0 && !said.control.flags.has(Flags::NO_CACHE) {
            Refusal::Aged
        } else {
            Refusal::Useless
        });
    }
    permitted(asked, &stored, &vary)?;
    let fields = fields::stored(headers, &said.control, said.date);
    Ok(Storable { stored, vary, fields })
}

/// What the response itself forbids.
pub(super) fn forbidden(status: StatusCode, headers: &HeaderMap, said: &Said) -> Result<(), Refusal> {
    let flags = said.control.flags;
    if said.is_off {
        return Err(Refusal::Off);
    }
    if flags.has(Flags::MUST_UNDERSTAND) {
        // Whoever understands both leaves no-store to those that do not (5.2.2.3).
        if !is_understood(status) {
            return Err(Refusal::Status);
        }
    } else if flags.has(Flags::NO_STORE) {
        return Err(Refusal::NoStore);
    }
    if flags.has(Flags::PRIVATE) {
        return Err(Refusal::Private);
    }
    let sets = |name: &HeaderName| headers.contains_key(name) && !said.control.keeps_back(name);
    if sets(&header::SET_COOKIE) || headers.contains_key("set-cookie2") {
        return Err(Refusal::SetCookie);
    }
    if is_stream(headers) {
        return Err(Refusal::Stream);
    }
    Ok(())
}

/// What the request forbids.
fn asked_for(asked: &Asked, rules: &Rules) -> Result<(), Refusal> {
    match asked.bypass(rules) {
        Some(Bypass::Body) => Err(Refusal::Body),
        Some(Bypass::Credentials) => Err(Refusal::Credentials),
        Some(_) => Err(Refusal::Method),
        None if asked.is_head() => Err(Refusal::Method),
        None if asked.forbids_storing() => Err(Refusal::RequestNoStore),
        None => Ok(()),
    }
}

/// What the request has in it that the response does not allow for.
fn permitted(asked: &Asked, stored: &Stored, vary: &[HeaderName]) -> Result<(), Refusal> {
    if !is_for(asked, stored) {
        return Err(Refusal::Credentials);
    }
    let is_implied = matches!(stored.source(), Source::Default | Source::Heuristic);
    if is_implied && !asked.is_anonymous() {
        return Err(Refusal::Credentials);
    }
    if is_implied && asked.is_handed_on() {
        return Err(Refusal::Unsaid);
    }
    if is_implied && asked.has_cookies() && !vary.contains(&header::COOKIE) {
        return Err(Refusal::Cookies);
    }
    Ok(())
}

/// Whether a response may go to this client, or come from it (RFC 9111, 3.5).
pub(super) const fn is_for(asked: &Asked, stored: &Stored) -> bool {
    if asked.is_personal() {
        stored.has(Stored::FOR_ANYBODY)
    } else {
        !asked.has_authorization() || stored.has(Stored::FOR_AUTHORIZATION)
    }
}

/// How long a response is fresh that does not say it itself.
fn implied(status: StatusCode, headers: &HeaderMap, said: &Said, rules: &Rules) -> Option<(Source, u32)> {
    // Where another field counts, Cache-Control has still not said yes.
    let own = CacheControl::of(headers.get_all(header::CACHE_CONTROL));
    let no = Flags::NO_CACHE.and(Flags::NO_STORE).and(Flags::PRIVATE).and(Flags::MALFORMED);
    let says_no = said.control.flags.has(no)
        || own.flags.has(no)
        || headers.contains_key(header::SET_COOKIE)
        || headers.contains_key(header::PRAGMA);
    if says_no {
        return None;
    }
    // As nginx's proxy_cache_valid with a time alone.
    if rules.default_ttl.is_some_and(|ttl| !ttl.is_zero()) && matches!(status.as_u16(), 200 | 301 | 302) {
        return Some((Source::Default, 0));
    }
    let may_guess = is_heuristically_cacheable(status) || said.control.flags.has(Flags::PUBLIC);
    let percent = Some(rules.heuristic_percent).filter(|percent| *percent > 0 && may_guess)?;
    heuristic(headers, said.date, percent).map(|seconds| (Source::Heuristic, seconds))
}

fn flags(said: &Said, has_validator: bool) -> u8 {
    let control = &said.control;
    let is = |flags: Flags, fact: u8| if control.flags.has(flags) { fact } else { 0 };
    let shared = if control.s_maxage.is_some() { Stored::STALE_IF_SAID } else { 0 };
    let permits = Flags::PUBLIC.and(Flags::MUST_REVALIDATE_PERMITS);
    // A time that could not be read permits nothing.
    let permits_shared =
        if control.s_maxage.is_some_and(|seconds| seconds > 0) { Stored::FOR_AUTHORIZATION } else { 0 };
    is(Flags::NO_CACHE, Stored::NO_CACHE)
        | is(Flags::MUST_REVALIDATE.and(Flags::PROXY_REVALIDATE), Stored::NEVER_STALE)
        | is(permits, Stored::FOR_AUTHORIZATION)
        | is(Flags::PUBLIC, Stored::FOR_ANYBODY)
        | is(Flags::IMMUTABLE, Stored::IMMUTABLE)
        | shared
        | permits_shared
        | if has_validator { Stored::HAS_VALIDATOR } else { 0 }
}

/// Whether there is a tag or a date to ask by.
fn has_validator(headers: &HeaderMap) -> bool {
    let tag = headers.get(header::ETAG).is_some_and(|value| EntityTag::parse(value.as_bytes()).is_some());
    tag || date::only(headers, &header::LAST_MODIFIED).is_some()
}

/// A body that goes on and on.
fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        [&b"text/event-stream"[..], b"multipart/x-mixed-replace"]
            .iter()
            .any(|known| essence.eq_ignore_ascii_case(known))
    })
}

/// Statuses that say something of the request, its connection or the moment, and nothing of what is there: never stored. For
/// 428, 429, 431 and 511 RFC 6585 forbids it.
fn is_about_one_request(status: StatusCode) -> bool {
    status.is_informational()
        || matches!(
            status.as_u16(),
            206 | 304 | 407 | 408 | 412 | 413 | 416 | 417 | 421 | 425 | 426 | 428 | 429 | 431 | 511
        )
}

/// Statuses of RFC 9110 (and 308 and 451) of which it is known what they mean for a cache.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=406 | 409..=411 | 414 | 415 | 422 | 451 | 500..=505
    )
}

/// RFC 9110, 15.1, without 206.
fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}
