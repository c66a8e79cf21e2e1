//! The store as its users have it.

mod bad;
mod crash;
mod disk;
mod failures;
mod memory;
mod purges;
mod races;
mod resize;
mod streams;

use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::*;
use crate::error::Reason;
use crate::http::Body;

const MIB: u64 = 1 << 20;

fn in_memory(memory: u64) -> Settings {
    Settings { memory, max_object: 64 * MIB, variants: 4, open_files: 16, disk: None }
}

fn on_disk(path: &Path) -> Settings {
    let disk = DiskSettings { path: path.to_owned(), size: 256 * MIB, walkers: 2 };
    Settings { disk: Some(disk), ..in_memory(16 * MIB) }
}

/// Opens a store whose files have all been found.
fn open(settings: &Settings) -> Arc<Store> {
    let mut store = None;
    // Threads of the one before may have it still.
    until(|| {
        store = Store::open(settings).ok();
        store.is_some()
    });
    let store = store.unwrap();
    until(|| store.numbers().is_indexed);
    store
}

/// Waits for what other threads do.
fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never was so");
        std::thread::yield_now();
    }
}

fn key(number: u64) -> Key {
    let mut key = [0; 32];
    // Keys are hashes: spread.
    for (part, word) in key.chunks_exact_mut(8).zip(1_u64..) {
        part.copy_from_slice(&(number + word).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    Key::from_bytes(key)
}

/// The bytes that a body of this key has, and no other.
fn content(number: u64, length: usize) -> Bytes {
    let word =
        |at: u64| (at ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (0..length.div_ceil(8) as u64).flat_map(word).take(length).collect::<Vec<u8>>().into()
}

fn fields() -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert("content-type", HeaderValue::from_static("text/html; charset=utf-8"));
    fields.insert("x-own", HeaderValue::from_static("1"));
    fields
}

fn path(number: u64) -> String {
    format!("/items/{number}?page=1")
}

/// What is told of a response, with little that is special.
struct Told<'a> {
    fields: HeaderMap,
    host: &'a str,
    path: String,
    tags: Vec<&'a [u8]>,
    since: Moment,
    primary: Option<Key>,
    length: Option<u64>,
}

impl<'a> Told<'a> {
    fn new(store: &Store, number: u64) -> Self {
        let (fields, path) = (fields(), path(number));
        Self {
            fields,
            host: "shop.example",
            path,
            tags: Vec::new(),
            since: store.moment(),
            primary: None,
            length: None,
        }
    }

    fn tagged(mut self, tags: &[&'a str]) -> Self {
        self.tags = tags.iter().map(|tag| tag.as_bytes()).collect();
        self
    }

    fn begin(&self, store: &Arc<Store>, number: u64) -> Writer {
        self.try_begin(store, number).unwrap()
    }

    fn try_begin(&self, store: &Arc<Store>, number: u64) -> Result<Writer, NotStored> {
        let meta = Meta {
            status: http::StatusCode::OK,
            fields: &self.fields,
            facts: b"some facts",
            host: self.host.as_bytes(),
            path: self.path.as_bytes(),
            tags: &self.tags,
            since: self.since,
            primary: self.primary,
            length: self.length,
        };
        store.writer(&key(number), &meta)
    }

    /// Stores all of it. Blocks until it is.
    fn store(&self, store: &Arc<Store>, number: u64, length: usize) -> Outcome {
        let mut writer = self.begin(store, number);
        push(&mut writer, &content(number, length));
        outcome(writer.finish())
    }
}

/// As a worker sends it, no faster than the disk takes it.
fn push(writer: &mut Writer, content: &Bytes) {
    for at in (0..content.len()).step_by(16 << 10) {
        block_on(std::future::poll_fn(|cx| writer.poll_ready(cx)));
        writer.push(&content.slice(at..content.len().min(at + (16 << 10))));
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn outcome(finish: Finish) -> Outcome {
    block_on(finish)
}

fn put(store: &Arc<Store>, number: u64, length: usize) -> Outcome {
    Told::new(store, number).store(store, number, length)
}

async fn read(mut body: Body) -> Result<Vec<u8>, Reason> {
    let mut all = Vec::new();
    let length = body.remaining();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data.map_err(|error| error.reason)?);
    }
    assert!(length.is_none_or(|length| length == all.len() as u64));
    Ok(all)
}

/// What is found, read from disk if it has to be.
async fn find(store: &Arc<Store>, number: u64) -> Option<Found> {
    match store.get(&key(number))? {
        Found::OnDisk(place) => place.open().await,
        found => Some(found),
    }
}

async fn find_object(store: &Arc<Store>, number: u64) -> Option<Arc<Object>> {
    match find(store, number).await? {
        Found::Object(object) => Some(object),
        other => panic!("{other:?}"),
    }
}

/// The whole body, if there is one.
fn get(store: &Arc<Store>, number: u64) -> Option<Vec<u8>> {
    block_on(async {
        let object = find_object(store, number).await?;
        Some(read(object.body()).await.unwrap())
    })
}

/// Whether it is there, and all of it as it was.
fn has(store: &Arc<Store>, number: u64, length: usize) -> bool {
    match get(store, number) {
        Some(body) => {
            assert!(body == content(number, length), "{number} is not as it was");
            true
        }
        None => false,
    }
}
