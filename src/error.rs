//! The one error type below `rescue`: what failed, on whose side, and whether the request may be sent again.
//!
//! [`Reason`] is the closed set of names that log, metric, page and `Proxy-Status` share. Nothing of HTTP is known
//! here: which status a reason becomes is decided in one place, `middleware::rescue`.

use std::borrow::Cow;
use std::fmt;
use std::io;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $side:ident;)*) => {
        /// Why an exchange ended otherwise than with the answer of the app. A closed set: names are public interface.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in the order declared.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in logs, metrics, pages and `Proxy-Status`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whose doing it is.
            #[must_use]
            pub const fn side(self) -> Side {
                match self { $(Self::$variant => Side::$side,)* }
            }
        }
    };
}

reasons! {
    /// The request line is not `method SP target SP HTTP/1.x` (RFC 9112, 3).
    BadRequestLine = "bad_request_line", Client;
    /// The method is not a token, or one that no site is served with (CONNECT, TRACE).
    BadMethod = "bad_method", Client;
    /// The target is in no form we take, or its path can be read in two ways.
    BadTarget = "bad_target", Client;
    /// HTTP, but a version that is not spoken here.
    UnsupportedVersion = "unsupported_version", Client;
    /// A field name is not a token, or is set off from its colon (RFC 9112, 5.1).
    BadHeaderName = "bad_header_name", Client;
    /// A field value holds a control byte, CR or NUL.
    BadHeaderValue = "bad_header_value", Client;
    /// A line ends with LF alone.
    BareLf = "bare_lf", Client;
    /// A field is continued on the next line (RFC 9112, 5.2).
    ObsFold = "obs_fold", Client;
    /// The request has no Host, and needs one.
    MissingHost = "missing_host", Client;
    /// The request has more than one Host, or its Host is not a host.
    BadHost = "bad_host", Client;
    /// `Connection` names a field that is for every recipient, or that the edge alone writes (RFC 9110, 7.6.1), or very many.
    ConnectionConflict = "connection_conflict", Client;
    /// Content-Length is not one decimal number.
    BadContentLength = "bad_content_length", Client;
    /// Transfer-Encoding is not exactly `chunked`, or stands in HTTP/1.0.
    BadTransferEncoding = "bad_transfer_encoding", Client;
    /// Content-Length and Transfer-Encoding together (RFC 9112, 6.1).
    LengthConflict = "length_conflict", Client;
    /// A chunk frame or the trailer section of the request is malformed.
    BadChunk = "bad_chunk", Client;
    /// The request line is longer than `limits.header_size`.
    UriTooLong = "uri_too_long", Client;
    /// The head is larger than `limits.header_size`.
    HeadersTooLarge = "headers_too_large", Client;
    /// The head has more fields than `limits.header_count`.
    TooManyHeaders = "too_many_headers", Client;
    /// The body is larger than the route allows.
    BodyTooLarge = "body_too_large", Client;
    /// `Expect` asks for something other than 100-continue.
    ExpectationFailed = "expectation_failed", Client;
    /// An upgrade that this route does not take.
    UpgradeRefused = "upgrade_refused", Client;
    /// An extended CONNECT for something that is no WebSocket (RFC 8441).
    ProtocolUnknown = "protocol_unknown", Client;
    /// A WebSocket's opening handshake that breaks its rules (RFC 6455, 4.2.1).
    WebsocketMalformed = "websocket_malformed", Client;
    /// A WebSocket of a version other than 13.
    WebsocketVersion = "websocket_version", Client;
    /// A page of another origin wants a WebSocket of this site.
    OriginRefused = "origin_refused", Client;
    /// The client has sent a WebSocket's events itself (`websocket: over_http`), which the app takes for the edge's word.
    EventsForged = "events_forged", Client;
    /// The client of a WebSocket has answered no ping, and sent nothing else.
    PingTimeout = "ping_timeout", Client;
    /// The head did not arrive within `limits.header_timeout`.
    HeaderTimeout = "header_timeout", Client;
    /// The body is not as long as its Content-Length said (HTTP/2).
    BodyLengthMismatch = "body_length_mismatch", Client;
    /// The body came more slowly than `limits.body_rate`.
    BodyTimeout = "body_timeout", Client;
    /// No site is served under this host.
    UnknownHost = "unknown_host", Client;
    /// The host is known; no route of it matches.
    NoRoute = "no_route", Client;
    /// There is no such file below the route's root, or none that is shown.
    FileNotFound = "file_not_found", Client;
    /// The file is there, but may not be read, is none, or lies behind a link that is not followed.
    FileForbidden = "file_forbidden", Client;
    /// The route has files, which are read and nothing else.
    MethodNotAllowed = "method_not_allowed", Client;
    /// The request asks for what is in the cache alone (`only-if-cached`), and there is nothing that may be used.
    NotCached = "not_cached", Client;
    /// What is there is not what the request's `If-Match` or `If-Unmodified-Since` says.
    PreconditionFailed = "precondition_failed", Client;
    /// The request asks for parts that the file does not have.
    RangeNotSatisfiable = "range_not_satisfiable", Client;
    /// The route asks who it is, and the request has no credentials, or wrong ones.
    Unauthorized = "unauthorized", Client;
    /// Whoever asks is not let in on this route.
    Forbidden = "forbidden", Client;
    /// The client has asked more often than the route's `rate_limit` allows.
    RateLimited = "rate_limited", Client;
    /// The client closed its connection or reset its stream before it had the answer.
    ClientGone = "client_gone", Client;
    /// The client has broken the rules of HTTP/2, or flooded its connection, which was ended with all its streams.
    Http2Refused = "http2_refused", Client;
    /// The client took the answer more slowly than `limits.read_rate`.
    ClientStalled = "client_stalled", Client;
    /// The client took less than was published to it, and `realtime.buffer` is full.
    HoldOverflow = "hold_overflow", Client;
    /// The client has as many connections as `limits.connections_per_client`.
    TooManyConnectionsOfClient = "too_many_connections_of_client", Client;

    /// As many connections are open as `limits.connections`, and none of them is idle or stalled.
    TooManyConnections = "too_many_connections", Edge;
    /// The request was handed on from route to route more often than [`MAX_HOPS`](crate::http::MAX_HOPS) times.
    TooManyHops = "too_many_hops", Edge;
    /// The process, or the system, has no file descriptor left.
    NoDescriptors = "no_descriptors", Edge;
    /// The waiting room has no place left.
    QueueFull = "queue_full", Edge;
    /// As many workers as `streaming.max` allows are pinned by streams.
    StreamsFull = "streams_full", Edge;
    /// The client of a WebSocket has broken its rules (RFC 6455): the frames make no sense, or a text is not UTF-8.
    WebsocketProtocol = "websocket_protocol", Client;
    /// A message of the client is larger than `websocket.max_message`.
    WebsocketTooBig = "websocket_too_big", Client;
    /// As many WebSockets are open on the route as its `websocket.max`, or over all routes as there may be for this client
    /// (`limits.connections_per_client`) or pass through to workers.
    WebsocketsFull = "websockets_full", Edge;
    /// No worker came free within `waiting_room.timeout`.
    QueueTimeout = "queue_timeout", Edge;
    /// The spool's memory and disk budgets are used up.
    SpoolFull = "spool_full", Edge;
    /// The spool's file could not be made, written or read.
    SpoolFailed = "spool_failed", Edge;
    /// The folder whose files a route serves is not there.
    RootMissing = "root_missing", Edge;
    /// A file got shorter while it was being sent: its answer is cut.
    FileChanged = "file_changed", Edge;
    /// A file could not be read to its end.
    FileFailed = "file_failed", Edge;
    /// No answer within the route's `timeout`.
    RouteTimeout = "route_timeout", Edge;
    /// More passwords are to be checked at once than the edge has time for.
    AuthOverloaded = "auth_overloaded", Edge;
    /// Who could tell whether the client may pass cannot be asked, and nobody passes unasked.
    AuthUnavailable = "auth_unavailable", Edge;
    /// The edge is stopping and its drain time is over.
    ShuttingDown = "shutting_down", Edge;
    /// A fault of Hostler itself.
    Internal = "internal", Edge;

    /// The endpoint's address refuses connections.
    ConnectRefused = "connect_refused", Upstream;
    /// The endpoint's unix socket does not exist.
    SocketMissing = "socket_missing", Upstream;
    /// Hostler may not open the endpoint's unix socket.
    SocketPermission = "socket_permission", Upstream;
    /// The worker's listen backlog is full (EAGAIN on a unix socket).
    BacklogFull = "backlog_full", Upstream;
    /// No connection within `timeouts.connect`, or no TLS handshake within `timeouts.head`.
    ConnectTimeout = "connect_timeout", Upstream;
    /// The endpoint's certificate or its TLS was not accepted.
    TlsFailed = "tls_failed", Upstream;
    /// Health checks or the operator have taken every endpoint out.
    NoEndpoint = "no_endpoint", Upstream;
    /// The endpoint's name does not resolve.
    NameNotResolved = "name_not_resolved", Upstream;
    /// Another error of connect, such as no route to the host.
    ConnectFailed = "connect_failed", Upstream;
    /// The request's head does not fit into the uwsgi packet, or into `uwsgi.buffer_size`.
    VarsTooLarge = "vars_too_large", Client;
    /// The worker reset the connection before the first byte of its answer.
    ResetBeforeHead = "reset_before_head", Upstream;
    /// The worker closed the connection before the first byte of its answer.
    EofBeforeHead = "eof_before_head", Upstream;
    /// The worker closed or reset the connection within the head of its answer.
    EofInHead = "eof_in_head", Upstream;
    /// The worker closed or reset the connection within the body of its answer.
    EofInBody = "eof_in_body", Upstream;
    /// No answer within `timeouts.head`.
    HeadTimeout = "head_timeout", Upstream;
    /// Nothing read or written for `timeouts.idle`.
    IdleTimeout = "idle_timeout", Upstream;
    /// The head of the answer is not HTTP/1.x, or its framing is ambiguous.
    BadHead = "bad_head", Upstream;
    /// The worker has taken a WebSocket, but not the one that it was asked for: `Sec-WebSocket-Accept` is wrong.
    HandshakeMismatch = "handshake_mismatch", Upstream;
    /// The app has answered a WebSocket's events (`websocket: over_http`) with something else, or with too much.
    BadEvents = "bad_events", Upstream;
    /// The worker has ended a WebSocket without a close frame.
    WebsocketCut = "websocket_cut", Upstream;
    /// A chunk frame of the answer is malformed.
    BadBody = "bad_body", Upstream;
    /// The app's `X-Accel-Redirect` names nothing that can be asked for here.
    AccelRefused = "accel_refused", Upstream;
    /// The app's `X-Sendfile` names no file that the route lets it send.
    SendfileRefused = "sendfile_refused", Upstream;
    /// The app's instructions for holding its client (`Grip-*`) are malformed, or cannot be followed.
    GripInvalid = "grip_invalid", Upstream;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose doing a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client sent something we refuse, or left.
    Client,
    /// Hostler's own limits or faults.
    Edge,
    /// The worker, or the way to it.
    Upstream,
}

/// Whether the request of a failed exchange may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retry {
    /// The app may have acted on it, or the client has part of an answer, or it would fail again.
    #[default]
    Never,
    /// The app cannot have begun it: any method.
    Unsent,
    /// A worker may have seen it: only if doing it twice is as good as once (RFC 9110, 9.2.2).
    IfIdempotent,
}

/// A failed exchange.
#[derive(Debug)]
pub struct Error {
    /// The named cause.
    pub reason: Reason,
    /// Whether the request may be sent again.
    pub retry: Retry,
    /// For the operator's log: where and what, beyond the reason. Never shown to clients.
    pub detail: Cow<'static, str>,
    /// The system's error, where there was one.
    pub source: Option<io::Error>,
    /// Seconds after which a client may try again, where that is known better than by the reason alone.
    pub retry_after: Option<u32>,
}

impl Error {
    /// An error that must not be retried.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, retry: Retry::Never, detail: Cow::Borrowed(""), source: None, retry_after: None }
    }

    /// The same with a retry verdict.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The same with words for the operator.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The same with the time after which a client may try again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The same with the system's error.
    #[must_use]
    pub fn source(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_snake_case() {
        let mut seen = std::collections::HashSet::new();
        for reason in Reason::ALL {
            let name = reason.as_str();
            assert!(seen.insert(name), "{name} twice");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        }
    }

    #[test]
    fn an_error_tells_reason_detail_and_source() {
        let error = Error::new(Reason::SocketMissing).detail("unix:/a.sock").source(io::Error::other("gone"));
        assert_eq!(error.to_string(), "socket_missing: unix:/a.sock: gone");
    }
}
