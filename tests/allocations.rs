//! Heap allocations of a GET over HTTP/1.1 and HTTP/2, proxied and of a file, counted in the gateway's own thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hostler::app::Gateway;
use hostler::cache::Key;
use hostler::cache::store::{Found, Meta, Settings, Store};
use hostler::config;
use hostler::edge::inherited::Inherited;
use hostler::realtime::hub::{Content, Item, StreamPart};

use crate::support::frames::{self, DATA, END_HEADERS, END_STREAM, GOAWAY, RST_STREAM, WINDOW_UPDATE, block, frame};
use crate::support::websocket::{Frame, TEXT, handshake};

/// A task of HTTP/2 is larger than 2 KiB, and tokio moves the future of such a task to the heap in builds with debug assertions
/// (16 KiB in others).
const OF_DEBUG_BUILDS: u64 = cfg!(debug_assertions) as u64;

/// Held by the test, so that it only ever goes down. Lower it with the count.
const MOST_PER_REQUEST: u64 = 7;
/// The same over HTTP/2, one request at a time.
const MOST_PER_REQUEST_H2: u64 = 17 + OF_DEBUG_BUILDS;

/// A small file from memory.
const MOST_PER_FILE: u64 = 4;
/// The same over HTTP/2.
const MOST_PER_FILE_H2: u64 = 16 + OF_DEBUG_BUILDS;

/// The system's allocator, with a count of what the gateway's thread asks for.
pub(crate) struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);
/// Bytes that the counted threads have asked for, less those that they have given back.
static LIVE: AtomicI64 = AtomicI64::new(0);

/// One test counts at a time.
static COUNTING: Mutex<()> = Mutex::new(());

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // The thread may be past its thread-local values.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

fn weigh(bytes: usize, old: usize) {
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        LIVE.fetch_add(bytes as i64 - old as i64, Ordering::Relaxed);
    }
}

// SAFETY: every call is handed on unchanged to the system's allocator, which keeps the contract of `GlobalAlloc`;
// counting touches an atomic and a thread-local without a destructor, neither of which allocates.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        weigh(layout.size(), 0);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        weigh(0, layout.size());
        // SAFETY: the pointer came from `System` by `alloc` or `realloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        weigh(size, layout.size());
        // SAFETY: the pointer came from `System` with this layout; `size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Answers each request on its one connection with 1 KiB.
fn origin() -> String {
    origin_with("")
}

/// The same with these header lines.
fn origin_with(lines: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let body = "x".repeat(1024);
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut piece) {
                request.extend_from_slice(&piece[..read]);
                if request.ends_with(b"\r\n\r\n") {
                    request.clear();
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        }
    });
    format!("http://{address}")
}

fn get(client: &mut TcpStream) {
    client
        .write_all(b"GET /a/page?x=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = client.read(&mut piece).unwrap();
        assert!(read > 0, "the gateway has closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
        if let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
            if answer.len() == head + 4 + 1024 {
                return;
            }
        }
    }
}

/// Opens an HTTP/2 connection with windows that last.
fn open_http2(address: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    let windows = (u32::MAX >> 1) - 65_535;
    let opening = [
        frames::PREFACE.as_bytes(),
        &frame(frames::SETTINGS, 0, 0, b""),
        &frame(WINDOW_UPDATE, 0, 0, &windows.to_be_bytes()),
    ];
    client.write_all(&opening.concat()).unwrap();
    client
}

fn get_http2(client: &mut TcpStream, stream: u32) {
    let fields: [(&str, &[u8]); 6] = [
        (":method", b"GET"),
        (":scheme", b"http"),
        (":authority", b"shop.example"),
        (":path", b"/a/page?x=1"),
        ("user-agent", b"test"),
        ("accept", b"*/*"),
    ];
    client.write_all(&frame(frames::HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))).unwrap();
    let mut body = 0;
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        client.read_exact(&mut payload).unwrap();
        match head[3] {
            DATA => body += length,
            frames::HEADERS => assert_eq!(payload[0], 0x88, "200"),
            RST_STREAM | GOAWAY => panic!("{head:?} {payload:?}"),
            _ => {}
        }
        if head[3] == DATA && head[4] & END_STREAM != 0 {
            return assert_eq!(body, 1024);
        }
    }
}

/// Allocations of `requests` requests, after some that make what is kept.
fn counted(requests: u32, mut get: impl FnMut(u32)) -> u64 {
    // Buffers, metric handles and the date are made by the first requests.
    (0..200).for_each(&mut get);
    let before = COUNT.load(Ordering::SeqCst);
    (200..200 + requests).for_each(get);
    COUNT.load(Ordering::SeqCst) - before
}

/// Allocations of so many requests over HTTP/1.1 and HTTP/2 of a gateway with these sites, whose files are in `folder`.
fn of_gateway(folder: &Path, requests: u32, sites: &str) -> (u64, u64) {
    let text = format!(
        "listeners: [{{ bind: 127.0.0.1:0 }}]\nruntime: {{ threads: 1 }}\nlogging: {{ access: {{ to: ./access.log }} }}\n{sites}\n"
    );
    let loaded = config::load_str(&text, "test.yaml", folder, &|_| None).unwrap();
    // Each of its threads calls this when it begins.
    let gateway = Gateway::start(loaded.config, Inherited::default(), || IS_COUNTED.set(true)).unwrap();
    let address = gateway.listeners()[0].addresses[0].as_str();
    let (mut client, mut http2) = (TcpStream::connect(address).unwrap(), open_http2(address));
    let total = counted(requests, |_| get(&mut client));
    let total_http2 = counted(requests, |n| get_http2(&mut http2, 2 * n + 1));
    let line = std::fs::read_to_string(folder.join("access.log"));
    assert!(line.is_ok(), "the access log was on");
    drop((client, http2));
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(gateway.stop(std::time::Duration::from_secs(5), || ()));
    (total, total_http2)
}

/// What the clock brings now and then (the sweep, the date, a look at a file) is nobody's: more of it where a machine is busy, and
/// a tenth of one for each request at most.
const BY_THE_CLOCK: u64 = 100;

#[test]
fn answers_stay_within_their_allocations() {
    let _one = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    let page = folder.path().join("a/page");
    std::fs::write(&page, "x".repeat(1024)).unwrap();
    // What was written just now is not kept.
    std::fs::File::options()
        .append(true)
        .open(&page)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000))
        .unwrap();
    let requests = 1000;
    let proxied = format!(
        "sites: [{{ routes: [{{ path: /, proxy: app }}] }}]\nupstreams: {{ app: {{ endpoints: [\"{}\"], workers: 4, keepalive: {{ idle: 60s }} }} }}",
        origin()
    );
    let files = "sites: [{ routes: [{ path: /, files: ./ }] }]";
    for (what, sites, most, most_http2) in [
        ("proxied GET", proxied.as_str(), MOST_PER_REQUEST, MOST_PER_REQUEST_H2),
        ("GET of a file", files, MOST_PER_FILE, MOST_PER_FILE_H2),
    ] {
        let (total, http2) = of_gateway(folder.path(), requests, sites);
        let each = |total: u64| total as f64 / f64::from(requests);
        println!("{:.2} heap allocations per {what}, {:.2} over HTTP/2", each(total), each(http2));
        assert!(total >= u64::from(requests), "{total} for {requests} requests: they are not counted");
        assert!(total <= most * u64::from(requests) + BY_THE_CLOCK, "{what}: {total} for {requests} requests");
        assert!(http2 <= most_http2 * u64::from(requests) + BY_THE_CLOCK, "{what}: {http2} for {requests} over HTTP/2");
    }
}

#[test]
fn what_is_published_costs_no_allocation_for_each_client() {
    const CLIENTS: usize = 20;
    const ITEMS: u64 = 500;
    let _one = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let endpoint = origin_with("Grip-Hold: stream\r\nGrip-Channel: a\r\n");
    let text = format!(
        "listeners: [{{ bind: 127.0.0.1:0 }}]\nruntime: {{ threads: 1 }}\nlogging: {{ access: off }}\n\
         upstreams: {{ app: {{ endpoints: [\"{endpoint}\"], workers: 4 }} }}\n\
         sites: [{{ routes: [{{ path: /, proxy: app, grip: true }}] }}]\n"
    );
    let loaded = config::load_str(&text, "test.yaml", folder.path(), &|_| None).unwrap();
    let gateway = Gateway::start(loaded.config, Inherited::default(), || IS_COUNTED.set(true)).unwrap();
    let channels = gateway.shared().channels.clone();
    let address = gateway.listeners()[0].addresses[0].as_str();
    let read_until = |client: &mut TcpStream, mark: &str| {
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        while !all.windows(mark.len()).any(|part| part == mark.as_bytes()) {
            let read = client.read(&mut piece).unwrap();
            assert!(read > 0, "the gateway has closed");
            all.extend_from_slice(&piece[..read]);
        }
    };
    let mut held: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
            read_until(&mut client, &"x".repeat(1024));
            client
        })
        .collect();
    let mut bring = |at: u64| {
        let mark = format!("({at})");
        let part = StreamPart::Send(mark.clone().into());
        let item = Item { channel: "a".into(), stream: Some(Content { filters: None, part }), ..Item::default() };
        channels.publish(vec![item]).unwrap();
        held.iter_mut().for_each(|client| read_until(client, &mark));
    };
    (0..50).for_each(&mut bring);
    let before = COUNT.load(Ordering::SeqCst);
    (50..50 + ITEMS).for_each(bring);
    let total = COUNT.load(Ordering::SeqCst) - before;
    println!("{:.2} heap allocations per item for {CLIENTS} clients", total as f64 / ITEMS as f64);
    assert!(total >= ITEMS, "{total} for {ITEMS} items: they are not counted");
    // The item itself, in its thread, and a block of the inbox now and then.
    assert!(total <= 2 * ITEMS + 5 * BY_THE_CLOCK, "{total} for {ITEMS} items to {CLIENTS} clients");
}

/// What a message of a WebSocket that ends at the edge may cost, with its request and the answer to it.
const MOST_PER_MESSAGE: u64 = 22;

/// Answers events, on connections that stay.
fn events_origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || while answer_events(&mut stream).is_some() {});
        }
    });
    format!("http://{address}")
}

fn answer_events(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    let events = if body.starts_with(b"OPEN") { "OPEN\r\n" } else { "TEXT 2\r\nok\r\n" };
    let length = events.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + events).as_bytes()).ok()
}

#[test]
fn a_message_of_a_websocket_stays_within_its_allocations() {
    let _one = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "listeners: [{{ bind: 127.0.0.1:0 }}]\nruntime: {{ threads: 1 }}\n\
         logging: {{ access: {{ to: ./access.log }} }}\n\
         sites: [{{ routes: [{{ path: /, proxy: app, websocket: over_http }}] }}]\n\
         upstreams: {{ app: {{ endpoints: [\"{}\"], workers: 4, keepalive: {{ idle: 60s }} }} }}\n",
        events_origin()
    );
    let loaded = config::load_str(&text, "test.yaml", folder.path(), &|_| None).unwrap();
    let gateway = Gateway::start(loaded.config, Inherited::default(), || IS_COUNTED.set(true)).unwrap();
    let mut client = TcpStream::connect(gateway.listeners()[0].addresses[0].as_str()).unwrap();
    client.write_all(handshake("/ws", &[("User-Agent", "test"), ("Cookie", "sessionid=abc")]).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let messages = 1000;
    let message = Frame::new(TEXT, [b'x'; 64]).masked();
    let total = counted(messages, |_| {
        client.write_all(&message).unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"\x81\x02ok");
    });
    println!("{:.2} heap allocations per message of a WebSocket", total as f64 / f64::from(messages));
    assert!(total >= u64::from(messages), "they are counted");
    assert!(total <= MOST_PER_MESSAGE * u64::from(messages) + BY_THE_CLOCK, "{total} for {messages} messages");
    drop(client);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(gateway.stop(std::time::Duration::from_secs(5), || ()));
}

/// What the store of the cache may take for an object beside its head, its path and its body.
const MOST_PER_OBJECT: i64 = 512;

fn cache_key(number: u64) -> Key {
    let mut key = [0; 32];
    for (part, word) in key.chunks_exact_mut(8).zip(1_u64..) {
        part.copy_from_slice(&(4 * number + word).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    Key::from_bytes(key)
}

#[test]
fn a_stored_response_takes_few_bytes_beside_its_own_and_a_hit_allocates_nothing() {
    const OBJECTS: u64 = 20_000;
    let _one = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let settings = Settings { memory: 1 << 30, max_object: 1 << 20, variants: 16, open_files: 0, disk: None };
    let cache = Store::open(&settings).unwrap();
    let body = bytes::Bytes::from(vec![b'x'; 1024]);
    let mut fields = http::HeaderMap::new();
    for (name, value) in [("content-type", "text/html"), ("etag", "\"0123456789abcdef\""), ("vary", "accept-encoding")]
    {
        fields.insert(name, http::HeaderValue::from_static(value));
    }
    IS_COUNTED.set(true);
    let before = LIVE.load(Ordering::SeqCst);
    for number in 0..OBJECTS {
        let path = format!("/catalogue/items/{number}/?page=1");
        let meta = Meta {
            status: http::StatusCode::OK,
            fields: &fields,
            facts: &[0; 64],
            host: b"shop.example",
            path: path.as_bytes(),
            tags: &[],
            since: cache.moment(),
            primary: None,
            length: Some(1024),
        };
        let mut writer = cache.writer(&cache_key(number), &meta).unwrap();
        writer.push(&body);
        drop(writer.finish());
    }
    let live = LIVE.load(Ordering::SeqCst) - before;
    let hit = |number| match cache.get(&cache_key(number)) {
        Some(Found::Object(object)) => {
            assert_eq!(object.fields().count(), 3);
            assert_eq!(object.body().remaining(), Some(1024));
        }
        other => panic!("{other:?}"),
    };
    hit(0);
    let count = COUNT.load(Ordering::SeqCst);
    (0..OBJECTS).for_each(hit);
    let allocations = COUNT.load(Ordering::SeqCst) - count;
    IS_COUNTED.set(false);
    let Some(Found::Object(object)) = cache.get(&cache_key(12_345)) else { panic!("it is gone") };
    let head: usize = object.fields().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let own = (head + object.facts().len() + object.path().len() + 1024) as i64;
    let (each, counted) = (live / OBJECTS as i64, (cache.numbers().memory_bytes / OBJECTS) as i64);
    println!("{each} bytes for each object, {} beside its own; {counted} are counted", each - own);
    assert!(each > own && each - own <= MOST_PER_OBJECT, "{each} bytes for an object of {own}");
    assert!(counted >= each, "{counted} are counted, of {each}");
    assert_eq!(allocations, 0, "{OBJECTS} hits");
}
