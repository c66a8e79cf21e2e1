//! What the pieces of the way of a request cost, each by itself: reading and writing heads, names, text.
//!
//! `cargo bench --bench pieces`. The slot of the waiting room, which threads share, is in `slots`.

use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use divan::{AllocProfiler, Bencher};
use hostler::cache::key::{Base, By, Key, Parts};
use hostler::cache::policy::{Asked, CacheStatus, Context, Rules, Serve, Times, serve, storable, vary};
use hostler::config;
use hostler::edge::frame_guard::budgets::Budgets;
use hostler::http::{
    Body, Coding, ConnectionInfo, Exchange, Host, Protocol, Request, RequestId, Response, Service, Target, fields, text,
};
use hostler::http1::chunked::{Decoder, Step};
use hostler::http1::client::{self, write_head};
use hostler::http1::head::HeadLimits;
use hostler::http1::{request, response};
use hostler::middleware::compress::{CompressLayer, Compression, Compressor};
use hostler::observe::metrics::Metrics;
use hostler::uwsgi;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tower::Layer as _;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const LIMITS: HeadLimits = HeadLimits { size: 32 << 10, count: 100 };

const SMALL_REQUEST: &[u8] =
    b"GET /a/page?x=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";

const BROWSER_REQUEST: &[u8] = b"GET /products/shoes/?page=2&sort=price HTTP/1.1\r\n\
    Host: www.shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://www.shop.example/products/shoes/\r\n\
    Connection: keep-alive\r\nCookie: csrftoken=hB8qkz2mJ7wq0fVx; sessionid=u3k2m9x0a8d7f6g5h4j3k2l1q0w9e8r7\r\n\
    Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n\
    Priority: u=0, i\r\n\r\n";

const DJANGO_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Sat, 28 Nov 2026 12:00:00 GMT\r\n\
    Connection: close\r\nContent-Type: text/html; charset=utf-8\r\nX-Frame-Options: DENY\r\nContent-Length: 10422\r\n\
    Vary: Cookie\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: same-origin\r\n\
    Cross-Origin-Opener-Policy: same-origin\r\n\r\n";

fn main() {
    divan::main();
}

#[divan::bench(args = [SMALL_REQUEST, BROWSER_REQUEST])]
fn read_request_head(bencher: Bencher<'_, '_>, head: &[u8]) {
    let head = Bytes::copy_from_slice(head);
    bencher.bench(|| {
        // As the server does: the map goes back to the thread's own.
        let read = request::parse(black_box(&head), &LIMITS).map_err(|refusal| refusal.reason);
        fields::give_map(read.expect("it is a good head").headers);
    });
}

#[divan::bench]
fn read_response_head(bencher: Bencher<'_, '_>) {
    let head = Bytes::from_static(DJANGO_RESPONSE);
    bencher.bench(|| {
        let read = response::parse(black_box(&head), &Method::GET);
        fields::give_map(read.expect("it is a good head").headers);
    });
}

#[divan::bench]
fn read_uwsgi_response_head(bencher: Bencher<'_, '_>) {
    let head = Bytes::from_static(DJANGO_RESPONSE);
    bencher.bench(|| {
        let read = uwsgi::response::parse(black_box(&head), &Method::GET);
        fields::give_map(read.expect("it is a good head").headers);
    });
}

#[divan::bench]
fn write_request_head(bencher: Bencher<'_, '_>) {
    let head = request::parse(&Bytes::from_static(BROWSER_REQUEST), &LIMITS).map_err(|refusal| refusal.reason);
    let head = head.expect("it is a good head");
    let mut out = Vec::with_capacity(16 << 10);
    bencher.bench_local(|| {
        out.clear();
        let request = client::Request {
            method: &head.method,
            target: &head.target,
            headers: &head.headers,
            identity: &[],
            host: None,
            length: None,
        };
        write_head(&mut out, black_box(&request), |_| {}, |_| {});
        black_box(&out);
    });
}

#[divan::bench]
fn read_chunks(bencher: Bencher<'_, '_>) {
    let body = [&b"1000\r\n"[..], &[b'x'; 4096], b"\r\n"].concat().repeat(16);
    bencher.bench(|| {
        let (mut decoder, mut at) = (Decoder::default(), 0);
        while at < body.len() {
            match decoder.step(black_box(&body[at..])).expect("it is a good body") {
                Step::Data { skip, data } => at += skip + data,
                Step::More { skip } | Step::End { skip } => at += skip,
            }
        }
    });
}

#[divan::bench]
fn read_target() -> Target {
    Target::parse(black_box(Bytes::from_static(b"/products/shoes/?page=2&sort=price"))).expect("it is a good target")
}

#[divan::bench]
fn read_host() -> Host {
    Host::parse(black_box(Bytes::from_static(b"www.shop.example:8443"))).expect("it is a good host")
}

#[divan::bench]
fn make_request_id() -> RequestId {
    RequestId::new(black_box(1_795_381_380_123))
}

#[divan::bench]
fn write_address(bencher: Bencher<'_, '_>) {
    let mut out = Vec::with_capacity(64);
    bencher.bench_local(|| {
        out.clear();
        text::append_address(&mut out, black_box([203, 0, 113, 195].into()));
        black_box(&out);
    });
}

/// What a hit of a stored page costs to decide, its key and its variant included.
#[divan::bench(args = ["", "csrftoken=hB8qkz2mJ7wq0fVx; _ga=GA1.2.1234567890.1234567890; _gid=GA1.2.987654321.123456789"])]
fn decide_a_hit(bencher: Bencher<'_, '_>, cookies: &str) {
    let head = request::parse(&Bytes::from_static(BROWSER_REQUEST), &LIMITS).map_err(|refusal| refusal.reason);
    let head = head.expect("it is a good head");
    let mut headers = head.headers;
    headers.insert(header::COOKIE, HeaderValue::from_str(cookies).expect("it is a good value"));
    if cookies.is_empty() {
        headers.remove(header::COOKIE);
    }
    let (rules, by, mut scratch) = (Rules::default(), By::default(), Vec::with_capacity(1024));
    let base = Base::new(["www.shop.example", "/"], "app");
    let asked = Asked::of(&Method::GET, &headers, Context::default(), &rules);
    let page = response::parse(&Bytes::from_static(DJANGO_RESPONSE), &Method::GET);
    let mut page = page.expect("it is a good head").headers;
    page.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
    let times = Times { requested: 0, received: 0, wall: 0 };
    let storable = storable(&asked, StatusCode::OK, &page, &times, &rules).expect("it says how long");
    bencher.bench_local(|| {
        let asked = Asked::of(&Method::GET, black_box(&headers), Context::default(), &rules);
        let parts = Parts {
            base: &base,
            is_secure: true,
            host: b"www.shop.example",
            path: head.target.raw_path(),
            query: head.target.query_with_mark(),
            headers: &headers,
        };
        let key: Key = by.key(&parts, &mut scratch);
        let variant = vary::variant(key, &storable.vary, &headers, &rules, &mut scratch);
        let served = serve(Some(&storable.stored), &asked, &rules, black_box(1000));
        assert_eq!(served, Serve::Hit);
        scratch.clear();
        CacheStatus::of(served, true, storable.stored.ttl(1000)).write(&mut scratch);
        variant
    });
}

/// What it costs to read a page that is to be stored.
#[divan::bench]
fn decide_to_store(bencher: Bencher<'_, '_>) {
    let page = response::parse(&Bytes::from_static(DJANGO_RESPONSE), &Method::GET);
    let mut page = page.expect("it is a good head").headers;
    page.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60, stale-while-revalidate=30"));
    let rules = Rules::default();
    let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), &rules);
    let times = Times { requested: 0, received: 0, wall: 0 };
    bencher.bench_local(|| storable(&asked, StatusCode::OK, black_box(&page), &times, &rules));
}

/// A HEADERS frame of 40 bytes, as the guard of HTTP/2 counts it.
#[divan::bench]
fn count_a_frame(bencher: Bencher<'_, '_>) {
    let frame = [&[0, 0, 40, 1, 5, 0, 0, 0, 1][..], &[0x82; 40]].concat();
    let mut budgets = Budgets::new(32 << 10, std::time::Duration::ZERO);
    bencher.bench_local(|| black_box(budgets.received(black_box(&frame))).is_ok());
}

/// An app that answers with so much JSON.
struct App(Bytes);

impl Service for App {
    type Error = hostler::error::Error;

    async fn call(&self, _: Box<Request>) -> Result<Response, Self::Error> {
        let mut response = Response::new(Body::Full(self.0.clone()));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        response.headers_mut().insert("etag", HeaderValue::from_static("\"0123456789abcdef\""));
        Ok(response)
    }
}

/// Rows as an API lists them.
fn json(length: usize) -> Bytes {
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let words = ["comfortable", "leather", "boots", "made", "in", "an", "old", "town", "checked", "before", "delivery"];
    let mut text = String::from("[");
    for id in 0.. {
        if text.len() >= length {
            break;
        }
        let description: Vec<&str> = (0..20).map(|_| words[next() as usize % words.len()]).collect();
        let (hash, price) = (next(), next() % 100_000);
        text += &format!(
            "{{\"id\": {id}, \"hash\": \"{hash:016x}\", \"email\": \"user{id}@shop.example\", \"price\": {}.{:02}, \"in_stock\": {}, \
             \"description\": \"{}\"}}, ",
            price / 100,
            price % 100,
            next() % 2 == 0,
            description.join(" ")
        );
    }
    text.truncate(length);
    text.into()
}

/// A whole answer through the layer, with its fields.
#[divan::bench(args = [1, 10, 100], consts = [0, 1, 2])]
fn compress_json<const CODING: usize>(bencher: Bencher<'_, '_>, kib: usize) {
    let text = "sites: [{ routes: [{ path: /, respond: { body: x }, compress: { min_size: 0 } }] }]";
    let loaded = config::load_str(text, "bench.yaml", Path::new("/"), &|_| None).expect("a good file");
    let compressor = Compressor::new(1, Metrics::new().compression());
    let layer = CompressLayer::new(Compression::compile(&loaded.config.sites[0].routes[0], &compressor));
    let app = layer.layer(App(json(kib << 10)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let connection = Rc::new(ConnectionInfo::new("80"));
    let request = || {
        let exchange = Exchange::new(Rc::clone(&connection), Protocol::Http11, Method::GET, Bytes::new(), None, None);
        let accept = (header::ACCEPT_ENCODING, Coding::ALL[CODING].value());
        Box::new(Request {
            method: Method::GET,
            target: Target::parse(Bytes::from_static(b"/")).expect("a good target"),
            headers: HeaderMap::from_iter([accept]),
            body: Body::Empty,
            exchange: Rc::new(exchange),
            refused: None,
        })
    };
    bencher
        .counter(divan::counter::BytesCount::new(kib << 10))
        .bench_local(|| black_box(runtime.block_on(app.call(request()))).expect("an answer").body().remaining());
}
