//! The tables: one row a line, fields between ` | `.

use crate::support::worker::Protocol;
use crate::wire_responses::Then;

/// What becomes of one request of a row.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// Answered by the edge, with nothing at the worker.
    Refused { status: u16, reason: String, stays: bool },
    /// Sent on: these bytes, then the fields of the edge, then these.
    Forwarded { before: Vec<u8>, after: Vec<u8> },
}

/// What becomes of the same request over HTTP/2.
#[derive(Debug, Clone)]
pub(super) enum Over2 {
    /// It cannot be said there.
    Unsaid,
    /// It is refused, with whatever reason, or reset as a protocol error.
    Kept,
    Deed(Deed),
}

/// A row of `requests.txt`.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) deeds: Vec<Deed>,
    pub(super) over2: Over2,
    /// Servers that answer it themselves with a status of their own: name and status.
    pub(super) answers: Vec<(String, u16)>,
}

/// What a client gets of an answer.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// All of it.
    Whole { status: u16, body: Vec<u8> },
    /// A page of the edge, with this reason.
    Failed { status: u16, reason: String },
    /// A part of its body, after which it is told that there was more.
    Cut { status: u16, reason: String },
}

/// A row of `responses.txt`.
#[derive(Debug, Clone)]
pub(super) struct Response {
    pub(super) name: String,
    pub(super) method: String,
    pub(super) bytes: Vec<u8>,
    pub(super) then: Then,
    pub(super) outcome: Outcome,
    /// Whether the connection to the worker serves again.
    pub(super) is_reused: bool,
    is_http: bool,
    is_uwsgi: bool,
}

impl Response {
    /// Whether a worker that speaks this may say it, and means this by it.
    pub(super) fn is_in(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http1 => self.is_http,
            Protocol::Uwsgi => self.is_uwsgi,
        }
    }
}

pub(super) fn requests() -> Vec<Request> {
    rows(include_str!("requests.txt")).map(request).collect()
}

pub(super) fn responses() -> Vec<Response> {
    rows(include_str!("responses.txt")).map(response).collect()
}

fn rows<const N: usize>(text: &str) -> impl Iterator<Item = [&str; N]> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let parts: Vec<&str> = line.split(" | ").collect();
        assert!(parts.iter().all(|part| !part.is_empty()), "an empty field: {line}");
        parts.try_into().unwrap_or_else(|_| panic!("not {N} fields: {line}"))
    })
}

fn request([name, bytes, does, over2, _why]: [&str; 5]) -> Request {
    let (does, answers) = does.strip_suffix(']').and_then(|does| does.split_once(" [")).unwrap_or((does, ""));
    let deeds: Vec<Deed> = does.split(" then ").map(deed).collect();
    let answer = |text: &str| {
        let (server, status) = text.split_once(' ').unwrap();
        (server.to_owned(), status.parse().unwrap())
    };
    Request {
        name: name.to_owned(),
        bytes: unescape(bytes),
        over2: match over2 {
            "-" => Over2::Unsaid,
            "no" => Over2::Kept,
            "same" => Over2::Deed(deeds[0].clone()),
            other => Over2::Deed(deed(other)),
        },
        deeds,
        answers: answers.split_terminator(", ").map(answer).collect(),
    }
}

fn deed(text: &str) -> Deed {
    if let Some(pattern) = text.strip_prefix("> ") {
        let (before, after) = pattern.split_once(r"\~").unwrap_or_else(|| panic!("no fields of the edge: {text}"));
        return Deed::Forwarded { before: unescape(before), after: unescape(after) };
    }
    let mut words = text.split(' ');
    let status = words.next().unwrap().parse().unwrap_or_else(|_| panic!("not a deed: {text}"));
    let reason = words.next().unwrap().to_owned();
    Deed::Refused { status, reason, stays: words.next() == Some("stays") }
}

fn response([name, method, bytes, then, outcome, terms, _why]: [&str; 7]) -> Response {
    let (kind, rest) = outcome.split_once(' ').unwrap();
    let (first, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let status = first.parse().unwrap_or_else(|_| panic!("not an outcome: {outcome}"));
    let reason = rest.to_owned();
    Response {
        name: name.to_owned(),
        method: method.to_owned(),
        bytes: unescape(bytes),
        then: match then {
            "stay" => Then::Stay,
            "close" => Then::Close,
            "reset" => Then::Reset,
            _ => panic!("not what a worker does: {then}"),
        },
        outcome: match kind {
            "whole" => Outcome::Whole { status, body: unescape(rest) },
            "failed" => Outcome::Failed { status, reason },
            "cut" => Outcome::Cut { status, reason },
            _ => panic!("not an outcome: {outcome}"),
        },
        is_reused: terms.split(' ').any(|term| term == "reused"),
        is_http: terms.split(' ').any(|term| term == "http"),
        is_uwsgi: terms.split(' ').any(|term| term == "uwsgi"),
    }
}

/// The bytes that a field stands for.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let bytes = until(&mut rest, None);
    assert!(rest.is_empty(), "an unmatched brace: {text}");
    bytes
}

/// Reads up to the end, or over the brace that ends a repetition.
fn until(rest: &mut &[u8], end: Option<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((&byte, tail)) = rest.split_first() {
        *rest = tail;
        if end == Some(byte) {
            return bytes;
        }
        if byte == b'\\' { escape(rest, &mut bytes) } else { bytes.push(byte) }
    }
    assert!(end.is_none(), "a repetition without an end");
    bytes
}

fn escape(rest: &mut &[u8], bytes: &mut Vec<u8>) {
    let (&kind, tail) = rest.split_first().expect("something behind a backslash");
    *rest = tail;
    match kind {
        b'r' => bytes.push(b'\r'),
        b'n' => bytes.push(b'\n'),
        b't' => bytes.push(b'\t'),
        b'0' => bytes.push(0),
        b'\\' => bytes.push(b'\\'),
        b'x' => {
            let (digits, tail) = rest.split_at(2);
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
            *rest = tail;
        }
        b'{' => {
            let colon = rest.iter().position(|byte| *byte == b':').expect("a number of times");
            let times = std::str::from_utf8(&rest[..colon]).unwrap().parse().unwrap();
            *rest = &rest[colon + 1..];
            bytes.extend_from_slice(&until(rest, Some(b'}')).repeat(times));
        }
        _ => panic!("an unknown escape: {}", char::from(kind)),
    }
}

#[test]
fn a_field_is_read_to_the_byte() {
    assert_eq!(unescape(r"a\r\n\t\0\\\xff{b}|c"), b"a\r\n\t\0\\\xff{b}|c");
    assert_eq!(unescape(r"<\{3:a\{2:b}\r}>"), b"<abb\rabb\rabb\r>");
}

#[test]
fn the_tables_are_as_large_as_they_claim_and_name_each_row_once() {
    let names: Vec<String> = requests().into_iter().map(|row| row.name).collect();
    let answers: Vec<String> = responses().into_iter().map(|row| row.name).collect();
    assert!(names.len() >= 300 && answers.len() >= 60, "{} requests, {} responses", names.len(), answers.len());
    for names in [names, answers] {
        let once: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(once.len(), names.len());
    }
}
