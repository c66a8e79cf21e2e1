//! What the edge says to the app about the client: one true set, in the words gunicorn, Django and Flask expect.
//!
//! | field | value |
//! |---|---|
//! | X-Forwarded-For, X-Real-IP | the client's address; absent when it came over a unix socket |
//! | X-Forwarded-Proto | `https` or `http`, lower case, once: gunicorn compares it to the letter |
//! | X-Forwarded-Host | Host as received |
//! | X-Forwarded-Port | the port the client connected to |
//! | X-Request-ID | the exchange's name in our logs |
//! | X-Request-Start | `t=` seconds with micros: when the head was complete, before any waiting |

use std::io::Write as _;
use std::time::UNIX_EPOCH;

use crate::http::Exchange;

/// Appends the field lines.
pub(super) fn append(out: &mut Vec<u8>, exchange: &Exchange) {
    let connection = &exchange.connection;
    // Writing to a Vec cannot fail.
    if let Some(client) = exchange.client.get() {
        let _ = write!(out, "x-forwarded-for: {client}\r\nx-real-ip: {client}\r\n");
    }
    let _ = write!(out, "x-forwarded-proto: {}\r\n", connection.scheme());
    match &exchange.host {
        Some(host) => {
            let _ = write!(out, "x-forwarded-host: {}\r\n", host.as_str());
        }
        // HTTP/1.0 without Host: HTTP/1.1, which we speak to the worker, needs one.
        None => out.extend_from_slice(b"host: localhost\r\n"),
    }
    let _ = write!(out, "x-forwarded-port: {}\r\n", connection.port());
    if let Some(id) = exchange.id.get() {
        let _ = write!(out, "x-request-id: {}\r\n", id.as_str());
    }
    let received = exchange.received_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let _ = write!(out, "x-request-start: t={}.{:06}\r\n", received.as_secs(), received.subsec_micros());
}
