//! Turning a connection away before it is served: it is told where that costs no wait.

use super::Terms;
use crate::error::Reason;
use crate::runtime::Socket;

/// Turns a connection away. On a plain listener it hears why; a TLS handshake for that would be a present to whoever
/// opens too many.
pub fn refuse(socket: &Socket, terms: &Terms, reason: Reason) {
    terms.listener_metrics.refused(reason);
    if terms.tls.is_none() {
        socket.turn_away(words(reason).as_bytes());
    }
}

/// What HTTP/1.1 hears, whatever it was about to ask: the answer that `middleware::rescue` would have given.
#[must_use]
pub fn words(reason: Reason) -> String {
    let (status, error, sentence) = match reason {
        Reason::TooManyConnectionsOfClient => {
            ("429 Too Many Requests", "http_request_denied", "Too many connections are open from this address.")
        }
        _ => (
            "503 Service Unavailable",
            "proxy_internal_response",
            "The site is very busy. Please try again in a moment.",
        ),
    };
    let page = format!("{status}\n{sentence}\nreason: {reason}\n");
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n\
         Proxy-Status: hostler; error={error}; details=\"{reason}\"\r\nRetry-After: 5\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{page}",
        page.len()
    )
}
