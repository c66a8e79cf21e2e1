//! Bytes out: from a request that is wholly here to the worker's answer.
//!
//! gate (a slot for the worker) → connect or [`pool`] → [`crate::http1::client`] → [`spool`] → back up the stack.
//! [`Upstream`] is the part that all threads share; [`Client`] is a thread's own, with its pool of connections.

mod connect;
mod detach;
mod exchange;
mod forwarded;
mod gate;
mod head;
mod pool;
mod pump;
pub mod spool;

use std::sync::Arc;
use std::time::Duration;

pub use exchange::{Client, Outgoing};
pub use gate::{Gate, Permit};

use crate::config;
use crate::config::{EndpointAddress, EndpointProtocol};
use crate::http1::client::{self, Dialect, Patience};
use crate::observe::metrics::UpstreamMetrics;
use crate::uwsgi;

/// A named group of endpoints, compiled. What must be one for the process is behind an `Arc` that a reload carries over.
pub struct Upstream {
    /// The key under `upstreams`.
    pub name: Arc<str>,
    /// One slot per worker.
    pub gate: Arc<Gate>,
    endpoints: Vec<Endpoint>,
    abandon: Duration,
    keepalive: config::KeepAlive,
    connect_timeout: Duration,
    patience: Patience,
    retry_attempts: u32,
    host: Option<Box<str>>,
    prefix: Option<Box<str>>,
    uwsgi: config::Uwsgi,
    metrics: Arc<UpstreamMetrics>,
}

/// Where a worker listens.
#[derive(Debug)]
struct Endpoint {
    name: Arc<str>,
    address: EndpointAddress,
}

impl Endpoint {
    /// How it answers.
    fn dialect(&self) -> &'static Dialect {
        if self.address.protocol == EndpointProtocol::Uwsgi { &uwsgi::DIALECT } else { &client::HTTP1 }
    }
}

impl Upstream {
    /// Compiles one `upstreams` entry. `gate` is that of the same name before the reload, if there was one.
    #[must_use]
    pub fn compile(config: &config::Upstream, gate: Option<Arc<Gate>>, metrics: Arc<UpstreamMetrics>) -> Self {
        let gate = gate.unwrap_or_else(|| Arc::new(Gate::new(&config.name, Arc::clone(&metrics))));
        gate.configure(config.workers, &config.waiting_room);
        let endpoints = config
            .endpoints
            .iter()
            .map(|endpoint| Endpoint { name: endpoint.address.to_string().into(), address: endpoint.address.clone() })
            .collect();
        Self {
            name: config.name.as_str().into(),
            gate,
            endpoints,
            abandon: config.abandon,
            keepalive: config.keepalive.clone(),
            connect_timeout: config.timeouts.connect,
            patience: Patience { head: config.timeouts.head, idle: config.timeouts.idle },
            retry_attempts: config.retry.attempts,
            host: config.host.as_deref().map(Box::from),
            prefix: config.prefix.as_deref().map(Box::from),
            uwsgi: config.uwsgi.clone(),
            metrics,
        }
    }
}
