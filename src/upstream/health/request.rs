//! One probe: a GET on a connection of its own, and what becomes of the worker that has it.

use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::Aim;
use crate::config::{Config, HostPattern, Scheme, Site};
use crate::error::Error;
use crate::http::{Body, ConnectionInfo, Exchange, Finish, Host, Protocol, Request, Target};
use crate::http1::client::Patience;
use crate::upstream::head::{self, Terms};
use crate::upstream::wire::{self, Connection, Failed, Once};
use crate::upstream::{Outgoing, RouteTerms};

const USER_AGENT: HeaderValue = HeaderValue::from_static("hostler-health");

/// What came of a probe.
pub(super) struct Outcome {
    /// The status of the answer, or why there is none.
    pub(super) seen: Result<StatusCode, Error>,
    /// The worker, when it is not done with it.
    pub(super) rest: Option<Rest>,
}

/// A worker that is still busy with a probe.
pub(super) struct Rest {
    /// Whether it has not answered in time.
    pub(super) is_late: bool,
    /// Ends when the worker is done, or has been waited for long enough.
    pub(super) end: Pin<Box<dyn Future<Output = ()>>>,
}

/// Asks, within the probe's timeout in all.
pub(super) async fn ask(aim: Rc<Aim>) -> Outcome {
    let limit = aim.upstream.abandon();
    match exchange(&aim).await {
        Ok(wire::Response { status, body, .. }) => {
            let end = Box::pin(async move { drop(body.finish(limit).await) });
            Outcome { seen: Ok(status), rest: Some(Rest { is_late: false, end }) }
        }
        Err(Failed { error, busy }) => {
            let late = |connection: Connection| Rest { is_late: true, end: Box::pin(connection.closed(limit)) };
            Outcome { seen: Err(error), rest: busy.map(late) }
        }
    }
}

async fn exchange(aim: &Aim) -> Result<wire::Response, Failed> {
    let unsent = |error| Failed { error, busy: None };
    let begun = Instant::now();
    let timeout = aim.health.timeout;
    let connector = &aim.endpoint.connector;
    let mut head = Vec::new();
    connector.preamble(None, &mut head);
    write_head(aim, &mut head).map_err(unsent)?;
    let stream = connector.connect(None, timeout).await.map_err(unsent)?;
    let connection = Connection::open(stream, connector.protocol()).await.map_err(unsent)?;
    let left = timeout.saturating_sub(begun.elapsed());
    let once = Once { may_run_twice: true, expect: None };
    let patience = Patience { head: left, idle: left };
    connection.exchange(&head, Body::Empty, &Method::GET, once, patience).await
}

/// Appends the head, written as that of any request is.
fn write_head(aim: &Aim, out: &mut Vec<u8>) -> Result<(), Error> {
    let path = Bytes::copy_from_slice(aim.health.path.as_bytes());
    let host = Host::parse(Bytes::copy_from_slice(aim.host.as_bytes()))?;
    let connection = ConnectionInfo::new("health").over_tls(aim.scheme == Scheme::Https);
    let exchange = Rc::new(Exchange::new(
        Rc::new(connection),
        Protocol::Http11,
        Method::GET,
        path.clone(),
        Some(host),
        Some(USER_AGENT),
    ));
    let request = Request {
        method: Method::GET,
        target: Target::parse(path)?,
        headers: HeaderMap::from_iter([(header::USER_AGENT, USER_AGENT)]),
        body: Body::Empty,
        exchange: Rc::clone(&exchange),
        refused: None,
    };
    let terms = RouteTerms { mount: aim.mount.as_deref().map(Box::from), ..RouteTerms::default() };
    let outgoing = Outgoing { request: Box::new(request), body: None, terms: Rc::new(terms) };
    let terms = Terms { host: Some(aim.host.as_bytes()), is_last: true, is_handshake: false };
    let written = head::write_as(out, aim.endpoint.address.protocol, &outgoing, &aim.upstream, terms, |_| {});
    // It was of use for its fields only.
    exchange.finish(Finish::Complete);
    written
}

/// The Host of probes of the upstream at this index of [`Config::upstreams`].
pub(super) fn host(config: &Config, index: usize) -> String {
    let upstream = config.upstreams.get(index);
    let own = upstream.and_then(|upstream| upstream.health.as_ref()?.host.clone().or_else(|| upstream.host.clone()));
    let exact = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => Some(host.clone()),
        HostPattern::Wildcard(_) => None,
    };
    let of_site = || sites(config, index).flat_map(|site| &site.hosts).find_map(exact);
    own.or_else(of_site).unwrap_or_else(|| "localhost".into())
}

/// What X-Forwarded-Proto says to the upstream at this index.
pub(super) fn scheme(config: &Config, index: usize) -> Scheme {
    let own = config.upstreams.get(index).and_then(|upstream| upstream.health.as_ref()?.scheme);
    let has_tls = config.listeners.iter().any(|listener| listener.tls.is_some());
    own.unwrap_or(if has_tls { Scheme::Https } else { Scheme::Http })
}

/// The sites whose requests come to the upstream at this index.
fn sites(config: &Config, index: usize) -> impl Iterator<Item = &Site> {
    config.sites.iter().filter(move |site| site.routes.iter().any(|route| route.upstreams().any(|at| at == index)))
}
