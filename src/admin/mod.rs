//! The operator's listener: `/metrics`, `/live`, `/ready`, `/status` and control (`/pause`, `/resume`, `/drain`,
//! `/reload`, `/purge`). Served by the control thread, so that it answers whatever the threads that serve are busy with.
//!
//! [`door`] decides who may ask for what; [`metrics`], [`status`], [`control`] and [`purge`] answer. What runs is seen through
//! [`Running`], and a reload is asked for through [`Reloads`]: `app` hands out both.

mod control;
mod door;
mod metrics;
mod parameters;
mod purge;
mod status;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::sync::{mpsc, oneshot};

pub use self::control::reminders;
pub use self::parameters::Parameters;
pub use self::purge::order as purge_order;

use self::door::Caller;
use crate::cache::store::Store;
use crate::config::{self, Secret};
use crate::edge::inherited::Inherited;
use crate::edge::listener::{self, BindError, Listening};
use crate::edge::side_door::SideDoor;
use crate::edge::tls::Shown;
use crate::http::{Body, Request, Response, Service};
use crate::observe::metrics::Metrics;
use crate::upstream::Upstream;
use crate::upstream::spool::Budget;

const DOOR: SideDoor =
    SideDoor { listener: "admin", called: "the admin listener", places: 64, idle_timeout: Duration::from_secs(75) };

/// What runs, whichever configuration is in force at the time.
pub trait Running {
    /// How many configurations have been in force, this one included.
    fn generation(&self) -> u64;

    /// The upstreams, in the order written.
    fn upstreams(&self) -> Vec<Arc<Upstream>>;

    /// Files of users and sources of keys whose last reading failed.
    fn failing_sources(&self) -> usize;

    /// Each listener's certificates.
    fn certificates(&self) -> Vec<(Arc<str>, Shown)>;

    /// What of apps' answers is kept.
    fn cache(&self) -> CacheInForce;
}

/// The cache of the configuration in force.
#[derive(Debug, Clone)]
pub struct CacheInForce {
    /// Where it is kept.
    pub store: Arc<Store>,
    /// Bytes that it may have in memory.
    pub memory_limit: u64,
    /// The same on disk, where it has one.
    pub disk_limit: Option<u64>,
    /// Whether anything is kept of any route's answers.
    pub is_used: bool,
}

/// Whoever receives does what SIGHUP does, and answers.
pub type Reloads = mpsc::Sender<oneshot::Sender<Result<Reloaded, NotReloaded>>>;

/// A configuration that has just been put in force.
#[derive(Debug)]
pub struct Reloaded {
    /// How many configurations have been in force, this one included.
    pub generation: u64,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

/// Why everything stays as it was.
#[derive(Debug)]
pub enum NotReloaded {
    /// The file cannot be used: the report.
    Config(String),
    /// What the file asks for cannot be had.
    Start(String),
}

/// What the operator's listener can tell and do.
pub struct Admin {
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Read when metrics are.
    pub budget: Arc<Budget>,
    /// Whether new requests are welcome; no longer from the first SIGTERM on.
    pub ready: Arc<AtomicBool>,
    /// What every request must bring as `Authorization: Bearer` (RFC 6750, 2.1); `None`: nothing.
    pub token: Option<Secret>,
    /// When the gateway started.
    pub started: Instant,
    /// The upstreams.
    pub running: Arc<dyn Running>,
    /// Where a reload is asked for.
    pub reloads: Reloads,
}

/// Accepts on the operator's socket for ever.
pub async fn listen(socket: Listening, admin: Admin) {
    let admin = Rc::new(admin);
    DOOR.listen(socket, |socket| Desk { admin: Rc::clone(&admin), caller: Caller::of(socket) }).await;
}

/// Where one connection is answered.
struct Desk {
    admin: Rc<Admin>,
    caller: Caller,
}

impl Service for Desk {
    type Error = Infallible;

    async fn call(&self, request: Box<Request>) -> Result<Response, Infallible> {
        let admin = &self.admin;
        if let Some(error) = &request.refused {
            return Ok(text(StatusCode::BAD_REQUEST, format!("{}\n", error.reason)));
        }
        if let Some(refusal) = door::refusal(&request, admin.token.as_ref()) {
            return Ok(refusal);
        }
        if let Some(order) = control::Order::at(request.target.path()) {
            return Ok(match door::refuse_control(&request, &self.caller, admin.token.is_some()) {
                Some(refusal) => refusal,
                None => control::obey(admin, &self.caller, order, request).await,
            });
        }
        if request.target.path() == b"/purge" {
            return Ok(match door::refuse_control(&request, &self.caller, admin.token.is_some()) {
                Some(refusal) => refusal,
                None => purge::obey(admin, &self.caller, request).await,
            });
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Ok(not_allowed("GET, HEAD"));
        }
        if matches!(request.target.path(), b"/metrics" | b"/status")
            && let Some(refusal) = door::refuse_view(&request, &self.caller, admin.token.is_some())
        {
            return Ok(refusal);
        }
        Ok(match request.target.path() {
            b"/metrics" => admin.metrics(),
            b"/status" => status::answer(admin, &request.headers),
            b"/live" => text(StatusCode::OK, "live\n".into()),
            b"/ready" if admin.is_ready() => text(StatusCode::OK, "ready\n".into()),
            b"/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into()),
            _ => text(
                StatusCode::NOT_FOUND,
                "here are /metrics, /live, /ready and /status, and for POST /pause, /resume, /drain, /reload and /purge\n"
                    .into(),
            ),
        })
    }
}

impl Admin {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

fn text(status: StatusCode, text: String) -> Response {
    answer(status, "text/plain; charset=utf-8", text.into())
}

fn json(status: StatusCode, json: Vec<u8>) -> Response {
    answer(status, "application/json", json.into())
}

fn answer(status: StatusCode, media_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::Full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    // It is true now, and for nobody else.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn not_allowed(methods: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods}\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// Whether the client would rather have lines to read than JSON: `Accept: text/plain`, and nothing else.
fn wants_text(headers: &http::HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/plain")
}

/// Opens the operator's socket.
///
/// # Errors
/// Why it cannot be listened on.
pub fn bind(admin: &config::Admin, inherited: &Inherited) -> Result<(Listening, String), BindError> {
    let (sockets, addresses) = listener::bind_private(&admin.bind, inherited)?;
    let failed = |message: &str| BindError { address: admin.bind.to_string(), message: message.into() };
    let (Ok([socket]), Ok([address])) = (<[_; 1]>::try_from(sockets), <[_; 1]>::try_from(addresses)) else {
        return Err(failed("several sockets have this name, and the admin listener takes one"));
    };
    // What systemd opens is known only now.
    if admin.token.is_none() && !socket.is_local() {
        return Err(failed(
            "other machines can reach this socket, and whoever reaches it controls Hostler: write admin.token",
        ));
    }
    Ok((socket, address))
}
