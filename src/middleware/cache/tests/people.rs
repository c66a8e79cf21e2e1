//! Clients who are somebody.

use super::*;

const FRESH: &str = "200 | cache-control: max-age=60";

#[test]
fn who_is_somebody_neither_gets_nor_leaves_anything() {
    paused(async || {
        for somebody in ["cookie: sessionid=1", "authorization: Basic x", "cookie: a=1; messages=x"] {
            let site = Site::new(|count, _| page(&format!("{FRESH} => {count}")));
            let theirs = site.get(&format!("GET /a | {somebody}")).await;
            assert_eq!((theirs.body(), theirs.verdict), ("1", CacheVerdict::Bypass), "{somebody}");
            assert_eq!(theirs.cache_status(), "hostler; fwd=bypass; detail=credentials");
            assert_eq!(site.get("GET /a").await.body(), "2", "{somebody} has left nothing");
            assert_eq!(site.get(&format!("GET /a | {somebody}")).await.body(), "3", "nor gets anything");
            assert_eq!(site.get("GET /a").await.body(), "2");
        }
    });
}

#[test]
fn whom_the_edge_knows_is_somebody() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH));
        let known = request("GET /a");
        known.exchange.identity.tell(HeaderName::from_static("remote-user"), HeaderValue::from_static("ann"));
        assert_eq!(site.send(known).await.verdict, CacheVerdict::Bypass);
        let known = request("GET /a");
        known.exchange.credentials.set(Box::new(HeaderValue::from_static("Basic x"))).unwrap();
        assert_eq!(site.send(known).await.verdict, CacheVerdict::Bypass);
        let mut shown = request("GET /a");
        let mut connection = ConnectionInfo::new("443");
        connection.client_subject = Some("CN=ann".into());
        let target = shown.target.bytes();
        let host = shown.exchange.host.clone();
        shown.exchange = Rc::new(Exchange::new(Rc::new(connection), Protocol::Http11, Method::GET, target, host, None));
        assert_eq!(site.send(shown).await.verdict, CacheVerdict::Bypass);
        let guarded = Site::of(Cache::new(store(1 << 20)), &settings(), true, Box::new(|_, _| page(FRESH)));
        assert_eq!(guarded.get("GET /a").await.verdict, CacheVerdict::Bypass, "only those come here who were let in");
    });
}

#[test]
fn what_is_public_is_shared_where_the_route_says_so() {
    paused(async || {
        let settings = RouteCache { public: true, ..settings() };
        let site = Site::with(settings, |count, _| {
            page(&format!("200 | cache-control: max-age=60{} => {count}", if count == 1 { "" } else { ", public" }))
        });
        assert_eq!(site.get("GET /a | cookie: sessionid=1").await.body(), "1");
        assert_eq!(site.get("GET /a | cookie: sessionid=1").await.body(), "2");
        for somebody in ["cookie: sessionid=2", "authorization: x", "x-nobody: 1"] {
            let got = site.get(&format!("GET /a | {somebody}")).await;
            assert_eq!((got.body(), got.verdict), ("2", CacheVerdict::Hit), "{somebody}");
        }
    });
}

#[test]
fn what_is_stored_for_others_is_not_for_who_is_somebody() {
    paused(async || {
        let settings = RouteCache { public: true, stale_if_error: seconds(1000), ..settings() };
        let site = Site::with(settings, |count, _| if count == 1 { page(FRESH) } else { page("503 => down") });
        site.get("GET /a").await;
        let got = site.get("GET /a | cookie: sessionid=1").await;
        assert_eq!((got.body(), got.verdict), ("down", CacheVerdict::Bypass), "nor instead of a failure");
    });
}

#[test]
fn a_head_of_somebody_says_nothing_of_what_the_others_share() {
    paused(async || {
        let settings = RouteCache { public: true, obey_clients: true, ..settings() };
        let site = Site::with(settings, |_, request| match request.method {
            Method::HEAD => page("200 | etag: \"his own\" | content-length: 7 =>"),
            _ => page("200 | cache-control: max-age=60 | etag: \"1\""),
        });
        site.get("GET /a").await;
        for somebody in ["cookie: sessionid=1", "authorization: x", "cookie: sessionid=1 | cache-control: no-cache"] {
            site.get(&format!("HEAD /a | {somebody}")).await;
            assert_eq!(site.get("GET /a").await.verdict, CacheVerdict::Hit, "{somebody}");
        }
        assert_eq!(site.begun(), 4);
    });
}

#[test]
fn a_body_a_precondition_and_an_upgrade_have_nothing_to_do_with_the_cache() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH));
        site.get("GET /a").await;
        let mut fat = request("GET /a");
        fat.body = Body::Full(Bytes::from_static(b"x"));
        assert_eq!(site.send(fat).await.cache_status(), "hostler; fwd=bypass; detail=request-body");
        let got = site.get("GET /a | if-match: \"1\"").await;
        assert_eq!(got.cache_status(), "hostler; fwd=bypass; detail=precondition");
        assert!(site.app.seen.borrow()[2].2.contains_key("if-match"));
        let upgrading = request("GET /a");
        upgrading.exchange.upgrade.set(Some(crate::http::Upgrade::Malformed(Reason::UpgradeRefused, "")));
        assert_eq!(site.send(upgrading).await.verdict, CacheVerdict::Bypass);
        assert_eq!(site.get("POST /a").await.cache_status(), "hostler; fwd=method");
    });
}

#[test]
fn a_fat_get_is_neither_answered_from_the_cache_nor_poisons_it() {
    paused(async || {
        let site = Site::new(|count, _| page(&format!("{FRESH} => {count}")));
        let mut fat = request("GET /a");
        fat.body = Body::Full(Bytes::from_static(b"q=evil"));
        assert_eq!(site.send(fat).await.body(), "1");
        assert_eq!(site.get("GET /a").await.body(), "2");
    });
}

#[test]
fn cookies_that_count_have_pages_of_their_own_where_the_app_says_so() {
    paused(async || {
        let site = Site::new(|_, request| {
            let cookie = request.headers.get("cookie").map_or("none", |value| value.to_str().unwrap());
            page(&format!("200 | cache-control: max-age=60 | vary: cookie => {cookie}"))
        });
        for cookie in ["", "| cookie: csrftoken=1", "| cookie: csrftoken=2"] {
            let expected = cookie.strip_prefix("| cookie: ").unwrap_or("none");
            for _ in 0..2 {
                assert_eq!(site.get(&format!("GET /a {cookie}")).await.body(), expected);
            }
        }
        assert_eq!(site.get("GET /a | cookie: _ga=1").await.body(), "none", "analytics do not count");
        assert_eq!(site.begun(), 3);
    });
}

#[test]
fn a_hundred_at_once_with_tokens_of_their_own_never_get_anothers() {
    paused(async || {
        let site = Site::new(|_, request| {
            let cookie = request.headers.get("cookie").map_or("none", |value| value.to_str().unwrap());
            page(&format!("200 | cache-control: max-age=60 | vary: cookie => {cookie}")).after(WORK)
        });
        let clients: Vec<_> = (0..100)
            .map(|number| (number, site.start(&format!("GET /a | cookie: csrftoken={}", number % 10))))
            .collect();
        for (number, client) in clients {
            assert_eq!(client.await.unwrap().body(), format!("csrftoken={}", number % 10));
        }
    });
}
