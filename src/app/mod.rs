//! From a configuration to a running gateway: build, bind, run, reload (build new, then swap), drain.
//!
//! One thread controls (signals, reloads, the admin listener); the others serve, each with a runtime, listening
//! sockets, connections and a stack of its own. What they share is [`InForce`], which a reload replaces as a whole.

mod background;
mod cache;
mod control;
mod gateway;
mod notify;
mod thread;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

pub use control::{Failure, serve};
pub use gateway::{Gateway, ReloadError, StartError};

use crate::admin::{CacheInForce, Running};
use crate::edge::connection::Terms;
use crate::edge::tls::Shown;
use crate::stack::Blueprint;
use crate::upstream::Upstream;

/// A configuration as it is served.
struct InForce {
    blueprint: Blueprint,
    /// How each listener's connections are served.
    terms: Vec<Arc<Terms>>,
}

impl InForce {
    /// What the clients of each listener are shown.
    fn certificates(&self) -> Vec<(Arc<str>, Shown)> {
        let mut all = Vec::new();
        for terms in &self.terms {
            let Some(tls) = &terms.tls else { continue };
            all.extend(tls.current().shown().iter().map(|shown| (Arc::clone(&terms.name), shown.clone())));
        }
        all
    }
}

/// The configuration in force, for threads that look at it once per connection and once per request.
struct Current {
    in_force: ArcSwap<InForce>,
    generation: AtomicU64,
}

impl Current {
    fn new(in_force: InForce) -> Self {
        Self { in_force: ArcSwap::from_pointee(in_force), generation: AtomicU64::new(1) }
    }

    /// From the next request on, on whatever connection, this one holds.
    fn replace(&self, in_force: InForce) -> u64 {
        self.in_force.store(Arc::new(in_force));
        // After the store: whoever sees the new number sees the new configuration.
        self.generation.fetch_add(1, Ordering::Release) + 1
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn terms(&self, listener: &str) -> Option<Arc<Terms>> {
        self.in_force.load().terms.iter().find(|terms| *terms.name == *listener).cloned()
    }
}

impl Running for Current {
    fn generation(&self) -> u64 {
        Self::generation(self)
    }

    fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.in_force.load().blueprint.upstreams().to_vec()
    }

    fn failing_sources(&self) -> usize {
        self.in_force.load().blueprint.sources().failing()
    }

    fn certificates(&self) -> Vec<(Arc<str>, Shown)> {
        self.in_force.load().certificates()
    }

    fn cache(&self) -> CacheInForce {
        let in_force = self.in_force.load();
        let config = in_force.blueprint.config();
        CacheInForce {
            store: Arc::clone(in_force.blueprint.cache().store()),
            memory_limit: config.cache.memory,
            disk_limit: config.cache.disk.as_ref().map(|disk| disk.size),
            is_used: config.caches(),
        }
    }
}
