//! A request that what is stored does not answer: it waits for another's answer, or leads, or asks for itself.

use std::rc::Rc;
use std::sync::Arc;

use http::header::HeaderMap;

use super::alone;
use super::answer::{self, Asker};
use super::caching::Caching;
use super::fetch::{Brought, Failed, Fresh, is_for_all};
use super::lead;
use super::lookup::{self, Looked};
use super::status::told;
use crate::cache::coalesce::{Joined, Lead, Told, Waiter};
use crate::cache::key::Key;
use crate::cache::landing::{Content, Failure, Landing, Outcome};
use crate::cache::policy::cache_status::Forward;
use crate::cache::policy::{Asked, CacheStatus, Serve, Why, serve};
use crate::cache::store::Moment;
use crate::error::{Error, Reason};
use crate::http::{Body, CacheVerdict, Exchange, Phase, Request, Response, Service};

/// How often one looks again before one asks for oneself.
const ROUNDS: usize = 8;

/// A request on its way.
pub(super) struct Ask<S> {
    pub(super) inner: Rc<S>,
    pub(super) caching: Arc<Caching>,
    pub(super) request: Box<Request>,
    pub(super) asked: Asked,
    /// By the store's order of events: what is purged later may still be its answer.
    pub(super) arrived: Moment,
}

/// What has come of a flight.
enum Flown {
    Done(Result<Response, Error>),
    /// It is to be looked again.
    Again,
    /// Each asks for himself.
    Alone,
}

/// The failure that what is stored stands in for.
#[derive(Clone, Copy)]
enum During {
    /// It is known that the app fails: it was not asked.
    Outage,
    /// The app was asked. The status of its answer, if there was one.
    Request(Option<u16>),
}

/// When somebody has come to what has landed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Before it was asked for, or while: it is younger than the wish.
    Before,
    /// Afterwards.
    Later,
}

impl<S: Service<Error = Error> + 'static> Ask<S> {
    /// Answers it. What is stored has been looked for already.
    pub(super) async fn run(self, mut looked: Looked, mut verdict: Serve) -> Result<Response, Error> {
        for round in 0..ROUNDS {
            match verdict {
                Serve::Hit | Serve::Stale { .. } => return self.stored(&looked, verdict, round > 0),
                Serve::Unavailable => return self.unavailable(),
                Serve::Bypass(_) => break,
                Serve::Miss | Serve::Revalidate(_) => {}
            }
            // What has to be asked for again each time cannot be given to who has waited.
            let is_each_ones_own = verdict == Serve::Revalidate(Why::NoCache);
            if looked.is_uncacheable() || is_each_ones_own || !self.asked.may_lead() {
                break;
            }
            if self.caching.cache().outages().has(&looked.key)
                && let Some(answer) = self.instead_of_failure(&looked, verdict, During::Outage)
            {
                return answer;
            }
            if self.is_for_itself(&looked.key) {
                break;
            }
            match self.fly(&looked, verdict).await {
                Flown::Done(answer) => return answer,
                Flown::Again => {}
                Flown::Alone => break,
            }
            self.request.exchange.tick();
            looked = lookup::look(&self.caching, &self.request).await;
            verdict = looked.serve(&self.caching, &self.asked, self.caching.now(&self.request.exchange));
        }
        alone::ask(self, looked, verdict).await
    }

    async fn fly(&self, looked: &Looked, verdict: Serve) -> Flown {
        let flights = self.caching.cache().flights();
        let joined = match flights.join(&looked.key) {
            Joined::Landed(outcome, id) => match self.landed(&outcome, looked, verdict) {
                Some(flown) => return flown,
                None => flights.join_anew(&looked.key, id),
            },
            joined => joined,
        };
        match joined {
            Joined::Lead(lead, waiter) => {
                // A flight may have landed and gone since it was looked.
                let now = self.caching.now(&self.request.exchange);
                let again = lookup::look_again(&self.caching, looked, now);
                if matches!(again.serve(&self.caching, &self.asked, now), Serve::Hit | Serve::Stale { .. }) {
                    lead.tell(&Outcome::Again);
                    return Flown::Again;
                }
                self.lead(lead, waiter, looked, verdict).await
            }
            Joined::Wait(waiter) => self.wait(waiter, looked, verdict).await,
            Joined::Landed(..) => Flown::Again,
        }
    }

    /// Something has landed that is not yet stored. `None`: this one cannot use it.
    fn landed(&self, outcome: &Outcome, looked: &Looked, verdict: Serve) -> Option<Flown> {
        let Outcome::Landed(landing) = outcome else { return None };
        let is_usable = self.fits(landing, looked) && self.may_have(landing, Came::Later);
        is_usable.then(|| self.shared(landing, looked, verdict)).flatten().map(Flown::Done)
    }

    async fn wait(&self, mut waiter: Waiter<Outcome>, looked: &Looked, verdict: Serve) -> Flown {
        let exchange = &self.request.exchange;
        exchange.phase.set(Phase::Waiting);
        let patience = self.caching.patience();
        let begun = exchange.tick();
        let told = waiter.news_or_turn(patience).await;
        // For the log it is as in the waiting room: others come first.
        let waited = exchange.tick().saturating_duration_since(begun);
        exchange.time(|timings| timings.wait += waited);
        match told {
            Told::News(outcome) => self.news(&outcome, looked, verdict),
            Told::Over => Flown::Again,
            Told::Lead(lead) => {
                // Meanwhile others may have stored something.
                let again = lookup::look(&self.caching, &self.request).await;
                let verdict = again.serve(&self.caching, &self.asked, self.caching.now(exchange));
                let is_there = matches!(verdict, Serve::Hit | Serve::Stale { .. });
                if is_there || again.key != looked.key || again.is_uncacheable() {
                    lead.tell(&Outcome::Again);
                    return Flown::Again;
                }
                self.lead(lead, waiter, &again, verdict).await
            }
        }
    }

    async fn lead(&self, lead: Lead<Outcome>, mut waiter: Waiter<Outcome>, looked: &Looked, verdict: Serve) -> Flown {
        self.request.exchange.phase.set(Phase::Waiting);
        let mut begun = lead::begin(&self.inner, &self.caching, (&self.request, self.asked), looked, lead);
        tokio::select! {
            biased;
            brought = &mut begun.answer => match brought {
                Ok(brought) => Flown::Done(self.brought(brought, looked, verdict)),
                // Its task has ended without a word: it was not wanted, or has panicked.
                Err(_) => Flown::Again,
            },
            told = waiter.news() => match told {
                // It does so already.
                Told::News(Outcome::Alone) => match begun.answer.await {
                    Ok(brought) => Flown::Done(self.brought(brought, looked, verdict)),
                    Err(_) => Flown::Alone,
                },
                Told::News(outcome) => self.news(&outcome, looked, verdict),
                Told::Lead(_) | Told::Over => Flown::Again,
            },
        }
    }

    fn news(&self, outcome: &Outcome, looked: &Looked, verdict: Serve) -> Flown {
        self.request.exchange.tick();
        match outcome {
            Outcome::Landed(landing) if !self.fits(landing, looked) => Flown::Again,
            Outcome::Landed(landing) if !self.may_have(landing, Came::Before) => Flown::Alone,
            Outcome::Landed(landing) => self.shared(landing, looked, verdict).map_or(Flown::Again, Flown::Done),
            Outcome::Failed(failure) => Flown::Done(self.failed_with(failure, looked, verdict)),
            Outcome::Alone => Flown::Alone,
            Outcome::Again => Flown::Again,
        }
    }

    fn fits(&self, landing: &Landing, looked: &Looked) -> bool {
        let key = self.caching.variant(looked.primary, &landing.names, &self.request.headers);
        key == landing.key && looked.primary == landing.primary && landing.is_for(self.arrived)
    }

    /// Whether what another request has brought may be the answer to this one.
    fn may_have(&self, landing: &Landing, came: Came) -> bool {
        let at = match came {
            Came::Before => landing.received,
            Came::Later => self.caching.now(&self.request.exchange),
        };
        match serve(Some(&landing.stored), &self.asked, self.caching.rules(), at) {
            Serve::Hit | Serve::Stale { .. } => true,
            // It has just been asked for.
            Serve::Revalidate(Why::Request) => came == Came::Before,
            _ => false,
        }
    }

    /// The answer to this request of what another one has brought. `None`: its beginning is not there any more.
    fn shared(&self, landing: &Landing, looked: &Looked, verdict: Serve) -> Option<Result<Response, Error>> {
        let now = self.caching.now(&self.request.exchange);
        let age = landing.stored.age_seconds(now);
        let answer = of_landing(Asker::of(&self.request), landing, age, self.arrived)?;
        let status = CacheStatus::of(verdict, looked.is_known(), 0).collapsed();
        let status = CacheStatus { ttl: Some(landing.stored.ttl(now)), ..status };
        Some(told(&self.caching, &self.request.exchange, answer, status, CacheVerdict::Collapsed))
    }

    /// The answer to a request that is answered with what is stored.
    pub(super) fn stored(&self, looked: &Looked, verdict: Serve, has_waited: bool) -> Result<Response, Error> {
        stored(&self.caching, &self.request, looked, verdict, has_waited)
    }

    fn unavailable(&self) -> Result<Response, Error> {
        unavailable(&self.caching, &self.request.exchange)
    }

    fn brought(&self, brought: Brought, looked: &Looked, verdict: Serve) -> Result<Response, Error> {
        match brought {
            Brought::Landed(fresh, ..) => {
                let asker = Asker::of(&self.request);
                landed(&self.caching, asker, *fresh, status_of(looked, verdict))
            }
            Brought::Passed(response, refusal) => {
                let status = status_of(looked, verdict);
                let status = refusal.map_or(status, |refusal| status.stored(Err(refusal)));
                let answer = answer::of_passed(Asker::of(&self.request), response);
                told(&self.caching, &self.request.exchange, answer, status, CacheVerdict::Miss)
            }
            Brought::Failed(failed) => self.failed(failed, looked, verdict),
        }
    }

    /// The app has failed, or was not reached.
    pub(super) fn failed(&self, failed: Failed, looked: &Looked, verdict: Serve) -> Result<Response, Error> {
        let status = match &failed {
            Failed::Error(error) if !is_for_all(error) => {
                return told(
                    &self.caching,
                    &self.request.exchange,
                    failed.answer(),
                    status_of(looked, verdict),
                    CacheVerdict::Miss,
                );
            }
            Failed::Error(_) => None,
            Failed::Answer(response) => Some(response.status().as_u16()),
        };
        if let Some(answer) = self.instead_of_failure(looked, verdict, During::Request(status)) {
            return answer;
        }
        told(&self.caching, &self.request.exchange, failed.answer(), status_of(looked, verdict), CacheVerdict::Miss)
    }

    fn failed_with(&self, failure: &Failure, looked: &Looked, verdict: Serve) -> Result<Response, Error> {
        let status = match failure {
            Failure::Error { .. } => None,
            Failure::Answer { status, .. } => Some(status.as_u16()),
        };
        if let Some(answer) = self.instead_of_failure(looked, verdict, During::Request(status)) {
            return answer;
        }
        let answer = match failure {
            Failure::Error { reason, detail, retry_after, is_counted } => {
                // One failure is counted once.
                self.request.exchange.is_counted.set(*is_counted);
                let error = Error::new(*reason).detail(detail.to_string());
                Err(Error { retry_after: *retry_after, ..error })
            }
            Failure::Answer { status, fields, body } => {
                let mut response = Response::new(Body::Full(body.clone()));
                *response.status_mut() = *status;
                *response.headers_mut() = fields.clone();
                Ok(response)
            }
        };
        let status = status_of(looked, verdict).collapsed();
        told(&self.caching, &self.request.exchange, answer, status, CacheVerdict::Collapsed)
    }

    /// Whether it has been seen of late that what waits for each other here gets nothing from it.
    fn is_for_itself(&self, key: &Key) -> bool {
        let cache = self.caching.cache();
        cache.loners().has(key) || (self.asked.has_cookies() && cache.loners_with_cookies().has(key))
    }

    /// What is stored, if it may stand in for a failure (RFC 5861, 4).
    fn instead_of_failure(&self, looked: &Looked, verdict: Serve, failure: During) -> Option<Result<Response, Error>> {
        if !matches!(verdict, Serve::Revalidate(_)) {
            return None;
        }
        let (object, stored) = looked.response()?;
        let now = self.caching.now(&self.request.exchange);
        let is_purged = self.caching.store().is_purged_since(self.arrived, object);
        if is_purged || !stored.may_replace_failure(self.caching.rules(), now) {
            return None;
        }
        let answer = answer::of_object(Asker::of(&self.request), object, stored.age_seconds(now));
        let ttl = stored.ttl(now);
        let said = match failure {
            During::Outage => CacheStatus::hit(ttl),
            During::Request(status) => {
                CacheStatus { forward_status: status, ttl: Some(ttl), ..CacheStatus::forwarded(Forward::Stale) }
            }
        };
        let said = CacheStatus { detail: Some("stale-if-error"), ..said };
        Some(told(&self.caching, &self.request.exchange, answer, said, CacheVerdict::Stale))
    }
}

impl Failed {
    pub(super) fn answer(self) -> Result<Response, Error> {
        match self {
            Self::Error(error) => Err(error),
            Self::Answer(response) => Ok(response),
        }
    }
}

/// What is told of a request that the app is asked for.
pub(super) fn status_of(looked: &Looked, verdict: Serve) -> CacheStatus {
    CacheStatus::of(verdict, looked.is_known(), 0)
}

/// The answer to a request that is answered with what is stored.
pub(super) fn stored(
    caching: &Caching,
    request: &Request,
    looked: &Looked,
    verdict: Serve,
    has_waited: bool,
) -> Result<Response, Error> {
    let exchange = &request.exchange;
    let Some((object, stored)) = looked.response() else { return Err(Reason::Internal.into()) };
    let now = caching.now(exchange);
    let answer = answer::of_object(Asker::of(request), object, stored.age_seconds(now));
    let status = CacheStatus::of(verdict, true, stored.ttl(now));
    let (status, counted) = match verdict {
        // It is in the store by now: a hit, and nothing was forwarded.
        _ if has_waited => (status, CacheVerdict::Collapsed),
        Serve::Hit => (status, CacheVerdict::Hit),
        _ => (status, CacheVerdict::Stale),
    };
    told(caching, exchange, answer, status, counted)
}

/// 504: only what is stored was asked for.
pub(super) fn unavailable(caching: &Caching, exchange: &Exchange) -> Result<Response, Error> {
    let status = CacheStatus::of(Serve::Unavailable, false, 0);
    let error = Error::new(Reason::NotCached).detail("the request says only-if-cached, and nothing stored may be used");
    told(caching, exchange, Err(error), status, CacheVerdict::Unavailable)
}

/// The answer to the client whose request has brought it.
pub(super) fn landed(
    caching: &Caching,
    asker: Asker<'_>,
    fresh: Fresh,
    status: CacheStatus,
) -> Result<Response, Error> {
    let Fresh { landing, body, first, is_validated, is_stored, refusal } = fresh;
    let exchange = asker.exchange;
    let now = caching.now(exchange);
    // What has come has come from the app, just now: how old it is the app has said, or not.
    let age = is_validated.then(|| landing.stored.age_seconds(now));
    let answer = match (age, body) {
        (Some(age), _) => of_landing(asker, &landing, age, caching.store().moment()),
        (None, Some(body)) => Some(answer::of_coming(asker, landing.status, landing.fields.clone(), body, None)),
        (None, None) => None,
    };
    // The body of this client is taken before it goes on: there is one.
    let answer = answer.unwrap_or_else(|| Err(Error::new(Reason::EofInBody).detail("the response has no beginning")));
    let status = if is_validated { status.answered(304) } else { status };
    let status = match (is_stored, refusal) {
        (true, _) => CacheStatus { ttl: Some(landing.stored.ttl(now)), ..status.stored(Ok(())) },
        (false, Some(refusal)) => status.stored(Err(refusal)),
        (false, None) => status,
    };
    let verdict = if is_validated { CacheVerdict::Revalidated } else { CacheVerdict::Miss };
    let answer = answer.map(|response| with_first(response, first));
    told(caching, exchange, answer, status, verdict)
}

/// The answer that somebody gets of what has come. `None`: its beginning is not there any more, or a purge has struck it.
fn of_landing(asker: Asker<'_>, landing: &Landing, age: u64, asked: Moment) -> Option<Result<Response, Error>> {
    let fields = landing.fields.clone();
    if let Content::Object(object) = &landing.content {
        return Some(answer::with_fields(asker, object, fields, age));
    }
    Some(answer::of_coming(asker, landing.status, fields, landing.body(asked)?, Some(age)))
}

/// With the fields that are for this client alone.
fn with_first(mut response: Response, first: HeaderMap) -> Response {
    for (name, value) in &first {
        response.headers_mut().append(name.clone(), value.clone());
    }
    response
}
