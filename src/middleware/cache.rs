//! `cache`: the answers of the app that others may have as well (RFC 9111).
//!
//! Below `compress`, so that bodies are stored as they are; below `headers.request`, whose fields the app sees; above `accel` and
//! `grip`, whose outcomes are stored only if they say so themselves.
//!
//! ```text
//! look (key, store) ─ fresh ──────────────────────► answer            no flight, no further lock
//!   ├─ stale, and may be used ────────────────────► answer            and a refresh in the background
//!   ├─ somebody asks for it already ── waits ─────► answer            or leads, or asks for itself
//!   ├─ nobody does ── leads ── fetch ── store ────► answer            the others have it as it comes
//!   └─ not for the cache ── the app ──────────────► answer            what a POST changes is forgotten
//! ```
//! What is decided is in [`crate::cache::policy`]; who waits for whom, in [`crate::cache::coalesce`].
//! Every answer has `Cache-Status` (RFC 9211); `hostler_cache_requests_total` counts it.

mod alone;
mod answer;
mod ask;
mod caching;
mod fetch;
mod invalidate;
mod keep;
mod lead;
mod lookup;
mod marker;
mod pump;
mod purge;
mod refresh;
mod status;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use self::ask::Ask;
pub use self::caching::{Caching, Place};
use self::lookup::Looked;
use crate::cache::Cache;
use crate::cache::policy::{CacheStatus, Serve, serve};
use crate::error::Error;
use crate::http::{Request, Response, Service, fields};

/// Adds [`Cached`].
#[derive(Clone)]
pub struct CacheLayer(Role);

/// Answers from the cache.
pub struct Cached<S> {
    inner: Rc<S>,
    role: Role,
}

/// What a route has to do with the cache.
#[derive(Clone)]
enum Role {
    /// Nothing.
    Off,
    /// It keeps nothing, but what its requests change may be kept by other routes.
    Watching(Arc<Cache>),
    Keeping(Arc<Caching>),
}

impl CacheLayer {
    /// The layer of a route that caches so, or not at all.
    #[must_use]
    pub fn new(caching: Option<Arc<Caching>>) -> Self {
        Self(caching.map_or(Role::Off, Role::Keeping))
    }

    /// The layer of a route that keeps nothing where others do: its unsafe requests make invalid what those have stored.
    #[must_use]
    pub const fn watching(cache: Arc<Cache>) -> Self {
        Self(Role::Watching(cache))
    }
}

impl<S> tower::Layer<S> for CacheLayer {
    type Service = Cached<S>;

    fn layer(&self, inner: S) -> Cached<S> {
        Cached { inner: Rc::new(inner), role: self.0.clone() }
    }
}

impl<S: Service<Error = Error> + 'static> Service for Cached<S> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        match &self.role {
            Role::Off => self.inner.call(request).await,
            Role::Watching(cache) => invalidate::call(&self.inner, cache, request).await,
            Role::Keeping(caching) => self.cached(caching, request).await,
        }
    }
}

impl<S: Service<Error = Error> + 'static> Cached<S> {
    async fn cached(&self, caching: &Arc<Caching>, request: Box<Request>) -> Result<Response, Error> {
        if request.method == "PURGE"
            && let Some(answer) = Box::pin(purge::asked(caching.purgers(), caching.store(), &request)).await
        {
            return status::said(&request.exchange, answer, CacheStatus::PURGE);
        }
        let asked = caching.asked(&request);
        if asked.bypass(caching.rules()).is_some() {
            let verdict = serve(None, &asked, caching.rules(), 0);
            if verdict == Serve::Unavailable {
                return ask::unavailable(caching, &request.exchange);
            }
            // Boxed, as everything that asks the app: what is stored needs no room for it.
            return Box::pin(alone::bypass(&self.inner, caching, request, verdict)).await;
        }
        let looked = lookup::look(caching, &request).await;
        let verdict = looked.serve(caching, &asked, caching.now(&request.exchange));
        match verdict {
            Serve::Hit | Serve::Stale { refresh: false } => stored(caching, request, &looked, verdict),
            Serve::Stale { refresh: true } => {
                refresh::begin(&self.inner, caching, &request, asked, &looked);
                stored(caching, request, &looked, verdict)
            }
            _ => {
                let (inner, caching) = (Rc::clone(&self.inner), Arc::clone(caching));
                let arrived = caching.store().moment();
                Box::pin(Ask { inner, caching, request, asked, arrived }.run(looked, verdict)).await
            }
        }
    }
}

/// The answer to a request that goes no further: the memory of its fields is for the next head.
fn stored(caching: &Caching, mut request: Box<Request>, looked: &Looked, verdict: Serve) -> Result<Response, Error> {
    let answer = ask::stored(caching, &request, looked, verdict, false);
    fields::give_map(std::mem::take(&mut request.headers));
    answer
}
