//! The cache's store: opened before anything listens, kept through reloads for as long as its folder is the same, and given the
//! time at the end that the drain has left.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::gateway::StartError;
use crate::cache::Cache;
use crate::cache::policy::Rules;
use crate::cache::store::{DiskSettings, Manner, Purge, Settings, Store};
use crate::config::{self, Config, Descriptors};
use crate::observe::metrics::{CacheTotals, Metrics};

/// Threads that look for what is in the folder: they wait for the disk, most of their time.
const WALKERS: usize = 4;

/// Opens what the configuration says. It begins to look for what is in the folder, and waits for nothing.
///
/// # Errors
/// The folder cannot be used.
pub(super) fn open(config: &Config, threads: usize) -> Result<Arc<Cache>, StartError> {
    let (limit, _) = config::open_files();
    let settings = Settings {
        memory: config.cache.memory,
        max_object: config.cache.max_object,
        variants: Rules::default().max_variants,
        open_files: Descriptors::share(config, limit, threads).cached,
        disk: config.cache.disk.as_ref().map(|disk| DiskSettings {
            path: disk.path.clone(),
            size: disk.size,
            walkers: WALKERS,
        }),
    };
    let store = Store::open(&settings).map_err(|error| {
        let trouble = config.cache.disk.as_ref().and_then(|disk| config::cache_trouble(&disk.path));
        StartError::Cache(error, trouble)
    })?;
    let cache = Cache::new(store);
    if config.cache.disk.is_some() {
        cache.wide().add_all();
    }
    Ok(cache)
}

/// Stores with a folder in whose place a reload has put others. Requests that began before may still have them, for as long as they
/// take, and nobody else can open their folders until then.
#[derive(Default)]
pub(super) struct Left(Vec<One>);

struct One {
    folder: PathBuf,
    store: Weak<Store>,
    /// What it had counted by then.
    totals: CacheTotals,
}

impl Left {
    /// What a reload goes on with: `known` is the configuration before. The same, unless its folder is another one: then what is kept
    /// in memory goes as well, when the last request that it was built for has ended.
    ///
    /// # Errors
    /// As [`open`]; nothing has changed then.
    pub(super) fn follow(
        &self,
        cache: &Arc<Cache>,
        known: &config::Cache,
        config: &Config,
        threads: usize,
    ) -> Result<Arc<Cache>, StartError> {
        let folder = folder(&config.cache);
        if self::folder(known) == folder {
            return Ok(Arc::clone(cache));
        }
        match self.0.iter().find(|one| Some(&*one.folder) == folder).and_then(|one| one.store.upgrade()) {
            Some(store) => {
                let cache = Cache::new(store);
                cache.wide().add_all();
                Ok(cache)
            }
            None => open(config, threads),
        }
    }

    /// Another configuration is in force: `now` is its cache, where `before` was.
    pub(super) fn note(&mut self, before: &Arc<Cache>, known: &config::Cache, now: &Arc<Cache>, metrics: &Metrics) {
        let (before, now) = (before.store(), now.store());
        if Arc::ptr_eq(before, now) {
            return;
        }
        let totals = CacheTotals::from(&before.numbers());
        metrics.cache_store_left(&totals);
        // Nobody strikes in it from now on what changes.
        forget(before);
        for again in self.0.extract_if(.., |one| std::ptr::eq(one.store.as_ptr(), Arc::as_ptr(now))) {
            metrics.cache_store_again(&again.totals);
            // What requests of before have stored in it meanwhile.
            forget(now);
        }
        self.0.retain(|one| one.store.strong_count() > 0);
        if let Some(folder) = folder(known) {
            self.0.push(One { folder: folder.to_owned(), store: Arc::downgrade(before), totals });
        }
    }

    /// Those that are still there.
    pub(super) fn living(&self) -> impl Iterator<Item = Arc<Store>> {
        self.0.iter().filter_map(|one| one.store.upgrade())
    }
}

/// Strikes everything: requests that change it will not be seen any more. In force at once.
pub(super) fn forget(store: &Arc<Store>) {
    let purge = store.purge(Purge::All, Manner::Hard);
    tokio::spawn(async move {
        if let Err(error) = purge.await {
            tracing::error!("{error}");
        }
    });
}

/// Gives it the bounds of a configuration that is in force from now on.
pub(super) fn resize(cache: &Cache, now: &config::Cache) {
    cache.store().resize(now.memory, now.disk.as_ref().map_or(0, |disk| disk.size), now.max_object);
}

fn folder(cache: &config::Cache) -> Option<&Path> {
    cache.disk.as_ref().map(|disk| &*disk.path)
}

/// Waits until what has been stored is on disk, so long at most for all of them.
pub(super) async fn settle(stores: Vec<Arc<Store>>, patience: Duration) {
    let end = Instant::now() + patience;
    let settle = move || stores.iter().all(|store| store.settle(end.saturating_duration_since(Instant::now())));
    // Its threads are awaited, not a socket. An error is a panic, of which the log has heard.
    let settled = tokio::task::spawn_blocking(settle).await;
    if let Ok(false) = settled {
        tracing::warn!("the cache's disk was behind: what was stored last is not kept (shutdown.timeout)");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::cache::Key;
    use crate::cache::store::Meta;
    use crate::runtime::block_on;

    fn config(folder: &Path, cache: &str) -> Config {
        let text = format!(
            "cache: {cache}\nupstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:1\"], workers: 1 }} }}\n\
             sites: [{{ routes: [{{ path: /, proxy: app, cache: true }}] }}]\n"
        );
        let loaded = config::load_str(&text, "f", folder, &|_| None);
        loaded.unwrap_or_else(|report| panic!("{report}")).config
    }

    #[test]
    fn a_reload_keeps_what_is_stored_unless_the_folder_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let config = |cache| config(folder.path(), cache);
        let [memory, larger] =
            ["{ memory: 1MiB, max_object: 64KiB }", "{ memory: 2MiB, max_object: 64KiB }"].map(config);
        let [one, other] = ["{ disk: { path: ./one } }", "{ disk: { path: ./other } }"].map(config);
        let cache = open(&memory, 1).unwrap();
        let left = Left::default();
        let after =
            |cache: &Arc<Cache>, known: &Config, now: &Config| left.follow(cache, &known.cache, now, 1).unwrap();
        assert!(Arc::ptr_eq(&cache, &after(&cache, &memory, &larger)));
        resize(&cache, &larger.cache);
        let on_disk = after(&cache, &larger, &one);
        assert!(!Arc::ptr_eq(&cache, &on_disk));
        assert!(Arc::ptr_eq(&on_disk, &after(&on_disk, &one, &one)));
        let elsewhere = after(&on_disk, &one, &other);
        assert!(!Arc::ptr_eq(&on_disk, &elsewhere));
    }

    #[test]
    fn a_folder_that_requests_of_before_still_have_is_taken_up_again_without_what_was_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] =
            ["./one", "./other"].map(|path| config(folder.path(), &format!("{{ disk: {{ path: {path} }} }}")));
        let (mut left, metrics) = (Left::default(), Metrics::new());
        block_on(async {
            let first = open(&one, 1).unwrap();
            put(first.store());
            let second = left.follow(&first, &one.cache, &other, 1).unwrap();
            left.note(&first, &one.cache, &second, &metrics);
            put(first.store());
            let again = left.follow(&second, &other.cache, &one, 1).unwrap();
            assert!(Arc::ptr_eq(first.store(), again.store()), "nobody else can open its folder");
            left.note(&second, &other.cache, &again, &metrics);
            // It goes through all of the index, and lets others have their turn in between.
            for _ in 0..10_000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(first.store().numbers().memory_objects, 0, "it may have changed meanwhile");
            assert_eq!(left.living().count(), 1);
        })
        .unwrap();
    }

    fn put(store: &Arc<Store>) {
        let meta = Meta {
            status: http::StatusCode::OK,
            fields: &http::HeaderMap::new(),
            facts: b"",
            host: b"shop.example",
            path: b"/",
            tags: &[],
            since: store.moment(),
            primary: None,
            length: Some(0),
        };
        let writer = store.writer(&Key::from_bytes([1; Key::LENGTH]), &meta).unwrap();
        assert!(std::pin::pin!(writer.finish()).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let told = |path: &str| {
            let config = config(folder.path(), &format!("{{ disk: {{ path: {path} }} }}"));
            open(&config, 1).unwrap_err().to_string()
        };
        for (path, said) in [
            ("./file", "is not a folder"),
            ("./none/cache", "create it, or check the path"),
            ("./file/cache", "is not a folder, so"),
        ] {
            let told = told(path);
            assert!(told.starts_with("cache.disk.path: the cache's folder") && told.contains(said), "{told}");
        }
        let held = open(&config(folder.path(), "{ disk: { path: ./held } }"), 1).unwrap();
        let told = told("./held");
        assert!(told.contains("another process has it") && told.contains("give each its own"), "{told}");
        drop(held);
    }
}
