//! Idle connections to one endpoint: a thread's own, the freshest first.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::Instant;

use super::wire::Connection;
use crate::config::KeepAlive;

/// Idle connections, oldest first.
pub(super) struct Pool {
    idle: RefCell<Vec<(Instant, Connection)>>,
    max: Cell<usize>,
    age: Duration,
}

impl Pool {
    pub(super) fn new(keepalive: &KeepAlive) -> Self {
        Self { idle: RefCell::new(Vec::new()), max: Cell::new(keepalive.max), age: keepalive.idle }
    }

    /// The connection used last, if it is young enough and nothing has come from the worker since. `surely` for requests
    /// that could not be sent again if the worker had just closed it.
    pub(super) fn take(&self, surely: bool, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some((since, mut connection)) = idle.pop() {
            if now.saturating_duration_since(since) >= self.age {
                // The rest is older still.
                idle.clear();
                return None;
            }
            if connection.is_quiet(surely) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for later, that has served until `now`.
    pub(super) fn put(&self, connection: Connection, now: Instant) {
        if self.age.is_zero() || self.max.get() == 0 {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() == self.max.get() {
            idle.remove(0);
        }
        idle.push((now, connection));
    }

    /// Closes all of them.
    pub(super) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Closes all of them, and keeps none any more.
    pub(super) fn retire(&self) {
        self.max.set(0);
        self.clear();
    }

    /// Closes what has grown too old, so that a worker does not keep a thread for it.
    pub(super) fn sweep(&self) {
        let mut idle = self.idle.borrow_mut();
        let old = idle.iter().take_while(|(since, _)| since.elapsed() >= self.age).count();
        idle.drain(..old);
    }
}
