//! What is done beside requests, by tasks of the control thread: for the configuration in force, until the next one is.
//!
//! Whatever must not wait for a reload, or for a request, belongs here. What it learns is left where requests find it,
//! behind the handles of a [`Current`]; a task that reads files or computes for long hands that to `spawn_blocking`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::watch::watch;
use super::{Current, InForce};
use crate::upstream::health::Probers;

/// How often the counters of upstreams are noted.
const SAMPLE: Duration = Duration::from_secs(5);
/// How often files of users and keys are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Operators are told that what has changed is in force within two seconds. It is after two looks: the other half is for a
/// slow disk and for a machine with much to do.
const _: () = assert!(2 * LOOK.as_millis() <= 1000);

/// The work for one configuration after the other.
#[derive(Default)]
pub(super) struct Background {
    probers: Probers,
    /// Those of the configuration in force: when this is replaced, they end where they wait.
    tasks: JoinSet<()>,
}

impl Background {
    /// Works for what is in force now. Tasks for the configuration before end; probes go on, and keep what they know of
    /// the endpoints that stay.
    pub(super) fn follow(&mut self, current: &Current) {
        let in_force = current.in_force.load_full();
        self.probers.follow(in_force.blueprint.config(), in_force.blueprint.upstreams());
        self.tasks = JoinSet::new();
        let sources = in_force.blueprint.sources();
        for keys in sources.fetched() {
            self.tasks.spawn_local(Arc::clone(keys).refresh());
        }
        if sources.has_files() {
            self.tasks.spawn_local(look(Arc::clone(&in_force)));
        }
        self.tasks.spawn_local(watch(Arc::clone(&in_force)));
        self.tasks.spawn_local(sample(in_force));
    }
}

/// Looks whether files of users and keys have changed.
async fn look(in_force: Arc<InForce>) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let in_force = Arc::clone(&in_force);
        // One at a time: a disk that hangs has one thread. An error is the end of the process.
        let _ = tokio::task::spawn_blocking(move || in_force.blueprint.sources().look()).await;
    }
}

/// Takes note of what is asked of the workers.
async fn sample(in_force: Arc<InForce>) {
    let mut every = tokio::time::interval(SAMPLE);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        // Reloads that follow each other add nothing.
        in_force.blueprint.upstreams().iter().for_each(|upstream| upstream.sample(SAMPLE / 2));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::stack::{Blueprint, Shared};

    fn in_force() -> InForce {
        let text = "sites: [{ routes: [{ path: /, respond: {} }] }]";
        let loaded = crate::config::load_str(text, "f", std::path::Path::new("/"), &|_| None).unwrap();
        InForce { blueprint: Blueprint::compile(loaded.config, Vec::new(), None, Shared::idle()), terms: Vec::new() }
    }

    #[tokio::test]
    async fn tasks_end_with_their_configuration() {
        let both = async {
            let (current, mut background) = (Current::new(in_force()), Background::default());
            background.follow(&current);
            let first = Arc::downgrade(&current.in_force.load_full());
            yield_now().await;
            current.replace(in_force());
            assert!(first.upgrade().is_some(), "a task has it yet");
            background.follow(&current);
            while first.upgrade().is_some() {
                yield_now().await;
            }
            // One watches certificates, and has none to watch here.
            assert_eq!(background.tasks.len(), 2);
        };
        LocalSet::new().run_until(both).await;
    }
}
