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

use std::time::UNIX_EPOCH;

use crate::http::Exchange;
use crate::http::text::{append_address, append_decimal, append_padded};

/// Appends the field lines.
pub(super) fn append(out: &mut Vec<u8>, exchange: &Exchange) {
    let connection = &exchange.connection;
    if let Some(client) = exchange.client.get() {
        line(out, "x-forwarded-for", |out| append_address(out, client));
        line(out, "x-real-ip", |out| append_address(out, client));
    }
    line(out, "x-forwarded-proto", |out| out.extend_from_slice(connection.scheme().as_bytes()));
    match &exchange.host {
        Some(host) => line(out, "x-forwarded-host", |out| out.extend_from_slice(host.as_str().as_bytes())),
        // HTTP/1.0 without Host: HTTP/1.1, which we speak to the worker, needs one.
        None => line(out, "host", |out| out.extend_from_slice(b"localhost")),
    }
    line(out, "x-forwarded-port", |out| append_decimal(out, connection.port().into()));
    if let Some(id) = exchange.id.get() {
        line(out, "x-request-id", |out| out.extend_from_slice(id.as_bytes()));
    }
    let received = exchange.received_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    line(out, "x-request-start", |out| {
        out.extend_from_slice(b"t=");
        append_decimal(out, received.as_secs());
        out.push(b'.');
        append_padded(out, received.subsec_micros().into(), 6);
    });
}

fn line(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    value(out);
    out.extend_from_slice(b"\r\n");
}
