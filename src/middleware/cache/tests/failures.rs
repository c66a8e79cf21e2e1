//! The app fails, or is not reached.

use super::*;

const FRESH: &str = "200 | cache-control: max-age=60";

#[test]
fn all_who_have_waited_share_a_failure_and_the_next_one_asks_anew() {
    paused(async || {
        for (reply, status, body) in [
            (page("500 => it is broken"), 500, Ok("it is broken".to_owned())),
            (page("503 | retry-after: 7"), 503, Ok(PAGE.to_owned())),
            (Reply::fails(Reason::HeadTimeout), 0, Err(Reason::HeadTimeout)),
            (Reply::fails(Reason::QueueTimeout), 0, Err(Reason::QueueTimeout)),
        ] {
            let reply = reply.after(WORK);
            let site = Site::new(move |count, _| if count == 1 { reply.clone() } else { page(FRESH) });
            let got = all(site.start_many(1000, "GET /a").await).await;
            assert_eq!(site.begun(), 1);
            assert!(got.iter().all(|got| got.status == status && got.body == body), "{status}");
            assert!(got.iter().all(|got| got.headers.contains_key("cache-status")));
            assert_eq!(site.get("GET /a").await.body(), PAGE);
        }
    });
}

#[test]
fn a_failure_is_counted_under_the_upstreams_name_once() {
    paused(async || {
        let site = Site::new(|_, request| {
            request.exchange.is_counted.set(true);
            Reply::fails(Reason::HeadTimeout).after(WORK)
        });
        let requests: Vec<_> = (0..3).map(|_| request("GET /a")).collect();
        let exchanges: Vec<_> = requests.iter().map(|request| Rc::clone(&request.exchange)).collect();
        let clients = requests.into_iter().map(|request| {
            let service = Rc::clone(&site.service);
            tokio::task::spawn_local(async move { finish(&service, request).await })
        });
        all(clients.collect()).await;
        assert!(exchanges.iter().all(|exchange| exchange.is_counted.get()));
    });
}

#[test]
fn what_a_failure_says_to_one_client_is_not_said_to_the_others() {
    paused(async || {
        for (asked, private) in [
            ("", "set-cookie: a=1"),
            ("", "cache-control: private"),
            ("", "cache-control: no-store"),
            ("", "cache-control: no-cache"),
            ("", "vary: accept-language"),
            ("", "vary: *"),
            ("", "content-encoding: gzip"),
            ("| cookie: csrftoken=1; theme=x", "x-page: debug"),
        ] {
            let text = format!("500 | {private} | retry-after: 7 | x-id: 1 => about you");
            let site = Site::new(move |_, _| page(&text).after(WORK));
            let first = site.start(&format!("GET /a {asked}"));
            settle().await;
            let others = all(site.start_many(2, "GET /a | cookie: theme=y").await).await;
            assert_eq!(first.await.unwrap().body(), "about you");
            for other in &others {
                assert_eq!((other.status, other.field("retry-after")), (500, Some("7")), "{private}");
                assert!(other.body().starts_with("Something went wrong."), "{private}: {}", other.body());
                assert!(other.field("x-id").is_none() && other.field("set-cookie").is_none(), "{private}");
            }
            assert_eq!(site.begun(), 1);
        }
    });
}

#[test]
fn a_place_that_one_client_is_refused_is_not_refused_to_the_others() {
    paused(async || {
        for reason in [Reason::QueueFull, Reason::SpoolFull, Reason::StreamsFull] {
            let refused = Reply::fails(reason).after(WORK);
            let site = Site::new(move |count, _| if count == 1 { refused.clone() } else { page(FRESH) });
            let first = site.start("GET /a");
            settle().await;
            let others = all(site.start_many(200, "GET /a").await).await;
            assert_eq!(first.await.unwrap().body, Err(reason));
            assert!(others.iter().all(|got| got.body == Ok(PAGE.to_owned())), "{reason}");
            assert_eq!(site.begun(), 2, "the next one has led");
        }
    });
}

#[test]
fn an_outage_that_is_known_is_told_as_a_hit() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => page("200 | cache-control: max-age=10, stale-if-error=1000 => good"),
            _ => page("503"),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        assert_eq!(
            site.get("GET /a").await.cache_status(),
            "hostler; fwd=stale; fwd-status=503; ttl=-1; detail=stale-if-error"
        );
        assert_eq!(site.get("GET /a").await.cache_status(), "hostler; hit; ttl=-1; detail=stale-if-error");
        assert_eq!(site.begun(), 2, "it was not asked again");
    });
}

#[test]
fn what_is_stale_stands_in_for_a_failure_of_any_kind() {
    paused(async || {
        for failure in [
            page("500"),
            page("502"),
            page("503"),
            page("504"),
            Reply::fails(Reason::HeadTimeout),
            Reply::fails(Reason::ConnectRefused),
            Reply::fails(Reason::QueueFull),
            Reply::fails(Reason::QueueTimeout),
            Reply::fails(Reason::StreamsFull),
        ] {
            let is_answer = matches!(failure.answer, Answer::Page(..));
            let site = Site::new(move |count, _| match count {
                1 => page("200 | cache-control: max-age=10, stale-if-error=100 => good"),
                _ => failure.clone().after(WORK),
            });
            site.get("GET /a").await;
            sleep(seconds(11)).await;
            let got = all(site.start_many(100, "GET /a").await).await;
            assert!(got.iter().all(|got| got.body() == "good" && got.verdict == CacheVerdict::Stale));
            assert!(got[0].cache_status().starts_with("hostler; fwd=stale;"), "{}", got[0].cache_status());
            assert_eq!(got[0].cache_status().contains("fwd-status=50"), is_answer);
            assert!(got[0].cache_status().ends_with("detail=stale-if-error"));
            assert_eq!(site.begun(), 2);
            // Beyond its window it does not.
            sleep(seconds(120)).await;
            assert_ne!(site.get("GET /a").await.verdict, CacheVerdict::Stale);
        }
    });
}

#[test]
fn while_refreshes_fail_not_every_request_asks_again() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => page("200 | cache-control: max-age=10, stale-if-error=1000 => good"),
            _ => page("503"),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        // A minute, with ten requests a second.
        for _ in 0..600 {
            assert_eq!(site.get("GET /a").await.body(), "good");
            sleep(millis(100)).await;
        }
        // Pauses of 1, 2, 4, 8, 16 and 32 seconds.
        assert!((6..=7).contains(&(site.begun() - 1)), "{}", site.begun());
    });
}

#[test]
fn what_must_be_revalidated_does_not_stand_in_for_a_failure() {
    paused(async || {
        let site = Site::with(stale_settings(), |count, _| match count {
            1 => page("200 | cache-control: max-age=10, must-revalidate | etag: \"1\""),
            _ => page("503 => down"),
        });
        site.get("GET /a").await;
        sleep(seconds(11)).await;
        let got = site.get("GET /a").await;
        assert_eq!((got.status, got.body(), got.verdict), (503, "down", CacheVerdict::Miss));
        assert!(site.app.seen.borrow()[1].2.contains_key("if-none-match"));
    });
}

#[test]
fn what_one_client_has_done_wrong_is_no_failure_of_the_app() {
    paused(async || {
        let site = Site::with(stale_settings(), |count, _| match count {
            1 => page("200 | cache-control: max-age=10, stale-if-error=1000 => good"),
            _ => Reply::fails(Reason::VarsTooLarge),
        });
        site.get("GET /a").await;
        sleep(seconds(60)).await;
        assert_eq!(site.get("GET /a").await.body, Err(Reason::VarsTooLarge));
    });
}

#[test]
fn a_failure_that_says_how_long_it_holds_is_stored() {
    paused(async || {
        let site = Site::new(|_, _| page("503 | cache-control: max-age=5"));
        site.get("GET /a").await;
        assert_eq!((site.get("GET /a").await.verdict, site.begun()), (CacheVerdict::Hit, 1));
    });
}

#[test]
fn what_was_purged_while_the_app_was_asked_does_not_stand_in_for_a_failure() {
    paused(async || {
        let site = Site::with(stale_settings(), |count, _| match count {
            1 => page("200 | cache-control: max-age=10, stale-while-revalidate=0, stale-if-error=1000 => purged"),
            _ => page("503 => down").after(WORK),
        });
        site.get("GET /a").await;
        sleep(seconds(60)).await;
        let clients = site.start_many(3, "GET /a").await;
        drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Hard));
        assert!(all(clients).await.iter().all(|got| got.body() == "down"));
    });
}

#[test]
fn where_every_request_fails_late_nobody_waits_for_more_than_one_that_began_after_he_came() {
    paused(async || {
        for reply in [page("503"), Reply::fails(Reason::HeadTimeout)] {
            let work = seconds(30);
            let site = Site::new(move |_, _| reply.clone().after(work));
            let begun = Instant::now();
            let got = all(site.start_many(100, "GET /a").await).await;
            assert!(got.iter().all(|got| got.status != 200));
            assert!(begun.elapsed() <= work + seconds(6), "{:?}", begun.elapsed());
            assert!(site.begun() <= 10, "{}", site.begun());
        }
    });
}
