//! For tests: an app on a socket of the test's own thread, and a route whose clients it has held.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::layer::Terms;
use super::links::Links;
use super::signature::{Signer, SigningKey};
use crate::config;
use crate::error::Error;
use crate::http::{Body, ConnectionInfo, Exchange, Host, Protocol, Request, Response, Service, Target};
use crate::observe::metrics::Metrics;
use crate::realtime::hub::{Channels, Local};
use crate::runtime::drain;
use crate::upstream::spool::Budget;
use crate::upstream::{Client, Connector, InForce, Outgoing, RouteTerms, Upstream};

/// What the app answers to a head; `None`: nothing, for ever.
type Script = dyn Fn(&str) -> Option<String>;

/// The whole: app, route and hub.
pub(super) struct Fixture {
    pub(super) terms: Rc<Terms>,
    pub(super) channels: Channels,
    /// What the app was asked.
    pub(super) heads: Rc<RefCell<Vec<String>>>,
    pub(super) client: Rc<Client>,
    /// Which clients a reload would put in force.
    pub(super) in_force: InForce,
    tasks: [JoinHandle<()>; 2],
    _folder: tempfile::TempDir,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Fixture {
    /// With further keys of `realtime` and of the route, each with a comma before it.
    pub(super) fn new(realtime: &str, route: &str, app: impl Fn(&str) -> Option<String> + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("app");
        let text = format!(
            "realtime: {{ publish: {{ bind: \"127.0.0.1:5561\" }}{realtime} }}\n\
             upstreams: {{ app: {{ endpoints: [\"unix:{}\"], workers: 4 }} }}\n\
             sites: [{{ routes: [{{ path: /, proxy: app, grip: true{route} }}] }}]\n",
            socket.display()
        );
        let config = config::load_str(&text, "hostler.yaml", Path::new("/"), &|_| None);
        let config = config.unwrap_or_else(|report| panic!("{report}")).config;
        let (upstream, route, metrics) = (&config.upstreams[0], &config.sites[0].routes[0], Metrics::new());
        let connector = Connector::compile(upstream, &upstream.endpoints[0]).unwrap();
        let compiled = Upstream::compile(upstream, vec![connector], None, metrics.upstream("app"));
        compiled.put_in_force();
        let budget = Budget::new(&config::Spool::default());
        let client = Rc::new(Client::new(compiled.into(), budget, std::sync::Arc::clone(&metrics)));
        let in_force = InForce::default();
        in_force.put(&[Rc::clone(&client)]);
        let channels = Channels::new(metrics.realtime());
        let local = Local::attach(&channels);
        let heads = Rc::new(RefCell::default());
        let listener = UnixListener::bind(&socket).unwrap();
        let tasks = [
            tokio::task::spawn_local(serve(listener, Rc::new(app), Rc::clone(&heads))),
            tokio::task::spawn_local(Rc::clone(&local).run()),
        ];
        let terms = Terms::compile(
            route,
            &config.realtime,
            (Rc::clone(&client), in_force.clone()),
            RouteTerms { holds: true, ..RouteTerms::default() },
            Links::compile(upstream, None),
            Rc::new(Signer::new(SigningKey::compile(&config.realtime.grip))),
            local,
        );
        Self { terms: Rc::new(terms), channels, heads, client, in_force, tasks, _folder: folder }
    }

    /// A client that asks for this.
    pub(super) fn exchange(target: &'static str) -> Exchange {
        let host = Host::parse(Bytes::from_static(b"shop.example")).ok();
        let connection = Rc::new(ConnectionInfo::new("80"));
        Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::from_static(target.as_bytes()), host, None)
    }

    /// What the client gets.
    pub(super) async fn get(&self, exchange: Exchange) -> Result<Response, Error> {
        let exchange = Rc::new(exchange);
        let target = Target::parse(exchange.target.clone()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("host", "shop.example".parse().unwrap());
        let request = Request { method: Method::GET, target, headers, body: Body::Empty, exchange, refused: None };
        Rc::clone(&self.terms).call(&Action(Rc::clone(&self.client)), Box::new(request)).await
    }

    /// The first lines of what the app was asked.
    pub(super) fn lines(&self) -> Vec<String> {
        self.heads.borrow().iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// Publishes what the door would read so.
    pub(super) fn publish(&self, items: &str) {
        let items = crate::realtime::publish::items::read(format!("{{\"items\":[{items}]}}").as_bytes());
        self.channels.publish(items.unwrap()).unwrap();
    }
}

/// What comes of a body within so many seconds.
pub(super) async fn body_of(response: &mut Response, seconds: u64) -> String {
    let (all, is_over) = (RefCell::new(Vec::new()), Cell::new(false));
    let read = async {
        while let Some(data) = response.body_mut().data().await {
            match data {
                Ok(data) => all.borrow_mut().extend_from_slice(&data),
                Err(error) => {
                    all.borrow_mut().extend_from_slice(format!("<{}>", error.reason).as_bytes());
                    break;
                }
            }
        }
        is_over.set(true);
    };
    let _ = tokio::time::timeout(Duration::from_secs(seconds), read).await;
    let end = if is_over.get() { "." } else { "" };
    String::from_utf8(all.into_inner()).unwrap() + end
}

/// When each of twenty clients that are held so is through, from the beginning of a drain that gives each its turn within two
/// seconds.
pub(super) async fn ends_of_a_drain(fields: &'static str) -> Vec<Duration> {
    let house = Rc::new(Fixture::new("", "", move |_| Some(answer(fields, "[app]"))));
    let begun = Instant::now();
    let ends: Vec<_> = (0..20)
        .map(|_| {
            let house = Rc::clone(&house);
            tokio::task::spawn_local(async move {
                let mut response = house.get(Fixture::exchange("/")).await.unwrap();
                assert_eq!(body_of(&mut response, 60).await, "[app].");
                begun.elapsed()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(ends.iter().all(|end| !end.is_finished()), "they are held");
    drain::begin(drain::Ending::within(Duration::from_secs(8)));
    let mut all = Vec::new();
    for end in ends {
        all.push(end.await.unwrap() - Duration::from_secs(5));
    }
    all
}

/// An answer with these fields, which stand between bars, and this body.
pub(super) fn answer(fields: &str, body: &str) -> String {
    let fields: String = fields.split_terminator('|').map(|field| format!("{}\r\n", field.trim())).collect();
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

struct Action(Rc<Client>);

impl Service for Action {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let terms = Rc::new(RouteTerms { holds: true, ..RouteTerms::default() });
        self.0.send(Outgoing { request, body: None, terms }).await
    }
}

async fn serve(listener: UnixListener, script: Rc<Script>, heads: Rc<RefCell<Vec<String>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(visit(stream, Rc::clone(&script), Rc::clone(&heads)));
    }
}

async fn visit(mut stream: UnixStream, script: Rc<Script>, heads: Rc<RefCell<Vec<String>>>) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
        heads.borrow_mut().push(head.clone());
        let Some(answer) = script(&head) else { return std::future::pending().await };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
