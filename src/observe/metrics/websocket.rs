//! What is counted of WebSockets that the edge speaks for apps that do not.

use prometheus::IntCounter;

use super::families::Families;

/// What became of a request to the app for the sake of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebSocketOutcome {
    /// It was answered with events.
    Answered,
    /// It was answered with something else: the handshake was refused, or the app has failed.
    Refused,
    /// It was not answered.
    Failed,
}

/// The counters of one route.
#[derive(Debug, Clone)]
pub struct WebSocketMetrics {
    /// `hostler_websocket_messages_total{direction="in"}`
    pub messages_in: IntCounter,
    /// `hostler_websocket_messages_total{direction="out"}`
    pub messages_out: IntCounter,
    requests: [IntCounter; 3],
}

impl WebSocketMetrics {
    pub(super) fn new(families: &Families, route: &str) -> Self {
        let messages = |direction| families.websocket_messages.with_label_values(&[route, direction]);
        let requests = |outcome| families.websocket_requests.with_label_values(&[route, outcome]);
        Self {
            messages_in: messages("in"),
            messages_out: messages("out"),
            requests: [requests("answered"), requests("refused"), requests("failed")],
        }
    }

    /// Counts a request.
    pub fn request(&self, outcome: WebSocketOutcome) {
        self.requests[outcome as usize].inc();
    }
}
