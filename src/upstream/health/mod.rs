//! `health`: asks every endpoint now and then whether it is well, and leaves out those that are not.
//!
//! A task for each endpoint on the control thread, which outlives reloads for as long as its address is probed. A probe
//! takes a slot of the room as an exchange does, but never the last one that users could have: then it is skipped, and
//! an exchange that has ended well since the last probe counts as a good one.
//!
//! | what a probe meets | |
//! |---|---|
//! | an expected status | good |
//! | another status, no answer in time, anything else | bad |
//! | refused, or no socket | left to [`super::watch`], which sees the end of it sooner: a restart is no illness |
//! | a full backlog | nothing: that is load |
//!
//! Drained endpoints are probed as well, so that they are known to be well before they are taken back; those of a paused
//! upstream are not, because nobody is let through there.

mod request;
mod tally;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::request::{Outcome, Rest};
use self::tally::{Tally, is_expected};
use super::Upstream;
use super::endpoint::{Endpoint, Mark};
use super::room::ProbePermit;
use crate::config::{Config, Health, Scheme};
use crate::error::{Error, Reason};
use crate::observe::metrics::ProbeResult;
use crate::observe::throttle::Throttle;

/// The probes of all upstreams.
pub struct Probers {
    watched: Vec<Rc<Watched>>,
    ask: Ask,
    /// From 0 to 1: this process' own part in when probes are due.
    random: f64,
}

/// Sends a probe and brings what came of it.
type Ask = Rc<dyn Fn(Rc<Aim>) -> Pin<Box<dyn Future<Output = Outcome>>>>;

/// An endpoint that is probed.
struct Watched {
    /// What holds now; `None`: it is to be probed no more.
    aim: RefCell<Option<Rc<Aim>>>,
    /// Told when that changes.
    changed: Notify,
    ask: Ask,
}

/// Whom to ask for what.
struct Aim {
    upstream: Arc<Upstream>,
    endpoint: Arc<Endpoint>,
    health: Health,
    host: String,
    scheme: Scheme,
    mount: Option<String>,
}

impl Default for Probers {
    fn default() -> Self {
        Self { watched: Vec::new(), ask: Rc::new(|aim| Box::pin(request::ask(aim))), random: tally::random() }
    }
}

impl Probers {
    /// Probes what this configuration says, from now on, in tasks of the calling thread. What is known of endpoints that
    /// stay is kept; those that are probed no more are no longer called down. `upstreams` are those of `config`.
    pub fn follow(&mut self, config: &Config, upstreams: &[Arc<Upstream>]) {
        let before = std::mem::take(&mut self.watched);
        for (index, upstream) in upstreams.iter().enumerate() {
            let Some(health) = &upstream.config.health else { continue };
            let (host, scheme) = (request::host(config, index), request::scheme(config, index));
            // The probe's path may be within it.
            let mount = config.mount_of(index).map(str::to_owned);
            for (place, endpoint) in upstream.endpoints().iter().enumerate() {
                let (upstream, endpoint) = (Arc::clone(upstream), Arc::clone(endpoint));
                let known = before.iter().find(|watched| watched.is_of(&endpoint)).cloned();
                let (health, host, mount) = (health.clone(), host.clone(), mount.clone());
                let aim = Aim { upstream, endpoint, health, host, scheme, mount };
                self.watched.push(match known {
                    Some(watched) => watched.aim_at(aim),
                    None => {
                        let count = aim.upstream.endpoints().len();
                        let first = tally::first_after(aim.health.interval, place, count, self.random);
                        Watched::begin(aim, first, Rc::clone(&self.ask))
                    }
                });
            }
        }
        for gone in before.iter().filter(|watched| !self.watched.iter().any(|kept| Rc::ptr_eq(kept, watched))) {
            gone.stop();
        }
    }
}

impl Watched {
    fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.aim.borrow().as_ref().is_some_and(|aim| Arc::ptr_eq(&aim.endpoint.state, &endpoint.state))
    }

    fn begin(aim: Aim, first: Duration, ask: Ask) -> Rc<Self> {
        let aim = RefCell::new(Some(Rc::new(aim)));
        let watched = Rc::new(Self { aim, changed: Notify::new(), ask });
        tokio::task::spawn_local(watch(Rc::clone(&watched), Instant::now() + first));
        watched
    }

    fn aim_at(self: Rc<Self>, aim: Aim) -> Rc<Self> {
        *self.aim.borrow_mut() = Some(Rc::new(aim));
        self.changed.notify_one();
        self
    }

    /// Ends the probes, and what they have said of the endpoint.
    fn stop(&self) {
        if let Some(aim) = self.aim.take()
            && aim.upstream.room.unhealthy(&aim.endpoint, false)
        {
            let (upstream, endpoint) = (&*aim.upstream.name, aim.endpoint.name());
            tracing::info!(upstream, endpoint, "the endpoint is no longer probed, and no longer called down");
        }
        self.changed.notify_one();
    }

    fn aim(&self) -> Option<Rc<Aim>> {
        self.aim.borrow().clone()
    }
}

/// The life of the task of an endpoint.
async fn watch(watched: Rc<Watched>, mut due: Instant) {
    let mut course = Course::default();
    while let Some(aim) = watched.aim() {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = course.worker_done() => continue,
            () = watched.changed.notified() => {
                if let Some(aim) = watched.aim() {
                    due = due.min(Instant::now() + aim.health.interval);
                }
                continue;
            }
        }
        let result = course.turn(&watched, &aim).await;
        if watched.aim().is_some() {
            aim.upstream.metrics.probe(aim.endpoint.name(), result);
        }
        due = tally::next_due(due, Instant::now(), aim.health.interval);
    }
    // A worker that still has the last probe keeps its slot.
    if course.pending.is_some() {
        course.worker_done().await;
    }
}

/// How the probes of an endpoint go.
#[derive(Default)]
struct Course {
    tally: Tally,
    /// A worker that is not done with the last probe, and its slot.
    pending: Option<(Rest, ProbePermit)>,
    fell: Throttle,
    rose: Throttle,
}

impl Course {
    /// Resolves when the worker is done with the last probe; never, if it is.
    async fn worker_done(&mut self) {
        match &mut self.pending {
            Some((rest, _)) => rest.end.as_mut().await,
            None => std::future::pending().await,
        }
        self.pending = None;
    }

    /// What there is to do when a probe is due.
    async fn turn(&mut self, watched: &Watched, aim: &Rc<Aim>) -> ProbeResult {
        let has_served = aim.endpoint.state.take_served();
        if aim.endpoint.state.has(Mark::Silent) {
            return ProbeResult::Skipped;
        }
        if let Some((rest, _)) = &self.pending {
            if !rest.is_late {
                return ProbeResult::Skipped;
            }
            if aim.upstream.balance.is_used(&aim.endpoint) {
                // The last one still waits for its answer: another would only take one more worker.
                self.judge(aim, false, "still no answer to the last probe");
                return ProbeResult::Failed;
            }
            // Nobody else is sent there: the next one tells whether it is back.
            self.pending = None;
        }
        match aim.upstream.room.try_probe(&aim.endpoint) {
            Some(permit) => self.probe(watched, aim, permit).await,
            None if has_served && !aim.endpoint.state.has(Mark::Unhealthy) => {
                self.tally.note(false, true, &aim.health);
                ProbeResult::Served
            }
            None => ProbeResult::Skipped,
        }
    }

    async fn probe(&mut self, watched: &Watched, aim: &Rc<Aim>, permit: ProbePermit) -> ProbeResult {
        let Outcome { seen, rest } = (watched.ask)(Rc::clone(aim)).await;
        self.pending = rest.map(|rest| (rest, permit));
        // A reload may have changed what is good, or ended it all.
        let Some(aim) = watched.aim() else { return ProbeResult::Skipped };
        match seen {
            Ok(status) => self.answered(&aim, status),
            Err(error) => self.failed(&aim, &error),
        }
    }

    fn answered(&mut self, aim: &Aim, status: StatusCode) -> ProbeResult {
        let is_good = is_expected(&aim.health.expect, status);
        self.judge(aim, is_good, &format_args!("status {}", status.as_u16()));
        if is_good { ProbeResult::Good } else { ProbeResult::Failed }
    }

    fn failed(&mut self, aim: &Aim, error: &Error) -> ProbeResult {
        match error.reason {
            Reason::BacklogFull | Reason::NoDescriptors => return ProbeResult::Skipped,
            Reason::ConnectRefused | Reason::SocketMissing => {
                aim.upstream.room.silent(&aim.endpoint, error.reason);
                // Of an endpoint that is well otherwise it says nothing.
                if aim.endpoint.state.has(Mark::Unhealthy) {
                    self.judge(aim, false, error);
                }
            }
            _ => self.judge(aim, false, error),
        }
        ProbeResult::Failed
    }

    /// Counts a probe, and tells when that changes the endpoint's state.
    fn judge(&mut self, aim: &Aim, is_good: bool, saw: &(impl std::fmt::Display + ?Sized)) {
        let Aim { upstream, endpoint, health, .. } = aim;
        let is_down = endpoint.state.has(Mark::Unhealthy);
        if !self.tally.note(is_down, is_good, health) {
            return;
        }
        upstream.room.unhealthy(endpoint, !is_down);
        let (upstream, endpoint, path) = (&*upstream.name, endpoint.name(), &*health.path);
        if is_down {
            let Some(left_out) = self.rose.pass() else { return };
            tracing::info!(upstream, endpoint, left_out, "probes succeed again ({path}: {saw}): the endpoint is back");
        } else {
            let Some(left_out) = self.fell.pass() else { return };
            tracing::warn!(
                upstream,
                endpoint,
                left_out,
                "{} probes in a row failed ({path}: {saw}): the endpoint is left out until {} succeed",
                health.fall,
                health.rise
            );
        }
    }
}
