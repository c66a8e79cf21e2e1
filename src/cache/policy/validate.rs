//! Asking an app whether what is stored is still good, and what becomes of its answer (RFC 9111, 4.3).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::cache_control::{CacheControl, Flags};
use super::freshness::{Stored, Times};
use super::request::{Asked, Context};
use super::rules::Rules;
use super::said::Said;
use super::storable::{self, Refusal, Storable};
use super::{date, fields, vary};
use crate::http::conditional::EntityTag;

/// The fields that make a request ask whether what is stored is still good (4.3.1): its tag, and its date. The client's own
/// ([`KEPT_BACK`](super::request::KEPT_BACK)) are taken away before.
#[must_use]
pub fn conditions(stored: &HeaderMap) -> [Option<(HeaderName, HeaderValue)>; 2] {
    let tag = stored.get(header::ETAG).filter(|value| EntityTag::parse(value.as_bytes()).is_some());
    let is_date = date::only(stored, &header::LAST_MODIFIED).is_some();
    let modified = stored.get(header::LAST_MODIFIED).filter(|_| is_date);
    [
        tag.map(|tag| (header::IF_NONE_MATCH, tag.clone())),
        modified.map(|date| (header::IF_MODIFIED_SINCE, date.clone())),
    ]
}

/// What an app's answer to such a request means.
#[derive(Debug)]
pub enum Validated {
    /// 304: what is stored is good. It is served with these fields, and stored again with them, unless the answer has
    /// brought something that forbids it: then it is served this once and dropped.
    Fresh {
        /// The fields of what is stored, as they are from now on.
        fields: HeaderMap,
        /// What the 304 has for the client whose request it was answered to, and nobody else: `Set-Cookie`, and what is named by
        /// `private="…"` and `no-cache="…"`.
        first: HeaderMap,
        /// What it is used by from now on, or why it is dropped.
        stored: Result<Stored, Refusal>,
    },
    /// 304 to somebody who speaks for himself alone: it has not said that it is for everybody, or the client wants nothing of it
    /// stored. What is stored is good for this client, with these fields, and stays as stale as it is for the others.
    Once {
        /// The fields of what is stored.
        fields: HeaderMap,
        /// As above.
        first: HeaderMap,
    },
    /// 304, but about something else than what is stored: it is dropped, and the app asked again without condition.
    Other,
    /// 500, 502, 503 or 504, and what is stored may be used instead (4.3.3, RFC 5861, 4). It stays.
    Failed,
    /// The same, and it may not be: the client gets the failure. What is stored stays.
    Passed,
    /// A new answer: it is stored instead. If it is not, what is stored goes if that is [of the
    /// response](Refusal::is_of_the_response), and else stays as stale as it is.
    New(Result<Storable, Refusal>),
}

/// Reads the answer to a request that had [`conditions`]. `asked`: the client's request; `stored` and `kept`: what is stored.
#[must_use]
pub fn validated(
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    (stored, kept): (&Stored, &HeaderMap),
    times: &Times,
    rules: &Rules,
) -> Validated {
    match status {
        StatusCode::NOT_MODIFIED => match relation(headers, kept) {
            Relation::Other => Validated::Other,
            _ if !speaks_for_all(asked, headers, times) => Validated::Once {
                fields: kept.clone(),
                first: first_alone(headers, &[&Said::of(headers, times.wall).control]),
            },
            relation => fresh(headers, (stored, kept), relation, times, rules),
        },
        _ if is_failure(status) => {
            if stored.may_replace_failure(rules, times.received) {
                Validated::Failed
            } else {
                Validated::Passed
            }
        }
        _ => Validated::New(storable::storable(asked, status, headers, times, rules)),
    }
}

/// Statuses instead of which something stale may be used (RFC 5861, 4).
#[must_use]
pub fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Whether what a client is told is told to everybody: it is nobody, or that is said.
fn speaks_for_all(asked: &Asked, headers: &HeaderMap, times: &Times) -> bool {
    let control = Said::of(headers, times.wall).control;
    !asked.forbids_storing()
        && (asked.is_anonymous() || (control.flags.has(Flags::PUBLIC) && !is_personal(headers, &control)))
}

/// Whether a response has something for its client alone.
fn is_personal(headers: &HeaderMap, control: &CacheControl) -> bool {
    headers.contains_key(header::SET_COOKIE) || control.flags.has(Flags::PRIVATE.and(Flags::NO_STORE))
}

/// What of a 304 its client gets, and nobody else.
fn first_alone(headers: &HeaderMap, said: &[&CacheControl]) -> HeaderMap {
    let mut first = HeaderMap::new();
    for (name, value) in headers {
        if *name == header::SET_COOKIE || said.iter().any(|control| control.keeps_back(name)) {
            first.append(name.clone(), value.clone());
        }
    }
    first
}

/// How a 304 stands to what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// It is about that.
    Same,
    /// It has nothing to be told by, or the strong tag of the weak one that we have asked by: what is stored is good, because we have
    /// asked for one thing, but its fields are not to be changed (4.3.4).
    Unsaid,
    /// It is about something else.
    Other,
}

fn relation(headers: &HeaderMap, kept: &HeaderMap) -> Relation {
    let tag = |of: &HeaderMap| of.get(header::ETAG).cloned();
    if let Some(new) = tag(headers) {
        let Some(old) = tag(kept) else { return Relation::Other };
        // One that is none at all: servers without quotes.
        let (Some(new), Some(old)) = (EntityTag::parse(new.as_bytes()), EntityTag::parse(old.as_bytes())) else {
            return if old == new { Relation::Same } else { Relation::Other };
        };
        return match (old.matches_weakly(new), new.is_weak() || old.matches_strongly(new)) {
            (true, true) => Relation::Same,
            // A strong one tells bytes that are the same from those that mean the same.
            (true, false) => Relation::Unsaid,
            (false, _) => Relation::Other,
        };
    }
    if !headers.contains_key(header::LAST_MODIFIED) {
        let has_any = kept.contains_key(header::ETAG) || kept.contains_key(header::LAST_MODIFIED);
        return if has_any { Relation::Unsaid } else { Relation::Same };
    }
    let modified = |of| date::only(of, &header::LAST_MODIFIED);
    if modified(headers) == modified(kept) { Relation::Same } else { Relation::Other }
}

fn fresh(
    headers: &HeaderMap,
    (stored, kept): (&Stored, &HeaderMap),
    relation: Relation,
    times: &Times,
    rules: &Rules,
) -> Validated {
    let date = Said::of(headers, times.wall).date;
    let merged = match relation {
        Relation::Same => merged(kept, headers),
        Relation::Unsaid | Relation::Other => kept.clone(),
    };
    // The facts are those of the fields as they are now, with what was said to the edge alone, now or before.
    let mut seen = merged.clone();
    for name in headers.keys().filter(|name| is_seen_only(name)) {
        seen.remove(name);
        headers.get_all(name).iter().for_each(|value| {
            seen.append(name.clone(), value.clone());
        });
    }
    // The age is that of the 304, also where its date is not taken over.
    if let Some(age) = headers.get(header::AGE) {
        seen.insert(header::AGE, age.clone());
    }
    if let Some(date) = crate::http::conditional::date_value(date) {
        seen.insert(header::DATE, date);
    }
    // An Expires that the 304 does not bring anew stays where it is, and is past.
    let mut said = Said::of(&seen, times.wall);
    let seconds = u32::try_from(stored.lifetime() / 1000).unwrap_or(u32::MAX);
    said.inherit(stored.source(), seconds);
    let forbids = said.control.clone();
    let status = StatusCode::from_u16(stored.status()).unwrap_or(StatusCode::OK);
    // What may not change the fields may still forbid to keep them.
    let own = Said::of(headers, times.wall);
    let varies = vary::is_within(headers, kept, rules);
    let facts = if let (Relation::Unsaid, Err(refusal)) = (relation, storable::forbidden(status, headers, &own)) {
        Err(refusal)
    } else if varies {
        // As if an anonymous client had got all of it: for whom it is has been decided when it was stored, and what the new
        // fields allow is in the facts.
        let anybody = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), rules);
        storable::decide(&anybody, status, &seen, said, times, rules).map(|storable| storable.stored)
    } else {
        Err(Refusal::VaryChanged)
    };
    let mut fields = merged;
    for name in forbids.unshared.iter().chain(&forbids.private) {
        fields.remove(name);
    }
    let first = first_alone(headers, &[&own.control, &forbids]);
    Validated::Fresh { fields, first, stored: facts }
}

/// What is not stored, and yet decides.
fn is_seen_only(name: &HeaderName) -> bool {
    *name == header::SET_COOKIE || *name == super::said::X_ACCEL_EXPIRES || *name == super::targeted::SURROGATE_CONTROL
}

/// What is stored, with the fields of a 304 instead of its own (3.2).
fn merged(kept: &HeaderMap, headers: &HeaderMap) -> HeaderMap {
    let control = Said::of(headers, 0).control;
    let new = fields::stored(headers, &control, 0);
    let mut merged = kept.clone();
    // What it varies by does not become less: see [`vary`].
    for name in new.keys().filter(|name| !fields::is_of_the_bytes(name) && **name != header::VARY) {
        if *name == header::DATE && !headers.contains_key(header::DATE) {
            continue;
        }
        merged.remove(name);
        for value in new.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    merged
}

/// What an app's answer to a HEAD says of the GET that is stored (4.3.5).
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// It is still the same. Its fields are not changed by it: see [`super`].
    Same,
    /// It is another one now: what is stored is stale, and is asked for again before it is used.
    Changed,
    /// Nothing.
    Nothing,
}

/// Holds the answer to a HEAD against what is stored. `length`: of the body that is stored.
#[must_use]
pub fn head(status: StatusCode, headers: &HeaderMap, kept: &HeaderMap, length: Option<u64>) -> Head {
    if status != StatusCode::OK {
        return Head::Nothing;
    }
    let differs = |name: &HeaderName| headers.get(name).is_some_and(|new| kept.get(name) != Some(new));
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_longer = said.zip(length).is_some_and(|(said, stored)| said != stored);
    if differs(&header::ETAG) || differs(&header::LAST_MODIFIED) || is_longer {
        return Head::Changed;
    }
    Head::Same
}
