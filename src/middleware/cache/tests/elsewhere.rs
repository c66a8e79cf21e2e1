//! What is on disk, and who is on another thread: in time as it is.

use std::path::Path;
use std::pin::pin;

use tokio::sync::oneshot;

use super::*;
use crate::cache::store::DiskSettings;

const FRESH: &str = "200 | cache-control: max-age=600 | etag: \"1\"";

/// A store over a folder that another one may just have left.
fn on_disk(path: &Path) -> Arc<Store> {
    let disk = DiskSettings { path: path.to_owned(), size: 64 << 20, walkers: 1 };
    let settings = Settings { memory: 16 << 20, max_object: 4 << 20, variants: 16, open_files: 16, disk: Some(disk) };
    let begun = std::time::Instant::now();
    loop {
        match Store::open(&settings) {
            Ok(store) => return store,
            Err(error) => assert!(begun.elapsed() < seconds(60), "{error}"),
        }
        std::thread::yield_now();
    }
}

fn in_real_time(test: impl AsyncFnOnce()) {
    crate::runtime::block_on(test()).unwrap();
}

#[test]
fn what_was_stored_before_a_restart_is_a_hit_after_it() {
    in_real_time(async || {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::over(on_disk(folder.path()), settings(), |_, _| page(&format!("{FRESH} | vary: accept")));
        site.get("GET /a | accept: x").await;
        assert!(site.cache.store().settle(seconds(60)));
        drop(site);
        let site = Site::over(on_disk(folder.path()), settings(), |_, _| page("500"));
        let hit = site.get("GET /a | accept: x").await;
        assert_eq!((hit.body(), hit.verdict, site.begun()), (PAGE, CacheVerdict::Hit, 0));
    });
}

#[test]
fn a_head_is_held_against_what_is_on_disk_alone() {
    in_real_time(async || {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::over(on_disk(folder.path()), settings(), |_, _| page(FRESH));
        site.get("GET /a").await;
        assert!(site.cache.store().settle(seconds(60)));
        drop(site);
        let obeying = RouteCache { obey_clients: true, ..settings() };
        let site = Site::over(on_disk(folder.path()), obeying, |_, request| {
            page(if request.method == Method::HEAD {
                "200 | etag: \"2\" =>"
            } else {
                "200 | cache-control: max-age=60 => new"
            })
        });
        site.get("HEAD /a | cache-control: no-cache").await;
        assert_eq!(site.get("GET /a").await.body(), "new");
    });
}

/// Answers once it may.
struct Gate(RefCell<Option<oneshot::Receiver<()>>>);

impl Service for Gate {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        request.exchange.phase.set(Phase::Working);
        let open = self.0.borrow_mut().take().expect("one request is enough");
        open.await.unwrap();
        let mut response = Response::new(Body::Full(Bytes::from_static(PAGE.as_bytes())));
        response.headers_mut().insert("cache-control", HeaderValue::from_static("max-age=60"));
        Ok(response)
    }
}

fn gated(cache: &Arc<Cache>, open: Option<oneshot::Receiver<()>>) -> Cached<Gate> {
    let place = Place {
        site: "shop".into(),
        route: "/".into(),
        upstream: "app".into(),
        identity: Arc::new([]),
        purgers: config::AllowedClients::default(),
    };
    let metrics = Metrics::new().cache("/");
    let caching = Caching::of(&settings(), false, place, Arc::clone(cache), metrics);
    CacheLayer::new(Some(Arc::new(caching))).layer(Gate(RefCell::new(open)))
}

/// Whether it waits now.
async fn waits<F: Future>(mut call: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await
}

#[test]
fn who_waits_may_be_on_another_thread_than_who_leads() {
    let cache = Cache::new(store(1 << 20));
    let (open, gate) = oneshot::channel();
    let (leads, led) = std::sync::mpsc::channel();
    let own = Arc::clone(&cache);
    let leader = std::thread::spawn(move || {
        in_real_time(async || {
            let service = gated(&own, Some(gate));
            let mut call = pin!(service.call(request("GET /a")));
            assert!(waits(call.as_mut()).await);
            leads.send(()).unwrap();
            let response = call.await.unwrap();
            assert_eq!(read(response.into_body()).await.unwrap(), PAGE);
        });
    });
    led.recv().unwrap();
    in_real_time(async || {
        // Its app would refuse to be asked.
        let service = gated(&cache, None);
        let mut call = pin!(service.call(request("GET /a")));
        assert!(waits(call.as_mut()).await);
        open.send(()).unwrap();
        let response = call.await.unwrap();
        assert_eq!(read(response.into_body()).await.unwrap(), PAGE);
    });
    leader.join().unwrap();
}

#[test]
fn a_large_one_that_was_purged_while_the_app_was_asked_is_not_for_who_comes_after_that() {
    in_real_time(async || {
        let folder = tempfile::tempdir().unwrap();
        let obeying = RouteCache { obey_clients: true, ..settings() };
        let body = "x".repeat(1 << 20);
        let site = Site::over(on_disk(folder.path()), obeying, move |count, _| match count {
            1 => page(&format!("{FRESH} => {body}")),
            2 => page("304 | etag: \"1\" | cache-control: max-age=600").after(millis(300)),
            _ => page(&format!("{FRESH} => new")),
        });
        assert_eq!(site.get("GET /a").await.body().len(), 1 << 20);
        assert!(site.cache.store().settle(seconds(60)));
        let before = site.start("GET /a | cache-control: no-cache");
        settle().await;
        drop(site.cache.store().invalidate(b"shop.example", b"/a", Manner::Hard));
        let after = site.start("GET /a");
        assert_eq!(before.await.unwrap().body().len(), 1 << 20, "its wish is older");
        assert_eq!(after.await.unwrap().body(), "new");
    });
}
