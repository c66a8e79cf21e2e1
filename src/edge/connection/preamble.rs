//! The PROXY header of a new connection: from trusted peers, within the time that a head has. Whoever sends none is let go
//! without a word, as the protocol has it, and the operator is told.

use super::{Terms, refuse};
use crate::edge::admission::Place;
use crate::edge::proxy_protocol::{self, Malformed, ReadError};
use crate::http::{ConnectionInfo, Sender};
use crate::observe::metrics::ProxyHeaderResult;
use crate::observe::throttle::Throttle;
use crate::runtime::{Deadline, Socket, drain};

/// Of clients who have enough connections.
static CLIENTS: Throttle = Throttle::new();
/// One for each result: strangers who are turned away do not hide what is wrong with the balancer's own headers.
static THROTTLES: [Throttle; ProxyHeaderResult::ALL.len()] = [const { Throttle::new() }; ProxyHeaderResult::ALL.len()];

/// Why a connection is of no use.
enum Fault {
    /// Nothing was sent: a load balancer that looks whether somebody listens.
    Probe,
    Untrusted,
    Timeout,
    Closed,
    Malformed(Malformed),
}

impl Fault {
    fn result(&self) -> Option<ProxyHeaderResult> {
        match self {
            Self::Probe => None,
            Self::Untrusted => Some(ProxyHeaderResult::Untrusted),
            Self::Timeout => Some(ProxyHeaderResult::Timeout),
            Self::Closed => Some(ProxyHeaderResult::Closed),
            Self::Malformed(_) => Some(ProxyHeaderResult::Malformed),
        }
    }
}

/// Whose bytes follow. `None`: the connection is to be closed.
pub(super) async fn read(socket: &mut Socket, info: &ConnectionInfo, terms: &Terms) -> Option<Sender> {
    let fault = match read_header(socket, info, terms).await {
        Ok(sender) => {
            terms.listener_metrics.proxy_header(ProxyHeaderResult::Ok);
            return Some(sender);
        }
        Err(fault) => fault,
    };
    if let Some(result) = fault.result() {
        terms.listener_metrics.proxy_header(result);
        tell(info, &fault, result);
    }
    None
}

/// Whether the client that a trusted peer has named may have one connection more. If not, it is turned away as at the
/// door.
pub(super) fn is_let_in(socket: &Socket, info: &ConnectionInfo, terms: &Terms, place: &mut Place) -> bool {
    let Sender::Behind { source, .. } = info.sender else { return true };
    if info.is_trusted(&terms.trusted_proxies) {
        return true;
    }
    let Err(reason) = place.belongs_to(source.ip()) else { return true };
    refuse(socket, terms, reason);
    if let Some(left_out) = CLIENTS.pass() {
        tracing::warn!(
            listener = %info.listener,
            reason = reason.as_str(),
            left_out,
            client = %source.ip(),
            "a connection is turned away: the client that its PROXY header names has {} already (limits.connections_per_client). \
             If that is another proxy of yours, add it to `trusted_proxies`; if many people share that address, raise the limit",
            place.limit_per_client()
        );
    }
    false
}

async fn read_header(socket: &mut Socket, info: &ConnectionInfo, terms: &Terms) -> Result<Sender, Fault> {
    if !terms.is_trusted(info.peer) {
        return Err(Fault::Untrusted);
    }
    let (mut begun, deadline) = (Vec::new(), Deadline::new());
    for _ in 0..2 {
        let reading = proxy_protocol::read(socket, &mut begun);
        match deadline.bound_or_drain(terms.limits.header_timeout, drain::FIRST_REQUEST, reading).await {
            Ok(Ok(sender)) => return Ok(sender),
            Ok(Err(ReadError::Closed(0))) => return Err(Fault::Probe),
            Ok(Err(ReadError::Closed(_))) => return Err(Fault::Closed),
            Ok(Err(ReadError::Malformed(malformed))) => return Err(Fault::Malformed(malformed)),
            Err(_) if socket.is_quiet(true) => break,
            // More has arrived, and the event queue does not know of it yet.
            Err(_) => {}
        }
    }
    Err(Fault::Timeout)
}

fn tell(info: &ConnectionInfo, fault: &Fault, result: ProxyHeaderResult) {
    let Some(left_out) = THROTTLES.get(result as usize).and_then(Throttle::pass) else { return };
    let peer = info.peer.map_or_else(|| "a unix socket".into(), |peer| peer.ip().to_canonical().to_string());
    let (why, what_to_do) = match fault {
        Fault::Untrusted => (
            "its peer is not in `trusted_proxies`".into(),
            "if it is your load balancer, add it there; clients that connect directly need a listener without `proxy_protocol`",
        ),
        Fault::Malformed(malformed) => (
            malformed.to_string(),
            "make the load balancer send PROXY headers (HAProxy: send-proxy-v2), or take `proxy_protocol` out of the listener",
        ),
        Fault::Timeout | Fault::Closed | Fault::Probe => (
            "it did not begin with a whole PROXY header".into(),
            "look whether the load balancer is set to send PROXY headers to this port",
        ),
    };
    tracing::warn!(listener = %info.listener, peer, left_out, "a connection was closed: {why}; {what_to_do}");
}
