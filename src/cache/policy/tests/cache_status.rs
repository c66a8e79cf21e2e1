//! What the client is told (RFC 9211).

use super::*;
use crate::cache::policy::cache_status::Forward;

#[test]
fn a_member_tells_what_became_of_a_request() {
    let none = i64::MIN;
    for (serve, is_known, expected) in [
        (Serve::Hit, true, "hostler; hit; ttl=50"),
        (Serve::Stale { refresh: true }, true, "hostler; hit; ttl=50; detail=stale"),
        (Serve::Stale { refresh: false }, true, "hostler; hit; ttl=50; detail=stale"),
        (Serve::Miss, false, "hostler; fwd=uri-miss"),
        (Serve::Miss, true, "hostler; fwd=vary-miss"),
        (Serve::Revalidate(Why::Stale), true, "hostler; fwd=stale"),
        (Serve::Revalidate(Why::NoCache), true, "hostler; fwd=stale; detail=no-cache"),
        (Serve::Revalidate(Why::Request), true, "hostler; fwd=request"),
        (Serve::Bypass(Bypass::Method), false, "hostler; fwd=method"),
        (Serve::Bypass(Bypass::Credentials), true, "hostler; fwd=bypass; detail=credentials"),
        (Serve::Bypass(Bypass::Body), false, "hostler; fwd=bypass; detail=request-body"),
        (Serve::Bypass(Bypass::Upgrade), false, "hostler; fwd=bypass; detail=upgrade"),
        (Serve::Bypass(Bypass::Precondition), false, "hostler; fwd=bypass; detail=precondition"),
        (Serve::Unavailable, false, "hostler; detail=only-if-cached"),
    ] {
        assert_eq!(CacheStatus::of(serve, is_known, 50).value(), expected);
    }
    for (status, expected) in [
        (CacheStatus::hit(-7), "hostler; hit; ttl=-7"),
        (CacheStatus::hit(none), "hostler; hit; ttl=-9223372036854775808"),
        (CacheStatus::hit(0).collapsed(), "hostler; hit; ttl=0; collapsed"),
        (CacheStatus::forwarded(Forward::UriMiss).stored(Ok(())), "hostler; fwd=uri-miss; stored"),
        (
            CacheStatus::forwarded(Forward::UriMiss).stored(Err(Refusal::SetCookie)),
            "hostler; fwd=uri-miss; detail=set-cookie",
        ),
        (
            CacheStatus::of(Serve::Bypass(Bypass::Credentials), true, 0).stored(Err(Refusal::Unsaid)),
            "hostler; fwd=bypass; detail=credentials",
        ),
        (
            CacheStatus::forwarded(Forward::Stale).answered(304).stored(Ok(())).collapsed(),
            "hostler; fwd=stale; fwd-status=304; stored; collapsed",
        ),
        (CacheStatus::forwarded(Forward::Partial), "hostler; fwd=partial"),
        (CacheStatus::forwarded(Forward::Miss), "hostler; fwd=miss"),
    ] {
        assert_eq!(status.value(), expected);
    }
}

#[test]
fn a_hit_tells_its_own_time_whatever_the_hits_before_it_have_told() {
    let times = [50, 114, 50, -50, -14, 0, 64, 1, 0, i64::MIN, i64::MAX];
    for ttl in times.into_iter().chain(-300..300).chain(times) {
        for _ in 0..2 {
            assert_eq!(CacheStatus::hit(ttl).value(), format!("hostler; hit; ttl={ttl}"));
        }
        let stale = CacheStatus { detail: Some("stale"), ..CacheStatus::hit(ttl) };
        assert_eq!(stale.value(), format!("hostler; hit; ttl={ttl}; detail=stale"));
        assert_eq!(CacheStatus::hit(ttl).collapsed().value(), format!("hostler; hit; ttl={ttl}; collapsed"));
    }
}

#[test]
fn every_refusal_has_a_word_of_its_own_that_is_a_token() {
    let all = [
        Refusal::Status,
        Refusal::Off,
        Refusal::NoStore,
        Refusal::Private,
        Refusal::SetCookie,
        Refusal::VaryAny,
        Refusal::VaryNames,
        Refusal::VaryChanged,
        Refusal::Stream,
        Refusal::Unsaid,
        Refusal::Useless,
        Refusal::Aged,
        Refusal::Method,
        Refusal::Body,
        Refusal::RequestNoStore,
        Refusal::Credentials,
        Refusal::Cookies,
    ];
    let words: std::collections::HashSet<&str> = all.iter().map(|refusal| refusal.as_str()).collect();
    assert_eq!(words.len(), all.len());
    // sf-token (RFC 9651, 3.3.4).
    assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
}
