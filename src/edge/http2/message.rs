//! `h2`'s messages and ours.

use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::body::{BodyLink, RequestBody};
use super::shared::Shared;
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, Host, Protocol, Request, Response, Target, Upgrade, fields};
use crate::http1::head::{self, is_tchar};
use crate::http1::request::is_method;
use crate::http1::with_date;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request as the stack takes it. What cannot be one goes through the stack with its reason.
pub(super) fn request(shared: &Rc<Shared>, request: http::Request<RecvStream>) -> (Box<Request>, Option<Rc<BodyLink>>) {
    let (mut parts, body) = request.into_parts();
    let limits = &shared.limits;
    let raw = path_and_query(&parts.uri);
    let upgrade = if parts.method == Method::CONNECT { extended(&mut parts, &body) } else { Ok(None) };
    let read = upgrade.and_then(|upgrade| {
        Ok((upgrade, read_head(&mut parts, &raw, limits.header_count, limits.header_size as usize)?))
    });
    let (upgrade, target, host, refused) = match read {
        Ok((upgrade, (target, host))) => (upgrade, target, Some(host), None),
        Err(reason) => (None, Target::from_static("/"), None, Some(Error::new(reason))),
    };
    let user_agent = fields::first(&parts.headers, &header::USER_AGENT).cloned();
    let info = Rc::clone(&shared.info);
    let exchange = Exchange::new(info, Protocol::Http2, parts.method.clone(), raw, host, user_agent);
    let (body, link) = match upgrade {
        None => request_body(shared, &parts.headers, body),
        Some(upgrade) => {
            exchange.asks_for(upgrade, &parts.headers);
            (Body::Empty, Some(Rc::new(BodyLink::keeping(body))))
        }
    };
    let request =
        Request { method: parts.method, target, headers: parts.headers, body, exchange: Rc::new(exchange), refused };
    (Box::new(request), link)
}

/// What an extended CONNECT asks for (RFC 8441): it becomes the GET that it would be over HTTP/1.1. `None`: a plain CONNECT.
///
/// # Errors
/// [`Reason::ProtocolUnknown`] for anything but a WebSocket.
fn extended(parts: &mut http::request::Parts, body: &RecvStream) -> Result<Option<Upgrade>, Reason> {
    let Some(protocol) = parts.extensions.get::<h2::ext::Protocol>() else { return Ok(None) };
    if protocol.as_str() != "websocket" {
        return Err(Reason::ProtocolUnknown);
    }
    parts.method = Method::GET;
    Ok(Some(Upgrade::of_http2(&parts.headers, body.is_end_stream())))
}

/// A copy of its own, which the log and the target share. Empty where there is none.
fn path_and_query(uri: &Uri) -> Bytes {
    uri.path_and_query().map_or_else(Bytes::new, |raw| head::copy(raw.as_str().as_bytes()))
}

/// The same rules as for HTTP/1.1 heads, where HTTP/2's own have not settled them.
fn read_head(
    parts: &mut http::request::Parts,
    raw: &Bytes,
    header_count: usize,
    header_size: usize,
) -> Result<(Target, Host), Reason> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) || !is_method(parts.method.as_str().as_bytes()) {
        return Err(Reason::BadMethod);
    }
    fields::expects_continue(&parts.headers)?;
    // Clients may send each cookie in a field of its own (RFC 9113, 8.2.3).
    let cookies = parts.headers.get_all(header::COOKIE).iter().count();
    if parts.headers.len() - cookies.saturating_sub(1) > header_count {
        return Err(Reason::TooManyHeaders);
    }
    if size(&parts.headers) + raw.len() > header_size {
        return Err(Reason::HeadersTooLarge);
    }
    // `h2` lets quotes through.
    if !parts.headers.keys().all(|name| name.as_str().bytes().all(is_tchar)) {
        return Err(Reason::BadHeaderName);
    }
    if parts.headers.values().any(is_padded) || fields::is_repeated(&parts.headers, &header::CONTENT_TYPE) {
        return Err(Reason::BadHeaderValue);
    }
    // `h2` takes an empty one, and of several the first.
    head::content_length(&parts.headers)?;
    let host = host(&mut parts.headers, parts.uri.authority())?;
    if raw[..] == *b"*" && parts.method != Method::OPTIONS {
        return Err(Reason::BadTarget);
    }
    Ok((Target::parse(raw.clone())?, host))
}

/// Whether a value begins or ends with a space or a tab, which must not be (RFC 9113, 8.2.1).
fn is_padded(value: &HeaderValue) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.as_bytes().first()) || is_space(value.as_bytes().last())
}

/// Bytes as they would stand in an HTTP/1.1 head, so that one limit means one thing.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// `:authority`, which wins and becomes Host; a Host beside it must say the same (RFC 9113, 8.3.1).
fn host(headers: &mut HeaderMap, authority: Option<&Authority>) -> Result<Host, Reason> {
    let mut lines = headers.get_all(header::HOST).iter();
    let field = lines.next().map(|value| Bytes::copy_from_slice(value.as_bytes()));
    if lines.next().is_some() {
        return Err(Reason::BadHost);
    }
    match (authority, field) {
        (None, None) => Err(Reason::MissingHost),
        (Some(authority), Some(field)) if !field.eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Err(Reason::BadHost)
        }
        (_, Some(field)) => Host::parse(field),
        (Some(authority), None) => {
            let raw = head::copy(authority.as_str().as_bytes());
            headers.insert(header::HOST, HeaderValue::from_maybe_shared(raw.clone()).map_err(|_| Reason::BadHost)?);
            Host::parse(raw)
        }
    }
}

fn request_body(shared: &Rc<Shared>, headers: &HeaderMap, body: RecvStream) -> (Body, Option<Rc<BodyLink>>) {
    if body.is_end_stream() {
        return (Body::Empty, None);
    }
    // `h2` has refused what is no number, and holds the client to it.
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let link = Rc::new(BodyLink::new(body, fields::expects_continue(headers).unwrap_or(false)));
    let body = RequestBody::new(length, shared.limits.body_rate, Rc::clone(&link));
    (Body::Stream(Box::new(body)), Some(link))
}

/// The head of an answer that takes the stream over.
pub(super) fn takeover_head(response: Response, exchange: &Exchange) -> http::Response<()> {
    let mut parts = response.into_parts().0;
    parts.headers.remove(header::CONTENT_LENGTH);
    settle_fields(&mut parts.headers, exchange);
    http::Response::from_parts(parts, ())
}

/// What all answers have, and nothing that they must not.
fn settle_fields(headers: &mut HeaderMap, exchange: &Exchange) {
    remove_fields(headers);
    if !headers.contains_key(header::DATE) {
        let now = exchange.wall_clock().as_secs();
        headers.insert(header::DATE, with_date(now, HeaderValue::clone));
    }
    if let Some(id) = exchange.id.get().and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok()) {
        headers.insert(X_REQUEST_ID, id);
    }
}

/// A response as `h2` takes it, and the body that follows.
pub(super) fn response(response: Response, exchange: &Exchange) -> (http::Response<()>, Body) {
    let (mut parts, mut body) = response.into_parts();
    settle_fields(&mut parts.headers, exchange);
    let is_bodiless = exchange.method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED;
    if is_bodiless {
        // An answer of our own to HEAD says how long its body would be; an app's says it itself.
        if let Some(length @ 1..) = body.remaining().filter(|_| exchange.method == Method::HEAD) {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        body = Body::Empty;
    } else {
        let length = body.remaining().filter(|_| parts.status != StatusCode::NO_CONTENT);
        // Most apps say it themselves, and right.
        if length.is_none() || head::content_length(&parts.headers) != Ok(length) {
            parts.headers.remove(header::CONTENT_LENGTH);
            if let Some(length) = length {
                parts.headers.insert(header::CONTENT_LENGTH, length.into());
            }
        }
        if parts.status == StatusCode::NO_CONTENT {
            body = Body::Empty;
        }
    }
    (http::Response::from_parts(parts, ()), body)
}

/// What belongs to the worker's connection, or to the edge alone. `h2` refuses to send some of it.
fn remove_fields(headers: &mut HeaderMap) {
    let mut names: Vec<HeaderName> = Vec::new();
    if headers.contains_key(header::CONNECTION) {
        names = fields::named_by_connection(headers);
    }
    names.extend(headers.keys().filter(|name| fields::response_field_is_dropped(name)).cloned());
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(String, String), Reason> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            // As `h2` reads names.
            request = request.header(HeaderName::from_lowercase(name.as_bytes()).unwrap(), *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let raw = path_and_query(&parts.uri);
        let (target, host) = read_head(&mut parts, &raw, 3, 32 << 10)?;
        assert_eq!(parts.headers.get_all(header::HOST).iter().count(), 1);
        Ok((target.as_str().to_owned(), host.as_str().to_owned()))
    }

    #[test]
    fn a_head_has_one_host_and_one_path() {
        let plain = Ok(("/a?b".to_owned(), "shop.example".to_owned()));
        assert_eq!(read("GET", "https://shop.example/a?b", &[]), plain);
        assert_eq!(read("GET", "https://shop.example/a?b", &[("host", "shop.example")]), plain);
        assert_eq!(read("GET", "/a?b", &[("host", "shop.example")]), plain);
        assert_eq!(read("GET", "https://shop.example/a?b", &[("expect", "")]), plain, "an empty list expects nothing");
    }

    #[test]
    fn the_rules_of_http_1_hold() {
        let many = [("x", "1"), ("x", "2"), ("x", "3"), ("x", "4")];
        let (other, two) = ([("host", "other.example")], [("host", "a"), ("host", "a")]);
        for (method, uri, fields, reason) in [
            ("get", "https://a/", &[][..], Reason::BadMethod),
            ("TRACE", "https://a/", &[], Reason::BadMethod),
            ("CONNECT", "a:443", &[], Reason::BadMethod),
            ("GET", "https://a/b/../c", &[], Reason::BadTarget),
            ("GET", "https://a/%2e%2e/", &[], Reason::BadTarget),
            ("GET", "https://a/\u{e9}", &[], Reason::BadTarget),
            ("GET", "/", &[], Reason::MissingHost),
            ("GET", "https://a/", &other, Reason::BadHost),
            ("GET", "/", &two, Reason::BadHost),
            ("GET", "https://user@a/", &[], Reason::BadHost),
            ("GET", "https://a/", &many, Reason::TooManyHeaders),
            ("GET", "https://a/", &[("expect", "200-ok")], Reason::ExpectationFailed),
            ("GET", "https://a/", &[("a", "b ")], Reason::BadHeaderValue),
            ("GET", "https://a/", &[("\"a\"", "b")], Reason::BadHeaderName),
            ("GET", "https://a/", &[("content-type", "a/b"), ("content-type", "a/b")], Reason::BadHeaderValue),
            ("POST", "https://a/", &[("content-length", "")], Reason::BadContentLength),
            ("POST", "https://a/", &[("content-length", "1"), ("content-length", "1")], Reason::BadContentLength),
        ] {
            assert_eq!(read(method, uri, fields), Err(reason), "{method} {uri} {fields:?}");
        }
    }
}
