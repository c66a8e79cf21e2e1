//! Heap allocations of a proxied GET over HTTP/1.1, counted in the gateway's own thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use hostler::app::Gateway;
use hostler::config;

/// Held by the test, so that it only ever goes down. Lower it with the count.
const MOST_PER_REQUEST: u64 = 8;

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

#[test]
fn a_proxied_get_stays_within_its_allocations() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "listeners: [{{ bind: 127.0.0.1:0 }}]\nruntime: {{ threads: 1 }}\nlogging: {{ access: {{ to: ./access.log }} }}\n\
         sites: [{{ routes: [{{ path: /, proxy: app }}] }}]\nupstreams: {{ app: {{ endpoints: [\"{}\"], workers: 4, keepalive: {{ idle: 60s }} }} }}\n",
        origin()
    );
    let loaded = config::load_str(&text, "test.yaml", Path::new(folder.path()), &|_| None).unwrap();
    let gateway = Gateway::start(loaded.config, || IS_COUNTED.set(true)).unwrap();
    let mut client = TcpStream::connect(gateway.listeners()[0].address.as_str()).unwrap();
    // Buffers, metric handles and the date are made by the first requests.
    (0..200).for_each(|_| get(&mut client));
    let before = COUNT.load(Ordering::SeqCst);
    let requests = 1000;
    (0..requests).for_each(|_| get(&mut client));
    let total = COUNT.load(Ordering::SeqCst) - before;
    println!("{:.2} heap allocations per proxied GET", total as f64 / requests as f64);
    // What the clock brings now and then (the sweep, the date) is nobody's.
    let by_the_clock = 20;
    assert!(total <= MOST_PER_REQUEST * requests + by_the_clock, "{total} allocations for {requests} requests");
    let line = std::fs::read_to_string(folder.path().join("access.log"));
    assert!(line.is_ok(), "the access log was on");
    drop(client);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(gateway.stop(std::time::Duration::from_secs(5)));
}
