//! The decisions, in tables: what is asked, what is answered, what is asked then, and what comes of it.
//!
//! Messages are written as `GET | name: value | …` and `200 | name: value | …`. In a value `{-60}` is the date a minute before
//! the response came ([`WALL`]).

mod age;
mod cache_control;
mod cache_status;
mod conditional;
mod cookies;
mod credentials;
mod fields;
mod freshness;
mod invalidate;
mod request;
mod stale;
mod storable;
mod targeted;
mod validate;
mod vary;

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::*;
use crate::cache::key::Key;
use crate::http::conditional::date_value;

/// When responses come, by the wall clock.
const WALL: u64 = 1_800_000_000;
/// The same by the steady clock, in milliseconds.
const STEADY: u64 = WALL * 1000;

/// A response without delay.
const AT_ONCE: Times = Times { requested: STEADY, received: STEADY, wall: WALL };

/// What was asked, answered, and asked again after so many seconds; what comes of it; and where that is written.
type Row<'a> = (&'a str, &'a str, &'a str, u64, &'a str, &'a str);

/// Checks a table, and says all rows that are wrong.
fn check(rules: &Rules, rows: &[Row<'_>]) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(first, response, second, after, expected, section)| {
            let second = if second.is_empty() { first } else { second };
            let outcome = outcome(rules, first, response, second, *after);
            (outcome != *expected).then(|| {
                format!("{section}: {first} -> {response} -> {second} after {after}: {outcome}, not {expected}")
            })
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// `not stored: why`, `vary-miss`, or what the second request is answered with.
fn outcome(rules: &Rules, first: &str, response: &str, second: &str, after: u64) -> String {
    let (method, fields) = request(first);
    let asked = Asked::of(&method, &fields, Context::default(), rules);
    let (status, headers) = answer(response);
    let storable = match storable(&asked, status, &headers, &AT_ONCE, rules) {
        Ok(storable) => storable,
        Err(refusal) => return format!("not stored: {}", refusal.as_str()),
    };
    let variant = |headers: &HeaderMap| {
        super::vary::variant(Key::from_bytes([0; 32]), &storable.vary, headers, rules, &mut Vec::new())
    };
    let key = variant(&fields);
    let (method, fields) = request(second);
    let asked = Asked::of(&method, &fields, Context::default(), rules);
    let found = Some(&storable.stored).filter(|_| variant(&fields) == key);
    words(serve(found, &asked, rules, STEADY + after * 1000)).to_owned()
}

fn words(serve: Serve) -> &'static str {
    match serve {
        Serve::Hit => "hit",
        Serve::Stale { refresh: true } => "stale, refreshed",
        Serve::Stale { refresh: false } => "stale",
        Serve::Revalidate(Why::Stale) => "revalidate",
        Serve::Revalidate(Why::NoCache) => "revalidate: no-cache",
        Serve::Revalidate(Why::Request) => "revalidate: request",
        Serve::Miss => "vary-miss",
        Serve::Bypass(Bypass::Method) => "bypass: method",
        Serve::Bypass(Bypass::Body) => "bypass: body",
        Serve::Bypass(Bypass::Upgrade) => "bypass: upgrade",
        Serve::Bypass(Bypass::Precondition) => "bypass: precondition",
        Serve::Bypass(Bypass::Credentials) => "bypass: credentials",
        Serve::Unavailable => "504",
    }
}

fn request(text: &str) -> (Method, HeaderMap) {
    let (method, fields) = parts(text);
    (Method::from_bytes(method.as_bytes()).unwrap(), fields)
}

fn answer(text: &str) -> (StatusCode, HeaderMap) {
    let (status, fields) = parts(text);
    (StatusCode::from_bytes(status.as_bytes()).unwrap(), fields)
}

fn fields_of(text: &str) -> HeaderMap {
    parts(&format!("x | {text}")).1
}

fn parts(text: &str) -> (&str, HeaderMap) {
    let mut pieces = text.split(" | ");
    let first = pieces.next().unwrap();
    let mut headers = HeaderMap::new();
    for field in pieces.filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once(':').unwrap();
        let value = with_dates(value.trim());
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    (first, headers)
}

/// `{-60}`: a date.
fn with_dates(value: &str) -> String {
    let Some((before, rest)) = value.split_once('{') else { return value.to_owned() };
    let (offset, after) = rest.split_once('}').unwrap();
    let seconds = WALL.saturating_add_signed(offset.parse().unwrap());
    format!("{before}{}{after}", date_value(seconds).unwrap().to_str().unwrap())
}

/// As lines, in the order of their names.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect();
    lines.sort();
    lines
}

/// A response to an anonymous GET, stored at once.
fn stored(response: &str, rules: &Rules) -> Storable {
    let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), rules);
    let (status, headers) = answer(response);
    storable(&asked, status, &headers, &AT_ONCE, rules).unwrap()
}

fn micro(ttl: u64) -> Rules {
    Rules { default_ttl: Some(Duration::from_secs(ttl)), ..Rules::default() }
}

fn public() -> Rules {
    Rules { shares_public: true, ..Rules::default() }
}

fn obedient() -> Rules {
    Rules { honours_clients: true, ..Rules::default() }
}

#[test]
fn what_is_looked_at_with_every_hit_is_small() {
    assert_eq!(size_of::<Stored>(), 40);
    assert!(Stored::LENGTH <= size_of::<Stored>());
    assert_eq!(size_of::<Asked>(), 16);
    assert_eq!(size_of::<Key>(), 32);
    assert_eq!(size_of::<Serve>(), 2);
    assert!(size_of::<CacheStatus>() <= 48);
}

#[test]
fn a_route_without_further_words_has_the_usual_rules() {
    let usual = format!("{:?}", Rules::default());
    assert_eq!(format!("{:?}", Rules::compile(&crate::config::RouteCache::default(), &[])), usual);
    let route = crate::config::RouteCache {
        default_ttl: Duration::from_secs(10),
        bypass_cookies: vec!["shop_session".into()],
        ignore_cookies: vec!["seen_*".into()],
        public: true,
        obey_clients: true,
        ..Default::default()
    };
    let rules = Rules::compile(&route, &[]);
    assert_eq!(rules.default_ttl, Some(Duration::from_secs(10)));
    assert!(rules.shares_public && rules.honours_clients);
    for name in ["sessionid", "shop_session"] {
        assert!(rules.bypass_cookies.has(name.as_bytes()), "{name}");
    }
    for name in ["_ga", "seen_it"] {
        assert!(rules.ignores(name.as_bytes()), "{name}");
    }
}
