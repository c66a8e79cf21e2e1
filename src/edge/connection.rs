//! A client's connection from accept to the protocol it speaks: the PROXY header where there is one, TLS with ALPN, or a look
//! at its first bytes.

mod preamble;
mod refusal;

pub use refusal::{refuse, words};

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::admission::Place;
use super::http2;
use super::tls::{self, Accepted, Refused, ServerTls, handshake_outcome};
use crate::config;
use crate::http::ConnectionInfo;
use crate::http1::head::HeadLimits;
use crate::http1::server::{self, Entry};
use crate::observe::metrics::{ConnectionGuard, HandshakeResult, HandshakeVersion, ListenerMetrics, Metrics, Protocol};
use crate::observe::throttle::Throttle;
use crate::runtime::buffers::Buffer;
use crate::runtime::{Deadline, Socket, Stream, drain};
use tokio::io::AsyncReadExt;

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long whoever is trusted may be idle at least: longer than the 600 s for which cloud load balancers keep connections, so
/// that never we close one that they are about to use.
const TRUSTED_IDLE: Duration = Duration::from_secs(620);

/// How the connections of one listener are served: compiled from the configuration in force when they are accepted.
pub struct Terms {
    /// The listener's name.
    pub name: Arc<str>,
    /// With TLS: certificates and protocols.
    pub tls: Option<ServerTls>,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Peers that are believed, and spared what protects against clients.
    pub trusted_proxies: config::TrustedProxies,
    /// On a listener that only redirects.
    pub redirect_https: Option<u16>,
    /// Whether any route takes WebSockets: clients are told so over HTTP/2 (RFC 8441).
    pub websockets: bool,
    /// The edge's protection.
    pub limits: config::Limits,
    /// What is counted.
    pub listener_metrics: Arc<ListenerMetrics>,
    /// What is counted for all listeners.
    pub metrics: Arc<Metrics>,
}

impl Terms {
    /// Whether this peer of a socket is trusted; `None` is one on a unix socket.
    #[must_use]
    pub fn is_trusted(&self, peer: Option<SocketAddr>) -> bool {
        self.trusted_proxies.is_trusted(peer.map(|peer| peer.ip()))
    }
}

/// Serves one accepted connection to its end. Whom a PROXY header names is counted as the client whose place it is.
pub async fn serve<E>(mut socket: Socket, terms: Arc<Terms>, entry: E, place: &mut Place)
where
    E: Entry + Clone + 'static,
{
    let Ok(mut info) = describe(&socket, &terms) else { return };
    let mut counted = terms.listener_metrics.opened(Protocol::New);
    if terms.proxy_protocol {
        let Some(sender) = preamble::read(&mut socket, &info, &terms).await else { return };
        info.sender = sender;
        if !preamble::is_let_in(&socket, &info, &terms, place) {
            return;
        }
    }
    let (stream, first, is_http2) = match &terms.tls {
        Some(tls) => {
            counted.becomes(Protocol::Tls);
            let Some(Accepted { stream, client_subject }) = handshake(socket, tls, &info, &terms).await else { return };
            info.client_subject = client_subject;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (Stream::Tls(Box::new(stream.into())), Buffer::take(), is_http2)
        }
        None => {
            let mut stream = Stream::Plain(socket);
            let Some((first, is_http2)) = sniff(&mut stream, &terms).await else { return };
            (stream, first, is_http2)
        }
    };
    speak(stream, first, is_http2, Rc::new(info), &terms, entry, counted).await;
}

async fn speak<E>(
    stream: Stream,
    first: Buffer,
    is_http2: bool,
    info: Rc<ConnectionInfo>,
    terms: &Terms,
    entry: E,
    mut counted: ConnectionGuard,
) where
    E: Entry + Clone + 'static,
{
    let limits = &terms.limits;
    // Whoever speaks, not a balancer that only passes bytes on.
    let is_proxy = info.is_trusted(&terms.trusted_proxies);
    let idle_timeout = idle_timeout(limits, is_proxy);
    let head =
        HeadLimits { size: usize::try_from(limits.header_size).unwrap_or(usize::MAX), count: limits.header_count };
    if is_http2 {
        counted.becomes(Protocol::H2);
        let limits = http2::Limits {
            streams: limits.streams,
            is_proxy,
            header_size: u32::try_from(limits.header_size).unwrap_or(u32::MAX),
            header_count: limits.header_count,
            header_timeout: limits.header_timeout,
            idle_timeout,
            body_rate: limits.body_rate,
            read_rate: limits.read_rate,
            websockets: terms.websockets,
        };
        // Boxed: the codec's state is far larger than that of the connections which do not need it.
        Box::pin(http2::serve(stream, first, info, limits, Arc::clone(&terms.metrics), entry)).await;
    } else {
        counted.becomes(Protocol::H1);
        let limits = server::Limits {
            head,
            header_timeout: limits.header_timeout,
            idle_timeout,
            body_rate: limits.body_rate,
            read_rate: limits.read_rate,
        };
        server::serve(stream, first, info, limits, &entry).await;
    }
}

/// How long a connection may be idle between two requests.
fn idle_timeout(limits: &config::Limits, is_proxy: bool) -> Duration {
    if is_proxy { limits.idle_timeout.max(TRUSTED_IDLE) } else { limits.idle_timeout }
}

/// Who is there. A TCP connection that was reset before it was accepted has no other end any more, although accepting told
/// which it was: what it had asked for is for nobody.
fn describe(socket: &Socket, terms: &Terms) -> io::Result<ConnectionInfo> {
    let (peer, local) = match socket {
        Socket::Tcp(stream) => (Some(stream.peer_addr()?), Some(stream.local_addr()?)),
        Socket::Unix(_) => (None, None),
    };
    let mut info = ConnectionInfo::new(Arc::clone(&terms.name)).between(peer, local).over_tls(terms.tls.is_some());
    info.redirect_https = terms.redirect_https;
    Ok(info)
}

/// The handshake, within the time that a head has: in the connection's own task, never in the accept loop.
async fn handshake(socket: Socket, tls: &ServerTls, info: &ConnectionInfo, terms: &Terms) -> Option<Accepted<Socket>> {
    let accepting = Box::pin(tls::accept(tls, socket));
    let (accepted, (version, result)) =
        match Deadline::new().bound_or_drain(terms.limits.header_timeout, drain::FIRST_REQUEST, accepting).await {
            Ok(Ok(accepted)) => {
                let outcome = handshake_outcome(accepted.stream.get_ref().1);
                (Some(accepted), outcome)
            }
            Ok(Err(refused)) => {
                tell_refused(&refused, info);
                (None, (HandshakeVersion::Unknown, refused.result()))
            }
            Err(_) => (None, (HandshakeVersion::Unknown, HandshakeResult::Timeout)),
        };
    terms.metrics.tls_handshake(version, result);
    accepted
}

/// Whoever scans the network fails in many ways, and none of them is news; a client without the right certificate may be
/// somebody who should have one.
fn tell_refused(refused: &Refused, info: &ConnectionInfo) {
    static CLIENT_CERTIFICATES: Throttle = Throttle::new();
    let listener = &*info.listener;
    if !matches!(refused, Refused::ClientCertificate(_)) {
        tracing::debug!(listener, "TLS handshake failed: {refused}");
    } else if let Some(left_out) = CLIENT_CERTIFICATES.pass() {
        tracing::info!(listener, client = info.source_text(), left_out, "TLS handshake refused: {refused}");
    }
}

/// Reads until the bytes are HTTP/2's preface or cannot become it. `None`: the client left, or said too little in time.
async fn sniff(stream: &mut Stream, terms: &Terms) -> Option<(Buffer, bool)> {
    if !terms.http2 {
        return Some((Buffer::take(), false));
    }
    let (mut buffer, deadline) = (None, Deadline::new());
    for _ in 0..2 {
        let read = poll_fn(|cx| first_bytes(stream, &mut buffer, cx));
        let limit = terms.limits.header_timeout;
        match deadline.bound_or_drain(limit, drain::FIRST_REQUEST, read).await {
            Ok(first) => return first,
            Err(_) if stream.socket().is_quiet(true) => return None,
            // They have arrived, and the event queue does not know of it yet.
            Err(_) => {}
        }
    }
    None
}

fn first_bytes(stream: &mut Stream, buffer: &mut Option<Buffer>, cx: &mut Context<'_>) -> Poll<Option<(Buffer, bool)>> {
    loop {
        let mut bytes = buffer.take().unwrap_or_else(Buffer::take);
        let read = pin!(stream.read_buf(&mut *bytes)).poll(cx);
        let is_empty = bytes.is_empty();
        let is_preface = bytes.starts_with(PREFACE);
        let may_become = PREFACE.starts_with(&bytes);
        if !is_empty {
            *buffer = Some(bytes);
        }
        match ready!(read) {
            Ok(0) | Err(_) => return Poll::Ready(None),
            Ok(_) if is_preface || !may_become => {
                return Poll::Ready(buffer.take().map(|bytes| (bytes, is_preface)));
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_closes_idle_connections_before_we_do() {
        /// What cloud load balancers keep theirs for at most.
        const BALANCERS: u64 = 600;
        for (written, of_client, of_proxy) in [(1, 1, BALANCERS + 20), (75, 75, BALANCERS + 20), (3_600, 3_600, 3_600)]
        {
            let limits = config::Limits { idle_timeout: Duration::from_secs(written), ..config::Limits::default() };
            let told = [false, true].map(|is_proxy| idle_timeout(&limits, is_proxy).as_secs());
            assert_eq!(told, [of_client, of_proxy], "idle_timeout: {written}s");
        }
    }
}
