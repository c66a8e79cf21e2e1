//! hyper's messages and ours.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::StreamGuard;
use crate::error::{Error, Reason};
use crate::http::{
    Body, ConnectionInfo, Exchange, ExchangeGuard, Finish, Host, Phase, Protocol, Request, Response, Source, Target,
    fields,
};
use crate::http1::request::is_method;
use crate::runtime::Deadline;

/// A request as the stack takes it. What cannot be one goes through the stack with its reason.
pub(super) fn request(
    info: Rc<ConnectionInfo>,
    (header_count, header_size): (usize, usize),
    request: http::Request<Incoming>,
) -> Box<Request> {
    let (mut parts, body) = request.into_parts();
    let read = read_head(&mut parts, header_count, header_size);
    let raw = parts.uri.path_and_query().map_or_else(Bytes::new, |raw| Bytes::copy_from_slice(raw.as_str().as_bytes()));
    let (target, host, refused) = match read {
        Ok((target, host)) => (target, Some(host), None),
        Err(reason) => (Target::from_static("/"), None, Some(Error::new(reason))),
    };
    let user_agent = parts.headers.get(header::USER_AGENT).cloned();
    let exchange = Exchange::new(info, Protocol::Http2, parts.method.clone(), raw, host, user_agent);
    Box::new(Request {
        method: parts.method,
        target,
        headers: parts.headers,
        body: request_body(body),
        exchange: Rc::new(exchange),
        refused,
    })
}

/// The same rules as for HTTP/1.1 heads, where HTTP/2's own have not settled them.
fn read_head(
    parts: &mut http::request::Parts,
    header_count: usize,
    header_size: usize,
) -> Result<(Target, Host), Reason> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) || !is_method(parts.method.as_str().as_bytes()) {
        return Err(Reason::BadMethod);
    }
    // Clients may send each cookie in a field of its own (RFC 9113, 8.2.3).
    let cookies = parts.headers.get_all(header::COOKIE).iter().count();
    if parts.headers.len() - cookies.saturating_sub(1) > header_count {
        return Err(Reason::TooManyHeaders);
    }
    if size(&parts.headers) + path_length(&parts.uri) > header_size {
        return Err(Reason::HeadersTooLarge);
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().to_owned());
    let host = host(&mut parts.headers, authority)?;
    let path = parts.uri.path_and_query().ok_or(Reason::BadTarget)?.as_str();
    if path == "*" && parts.method != Method::OPTIONS {
        return Err(Reason::BadTarget);
    }
    Ok((Target::parse(Bytes::copy_from_slice(path.as_bytes()))?, host))
}

/// Bytes as they would stand in an HTTP/1.1 head, so that one limit means one thing.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

fn path_length(uri: &http::Uri) -> usize {
    uri.path_and_query().map_or(0, |path| path.as_str().len())
}

/// `:authority`, which wins and becomes Host; a Host beside it must say the same (RFC 9113, 8.3.1).
fn host(headers: &mut HeaderMap, authority: Option<String>) -> Result<Host, Reason> {
    let mut lines = headers.get_all(header::HOST).iter();
    let field = lines.next().map(|value| Bytes::copy_from_slice(value.as_bytes()));
    if lines.next().is_some() {
        return Err(Reason::BadHost);
    }
    match (authority, field) {
        (None, None) => Err(Reason::MissingHost),
        (Some(authority), Some(field)) if !field.eq_ignore_ascii_case(authority.as_bytes()) => Err(Reason::BadHost),
        (_, Some(field)) => Host::parse(field),
        (Some(authority), None) => {
            let host = Host::parse(Bytes::from(authority.into_bytes()))?;
            headers.insert(header::HOST, HeaderValue::from_str(host.as_str()).map_err(|_| Reason::BadHost)?);
            Ok(host)
        }
    }
}

fn request_body(body: Incoming) -> Body {
    if hyper::body::Body::is_end_stream(&body) {
        return Body::Empty;
    }
    let left = hyper::body::Body::size_hint(&body).exact();
    Body::Stream(Box::new(RequestBody { body, left, deadline: Deadline::new() }))
}

/// A request body on its stream. Its length, where one was said, is held to by `h2`.
struct RequestBody {
    body: Incoming,
    left: Option<u64>,
    deadline: Deadline,
}

impl Source for RequestBody {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        use hyper::body::Body as _;
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                if !self.deadline.is_armed() {
                    self.deadline.arm(super::STALL);
                }
                return self.deadline.poll(cx).map(|()| Some(Err(Error::new(Reason::BodyTimeout))));
            };
            self.deadline.disarm();
            return Poll::Ready(match frame {
                // hyper takes a reset without an error for an end.
                None if !self.body.is_end_stream() => Some(Err(Error::new(Reason::ClientGone))),
                None => None,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                        Some(Ok(data))
                    }
                    // Trailers end here.
                    Err(_) => continue,
                },
                Some(Err(error)) => Some(Err(Error::new(refusal(&error)).detail(error.to_string()))),
            });
        }
    }

    fn remaining(&self) -> Option<u64> {
        self.left
    }
}

/// Why a body has no end: the client has gone, unless `h2` itself has broken it off.
fn refusal(error: &hyper::Error) -> Reason {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    match cause {
        Some(cause) if !cause.is_remote() && cause.reason() == Some(h2::Reason::PROTOCOL_ERROR) => {
            Reason::BodyLengthMismatch
        }
        _ => Reason::ClientGone,
    }
}

/// A response as hyper takes it.
pub(super) fn response(
    response: Response,
    exchange: &Exchange,
    guard: ExchangeGuard,
    stream: StreamGuard,
) -> http::Response<ResponseBody> {
    // The client is gone already, in the phase that stands there: nobody gets this answer.
    if exchange.reason.get() == Some(Reason::ClientGone) {
        exchange.finish(Finish::ClientGone);
    }
    exchange.phase.set(Phase::Responding);
    exchange.answered.set(Some(Instant::now()));
    let (mut parts, mut body) = response.into_parts();
    remove_fields(&mut parts.headers);
    let is_bodiless = exchange.method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED;
    if is_bodiless {
        // An answer of our own to HEAD says how long its body would be; an app's says it itself.
        if let Some(length @ 1..) = body.remaining().filter(|_| exchange.method == Method::HEAD) {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        body = Body::Empty;
    } else {
        parts.headers.remove(header::CONTENT_LENGTH);
        if let Some(length) = body.remaining().filter(|_| parts.status != StatusCode::NO_CONTENT) {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
    }
    http::Response::from_parts(parts, ResponseBody { body, done: false, sent: 0, guard, stream })
}

/// What belongs to the worker's connection, or to the edge alone. hyper would panic or warn at some of it.
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

/// A response body on its stream. Finishes the exchange when it is dropped: at its end, or when the stream is reset.
pub(super) struct ResponseBody {
    body: Body,
    done: bool,
    sent: u64,
    guard: ExchangeGuard,
    stream: StreamGuard,
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = self.body.poll_data(cx);
        // With data in its hands, hyper polls again only when the client takes it.
        let has_data = matches!(polled, Poll::Ready(Some(Ok(_))));
        self.stream.gave_data.set(has_data.then(Instant::now));
        match ready!(polled) {
            None => {
                self.done = true;
                Poll::Ready(None)
            }
            Some(Ok(data)) => {
                self.sent += data.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => {
                self.guard.0.fail(error.reason);
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.remaining() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let exchange = &self.guard.0;
        exchange.bytes_out.set(self.sent);
        // The guard itself says the rest: dropped before the end, the client has reset its stream.
        if self.done || self.body.remaining() == Some(0) {
            exchange.finish(Finish::Complete);
        } else if exchange.reason.get().is_some() {
            exchange.finish(Finish::Cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(String, String), Reason> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let (target, host) = read_head(&mut parts, 3, 32 << 10)?;
        assert_eq!(parts.headers.get_all(header::HOST).iter().count(), 1);
        Ok((target.as_str().to_owned(), host.as_str().to_owned()))
    }

    #[test]
    fn a_head_has_one_host_and_one_path() {
        let plain = Ok(("/a?b".to_owned(), "shop.example".to_owned()));
        assert_eq!(read("GET", "https://shop.example/a?b", &[]), plain);
        assert_eq!(read("GET", "https://shop.example/a?b", &[("host", "shop.example")]), plain);
        assert_eq!(read("GET", "/a?b", &[("host", "shop.example")]), plain);
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
        ] {
            assert_eq!(read(method, uri, fields), Err(reason), "{method} {uri} {fields:?}");
        }
    }
}
