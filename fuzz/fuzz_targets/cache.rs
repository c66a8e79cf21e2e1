//! What clients and apps write for a cache. The first byte says which field.
//!
//! `Cache-Control`: what is read is read again from how it is written, and no word that is added takes a prohibition away.
//! `CDN-Cache-Control`: where it is read strictly and has no name twice, it says the same as when read leniently. `Cookie`: a session that
//! Django would see makes its client somebody, wherever it stands. `Location`: what is to be invalidated is a path of our own.

#![no_main]

use std::time::Duration;

use hostler::cache::key::Key;
use hostler::cache::policy::cache_control::Flags;
use hostler::cache::policy::invalidate::{Origin, targets};
use hostler::cache::policy::targeted::dictionary;
use hostler::cache::policy::{Asked, CacheControl, Context, Rules, Serve, Stored, Times, serve, storable, vary};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use libfuzzer_sys::fuzz_target;

const PROHIBITIONS: [Flags; 4] = [Flags::NO_STORE, Flags::NO_CACHE, Flags::PRIVATE, Flags::MUST_REVALIDATE];

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 5 {
        0 => control(bytes),
        1 => targeted(bytes),
        2 => cookie(bytes),
        3 => location(bytes),
        _ => response(bytes),
    }
});

fn control(bytes: &[u8]) {
    let read = CacheControl::parse(bytes);
    assert_eq!(CacheControl::parse(read.to_string().as_bytes()), read);
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    for word in ["no-store", "public", "max-age=5", "no-cache=\"a\""] {
        for lines in [[value.clone(), HeaderValue::from_static(word)], [HeaderValue::from_static(word), value.clone()]]
        {
            let both = CacheControl::of(&lines);
            assert!(PROHIBITIONS.iter().all(|flag| both.flags.has(*flag) || !read.flags.has(*flag)));
            assert!(both.max_age.is_some() || read.max_age.is_none());
            assert!(both.max_age <= read.max_age || read.max_age.is_none());
        }
    }
}

fn targeted(bytes: &[u8]) {
    let Some(strict) = dictionary(bytes) else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut names: Vec<&str> =
        text.split(',').map(|member| member.trim().split(['=', ';']).next().unwrap_or("")).collect();
    names.sort_unstable();
    // Parameters, lists, booleans and numbers below nothing are read here alone.
    if names.windows(2).all(|two| two[0] != two[1])
        && !text.contains([';', '?', '(', '\\', '"', '-', '%', ':', '@', '.', '/'])
    {
        assert_eq!(CacheControl::parse(bytes), strict);
    }
}

fn cookie(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("cookie", value);
    headers.insert("accept-encoding", HeaderValue::from_bytes(bytes).expect("it was one before"));
    let rules = Rules::default();
    let asked = Asked::of(&Method::GET, &headers, Context::default(), &rules);
    // As `django.http.cookie.parse_cookie` does.
    let text = String::from_utf8_lossy(bytes);
    let mut names = text.split(';').filter_map(|piece| piece.split_once('=')).map(|(name, _)| name.trim());
    assert!(!names.any(|name| name == "sessionid") || !asked.is_anonymous());
    let all = Key::from_bytes([7; Key::LENGTH]);
    let names = [HeaderName::from_static("accept-encoding"), HeaderName::from_static("cookie")];
    let mut scratch = Vec::new();
    let first = vary::variant(all, &names, &headers, &rules, &mut scratch);
    assert_eq!(vary::variant(all, &names, &headers, &rules, &mut scratch), first);
    if asked.has_cookies() {
        headers.remove("cookie");
        assert_ne!(vary::variant(all, &names, &headers, &rules, &mut scratch), first, "it is what others get");
    }
}

fn location(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("location", value);
    let origin = Origin { is_secure: true, host: "shop.example", path: "/a/b" };
    for target in targets(&origin, &headers) {
        let path = target.split('?').next().unwrap_or_default();
        assert!(path.starts_with('/'));
        assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
    }
}

/// A response of lines `name: value`.
fn response(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(32) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let rules = Rules { default_ttl: Some(Duration::from_secs(10)), heuristic_percent: 10, ..Rules::default() };
    let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), &rules);
    let times = Times { requested: 1_000_000, received: 1_001_000, wall: 1_800_000_000 };
    let Ok(stored) = storable(&asked, StatusCode::OK, &headers, &times, &rules) else { return };
    assert!(!stored.fields.contains_key("set-cookie") && !stored.fields.contains_key("x-accel-expires"));
    assert_eq!(Stored::from_bytes(&stored.stored.to_bytes()), Some(stored.stored));
    for now in [0, 1_001_000, 1_002_000, u64::MAX] {
        let served = serve(Some(&stored.stored), &asked, &rules, now);
        assert!(served != Serve::Hit || stored.stored.is_fresh(now));
    }
}
