//! `upstreams`: types and defaults.

use std::path::PathBuf;
use std::time::Duration;

use super::{EndpointAddress, KeyBy};

/// One `upstreams` entry: a named group of endpoints that run the same app.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// The key under `upstreams`.
    pub name: String,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// Exchanges in flight over the whole upstream. When only the endpoints have numbers, and each has one: their sum.
    pub workers: Workers,
    /// How many workers may be pinned by responses that are not spooled; 0: none. Default workers - 1, at least 1.
    pub streaming_max: u32,
    /// The queue in front of the workers.
    pub waiting_room: WaitingRoom,
    /// How long a slot stays taken by a worker whose client has gone. Default 60 s.
    pub abandon: Duration,
    /// Idle connections to the workers.
    pub keepalive: KeepAlive,
    /// Deadlines of an exchange with a worker.
    pub timeouts: Timeouts,
    /// Which endpoint is next.
    pub balance: Balance,
    /// How long an endpoint that has come back takes to get its full share. Default 0 s: at once.
    pub slow_start: Duration,
    /// How long requests wait for an upstream that has stopped answering connect; zero: not at all. Default 30 s.
    pub hold: Duration,
    /// Sending a request again where that is safe.
    pub retry: Retry,
    /// Active probes; `None`: none.
    pub health: Option<Health>,
    /// Leaving out an endpoint that fails.
    pub ejection: Ejection,
    /// How the worker learns the client's address.
    pub client_address: ClientAddress,
    /// What uWSGI is set to.
    pub uwsgi: Uwsgi,
    /// How `https://` endpoints are verified.
    pub tls: UpstreamTls,
    /// The Host sent instead of the client's: a name or an address, perhaps with a port.
    pub host: Option<String>,
    /// Put before the path as it is sent, without a slash at the end.
    pub prefix: Option<String>,
    /// When names are looked up again.
    pub resolve: Resolve,
}

/// One `endpoints` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where its workers listen.
    pub address: EndpointAddress,
    /// Its share of the exchanges against the others. 1 to 100, default 1.
    pub weight: u32,
    /// Exchanges in flight at this endpoint; `None`: only the upstream's number holds.
    pub workers: Option<u32>,
    /// Used only while no other endpoint can be. Default false.
    pub backup: bool,
}

/// `upstreams.*.balance`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balance {
    /// The endpoint with the fewest exchanges in flight for its weight.
    #[default]
    LeastBusy,
    /// In turns, as often as their weights say.
    RoundRobin,
    /// The same key goes to the same endpoint as long as that has room.
    Hash(KeyBy),
}

/// `upstreams.*.retry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after the first. Default 2.
    pub attempts: u32,
    /// Whether a TCP endpoint gets the body of a non-idempotent request only after its `100 Continue`, so that one that
    /// no worker has accepted can be told from one that the app has begun. For servers that answer before the app runs
    /// (gunicorn, waitress), not for those that do when it reads the body (mod_wsgi). Default false.
    pub expect: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2, expect: false }
    }
}

/// `upstreams.*.health`: active probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Path and query of the GET request. Required.
    pub path: String,
    /// From one probe to the next. Default 5 s.
    pub interval: Duration,
    /// For a whole probe; shorter than `interval`. Default 2 s, at most half the interval.
    pub timeout: Duration,
    /// Failed probes in a row that call an endpoint down. Default 3.
    pub fall: u32,
    /// Good probes in a row that call it up. Default 2.
    pub rise: u32,
    /// The Host sent; `None`: the upstream's `host`, else the first exact host of a site that leads here, else localhost.
    pub host: Option<String>,
    /// What X-Forwarded-Proto says: `https` or `http`. Default `https` when a listener has TLS, else `http`.
    pub scheme: Option<Scheme>,
    /// Ranges of good statuses, both ends included; in order, none touching another. Default 200 to 399.
    pub expect: Vec<(u16, u16)>,
}

/// `upstreams.*.health.scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
}

/// `upstreams.*.ejection`: passive, never the last endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row, within `window`, that leave an endpoint out; 0: never. Default 5.
    pub failures: u32,
    /// Default 10 s.
    pub window: Duration,
    /// For how long. Default 10 s.
    pub duration: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, window: Duration::from_secs(10), duration: Duration::from_secs(10) }
    }
}

/// `upstreams.*.client_address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAddress {
    /// In X-Forwarded-For and X-Real-IP (uwsgi: REMOTE_ADDR as well).
    #[default]
    Headers,
    /// Also in a PROXY protocol v1 line before the request.
    ProxyV1,
    /// Also in a PROXY protocol v2 block before the request.
    ProxyV2,
}

/// `upstreams.*.uwsgi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uwsgi {
    /// uWSGI's `buffer-size`: bytes of the vars it takes. Default 4096.
    pub buffer_size: u16,
    /// The first byte of the packet. Always 0, a WSGI request: others are other languages, or commands to uWSGI.
    pub modifier1: u8,
}

impl Default for Uwsgi {
    fn default() -> Self {
        Self { buffer_size: 4096, modifier1: 0 }
    }
}

/// `upstreams.*.tls`: for `https://` endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name in SNI and in the certificate; `None`: the endpoint's host.
    pub server_name: Option<String>,
    /// Who may have signed the certificate.
    pub ca: Authority,
    /// Whether the certificate is verified. Default true.
    pub verify: bool,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { server_name: None, ca: Authority::System, verify: true }
    }
}

/// `upstreams.*.tls.ca`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// Whom the system trusts.
    System,
    /// The certificates of this PEM file.
    File(PathBuf),
}

/// `upstreams.*.resolve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolve {
    /// When the name server says that its answer has become old.
    #[default]
    Ttl,
    /// After this time.
    After(Duration),
}

/// `upstreams.*.workers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// Not written: 4, said at start and when the first request waits for it.
    Unset,
    /// Processes times threads.
    Count(u32),
    /// No gate.
    Unlimited,
}

impl Workers {
    /// What an unset `workers` means.
    pub const DEFAULT: u32 = 4;

    /// The number of slots; `None` when unlimited.
    #[must_use]
    pub fn slots(self) -> Option<u32> {
        match self {
            Self::Unset => Some(Self::DEFAULT),
            Self::Count(n) => Some(n),
            Self::Unlimited => None,
        }
    }
}

/// `upstreams.*.waiting_room`.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitingRoom {
    /// Requests that may wait. Default max(100, 10 x workers).
    pub limit: usize,
    /// How long one may wait. Default 30 s.
    pub timeout: Duration,
    /// Whether clients take turns, so that one with many requests does not keep others waiting. Default true.
    pub is_fair: bool,
}

/// `upstreams.*.keepalive`.
#[derive(Debug, Clone, PartialEq)]
pub struct KeepAlive {
    /// An idle connection older than this is closed, not reused; zero: one connection per exchange. Default 1 s,
    /// below gunicorn's 2 s.
    pub idle: Duration,
    /// Idle connections kept per endpoint and thread. Default 64.
    pub max: usize,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(1), max: 64 }
    }
}

/// `upstreams.*.timeouts`: between reads, never a total.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// To an accepted connection. Default 5 s.
    pub connect: Duration,
    /// From the complete request to the response head. Default 65 s: longer than gunicorn's 30 s, so that its log
    /// tells the story first.
    pub head: Duration,
    /// Between two reads of a response body, and between two writes of a request. Default 60 s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), head: Duration::from_secs(65), idle: Duration::from_secs(60) }
    }
}
