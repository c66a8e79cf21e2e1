//! The request to the app for all who wait, as a task of its own: it goes on when the client that it was begun for leaves, as long
//! as somebody waits for it or the app is at work already. What waits for a worker, and is wanted by nobody, is given up.
//!
//! Its exchange is one in the client's place, which log and metrics of requests do not see; those of the upstream do. The client's
//! own learns from it what the log wants to know. A drain waits for it, unless it is a refresh, for which nobody waits.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::caching::Caching;
use super::fetch::{self, After, Aim, Brought, Failed, Manner, Shared};
use super::lookup::Looked;
use super::marker;
use crate::cache::coalesce::Lead;
use crate::cache::landing::{Failure, Landing, Outcome};
use crate::cache::policy::cache_control::Flags;
use crate::cache::policy::fields as stored_fields;
use crate::cache::policy::said::Said;
use crate::cache::policy::{Asked, Refusal, vary};
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, ExchangeGuard, Finish, Phase, Request, Response, Service};
use crate::runtime::drain::Errand;

/// How often it is looked whether anybody still wants it.
const LOOK: Duration = Duration::from_millis(250);
/// How many who wait lead one after the other, because each brings what says nothing of the others, before each asks for himself.
const HEIRS: u32 = 3;
/// Bytes of a failure's page that all get.
const PAGE: usize = 64 << 10;

/// For whom it is asked.
pub(super) enum For {
    /// A client, that hears first what has come.
    Client(oneshot::Sender<Brought>, Rc<Exchange>),
    /// Nobody who waits.
    Refresh,
}

impl For {
    const fn is_refresh(&self) -> bool {
        matches!(self, Self::Refresh)
    }

    fn is_wanted(&self) -> bool {
        matches!(self, Self::Client(told, _) if !told.is_closed())
    }
}

/// One request to the app.
struct Flight<S> {
    inner: Rc<S>,
    aim: Aim,
    exchange: Rc<Exchange>,
    lead: Option<Lead<Outcome>>,
    whom: For,
}

/// What a client that has begun one has of it.
pub(super) struct Begun {
    pub(super) answer: oneshot::Receiver<Brought>,
    /// Leaves in the client's exchange what has been until then.
    _mirror: Mirror,
}

/// Begins one for a client.
pub(super) fn begin<S: Service<Error = Error> + 'static>(
    inner: &Rc<S>,
    caching: &Arc<Caching>,
    (request, asked): (&Request, Asked),
    looked: &Looked,
    lead: Lead<Outcome>,
) -> Begun {
    let exchange = Rc::new(request.exchange.in_its_place());
    let (told, answer) = oneshot::channel();
    let mirror = Mirror { of: Rc::clone(&exchange), client: Rc::clone(&request.exchange) };
    let whom = For::Client(told, Rc::clone(&request.exchange));
    fly(inner, caching, (request, asked), looked, lead, (exchange, whom));
    Begun { answer, _mirror: mirror }
}

/// Begins one for nobody who waits.
pub(super) fn refresh<S: Service<Error = Error> + 'static>(
    inner: &Rc<S>,
    caching: &Arc<Caching>,
    (request, asked): (&Request, Asked),
    looked: &Looked,
    lead: Lead<Outcome>,
) {
    let exchange = Rc::new(request.exchange.in_its_place());
    exchange.is_background.set(true);
    fly(inner, caching, (request, asked), looked, lead, (exchange, For::Refresh));
}

fn fly<S: Service<Error = Error> + 'static>(
    inner: &Rc<S>,
    caching: &Arc<Caching>,
    (request, asked): (&Request, Asked),
    looked: &Looked,
    lead: Lead<Outcome>,
    (exchange, whom): (Rc<Exchange>, For),
) {
    let aim = Aim::new(caching, asked, looked, request, Some(request.headers.clone()), true);
    let own = fetch::copy(request, Rc::clone(&exchange));
    let flight = Flight { inner: Rc::clone(inner), aim, exchange, lead: Some(lead), whom };
    tokio::task::spawn_local(flight.run(own));
}

impl<S: Service<Error = Error> + 'static> Flight<S> {
    async fn run(mut self, request: Box<Request>) {
        let errand = (!self.whom.is_refresh()).then(Errand::new);
        let guard = ExchangeGuard(Rc::clone(&self.exchange));
        let begun = Instant::now();
        self.exchange.tick();
        let brought = self.ask(request).await;
        if brought.is_some() {
            self.aim.caching.has_taken(begun.elapsed());
        }
        if let Some(brought) = brought {
            self.conclude(brought).await;
        }
        guard.0.finish(Finish::Complete);
        drop(errand);
    }

    /// `None`: nobody wants it any more.
    async fn ask(&mut self, request: Box<Request>) -> Option<Brought> {
        let Self { inner, aim, exchange, lead, whom } = self;
        let mut work = pin!(fetch::bring(&**inner, request, aim, Manner::ForAll));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll_fn(|cx| {
            if let Poll::Ready(brought) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(brought));
            }
            if exchange.phase.get() == Phase::Holding
                && let Some(lead) = lead.take()
            {
                // The app has its client wait for news: so may the others, each for himself.
                marker::remember(&aim.caching, &aim.primary, &aim.key, aim.caching.store().moment());
                lead.tell(&Outcome::Alone);
            }
            while look.poll_tick(cx).is_ready() {
                let is_wanted = whom.is_wanted() || lead.as_ref().is_some_and(Lead::is_wanted);
                if !is_wanted && is_early(exchange.phase.get()) {
                    return Poll::Ready(None);
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn conclude(self, brought: Brought) {
        let Self { aim, exchange, lead, whom, .. } = self;
        if let For::Client(_, client) = &whom {
            mirror(&exchange, client);
            exchange.answer_fields.leave_to(&client.answer_fields);
        }
        let is_refresh = whom.is_refresh();
        let tell = |brought: Brought| {
            if let For::Client(told, _) = whom {
                // It may have left.
                drop(told.send(brought));
            }
        };
        match brought {
            Brought::Landed(fresh, shared, after) => {
                let outcome = match shared {
                    Shared::All | Shared::Overtaken => Outcome::Landed(Arc::clone(&fresh.landing)),
                    Shared::Nobody => Outcome::Alone,
                };
                let is_good = fresh.is_stored || shared == Shared::Overtaken;
                note_use(&aim, &fresh.landing, shared);
                tell(Brought::Landed(fresh, shared, After::Nothing));
                let is_whole = go_on(after, lead, &outcome).await;
                note(&aim, if is_good && is_whole { End::Good } else { End::Useless });
            }
            Brought::Passed(response, refusal) => {
                let is_of_one = is_of_one(response.status(), refusal);
                // One odd client does not stop the others from asking; but whoever refreshes asks for all.
                if !is_of_one || is_refresh {
                    note(&aim, End::Useless);
                }
                tell(Brought::Passed(response, refusal));
                let Some(lead) = lead else { return };
                if !is_of_one {
                    lead.tell(&Outcome::Alone);
                } else if lead.leave(HEIRS, &Outcome::Alone) {
                    remember_loners(&aim, refusal);
                }
            }
            Brought::Failed(failed) => {
                let is_of_one = matches!(&failed, Failed::Error(error) if is_of_this_client(error, &aim));
                if !is_of_one {
                    note(&aim, End::Failed);
                } else if is_refresh {
                    note(&aim, End::Useless);
                }
                let failure = failure(&failed, &exchange, &aim);
                tell(Brought::Failed(failed));
                let Some(lead) = lead else { return };
                if is_of_one {
                    let _ = lead.leave(HEIRS, &Outcome::Alone);
                } else {
                    lead.fail(&Outcome::Failed(Arc::new(failure)));
                }
            }
        }
    }
}

/// Whether an answer that is not stored says nothing of what the others would get: it is about this one request.
fn is_of_one(status: StatusCode, refusal: Option<Refusal>) -> bool {
    let is_about_the_page = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
    let is_refused = status.is_client_error() && !is_about_the_page;
    is_refused || refusal.is_some_and(|refusal| !refusal.is_of_the_response())
}

/// Whether a failure is about the one who has met it. A place in the waiting room and room in the spool are dealt out to each
/// client by himself: what one is refused the others may get. Where something stored stands in, nobody needs to try.
fn is_of_this_client(error: &Error, aim: &Aim) -> bool {
    let is_dealt_out = matches!(error.reason, Reason::QueueFull | Reason::SpoolFull | Reason::StreamsFull);
    !fetch::is_for_all(error) || (is_dealt_out && !aim.may_stand_in())
}

/// Several in a row have brought nothing for the others, each in his turn. For a while nobody waits for that.
fn remember_loners(aim: &Aim, refusal: Option<Refusal>) {
    let cache = aim.caching.cache();
    let loners = if refusal == Some(Refusal::Cookies) { cache.loners_with_cookies() } else { cache.loners() };
    loners.failed(&aim.key);
}

/// Whether it is worth waiting for each other here: what is stale when it comes is nobody's who has waited.
fn note_use(aim: &Aim, landing: &Landing, shared: Shared) {
    let cache = aim.caching.cache();
    if shared != Shared::All {
        return;
    }
    if landing.stored.is_useful(aim.caching.rules(), landing.received) {
        cache.loners().succeeded(&aim.key);
        cache.loners_with_cookies().succeeded(&aim.key);
    } else {
        cache.loners().failed(&aim.key);
    }
}

/// Whether no worker has seen the request.
const fn is_early(phase: Phase) -> bool {
    matches!(phase, Phase::Receiving | Phase::Authorizing | Phase::Waiting | Phase::Connecting | Phase::Holding)
}

/// How it has ended that something was asked for again.
#[derive(Clone, Copy)]
enum End {
    Good,
    /// What is stored is as stale as it was.
    Useless,
    /// The app has failed.
    Failed,
}

fn note(aim: &Aim, end: End) {
    if !aim.is_revalidation() {
        return;
    }
    let cache = aim.caching.cache();
    match end {
        End::Good => {
            cache.backoff().succeeded(&aim.key);
            cache.outages().succeeded(&aim.key);
        }
        End::Useless => cache.backoff().failed(&aim.key),
        End::Failed => cache.outages().failed(&aim.key),
    }
}

/// Tells who waits, and does what is left. Whether the body has come to its end.
pub(super) async fn go_on(after: After, lead: Option<Lead<Outcome>>, outcome: &Outcome) -> bool {
    match after {
        After::Nothing => {
            lead.into_iter().for_each(|lead| lead.tell(outcome));
            true
        }
        After::Finish(finish) => {
            let landed = lead.map(|lead| lead.land(outcome));
            let is_stored = finish.await.is_ok();
            drop(landed);
            is_stored
        }
        After::Pump(pump) => {
            let landed = lead.map(|lead| lead.land(outcome));
            pump.run(|| drop(landed)).await
        }
    }
}

/// What of a failure those get who have waited.
fn failure(failed: &Failed, exchange: &Exchange, aim: &Aim) -> Failure {
    let response = match failed {
        Failed::Error(error) => return Failure::of(error, exchange.is_counted.get()),
        Failed::Answer(response) => response,
    };
    let (fields, body) = page(response, aim).unwrap_or_else(|| neutral(response));
    Failure::Answer { status: response.status(), fields, body }
}

/// The page of a failure, if it is small and says nothing of the one who has met it: what a success would have to say to be
/// for others goes for it as well.
fn page(response: &Response, aim: &Aim) -> Option<(HeaderMap, Bytes)> {
    if aim.asked.has_cookies()
        || !vary::names(response.headers(), aim.caching.rules()).is_ok_and(|names| names.is_empty())
    {
        return None;
    }
    let body = match response.body() {
        Body::Empty => Bytes::new(),
        Body::Full(bytes) if bytes.len() <= PAGE => bytes.clone(),
        _ => return None,
    };
    let said = Said::of(response.headers(), aim.caching.cache().clock().wall());
    let kept_back = Flags::PRIVATE.and(Flags::NO_STORE).and(Flags::NO_CACHE);
    let is_of_one = response.headers().contains_key(header::SET_COOKIE) || said.control.flags.has(kept_back);
    (!is_of_one).then(|| (stored_fields::stored(response.headers(), &said.control, said.date), body))
}

/// A page that says as much as all may know.
fn neutral(response: &Response) -> (HeaderMap, Bytes) {
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(after) = response.headers().get(header::RETRY_AFTER) {
        fields.insert(header::RETRY_AFTER, after.clone());
    }
    (fields, Bytes::from_static(b"Something went wrong. Please try again in a moment.\n"))
}

/// Brings a client's exchange up to date, however its wait ends.
struct Mirror {
    of: Rc<Exchange>,
    client: Rc<Exchange>,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        mirror(&self.of, &self.client);
    }
}

fn mirror(of: &Exchange, client: &Exchange) {
    if client.is_finished() {
        return;
    }
    client.endpoint.borrow_mut().clone_from(&of.endpoint.borrow());
    client.phase.set(of.phase.get());
    client.working_since.set(of.working_since.get());
    client.retries.set(of.retries.get());
    client.is_counted.set(of.is_counted.get());
    if of.is_disbelieved.get() {
        client.is_disbelieved.set(true);
    }
    let of = of.timings.get();
    client.time(|timings| {
        // It may have waited for others before.
        (timings.wait, timings.connect) = (timings.wait.max(of.wait), of.connect);
        (timings.head, timings.body) = (of.head, of.body);
    });
    client.tick();
}
