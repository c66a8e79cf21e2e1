//! What the cache's store costs: memory for each object, a hit, and how long it takes after a start until all files are found.
//!
//! `cargo bench --bench cache_index [COUNT] [FOLDER]`: so many small objects (a million, unless told) are written to FOLDER,
//! else to a new one among the temporary files; then a store is opened on them, which is in service at once. The files are in
//! the page cache then, as after a restart of the process; after one of the machine the disk has its part.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hostler::cache::Key;
use hostler::cache::store::{DiskSettings, Found, Manner, Meta, Purge, Settings, Store};
use http::{HeaderMap, HeaderValue, StatusCode};

const MIB: u64 = 1 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let count: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let kept = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary folder: {error}"));
    let path = arguments.next().map_or_else(|| kept.path().to_owned(), Into::into);
    in_memory();
    under_one_label();
    let disk = DiskSettings { path, size: 64 << 30, walkers: 2 };
    let settings = Settings { memory: 64 * MIB, max_object: MIB, variants: 16, open_files: 64, disk: Some(disk) };
    write(&settings, count);
    found_again(&settings, count);
}

fn key(number: u64) -> Key {
    let mut key = [0; 32];
    for (part, word) in key.chunks_exact_mut(8).zip(1_u64..) {
        part.copy_from_slice(&(number * 4 + word).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    Key::from_bytes(key)
}

fn store(cache: &Arc<Store>, number: u64, body: &Bytes) {
    store_at(cache, number, &format!("/catalogue/items/{number}/?page=1"), &[], body);
}

fn store_at(store: &Arc<Store>, number: u64, path: &str, tags: &[&[u8]], body: &Bytes) {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "public, max-age=60"),
        ("date", "Sun, 29 Nov 2026 08:00:00 GMT"),
        ("etag", "\"0123456789abcdef\""),
        ("vary", "accept-encoding"),
        ("x-frame-options", "DENY"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    let meta = Meta {
        status: StatusCode::OK,
        fields: &fields,
        facts: &[0; 64],
        host: b"shop.example",
        path: path.as_bytes(),
        tags,
        since: store.moment(),
        primary: None,
        length: Some(body.len() as u64),
    };
    let Ok(mut writer) = store.writer(&key(number), &meta) else { return };
    writer.push(body);
    drop(writer.finish());
}

/// Resident memory of the process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn in_memory() {
    const COUNT: u64 = 100_000;
    let settings = Settings { memory: 1024 * MIB, max_object: MIB, variants: 16, open_files: 0, disk: None };
    let Ok(cache) = Store::open(&settings) else { return };
    let body = Bytes::from(vec![b'x'; 1024]);
    let before = resident();
    let begun = Instant::now();
    (0..COUNT).for_each(|number| store(&cache, number, &body));
    let stored = begun.elapsed() / COUNT as u32;
    let each = (resident() - before) / COUNT;
    let Some(Found::Object(object)) = cache.get(&key(1)) else { return };
    let head: usize = object.fields().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let known = head as u64 + object.facts().len() as u64 + object.path().len() as u64;
    println!(
        "in memory, {COUNT} objects of 1 KiB: {each} bytes each, of which {known} are head, facts and path: {} beside",
        each - known - 1024
    );
    println!("  counted are {} each; storing takes {stored:?} each", cache.numbers().memory_bytes / COUNT);
    let begun = Instant::now();
    let hits =
        (0..10 * COUNT).filter(|number| matches!(cache.get(&key(number * 7919 % COUNT)), Some(Found::Object(_))));
    let hits = hits.count() as u32;
    println!("  a hit takes {:?}", begun.elapsed() / hits);
    let begun = Instant::now();
    let fields: usize = (0..COUNT).map(|_| object.headers().len()).sum();
    println!("  its {} fields as a map take {:?}", fields as u64 / COUNT, begun.elapsed() / COUNT as u32);
}

/// Very many have the same tag and lie at the same path, as where all queries have one label: what it takes to store another,
/// which drives one out, and to purge them, between two turns of others.
fn under_one_label() {
    const COUNT: u64 = 300_000;
    let settings = Settings { memory: 256 * MIB, max_object: MIB, variants: 16, open_files: 0, disk: None };
    let Ok(cache) = Store::open(&settings) else { return };
    let body = Bytes::from(vec![b'x'; 1024]);
    let (mut slowest, begun) = (Duration::ZERO, Instant::now());
    for number in 0..COUNT {
        let begun = Instant::now();
        store_at(&cache, number, "/catalogue?*", &[b"catalogue"], &body);
        slowest = slowest.max(begun.elapsed());
    }
    let there = cache.numbers().memory_objects;
    println!(
        "under one path and one tag, {there} objects of {COUNT}: storing takes {:?} each, the slowest {slowest:?}",
        begun.elapsed() / COUNT as u32
    );
    let mut purge = std::pin::pin!(cache.purge(Purge::Tag(b"catalogue".as_slice().into()), Manner::Hard));
    let mut cx = Context::from_waker(Waker::noop());
    let (mut slowest, mut turns, begun) = (Duration::ZERO, 0, Instant::now());
    loop {
        let begun = Instant::now();
        let is_done = purge.as_mut().poll(&mut cx).is_ready();
        (slowest, turns) = (slowest.max(begun.elapsed()), turns + 1);
        if is_done {
            break;
        }
    }
    println!("  purging all of them takes {:?} in {turns} turns, the longest of {slowest:?}", begun.elapsed());
}

fn write(settings: &Settings, count: u64) {
    let Ok(cache) = Store::open(settings) else { return println!("the folder cannot be used") };
    let body = Bytes::from(vec![b'x'; 1024]);
    let begun = Instant::now();
    for number in 0..count {
        store(&cache, number, &body);
        if number % 2000 == 0 {
            cache.settle(Duration::from_secs(600));
        }
    }
    cache.settle(Duration::from_secs(600));
    let numbers = cache.numbers();
    println!(
        "on disk: {} objects written in {:?}, {} skipped",
        numbers.disk_objects,
        begun.elapsed(),
        numbers.writes_skipped
    );
}

fn found_again(settings: &Settings, count: u64) {
    let before = resident();
    let (begun, cache) = (
        Instant::now(),
        loop {
            // Threads of the one before may have it still.
            if let Ok(cache) = Store::open(settings) {
                break cache;
            }
        },
    );
    println!("after a restart: in service after {:?}", begun.elapsed());
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let (mut asked, mut found, mut slowest) = (0_u64, 0_u64, Duration::ZERO);
    while !cache.numbers().is_indexed {
        let number = asked * 7919 % count;
        let begun = Instant::now();
        let answer = match cache.get(&key(number)) {
            Some(Found::OnDisk(place)) => runtime.block_on(place.open()),
            other => other,
        };
        slowest = slowest.max(begun.elapsed());
        (asked, found) = (asked + 1, found + u64::from(answer.is_some()));
        // Others have their turn: a client is not always there.
        std::thread::sleep(Duration::from_millis(1));
    }
    let numbers = cache.numbers();
    println!("  all {} files found after {:?}", numbers.disk_objects, begun.elapsed());
    println!("  asked meanwhile: {asked}, found {found}, the slowest after {slowest:?}");
    let each = (resident() - before) / numbers.disk_objects.max(1);
    println!("  {each} bytes of memory for each, and {} corrupted", numbers.corrupted);
}
