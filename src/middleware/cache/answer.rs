//! From a stored response to the answer that one client gets: all of it, a part, or that it has it already.
//!
//! | the client's request | is answered with |
//! |---|---|
//! | no condition, no range | the status, the fields and the body that are stored |
//! | HEAD | the same without the body, with its length (RFC 9110, 9.3.2) |
//! | a condition that says that it has it | 304 and the fields that stand for it (15.4.5) |
//! | one range | 206 (15.3.7.1) |
//! | several | 206 and `multipart/byteranges` (15.3.7.2); of a body that is still coming, all of it |
//! | a range that the body has nothing of | 416 with its length (15.5.17) |
//!
//! `Age` tells how old what is stored is (RFC 9111, 5.1). `Accept-Ranges` is the edge's own word, as it is the edge that answers
//! ranges. `Date` stays the app's. Content-Length stands on answers to HEAD alone: elsewhere whoever writes the head takes it
//! from the body. `Cache-Status` is for the layer.
//!
//! A hit takes a map of the thread's own, and values that share the stored bytes.

mod age;
mod stretch;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use self::stretch::Stretch;
use crate::cache::policy::conditional::{self, Part};
use crate::cache::policy::fields::is_of_304;
use crate::cache::store::Object;
use crate::error::{Error, Reason};
use crate::http::multipart::multipart;
use crate::http::range::{self, ByteRange};
use crate::http::{Body, Exchange, Held, Request, Response, fields};

/// Room for what is added here, by the layer and by those above: `Age`, `Accept-Ranges`, `Cache-Status`, `Vary`, and what makes
/// browsers safe.
const ADDED: usize = 8;
const BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// What is said of the content of one message (RFC 9530, 2), and is not true of a part of it.
const OF_WHOLE_CONTENT: [HeaderName; 2] =
    [HeaderName::from_static("content-digest"), HeaderName::from_static("content-md5")];

/// The request of the client who is answered, with all that it asks for: also what is kept from the app
/// ([`KEPT_BACK`](crate::cache::policy::request::KEPT_BACK)).
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) exchange: &'a Exchange,
}

impl<'a> Asker<'a> {
    pub(super) fn of(request: &'a Request) -> Self {
        Self { method: &request.method, headers: &request.headers, exchange: &request.exchange }
    }

    /// Whether it may be answered with anything but the whole.
    fn is_particular(self) -> bool {
        let is_one =
            |name: &HeaderName| matches!(*name, header::IF_NONE_MATCH | header::IF_MODIFIED_SINCE | header::RANGE);
        self.headers.keys().any(is_one)
    }
}

/// Answers with what is stored. `age` in seconds: see [`Stored::age_seconds`](crate::cache::policy::Stored::age_seconds).
///
/// # Errors
/// The client asks for a part that it does not have: 416.
pub(super) fn of_object(asker: Asker<'_>, object: &Arc<Object>, age: u64) -> Result<Response, Error> {
    with_fields(asker, object, stored_fields(object), age)
}

/// The same with other fields: those that the app has just brought up to date with its 304 (RFC 9111, 3.2).
///
/// # Errors
/// As [`of_object`].
pub(super) fn with_fields(
    asker: Asker<'_>,
    object: &Arc<Object>,
    mut fields: HeaderMap,
    age: u64,
) -> Result<Response, Error> {
    fields.insert(header::AGE, age::value(age));
    answer(asker, object.status(), fields, Content::Stored(object))
}

/// Answers with what is still coming: the body is that of a follower. Of somebody who takes a part of it, or none, it is
/// dropped before its end. `age`: `None` where the app's answer is this client's own, whose `Age` stays as it is.
///
/// # Errors
/// As [`of_object`].
pub(super) fn of_coming(
    asker: Asker<'_>,
    status: StatusCode,
    mut fields: HeaderMap,
    body: Body,
    age: Option<u64>,
) -> Result<Response, Error> {
    if let Some(age) = age {
        fields.insert(header::AGE, age::value(age));
    }
    answer(asker, status, fields, Content::Coming(body))
}

/// Answers with what the app has sent for this client alone, but was not told of his conditions and his range: it was asked for
/// all, because others might have had it as well.
///
/// # Errors
/// As [`of_object`].
pub(super) fn of_passed(asker: Asker<'_>, response: Response) -> Result<Response, Error> {
    let goes_on = matches!(response.body(), Body::Takeover(_)) || response.extensions().get::<Held>().is_some();
    if goes_on || !asker.is_particular() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let mut answer = of_coming(asker, parts.status, parts.headers, body, None)?;
    *answer.extensions_mut() = parts.extensions;
    Ok(answer)
}

/// The fields of a stored response, as a map with room for more.
fn stored_fields(object: &Object) -> HeaderMap {
    let mut map = fields::take_map(object.field_count() + ADDED);
    for (name, value) in object.fields() {
        map.append(name, value);
    }
    map
}

/// Where the bytes come from.
enum Content<'a> {
    /// They are there, in any order.
    Stored(&'a Arc<Object>),
    /// They come, from the first to the last.
    Coming(Body),
}

impl Content<'_> {
    fn length(&self) -> Option<u64> {
        match self {
            Self::Stored(object) => Some(object.length()),
            Self::Coming(body) => body.remaining(),
        }
    }

    fn whole(self) -> Body {
        match self {
            Self::Stored(object) => object.body(),
            Self::Coming(body) => body,
        }
    }

    fn part(self, range: ByteRange) -> Body {
        match self {
            Self::Stored(object) => object.part(range.first, range.last.saturating_add(1)),
            Self::Coming(body) => Body::Stream(Box::new(Stretch::new(body, range))),
        }
    }
}

fn answer(asker: Asker<'_>, status: StatusCode, fields: HeaderMap, content: Content<'_>) -> Result<Response, Error> {
    let length = content.length();
    let part = if asker.is_particular() {
        conditional::part(asker.method, asker.headers, status, &fields, length)
    } else {
        Part::Whole
    };
    Ok(match (part, content) {
        (Part::NotModified, _) => not_modified(fields),
        (Part::One(one), content) => one_part(fields, content, one, length),
        (Part::Many(many), Content::Stored(object)) => parts(fields, object, &many),
        (Part::Unsatisfiable, _) => return Err(unsatisfiable(asker.exchange, length)),
        // The parts of a body that is still coming may be asked for in any order.
        (Part::Whole | Part::Many(_), content) => whole(asker.method, status, fields, content, length),
    })
}

fn whole(
    method: &Method,
    status: StatusCode,
    mut fields: HeaderMap,
    content: Content<'_>,
    length: Option<u64>,
) -> Response {
    if status == StatusCode::OK && length.is_some() {
        fields.insert(header::ACCEPT_RANGES, BYTES);
    }
    if *method != Method::HEAD {
        return response(status, fields, content.whole());
    }
    // Whoever writes the head does not know of a body that it does not see.
    if let Some(length) = length.filter(|_| has_content(status)) {
        fields.insert(header::CONTENT_LENGTH, length.into());
    }
    response(status, fields, Body::Empty)
}

/// Whether a response of this status has content, be it none (RFC 9110, 6.4.1).
fn has_content(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn not_modified(mut fields: HeaderMap) -> Response {
    let has_tag = fields.contains_key(header::ETAG);
    let left_out: Vec<HeaderName> = fields.keys().filter(|name| !is_of_304(name, has_tag)).cloned().collect();
    for name in left_out {
        fields.remove(name);
    }
    response(StatusCode::NOT_MODIFIED, fields, Body::Empty)
}

fn one_part(mut fields: HeaderMap, content: Content<'_>, range: ByteRange, length: Option<u64>) -> Response {
    make_partial(&mut fields);
    if let Some(value) = length.and_then(|length| range.content_range(length)) {
        fields.insert(header::CONTENT_RANGE, value);
    }
    response(StatusCode::PARTIAL_CONTENT, fields, content.part(range))
}

fn parts(mut fields: HeaderMap, object: &Arc<Object>, ranges: &[ByteRange]) -> Response {
    let source = Arc::clone(object);
    let open = move |range: ByteRange| source.part(range.first, range.last.saturating_add(1));
    let multipart = multipart(ranges, object.length(), fields.get(header::CONTENT_TYPE), open);
    make_partial(&mut fields);
    // Each part says which it is; the whole must not (RFC 9110, 15.3.7.2).
    fields.insert(header::CONTENT_TYPE, multipart.content_type);
    response(StatusCode::PARTIAL_CONTENT, fields, multipart.body)
}

/// Takes out what is said of all of the content.
fn make_partial(fields: &mut HeaderMap) {
    fields.remove(header::CONTENT_LENGTH);
    fields.remove(header::CONTENT_RANGE);
    for name in &OF_WHOLE_CONTENT {
        fields.remove(name);
    }
    fields.insert(header::ACCEPT_RANGES, BYTES);
}

/// There is nothing of what was asked for. The page is made where all failures become one.
fn unsatisfiable(exchange: &Exchange, length: Option<u64>) -> Error {
    if let Some(value) = length.and_then(range::unsatisfied) {
        exchange.answer_fields.set(header::CONTENT_RANGE, value);
    }
    Error::new(Reason::RangeNotSatisfiable)
}

fn response(status: StatusCode, fields: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}
