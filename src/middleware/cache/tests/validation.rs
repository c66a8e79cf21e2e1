//! What is stored is asked for again.

use super::*;

const TAGGED: &str = "200 | cache-control: max-age=10 | etag: \"1\" | x-own: old";

#[test]
fn a_304_makes_what_is_stored_fresh_for_all() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => page(TAGGED),
            _ => page("304 | etag: \"1\" | cache-control: max-age=20 | x-own: new").after(WORK),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        let got = all(site.start_many(100, "GET /a").await).await;
        assert!(got.iter().all(|got| got.status == 200 && got.body() == PAGE && got.field("x-own") == Some("new")));
        assert_eq!(got[0].verdict, CacheVerdict::Revalidated);
        assert_eq!(got[0].cache_status(), "hostler; fwd=stale; fwd-status=304; ttl=19; stored");
        assert!(got[1..].iter().all(|got| got.verdict == CacheVerdict::Collapsed));
        let hit = site.get("GET /a").await;
        assert_eq!((hit.verdict, hit.field("x-own"), site.begun()), (CacheVerdict::Hit, Some("new"), 2));
        let seen = site.app.seen.borrow()[1].2.clone();
        assert_eq!(seen["if-none-match"], "\"1\"");
    });
}

#[test]
fn a_client_that_has_it_gets_304_after_the_app_has_said_so() {
    paused(async || {
        let site = Site::new(|count, _| if count == 1 { page(TAGGED) } else { page("304 | etag: \"1\"") });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        let got = site.get("GET /a | if-none-match: \"1\"").await;
        assert_eq!((got.status, got.verdict), (304, CacheVerdict::Revalidated));
        sleep(seconds(11)).await;
        let part = site.get("GET /a | range: bytes=0-5").await;
        assert_eq!((part.status, part.body()), (206, "a page"));
    });
}

#[test]
fn fields_of_a_304_for_the_first_client_are_nobody_elses() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => page("200 | cache-control: max-age=10, no-cache=\"set-cookie\" | etag: \"1\""),
            _ => page("304 | etag: \"1\" | cache-control: max-age=10, no-cache=\"set-cookie\" | set-cookie: a=1")
                .after(WORK),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        let got = all(site.start_many(5, "GET /a").await).await;
        let cookies: Vec<_> = got.iter().map(|got| got.field("set-cookie")).collect();
        assert_eq!(cookies, [Some("a=1"), None, None, None, None]);
        assert_eq!((site.get("GET /a").await.verdict, site.begun()), (CacheVerdict::Hit, 2));
    });
}

#[test]
fn a_304_about_something_else_has_all_of_it_asked_for() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => page(TAGGED),
            2 => page("304 | etag: \"2\""),
            _ => page("200 | cache-control: max-age=10 | etag: \"2\" => new"),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        let got = site.get("GET /a").await;
        assert_eq!((got.status, got.body()), (200, "new"));
        assert!(!site.app.seen.borrow()[2].2.contains_key("if-none-match"));
        assert_eq!(site.get("GET /a").await.body(), "new");
    });
}

#[test]
fn a_304_that_forbids_storing_is_served_once_and_what_is_stored_goes() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => page(TAGGED),
            2 => page("304 | etag: \"1\" | cache-control: no-store"),
            _ => page("200 | cache-control: no-store => new"),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        assert_eq!(site.get("GET /a").await.body(), PAGE);
        let got = site.get("GET /a").await;
        assert_eq!((got.body(), got.verdict), ("new", CacheVerdict::Pass));
    });
}

#[test]
fn a_new_answer_is_stored_instead() {
    paused(async || {
        let site =
            Site::new(|count, _| page(&format!("200 | cache-control: max-age=10 | etag: \"{count}\" => {count}")));
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        let got = site.get("GET /a").await;
        assert_eq!((got.body(), got.cache_status()), ("2", "hostler; fwd=stale; ttl=10; stored"));
        assert_eq!(site.get("GET /a").await.body(), "2");
    });
}

#[test]
fn a_304_to_who_speaks_for_himself_alone_is_good_for_him() {
    paused(async || {
        let settings = RouteCache { public: true, ..settings() };
        let site = Site::with(settings, |count, _| match count {
            1 => page("200 | cache-control: public, max-age=10 | etag: \"1\""),
            _ => page("304 | etag: \"1\" | cache-control: max-age=1000"),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        let his = site.get("GET /a | authorization: x").await;
        assert_eq!((his.body(), his.verdict), (PAGE, CacheVerdict::Revalidated));
        assert!(!his.cache_status().contains("stored"), "{}", his.cache_status());
        assert_eq!(site.get("GET /a").await.cache_status(), "hostler; fwd=stale; fwd-status=304; ttl=1000; stored");
    });
}

#[test]
fn clients_may_ask_for_what_is_newer_where_the_route_says_so() {
    paused(async || {
        for (obey, begun) in [(false, 1), (true, 4)] {
            let settings = RouteCache { obey_clients: obey, ..settings() };
            let site = Site::with(settings, |_, _| page("200 | cache-control: max-age=100"));
            site.get("GET /a").await;
            for wish in ["cache-control: no-cache", "cache-control: max-age=0", "pragma: no-cache"] {
                sleep(SECOND).await;
                let got = site.get(&format!("GET /a | {wish}")).await;
                let status = if obey { "hostler; fwd=request; ttl=100; stored" } else { "hostler; hit; " };
                assert!(got.cache_status().starts_with(status), "{wish}: {}", got.cache_status());
            }
            assert_eq!(site.begun(), begun);
        }
    });
}

#[test]
fn those_who_reload_at_once_share_what_is_newer() {
    paused(async || {
        let settings = RouteCache { obey_clients: true, ..settings() };
        let site = Site::with(settings, |_, _| page("200 | cache-control: max-age=100").after(WORK));
        site.get("GET /a").await;
        let got = all(site.start_many(100, "GET /a | cache-control: no-cache").await).await;
        assert!(got.iter().all(|got| got.body() == PAGE));
        assert_eq!(site.begun(), 2);
    });
}

#[test]
fn a_head_that_differs_makes_what_is_stored_stale() {
    paused(async || {
        for (head, begun) in
            [("200 | etag: \"1\" =>", 3), ("200 | etag: \"2\" =>", 4), ("200 | content-length: 3 =>", 4)]
        {
            let settings = RouteCache { obey_clients: true, ..settings() };
            let site = Site::with(settings, move |_, request| {
                page(if request.method == Method::HEAD {
                    head
                } else {
                    "200 | cache-control: max-age=100 | etag: \"1\""
                })
            });
            site.get("GET /a").await;
            site.get("HEAD /a | cache-control: no-cache").await;
            assert_eq!(site.begun(), 2);
            site.get("GET /a").await;
            site.get("GET /b").await;
            assert_eq!(site.begun(), begun, "{head}");
        }
    });
}
