//! Bytes out: from a request that is wholly here to the worker's answer.
//!
//! gate (a slot for the worker) → [`connect`] or [`pool`] → [`wire`] ([`crate::http1::client`] or [`h2c`]) → [`spool`] →
//! back up the stack.
//! [`Upstream`] is the part that all threads share; [`Client`] is a thread's own, with its pool of connections.

pub mod connect;
mod detach;
mod exchange;
mod forwarded;
mod gate;
mod h2c;
mod pool;
mod pump;
pub mod spool;
mod wire;

use std::sync::Arc;
use std::time::Duration;

pub use connect::{Connector, TlsError};
pub use exchange::{Client, Outgoing};
pub use gate::{Gate, Permit};

use crate::config;
use crate::config::ClientAddress;
use crate::http1::client::Patience;
use crate::observe::metrics::UpstreamMetrics;

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
    metrics: Arc<UpstreamMetrics>,
}

/// Where a worker listens.
struct Endpoint {
    name: Arc<str>,
    connector: Connector,
}

impl Upstream {
    /// Compiles one `upstreams` entry. `gate` is that of the same name before the reload, if there was one.
    ///
    /// `connectors` has the ways to its endpoints, in the order of the configuration.
    #[must_use]
    pub fn compile(
        config: &config::Upstream,
        connectors: Vec<Connector>,
        gate: Option<Arc<Gate>>,
        metrics: Arc<UpstreamMetrics>,
    ) -> Self {
        let endpoints =
            connectors.into_iter().map(|connector| Endpoint { name: connector.name().into(), connector }).collect();
        let gate = gate.unwrap_or_else(|| Arc::new(Gate::new(&config.name, Arc::clone(&metrics))));
        gate.configure(config.workers, &config.waiting_room);
        let mut keepalive = config.keepalive.clone();
        if config.client_address != ClientAddress::Headers {
            // Each begins with one client's address.
            keepalive.idle = Duration::ZERO;
        }
        Self {
            name: config.name.as_str().into(),
            gate,
            endpoints,
            abandon: config.abandon,
            keepalive,
            connect_timeout: config.timeouts.connect,
            patience: Patience { head: config.timeouts.head, idle: config.timeouts.idle },
            retry_attempts: config.retry.attempts,
            metrics,
        }
    }
}
