//! Asking the app, and what becomes of its answer.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

use super::caching::Caching;
use super::keep;
use super::lookup::Looked;
use super::marker;
use super::pump::Pump;
use crate::cache::key::Key;
use crate::cache::landing::{Content, Landing};
use crate::cache::policy::request::KEPT_BACK;
use crate::cache::policy::validate::is_failure;
use crate::cache::policy::{Asked, Refusal, Stored, Times, Validated, conditions, storable, validated};
use crate::cache::store::{Finish, Moment, NotStored, Object, Update};
use crate::error::{Error, Reason, Side};
use crate::http::{Body, Codings, Exchange, Held, Phase, Request, Response, Service};

/// What is asked for, and where it belongs.
pub(super) struct Aim {
    pub(super) caching: Arc<Caching>,
    pub(super) asked: Asked,
    pub(super) primary: Key,
    pub(super) key: Key,
    pub(super) names: Vec<HeaderName>,
    /// What is stored, and is asked for again.
    known: Option<(Arc<Object>, Stored)>,
    /// The client's fields. `None`: an answer that differs by others than are known is not stored.
    pub(super) headers: Option<HeaderMap>,
    /// For purges.
    pub(super) host: Box<str>,
    pub(super) path: Box<str>,
}

/// How the app is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// For something that others may have: all of it, or whether what is stored is still good.
    ForAll,
    /// As the client has asked.
    AsAsked,
}

/// What has come.
pub(super) enum Brought {
    /// Something that is, or could be, for others.
    Landed(Box<Fresh>, Shared, After),
    /// An answer for this client alone.
    Passed(Response, Option<Refusal>),
    /// A failure.
    Failed(Failed),
}

/// No answer, or one that says that the app has failed.
pub(super) enum Failed {
    Error(Error),
    Answer(Response),
}

/// What has come for all.
pub(super) struct Fresh {
    pub(super) landing: Arc<Landing>,
    /// For the client whose request it was, unless it is validated.
    pub(super) body: Option<Body>,
    /// Fields for that client, and nobody else.
    pub(super) first: HeaderMap,
    /// The app has said that what is stored is still good.
    pub(super) is_validated: bool,
    /// Whether it is stored, or is being stored.
    pub(super) is_stored: bool,
    /// Why not.
    pub(super) refusal: Option<Refusal>,
}

/// To whom it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    /// All who have waited for it.
    All,
    /// Those who have asked before it was overtaken; the others look again.
    Overtaken,
    /// Nobody: they ask for themselves.
    Nobody,
}

/// What is still to be done.
pub(super) enum After {
    Nothing,
    /// Its last bytes are being written.
    Finish(Finish),
    /// Its body is still coming.
    Pump(Box<Pump>),
}

/// What one request to the app has come to.
enum Once {
    Brought(Brought),
    /// It is about something else than what is stored.
    Other,
}

/// When the app was asked.
pub(super) struct Begun {
    pub(super) since: Moment,
    requested: u64,
    hops: u8,
}

impl Aim {
    /// `headers`: the client's, where an answer may tell that it differs by them. What is stored is asked for again if
    /// `is_revalidated`.
    pub(super) fn new(
        caching: &Arc<Caching>,
        asked: Asked,
        looked: &Looked,
        request: &Request,
        headers: Option<HeaderMap>,
        is_revalidated: bool,
    ) -> Self {
        let labels = caching.labels();
        let known = looked.response().filter(|_| is_revalidated);
        Self {
            asked,
            primary: looked.primary,
            key: looked.key,
            names: looked.names(),
            known: known.map(|(object, stored)| (Arc::clone(object), *stored)),
            headers,
            host: labels.host(request.exchange.host.as_ref()).into(),
            path: labels.path(&request.target).into(),
            caching: Arc::clone(caching),
        }
    }

    /// The client's fields, if they were kept.
    pub(super) const fn headers(&self) -> Option<&HeaderMap> {
        self.headers.as_ref()
    }

    /// Whether what is stored may stand in for a failure now.
    pub(super) fn may_stand_in(&self) -> bool {
        let now = self.caching.cache().clock().steady();
        self.known.as_ref().is_some_and(|(_, stored)| stored.may_replace_failure(self.caching.rules(), now))
    }

    /// Whether something is stored that is asked for again.
    pub(super) const fn is_revalidation(&self) -> bool {
        self.known.is_some()
    }
}

/// Asks the app.
pub(super) async fn bring<S: Service<Error = Error>>(
    inner: &S,
    mut request: Box<Request>,
    aim: &Aim,
    manner: Manner,
) -> Brought {
    if manner == Manner::ForAll {
        for name in &KEPT_BACK {
            request.headers.remove(name);
        }
    }
    let kept = aim.known.as_ref().map(|(object, _)| object.headers());
    let Some(kept) = kept else {
        return match once(inner, request, aim, None).await {
            Once::Brought(brought) => brought,
            Once::Other => Brought::Failed(Failed::Error(Reason::Internal.into())),
        };
    };
    let unconditional = copy(&request, Rc::clone(&request.exchange));
    for (name, value) in conditions(&kept).into_iter().flatten() {
        request.headers.insert(name, value);
    }
    match once(inner, request, aim, Some(&kept)).await {
        Once::Brought(brought) => brought,
        Once::Other => Box::pin(bring_anew(inner, unconditional, aim)).await,
    }
}

/// What is stored is not what the app has: all of it is asked for.
async fn bring_anew<S: Service<Error = Error>>(inner: &S, request: Box<Request>, aim: &Aim) -> Brought {
    match once(inner, request, aim, None).await {
        Once::Brought(brought) => brought,
        // Only what is held against something is another.
        Once::Other => Brought::Failed(Failed::Error(Reason::Internal.into())),
    }
}

/// The same request, for another exchange.
pub(super) fn copy(request: &Request, exchange: Rc<Exchange>) -> Box<Request> {
    Box::new(Request {
        method: request.method.clone(),
        target: request.target.clone(),
        headers: request.headers.clone(),
        // One with a body never comes here.
        body: Body::Empty,
        exchange,
        refused: None,
    })
}

async fn once<S: Service<Error = Error>>(
    inner: &S,
    request: Box<Request>,
    aim: &Aim,
    kept: Option<&HeaderMap>,
) -> Once {
    let exchange = Rc::clone(&request.exchange);
    let clock = aim.caching.cache().clock();
    let begun = Begun { since: aim.caching.store().moment(), requested: clock.steady(), hops: exchange.hops.get() };
    let response = match inner.call(request).await {
        Ok(response) => response,
        Err(error) => return Once::Brought(Brought::Failed(Failed::Error(error))),
    };
    let times = Times { requested: begun.requested, received: clock.steady(), wall: clock.wall() };
    if is_of_one(&response, &exchange, begun.hops) {
        return Once::Brought(Brought::Passed(response, None));
    }
    let is_handed_on = exchange.hops.get() != begun.hops
        || response.extensions().get::<Held>().is_some()
        || matches!(exchange.phase.get(), Phase::Responding | Phase::Holding);
    let asked = if is_handed_on { aim.asked.handed_on() } else { aim.asked };
    let (status, headers, rules) = (response.status(), response.headers(), aim.caching.rules());
    let decided = match (&aim.known, kept) {
        (Some((object, stored)), Some(kept)) => {
            match validated(&asked, status, headers, (stored, kept), &times, rules) {
                Validated::Fresh { fields, first, stored: Ok(stored) } => {
                    return Once::Brought(freshened(aim, object, (fields, first, stored), &begun, &times));
                }
                Validated::Fresh { fields, first, stored: Err(refusal) } => {
                    let drop_it = if refusal.is_of_the_response() { marker::remember } else { marker::drop_stored };
                    drop_it(&aim.caching, &aim.primary, &aim.key, begun.since);
                    return Once::Brought(good_once(aim, object, *stored, (fields, first), Some(refusal), &times));
                }
                Validated::Once { fields, first } => {
                    return Once::Brought(good_once(aim, object, *stored, (fields, first), None, &times));
                }
                Validated::Other => return Once::Other,
                Validated::Failed | Validated::Passed => {
                    return Once::Brought(Brought::Failed(Failed::Answer(response)));
                }
                Validated::New(decided) => decided,
            }
        }
        _ => storable(&asked, status, headers, &times, rules),
    };
    Once::Brought(match decided {
        Ok(storable) => keep::keep(aim, response, storable, &begun, &times),
        Err(_) if is_failure(status) => Brought::Failed(Failed::Answer(response)),
        Err(refusal) => refused(aim, &asked, response, refusal, &begun),
    })
}

/// Whether an answer is one client's own in a way that it does not say: it goes on as he is there, or was coded by another
/// route by what he takes, which is not among the fields that this one has seen.
fn is_of_one(response: &Response, exchange: &Exchange, hops: u8) -> bool {
    let takes_more = exchange.codings.get().is_some_and(|codings| codings != Codings::NONE);
    let is_coded = exchange.hops.get() != hops && response.headers().contains_key(header::CONTENT_ENCODING);
    matches!(response.body(), Body::Takeover(_))
        || response.extensions().get::<Held>().is_some()
        || (takes_more && is_coded)
}

pub(super) fn refused(aim: &Aim, asked: &Asked, response: Response, refusal: Refusal, begun: &Begun) -> Brought {
    if marker::is_worth_remembering(asked, response.status(), refusal) {
        marker::remember(&aim.caching, &aim.primary, &aim.key, begun.since);
    }
    Brought::Passed(response, Some(refusal))
}

/// What is stored is good, for all.
fn freshened(
    aim: &Aim,
    object: &Arc<Object>,
    (fields, first, stored): (HeaderMap, HeaderMap, Stored),
    begun: &Begun,
    times: &Times,
) -> Brought {
    let facts = stored.to_bytes();
    let primary = (aim.key != aim.primary).then_some(aim.primary);
    let update = Update { fields: &fields, facts: &facts, since: begun.since, primary };
    let outcome = aim.caching.store().freshen(&aim.key, object, &update);
    let shared = match outcome {
        Err(NotStored::Purged | NotStored::Overtaken) => Shared::Overtaken,
        // Of a large one the store decides later, when it is written.
        _ if aim.caching.store().is_purged_since(begun.since, object) => Shared::Overtaken,
        _ => Shared::All,
    };
    let fresh = Fresh {
        landing: Arc::new(Landing {
            overtaken: (shared == Shared::Overtaken).then_some(begun.since),
            ..of_object(aim, object, fields, stored, times)
        }),
        body: None,
        first,
        is_validated: true,
        is_stored: outcome.is_ok(),
        refusal: None,
    };
    Brought::Landed(Box::new(fresh), shared, After::Nothing)
}

/// What is stored is good for this client.
fn good_once(
    aim: &Aim,
    object: &Arc<Object>,
    stored: Stored,
    (fields, first): (HeaderMap, HeaderMap),
    refusal: Option<Refusal>,
    times: &Times,
) -> Brought {
    let landing = Arc::new(of_object(aim, object, fields, stored, times));
    let fresh = Fresh { landing, body: None, first, is_validated: true, is_stored: false, refusal };
    Brought::Landed(Box::new(fresh), Shared::Nobody, After::Nothing)
}

fn of_object(aim: &Aim, object: &Arc<Object>, fields: HeaderMap, stored: Stored, times: &Times) -> Landing {
    Landing {
        primary: aim.primary,
        names: aim.names.clone().into(),
        key: aim.key,
        status: object.status(),
        fields,
        stored,
        received: times.received,
        overtaken: None,
        content: Content::Object(Arc::clone(object)),
    }
}

/// Whether a failure of this kind says nothing of the request that met it.
pub(super) fn is_for_all(error: &Error) -> bool {
    error.reason.side() != Side::Client
}

/// Whether an answer to HEAD is held against what is stored.
pub(super) fn is_head(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD && status == StatusCode::OK
}
