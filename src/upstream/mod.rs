//! Bytes out: from a request that is wholly here to the worker's answer.
//!
//! [`room`] (a slot of the upstream and of an endpoint, which [`balance`] chooses) → [`connect`] or [`pool`] →
//! [`wire`] ([`crate::http1::client`] or [`h2c`]) → [`spool`] → back up the stack. Beside that way, [`watch`] looks after
//! endpoints that do not answer, and [`health`] asks those that do whether they are well. [`Upstream`] is the part that all
//! threads share; [`Client`] is a thread's own, with its pools of connections.

mod balance;
mod clock;
pub mod connect;
mod demand;
mod detach;
mod endpoint;
mod exchange;
mod forwarded;
mod h2c;
mod head;
pub mod health;
mod in_force;
mod pool;
mod pump;
mod repeat;
mod room;
pub mod spool;
mod tunnel;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::Duration;

pub use connect::{Connector, TlsError};
pub use demand::Needed;
pub use endpoint::{Condition, Endpoint};
pub use exchange::{Client, Outgoing, RouteTerms, Tunneling};
pub use in_force::InForce;
use room::Permit;
pub use room::{Room, RoomStatus};

use self::balance::Balance;
use self::endpoint::Mark;
use self::room::Rules;
use crate::config::{self, ClientAddress, Ejection, Retry};
use crate::error::{Error, Reason};
use crate::http1::client::Patience;
use crate::observe::metrics::{EndpointReport, UpstreamMetrics};
use crate::observe::throttle::{Throttle, Throttles};

/// A named group of endpoints, compiled. What must be one for the process is behind an `Arc` that a reload carries over.
pub struct Upstream {
    /// The key under `upstreams`.
    pub name: Arc<str>,
    /// One slot per worker.
    pub room: Arc<Room>,
    balance: Arc<Balance>,
    config: config::Upstream,
    patience: Patience,
    metrics: Arc<UpstreamMetrics>,
    /// For the lines that tell of failures.
    throttles: Throttles,
    worker_timeouts: Throttle,
}

impl Upstream {
    /// Compiles one `upstreams` entry. `previous` is that of the same name before a reload, if there was one: its waiting
    /// room goes on, and so does what is known of endpoints by the same address. Nothing changes before
    /// [`Self::put_in_force`]. `connectors` has the ways to its endpoints, in the order of the configuration.
    #[must_use]
    pub fn compile(
        config: &config::Upstream,
        connectors: Vec<Connector>,
        previous: Option<&Self>,
        metrics: Arc<UpstreamMetrics>,
    ) -> Self {
        let room = previous.map(|previous| Arc::clone(&previous.room));
        let room = room.unwrap_or_else(|| Arc::new(Room::new(&config.name, Arc::clone(&metrics))));
        let known = previous.map_or(&[][..], |previous| &previous.balance.endpoints);
        let endpoint = |(config, connector): (&config::Endpoint, Connector)| {
            let before = known.iter().find(|known| known.address == config.address);
            Arc::new(Endpoint::compile(config, connector, before.map(|known| Arc::clone(&known.state))))
        };
        let endpoints = config.endpoints.iter().zip(connectors).map(endpoint).collect();
        let mut config = config.clone();
        if config.client_address != ClientAddress::Headers {
            // Each connection begins with one client's address.
            config.keepalive.idle = Duration::ZERO;
        }
        Self {
            name: config.name.as_str().into(),
            room,
            balance: Arc::new(Balance::new(endpoints, &config.balance, config.slow_start)),
            patience: Patience { head: config.timeouts.head, idle: config.timeouts.idle },
            config,
            metrics,
            throttles: Throttles::new(),
            worker_timeouts: Throttle::new(),
        }
    }

    /// Lets the waiting room obey this configuration from now on.
    pub fn put_in_force(&self) {
        let rules = Rules {
            balance: Arc::clone(&self.balance),
            limit: self.config.waiting_room.limit,
            timeout: self.config.waiting_room.timeout,
            hold: self.config.hold,
            connect_timeout: self.config.timeouts.connect,
        };
        self.room.configure(self.config.workers, self.config.streaming_max, rules);
    }

    /// The endpoints, in the order written.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.balance.endpoints
    }

    /// The operator's hand: nobody is let through to the workers until [`Self::resume`]. Whether that changed anything.
    pub fn pause(&self) -> bool {
        self.room.pause(true)
    }

    /// Lets requests through again, to drained endpoints as well. Whether that changed anything.
    pub fn resume(&self) -> bool {
        let drained = self.balance.endpoints.iter().filter(|endpoint| endpoint.state.set(Mark::Drained, false)).count();
        self.room.pause(false) || drained > 0
    }

    /// Sends no further exchange to an endpoint, or goes on doing so. Whether that changed anything.
    pub fn drain(&self, endpoint: &Endpoint, on: bool) -> bool {
        let changed = endpoint.state.set(Mark::Drained, on);
        self.room.changed(None);
        changed
    }

    /// Brings the gauges of its endpoints up to date.
    pub fn report(&self) {
        let endpoints = self.balance.endpoints.iter().map(|endpoint| EndpointReport {
            name: endpoint.name(),
            is_up: endpoint.state.is_up(),
            in_flight: endpoint.state.in_flight(),
        });
        self.metrics.report_endpoints(endpoints);
    }

    /// What the configuration says of it.
    #[must_use]
    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// Ends all waiting, because the process is ending.
    pub fn close(&self) {
        self.room.close();
    }

    /// A slot of the upstream and of one of its endpoints, as an exchange of this client gets it, until what is returned
    /// is dropped. For the bench `slots`: exchanges go through a [`Client`].
    ///
    /// # Errors
    /// What kept it from a slot.
    pub async fn slot(&self, client: u64) -> Result<impl Sized + use<>, Error> {
        let seek = room::Seek { client, ..room::Seek::default() };
        let mut permit = self.room.enter(&self.balance, seek).await?;
        permit.used();
        Ok(permit)
    }

    /// Takes note of how much is asked of the workers, unless that has been done within `age`: to be called every few
    /// seconds.
    pub fn sample(&self, age: Duration) {
        self.room.sample(age);
    }

    fn streams_full(&self) -> Error {
        Error::new(Reason::StreamsFull).detail(format!(
            "{} workers are pinned by streams already (upstreams.{}.streaming.max)",
            self.config.streaming_max, self.name
        ))
    }

    fn retry(&self) -> &Retry {
        &self.config.retry
    }

    fn ejection(&self) -> &Ejection {
        &self.config.ejection
    }

    fn abandon(&self) -> Duration {
        self.config.abandon
    }
}
