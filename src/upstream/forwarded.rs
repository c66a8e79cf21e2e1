//! What the edge says to the app about the client: one true set, in the words gunicorn, Django and Flask expect, whatever
//! protocol the worker speaks.
//!
//! | field | value |
//! |---|---|
//! | X-Forwarded-For, X-Real-IP | the client's address, a trusted proxy's word included; absent when it came over a unix socket |
//! | X-Forwarded-Proto | `https` or `http`, lower case, once: gunicorn compares it to the letter |
//! | X-Forwarded-Host | Host as received |
//! | X-Forwarded-Port | the port the client connected to |
//! | X-Forwarded-Prefix | the prefix under which the app is mounted; absent when it is not |
//! | X-Client-Cert-Subject | the subject of the client's certificate (RFC 4514), where the listener has seen a good one; else absent |
//! | X-Request-ID | the exchange's name in our logs |
//! | X-Request-Start | `t=` seconds with micros: when the head was complete, before any waiting; or when a trusted proxy had it |
//! | whatever `Exchange::identity` has | who asks, as far as the edge has found out; uwsgi: Remote-User as REMOTE_USER, too |

use crate::http::Exchange;
use crate::http::text::{append_address, append_decimal, append_padded};
use crate::uwsgi::vars::Vars;

/// What fields are written to.
pub(super) trait Lines {
    /// Appends one field.
    fn line(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>));
}

/// A head of HTTP/1.1.
impl Lines for Vec<u8> {
    fn line(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.extend_from_slice(name.as_bytes());
        self.extend_from_slice(b": ");
        value(self);
        self.extend_from_slice(b"\r\n");
    }
}

impl Lines for Vars<'_> {
    fn line(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.field(name, value);
    }
}

/// Appends the fields. `mount` is the prefix that this request has of those under which apps live.
pub(super) fn append(out: &mut impl Lines, exchange: &Exchange, mount: Option<&str>) {
    match (exchange.client.get(), exchange.client_text()) {
        (Some(_), Some(text)) => client(out, |out| out.extend_from_slice(text.as_bytes())),
        (Some(address), None) => client(out, |out| append_address(out, address)),
        (None, _) => {}
    }
    out.line("x-forwarded-proto", |out| out.extend_from_slice(exchange.scheme().as_str().as_bytes()));
    if let Some(host) = &exchange.host {
        out.line("x-forwarded-host", |out| out.extend_from_slice(host.as_bytes()));
    }
    out.line("x-forwarded-port", |out| append_decimal(out, exchange.port().into()));
    if let Some(mount) = mount {
        out.line("x-forwarded-prefix", |out| out.extend_from_slice(mount.as_bytes()));
    }
    if let Some(subject) = &exchange.connection.client_subject {
        out.line("x-client-cert-subject", |out| out.extend_from_slice(subject.as_bytes()));
    }
    if let Some(id) = exchange.id.get() {
        out.line("x-request-id", |out| out.extend_from_slice(id.as_bytes()));
    }
    let start = exchange.request_start();
    out.line("x-request-start", |out| {
        out.extend_from_slice(b"t=");
        append_decimal(out, start.as_secs());
        out.push(b'.');
        append_padded(out, start.subsec_micros().into(), 6);
    });
    for (name, value) in exchange.identity.fields().iter() {
        out.line(name.as_str(), |out| out.extend_from_slice(value.as_bytes()));
    }
}

fn client(out: &mut impl Lines, address: impl Fn(&mut Vec<u8>)) {
    out.line("x-forwarded-for", &address);
    out.line("x-real-ip", address);
}
