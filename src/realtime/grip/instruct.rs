//! What an app wants of the edge, by the fields of its answer or by its body.
//!
//! | field | value | default |
//! |---|---|---|
//! | `Grip-Hold` | `response`, `stream` | no hold |
//! | `Grip-Channel` | `name; prev-id=ID; filter=F`, a list | |
//! | `Grip-Timeout` | seconds, 5 at least | 55 |
//! | `Grip-Keep-Alive` | `data; format=raw\|cstring\|base64; timeout=N; mode=idle\|interval` | raw, 55, idle |
//! | `Grip-Link` | `<url>; rel=next; timeout=N`, `<url>; rel=gone`, a list | 120 |
//! | `Grip-Status` | a status, perhaps with its words | that of the answer |
//! | `Grip-Set-Meta` | `name="value"`, a list | |
//! | `Grip-Expose-Headers` | names, a list | all |
//!
//! An answer of the type `application/grip-instruct` says the same as JSON, and what the client is to get. Whatever is
//! malformed is an error that names its field: the client gets a 502, and the operator a line in the log.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::parameters::split;
use crate::http::fields;
use crate::realtime::hub::{Filters, Meta, Subscription, limits};

/// Bytes of an answer with instructions, at most: of the JSON, and of what is kept for a client that waits.
pub const LARGEST: usize = 100_000;

/// The least time that a client waits, and the usual one.
const LEAST_TIMEOUT: u64 = 5;
const TIMEOUT: u64 = 55;
/// Of a link, unless it says so itself.
const LINK_TIMEOUT: u64 = 120;
/// The longest time of all.
const LONGEST: u64 = 24 * 3_600;
/// Bytes of what is said to keep a stream alive.
const LARGEST_KEEP_ALIVE: usize = 4 << 10;

/// Base64 as it comes: with padding or without.
pub(in crate::realtime) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is wrong with instructions, in words for whoever wrote the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(pub(in crate::realtime) String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fault<T>(message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(message.into()))
}

/// How a client is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldMode {
    /// Until there is an answer.
    Response,
    /// With a body that goes on.
    Stream,
}

/// What is sent while nothing is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAlive {
    /// Not empty.
    pub data: Bytes,
    /// How often.
    pub every: Duration,
    /// Counted from when.
    pub mode: KeepAliveMode,
}

/// From when the time of a keep-alive counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAliveMode {
    /// From whatever was sent last.
    Idle,
    /// From the last keep-alive.
    Interval,
}

/// Where the app is asked what a client has missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// Absolute, or relative to what the client has asked for.
    pub url: String,
    /// After so long without anything on any channel.
    pub timeout: Duration,
}

/// What the client is to get, where the answer is JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponsePart {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What an app wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instruct {
    /// Whether the client is held.
    pub hold: Option<HoldMode>,
    /// On which channels. No more than a client can be on; further ones are cut off.
    pub channels: Vec<Subscription>,
    /// How long a client waits for an answer.
    pub timeout: Duration,
    /// What is sent while nothing is published.
    pub keep_alive: Option<KeepAlive>,
    /// Where the app is asked.
    pub next: Option<Next>,
    /// What is told that the client has left: absolute or relative.
    pub gone: Option<String>,
    /// Instead of the answer's.
    pub status: Option<StatusCode>,
    /// For filters.
    pub meta: Meta,
    /// If not empty: the only fields that the client gets, in lower case.
    pub exposed: Vec<Box<str>>,
    /// Instead of the answer.
    pub response: Option<ResponsePart>,
}

impl Instruct {
    /// Whether an answer has instructions at all: by its fields, or by its type.
    #[must_use]
    pub fn is_in(headers: &HeaderMap) -> bool {
        fields::has_instructions(headers)
    }

    /// Whether they are in the body as well.
    #[must_use]
    pub fn is_json(headers: &HeaderMap) -> bool {
        fields::is_instruction(headers)
    }

    /// What the fields say.
    ///
    /// # Errors
    /// What is wrong, and in which field.
    pub fn of_fields(headers: &HeaderMap) -> Result<Self, Fault> {
        let mut instruct = Self { timeout: seconds(TIMEOUT), ..Self::default() };
        if let Some(value) = text(headers, "grip-hold") {
            instruct.hold = Some(mode(&value).ok_or_else(|| {
                Fault(format!("Grip-Hold is `response` or `stream`, and this says `{}`", shown(&value)))
            })?);
        }
        for line in lines(headers, "grip-channel") {
            instruct.add_channels(&line)?;
        }
        if let Some(value) = text(headers, "grip-timeout") {
            instruct.timeout = waiting(number("Grip-Timeout", &value)?);
        }
        if let Some(value) = text(headers, "grip-keep-alive") {
            instruct.keep_alive = Some(keep_alive(&value)?);
        }
        for line in lines(headers, "grip-link") {
            instruct.add_links(&line)?;
        }
        if let Some(value) = text(headers, "grip-status") {
            instruct.status = Some(status(&value)?);
        }
        for line in lines(headers, "grip-set-meta") {
            for element in split(&line, true) {
                let (name, value) = element.first;
                add_meta(&mut instruct.meta, "Grip-Set-Meta", name, value.as_deref().unwrap_or_default())?;
            }
        }
        for line in lines(headers, "grip-expose-headers") {
            let names = line.split(',').map(str::trim).filter(|name| !name.is_empty());
            instruct.exposed.extend(names.map(|name| name.to_ascii_lowercase().into()));
        }
        instruct.channels.truncate(limits::CHANNELS_PER_CLIENT);
        Ok(instruct)
    }

    fn add_channels(&mut self, line: &str) -> Result<(), Fault> {
        for element in split(line, true) {
            // A name may have `=` in it.
            let name = match &element.first {
                (name, None) => (*name).to_owned(),
                (name, Some(value)) => format!("{name}={value}"),
            };
            let filters = element.rest.iter().filter(|(known, _)| known.eq_ignore_ascii_case("filter"));
            let filters: Vec<&str> = filters.map(|(_, value)| value.as_deref().unwrap_or_default()).collect();
            let position = element.get("prev-id");
            self.channels.push(subscription("Grip-Channel", &name, position, &filters)?);
        }
        Ok(())
    }

    fn add_links(&mut self, line: &str) -> Result<(), Fault> {
        for element in split(line, true) {
            let url = element.first.0.strip_prefix('<').and_then(|url| url.strip_suffix('>'));
            let Some(url) = url.filter(|url| !url.is_empty()) else {
                return fault(format!(
                    "Grip-Link is `<url>; rel=next` or `<url>; rel=gone`, and this says `{}`",
                    shown(line)
                ));
            };
            match element.get("rel") {
                Some("next") => {
                    let timeout = element.get("timeout").map(|value| number("Grip-Link: timeout", value));
                    let timeout = timeout.transpose()?.unwrap_or(LINK_TIMEOUT).clamp(1, LONGEST);
                    self.next = Some(Next { url: url.into(), timeout: seconds(timeout) });
                }
                Some("gone") => self.gone = Some(url.into()),
                // Links of another kind are for somebody else.
                _ => {}
            }
        }
        Ok(())
    }

    /// What the body says besides, of an answer of the type `application/grip-instruct`.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read_json(&mut self, status: StatusCode, body: &[u8]) -> Result<(), Fault> {
        if status != StatusCode::OK {
            return fault(format!(
                "an answer with application/grip-instruct has the status 200, and this has {}",
                status.as_u16()
            ));
        }
        if body.len() > LARGEST {
            return fault(format!("the body of application/grip-instruct is larger than {LARGEST} bytes"));
        }
        let document: Value = serde_json::from_slice(body)
            .map_err(|error| Fault(format!("the body of application/grip-instruct is no JSON: {error}")))?;
        let Value::Object(document) = document else {
            return fault("the body of application/grip-instruct is no object");
        };
        if let Some(hold) = object(&document, "", "hold")? {
            self.read_hold(hold)?;
        }
        let mut response = ResponsePart { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::new() };
        if let Some(part) = object(&document, "", "response")? {
            response = read_response(part, "response")?;
        }
        self.response = Some(response);
        Ok(())
    }

    fn read_hold(&mut self, hold: &Map<String, Value>) -> Result<(), Fault> {
        let wanted = string(hold, "hold.", "mode")?.unwrap_or("response");
        self.hold =
            Some(mode(wanted).ok_or_else(|| {
                Fault(format!("hold.mode is `response` or `stream`, and this says `{}`", shown(wanted)))
            })?);
        let Some(Value::Array(channels)) = hold.get("channels") else {
            return fault("hold.channels is a list, and has to be there");
        };
        for (at, channel) in channels.iter().enumerate() {
            let place = format!("hold.channels[{at}]");
            let Value::Object(channel) = channel else { return fault(format!("{place} is no object")) };
            let within = format!("{place}.");
            let Some(name) = string(channel, &within, "name")? else {
                return fault(format!("{place}.name has to be there"));
            };
            let filters = strings(channel, &within, "filters")?;
            let position = string(channel, &within, "prev-id")?;
            self.channels.push(subscription(&place, name, position, &filters)?);
        }
        self.channels.truncate(limits::CHANNELS_PER_CLIENT);
        if let Some(timeout) = whole(hold, "hold.", "timeout")? {
            self.timeout = waiting(timeout);
        }
        if let Some(keep_alive) = object(hold, "hold.", "keep-alive")? {
            let data = content(keep_alive, "hold.keep-alive.", "content", "content-bin")?.unwrap_or_default();
            let every = whole(keep_alive, "hold.keep-alive.", "timeout")?.unwrap_or(TIMEOUT);
            if data.len() > LARGEST_KEEP_ALIVE {
                return fault(format!("hold.keep-alive.content is larger than {LARGEST_KEEP_ALIVE} bytes"));
            }
            let mode = match string(keep_alive, "hold.keep-alive.", "mode")? {
                None | Some("idle") => KeepAliveMode::Idle,
                Some("interval") => KeepAliveMode::Interval,
                Some(other) => {
                    return fault(format!(
                        "hold.keep-alive.mode is `idle` or `interval`, and this says `{}`",
                        shown(other)
                    ));
                }
            };
            self.keep_alive =
                (!data.is_empty()).then(|| KeepAlive { data, every: seconds(every.clamp(1, LONGEST)), mode });
        }
        if let Some(meta) = object(hold, "hold.", "meta")? {
            for (name, value) in meta {
                let Value::String(value) = value else { return fault(format!("hold.meta.{} is no text", shown(name))) };
                add_meta(&mut self.meta, "hold.meta", name, value)?;
            }
        }
        Ok(())
    }

    /// Whether a client with this method is held at all: who asks for a head alone has it.
    #[must_use]
    pub fn holds(&self, method: &Method) -> Option<HoldMode> {
        self.hold.filter(|_| method != Method::HEAD)
    }

    /// Filters of all channels that change content: what the app says itself is made by them, too.
    #[must_use]
    pub fn content_filters(&self) -> Filters {
        let all = self.channels.iter().map(|channel| channel.filters.of_content());
        all.fold(Filters::default(), Filters::with)
    }

    /// Takes from a head what the client is not to get of it.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let goes = |name: &HeaderName| {
            name.as_str().starts_with("grip-")
                || !self.exposed.is_empty() && !self.exposed.iter().any(|known| **known == *name.as_str())
        };
        let gone: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
        for name in gone {
            headers.remove(name);
        }
    }
}

/// A status, fields and a body in JSON: of a held answer, or of one that is published. `place` says where.
pub(in crate::realtime) fn read_response(part: &Map<String, Value>, place: &str) -> Result<ResponsePart, Fault> {
    let within = format!("{place}.");
    let status = match whole(part, &within, "code")? {
        None => StatusCode::OK,
        Some(code) => {
            code_of(code).ok_or_else(|| Fault(format!("{place}.code is 200 to 599, and this says {code}")))?
        }
    };
    // HTTP/2 has no words for a status, and nobody reads them.
    string(part, &within, "reason")?;
    let headers = part.get("headers").map(|headers| read_headers(headers, &format!("{place}.headers")));
    let body = content(part, &within, "body", "body-bin")?.unwrap_or_default();
    Ok(ResponsePart { status, headers: headers.transpose()?.unwrap_or_default(), body })
}

/// Fields as an object, or as a list of pairs.
pub(in crate::realtime) fn read_headers(value: &Value, place: &str) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
        let (Ok(name), Ok(value)) = parsed else {
            return fault(format!("{place} has a field that cannot be one: `{}`", shown(name)));
        };
        if headers.len() == MOST_FIELDS {
            return fault(format!("{place} has more than {MOST_FIELDS} fields"));
        }
        headers.append(name, value);
        Ok(())
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let Value::String(value) = value else { return fault(format!("{place}.{} is no text", shown(name))) };
                add(name, value)?;
            }
        }
        Value::Array(fields) => {
            for (at, field) in fields.iter().enumerate() {
                let pair = field.as_array().map(Vec::as_slice);
                let Some([Value::String(name), Value::String(value)]) = pair else {
                    return fault(format!("{place}[{at}] is no list of two texts"));
                };
                add(name, value)?;
            }
        }
        _ => return fault(format!("{place} is neither an object nor a list of pairs")),
    }
    // Length and framing are the edge's.
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        headers.remove(name);
    }
    Ok(headers)
}

/// Fields of one answer.
const MOST_FIELDS: usize = 100;

fn mode(text: &str) -> Option<HoldMode> {
    match text {
        "response" => Some(HoldMode::Response),
        "stream" => Some(HoldMode::Stream),
        _ => None,
    }
}

fn subscription(place: &str, name: &str, position: Option<&str>, filters: &[&str]) -> Result<Subscription, Fault> {
    if name.is_empty() {
        return fault(format!("{place} names no channel"));
    }
    if name.len() > limits::CHANNEL {
        return fault(format!("{place}: the name of a channel is longer than {} bytes", limits::CHANNEL));
    }
    if filters.len() > limits::FILTERS {
        return fault(format!("{place}: channel `{}` has more than {} filters", shown(name), limits::FILTERS));
    }
    if position.is_some_and(|id| id.len() > limits::ID) {
        return fault(format!("{place}: the prev-id of channel `{}` is longer than {} bytes", shown(name), limits::ID));
    }
    Ok(Subscription {
        channel: name.into(),
        filters: Filters::named(filters.iter().copied()),
        position: position.map(Box::from),
    })
}

fn keep_alive(value: &str) -> Result<KeepAlive, Fault> {
    let all = split(value, false);
    let Some(element) = all.first() else { return fault("Grip-Keep-Alive is empty") };
    // Up to the first `;`, whatever is in it.
    let data = value.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    let data = match element.get("format") {
        None | Some("" | "raw") => data.as_bytes().to_vec(),
        Some("cstring") => cstring(data),
        Some("base64") => {
            // As Python 3 makes it of bytes.
            let plain = data.strip_prefix("b'").and_then(|data| data.strip_suffix('\'')).unwrap_or(data);
            match BASE64.decode(plain) {
                Ok(data) => data,
                Err(_) => return fault(format!("Grip-Keep-Alive: `{}` is no base64", shown(plain))),
            }
        }
        Some(other) => {
            return fault(format!(
                "Grip-Keep-Alive: format is `raw`, `cstring` or `base64`, and this says `{}`",
                shown(other)
            ));
        }
    };
    if data.is_empty() {
        return fault("Grip-Keep-Alive has no data");
    }
    if data.len() > LARGEST_KEEP_ALIVE {
        return fault(format!("Grip-Keep-Alive is larger than {LARGEST_KEEP_ALIVE} bytes"));
    }
    let mode = match element.get("mode") {
        None | Some("" | "idle") => KeepAliveMode::Idle,
        Some("interval") => KeepAliveMode::Interval,
        Some(other) => {
            return fault(format!("Grip-Keep-Alive: mode is `idle` or `interval`, and this says `{}`", shown(other)));
        }
    };
    let every = element.get("timeout").map(|value| number("Grip-Keep-Alive: timeout", value)).transpose()?;
    Ok(KeepAlive { data: data.into(), every: seconds(every.unwrap_or(TIMEOUT).clamp(1, LONGEST)), mode })
}

/// With the escapes `\\`, `\r`, `\n` and `\xHH`. Any other backslash is left out: django-grip puts one too many before a
/// backslash.
fn cstring(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (escaped, length) = match rest {
            [b'\\', ..] => (Some(b'\\'), 1),
            [b'r', ..] => (Some(b'\r'), 1),
            [b'n', ..] => (Some(b'\n'), 1),
            [b'x', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (Some(high << 4 | low), 3),
                _ => (None, 0),
            },
            _ => (None, 0),
        };
        out.extend(escaped);
        rest = &rest[length..];
    }
    out
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn status(value: &str) -> Result<StatusCode, Fault> {
    let code = value.split(' ').next().and_then(|code| code.parse().ok()).and_then(code_of);
    code.ok_or_else(|| {
        Fault(format!("Grip-Status is 200 to 599, perhaps with words, and this says `{}`", shown(value)))
    })
}

fn code_of(code: u64) -> Option<StatusCode> {
    let code = u16::try_from(code).ok().filter(|code| (200..600).contains(code))?;
    StatusCode::from_u16(code).ok()
}

fn number(place: &str, value: &str) -> Result<u64, Fault> {
    value
        .trim()
        .parse()
        .map_err(|_| Fault(format!("{place} is a whole number of seconds, and this says `{}`", shown(value))))
}

fn waiting(timeout: u64) -> Duration {
    seconds(timeout.clamp(LEAST_TIMEOUT, LONGEST))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn add_meta(meta: &mut Meta, place: &str, name: &str, value: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return fault(format!("{place} has a value without a name"));
    }
    if name.len() + value.len() > limits::META_TEXT {
        return fault(format!("{place}: `{}` is longer than {} bytes", shown(name), limits::META_TEXT));
    }
    meta.retain(|(known, _)| **known != *name);
    if meta.len() == limits::META {
        return fault(format!("{place} has more than {} names", limits::META));
    }
    meta.push((name.into(), value.into()));
    Ok(())
}

/// All lines of a field. What is no UTF-8 is read as WSGI servers write it: as Latin-1.
fn lines<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = String> + use<'a> {
    headers.get_all(name).into_iter().map(decoded)
}

/// The first line.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(decoded)
}

fn decoded(value: &HeaderValue) -> String {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// For a message: not too much of it, and nothing that steers a terminal.
pub(in crate::realtime) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String =
        text.chars().take(LONGEST).map(|symbol| if symbol.is_control() { '\u{FFFD}' } else { symbol }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

// Values of an object: `None` where there is none, or where it is null.

fn present<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).filter(|value| !value.is_null())
}

pub(in crate::realtime) fn object<'a>(
    map: &'a Map<String, Value>,
    within: &str,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, Fault> {
    match present(map, name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => fault(format!("{within}{name} is no object")),
    }
}

pub(in crate::realtime) fn string<'a>(
    map: &'a Map<String, Value>,
    within: &str,
    name: &str,
) -> Result<Option<&'a str>, Fault> {
    match present(map, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => fault(format!("{within}{name} is no text")),
    }
}

pub(in crate::realtime) fn strings<'a>(
    map: &'a Map<String, Value>,
    within: &str,
    name: &str,
) -> Result<Vec<&'a str>, Fault> {
    let texts = match present(map, name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    texts.ok_or_else(|| Fault(format!("{within}{name} is no list of texts")))
}

/// A number that is not below zero; a text that is one is taken.
pub(in crate::realtime) fn whole(map: &Map<String, Value>, within: &str, name: &str) -> Result<Option<u64>, Fault> {
    let number = match present(map, name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    number.map(Some).ok_or_else(|| Fault(format!("{within}{name} is no whole number")))
}

/// Bytes as text, or in base64. Where both are there, base64 counts.
pub(in crate::realtime) fn content(
    map: &Map<String, Value>,
    within: &str,
    plain: &str,
    encoded: &str,
) -> Result<Option<Bytes>, Fault> {
    if let Some(text) = string(map, within, encoded)? {
        return match BASE64.decode(text.trim_ascii()) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(_) => fault(format!("{within}{encoded} is no base64")),
        };
    }
    Ok(string(map, within, plain)?.map(|text| Bytes::copy_from_slice(text.as_bytes())))
}
