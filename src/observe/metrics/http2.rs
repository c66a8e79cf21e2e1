//! What is counted of HTTP/2 that never became a request, or ended more than one.

use prometheus::{IntCounter, IntCounterVec};

use super::families::Families;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $scope:literal, $kind:literal;)*) => {
        /// Why a stream or a whole connection was refused: `scope` and `kind` of `hostler_http2_refused_total`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Http2Refusal { $($(#[$doc])* $variant,)* }

        impl Http2Refusal {
            /// All of them, in the order declared.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// `connection` or `stream`: what it costs the client.
            #[must_use]
            pub const fn scope(self) -> &'static str {
                match self { $(Self::$variant => $scope,)* }
            }

            /// The label value.
            #[must_use]
            pub const fn kind(self) -> &'static str {
                match self { $(Self::$variant => $kind,)* }
            }
        }
    };
}

refusals! {
    /// More requests reset than come of browsing (rapid reset).
    Resets = "connection", "resets";
    /// More frames that make us reset streams than come of mistakes (MadeYouReset).
    ProvokedResets = "connection", "provoked_resets";
    /// More streams than allowed at a time, again and again.
    RefusedStreams = "connection", "refused_streams";
    /// One head in more CONTINUATION frames than it needs.
    Continuations = "connection", "continuations";
    /// DATA frames without data.
    EmptyData = "connection", "empty_data";
    /// DATA frames with hardly any data.
    SmallData = "connection", "small_data";
    /// SETTINGS frames.
    Settings = "connection", "settings";
    /// PING frames.
    Pings = "connection", "pings";
    /// PRIORITY frames.
    Priorities = "connection", "priorities";
    /// More WINDOW_UPDATE frames than what was sent explains.
    WindowUpdates = "connection", "window_updates";
    /// Frames of types that are not known here.
    UnknownFrames = "connection", "unknown_frames";
    /// Frames that end a stream, or more heads, for streams that are no more.
    LateFrames = "connection", "late_frames";
    /// Requests that nobody can answer: behind our last goodbye.
    Requests = "connection", "requests";
    /// No preface within `limits.header_timeout`, or another one, or no SETTINGS behind it.
    Preface = "connection", "preface";
    /// A head that was not complete within `limits.header_timeout`.
    HeaderTimeout = "connection", "header_timeout";
    /// The client took nothing of what was sent: `limits.read_rate`.
    ClientStalled = "connection", "client_stalled";
    /// Ended with PROTOCOL_ERROR (RFC 9113, 7).
    ConnectionProtocol = "connection", "protocol_error";
    /// Ended with FLOW_CONTROL_ERROR.
    ConnectionFlowControl = "connection", "flow_control_error";
    /// Ended with FRAME_SIZE_ERROR.
    ConnectionFrameSize = "connection", "frame_size_error";
    /// Ended with COMPRESSION_ERROR.
    ConnectionCompression = "connection", "compression_error";
    /// Ended with ENHANCE_YOUR_CALM, for what none of the kinds above names.
    ConnectionCalm = "connection", "enhance_your_calm";
    /// Ended with another code.
    ConnectionOther = "connection", "other";
    /// Reset with PROTOCOL_ERROR: a malformed request.
    StreamProtocol = "stream", "protocol_error";
    /// Reset with FLOW_CONTROL_ERROR.
    StreamFlowControl = "stream", "flow_control_error";
    /// Reset with STREAM_CLOSED.
    StreamClosed = "stream", "stream_closed";
    /// Reset with REFUSED_STREAM: more streams than `limits.streams`.
    StreamRefused = "stream", "refused_stream";
    /// Reset with another code.
    StreamOther = "stream", "other";
}

impl Http2Refusal {
    /// What the code of a GOAWAY of ours means; `None` for a goodbye without an error.
    #[must_use]
    pub const fn of_connection(code: u32) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::ConnectionProtocol,
            3 => Self::ConnectionFlowControl,
            6 => Self::ConnectionFrameSize,
            9 => Self::ConnectionCompression,
            11 => Self::ConnectionCalm,
            _ => Self::ConnectionOther,
        })
    }

    /// What the code of a RST_STREAM of ours means; `None` where it does not refuse anything: after an early answer
    /// (NO_ERROR), for an answer that was cut (INTERNAL_ERROR), for a client that has left or stalled (CANCEL).
    #[must_use]
    pub const fn of_stream(code: u32) -> Option<Self> {
        Some(match code {
            0 | 2 | 8 => return None,
            1 => Self::StreamProtocol,
            3 => Self::StreamFlowControl,
            5 => Self::StreamClosed,
            7 => Self::StreamRefused,
            _ => Self::StreamOther,
        })
    }
}

pub(super) struct Http2Refusals {
    counters: Vec<IntCounter>,
}

impl Http2Refusals {
    pub(super) fn new(families: &Families) -> Self {
        let family: &IntCounterVec = &families.http2_refused;
        let counter = |refusal: &Http2Refusal| family.with_label_values(&[refusal.scope(), refusal.kind()]);
        Self { counters: Http2Refusal::ALL.iter().map(counter).collect() }
    }

    pub(super) fn inc(&self, refusal: Http2Refusal) {
        if let Some(counter) = self.counters.get(refusal as usize) {
            counter.inc();
        }
    }
}
