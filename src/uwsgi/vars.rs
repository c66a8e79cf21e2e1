//! Writing the packet that stands before a request's body.
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 1 | modifier1: 0, a WSGI request |
//! | 1 | 2 | bytes of the vars, little-endian |
//! | 3 | 1 | modifier2: 0 |
//! | 4 | | the vars: length, name, length, value, one after the other; lengths are two bytes, little-endian |
//!
//! The names are CGI's (RFC 3875, 4.1). A client chooses none of them: its fields become `HTTP_*`, and those that may not
//! pass to an HTTP worker do not pass here either.

use http::Method;
use http::header::{self, HeaderMap, HeaderName};

use crate::config;
use crate::error::{Error, Reason};
use crate::http::forwarded::Scheme;
use crate::http::text::{append_address, append_decimal};
use crate::http::{Exchange, Protocol, Target, fields};

/// The most vars that uWSGI takes unless it is told otherwise (`max-vars`, which counts two of these).
pub const MAX_VARS: u32 = 128;

/// Bytes before the vars.
const HEADER: usize = 4;

/// A request, as far as its vars go.
pub struct Request<'a> {
    /// REQUEST_METHOD.
    pub method: &'a Method,
    /// REQUEST_URI, PATH_INFO and QUERY_STRING.
    pub target: &'a Target,
    /// How many bytes at the beginning of the decoded path are SCRIPT_NAME.
    pub script: usize,
    /// The client's fields; what may not pass is dropped while they are written.
    pub headers: &'a HeaderMap,
    /// Further names under which the client's may not pass, because the edge tells the app who asks by them.
    pub identity: &'a [HeaderName],
    /// HTTP_HOST, instead of the client's Host.
    pub host: Option<&'a [u8]>,
    /// The exact length of the body that follows, where the method has one.
    pub length: Option<u64>,
    /// Whose it is: REMOTE_*, SERVER_*, HTTPS.
    pub exchange: &'a Exchange,
}

/// Appends the packet: what CGI says of the request, the client's fields, then `own`.
///
/// `dropped` is told of every field that was forged or has an underscore.
///
/// # Errors
/// [`Reason::VarsTooLarge`] when uWSGI would close instead of answering it, [`Reason::BadTarget`] when gunicorn would read
/// another path than uWSGI. Nothing is appended then.
pub fn write(
    out: &mut Vec<u8>,
    settings: &config::Uwsgi,
    request: &Request<'_>,
    own: impl FnOnce(&mut Vars<'_>),
    dropped: impl FnMut(fields::Dropped),
) -> Result<(), Error> {
    if !is_decoded_for_good(request.target.path()) {
        return Err(Error::new(Reason::BadTarget).detail(
            "the decoded path has a `%` and two hex digits: servers that speak uwsgi read it in two ways, because gunicorn decodes \
             it once more. Over HTTP it would pass",
        ));
    }
    let mut vars = Vars::begin(out, settings.modifier1);
    of_request(&mut vars, request);
    of_connection(&mut vars, request.exchange);
    of_fields(&mut vars, request, dropped);
    own(&mut vars);
    vars.end(settings.buffer_size)
}

/// Whether decoding the path once more changes nothing: no `%` stands before two hex digits. Routes have been matched, and
/// others refused, by the path as it is.
fn is_decoded_for_good(path: &[u8]) -> bool {
    memchr::memchr_iter(b'%', path)
        .all(|at| !path.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

fn of_request(vars: &mut Vars<'_>, request: &Request<'_>) {
    let Request { method, target, headers, .. } = request;
    let (script, path) = target.path().split_at(request.script.min(target.path().len()));
    let query = target.query_with_mark();
    vars.put("REQUEST_METHOD", method.as_str().as_bytes());
    vars.put("REQUEST_URI", target.as_bytes());
    vars.put("SCRIPT_NAME", script);
    // Decoded, as uWSGI hands it to the app. gunicorn decodes it once more: see `is_decoded_for_good`.
    vars.put("PATH_INFO", path);
    // Apps read these three without asking whether they are there.
    vars.put("QUERY_STRING", query.strip_prefix('?').unwrap_or(query).as_bytes());
    vars.put("CONTENT_TYPE", b"");
    headers.get_all(header::CONTENT_TYPE).iter().for_each(|value| vars.join(b", ", value.as_bytes()));
    vars.put_with("CONTENT_LENGTH", |out| {
        if let Some(length) = request.length {
            append_decimal(out, length);
        }
    });
}

fn of_connection(vars: &mut Vars<'_>, exchange: &Exchange) {
    let connection = &exchange.connection;
    vars.put("SERVER_PROTOCOL", protocol(exchange.protocol).as_bytes());
    vars.put("REQUEST_SCHEME", exchange.scheme().as_str().as_bytes());
    if exchange.scheme() == Scheme::Https {
        vars.put("HTTPS", b"on");
    }
    let client = exchange.client.get();
    vars.put_with("REMOTE_ADDR", |out| {
        if let Some(client) = client {
            append_address(out, client);
        }
    });
    // The port of the connection, when that is the client's own.
    if let Some(source) = connection.source().filter(|source| client == Some(source.ip().to_canonical())) {
        vars.put_with("REMOTE_PORT", |out| append_decimal(out, source.port().into()));
    }
    if let Some(user) = exchange.identity.user() {
        vars.put("REMOTE_USER", user.as_bytes());
    }
    vars.put("SERVER_NAME", exchange.host.as_ref().map_or("localhost", |host| host.name()).as_bytes());
    vars.put_with("SERVER_PORT", |out| append_decimal(out, exchange.port().into()));
}

/// With both digits: uWSGI repeats it in its status line.
fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http10 => "HTTP/1.0",
        Protocol::Http11 => "HTTP/1.1",
        Protocol::Http2 => "HTTP/2.0",
    }
}

fn of_fields(vars: &mut Vars<'_>, request: &Request<'_>, mut dropped: impl FnMut(fields::Dropped)) {
    let headers = request.headers;
    let named =
        if headers.contains_key(header::CONNECTION) { fields::named_by_connection(headers) } else { Vec::new() };
    if let Some(host) = request.host {
        vars.put("HTTP_HOST", host);
    }
    // Several lines of one name come one after the other.
    let mut last: Option<&HeaderName> = None;
    for (name, value) in headers {
        match fields::request_field_beside(name, request.identity) {
            Some(fields::Dropped::Hop) => {}
            Some(why) => dropped(why),
            None if named.contains(name) || *name == header::CONTENT_TYPE => {}
            None if *name == header::HOST && request.host.is_some() => {}
            None if last == Some(name) && *name == header::COOKIE => vars.join(b"; ", value.as_bytes()),
            None if last == Some(name) => vars.join(b", ", value.as_bytes()),
            None => vars.field(name.as_str(), |out| out.extend_from_slice(value.as_bytes())),
        }
        last = Some(name);
    }
    // gunicorn's threads would keep the connection for another packet, which never comes, and a slot with it.
    vars.put("HTTP_CONNECTION", b"close");
}

/// The vars of one packet on their way into a buffer.
pub struct Vars<'a> {
    out: &'a mut Vec<u8>,
    /// Where the packet begins.
    start: usize,
    count: u32,
    latest: Var,
    largest: Var,
}

/// Where a var stands in the buffer. Its value begins two bytes after the end of its name.
#[derive(Clone, Copy, Default)]
struct Var {
    name: usize,
    value: usize,
    end: usize,
}

impl<'a> Vars<'a> {
    fn begin(out: &'a mut Vec<u8>, modifier1: u8) -> Self {
        let start = out.len();
        out.extend_from_slice(&[modifier1, 0, 0, 0]);
        Self { out, start, count: 0, latest: Var::default(), largest: Var::default() }
    }

    fn put(&mut self, name: &str, value: &[u8]) {
        self.put_with(name, |out| out.extend_from_slice(value));
    }

    fn put_with(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.add(|out| out.extend_from_slice(name.as_bytes()), value);
    }

    /// The var of a request field, by the field's name in lower case: `HTTP_` and the name in upper case, `_` for `-`.
    pub fn field(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        let variable = |b: u8| if b == b'-' { b'_' } else { b.to_ascii_uppercase() };
        let append_name = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"HTTP_");
            out.extend(name.bytes().map(variable));
        };
        self.add(append_name, value);
    }

    fn add(&mut self, name: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        let (name, value) = (self.append(name), self.append(value));
        self.count += 1;
        self.latest = Var { name, value, end: self.out.len() };
        self.measure();
    }

    /// A length, then what is appended. Where that begins.
    fn append(&mut self, part: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.out.extend_from_slice(&[0, 0]);
        let at = self.out.len();
        part(self.out);
        self.write_length(at);
        at
    }

    /// Adds to the value of the latest var; the separator only when it is not empty.
    fn join(&mut self, separator: &[u8], more: &[u8]) {
        if self.out.len() > self.latest.value {
            self.out.extend_from_slice(separator);
        }
        self.out.extend_from_slice(more);
        self.write_length(self.latest.value);
        self.latest.end = self.out.len();
        self.measure();
    }

    /// Before the part that begins at `at` and reaches to the end of the buffer. What is longer than a length can tell
    /// makes the whole packet too large, which is never sent.
    fn write_length(&mut self, at: usize) {
        let length = u16::try_from(self.out.len() - at).unwrap_or(u16::MAX);
        self.out[at - 2..at].copy_from_slice(&length.to_le_bytes());
    }

    fn measure(&mut self) {
        if self.latest.end - self.latest.value > self.largest.end - self.largest.value {
            self.largest = self.latest;
        }
    }

    fn end(self, buffer_size: u16) -> Result<(), Error> {
        let size = self.out.len() - self.start - HEADER;
        match u16::try_from(size) {
            Ok(size) if size <= buffer_size && self.count <= MAX_VARS => {
                self.out[self.start + 1..self.start + 3].copy_from_slice(&size.to_le_bytes());
                Ok(())
            }
            _ => {
                let detail = self.verdict(size, buffer_size);
                self.out.truncate(self.start);
                Err(Error::new(Reason::VarsTooLarge).detail(detail))
            }
        }
    }

    /// For the operator: what is too large, by whose doing, and what to set.
    fn verdict(&self, size: usize, buffer_size: u16) -> String {
        let Var { name, value, end } = self.largest;
        let bytes = end - value;
        let name = String::from_utf8_lossy(&self.out[name..value - 2]);
        let largest = match name.strip_prefix("HTTP_") {
            Some(field) => format!("the header `{}`", field.replace('_', "-").to_ascii_lowercase()),
            None => format!("`{name}`"),
        };
        let (limit, remedy) = if self.count > MAX_VARS {
            (format!("{} vars, and uWSGI takes {MAX_VARS}", self.count), "")
        } else if size > usize::from(u16::MAX) {
            (format!("{size} bytes of vars, and a uwsgi packet holds {}", u16::MAX), "")
        } else {
            let remedy = ". Raise `buffer-size` in uWSGI, and `uwsgi.buffer_size` of this upstream to the same number";
            (format!("{size} bytes of vars, and `uwsgi.buffer_size` is {buffer_size}"), remedy)
        };
        format!("the request makes {limit}; the largest is {largest} with {bytes} bytes{remedy}")
    }
}
