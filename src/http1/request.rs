//! Reading a request head (RFC 9112, 3): bytes in, one unambiguous [`RequestHead`] or a reason out.

use bytes::{BufMut, Bytes, BytesMut};
use http::Method;
use http::header::{self, HeaderMap, HeaderValue};

use super::head::{self, Fields, Framing, HeadLimits, Seen};
use crate::error::Reason;
use crate::http::{Host, Protocol, Target, Upgrade, fields};

/// A request head whose framing, host and target are settled.
#[derive(Debug)]
pub struct RequestHead {
    /// Never CONNECT or TRACE.
    pub method: Method,
    /// Path and query.
    pub target: Target,
    /// HTTP/1.0 or HTTP/1.1.
    pub protocol: Protocol,
    /// As received; the one Host included.
    pub headers: HeaderMap,
    /// `None` only in HTTP/1.0.
    pub host: Option<Host>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the client lets the connection live on.
    pub keep_alive: bool,
    /// Whether the client waits for a 100 before it sends its body.
    pub expects_continue: bool,
    /// What it asks for beyond HTTP.
    pub upgrade: Option<Upgrade>,
}

/// A refused head, with what could be read of it for the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule it breaks.
    pub reason: Reason,
    /// The method, when the request line had one.
    pub method: Option<Method>,
    /// The target as it stood there; empty when the request line had none.
    pub target: Bytes,
}

/// Reads a complete head: `bytes` ends with the empty line.
///
/// # Errors
/// The first rule that it breaks.
pub fn parse(bytes: &Bytes, limits: &HeadLimits) -> Result<RequestHead, Refusal> {
    let unread = |reason| Refusal { reason, method: None, target: Bytes::new() };
    let (line, fields_at) = head::first_line(bytes, Reason::BadRequestLine).map_err(unread)?;
    let (method, target, protocol) = request_line(line).map_err(unread)?;
    let target = bytes.slice(target);
    let known = method.clone();
    settle(method, &target, protocol, bytes, fields_at, limits).map_err(|reason| Refusal {
        reason,
        method: Some(known),
        target,
    })
}

fn settle(
    method: Method,
    target: &Bytes,
    protocol: Protocol,
    bytes: &Bytes,
    fields_at: usize,
    limits: &HeadLimits,
) -> Result<RequestHead, Reason> {
    if matches!(method, Method::CONNECT | Method::TRACE) {
        return Err(Reason::BadMethod);
    }
    let Fields { map: mut headers, seen } = head::fields(bytes, fields_at, limits.count)?;
    let (target, authority) = split_target(target, &method)?;
    let host = host(bytes, &headers, authority, protocol)?;
    // Servers take the first, the last, or join them: three ways to read a multipart body.
    if seen.repeats_content_type {
        return Err(Reason::BadHeaderValue);
    }
    // The target's authority wins over Host; they are equal but for case (RFC 9112, 3.2.2).
    if let (false, Some(host)) = (seen.host, &host) {
        headers.insert(header::HOST, HeaderValue::from_str(host.as_str()).map_err(|_| Reason::BadHost)?);
    }
    let framing = framing(&headers, seen, protocol)?;
    let upgrade = match seen.upgrade {
        true => {
            let has_body = !matches!(framing, Framing::None | Framing::Length(0));
            Upgrade::of_http1(&method, protocol, &headers, has_body)
        }
        false => None,
    };
    Ok(RequestHead {
        framing,
        upgrade,
        keep_alive: keep_alive(&headers, seen, protocol)?,
        // Ignored from HTTP/1.0 (RFC 9110, 10.1.1).
        expects_continue: protocol != Protocol::Http10 && seen.expect && fields::expects_continue(&headers)?,
        method,
        target,
        protocol,
        headers,
        host,
    })
}

/// `method SP target SP HTTP/1.x`, with single spaces.
fn request_line(line: &[u8]) -> Result<(Method, std::ops::Range<usize>, Protocol), Reason> {
    let first = memchr::memchr(b' ', line).ok_or(Reason::BadRequestLine)?;
    let last = memchr::memrchr(b' ', line).ok_or(Reason::BadRequestLine)?;
    let method = &line[..first];
    if !is_method(method) {
        return Err(Reason::BadRequestLine);
    }
    let target = first + 1..last;
    if first == last || target.is_empty() || line[target.clone()].contains(&b' ') {
        return Err(Reason::BadRequestLine);
    }
    let protocol = match &line[last + 1..] {
        b"HTTP/1.1" => Protocol::Http11,
        b"HTTP/1.0" => Protocol::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Reason::UnsupportedVersion);
        }
        _ => return Err(Reason::BadRequestLine),
    };
    let method = Method::from_bytes(method).map_err(|_| Reason::BadRequestLine)?;
    Ok((method, target, protocol))
}

/// A token of bounded length. gunicorn refuses lower case as well; no registered method has any.
pub(crate) fn is_method(method: &[u8]) -> bool {
    (1..=32).contains(&method.len()) && method.iter().all(|b| head::is_tchar(*b) && !b.is_ascii_lowercase())
}

/// Origin-form, absolute-form, or `*` for OPTIONS: the target that is sent on, and the authority of absolute-form.
fn split_target(target: &Bytes, method: &Method) -> Result<(Target, Option<Bytes>), Reason> {
    if target[0] == b'/' {
        return Ok((Target::parse(target.clone())?, None));
    }
    if target[..] == *b"*" {
        return if *method == Method::OPTIONS {
            Ok((Target::parse(target.clone())?, None))
        } else {
            Err(Reason::BadTarget)
        };
    }
    let scheme_end = [&b"http://"[..], b"https://"]
        .iter()
        .find(|scheme| target.len() >= scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme))
        .ok_or(Reason::BadTarget)?
        .len();
    let rest = target.slice(scheme_end..);
    let end = memchr::memchr2(b'/', b'?', &rest).unwrap_or(rest.len());
    let (authority, path) = (rest.slice(..end), rest.slice(end..));
    if path.first() == Some(&b'/') {
        return Ok((Target::parse(path)?, Some(authority)));
    }
    let mut rooted = BytesMut::with_capacity(path.len() + 1);
    rooted.put_u8(b'/');
    rooted.extend_from_slice(&path);
    Ok((Target::parse(rooted.freeze())?, Some(authority)))
}

/// Exactly one Host in HTTP/1.1, at most one in HTTP/1.0, equal to the authority of an absolute-form target.
fn host(
    bytes: &Bytes,
    headers: &HeaderMap,
    authority: Option<Bytes>,
    protocol: Protocol,
) -> Result<Option<Host>, Reason> {
    let mut lines = headers.get_all(header::HOST).iter();
    let field = lines.next();
    if lines.next().is_some() {
        return Err(Reason::BadHost);
    }
    match (field, authority) {
        (None, None) if protocol == Protocol::Http10 => Ok(None),
        (None, _) if protocol != Protocol::Http10 => Err(Reason::MissingHost),
        (Some(field), Some(authority)) if !field.as_bytes().eq_ignore_ascii_case(&authority) => Err(Reason::BadHost),
        (Some(field), _) => Host::parse(head::share(bytes, field.as_bytes())).map(Some),
        (None, Some(authority)) => Host::parse(authority).map(Some),
        (None, None) => Ok(None),
    }
}

/// RFC 9112, 6.3, without its mercy: both framings together are refused, and so is chunked in HTTP/1.0.
fn framing(headers: &HeaderMap, seen: Seen, protocol: Protocol) -> Result<Framing, Reason> {
    let length = if seen.content_length { head::content_length(headers)? } else { None };
    if !seen.transfer_encoding {
        return Ok(length.map_or(Framing::None, Framing::Length));
    }
    if length.is_some() {
        return Err(Reason::LengthConflict);
    }
    if !head::is_chunked(headers)? || protocol == Protocol::Http10 {
        return Err(Reason::BadTransferEncoding);
    }
    Ok(Framing::Chunked)
}

/// How many fields `Connection` may name: each is looked for among all that there are.
const MAX_NAMED: usize = 32;

/// Whether the client lets the connection live on. It may not name away what others go by: who obeys such a `Connection`
/// and who does not would see two requests in one.
fn keep_alive(headers: &HeaderMap, seen: Seen, protocol: Protocol) -> Result<bool, Reason> {
    let (mut closes, mut stays, mut named) = (false, protocol == Protocol::Http11, 0);
    if !seen.connection {
        return Ok(stays);
    }
    for token in fields::tokens(headers, &header::CONNECTION) {
        if token.eq_ignore_ascii_case("close") {
            closes = true;
        } else if token.eq_ignore_ascii_case("keep-alive") {
            stays = true;
        } else {
            named += 1;
            if named > MAX_NAMED || fields::is_for_every_recipient(token) {
                return Err(Reason::ConnectionConflict);
            }
        }
    }
    Ok(stays && !closes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 32 << 10, count: 100 };

    fn read(text: &str) -> Result<RequestHead, Reason> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), &LIMITS).map_err(|refusal| refusal.reason)
    }

    fn reason(text: &str) -> Option<Reason> {
        read(text).err()
    }

    #[test]
    fn a_plain_request_is_read() {
        let head =
            read("POST /a?b=c HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\nX-A:\t b \r\n\r\n").unwrap();
        assert_eq!((head.method, head.target.as_str()), (Method::POST, "/a?b=c"));
        assert_eq!(head.host.unwrap().name(), "shop.example");
        assert_eq!((head.framing, head.keep_alive), (Framing::Length(3), true));
        assert_eq!(head.headers["x-a"], "b");
    }

    #[test]
    fn absolute_form_becomes_origin_form() {
        for (target, sent) in [("http://a", "/"), ("HTTP://a/b?c", "/b?c"), ("https://a?c", "/?c")] {
            let head = read(&format!("GET {target} HTTP/1.1\r\nHost: A\r\n\r\n")).unwrap();
            assert_eq!(head.target.as_str(), sent);
        }
        assert_eq!(reason("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Reason::BadHost));
        assert_eq!(reason("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Reason::BadTarget));
    }

    #[test]
    fn malformed_heads_have_their_reason() {
        use Reason::*;
        for (text, expected) in [
            ("GET / HTTP/1.1\nHost: a\n\n", BareLf),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", BareLf),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequestLine),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BadRequestLine),
            ("GET /\r\nHost: a\r\n\r\n", BadRequestLine),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequestLine),
            (" / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequestLine),
            ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", BadRequestLine),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", UnsupportedVersion),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", UnsupportedVersion),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
            ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
            ("GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", ObsFold),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", ObsFold),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", BadHeaderName),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", BadHeaderName),
            ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", BadHeaderName),
            ("GET / HTTP/1.1\r\nHost: a\r\nX(: 1\r\n\r\n", BadHeaderName),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", BadHeaderValue),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", BadHeaderValue),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", BadHeaderValue),
            ("GET / HTTP/1.1\r\n\r\n", MissingHost),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BadHost),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BadHost),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", BadHost),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BadHost),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", LengthConflict),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BadTransferEncoding),
            ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BadTransferEncoding),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", BadContentLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", ExpectationFailed),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect:\r\nExpect: 200-ok\r\n\r\n", ExpectationFailed),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Type: a/b\r\n\r\n", BadHeaderValue),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Forwarded-For\r\n\r\n", ConnectionConflict),
        ] {
            assert_eq!(reason(text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn an_empty_list_expects_nothing() {
        for (fields, expects) in
            [("Expect:\r\n", false), ("Expect: , ,\r\n", false), ("Expect:\r\nExpect: 100-continue\r\n", true)]
        {
            let head = read(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).unwrap();
            assert_eq!(head.expects_continue, expects, "{fields:?}");
        }
    }

    #[test]
    fn more_fields_than_allowed_are_refused() {
        let with = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: 1\r\n".repeat(count - 1));
        assert_eq!(reason(&with(100)), None);
        assert_eq!(reason(&with(101)), Some(Reason::TooManyHeaders));
    }

    #[test]
    fn http_1_0_closes_unless_it_asks_not_to() {
        assert!(!read("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
        assert!(read("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap().keep_alive);
        assert!(!read("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").unwrap().keep_alive);
    }
}
