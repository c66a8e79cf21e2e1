//! One request for many.

use super::*;

const FRESH: &str = "200 | cache-control: max-age=60";

#[test]
fn a_thousand_who_ask_at_once_are_one_request() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH).after(WORK));
        let begun = Instant::now();
        let got = all(site.start_many(1000, "GET /a").await).await;
        assert_eq!((site.begun(), begun.elapsed()), (1, WORK));
        assert!(got.iter().all(|got| got.body() == PAGE && got.status == 200));
        let collapsed: Vec<_> = got.iter().filter(|got| got.verdict == CacheVerdict::Collapsed).collect();
        assert_eq!(collapsed.len(), 999);
        assert_eq!(collapsed[0].cache_status(), "hostler; fwd=uri-miss; ttl=59; collapsed");
        assert_eq!(site.get("GET /a").await.verdict, CacheVerdict::Hit);
        assert_eq!(site.cache.flights().count(), 0);
    });
}

#[test]
fn a_leader_whose_client_leaves_is_seen_to_its_end_for_the_others() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH).after(WORK));
        let first = site.start("GET /a");
        settle().await;
        let others = site.start_many(100, "GET /a").await;
        first.abort();
        let got = all(others).await;
        assert_eq!(site.begun(), 1);
        assert!(got.iter().all(|got| got.body() == PAGE));
    });
}

#[test]
fn what_an_app_is_at_work_on_is_stored_though_its_client_has_left() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH).after(seconds(2)));
        let first = site.start("GET /a");
        settle().await;
        first.abort();
        sleep(seconds(3)).await;
        assert_eq!((site.get("GET /a").await.verdict, site.begun()), (CacheVerdict::Hit, 1));
    });
}

#[test]
fn who_leaves_the_waiting_room_before_anybody_else_wants_it_is_forgotten() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH).queued(seconds(2)));
        let first = site.start("GET /a");
        settle().await;
        first.abort();
        sleep(seconds(5)).await;
        assert_eq!((site.begun(), site.cache.flights().count()), (0, 0));
        // With somebody who waits it goes on.
        let first = site.start("GET /a");
        settle().await;
        let second = site.start("GET /a");
        settle().await;
        first.abort();
        assert_eq!((second.await.unwrap().body(), site.begun()), (PAGE, 1));
    });
}

#[test]
fn a_leader_that_hangs_costs_one_more_request_each_time_that_patience_is_over() {
    paused(async || {
        // The first three hang.
        let site = Site::new(|count, _| if count <= 3 { Reply::of(Answer::Hangs) } else { page(FRESH) });
        let begun = Instant::now();
        let mut clients = site.start_many(1000, "GET /a").await;
        let hanging = clients.remove(0);
        let got = all(clients).await;
        assert!(got.iter().all(|got| got.body() == PAGE));
        assert_eq!(site.begun(), 4);
        assert_eq!(begun.elapsed(), seconds(15), "as long as nothing is known of the route");
        assert_eq!(hanging.await.unwrap().body(), PAGE, "also who has led the first one is told");
    });
}

#[test]
fn patience_is_a_few_times_what_answers_take() {
    paused(async || {
        for (usual, slow, begun) in
            [(1500, 2900, 1), (1500, 3100, 2), (2000, 3900, 1), (2000, 4100, 2), (10, 2900, 1), (10, 3100, 2)]
        {
            let site = Site::new(move |_, request| {
                let is_slow = request.target.as_str() == "/slow";
                page(FRESH).after(millis(if is_slow { slow } else { usual }))
            });
            for number in 0..20 {
                site.get(&format!("GET /{number}")).await;
            }
            let got = all(site.start_many(3, "GET /slow").await).await;
            assert!(got.iter().all(|got| got.body() == PAGE));
            sleep(seconds(60)).await;
            assert_eq!(site.begun() - 20, begun, "{usual} {slow}");
        }
    });
}

#[test]
fn a_second_leader_that_still_waits_for_a_worker_is_spared_once_the_first_has_landed() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => page(FRESH).after(seconds(6)),
            _ => page(FRESH).queued(seconds(50)),
        });
        let clients = site.start_many(10, "GET /a").await;
        let got = all(clients).await;
        assert!(got.iter().all(|got| got.body() == PAGE));
        sleep(seconds(60)).await;
        assert_eq!((site.app.asked.get(), site.begun()), (2, 1));
    });
}

#[test]
fn a_leader_that_panics_is_succeeded() {
    paused(async || {
        let site = Site::new(|count, _| match count {
            1 => Reply::of(Answer::Panics).after(millis(100)),
            _ => page(FRESH).after(millis(100)),
        });
        let got = all(site.start_many(10, "GET /a").await).await;
        assert!(got.iter().all(|got| got.body() == PAGE));
        assert_eq!(site.begun(), 2);
    });
}

#[test]
fn who_may_not_lead_others_does_not() {
    paused(async || {
        for fields in ["cache-control: no-store", "authorization: x"] {
            let site = Site::with(RouteCache { public: true, ..settings() }, |_, _| {
                page("200 | cache-control: max-age=60, public").after(WORK)
            });
            let odd = site.start(&format!("GET /a | {fields}"));
            settle().await;
            let others = site.start_many(10, "GET /a").await;
            assert_eq!(odd.await.unwrap().body(), PAGE);
            assert!(all(others).await.iter().all(|got| got.body() == PAGE));
            assert_eq!(site.begun(), 2, "{fields}: one for the odd one, one for the others");
        }
    });
}

#[test]
fn those_with_another_variant_ask_for_their_own_once_it_is_known() {
    paused(async || {
        let site = Site::new(|_, request| {
            let language = request.headers["accept-language"].to_str().unwrap().to_owned();
            page(&format!("200 | cache-control: max-age=60 | vary: accept-language => {language}")).after(WORK)
        });
        let mut clients = Vec::new();
        for language in ["de", "fr", "en"] {
            clients.push((language, site.start_many(50, &format!("GET /a | accept-language: {language}")).await));
        }
        for (language, clients) in clients {
            assert!(all(clients).await.iter().all(|got| got.body() == language));
        }
        assert_eq!(site.begun(), 3);
    });
}

#[test]
fn followers_have_a_body_as_it_comes_and_a_body_cut_short_is_an_error_for_all() {
    paused(async || {
        let site = Site::new(|_, _| pieces(FRESH, None));
        let clients = site.start_many(5, "GET /a").await;
        let pipe = site.pipe(0);
        pipe.send(Ok(Bytes::from_static(b"one "))).unwrap();
        settle().await;
        let late = site.start("GET /a");
        settle().await;
        pipe.send(Ok(Bytes::from_static(b"two"))).unwrap();
        drop(pipe);
        site.app.pipes.borrow_mut().clear();
        assert!(all(clients).await.iter().all(|got| got.body() == "one two"));
        let late = late.await.unwrap();
        assert_eq!((late.body(), late.verdict, site.begun()), ("one two", CacheVerdict::Collapsed, 1));
        assert_eq!(site.get("GET /a").await.verdict, CacheVerdict::Hit);
        let clients = site.start_many(5, "GET /b").await;
        let pipe = site.pipe(0);
        pipe.send(Ok(Bytes::from_static(b"one "))).unwrap();
        pipe.send(Err(Reason::EofInBody)).unwrap();
        assert!(all(clients).await.iter().all(|got| got.body == Err(Reason::EofInBody)));
        let again = site.start("GET /b");
        settle().await;
        assert_eq!(site.begun(), 3, "nothing of it was stored");
        again.abort();
    });
}

#[test]
fn a_purge_that_comes_while_a_body_does_is_not_undone_by_it() {
    paused(async || {
        let site =
            Site::new(|count, _| if count == 1 { pieces(FRESH, None) } else { page(&format!("{FRESH} => new")) });
        let first = site.start("GET /a");
        settle().await;
        site.pipe(0).send(Ok(Bytes::from_static(b"old"))).unwrap();
        settle().await;
        drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Hard));
        assert_eq!(site.get("GET /a").await.body(), "new", "who comes after the purge has what came after it");
        site.app.pipes.borrow_mut().clear();
        assert_eq!(first.await.unwrap().body(), "old");
        assert_eq!(site.get("GET /a").await.body(), "new");
    });
}

#[test]
fn a_purge_between_question_and_answer_has_those_ask_anew_who_come_after_it() {
    paused(async || {
        let full = crowded_store(1 << 20, 16);
        for store in [&store(1 << 20), &full.0] {
            let site =
                Site::over(Arc::clone(store), settings(), |count, _| page(&format!("{FRESH} => {count}")).after(WORK));
            let before = site.start_many(10, "GET /a").await;
            drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Hard));
            let after = site.start_many(10, "GET /a").await;
            assert!(all(before).await.iter().all(|got| got.body() == "1"), "their wish is older than the purge");
            assert!(all(after).await.iter().all(|got| got.body() == "2"));
            assert_eq!(site.begun(), 2);
        }
    });
}

#[test]
fn a_purge_before_the_head_takes_nothing_from_those_who_have_asked_before_it() {
    paused(async || {
        let site = Site::new(|_, _| pieces(FRESH, None).after(WORK));
        let before = site.start_many(10, "GET /a").await;
        drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Hard));
        let after = site.start("GET /a");
        sleep(WORK + millis(1)).await;
        settle().await;
        site.pipe(0).send(Ok(Bytes::from_static(b"old"))).unwrap();
        sleep(WORK).await;
        settle().await;
        site.pipe(1).send(Ok(Bytes::from_static(b"new"))).unwrap();
        site.app.pipes.borrow_mut().clear();
        assert!(all(before).await.iter().all(|got| got.status == 200 && got.body() == "old"));
        assert_eq!(after.await.unwrap().body(), "new");
        assert_eq!((site.get("GET /a").await.body(), site.begun()), ("new", 2));
    });
}

#[test]
fn who_cannot_lead_others_has_his_answer_though_a_purge_comes_before_its_head() {
    paused(async || {
        let site = Site::with(RouteCache { public: true, ..settings() }, |_, _| {
            pieces("200 | cache-control: max-age=60, public", None).after(WORK)
        });
        let odd = site.start("GET /a | authorization: x");
        settle().await;
        drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Hard));
        sleep(WORK + millis(1)).await;
        settle().await;
        site.pipe(0).send(Ok(Bytes::from_static(b"his"))).unwrap();
        site.app.pipes.borrow_mut().clear();
        assert_eq!(odd.await.unwrap().body(), "his");
    });
}

#[test]
fn what_is_changed_all_the_time_is_waited_for_no_longer_than_two_answers() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH).after(millis(500)));
        let store = Arc::clone(site.cache.store());
        let changes = tokio::task::spawn_local(async move {
            loop {
                sleep(millis(300)).await;
                drop(store.invalidate(b"shop.example", b"/a", Manner::Hard));
            }
        });
        let mut clients = Vec::new();
        for _ in 0..40 {
            let client = site.start("GET /a");
            clients.push(tokio::task::spawn_local(async move {
                let begun = Instant::now();
                (client.await.unwrap(), begun.elapsed())
            }));
            sleep(millis(70)).await;
        }
        for client in clients {
            let (got, waited) = client.await.unwrap();
            assert_eq!(got.body(), PAGE);
            assert!(waited <= seconds(1), "{waited:?}");
        }
        assert!(site.begun() <= 10, "{}: nobody asks for himself", site.begun());
        changes.abort();
    });
}

#[test]
fn who_begins_a_flight_looks_once_more_whether_another_has_just_landed() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH));
        let Role::Keeping(caching) = &site.service.role else { panic!("it keeps") };
        let late = request("GET /a");
        let (asked, arrived) = (caching.asked(&late), site.cache.store().moment());
        let looked = lookup::look(caching, &late).await;
        // Between its look and its flight.
        site.get("GET /a").await;
        let (inner, caching) = (Rc::clone(&site.service.inner), Arc::clone(caching));
        let ask = Ask { inner, caching, request: late, asked, arrived };
        let response = ask.run(looked, Serve::Miss).await.unwrap();
        assert_eq!(read(response.into_body()).await.unwrap(), PAGE);
        assert_eq!((site.begun(), site.cache.flights().count()), (1, 0));
    });
}

#[test]
fn what_two_leaders_learn_of_what_answers_differ_by_is_not_forgotten() {
    paused(async || {
        let site = Site::new(|count, request| {
            let language = request.headers["accept-language"].to_str().unwrap().to_owned();
            let (vary, time) = if count == 1 { ("x-color", 60) } else { ("accept-language", 0) };
            page(&format!("200 | cache-control: max-age=600 | vary: {vary} => {language}")).after(seconds(time))
        });
        let first = site.start("GET /a | accept-language: de | x-color: red");
        settle().await;
        let second = site.start("GET /a | accept-language: de | x-color: red");
        assert_eq!(second.await.unwrap().body(), "de", "patience was over: it has led as well");
        first.await.unwrap();
        sleep(seconds(100)).await;
        assert_eq!(site.begun(), 2);
        assert_eq!(site.get("GET /a | accept-language: fr | x-color: red").await.body(), "fr");
    });
}

#[test]
fn what_has_landed_and_gone_stale_since_is_not_joined() {
    paused(async || {
        let site = Site::new(|_, _| pieces("200 | cache-control: max-age=5", None));
        let first = site.start("GET /a");
        settle().await;
        sleep(seconds(4)).await;
        let second = site.start("GET /a");
        settle().await;
        assert_eq!(site.begun(), 1, "it is fresh");
        sleep(seconds(2)).await;
        let third = site.start("GET /a");
        settle().await;
        assert_eq!(site.begun(), 2, "it is not any more");
        for number in 0..2 {
            site.pipe(number).send(Ok(Bytes::from(number.to_string()))).unwrap();
        }
        site.app.pipes.borrow_mut().clear();
        let bodies = [first.await, second.await, third.await].map(|got| got.unwrap().body.unwrap());
        assert_eq!(bodies, ["0", "0", "1"]);
    });
}

#[test]
fn without_room_in_the_store_one_request_is_still_enough() {
    paused(async || {
        let (full, _writers) = crowded_store(1 << 20, 16);
        let site = Site::over(Arc::clone(&full), settings(), |_, _| page(FRESH).after(WORK));
        let got = all(site.start_many(100, "GET /a").await).await;
        assert!(got.iter().all(|got| got.body() == PAGE));
        assert_eq!(site.begun(), 1);
        // Also for a body that comes in pieces.
        let site = Site::over(full, settings(), |_, _| pieces(FRESH, None));
        let clients = site.start_many(100, "GET /a").await;
        let pipe = site.pipe(0);
        for _ in 0..3 {
            pipe.send(Ok(Bytes::from_static(b"x"))).unwrap();
            settle().await;
        }
        drop(pipe);
        site.app.pipes.borrow_mut().clear();
        assert!(all(clients).await.iter().all(|got| got.body() == "xxx"));
        assert_eq!(site.begun(), 1);
    });
}

#[test]
fn fields_for_the_first_client_are_nobody_elses() {
    paused(async || {
        let site = Site::new(|_, _| {
            page("200 | cache-control: max-age=60, no-cache=\"set-cookie\" | set-cookie: a=1").after(WORK)
        });
        let got = all(site.start_many(10, "GET /a").await).await;
        assert_eq!(got.iter().filter(|got| got.field("set-cookie").is_some()).count(), 1);
        assert_eq!(got[0].field("set-cookie"), Some("a=1"));
        let hit = site.get("GET /a").await;
        assert_eq!((hit.verdict, hit.field("set-cookie")), (CacheVerdict::Hit, None));
    });
}

#[test]
fn the_log_of_who_has_led_tells_what_the_app_has_done() {
    paused(async || {
        let site = Site::new(|_, _| page(FRESH).after(WORK));
        let request = request("GET /a");
        let exchange = Rc::clone(&request.exchange);
        site.send(request).await;
        assert!(exchange.working_since.get().is_some());
        assert_eq!(exchange.cache.get(), Some(CacheVerdict::Miss));
        assert_eq!(crate::http::open_exchanges(), 0, "those of the edge's own are not counted");
    });
}
