//! What is not to be stored.

use super::*;

const FRESH: &str = "200 | cache-control: max-age=60";

#[test]
fn those_who_wait_for_what_is_not_to_be_stored_are_released_at_once() {
    paused(async || {
        for answer in [
            "200 | cache-control: no-store",
            "200 | cache-control: private, max-age=60",
            "200 | set-cookie: a=1 | cache-control: max-age=60",
            "200 | vary: * | cache-control: max-age=60",
            "200",
            "404",
        ] {
            let site = Site::new(move |_, _| page(answer).after(WORK));
            let begun = Instant::now();
            let got = all(site.start_many(100, "GET /a").await).await;
            assert!(got.iter().all(|got| got.body() == PAGE));
            assert_eq!((site.begun(), begun.elapsed()), (100, WORK * 2), "{answer}: one service time more");
        }
    });
}

#[test]
fn it_is_remembered_for_two_minutes_that_nobody_is_to_wait() {
    paused(async || {
        let site = Site::new(|_, _| page("200 | cache-control: no-store").after(WORK));
        let first = site.get("GET /a").await;
        assert_eq!(
            (first.verdict, first.cache_status()),
            (CacheVerdict::Miss, "hostler; fwd=uri-miss; detail=no-store")
        );
        let begun = Instant::now();
        let got = all(site.start_many(100, "GET /a").await).await;
        assert_eq!(begun.elapsed(), WORK);
        assert!(got.iter().all(|got| got.verdict == CacheVerdict::Pass));
        assert_eq!(got[0].cache_status(), "hostler; fwd=miss; detail=hit-for-miss");
    });
}

#[test]
fn what_is_remembered_ends_with_the_first_answer_that_may_be_stored() {
    paused(async || {
        let site = Site::new(|count, _| page(if count == 1 { "200 | cache-control: no-store" } else { FRESH }));
        site.get("GET /a").await;
        assert_eq!(site.get("GET /a").await.body(), PAGE);
        assert_eq!((site.get("GET /a").await.verdict, site.begun()), (CacheVerdict::Hit, 2));
    });
}

#[test]
fn conditions_and_ranges_reach_the_app_where_nothing_is_stored_anyway() {
    paused(async || {
        let site = Site::new(|count, _| {
            page(if count == 1 { "200 | cache-control: no-store" } else { "206 | content-range: bytes 0-1/2" })
        });
        site.get("GET /a").await;
        let part = site.get("GET /a | range: bytes=0-1").await;
        assert_eq!((part.status, part.verdict), (206, CacheVerdict::Pass));
        assert!(site.app.seen.borrow()[1].2.contains_key("range"));
    });
}

#[test]
fn what_one_odd_client_is_refused_changes_nothing_for_the_others() {
    paused(async || {
        let site = Site::new(|_, request| match request.headers.contains_key("x-odd") {
            true => page("400 => odd").after(WORK),
            false => page("200 | cache-control: max-age=10 | etag: \"1\" => good").after(WORK),
        });
        // With nothing stored: no marker.
        assert_eq!(site.get("GET /a | x-odd: 1").await.status, 400);
        let got = all(site.start_many(50, "GET /a").await).await;
        assert!(got.iter().all(|got| got.body() == "good"));
        assert_eq!(site.begun(), 2, "they still wait for each other");
        // With something stored that is stale.
        sleep(seconds(11)).await;
        assert_eq!(site.get("GET /a | x-odd: 1").await.status, 400);
        let again = site.get("GET /a").await;
        assert_eq!(again.body(), "good");
        assert!(site.app.seen.borrow()[3].2.contains_key("if-none-match"), "what is stored was not pushed out");
    });
}

#[test]
fn a_page_that_is_not_to_be_stored_any_more_takes_the_old_one_along() {
    paused(async || {
        let site = Site::with(stale_settings(), |count, _| match count {
            1 => page("200 | cache-control: max-age=10, stale-if-error=1000 => old"),
            2 => page("200 | cache-control: private => new"),
            _ => page("503 => down"),
        });
        site.get("GET /a").await;
        sleep(seconds(50)).await;
        assert_eq!(site.get("GET /a").await.body(), "new");
        assert_eq!(site.get("GET /a").await.body(), "down", "the old one does not stand in for it");
    });
}

#[test]
fn a_marker_does_not_make_what_variants_differ_by_forgotten() {
    paused(async || {
        let site = Site::new(|_, request| {
            let language = request.headers["accept-language"].to_str().unwrap().to_owned();
            let control = if language == "xx" { "no-store" } else { "max-age=60" };
            page(&format!("200 | vary: accept-language | cache-control: {control} => {language}"))
        });
        for _ in 0..2 {
            for language in ["de", "xx", "fr"] {
                assert_eq!(site.get(&format!("GET /a | accept-language: {language}")).await.body(), language);
            }
        }
        assert_eq!(site.begun(), 4, "de, fr, and xx twice");
    });
}

#[test]
fn an_older_answers_marker_does_not_push_out_a_younger_page() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            // Is slow, and then not to be stored.
            1 => page("200 | cache-control: no-store => slow").after(seconds(8)),
            _ => page(FRESH),
        });
        let slow = site.start("GET /a");
        settle().await;
        assert_eq!(site.get("GET /a").await.body(), PAGE, "another one has led meanwhile");
        slow.await.unwrap();
        sleep(seconds(10)).await;
        assert_eq!((site.get("GET /a").await.verdict, site.begun()), (CacheVerdict::Hit, 2));
    });
}

#[test]
fn an_app_that_has_its_clients_wait_for_news_holds_each_for_itself() {
    paused(async || {
        let site = Site::new(|_, _| Reply { phase: Some(Phase::Holding), ..page("200").after(seconds(50)) });
        let clients = site.start_many(20, "GET /a").await;
        assert_eq!(site.begun(), 20, "nobody waits for another's news");
        assert!(all(clients).await.iter().all(|got| got.body() == PAGE));
        let site = Site::new(|_, _| Reply { phase: Some(Phase::Responding), ..page(FRESH) });
        site.get("GET /a").await;
        assert_eq!((site.get("GET /a").await.verdict, site.begun()), (CacheVerdict::Miss, 2), "a stream that is held");
    });
}

#[test]
fn what_is_to_be_asked_for_each_time_is_asked_for_by_each() {
    paused(async || {
        let site = Site::new(|_, request| match request.headers.contains_key("if-none-match") {
            true => page("304 | etag: \"1\"").after(WORK),
            false => page("200 | cache-control: no-cache | etag: \"1\"").after(WORK),
        });
        site.get("GET /a").await;
        let begun = Instant::now();
        let got = all(site.start_many(20, "GET /a").await).await;
        assert!(got.iter().all(|got| got.body() == PAGE && got.verdict == CacheVerdict::Revalidated));
        assert_eq!((begun.elapsed(), site.begun()), (WORK, 21));
    });
}

#[test]
fn what_is_larger_than_the_store_takes_goes_to_each_as_it_is() {
    paused(async || {
        let site = Site::over(store(4 << 20), settings(), |_, _| pieces(FRESH, Some(8 << 20)));
        let first = site.start("GET /a");
        settle().await;
        let second = site.start("GET /a");
        settle().await;
        assert_eq!(site.begun(), 2, "its length was known");
        for number in 0..2 {
            site.pipe(number).send(Ok(Bytes::from(vec![b'x'; 8 << 20]))).unwrap();
        }
        site.app.pipes.borrow_mut().clear();
        assert_eq!(first.await.unwrap().body().len(), 8 << 20);
        assert_eq!(second.await.unwrap().body().len(), 8 << 20);
    });
}

#[test]
fn an_odd_client_among_those_who_wait_does_not_release_them() {
    paused(async || {
        let answer = |request: &Request| match request.headers.get("x-odd").map(HeaderValue::as_bytes) {
            Some(b"refused") => page("400 => odd"),
            Some(b"too large") => Reply::fails(Reason::VarsTooLarge),
            Some(_) => page("206 | content-range: bytes 0-1/2"),
            None => page(FRESH),
        };
        for odd in ["refused", "too large", "partial"] {
            let site = Site::new(move |_, request| answer(request).after(WORK));
            let first = site.start(&format!("GET /a | x-odd: {odd}"));
            settle().await;
            let got = all(site.start_many(100, "GET /a").await).await;
            assert!(got.iter().all(|got| got.body() == PAGE));
            assert_eq!(site.begun(), 2, "{odd}");
            first.await.unwrap();
        }
        // One with cookies, whose page may be his own.
        let settings = RouteCache { default_ttl: seconds(60), ..settings() };
        let site = Site::with(settings, |_, _| page("200").after(WORK));
        let first = site.start("GET /a | cookie: theme=dark");
        settle().await;
        assert!(all(site.start_many(100, "GET /a").await).await.iter().all(|got| got.body() == PAGE));
        assert_eq!(site.begun(), 2);
        first.await.unwrap();
    });
}

#[test]
fn who_gets_nothing_from_each_other_does_not_wait_again() {
    paused(async || {
        let settings = || RouteCache { default_ttl: seconds(60), ..settings() };
        for (asked, answer, is_of_cookies) in [
            ("GET /a", "401", false),
            // It was stale before it had come.
            ("GET /a", "200 | cache-control: max-age=1 | age: 5", false),
            // A cookie of which the app says nothing.
            ("GET /a | cookie: consent=1", "200", true),
            // It has to be asked for again at once.
            ("GET /a", "200 | cache-control: max-age=0 | etag: \"1\"", false),
        ] {
            let site = Site::with(settings(), move |_, _| page(answer).after(WORK));
            let first = Instant::now();
            all(site.start_many(20, asked).await).await;
            assert!(first.elapsed() > WORK, "{answer}: they wait for the first");
            let second = Instant::now();
            all(site.start_many(20, asked).await).await;
            assert_eq!((second.elapsed(), site.begun()), (WORK, 40), "{answer}");
            let others = all(site.start_many(20, "GET /a").await).await;
            assert_eq!(others.len(), 20);
            assert_eq!(site.begun(), if is_of_cookies { 41 } else { 60 }, "{answer}");
            // It is tried again.
            sleep(seconds(5)).await;
            let third = Instant::now();
            all(site.start_many(20, asked).await).await;
            assert_eq!(third.elapsed() > WORK, !is_of_cookies, "{answer}");
        }
    });
}

#[test]
fn those_who_may_use_what_another_gets_wait_for_each_other_again() {
    paused(async || {
        let site =
            Site::new(|count, _| page(if count <= 20 { "401" } else { "200 | cache-control: max-age=1" }).after(WORK));
        all(site.start_many(20, "GET /a").await).await;
        sleep(seconds(5)).await;
        for begun in [21, 22] {
            all(site.start_many(20, "GET /a").await).await;
            assert_eq!(site.begun(), begun);
            sleep(seconds(5)).await;
        }
    });
}

#[test]
fn who_has_asked_for_a_part_gets_it_also_of_what_is_not_kept() {
    paused(async || {
        for text in ["200 | etag: \"1\" => 0123456789", "200 | cache-control: no-store | etag: \"1\" => 0123456789"] {
            for (asked, status, body) in [
                ("range: bytes=2-4", 206, Ok("234".to_owned())),
                ("range: bytes=2-4 | if-range: \"0\"", 200, Ok("0123456789".to_owned())),
                ("if-none-match: \"1\"", 304, Ok(String::new())),
                ("range: bytes=20-", 0, Err(Reason::RangeNotSatisfiable)),
            ] {
                let site = Site::new(move |_, _| page(text));
                let got = site.get(&format!("GET /a | {asked}")).await;
                assert!(!site.app.seen.borrow()[0].2.contains_key("range"), "all of it was asked for");
                assert_eq!((got.status, got.body), (status, body), "{text}: {asked}");
            }
        }
    });
}

#[test]
fn if_all_are_odd_they_are_released_after_a_few() {
    paused(async || {
        let site = Site::new(|_, _| page("400").after(WORK));
        let begun = Instant::now();
        let got = all(site.start_many(100, "GET /a").await).await;
        assert!(got.iter().all(|got| got.status == 400));
        assert_eq!((site.begun(), begun.elapsed()), (100, WORK * 5));
    });
}
