//! Requests that change things.

use super::*;

const FRESH: &str = "200 | cache-control: max-age=600";

/// A site that answers GET with how often it was asked, and other methods so.
fn site(reply: impl Fn() -> Reply + 'static) -> Site {
    Site::new(move |count, request| match request.method {
        Method::GET => page(&format!("{FRESH} => {count}")),
        _ => reply(),
    })
}

async fn is_stored(site: &Site, target: &str) -> bool {
    site.get(&format!("GET {target} | cache-control: only-if-cached")).await.verdict == CacheVerdict::Hit
}

#[test]
fn what_a_successful_unsafe_request_changes_is_forgotten() {
    paused(async || {
        for method in ["POST", "PUT", "PATCH", "DELETE", "MADEUP"] {
            let site = site(|| page("303 | location: /b?x | content-location: http://shop.example/c"));
            for target in ["/a", "/b?x", "/c", "/d", "/a?x"] {
                site.get(&format!("GET {target}")).await;
            }
            let got = site.get(&format!("{method} /a")).await;
            assert_eq!((got.verdict, got.cache_status()), (CacheVerdict::Bypass, "hostler; fwd=method"));
            for (target, is_left) in [("/a", false), ("/b?x", false), ("/c", false), ("/d", true), ("/a?x", true)] {
                assert_eq!(is_stored(&site, target).await, is_left, "{method} {target}");
            }
        }
    });
}

#[test]
fn safe_methods_and_refusals_change_nothing() {
    paused(async || {
        for (request, reply) in [
            ("OPTIONS /a", page("200")),
            ("POST /a", page("400")),
            ("POST /a", page("500")),
            ("POST /a", Reply::fails(Reason::BodyTooLarge)),
        ] {
            let before_work = matches!(reply.answer, Answer::Fails(_));
            let site = site(move || reply.clone());
            site.get("GET /a").await;
            let request = self::request(request);
            if before_work {
                // It was refused before a worker had it.
                let layer = CacheLayer::watching(Arc::clone(&site.cache));
                let service = layer.layer(Rc::new(Refuses));
                assert!(service.call(request).await.is_err());
            } else {
                site.send(request).await;
            }
            assert!(is_stored(&site, "/a").await);
        }
    });
}

/// Refuses everything before anybody has begun.
struct Refuses;

impl Service for Refuses {
    type Error = Error;

    async fn call(&self, _: Box<Request>) -> Result<Response, Error> {
        Err(Error::new(Reason::BodyTooLarge))
    }
}

#[test]
fn what_others_origins_are_told_of_stays() {
    paused(async || {
        let site = site(|| page("201 | location: http://other.example/b"));
        site.get("GET /b").await;
        site.get("GET /b | host: other.example").await;
        site.get("POST /a").await;
        assert!(is_stored(&site, "/b").await && is_stored(&site, "/b | host: other.example").await);
    });
}

#[test]
fn the_outcome_is_waited_for_though_the_client_has_left() {
    paused(async || {
        let site = site(|| page("200").after(seconds(5)));
        site.get("GET /a").await;
        let client = site.start("POST /a");
        settle().await;
        client.abort();
        settle().await;
        assert!(is_stored(&site, "/a").await, "nothing has changed yet");
        sleep(seconds(3)).await;
        // What is stored now is what was there before.
        drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Hard));
        site.get("GET /a").await;
        sleep(seconds(3)).await;
        assert!(!is_stored(&site, "/a").await);
    });
}

#[test]
fn what_cannot_be_known_counts_as_done() {
    paused(async || {
        for reply in [Reply::fails(Reason::HeadTimeout), Reply::of(Answer::Hangs)] {
            let hangs = matches!(reply.answer, Answer::Hangs);
            let site = site(move || reply.clone());
            site.get("GET /a").await;
            let client = site.start("POST /a");
            settle().await;
            if hangs {
                client.abort();
                sleep(seconds(31)).await;
            }
            assert!(!is_stored(&site, "/a").await);
        }
    });
}

#[test]
fn what_cannot_be_known_counts_as_done_later_as_well() {
    paused(async || {
        let site = site(|| Reply::fails(Reason::HeadTimeout));
        site.get("GET /a").await;
        site.get("POST /a").await;
        // The worker is at it still: this is what was there before.
        site.get("GET /a").await;
        assert!(is_stored(&site, "/a").await);
        sleep(seconds(31)).await;
        assert!(!is_stored(&site, "/a").await);
        site.get("GET /a").await;
        sleep(seconds(60)).await;
        assert!(!is_stored(&site, "/a").await);
        site.get("GET /a").await;
        sleep(seconds(120)).await;
        assert!(is_stored(&site, "/a").await, "but not for ever");
    });
}

/// Its first worker is lost at work; then it goes on so.
enum Afterwards {
    WaitsForAnother,
    ReachesNobody,
    IsHandedOn,
    IsHeld,
}

impl Service for Afterwards {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let exchange = request.exchange;
        exchange.phase.set(Phase::Working);
        sleep(SECOND).await;
        exchange.working_since.set(None);
        match self {
            Self::WaitsForAnother => {
                exchange.phase.set(Phase::Waiting);
                std::future::pending().await
            }
            Self::ReachesNobody => {
                exchange.phase.set(Phase::Connecting);
                sleep(SECOND).await;
                Err(Error { retry: crate::error::Retry::Unsent, ..Error::new(Reason::ConnectTimeout) })
            }
            Self::IsHandedOn => {
                exchange.phase.set(Phase::Connecting);
                exchange.hops.set(1);
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
            Self::IsHeld => {
                exchange.phase.set(Phase::Holding);
                std::future::pending().await
            }
        }
    }
}

#[test]
fn what_a_worker_has_had_counts_as_done_wherever_it_is_when_it_ends() {
    paused(async || {
        use Afterwards::{IsHandedOn, IsHeld, ReachesNobody, WaitsForAnother};
        for afterwards in [WaitsForAnother, ReachesNobody, IsHandedOn, IsHeld] {
            let site = site(|| page("200"));
            site.get("GET /a").await;
            let watching = CacheLayer::watching(Arc::clone(&site.cache)).layer(Rc::new(afterwards));
            let client = tokio::task::spawn_local(async move { watching.call(request("PUT /a")).await.is_ok() });
            sleep(seconds(3)).await;
            client.abort();
            settle().await;
            assert!(!is_stored(&site, "/a").await);
        }
    });
}

#[test]
fn what_no_worker_has_seen_has_changed_nothing() {
    paused(async || {
        let site = site(|| page("200").queued(seconds(5)));
        site.get("GET /a").await;
        let client = site.start("POST /a");
        settle().await;
        client.abort();
        sleep(seconds(60)).await;
        assert!(is_stored(&site, "/a").await);
        assert_eq!(site.begun(), 1);
    });
}

#[test]
fn a_request_to_another_route_makes_forgotten_what_this_one_has_stored() {
    paused(async || {
        let site = site(|| page("200"));
        site.get("GET /a").await;
        let other = app(Box::new(|_, _| page("200")));
        let watching = CacheLayer::watching(Arc::clone(&site.cache)).layer(Rc::clone(&other));
        let safe = watching.call(request("GET /a")).await.unwrap();
        assert!(!safe.headers().contains_key("cache-status"), "it has no cache");
        assert!(is_stored(&site, "/a").await);
        watching.call(request("POST /a")).await.unwrap();
        assert!(!is_stored(&site, "/a").await);
    });
}

#[test]
fn an_answer_that_was_asked_for_before_a_change_is_not_stored_after_it() {
    paused(async || {
        let site = Site::new(|count, request| match request.method {
            Method::GET => {
                page(&format!("{FRESH} => {count}")).after(if count == 1 { seconds(2) } else { Duration::ZERO })
            }
            _ => page("200"),
        });
        let slow = site.start("GET /a");
        settle().await;
        site.get("POST /a").await;
        assert_eq!(slow.await.unwrap().body(), "1");
        assert_eq!(site.get("GET /a").await.body(), "3");
    });
}

#[test]
fn a_route_that_is_off_leaves_no_trace() {
    paused(async || {
        let other = app(Box::new(|_, _| page("200 | surrogate-control: max-age=1")));
        let off = CacheLayer::new(None).layer(Rc::clone(&other));
        let response = off.call(request("GET /a")).await.unwrap();
        assert!(
            !response.headers().contains_key("cache-status") && response.headers().contains_key("surrogate-control")
        );
    });
}
