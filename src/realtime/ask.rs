//! Requests of our own to the app of a route, for the sake of a client that is held: through the waiting room, with the rules
//! of every exchange for what may be sent again.
//!
//! What cannot have reached the app is sent again here for a while where an ordinary request would be answered with 503: the
//! client waits anyway, and does not ask by itself. What may have been begun is not.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config;
use crate::error::{Error, Reason, Retry};
use crate::http::{Body, Exchange, ExchangeGuard, Finish, Handovers, Phase, Request, Response, Target};
use crate::runtime::Deadline;
use crate::runtime::chance::some_of;
use crate::upstream::spool::{self, Budget, Share};
use crate::upstream::{Client, InForce, Outgoing, RouteTerms};

/// For how long a request is sent again that cannot have reached the app.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first pause before that; each is twice as long as the one before, and shorter by chance.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The part of the waiting room that those who are held may fill: the rest is for those who wait for a page.
const SHARE_OF_ROOM: usize = 4;

/// A thread's way to the app of a route.
pub struct Way {
    /// As it was when the route was compiled: whose name is looked up among those in force.
    client: Rc<Client>,
    in_force: InForce,
    terms: Rc<RouteTerms>,
    /// From a request to the head of its answer, waiting included.
    timeout: Option<Duration>,
    budget: Arc<Budget>,
    /// How many requests of the route are in the waiting room or with a worker, over all threads.
    places: Arc<Semaphore>,
}

/// What is asked.
pub struct Question {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: Target,
    /// What of the client's fields may pass, and what goes with them.
    pub headers: Rc<HeaderMap>,
    /// What only the edge may say: it passes where a client's field of that name does not.
    pub told: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// How far it has come.
    pub progress: Progress,
}

/// How far a request has come, for whoever may not need it any more.
#[derive(Clone, Default)]
pub struct Progress(Rc<RefCell<Option<Rc<Exchange>>>>);

impl Progress {
    /// Whether a worker may have it now. One that waits, or is being connected, nobody has seen.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        let exchange = self.0.borrow();
        exchange.as_ref().is_some_and(|exchange| matches!(exchange.phase.get(), Phase::Working | Phase::Responding))
    }
}

/// There is no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// Why.
    pub error: Error,
    /// Whether that has been counted under the upstream's name.
    pub is_counted: bool,
}

impl Way {
    /// How many requests of a route for clients that are held are in its upstream's waiting room at a time, or with a worker.
    #[must_use]
    pub fn places(upstream: &config::Upstream) -> Arc<Semaphore> {
        let places = (upstream.waiting_room.limit / SHARE_OF_ROOM).max(1);
        Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)))
    }

    /// To the app of a route, whose client of this thread is `client`. All threads share `places`.
    #[must_use]
    pub fn compile(
        route: &config::Route,
        client: Rc<Client>,
        in_force: InForce,
        budget: Arc<Budget>,
        identity_names: Arc<[HeaderName]>,
        places: Arc<Semaphore>,
    ) -> Self {
        let terms = RouteTerms {
            mount: route.mount.as_deref().map(Box::from),
            share: Share { memory: route.buffer.memory, disk: route.buffer.disk, client: None },
            reads_ahead: true,
            // What is asked here is answered here.
            handovers: Handovers::default(),
            holds: false,
            tunnel: None,
            priority: route.priority,
            identity_names,
        };
        Self { client, in_force, terms: Rc::new(terms), timeout: route.timeout, budget, places }
    }

    /// Names by which the edge tells apps who asks.
    #[must_use]
    pub fn identity_names(&self) -> &[HeaderName] {
        &self.terms.identity_names
    }

    /// For how long the rest of an answer may take.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.client.head_timeout()
    }

    /// The key under `upstreams`.
    #[must_use]
    pub fn upstream(&self) -> &str {
        self.client.name()
    }

    /// The app has answered with what it must not: that is counted and told under its upstream's name.
    pub fn complain(&self, exchange: &Exchange, reason: Reason, detail: &str) {
        self.client.complain(exchange, reason, detail);
    }

    /// Asks, for the client of `exchange`, which need not be there any more.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn ask(&self, exchange: &Exchange, question: &Question) -> Result<Response, Unanswered> {
        let mut patience: Option<(Instant, Duration)> = None;
        loop {
            let place = self.places.acquire().await;
            let answer = self.ask_once(exchange, question).await;
            drop(place);
            let unanswered = match answer {
                Ok(response) => return Ok(response),
                Err(unanswered) => unanswered,
            };
            let (until, pause) = patience.get_or_insert_with(|| (Instant::now() + PATIENCE, PAUSE));
            if !is_worth_another(&unanswered.error) || Instant::now() >= *until {
                return Err(unanswered);
            }
            tokio::time::sleep(shortened(*pause)).await;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The same as any request of a client: one that finds no room is not sent again.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn ask_once(&self, exchange: &Exchange, question: &Question) -> Result<Response, Unanswered> {
        let Question { method, target, headers, told, body, progress } = question;
        let asking = Rc::new(exchange.beside_now(method.clone(), target.bytes()));
        *progress.0.borrow_mut() = Some(Rc::clone(&asking));
        // However it ends: whoever asks may leave meanwhile.
        let guard = ExchangeGuard(Rc::clone(&asking));
        for (name, value) in exchange.identity.fields().iter().chain(told) {
            asking.identity.tell(name.clone(), value.clone());
        }
        let answer = self.send(&asking, method, target, headers, body.clone()).await;
        asking.finish(Finish::Complete);
        drop(guard);
        self.tell(exchange, &asking);
        answer.map_err(|error| Unanswered { error, is_counted: asking.is_counted.get() })
    }

    async fn send(
        &self,
        asking: &Rc<Exchange>,
        method: &Method,
        target: &Target,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response, Error> {
        let body = match body.is_empty() {
            true => None,
            false => {
                // It is in memory already: the route's share is for those that are received.
                let memory = self.terms.share.memory.max(body.len() as u64);
                let share = Share { client: asking.client.get(), memory, ..self.terms.share };
                spool::receive(Body::Full(body), u64::MAX, share, &self.budget).await?
            }
        };
        let request = Request {
            method: method.clone(),
            target: target.clone(),
            headers: headers.clone(),
            body: Body::Empty,
            exchange: Rc::clone(asking),
            refused: None,
        };
        let outgoing = Outgoing { request: Box::new(request), body, terms: Rc::clone(&self.terms) };
        let client = self.in_force.client(&self.client);
        asking.tick();
        match self.timeout {
            None => client.send(outgoing).await,
            Some(timeout) => {
                let late = |_| {
                    let phase = asking.phase.get();
                    let is_begun = matches!(phase, Phase::Working | Phase::Responding);
                    let retry = if is_begun { Retry::Never } else { Retry::Unsent };
                    Err(Error::new(Reason::RouteTimeout).detail(phase.as_str()).retry(retry))
                };
                Deadline::new().bound(timeout, client.send(outgoing)).await.unwrap_or_else(late)
            }
        }
    }

    /// The log tells of the client's exchange alone: the last endpoint, and the time that its workers have had.
    fn tell(&self, exchange: &Exchange, asking: &Exchange) {
        if exchange.is_finished() {
            return;
        }
        exchange.endpoint.borrow_mut().clone_from(&asking.endpoint.borrow());
        let of_it = asking.timings.get();
        exchange.time(|timings| {
            timings.wait += of_it.wait;
            timings.connect += of_it.connect;
            timings.head += of_it.head;
        });
        exchange.retries.set(exchange.retries.get() + asking.retries.get());
    }
}

/// Whether the app cannot have begun it, and may yet be there. Where nobody answers connect it has been held already.
fn is_worth_another(error: &Error) -> bool {
    use Reason as R;
    match error.reason {
        R::QueueFull | R::QueueTimeout | R::BacklogFull | R::SpoolFull | R::NoDescriptors => true,
        R::ConnectRefused | R::SocketMissing | R::NoEndpoint => false,
        _ => error.retry == Retry::Unsent,
    }
}

/// Half of it at least: those who were refused together do not come back together.
fn shortened(pause: Duration) -> Duration {
    pause / 2 + some_of(pause / 2)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::http::{ConnectionInfo, Protocol};
    use crate::observe::metrics::Metrics;
    use crate::upstream::{Connector, Upstream};

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// A thread's client of a worker at this socket, with these keys of its upstream.
    fn client(socket: &Path, keys: &str) -> (Rc<Client>, config::Route) {
        let text = format!(
            "upstreams: {{ app: {{ endpoints: ['unix:{}'], workers: 1, {keys} }} }}\nsites: [{{ routes: [{{ path: /, proxy: app }}] }}]",
            socket.display()
        );
        let config = config::load_str(&text, "f", Path::new("/"), &|_| None).unwrap().config;
        let (metrics, settings) = (Metrics::new(), &config.upstreams[0]);
        let connectors = settings.endpoints.iter().map(|endpoint| Connector::compile(settings, endpoint).unwrap());
        let upstream = Arc::new(Upstream::compile(settings, connectors.collect(), None, metrics.upstream("app")));
        upstream.put_in_force();
        let client = Client::new(upstream, Budget::new(&config::Spool::default()), metrics);
        (Rc::new(client), config.sites[0].routes[0].clone())
    }

    fn way(client: &Rc<Client>, route: &config::Route, in_force: &InForce) -> Way {
        let budget = Budget::new(&config::Spool::default());
        let places = Arc::new(Semaphore::new(4));
        Way::compile(route, Rc::clone(client), in_force.clone(), budget, Arc::new([]), places)
    }

    fn exchange() -> Exchange {
        let connection = Rc::new(ConnectionInfo::new("80"));
        Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::new(), None, None)
    }

    fn question(body: &'static [u8]) -> Question {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from_static("a=1"));
        headers.insert("grip-sig", HeaderValue::from_static("forged"));
        let told = vec![(HeaderName::from_static("grip-sig"), HeaderValue::from_static("true"))];
        let (method, target) = (Method::POST, Target::from_static("/ws?x"));
        let (body, progress) = (Bytes::from_static(body), Progress::default());
        Question { method, target, headers: Rc::new(headers), told, body, progress }
    }

    /// Answers every request with these bytes, and notes them. Without any it closes when it has read one.
    async fn serve(listener: UnixListener, answer: &'static str, heard: Rc<RefCell<Vec<String>>>) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            // A body of two bytes, or none.
            while !all.ends_with(b"\r\n\r\n") && !all.ends_with(b"\r\n\r\nhi") {
                if stream.read_buf(&mut all).await.unwrap() == 0 {
                    break;
                }
                if all.windows(17).any(|part| part == b"content-length: 2") && all.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut all).await.unwrap();
                }
            }
            heard.borrow_mut().push(String::from_utf8(all).unwrap());
            tokio::task::yield_now().await;
            // An error is one that has left.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }

    /// Runs a test before a worker that answers so.
    fn before(answer: &'static str, test: impl AsyncFnOnce(&Path, Rc<RefCell<Vec<String>>>)) {
        crate::runtime::block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("app.sock");
            let heard = Rc::new(RefCell::new(Vec::new()));
            let listener = UnixListener::bind(&socket).unwrap();
            let worker = tokio::task::spawn_local(serve(listener, answer, Rc::clone(&heard)));
            test(&socket, heard).await;
            worker.abort();
        })
        .unwrap();
    }

    #[test]
    fn the_app_gets_what_is_asked_and_what_only_the_edge_may_say() {
        before(OK, async |socket, heard| {
            let (client, route) = client(socket, "");
            let (way, exchange) = (way(&client, &route, &InForce::default()), exchange());
            let mut answer = way.ask(&exchange, &question(b"hi")).await.unwrap();
            assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "ok");
            way.ask(&exchange, &question(b"")).await.unwrap();
            let heard = heard.borrow();
            assert!(
                heard[0].starts_with("POST /ws?x HTTP/1.1\r\n") && heard[0].ends_with("\r\n\r\nhi"),
                "{}",
                heard[0]
            );
            for line in ["\r\ncookie: a=1\r\n", "\r\ngrip-sig: true\r\n", "\r\ncontent-length: 2\r\n"] {
                assert!(heard[0].contains(line), "{line} in {}", heard[0]);
            }
            assert!(!heard[0].contains("forged"));
            assert!(heard[1].contains("\r\ncontent-length: 0\r\n"), "{}", heard[1]);
        });
    }

    #[test]
    fn what_finds_no_room_is_asked_again_until_it_has_its_answer() {
        before(OK, async |socket, heard| {
            let (client, route) = client(socket, "waiting_room: { limit: 1 }");
            let way = Rc::new(way(&client, &route, &InForce::default()));
            let asking = (0..4).map(|_| {
                let (way, exchange) = (Rc::clone(&way), exchange());
                tokio::task::spawn_local(async move { way.ask(&exchange, &question(b"hi")).await.map(drop) })
            });
            let asking: Vec<_> = asking.collect();
            for asked in asking {
                asked.await.unwrap().unwrap();
            }
            assert_eq!(heard.borrow().len(), 4);
        });
    }

    #[test]
    fn what_is_asked_need_not_fit_into_the_routes_share_of_what_is_received() {
        before(OK, async |socket, heard| {
            let (client, mut route) = client(socket, "");
            (route.buffer.memory, route.buffer.disk) = (1, 0);
            way(&client, &route, &InForce::default()).ask(&exchange(), &question(b"hi")).await.unwrap();
            assert_eq!(heard.borrow().len(), 1);
        });
    }

    #[test]
    fn who_is_held_leaves_most_of_the_waiting_room_to_others() {
        let (client, _) = client(Path::new("/nowhere/app.sock"), "waiting_room: { limit: 100 }");
        assert_eq!(Way::places(client.upstream_config()).available_permits(), 25);
        let (client, _) = self::client(Path::new("/nowhere/app.sock"), "waiting_room: { limit: 1 }");
        assert_eq!(Way::places(client.upstream_config()).available_permits(), 1);
    }

    #[test]
    fn it_is_known_whether_a_worker_may_have_it() {
        let progress = Progress::default();
        assert!(!progress.has_begun());
        let exchange = Rc::new(exchange());
        *progress.0.borrow_mut() = Some(Rc::clone(&exchange));
        for (phase, has_begun) in
            [(Phase::Waiting, false), (Phase::Connecting, false), (Phase::Working, true), (Phase::Waiting, false)]
        {
            exchange.phase.set(phase);
            assert_eq!(progress.has_begun(), has_begun, "{phase:?}");
        }
    }

    #[test]
    fn what_may_have_been_begun_is_not_asked_again() {
        before("", async |socket, heard| {
            let (client, route) = client(socket, "");
            let (way, exchange) = (way(&client, &route, &InForce::default()), exchange());
            let unanswered = way.ask(&exchange, &question(b"hi")).await.unwrap_err();
            assert_eq!((unanswered.error.reason, unanswered.is_counted), (Reason::EofBeforeHead, true));
            assert_eq!(heard.borrow().len(), 1);
        });
    }

    #[test]
    fn the_upstream_in_force_by_that_name_is_asked() {
        before(OK, async |socket, heard| {
            let (old, route) = client(Path::new("/nowhere/app.sock"), "hold: 0s");
            let (new, _) = client(socket, "");
            let in_force = InForce::default();
            let (way, exchange) = (way(&old, &route, &in_force), exchange());
            assert_eq!(way.ask(&exchange, &question(b"")).await.unwrap_err().error.reason, Reason::SocketMissing);
            in_force.put(&[new]);
            way.ask(&exchange, &question(b"")).await.unwrap();
            in_force.put(&[]);
            assert!(way.ask(&exchange, &question(b"")).await.is_err());
            assert_eq!(heard.borrow().len(), 1);
        });
    }

    #[test]
    fn only_what_cannot_have_been_begun_is_worth_another_try() {
        for (reason, retry, expected) in [
            (Reason::QueueFull, Retry::Never, true),
            (Reason::QueueTimeout, Retry::Never, true),
            (Reason::SpoolFull, Retry::Never, true),
            (Reason::ResetBeforeHead, Retry::Unsent, true),
            (Reason::ResetBeforeHead, Retry::IfIdempotent, false),
            (Reason::EofBeforeHead, Retry::IfIdempotent, false),
            (Reason::HeadTimeout, Retry::IfIdempotent, false),
            (Reason::RouteTimeout, Retry::Never, false),
            (Reason::RouteTimeout, Retry::Unsent, true),
            (Reason::ConnectTimeout, Retry::Unsent, true),
            (Reason::ConnectRefused, Retry::Unsent, false),
            (Reason::SocketMissing, Retry::Unsent, false),
        ] {
            let error = Error::new(reason).retry(retry);
            assert_eq!(is_worth_another(&error), expected, "{reason} {retry:?}");
        }
    }

    #[test]
    fn pauses_differ_and_are_no_longer_than_they_may_be() {
        let pauses: std::collections::HashSet<_> = (0..50).map(|_| shortened(PAUSE)).collect();
        assert!(pauses.len() > 10 && pauses.iter().all(|pause| *pause >= PAUSE / 2 && *pause <= PAUSE), "{pauses:?}");
    }
}
