//! The cache on disk, under the real binary: killed at any moment, with damaged files, on a disk that takes nothing, beside another
//! process, and after a restart. Whatever happens to the disk, no client gets a wrong byte or waits for it.

mod damage;
mod killed;
mod pages;
mod restarts;
mod unusable;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use self::pages::{App, Kind, Page};
use crate::support::client::get;
use crate::support::{Client, Gateway, Response, look_until};

/// Objects on disk.
const OBJECTS: &str = "hostler_cache_objects{where=\"disk\"}";
/// Whether all files have been found since the start.
const INDEXED: &str = "hostler_cache_indexed";
/// Files that were not as they were written.
const CORRUPTED: &str = "hostler_cache_corrupted_total";
/// What the disk would not write.
const WRITE_FAILURES: &str = "hostler_cache_disk_errors_total{operation=\"write\"}";

/// An app, and a folder for what is kept of its pages, which outlives the gateways in front of it.
struct Site {
    app: App,
    outer: TempDir,
    /// The section `cache`, but for its folder.
    cache: &'static str,
    /// Bytes of the folder, as a configuration has them.
    size: &'static str,
}

impl Site {
    fn new(pages: usize) -> Self {
        Self::with(pages, "memory: 8MiB, max_object: 8MiB", "256MiB")
    }

    fn with(pages: usize, cache: &'static str, size: &'static str) -> Self {
        Self { app: App::start(pages), outer: tempfile::tempdir().unwrap(), cache, size }
    }

    /// The cache's folder.
    fn folder(&self) -> PathBuf {
        self.outer.path().join("cache")
    }

    /// Answers are held in memory until their clients have them: the spool has no part in what is tested here.
    fn config(&self) -> String {
        let Self { cache, size, .. } = self;
        let (folder, endpoint) = (self.folder(), self.app.endpoint());
        format!(
            "cache: {{ {cache}, disk: {{ path: \"{}\", size: {size} }}, purge: [127.0.0.1/32] }}\n\
             logging: {{ format: json, access: off }}\n\
             upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 32 }}\n\
             sites:\n  - routes:\n      - {{ path: /, proxy: app, cache: true, buffer: {{ memory: 8MiB }} }}\n",
            folder.display()
        )
    }

    fn start(&self) -> Gateway {
        Gateway::start(&self.config())
    }

    /// The files of stored answers.
    fn files(&self) -> Vec<PathBuf> {
        let names = |folder: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
        };
        let inner = names(&self.folder()).into_iter().flat_map(|outer| names(&outer));
        let files = inner.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
        let is_whole = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
        let mut files: Vec<PathBuf> = files.filter_map(|entry| Some(entry.ok()?.path())).filter(is_whole).collect();
        files.sort();
        files
    }
}

/// The first pages that may be kept without a word.
fn kept(count: usize) -> Vec<Page> {
    (0..).map(Page).filter(|page| page.kind() == Kind::Kept).take(count).collect()
}

/// The whole answer for a page, which has to be right. Its version.
fn ask(client: &mut Client, page: Page) -> u64 {
    let answer = client.get(&page.path());
    assert_eq!((answer.status, &answer.cut), (200, &None), "{page:?}: {:?}", answer.headers);
    page.read(&answer).unwrap_or_else(|wrong| panic!("{page:?}: {wrong}; {:?}", answer.headers))
}

/// The same where the gateway may find out in the middle of an answer that the rest cannot be read, and cuts it. Until the file
/// is removed, which another thread does, it may be found again by its name.
fn ask_until_whole(gateway: &Gateway, page: Page) -> u64 {
    for _ in 0..20 {
        let mut client = gateway.client();
        client.send(get(&page.path()));
        let answer = client.response("GET");
        if answer.cut.is_none() {
            return page.read(&answer).unwrap_or_else(|wrong| panic!("{page:?}: {wrong}; {:?}", answer.headers));
        }
        page.read_beginning(&answer).unwrap_or_else(|wrong| panic!("{page:?}: {wrong}"));
    }
    panic!("{page:?} is always cut: {:?}", gateway.log())
}

/// Asks for all of them. Their versions.
fn ask_all(gateway: &Gateway, pages: &[Page]) -> Vec<u64> {
    let mut client = gateway.client();
    pages.iter().map(|page| ask(&mut client, *page)).collect()
}

/// Has all of them stored on disk, a few at a time: what a disk that is behind has no room for is not written. Their versions.
fn store_all(gateway: &Gateway, pages: &[Page]) -> Vec<u64> {
    let mut versions = Vec::new();
    for few in pages.chunks(20) {
        versions.extend(ask_all(gateway, few));
        gateway.wait_metric(OBJECTS, versions.len() as f64);
    }
    versions
}

/// An order to purge a page, with the method.
fn purge(client: &mut Client, page: Page) -> Response {
    client.send(format!("PURGE {} HTTP/1.1\r\nHost: shop.example\r\n\r\n", page.path()));
    client.response("PURGE")
}

/// Waits until a series is more than this.
fn wait_more(gateway: &Gateway, series: &str, than: f64) {
    let found = look_until(|| (gateway.metric(series) > than).then_some(()));
    assert!(found.is_some(), "{series} is not more than {than}: {:?}", gateway.log());
}
