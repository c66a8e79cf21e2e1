//! What is counted per listener: connections, and the handshakes of all listeners together.

use std::sync::{Arc, OnceLock};

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::families::Families;
use crate::error::Reason;

/// What a connection speaks: the `protocol` of `hostler_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Accepted, nothing read yet.
    New,
    /// In the TLS handshake.
    Tls,
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

impl Protocol {
    const ALL: &'static [Self] = &[Self::New, Self::Tls, Self::H1, Self::H2];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Tls => "tls",
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }
}

/// What came of a connection that had to begin with a PROXY header: the `result` of `hostler_proxy_headers_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeaderResult {
    /// It did.
    Ok,
    /// The peer is not in `trusted_proxies`.
    Untrusted,
    /// The bytes were something else.
    Malformed,
    /// It did not come in time.
    Timeout,
    /// The peer closed before; one that had sent nothing (a probe) is not counted.
    Closed,
}

impl ProxyHeaderResult {
    /// All of them, in the order of their numbers.
    pub const ALL: &'static [Self] = &[Self::Ok, Self::Untrusted, Self::Malformed, Self::Timeout, Self::Closed];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Untrusted => "untrusted",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

/// The gauges and counters of one listener.
pub struct ListenerMetrics {
    name: String,
    connections: [IntGauge; Protocol::ALL.len()],
    refused: [IntCounter; 2],
    proxy_headers: IntCounterVec,
    /// Each from its first use on: most listeners have none.
    proxy_header_results: [OnceLock<IntCounter>; ProxyHeaderResult::ALL.len()],
    certificate_reloads: IntCounterVec,
}

impl ListenerMetrics {
    pub(super) fn new(families: &Families, name: &str) -> Self {
        let gauge = |i: usize| families.connections.with_label_values(&[name, Protocol::ALL[i].as_str()]);
        let refused = |reason: Reason| families.connections_refused.with_label_values(&[name, reason.as_str()]);
        Self {
            name: name.to_owned(),
            connections: std::array::from_fn(gauge),
            refused: [refused(Reason::TooManyConnections), refused(Reason::TooManyConnectionsOfClient)],
            proxy_headers: families.proxy_headers.clone(),
            proxy_header_results: std::array::from_fn(|_| OnceLock::new()),
            certificate_reloads: families.certificate_reloads.clone(),
        }
    }

    /// Counts a connection that was turned away: because of all connections, or of those of its client.
    pub fn refused(&self, reason: Reason) {
        self.refused[usize::from(reason == Reason::TooManyConnectionsOfClient)].inc();
    }

    /// Counts a connection that had to begin with a PROXY header.
    pub fn proxy_header(&self, result: ProxyHeaderResult) {
        let resolve = || self.proxy_headers.with_label_values(&[self.name.as_str(), result.as_str()]);
        self.proxy_header_results[result as usize].get_or_init(resolve).inc();
    }

    /// Counts a certificate, an OCSP response or a file of authorities that came into use while serving; or that could not,
    /// or has come to its end.
    pub fn certificate_reloaded(&self, succeeded: bool) {
        let result = if succeeded { "ok" } else { "failed" };
        self.certificate_reloads.with_label_values(&[self.name.as_str(), result]).inc();
    }

    /// Counts a connection for as long as the guard lives.
    pub fn opened(self: &Arc<Self>, protocol: Protocol) -> ConnectionGuard {
        self.gauge(protocol).inc();
        ConnectionGuard { listener: Arc::clone(self), protocol }
    }

    fn gauge(&self, protocol: Protocol) -> &IntGauge {
        &self.connections[protocol as usize]
    }
}

/// An open connection, counted under what it speaks.
#[must_use = "the connection is counted while this lives"]
pub struct ConnectionGuard {
    listener: Arc<ListenerMetrics>,
    protocol: Protocol,
}

impl ConnectionGuard {
    /// The connection speaks something else from now on.
    pub fn becomes(&mut self, protocol: Protocol) {
        self.listener.gauge(self.protocol).dec();
        self.listener.gauge(protocol).inc();
        self.protocol = protocol;
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.listener.gauge(self.protocol).dec();
    }
}

/// The `version` of `hostler_tls_handshakes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
    /// The handshake ended before one was agreed on.
    Unknown,
}

impl HandshakeVersion {
    const ALL: &'static [Self] = &[Self::V1_2, Self::V1_3, Self::Unknown];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
            Self::Unknown => "unknown",
        }
    }
}

/// The `result` of `hostler_tls_handshakes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeResult {
    /// Completed with a certificate.
    Full,
    /// Completed with a ticket of an earlier one.
    Resumed,
    /// Ended by an error of either side.
    Failed,
    /// Not completed in time.
    Timeout,
    /// Refused: no certificate for the name that the client asked for (`strict_sni`).
    UnrecognizedName,
    /// Refused: the client has shown no certificate, or one that is not good (`client_ca`).
    ClientCertificate,
}

impl HandshakeResult {
    const ALL: &'static [Self] =
        &[Self::Full, Self::Resumed, Self::Failed, Self::Timeout, Self::UnrecognizedName, Self::ClientCertificate];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::UnrecognizedName => "unrecognized_name",
            Self::ClientCertificate => "client_certificate",
        }
    }
}

pub(super) struct Handshakes {
    counters: [[IntCounter; HandshakeResult::ALL.len()]; HandshakeVersion::ALL.len()],
}

impl Handshakes {
    pub(super) fn new(family: &IntCounterVec) -> Self {
        let counter = |version: usize, result: usize| {
            family.with_label_values(&[HandshakeVersion::ALL[version].as_str(), HandshakeResult::ALL[result].as_str()])
        };
        Self { counters: std::array::from_fn(|version| std::array::from_fn(|result| counter(version, result))) }
    }

    pub(super) fn inc(&self, version: HandshakeVersion, result: HandshakeResult) {
        self.counters[version as usize][result as usize].inc();
    }
}
