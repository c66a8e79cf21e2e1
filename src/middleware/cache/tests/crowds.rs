//! Bodies that outgrow the store while they come.

use super::*;

const FRESH: &str = "200 | cache-control: max-age=60";
/// Bytes of each piece.
const PIECE: usize = 128 << 10;

/// A client that takes its body piece by piece.
struct Slow(Body, usize);

impl Slow {
    async fn begin(site: &Site) -> Self {
        let response = site.service.call(request("GET /a")).await.unwrap();
        Self(response.into_body(), 0)
    }

    async fn take(&mut self) -> Result<(), Reason> {
        let data = self.0.data().await.unwrap().map_err(|error| error.reason)?;
        self.1 += data.len();
        Ok(())
    }

    async fn rest(mut self) -> Result<usize, Reason> {
        while let Some(data) = self.0.data().await {
            self.1 += data.map_err(|error| error.reason)?.len();
        }
        Ok(self.1)
    }
}

/// A site whose answers do not fit, and the bytes that it has sent.
fn site() -> Site {
    Site::over(store(4 << 20), settings(), |_, _| pieces(FRESH, None))
}

fn send(site: &Site, pieces: usize) {
    for _ in 0..pieces {
        site.pipe(0).send(Ok(Bytes::from(vec![b'x'; PIECE]))).unwrap();
    }
}

fn end(site: &Site) {
    site.app.pipes.borrow_mut().clear();
}

#[test]
fn a_client_alone_has_all_of_it_however_slow_it_is() {
    paused(async || {
        let site = site();
        let mut client = Slow::begin(&site).await;
        send(&site, 100);
        end(&site);
        for _ in 0..20 {
            client.take().await.unwrap();
            sleep(seconds(20)).await;
        }
        assert_eq!(client.rest().await, Ok(100 * PIECE));
    });
}

#[test]
fn several_have_all_of_it_if_none_is_too_slow() {
    paused(async || {
        let site = site();
        let first = Slow::begin(&site).await;
        let second = Slow::begin(&site).await;
        assert_eq!(site.begun(), 1);
        send(&site, 100);
        end(&site);
        let (first, second) = (tokio::task::spawn_local(first.rest()), tokio::task::spawn_local(second.rest()));
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(100 * PIECE), Ok(100 * PIECE)));
    });
}

#[test]
fn who_takes_nothing_holds_the_others_up_for_a_while_and_is_cut_then() {
    paused(async || {
        let site = site();
        let mut stalled = Slow::begin(&site).await;
        let swift = Slow::begin(&site).await;
        send(&site, 100);
        end(&site);
        let begun = Instant::now();
        assert_eq!(tokio::task::spawn_local(swift.rest()).await.unwrap(), Ok(100 * PIECE));
        let held_up = begun.elapsed();
        assert!(held_up >= seconds(9) && held_up <= seconds(11), "{held_up:?}");
        // Not a clean end: the client must see that it has not all of it.
        assert_eq!(stalled.take().await, Err(Reason::ClientStalled));
    });
}

#[test]
fn whoever_comes_when_the_beginning_is_gone_asks_anew() {
    paused(async || {
        let site = site();
        let first = Slow::begin(&site).await;
        let first = tokio::task::spawn_local(first.rest());
        send(&site, 40);
        settle().await;
        let second = site.start("GET /a");
        settle().await;
        assert_eq!(site.begun(), 2);
        end(&site);
        assert_eq!(first.await.unwrap(), Ok(40 * PIECE));
        second.await.unwrap();
    });
}

#[test]
fn a_body_that_is_not_stored_ends_with_the_last_who_follows() {
    paused(async || {
        let site = site();
        let client = Slow::begin(&site).await;
        send(&site, 20);
        settle().await;
        let pipe = site.pipe(0);
        drop(client);
        settle().await;
        pipe.send(Ok(Bytes::from(vec![b'x'; PIECE]))).ok();
        settle().await;
        assert!(pipe.is_closed());
        assert_eq!(site.cache.flights().count(), 0);
    });
}

#[test]
fn who_only_wants_the_head_does_not_stop_the_body() {
    paused(async || {
        let site = Site::new(|_, _| pieces("200 | cache-control: max-age=60 | etag: \"1\"", Some(4)));
        let got = site.start("GET /a | if-none-match: \"1\"");
        settle().await;
        assert_eq!(got.await.unwrap().status, 304);
        site.pipe(0).send(Ok(Bytes::from_static(b"body"))).unwrap();
        end(&site);
        settle().await;
        assert_eq!(site.get("GET /a").await.body(), "body");
        assert_eq!(site.begun(), 1);
    });
}

#[test]
fn the_parts_of_a_body_that_is_coming_come_as_they_do() {
    paused(async || {
        let site = Site::new(|_, _| pieces(FRESH, Some(10)));
        let first = site.start("GET /a");
        settle().await;
        let part = site.start("GET /a | range: bytes=2-4");
        settle().await;
        site.pipe(0).send(Ok(Bytes::from_static(b"01234"))).unwrap();
        let part = part.await.unwrap();
        assert_eq!((part.status, part.body(), site.begun()), (206, "234", 1));
        site.pipe(0).send(Ok(Bytes::from_static(b"56789"))).unwrap();
        end(&site);
        assert_eq!(first.await.unwrap().body(), "0123456789");
    });
}

#[test]
fn who_follows_has_all_of_it_though_the_store_runs_out_of_memory_meanwhile() {
    paused(async || {
        let left = 4 * PIECE as u64;
        let (store, _others) = crowded_store(4 << 20, left);
        let before = store.numbers().memory_bytes;
        let site = Site::over(Arc::clone(&store), settings(), |_, _| pieces(FRESH, None));
        let mut slow = Slow::begin(&site).await;
        let swift = Slow::begin(&site).await;
        assert_eq!(site.begun(), 1);
        let swift = tokio::task::spawn_local(swift.rest());
        send(&site, 30);
        end(&site);
        for _ in 0..8 {
            sleep(millis(100)).await;
            slow.take().await.unwrap();
        }
        let slow = tokio::task::spawn_local(slow.rest());
        assert_eq!((slow.await.unwrap(), swift.await.unwrap()), (Ok(30 * PIECE), Ok(30 * PIECE)));
        settle().await;
        assert_eq!((store.numbers().memory_bytes, site.begun()), (before, 1));
    });
}

#[test]
fn a_client_alone_is_waited_for_where_there_is_no_room_for_what_it_has_not_taken() {
    paused(async || {
        let (store, _others) = crowded_store(4 << 20, 4 * PIECE as u64);
        let site = Site::over(store, settings(), |_, _| pieces(FRESH, None));
        let mut client = Slow::begin(&site).await;
        send(&site, 30);
        end(&site);
        for _ in 0..10 {
            sleep(seconds(20)).await;
            client.take().await.unwrap();
        }
        assert_eq!(client.rest().await, Ok(30 * PIECE));
    });
}

#[test]
fn without_room_in_the_store_a_body_goes_on_as_it_comes_and_none_waits_for_its_end() {
    paused(async || {
        let (store, _others) = crowded_store(4 << 20, 16);
        let site = Site::over(store, settings(), |_, _| pieces(FRESH, None));
        let begin = || tokio::time::timeout(seconds(60), Slow::begin(&site));
        let mut first = begin().await.expect("its head is there");
        let mut second = begin().await.expect("it is the same");
        for _ in 0..3 {
            send(&site, 1);
            first.take().await.unwrap();
            second.take().await.unwrap();
        }
        assert_eq!((first.1, second.1, site.begun()), (3 * PIECE, 3 * PIECE, 1));
        // It does not go on for nobody.
        let pipe = site.pipe(0);
        drop((first, second));
        settle().await;
        pipe.send(Ok(Bytes::from_static(b"x"))).ok();
        settle().await;
        assert!(pipe.is_closed());
        assert_eq!(site.cache.flights().count(), 0);
    });
}
