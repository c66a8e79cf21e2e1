//! What of a file is sent: all of it, a part, several, or that the client has it already.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::body;
use super::document::{Content, Document, Form, VARY};
use crate::error::{Error, Reason};
use crate::http::conditional::{Verdict, evaluate, range_applies};
use crate::http::multipart::{multipart_bytes, slice};
use crate::http::range::{self, ByteRange, Ranges};
use crate::http::{Body, Codings, Request, Response, fields};

/// What a browser asks of a page that is one of ours: a table with links, and nothing that runs.
const LISTING_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'");

/// `Cache-Control` of a route's files.
#[derive(Debug)]
pub(super) struct Caching {
    /// Of files that never change.
    immutable: HeaderValue,
    others: HeaderValue,
}

impl Caching {
    /// Of files that everybody may have, or not.
    pub(super) fn new(max_age: Duration, is_public: bool) -> Self {
        let seconds = max_age.as_secs();
        let others = match (seconds, is_public) {
            (0, true) => HeaderValue::try_from("no-cache"),
            (0, false) => HeaderValue::try_from("private, no-cache"),
            (_, true) => HeaderValue::try_from(format!("max-age={seconds}, public")),
            (_, false) => HeaderValue::try_from(format!("max-age={seconds}, private")),
        };
        // Ten years: what browsers take for ever.
        let immutable =
            if is_public { "max-age=315360000, public, immutable" } else { "max-age=315360000, private, immutable" };
        Self {
            immutable: HeaderValue::from_static(immutable),
            others: others.unwrap_or(HeaderValue::from_static("no-cache")),
        }
    }

    /// Of files that an app gives to somebody and of which it says nothing more: nobody else is to be given them.
    pub(super) fn unsaid() -> Self {
        let value = HeaderValue::from_static("private, no-cache");
        Self { immutable: value.clone(), others: value }
    }

    pub(super) fn of(&self, is_immutable: bool) -> HeaderValue {
        if is_immutable { self.immutable.clone() } else { self.others.clone() }
    }
}

/// What the client takes.
fn codings(request: &Request) -> Codings {
    request.exchange.codings.get().unwrap_or_else(|| Codings::of(&request.headers))
}

/// Answers with a form of a file.
pub(super) fn file(
    request: &Request,
    document: &Document,
    form: &Form,
    cache_control: HeaderValue,
) -> Result<Response, Error> {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let validators = form.validators();
    match evaluate(&request.method, &request.headers, &validators) {
        Verdict::PreconditionFailed if reads => return Err(Error::new(Reason::PreconditionFailed)),
        Verdict::NotModified => return Ok(not_modified(document, form, cache_control)),
        Verdict::Proceed | Verdict::PreconditionFailed => {}
    }
    let ranges = match only(&request.headers, &header::RANGE) {
        Some(asked) if request.method == Method::GET && range_applies(&request.headers, &validators) => {
            range::parse(asked.as_bytes(), form.length())
        }
        _ => Ranges::Whole,
    };
    let mut response = match ranges {
        Ranges::Whole => whole(request, form, StatusCode::OK),
        // Content-Encoding would be said of the whole multipart, heads of the parts included, and cannot be said of a part.
        Ranges::Many(_) if form.coding.is_some() => whole(request, form, StatusCode::OK),
        Ranges::One(part) => one_part(form, part),
        Ranges::Many(parts) => parts_of(request, form, &parts),
        Ranges::Unsatisfiable => {
            if let Some(length) = range::unsatisfied(form.length()) {
                request.exchange.answer_fields.set(header::CONTENT_RANGE, length);
            }
            return Err(Error::new(Reason::RangeNotSatisfiable));
        }
    };
    response.headers_mut().insert(header::CACHE_CONTROL, cache_control);
    Ok(response)
}

/// Answers with a file as the page of a failure: nothing of it is to be kept, or asked for in parts.
pub(super) fn page(request: &Request, document: &Document, status: StatusCode) -> Response {
    let Ok(form) = form(request, document) else { return Response::new(Body::Empty) };
    let mut response = whole(request, form, status);
    let headers = response.headers_mut();
    for name in [header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES] {
        headers.remove(name);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers with the page of what is in a folder.
pub(super) fn listing(request: &Request, page: &Bytes) -> Response {
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, LISTING_POLICY);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if request.method == Method::HEAD {
        headers.insert(header::CONTENT_LENGTH, page.len().into());
    } else {
        *response.body_mut() = Body::Full(page.clone());
    }
    response
}

/// The form that this client is to have. A document has one at least.
pub(super) fn form<'d>(request: &Request, document: &'d Document) -> Result<&'d Form, Error> {
    document.form(|| codings(request)).ok_or(Error::new(Reason::Internal))
}

/// What the client has is what there is (RFC 9110, 15.4.5).
fn not_modified(document: &Document, form: &Form, cache_control: HeaderValue) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    headers.insert(header::ETAG, form.tag.clone());
    headers.insert(header::CACHE_CONTROL, cache_control);
    if document.varies() {
        headers.insert(header::VARY, VARY);
    }
    response
}

fn whole(request: &Request, form: &Form, status: StatusCode) -> Response {
    let is_head = request.method == Method::HEAD;
    let body = match &form.content {
        _ if is_head => Body::Empty,
        Content::Memory(bytes) => Body::Full(bytes.clone()),
        Content::Disk(file) => body::whole(Arc::clone(file), form.length()),
    };
    let mut response = with_fields(form, status, body);
    if is_head {
        // Whoever writes the head does not know of a body that it does not see.
        response.headers_mut().insert(header::CONTENT_LENGTH, form.length().into());
    }
    response
}

fn one_part(form: &Form, part: ByteRange) -> Response {
    let body = match &form.content {
        Content::Memory(bytes) => Body::Full(slice(bytes, part)),
        Content::Disk(file) => body::part(Arc::clone(file), part),
    };
    let mut response = with_fields(form, StatusCode::PARTIAL_CONTENT, body);
    if let Some(value) = part.content_range(form.length()) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

fn parts_of(request: &Request, form: &Form, parts: &[ByteRange]) -> Response {
    let own = form.fields.iter().find(|(name, _)| *name == header::CONTENT_TYPE).map(|(_, value)| value);
    let media_type = request.exchange.media_type.get().map(|value| &**value).or(own);
    let multipart = match &form.content {
        Content::Memory(bytes) => multipart_bytes(bytes, parts, media_type),
        Content::Disk(file) => body::multipart(Arc::clone(file), parts, form.length(), media_type),
    };
    let mut response = with_fields(form, StatusCode::PARTIAL_CONTENT, multipart.body);
    response.headers_mut().insert(header::CONTENT_TYPE, multipart.content_type);
    response
}

fn with_fields(form: &Form, status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // With room for Cache-Control, and for what layers above add.
    *headers = fields::take_map(form.fields.len() + 4);
    for (name, value) in &form.fields {
        headers.insert(name, value.clone());
    }
    response
}

/// The value of a field that has one line.
fn only<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next();
    if lines.next().is_some() { None } else { first }
}
