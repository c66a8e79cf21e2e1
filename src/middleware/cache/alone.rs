//! A request that asks the app for itself: what it gets is not for others, or so it is known; or it is somebody's who cannot
//! lead others. What comes of it is stored all the same, if it may be.

use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use http::header::HeaderMap;

use super::answer::{self, Asker};
use super::ask::{Ask, landed, status_of};
use super::caching::Caching;
use super::fetch::{After, Aim, Brought, Manner, bring, is_head};
use super::lead::go_on;
use super::lookup::Looked;
use super::status::told;
use crate::cache::landing::Outcome;
use crate::cache::policy::cache_status::Forward;
use crate::cache::policy::{CacheStatus, Head, Serve, head};
use crate::cache::purge;
use crate::cache::store::Manner as Purging;
use crate::error::Error;
use crate::http::{CacheVerdict, Exchange, Request, Response, Service};

/// Asks.
pub(super) async fn ask<S: Service<Error = Error> + 'static>(
    ask: Ask<S>,
    looked: Looked,
    verdict: Serve,
) -> Result<Response, Error> {
    match verdict {
        // Others have brought it while this one waited.
        Serve::Hit | Serve::Stale { .. } => return ask.stored(&looked, verdict, true),
        Serve::Unavailable => return super::ask::unavailable(&ask.caching, &ask.request.exchange),
        Serve::Miss | Serve::Revalidate(_) | Serve::Bypass(_) => {}
    }
    if ask.request.method == Method::HEAD {
        return for_head(ask, looked, verdict).await;
    }
    if let Serve::Revalidate(_) = verdict {
        return again(ask, looked, verdict).await;
    }
    let Ask { inner, caching, request, asked, .. } = ask;
    // Of what is known not to be stored nothing is kept to hand: it is the way of every request for it.
    let is_known = looked.is_uncacheable() && asked.may_lead();
    let headers = (!is_known).then(|| request.headers.clone());
    let aim = Aim::new(&caching, asked, &looked, &request, headers, false);
    let exchange = Rc::clone(&request.exchange);
    let brought = bring(&*inner, request, &aim, Manner::AsAsked).await;
    let status = if looked.is_uncacheable() {
        CacheStatus { detail: Some("hit-for-miss"), ..CacheStatus::forwarded(Forward::Miss) }
    } else {
        status_of(&looked, verdict)
    };
    let counted = match verdict {
        Serve::Bypass(_) => CacheVerdict::Bypass,
        // It was released, or it is known that it would be.
        _ if asked.may_lead() => CacheVerdict::Pass,
        _ => CacheVerdict::Miss,
    };
    match brought {
        Brought::Landed(fresh, _, after) => {
            let nothing = HeaderMap::new();
            let headers = aim.headers().unwrap_or(&nothing);
            let asker = Asker { method: &Method::GET, headers, exchange: &exchange };
            finish(&caching, asker, (fresh, after), status)
        }
        Brought::Passed(response, refusal) => {
            let status = refusal.map_or(status, |refusal| status.stored(Err(refusal)));
            told(&caching, &exchange, Ok(response), status, counted)
        }
        Brought::Failed(failed) => told(&caching, &exchange, failed.answer(), status, counted),
    }
}

/// Asks whether what is stored is still good.
async fn again<S: Service<Error = Error> + 'static>(
    ask: Ask<S>,
    looked: Looked,
    verdict: Serve,
) -> Result<Response, Error> {
    let request = super::fetch::copy(&ask.request, Rc::clone(&ask.request.exchange));
    let aim = Aim::new(&ask.caching, ask.asked, &looked, &request, Some(request.headers.clone()), true);
    let status = status_of(&looked, verdict);
    match bring(&*ask.inner, request, &aim, Manner::ForAll).await {
        Brought::Landed(fresh, _, after) => {
            let asker = Asker::of(&ask.request);
            finish(&ask.caching, asker, (fresh, after), status)
        }
        Brought::Passed(response, refusal) => {
            let status = refusal.map_or(status, |refusal| status.stored(Err(refusal)));
            let answer = answer::of_passed(Asker::of(&ask.request), response);
            told(&ask.caching, &ask.request.exchange, answer, status, CacheVerdict::Miss)
        }
        Brought::Failed(failed) => ask.failed(failed, &looked, verdict),
    }
}

fn finish(
    caching: &Caching,
    asker: Asker<'_>,
    (fresh, after): (Box<super::fetch::Fresh>, After),
    status: CacheStatus,
) -> Result<Response, Error> {
    let answer = landed(caching, asker, *fresh, status);
    if !matches!(after, After::Nothing) {
        tokio::task::spawn_local(async move {
            go_on(after, None, &Outcome::Alone).await;
        });
    }
    answer
}

/// HEAD is asked for as HEAD, and its answer is held against what is stored (RFC 9111, 4.3.5).
async fn for_head<S: Service<Error = Error> + 'static>(
    ask: Ask<S>,
    looked: Looked,
    verdict: Serve,
) -> Result<Response, Error> {
    let request = super::fetch::copy(&ask.request, Rc::clone(&ask.request.exchange));
    let status = status_of(&looked, verdict);
    let response = match ask.inner.call(request).await {
        Ok(response) => response,
        Err(error) => return ask.failed(super::fetch::Failed::Error(error), &looked, verdict),
    };
    if crate::cache::policy::validate::is_failure(response.status()) {
        return ask.failed(super::fetch::Failed::Answer(response), &looked, verdict);
    }
    // What somebody gets says nothing of what the others share.
    if matches!(verdict, Serve::Revalidate(_)) && ask.asked.is_anonymous() {
        compare(&ask.caching, &ask.request, &looked, &response).await;
    }
    let verdict = if let Serve::Bypass(_) = verdict { CacheVerdict::Bypass } else { CacheVerdict::Miss };
    told(&ask.caching, &ask.request.exchange, Ok(response), status, verdict)
}

/// What is stored is stale if the app has another one now.
async fn compare(caching: &Caching, request: &Request, looked: &Looked, response: &Response) {
    let Some((object, _)) = looked.response().filter(|_| is_head(&request.method, response.status())) else { return };
    let differs = head(response.status(), response.headers(), &object.headers(), Some(object.length()));
    if differs == Head::Changed {
        stale(caching, &request.exchange, request).await;
    }
}

async fn stale(caching: &Caching, exchange: &Exchange, request: &Request) {
    purge::invalidate(caching.cache(), exchange.host.as_ref(), request.target.as_str(), Purging::Soft).await;
}

/// A request with which the cache has nothing to do.
pub(super) async fn bypass<S: Service<Error = Error> + 'static>(
    inner: &Rc<S>,
    caching: &Arc<Caching>,
    request: Box<Request>,
    verdict: Serve,
) -> Result<Response, Error> {
    let exchange = Rc::clone(&request.exchange);
    let status = CacheStatus::of(verdict, false, 0);
    let answer = super::invalidate::call(inner, caching.cache(), request).await;
    told(caching, &exchange, answer, status, CacheVerdict::Bypass)
}
