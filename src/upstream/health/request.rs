//! One probe: a GET on a connection of its own, and what becomes of the worker that has it.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::Aim;
use crate::config::{Config, HostPattern, Scheme};
use crate::error::Error;
use crate::http::{Body, ConnectionInfo, Exchange, Finish, Host, Protocol, Target};
use crate::http1::client::{self, Connection, End, Failed, Patience, ResponseBody};
use crate::runtime::Deadline;
use crate::upstream::{connect, forwarded};

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
        Ok(client::Response { head, body, .. }) => {
            Outcome { seen: Ok(head.status), rest: Some(Rest { is_late: false, end: Box::pin(answered(body, limit)) }) }
        }
        Err(Failed { error, busy }) => {
            let late = |connection: Connection| Rest { is_late: true, end: Box::pin(connection.closed(limit)) };
            Outcome { seen: Err(error), rest: busy.map(late) }
        }
    }
}

async fn exchange(aim: &Aim) -> Result<client::Response, Failed> {
    let unsent = |error| Failed { error, busy: None };
    let begun = Instant::now();
    let timeout = aim.health.timeout;
    let head = head(aim).map_err(unsent)?;
    let socket = connect::connect(&aim.endpoint.address, timeout).await.map_err(unsent)?;
    let left = timeout.saturating_sub(begun.elapsed());
    let patience = Patience { head: left, idle: left };
    Connection::new(socket).exchange(&head, Body::Empty, &Method::GET, patience).await
}

/// The head, written as that of any request is.
fn head(aim: &Aim) -> Result<Vec<u8>, Error> {
    let target = Target::parse(Bytes::copy_from_slice(aim.health.path.as_bytes()))?;
    let host = Host::parse(Bytes::copy_from_slice(aim.host.as_bytes()))?;
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&aim.host) {
        headers.insert(header::HOST, value);
    }
    headers.insert(header::USER_AGENT, USER_AGENT);
    let connection = ConnectionInfo {
        listener: "health".into(),
        peer: None,
        local_port: None,
        tls: aim.scheme == Scheme::Https,
        redirect_https: None,
    };
    let exchange = Exchange::new(
        Rc::new(connection),
        Protocol::Http11,
        Method::GET,
        Bytes::copy_from_slice(aim.health.path.as_bytes()),
        Some(host),
        Some(USER_AGENT),
    );
    let mut out = Vec::new();
    let own = |out: &mut Vec<u8>| {
        forwarded::append(out, &exchange);
        out.extend_from_slice(b"connection: close\r\n");
    };
    client::write_head(&mut out, &Method::GET, &target, &headers, None, own, |_| {});
    // It was of use for its fields only.
    exchange.finish(Finish::Complete);
    Ok(out)
}

/// Reads the answer to its end, and waits until a worker that closes has closed.
async fn answered(mut body: ResponseBody, limit: Duration) {
    let drained = async {
        while let Ok(Some(_)) = body.data().await {}
        body
    };
    if let Ok(body) = Deadline::new().bound(limit, drained).await
        && let End::Closing(connection) = body.into_end()
    {
        connection.closed(limit).await;
    }
}

/// The Host of probes of the upstream at this index of [`Config::upstreams`].
pub(super) fn host(config: &Config, index: usize) -> String {
    let Some(upstream) = config.upstreams.get(index) else { return "localhost".into() };
    let own = upstream.health.as_ref().and_then(|health| health.host.clone()).or_else(|| upstream.host.clone());
    let leads_here = |site: &&crate::config::Site| {
        site.routes.iter().any(|route| route.action == crate::config::Action::Proxy(index))
    };
    let exact = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => Some(host.clone()),
        HostPattern::Wildcard(_) => None,
    };
    let of_site = || config.sites.iter().filter(leads_here).flat_map(|site| &site.hosts).find_map(exact);
    own.or_else(of_site).unwrap_or_else(|| "localhost".into())
}

/// What X-Forwarded-Proto says to the upstream at this index.
pub(super) fn scheme(config: &Config, index: usize) -> Scheme {
    let own = config.upstreams.get(index).and_then(|upstream| upstream.health.as_ref()?.scheme);
    let has_tls = config.listeners.iter().any(|listener| listener.tls.is_some());
    own.unwrap_or(if has_tls { Scheme::Https } else { Scheme::Http })
}
