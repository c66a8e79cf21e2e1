//! Requests that change things make what is stored of their target invalid (RFC 9111, 4.4).
//!
//! Once the answer is known, that is: a client that leaves before leaves the app at work, and what others would store meanwhile would be
//! what was there before. So such a request is seen to its end, within bounds. Where its outcome cannot be known, what is stored goes,
//! and again later: a worker that nobody waits for any more may be at it still, and what is stored meanwhile is what was there before.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::cache::Cache;
use crate::cache::policy::invalidate::{Origin, invalidates, targets};
use crate::cache::purge;
use crate::cache::store::Manner;
use crate::error::Error;
use crate::http::forwarded::Scheme;
use crate::http::{Exchange, Host, Phase, Request, Response, Service, Target};
use crate::runtime::drain::Errand;

/// For how long the outcome of a request is waited for whose client has left.
const GRACE: Duration = Duration::from_secs(30);

/// When what is stored goes again, counted from the time before: a worker is given up for lost after a minute, unless the
/// upstream's `abandon` says otherwise.
const AGAIN: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(60)];

type Work = Pin<Box<dyn Future<Output = Result<Response, Error>>>>;

/// Passes a request on, and has what it changes forgotten.
pub(super) async fn call<S: Service<Error = Error> + 'static>(
    inner: &Rc<S>,
    cache: &Arc<Cache>,
    request: Box<Request>,
) -> Result<Response, Error> {
    if !invalidates(&request.method, StatusCode::OK) || request.exchange.upgrade.get().is_some() {
        return inner.call(request).await;
    }
    // Boxed: others need no room for it.
    Box::pin(see_to_its_end(inner, cache, request)).await
}

async fn see_to_its_end<S: Service<Error = Error> + 'static>(
    inner: &Rc<S>,
    cache: &Arc<Cache>,
    request: Box<Request>,
) -> Result<Response, Error> {
    let change = Rc::new(Change {
        cache: Arc::clone(cache),
        exchange: Rc::clone(&request.exchange),
        method: request.method.clone(),
        target: request.target.clone(),
        hops: request.exchange.hops.get(),
        has_begun: Cell::new(false),
    });
    let (inner, of_work) = (Rc::clone(inner), Rc::clone(&change));
    let work: Work = Box::pin(async move {
        let result = inner.call(request).await;
        of_work.has_come_to(&result).await;
        result
    });
    Seen { change, work: Some(work) }.await
}

/// A request that may change things.
struct Change {
    cache: Arc<Cache>,
    exchange: Rc<Exchange>,
    method: Method,
    target: Target,
    /// Of the exchange, when it came here.
    hops: u8,
    /// Whether a worker has it, or has had it: what is tried again waits as if none had.
    has_begun: Cell<bool>,
}

impl Change {
    async fn has_come_to(&self, result: &Result<Response, Error>) {
        self.note();
        match result {
            // What it was handed on to may fail: the app has done its part.
            Ok(response) if invalidates(&self.method, response.status()) || self.is_handed_on() => {
                self.strike(self.target.as_str()).await;
                let host = self.exchange.host.as_ref().map_or("", |host| host.as_str());
                let is_secure = self.exchange.scheme() == Scheme::Https;
                let origin = Origin { is_secure, host, path: self.target.raw_path() };
                for target in targets(&origin, response.headers()) {
                    self.strike(&target).await;
                }
            }
            Ok(_) => {}
            // The app may have done it all the same.
            Err(_) if self.has_begun.get() => self.counts_as_done(),
            Err(_) => {}
        }
    }

    /// Looks where it is.
    fn note(&self) {
        let is_at_work = matches!(self.exchange.phase.get(), Phase::Working | Phase::Holding | Phase::Responding);
        if is_at_work || self.exchange.working_since.get().is_some() || self.is_handed_on() {
            self.has_begun.set(true);
        }
    }

    fn is_handed_on(&self) -> bool {
        self.exchange.hops.get() != self.hops
    }

    /// Nobody will hear what has come of it.
    fn counts_as_done(&self) {
        // It is in force at once.
        drop(self.strike(self.target.as_str()));
        // Without a runtime the process is ending.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // No errand, and nothing of the exchange: a drain does not wait for it.
        let (cache, host, target) = (Arc::clone(&self.cache), self.exchange.host.clone(), self.target.clone());
        tokio::task::spawn_local(async move {
            for pause in AGAIN {
                tokio::time::sleep(pause).await;
                strike(&cache, host.as_ref(), target.as_str()).await;
            }
        });
    }

    fn strike(&self, target: &str) -> impl Future<Output = u64> + use<> {
        strike(&self.cache, self.exchange.host.as_ref(), target)
    }
}

/// Gone, not stale: what the client has changed is not to be shown to him as it was.
fn strike(cache: &Cache, host: Option<&Host>, target: &str) -> impl Future<Output = u64> + use<> {
    purge::invalidate(cache, host, target, Manner::Hard)
}

/// Sees a request to its end, whether anybody waits for it or not.
struct Seen {
    change: Rc<Change>,
    work: Option<Work>,
}

impl Future for Seen {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        self.change.note();
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        if !self.change.has_begun.get() {
            // No worker has seen it.
            return;
        }
        match self.change.exchange.phase.get() {
            // Without a runtime the process is ending.
            Phase::Working if tokio::runtime::Handle::try_current().is_ok() => {
                let (change, errand) = (Rc::clone(&self.change), Errand::new());
                tokio::task::spawn_local(async move {
                    if tokio::time::timeout(GRACE, work).await.is_err() {
                        change.counts_as_done();
                    }
                    drop(errand);
                });
            }
            _ => self.change.counts_as_done(),
        }
    }
}
