//! What of a stored response a client is sent: all of it, a part, or that it has it already (RFC 9111, 4.3.2 and RFC 9110, 13
//! and 14).
//!
//! Preconditions are asked by [`crate::http::conditional`], parts are read by [`crate::http::range`]; here it is said of what, and in
//! which order. `If-Match` and `If-Unmodified-Since` never come here: they are for the app
//! ([`Bypass::Precondition`](super::request::Bypass::Precondition)).

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};

use super::date;
use crate::http::conditional::{Validators, Verdict, evaluate, range_applies};
use crate::http::fields::is_repeated;
use crate::http::range::{self, ByteRange, Ranges};

/// What of it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it; for HEAD the head alone.
    Whole,
    /// 304.
    NotModified,
    /// 206 and one part.
    One(ByteRange),
    /// 206 and several.
    Many(Vec<ByteRange>),
    /// 416.
    Unsatisfiable,
}

/// What of a stored response a request for it gets. `length`: of its body; `None`: not yet known, because it is still coming.
#[must_use]
pub fn part(method: &Method, asked: &HeaderMap, status: StatusCode, stored: &HeaderMap, length: Option<u64>) -> Part {
    // A condition is about what would be answered with 2xx (RFC 9110, 13.2.1), a range about a 200.
    if status != StatusCode::OK {
        return Part::Whole;
    }
    let own = Validators::of(stored);
    // Without a date of its last change it cannot be older than it is (RFC 9111, 4.3.2).
    let modified = own.modified.or_else(|| date::only(stored, &header::DATE));
    if evaluate(method, asked, &Validators { modified, ..own }) == Verdict::NotModified {
        return Part::NotModified;
    }
    let Some((asked_for, length)) = asked.get(header::RANGE).zip(length) else { return Part::Whole };
    if *method != Method::GET || is_repeated(asked, &header::RANGE) || !range_applies(asked, &own) {
        return Part::Whole;
    }
    match range::parse(asked_for.as_bytes(), length) {
        Ranges::Whole => Part::Whole,
        Ranges::One(one) => Part::One(one),
        // Content-Encoding would be said of the whole multipart, and cannot be said of a part.
        Ranges::Many(_) if stored.contains_key(header::CONTENT_ENCODING) => Part::Whole,
        Ranges::Many(many) => Part::Many(many),
        Ranges::Unsatisfiable => Part::Unsatisfiable,
    }
}
