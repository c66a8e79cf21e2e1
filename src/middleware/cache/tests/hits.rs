//! What is stored is the answer.

use super::*;

const FRESH: &str = "200 | cache-control: max-age=60";

#[test]
fn what_is_fresh_is_answered_without_the_app() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH));
        let first = site.get("GET /a").await;
        assert_eq!((first.status, first.body(), first.verdict), (200, PAGE, CacheVerdict::Miss));
        assert_eq!(first.cache_status(), "hostler; fwd=uri-miss; ttl=60; stored");
        assert_eq!(first.field("age"), None, "it has come from the app just now");
        sleep(seconds(20)).await;
        let second = site.get("GET /a").await;
        assert_eq!((second.status, second.body(), second.verdict), (200, PAGE, CacheVerdict::Hit));
        assert_eq!((second.cache_status(), second.field("age")), ("hostler; hit; ttl=40", Some("20")));
        assert_eq!((site.begun(), site.counted(CacheVerdict::Hit), site.counted(CacheVerdict::Miss)), (1, 1, 1));
        sleep(seconds(41)).await;
        site.get("GET /a").await;
        assert_eq!(site.begun(), 2);
    });
}

#[test]
fn a_hit_leaves_the_memory_of_its_requests_fields_for_the_next_head() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH));
        site.get("GET /a").await;
        let mut asked = request("GET /a");
        asked.headers.reserve(40);
        let room = asked.headers.capacity();
        // What others have left is not there any more.
        (0..1000).for_each(|_| drop(fields::take_map(0)));
        assert_eq!(site.send(asked).await.verdict, CacheVerdict::Hit);
        assert_eq!(fields::take_map(0).capacity(), room);
    });
}

#[test]
fn pages_are_told_apart_by_host_path_and_query() {
    paused(async || {
        let site = Site::new(|count, _| page(&format!("{FRESH} => {count}")));
        let requests = ["GET /a", "GET /b", "GET /a?x", "GET /a?y", "GET /a | host: other.example"];
        for (number, request) in requests.iter().enumerate() {
            assert_eq!(site.get(request).await.body(), (number + 1).to_string(), "{request}");
        }
        for (number, request) in requests.iter().enumerate() {
            assert_eq!(site.get(request).await.body(), (number + 1).to_string(), "{request}, again");
        }
        assert_eq!(site.get("GET /a | host: SHOP.example").await.body(), "1", "hosts have no case");
    });
}

#[test]
fn head_is_answered_from_get_and_does_not_store() {
    paused(async || {
        let site = Site::new(|_, request| {
            page(if request.method == Method::HEAD { "200 | cache-control: max-age=60 =>" } else { FRESH })
        });
        let miss = site.get("HEAD /a").await;
        assert_eq!((miss.verdict, site.app.seen.borrow()[0].0.clone()), (CacheVerdict::Miss, Method::HEAD));
        site.get("GET /a").await;
        assert_eq!(site.begun(), 2, "HEAD has left nothing");
        let hit = site.get("HEAD /a").await;
        let length = PAGE.len().to_string();
        assert_eq!((hit.verdict, hit.body(), hit.field("content-length")), (CacheVerdict::Hit, "", Some(&*length)));
    });
}

#[test]
fn conditions_and_ranges_of_clients_are_answered_here_and_kept_from_the_app() {
    paused(async || {
        let site = Site::new(|_, _| page("200 | cache-control: max-age=60 | etag: \"1\""));
        let first =
            site.get("GET /a | if-none-match: \"1\" | range: bytes=0-1 | if-range: \"1\" | if-modified-since: x").await;
        assert_eq!((first.status, first.body()), (304, ""), "the first one has it already");
        let seen = site.app.seen.borrow()[0].2.clone();
        for name in ["if-none-match", "range", "if-range", "if-modified-since"] {
            assert!(!seen.contains_key(name), "{name}");
        }
        let part = site.get("GET /a | range: bytes=0-5").await;
        assert_eq!((part.status, part.body(), part.verdict), (206, "a page", CacheVerdict::Hit));
        assert_eq!(site.get("GET /a | if-none-match: \"1\"").await.status, 304);
        let beyond = site.get("GET /a | range: bytes=100-").await;
        assert_eq!(beyond.body.unwrap_err(), Reason::RangeNotSatisfiable);
        assert_eq!(beyond.headers["cache-status"], "hostler; hit; ttl=60");
        assert_eq!(site.begun(), 1);
    });
}

#[test]
fn variants_are_stored_beside_each_other_and_their_names_only_grow() {
    paused(async || {
        let site = Site::new(|count, request| {
            let language = request.headers.get("accept-language").map_or("", |value| value.to_str().unwrap());
            // One answer forgets to say it.
            let vary = if count == 2 { "x-nothing: 1" } else { "vary: accept-language" };
            page(&format!("200 | cache-control: max-age=60 | {vary} => {language}"))
        });
        for round in 0..2 {
            for language in ["de", "fr", "en"] {
                let got = site.get(&format!("GET /a | accept-language: {language}")).await;
                assert_eq!(got.body(), language, "{round}");
                if round == 0 && language == "fr" {
                    assert!(got.cache_status().contains("fwd=vary-miss"), "{}", got.cache_status());
                }
            }
        }
        assert_eq!(site.begun(), 3);
    });
}

#[test]
fn only_if_cached_never_asks_the_app() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH));
        let got = site.get("GET /a | cache-control: only-if-cached").await;
        assert_eq!((got.body.as_ref().unwrap_err(), got.verdict), (&Reason::NotCached, CacheVerdict::Unavailable));
        assert_eq!(got.cache_status(), "hostler; detail=only-if-cached");
        let somebody = site.get("GET /a | cache-control: only-if-cached | authorization: x").await;
        assert_eq!(somebody.body.unwrap_err(), Reason::NotCached);
        assert_eq!(site.begun(), 0);
        site.get("GET /a").await;
        assert_eq!(site.get("GET /a | cache-control: only-if-cached").await.verdict, CacheVerdict::Hit);
    });
}

#[test]
fn a_cache_status_of_the_app_is_kept_and_what_was_said_to_this_cache_is_not() {
    paused(async || {
        let fields = "cache-status: origin; hit | surrogate-control: max-age=60 | cache-control: no-store";
        let site = Site::new(move |_, _| page(&format!("200 | {fields}")));
        let check = |got: Got| {
            let status: Vec<_> = got.headers.get_all("cache-status").iter().collect();
            assert_eq!(status[0], "origin; hit");
            assert!(status[1].to_str().unwrap().starts_with("hostler; "), "{status:?}");
            assert_eq!(got.field("surrogate-control"), None);
        };
        check(site.get("GET /a").await);
        let hit = site.get("GET /a").await;
        assert_eq!(hit.verdict, CacheVerdict::Hit, "Surrogate-Control is for this cache");
        check(hit);
        check(site.get("POST /a").await);
        let site = Site::new(move |_, _| page("200 | surrogate-control: no-store"));
        assert_eq!(site.get("GET /a").await.field("surrogate-control"), None, "also of what is not stored");
    });
}

#[test]
fn an_object_that_was_purged_softly_is_stale_and_hard_is_gone() {
    paused(async || {
        let site = Site::new(|count, _| page(&format!("{FRESH} | surrogate-key: t u => {count}")));
        site.get("GET /a").await;
        drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Soft));
        let again = site.get("GET /a").await;
        assert_eq!((again.body(), again.cache_status()), ("2", "hostler; fwd=stale; ttl=60; stored"));
        drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Hard));
        assert_eq!(site.get("GET /a").await.cache_status(), "hostler; fwd=uri-miss; ttl=60; stored");
        let count =
            site.cache.store().purge(crate::cache::store::Purge::Tag(b"u".as_slice().into()), Manner::Hard).await;
        assert_eq!(count.unwrap(), 1, "its tags are known");
        assert_eq!(site.get("GET /a").await.body(), "4");
    });
}

#[test]
fn a_micro_cache_keeps_what_says_nothing_for_a_while_for_anonymous_clients() {
    paused(async || {
        let settings = RouteCache { default_ttl: seconds(2), ..settings() };
        let site = Site::with(settings, |count, _| page(&format!("200 => {count}")));
        assert_eq!(site.get("GET /a").await.body(), "1");
        assert_eq!(site.get("GET /a").await.body(), "1");
        sleep(seconds(3)).await;
        assert_eq!(site.get("GET /a").await.body(), "2");
        assert_eq!(site.get("GET /a | cookie: sessionid=1").await.verdict, CacheVerdict::Bypass);
    });
}

#[test]
fn what_was_handed_on_is_stored_only_if_it_says_so_itself() {
    paused(async || {
        let settings = RouteCache { default_ttl: seconds(60), ..settings() };
        let site = Site::with(settings.clone(), |_, _| Reply { hops: 1, ..page("200") });
        site.get("GET /a").await;
        assert_eq!((site.get("GET /a").await.verdict, site.begun()), (CacheVerdict::Pass, 2));
        let site = Site::with(settings, |_, _| Reply { hops: 1, ..page(FRESH) });
        site.get("GET /a").await;
        assert_eq!(site.get("GET /a").await.verdict, CacheVerdict::Hit);
    });
}

#[test]
fn what_another_route_has_coded_for_one_client_is_nobody_elses() {
    paused(async || {
        let site = Site::new(|_, request| {
            // Another route's compression goes by what the exchange says.
            let takes = request.exchange.codings.get().unwrap();
            assert!(takes == crate::http::Codings::NONE, "nobody in particular is asked for");
            Reply { hops: 1, ..page(FRESH) }
        });
        let gzip = crate::http::Codings::of(&HeaderMap::from_iter([(
            http::header::ACCEPT_ENCODING,
            HeaderValue::from_static("gzip"),
        )]));
        let request = request("GET /a");
        request.exchange.codings.set(Some(gzip));
        site.send(request).await;
        let site = Site::with(RouteCache { public: true, ..settings() }, |_, _| Reply {
            hops: 1,
            ..page("200 | cache-control: max-age=60, public | content-encoding: gzip")
        });
        let request = self::request("GET /a | authorization: x");
        request.exchange.codings.set(Some(gzip));
        site.send(request).await;
        site.get("GET /a").await;
        assert_eq!(site.begun(), 2);
    });
}

#[test]
fn who_finds_it_stored_after_a_wait_is_told_of_a_hit() {
    paused(async || {
        let settings = RouteCache { public: true, ..settings() };
        let site = Site::with(settings, |count, _| match count {
            1 => Reply::of(Answer::Hangs),
            _ => page("200 | cache-control: max-age=60, public"),
        });
        let first = site.start("GET /a");
        settle().await;
        let second = site.start("GET /a");
        settle().await;
        // Somebody who waits for nobody.
        site.get("GET /a | authorization: x").await;
        for got in [first, second] {
            let got = got.await.unwrap();
            assert_eq!((got.cache_status(), got.verdict), ("hostler; hit; ttl=55", CacheVerdict::Collapsed));
        }
    });
}

#[test]
fn the_log_is_told_what_a_request_in_ones_place_has_met() {
    paused(async || {
        let site = Site::new(|_, request| {
            request.exchange.is_disbelieved.set(true);
            page(FRESH).after(WORK)
        });
        let requests = [request("GET /a"), request("GET /a")];
        let [leads, waits] = [0, 1].map(|at: usize| Rc::clone(&requests[at].exchange));
        let clients = requests.into_iter().map(|request| {
            let service = Rc::clone(&site.service);
            tokio::task::spawn_local(async move { finish(&service, request).await })
        });
        all(clients.collect()).await;
        assert!(leads.is_disbelieved.get(), "fields that were dropped");
        assert_eq!((leads.timings.get().wait, waits.timings.get().wait), (Duration::ZERO, WORK));
    });
}
