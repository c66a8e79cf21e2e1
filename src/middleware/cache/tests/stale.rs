//! What is stale is used, and refreshed.

use super::*;

fn swr(count: usize) -> Reply {
    page(&format!("200 | cache-control: max-age=10, stale-while-revalidate=1000 => {count}"))
}

#[test]
fn what_is_stale_is_answered_at_once_and_refreshed_by_one_request() {
    paused(async || {
        let site = Site::new(|count, _| swr(count).after(if count == 1 { Duration::ZERO } else { WORK }));
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        let begun = Instant::now();
        for _ in 0..100 {
            let got = site.get("GET /a").await;
            assert_eq!((got.body(), got.verdict), ("1", CacheVerdict::Stale));
            assert_eq!(got.cache_status(), "hostler; hit; ttl=-1; detail=stale");
        }
        assert!(begun.elapsed().is_zero());
        sleep(seconds(2)).await;
        let got = site.get("GET /a").await;
        assert_eq!((got.body(), got.verdict, site.begun()), ("2", CacheVerdict::Hit, 2));
        assert_eq!(*site.app.priorities.borrow(), [false, true], "behind all who wait");
    });
}

#[test]
fn a_refresh_asks_by_what_is_stored() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => page("200 | cache-control: max-age=10, stale-while-revalidate=100 | etag: \"1\""),
            _ => page("304 | etag: \"1\" | x-new: 1"),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        site.get("GET /a | if-none-match: \"old\"").await;
        sleep(SECOND).await;
        let got = site.get("GET /a").await;
        assert_eq!((got.body(), got.verdict, got.field("x-new")), (PAGE, CacheVerdict::Hit, Some("1")));
        assert_eq!(site.app.seen.borrow()[1].2["if-none-match"], "\"1\"");
    });
}

#[test]
fn a_refresh_that_fails_is_not_tried_again_at_once() {
    paused(async || {
        for failure in [page("500"), page("404"), Reply::fails(Reason::QueueFull)] {
            let site = Site::new(move |count, _| if count == 1 { swr(1) } else { failure.clone() });
            site.get("GET /a").await;
            sleep(seconds(11)).await;
            for _ in 0..30 {
                site.get("GET /a").await;
                sleep(millis(500)).await;
            }
            assert!(site.begun() <= 6, "{}", site.begun());
        }
    });
}

#[test]
fn what_was_purged_softly_stands_in_as_long_as_it_says_from_the_purge_on() {
    paused(async || {
        // In seconds: how long it is fresh, when it is purged, twice, and until when it may stand in.
        for (lifetime, purged, again, end) in [(100, 20, 25, 30), (10, 15, 18, 20)] {
            let first = format!("200 | cache-control: max-age={lifetime}, stale-while-revalidate=10");
            let site = Site::new(move |count, _| page(if count == 1 { &first } else { "503" }));
            site.get("GET /a").await;
            for second in 1..end + 10 {
                sleep(SECOND).await;
                if second == purged || second == again {
                    drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Soft));
                }
                let got = site.get("GET /a").await;
                let expected = match second {
                    _ if second < purged.min(lifetime) => CacheVerdict::Hit,
                    _ if second <= end => CacheVerdict::Stale,
                    _ => CacheVerdict::Miss,
                };
                let is_good = got.status == if second <= end { 200 } else { 503 };
                assert!(is_good, "{} at {second} of {end}", got.status);
                assert!(got.verdict == expected || second > end, "{:?} at {second} of {end}", got.verdict);
            }
        }
    });
}

#[test]
fn who_may_not_have_what_is_stale_does_not_wait_for_a_refresh_that_stands_last() {
    paused(async || {
        let settings = RouteCache { obey_clients: true, ..settings() };
        let site = Site::with(settings, |count, _| match count {
            // The refresh waits for a worker for a long time.
            2 => swr(2).queued(seconds(500)),
            _ => swr(count),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        assert_eq!(site.get("GET /a").await.verdict, CacheVerdict::Stale);
        settle().await;
        let begun = Instant::now();
        let got = site.get("GET /a | cache-control: no-cache").await;
        assert_eq!((got.body(), got.verdict), ("3", CacheVerdict::Miss));
        assert!(begun.elapsed() < SECOND);
        sleep(seconds(600)).await;
        assert_eq!(site.begun(), 2, "the refresh was of no use any more");
    });
}

#[test]
fn who_cannot_lead_others_starts_no_refresh_for_them() {
    paused(async || {
        let site = Site::with(RouteCache { public: true, ..settings() }, |_, _| {
            page("200 | cache-control: public, max-age=10, stale-while-revalidate=100")
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        for request in ["HEAD /a", "GET /a | authorization: x", "GET /a | cache-control: no-store"] {
            assert_eq!(site.get(request).await.verdict, CacheVerdict::Stale, "{request}");
        }
        sleep(SECOND).await;
        assert_eq!(site.begun(), 1);
        site.get("GET /a").await;
        sleep(SECOND).await;
        assert_eq!(site.begun(), 2);
    });
}

#[test]
fn a_refresh_whose_body_is_silent_does_not_hold_a_worker_for_ever() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => swr(1),
            _ => pieces("200 | cache-control: max-age=10", None),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        site.get("GET /a").await;
        sleep(seconds(5)).await;
        let pipe = site.pipe(0);
        pipe.send(Ok(Bytes::from_static(b"x"))).unwrap();
        assert!(!pipe.is_closed());
        sleep(seconds(30)).await;
        assert!(pipe.is_closed(), "nobody wants it");
        assert_eq!(site.cache.flights().count(), 0);
        assert_eq!(site.get("GET /a").await.body(), "1");
    });
}

#[test]
fn a_body_that_drips_for_nobody_ends_too() {
    paused(async || {
        let site = Site::new(|_, _| pieces("200 | cache-control: max-age=1000", None));
        let client = site.start("GET /a");
        settle().await;
        let pipe = site.pipe(0);
        // As long as somebody takes it, it may go on.
        for _ in 0..300 {
            pipe.send(Ok(Bytes::from_static(b"x"))).unwrap();
            sleep(SECOND).await;
        }
        assert!(!pipe.is_closed());
        client.abort();
        for _ in 0..100 {
            pipe.send(Ok(Bytes::from_static(b"x"))).unwrap();
            sleep(SECOND).await;
        }
        assert!(!pipe.is_closed(), "it may yet be stored");
        for _ in 0..30 {
            let _ = pipe.send(Ok(Bytes::from_static(b"x")));
            sleep(SECOND).await;
        }
        assert!(pipe.is_closed());
    });
}

#[test]
fn a_drain_does_not_wait_for_what_nobody_waits_for() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => swr(1),
            _ => swr(2).after(seconds(50)),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        site.get("GET /a").await;
        settle().await;
        let begun = Instant::now();
        crate::runtime::drain::errands().await;
        assert!(begun.elapsed().is_zero());
        let client = site.start("GET /b");
        settle().await;
        crate::runtime::drain::errands().await;
        assert_eq!(begun.elapsed(), seconds(50), "for what a client waits for it does");
        client.await.unwrap();
    });
}
