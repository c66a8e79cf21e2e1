//! The operator's hand: `/pause`, `/resume`, `/drain` and `/reload`, each for POST.
//!
//! | | parameters | |
//! |---|---|---|
//! | `/pause` | `upstream` | nobody is let through to its workers; requests wait |
//! | `/resume` | `upstream` | they are again, to its drained endpoints as well |
//! | `/resume` | `endpoint`, perhaps `upstream` | exchanges go to the endpoint again |
//! | `/drain` | `endpoint`, perhaps `upstream` | no further exchange goes to the endpoint |
//! | `/reload` | | what SIGHUP does |
//!
//! Each can be asked for again and again; the answer says whether it changed anything. All of it lives as long as the
//! process, whatever is reloaded.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::oneshot;

use super::door::Caller;
use super::parameters::{LONGEST, Parameters};
use super::status::{self, UpstreamStatus};
use super::{Admin, NotReloaded, json, text, wants_text};
use crate::config::EndpointAddress;
use crate::http::{Request, Response};
use crate::observe::json::Object;
use crate::upstream::{Condition, Endpoint, Upstream};

/// What an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Pause,
    Resume,
    Drain,
    Reload,
}

/// Why an order is not obeyed.
pub(super) type Refusal = (StatusCode, String);

/// What an order is about.
enum Subject {
    Upstream(Arc<Upstream>),
    Endpoint(Arc<Upstream>, Arc<Endpoint>),
}

/// What has been done.
struct Done {
    changed: bool,
    upstream: Arc<Upstream>,
    endpoint: Option<Arc<Endpoint>>,
}

impl Order {
    /// The order that this path asks for.
    pub(super) fn at(path: &[u8]) -> Option<Self> {
        match path {
            b"/pause" => Some(Self::Pause),
            b"/resume" => Some(Self::Resume),
            b"/drain" => Some(Self::Drain),
            b"/reload" => Some(Self::Reload),
            _ => None,
        }
    }
}

/// Does what is asked for, and says what is now.
pub(super) async fn obey(admin: &Admin, caller: &Caller, order: Order, mut request: Box<Request>) -> Response {
    let wants_text = wants_text(&request.headers);
    let parameters = match parameters(&mut request).await {
        Ok(parameters) => parameters,
        Err(refusal) => return refuse(refusal),
    };
    if order == Order::Reload {
        return reload(admin, caller, &parameters, wants_text).await;
    }
    let subject = subject(&admin.running.upstreams(), order, &parameters);
    match subject.map(|subject| carry_out(order, subject, caller)) {
        Ok(done) if wants_text => text(StatusCode::OK, sentence(order, &done)),
        Ok(done) => json(StatusCode::OK, report(&done)),
        Err(refusal) => refuse(refusal),
    }
}

pub(super) fn refuse((status, sentence): Refusal) -> Response {
    text(status, format!("{sentence}\n"))
}

pub(super) fn bad(sentence: impl Into<String>) -> Refusal {
    (StatusCode::BAD_REQUEST, sentence.into())
}

/// Those of the query and those of a form in the body.
async fn parameters(request: &mut Request) -> Result<Parameters, Refusal> {
    let form = form(request, LONGEST).await?;
    Parameters::parse(&[query(request), &form]).map_err(bad)
}

/// The query of a request.
pub(super) fn query(request: &Request) -> &[u8] {
    request.target.query_with_mark().trim_start_matches('?').as_bytes()
}

/// The body of a request whose query is no longer, either, than so many bytes.
pub(super) async fn form(request: &mut Request, longest: usize) -> Result<Vec<u8>, Refusal> {
    if query(request).len() > longest {
        return Err((StatusCode::URI_TOO_LONG, format!("the query is longer than {longest} bytes")));
    }
    let mut form = Vec::new();
    while let Some(piece) = request.body.data().await {
        let piece = piece.map_err(|error| bad(format!("the body cannot be read: {}", error.reason)))?;
        if form.len() + piece.len() > longest {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {longest} bytes")));
        }
        form.extend_from_slice(&piece);
    }
    Ok(form)
}

fn subject(upstreams: &[Arc<Upstream>], order: Order, parameters: &Parameters) -> Result<Subject, Refusal> {
    let named = parameters.upstream.as_deref().map(|name| upstream(upstreams, name)).transpose()?;
    match (order, named, parameters.endpoint.as_deref()) {
        (Order::Drain, _, None) => Err(bad("say what is to be drained: endpoint=ADDRESS")),
        (Order::Pause, _, Some(_)) => Err(bad("an upstream is paused as a whole; an endpoint is drained: /drain")),
        (_, None, None) => Err(bad("say which upstream: upstream=NAME")),
        (_, Some(named), None) => Ok(Subject::Upstream(Arc::clone(named))),
        (_, Some(named), Some(address)) => endpoint(std::slice::from_ref(named), address),
        (_, None, Some(address)) => endpoint(upstreams, address),
    }
}

fn upstream<'a>(upstreams: &'a [Arc<Upstream>], name: &str) -> Result<&'a Arc<Upstream>, Refusal> {
    upstreams.iter().find(|upstream| *upstream.name == *name).ok_or_else(|| {
        let known: Vec<_> = upstreams.iter().map(|upstream| &*upstream.name).collect();
        (StatusCode::NOT_FOUND, format!("there is no upstream {name}; {}", list("upstreams", &known)))
    })
}

/// The one endpoint at this address.
fn endpoint(upstreams: &[Arc<Upstream>], address: &str) -> Result<Subject, Refusal> {
    let wanted = EndpointAddress::parse(address).map_err(bad)?;
    let all = || upstreams.iter().flat_map(|upstream| upstream.endpoints().iter().map(move |known| (upstream, known)));
    let mut found = all().filter(|(_, known)| *known.address() == wanted);
    match (found.next(), found.next()) {
        (Some((upstream, known)), None) => Ok(Subject::Endpoint(Arc::clone(upstream), Arc::clone(known))),
        (None, _) => {
            let known: Vec<_> = all().map(|(_, known)| known.name()).collect();
            Err((StatusCode::NOT_FOUND, format!("there is no endpoint {address}; {}", list("endpoints", &known))))
        }
        _ => {
            let owners = all().filter(|(_, known)| *known.address() == wanted);
            let owners: Vec<_> = owners.map(|(upstream, _)| &*upstream.name).collect();
            let owners = owners.join(" and of ");
            Err((StatusCode::CONFLICT, format!("{address} is an endpoint of {owners}: say which with upstream=NAME")))
        }
    }
}

/// `the endpoints are a, b`
fn list(what: &str, known: &[&str]) -> String {
    match known {
        [] => "there are none".into(),
        known => format!("the {what} are {}", known.join(", ")),
    }
}

fn carry_out(order: Order, subject: Subject, caller: &Caller) -> Done {
    let (upstream, endpoint) = match subject {
        Subject::Upstream(upstream) => (upstream, None),
        Subject::Endpoint(upstream, endpoint) => (upstream, Some(endpoint)),
    };
    let changed = match (order, &endpoint) {
        (_, Some(endpoint)) => upstream.drain(endpoint, order == Order::Drain),
        (Order::Pause, None) => upstream.pause(),
        (_, None) => upstream.resume(),
    };
    let what = match order {
        Order::Pause => "paused by the operator: requests wait until it is resumed",
        Order::Drain => "drained by the operator: no further exchange goes there until it is resumed",
        _ => "resumed by the operator",
    };
    let endpoint_name = endpoint.as_ref().map(|endpoint| endpoint.name());
    tracing::info!(upstream = %upstream.name, endpoint = endpoint_name, by = %caller, changed, "{what}");
    Done { changed, upstream, endpoint }
}

/// `{"changed":…,"endpoint":…,"upstream":{…}}`, the upstream as in `/status`.
fn report(done: &Done) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut object = Object::begin(&mut out);
    object.boolean("changed", done.changed);
    match &done.endpoint {
        Some(endpoint) => object.text("endpoint", endpoint.name()),
        None => object.null("endpoint"),
    };
    let now = UpstreamStatus::take(&done.upstream);
    object.object("upstream", |object| status::write_upstream(object, &now));
    object.end();
    out.push(b'\n');
    out
}

/// The same for a terminal.
fn sentence(order: Order, done: &Done) -> String {
    let now = UpstreamStatus::take(&done.upstream);
    let (name, already) = (&now.name, if done.changed { "" } else { " already" });
    match (order, &done.endpoint) {
        (_, Some(endpoint)) => {
            let is = if order == Order::Drain { "drained" } else { "not drained" };
            let (address, condition) = (endpoint.name(), endpoint.condition().as_str());
            let flights = endpoint.in_flight();
            let tail = if order == Order::Drain { String::new() } else { format!("; it is {condition}") };
            format!("{address} (upstream {name}) is{already} {is}: {flights} in flight there{tail}\n")
        }
        (order, None) => {
            let is = if order == Order::Pause { "paused" } else { "open" };
            format!("{name} is{already} {is}: {} in flight, {} waiting\n", now.room.in_flight, now.room.waiting)
        }
    }
}

async fn reload(admin: &Admin, caller: &Caller, parameters: &Parameters, wants_text: bool) -> Response {
    if *parameters != Parameters::default() {
        return refuse(bad("a reload takes no parameters"));
    }
    tracing::info!(by = %caller, "the operator asks for a reload");
    let (sender, receiver) = oneshot::channel();
    // An error is a gateway that is stopping, or one that is asked faster than it can reload.
    let asked = admin.reloads.try_send(sender).is_ok();
    let answered = if asked { receiver.await.ok() } else { None };
    match answered {
        None => refuse((StatusCode::SERVICE_UNAVAILABLE, "not now: reloads wait already, or it is stopping".into())),
        Some(Err(NotReloaded::Config(report))) => refuse((StatusCode::UNPROCESSABLE_ENTITY, report)),
        Some(Err(NotReloaded::Start(error))) => refuse((StatusCode::INTERNAL_SERVER_ERROR, error)),
        Some(Ok(reloaded)) if wants_text => {
            let warnings: String = reloaded.warnings.iter().map(|warning| format!("{warning}\n\n")).collect();
            text(StatusCode::OK, format!("{warnings}reloaded: configuration {} is in force\n", reloaded.generation))
        }
        Some(Ok(reloaded)) => {
            let mut out = Vec::new();
            let mut object = Object::begin(&mut out);
            object.integer("generation", reloaded.generation).list(
                "warnings",
                &reloaded.warnings,
                |object, warning| {
                    object.text("text", warning);
                },
            );
            object.end();
            out.push(b'\n');
            json(StatusCode::OK, out)
        }
    }
}

/// What an operator has stopped and not let go yet, to be said at a reload: it outlives that.
#[must_use]
pub fn reminders(upstreams: &[Arc<Upstream>]) -> Vec<String> {
    let mut all = Vec::new();
    for upstream in upstreams {
        let name = &upstream.name;
        if upstream.room.status().is_paused {
            all.push(format!("upstream {name} is still paused: `hostler resume {name}` lets requests through"));
        }
        let drained = upstream.endpoints().iter().filter(|endpoint| endpoint.condition() == Condition::Drained);
        for endpoint in drained.map(|endpoint| endpoint.name()) {
            all.push(format!(
                "endpoint {endpoint} of upstream {name} is still drained: `hostler resume {endpoint}` sends requests there"
            ));
        }
    }
    all
}
