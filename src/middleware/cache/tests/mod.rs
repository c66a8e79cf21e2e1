//! The layer over an app that is a script, with time that passes only when everything waits.

mod coalescing;
mod crowds;
mod elsewhere;
mod failures;
mod hits;
mod once;
mod people;
mod stale;
mod unsafe_methods;
mod validation;

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower::Layer as _;

use super::*;
use crate::cache::Key;
use crate::cache::store::{Manner, Meta, Settings, Store, Writer};
use crate::config::{self, RouteCache};
use crate::error::Reason;
use crate::http::{
    Body, CacheVerdict, ConnectionInfo, Exchange, Held, Host, Phase, Protocol, Request, Response, Source, Target,
};
use crate::observe::metrics::{CacheMetrics, Metrics};
use crate::runtime::paused;

const PAGE: &str = "a page of the app";
const SECOND: Duration = Duration::from_secs(1);
/// What an answer usually takes: less than anybody's patience.
const WORK: Duration = Duration::from_millis(800);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the app does with a request.
#[derive(Clone)]
struct Reply {
    /// In the waiting room, before it begins.
    room: Duration,
    /// At work.
    work: Duration,
    answer: Answer,
    phase: Option<Phase>,
    hops: u8,
}

#[derive(Clone)]
enum Answer {
    Page(u16, Vec<(&'static str, String)>, Bytes),
    /// A body in pieces, which the test sends.
    Pieces(u16, Vec<(&'static str, String)>, Option<u64>),
    Fails(Reason),
    Hangs,
    Panics,
}

impl Reply {
    fn of(answer: Answer) -> Self {
        Self { room: Duration::ZERO, work: Duration::ZERO, answer, phase: None, hops: 0 }
    }

    fn fails(reason: Reason) -> Self {
        Self::of(Answer::Fails(reason))
    }

    fn after(self, work: Duration) -> Self {
        Self { work, ..self }
    }

    fn queued(self, room: Duration) -> Self {
        Self { room, ..self }
    }
}

/// `200 | cache-control: max-age=60 => body`; without a body it is [`PAGE`].
fn page(text: &str) -> Reply {
    let (head, body) = text.split_once("=>").unwrap_or((text, PAGE));
    let mut parts = head.split('|').map(str::trim);
    let status = parts.next().unwrap().parse().unwrap();
    let fields = parts.map(|field| {
        let (name, value) = field.split_once(':').unwrap();
        (&*name.trim().to_owned().leak(), value.trim().to_owned())
    });
    Reply::of(Answer::Page(status, fields.collect(), Bytes::copy_from_slice(body.trim().as_bytes())))
}

/// The same with a body that the test sends.
fn pieces(text: &str, length: Option<u64>) -> Reply {
    match page(text).answer {
        Answer::Page(status, fields, _) => Reply::of(Answer::Pieces(status, fields, length)),
        _ => unreachable!(),
    }
}

type Script = Box<dyn FnMut(usize, &Request) -> Reply>;
type Pipe = mpsc::UnboundedSender<Result<Bytes, Reason>>;

/// An app. It counts what it has begun.
struct App {
    script: RefCell<Script>,
    asked: Cell<usize>,
    begun: Cell<usize>,
    seen: RefCell<Vec<(Method, String, HeaderMap)>>,
    priorities: RefCell<Vec<bool>>,
    pipes: RefCell<Vec<Pipe>>,
}

impl Service for App {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        self.asked.set(self.asked.get() + 1);
        let reply = (self.script.borrow_mut())(self.asked.get(), &request);
        let Request { method, target, headers, exchange, .. } = *request;
        exchange.phase.set(Phase::Waiting);
        if !reply.room.is_zero() {
            sleep(reply.room).await;
        }
        exchange.phase.set(Phase::Working);
        exchange.working_since.set(Some(Instant::now()));
        self.begun.set(self.begun.get() + 1);
        self.seen.borrow_mut().push((method, target.as_str().to_owned(), headers));
        self.priorities.borrow_mut().push(exchange.is_background.get());
        if let Some(phase) = reply.phase {
            exchange.phase.set(phase);
        }
        if !reply.work.is_zero() {
            sleep(reply.work).await;
        }
        exchange.hops.set(exchange.hops.get() + reply.hops);
        let (status, fields, body) = match reply.answer {
            Answer::Fails(reason) => return Err(Error::new(reason).detail("as the test wants it")),
            Answer::Hangs => std::future::pending().await,
            Answer::Panics => panic!("as the test wants it"),
            Answer::Page(status, fields, body) => {
                (status, fields, if body.is_empty() { Body::Empty } else { Body::Full(body) })
            }
            Answer::Pieces(status, fields, left) => {
                let (pipe, pieces) = mpsc::unbounded_channel();
                self.pipes.borrow_mut().push(pipe);
                (status, fields, Body::Stream(Box::new(Pieces { pieces, left })))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            response.headers_mut().append(name, HeaderValue::from_str(&value).unwrap());
        }
        if matches!(reply.phase, Some(Phase::Responding)) {
            response.extensions_mut().insert(Held);
        }
        Ok(response)
    }
}

/// A body that the test sends.
struct Pieces {
    pieces: mpsc::UnboundedReceiver<Result<Bytes, Reason>>,
    left: Option<u64>,
}

impl Source for Pieces {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.pieces.poll_recv(cx).map(|piece| {
            let piece = piece?;
            if let (Some(left), Ok(data)) = (&mut self.left, &piece) {
                *left -= data.len() as u64;
            }
            Some(piece.map_err(Error::new))
        })
    }

    fn remaining(&self) -> Option<u64> {
        self.left
    }
}

/// A route with a cache, over an app.
struct Site {
    service: Rc<Cached<Rc<App>>>,
    app: Rc<App>,
    cache: Arc<Cache>,
    metrics: Arc<CacheMetrics>,
}

/// What a client has got.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Result<String, Reason>,
    verdict: CacheVerdict,
}

impl Got {
    fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn cache_status(&self) -> &str {
        self.field("cache-status").unwrap_or_default()
    }

    fn body(&self) -> &str {
        self.body.as_deref().unwrap()
    }
}

fn settings() -> RouteCache {
    RouteCache::default()
}

fn stale_settings() -> RouteCache {
    RouteCache { stale_while_revalidate: seconds(30), stale_if_error: seconds(300), ..settings() }
}

fn store(memory: u64) -> Arc<Store> {
    let settings = Settings { memory, max_object: memory / 4, variants: 16, open_files: 0, disk: None };
    Store::open(&settings).unwrap()
}

/// A store in whose memory so many bytes are left for what is being written, for as long as others write.
fn crowded_store(memory: u64, left: u64) -> (Arc<Store>, Vec<Writer>) {
    let (store, fields) = (store(memory), HeaderMap::new());
    let writers = [1, 2].map(|number| {
        let meta = Meta {
            status: StatusCode::OK,
            fields: &fields,
            facts: b"",
            host: b"other",
            path: b"/",
            tags: &[],
            since: store.moment(),
            primary: None,
            length: None,
        };
        let mut writer = store.writer(&Key::from_bytes([number; 32]), &meta).unwrap();
        let length = memory / 2 - left - store.numbers().memory_bytes;
        writer.push(&Bytes::from(vec![b'x'; usize::try_from(length.min(memory / 4)).unwrap()]));
        assert!(writer.is_stored());
        writer
    });
    assert_eq!(store.numbers().memory_bytes, memory / 2 - left);
    (store, writers.into())
}

impl Site {
    fn new(script: impl FnMut(usize, &Request) -> Reply + 'static) -> Self {
        Self::with(settings(), script)
    }

    fn with(settings: RouteCache, script: impl FnMut(usize, &Request) -> Reply + 'static) -> Self {
        Self::over(store(64 << 20), settings, script)
    }

    fn over(store: Arc<Store>, settings: RouteCache, script: impl FnMut(usize, &Request) -> Reply + 'static) -> Self {
        Self::of(Cache::new(store), &settings, false, Box::new(script))
    }

    fn of(cache: Arc<Cache>, settings: &RouteCache, is_guarded: bool, script: Script) -> Self {
        let place = Place {
            site: "shop".into(),
            route: "/".into(),
            upstream: "app".into(),
            identity: Arc::new([HeaderName::from_static("x-user")]),
            purgers: config::AllowedClients::default(),
        };
        let metrics = Metrics::new().cache("/");
        let caching = Caching::of(settings, is_guarded, place, Arc::clone(&cache), Arc::clone(&metrics));
        let app = app(script);
        let layer = CacheLayer::new(Some(Arc::new(caching)));
        Self { service: Rc::new(layer.layer(Rc::clone(&app))), app, cache, metrics }
    }

    fn begun(&self) -> usize {
        self.app.begun.get()
    }

    async fn get(&self, text: &str) -> Got {
        self.send(request(text)).await
    }

    async fn send(&self, request: Box<Request>) -> Got {
        finish(&self.service, request).await
    }

    /// As a client that waits for its answer while the test goes on.
    fn start(&self, text: &str) -> JoinHandle<Got> {
        let (service, request) = (Rc::clone(&self.service), request(text));
        tokio::task::spawn_local(async move { finish(&service, request).await })
    }

    async fn start_many(&self, count: usize, text: &str) -> Vec<JoinHandle<Got>> {
        let all = (0..count).map(|_| self.start(text)).collect();
        settle().await;
        all
    }

    fn pipe(&self, number: usize) -> Pipe {
        self.app.pipes.borrow()[number].clone()
    }

    fn counted(&self, verdict: CacheVerdict) -> u64 {
        self.metrics.requests(verdict)
    }
}

fn app(script: Script) -> Rc<App> {
    Rc::new(App {
        script: RefCell::new(script),
        asked: Cell::new(0),
        begun: Cell::new(0),
        seen: RefCell::default(),
        priorities: RefCell::default(),
        pipes: RefCell::default(),
    })
}

/// `GET /a?b | cookie: a=1`; the host is `shop.example` unless written.
fn request(text: &str) -> Box<Request> {
    let mut parts = text.split('|').map(str::trim);
    let (method, target) = parts.next().unwrap().split_once(' ').unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("shop.example"));
    for field in parts {
        let (name, value) = field.split_once(':').unwrap();
        let name = HeaderName::from_bytes(name.trim().as_bytes()).unwrap();
        if name == "host" {
            headers.remove("host");
        }
        headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let host = Host::parse(Bytes::copy_from_slice(headers["host"].as_bytes())).unwrap();
    let target = Target::parse(Bytes::copy_from_slice(target.as_bytes())).unwrap();
    let connection = Rc::new(ConnectionInfo::new("80"));
    let exchange = Exchange::new(connection, Protocol::Http11, method.clone(), target.bytes(), Some(host), None);
    Box::new(Request { method, target, headers, body: Body::Empty, exchange: Rc::new(exchange), refused: None })
}

async fn finish(service: &Cached<Rc<App>>, request: Box<Request>) -> Got {
    let exchange = Rc::clone(&request.exchange);
    let result = service.call(request).await;
    let verdict = exchange.cache.get();
    let got = match result {
        Ok(response) => {
            let (mut parts, body) = response.into_parts();
            exchange.answer_fields.apply(&mut parts.headers);
            Got {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: read(body).await,
                verdict: verdict.unwrap(),
            }
        }
        Err(error) => {
            let mut headers = HeaderMap::new();
            exchange.answer_fields.apply(&mut headers);
            Got { status: 0, headers, body: Err(error.reason), verdict: verdict.unwrap() }
        }
    };
    exchange.finish(crate::http::Finish::Complete);
    got
}

async fn read(mut body: Body) -> Result<String, Reason> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data.map_err(|error| error.reason)?);
    }
    Ok(String::from_utf8(all).unwrap())
}

/// Lets all tasks go as far as they can, without time that passes.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

async fn all(clients: Vec<JoinHandle<Got>>) -> Vec<Got> {
    let mut got = Vec::new();
    for client in clients {
        got.push(client.await.unwrap());
    }
    got
}
