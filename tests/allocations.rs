//! Heap allocations of a GET over HTTP/1.1 and HTTP/2, proxied and of a file, counted in the gateway's own thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use hostler::app::Gateway;
use hostler::config;
use hostler::edge::inherited::Inherited;

use crate::support::frames::{self, DATA, END_HEADERS, END_STREAM, GOAWAY, RST_STREAM, WINDOW_UPDATE, block, frame};

/// Held by the test, so that it only ever goes down. Lower it with the count.
const MOST_PER_REQUEST: u64 = 7;
/// The same over HTTP/2, one request at a time.
const MOST_PER_REQUEST_H2: u64 = 17;

/// A small file from memory.
const MOST_PER_FILE: u64 = 4;
/// The same over HTTP/2.
const MOST_PER_FILE_H2: u64 = 16;

/// The system's allocator, with a count of what the gateway's thread asks for.
pub(crate) struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // The thread may be past its thread-local values.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is handed on unchanged to the system's allocator, which keeps the contract of `GlobalAlloc`;
// counting touches an atomic and a thread-local without a destructor, neither of which allocates.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System` by `alloc` or `realloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the pointer came from `System` with this layout; `size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Answers each request on its one connection with 1 KiB.
fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let body = "x".repeat(1024);
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len());
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

/// What the clock brings now and then (the sweep, the date, a look at a file) is nobody's.
const BY_THE_CLOCK: u64 = 20;

#[test]
fn answers_stay_within_their_allocations() {
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
