//! Leaving HTTP: what of a request asks for it, and the answer that takes its connection over.
//!
//! The edge reads a WebSocket's opening handshake (RFC 6455, 4.2.1; over HTTP/2 RFC 8441) into an [`Upgrade`] and leaves it in
//! the [`Exchange`]. A layer that takes it answers with 101 and a [`Body::Takeover`](super::Body::Takeover): the connection
//! writes the head (over HTTP/2 as 200), and then is the [`Takeover`]'s until that ends. Only then is the exchange finished.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Body, Exchange, Protocol, Response, fields};
use crate::error::{Error, Reason};

/// What [`accept_for`] puts behind a key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes of a key: 16 bytes in base64.
pub const KEY_LENGTH: usize = 24;

/// What a request asks for beyond HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// A WebSocket, in the right words.
    WebSocket(Handshake),
    /// A WebSocket in words that cannot be answered with one. Where WebSockets are taken it is refused with this reason; what
    /// is wrong stands beside it, for the log.
    Malformed(Reason, &'static str),
}

/// The opening handshake of a WebSocket that keeps to its rules. Its further fields (`Origin`, `Sec-WebSocket-Protocol`,
/// `Sec-WebSocket-Extensions`) are among the request's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// The client's `Sec-WebSocket-Key`; `None` over HTTP/2, which has none.
    pub key: Option<[u8; KEY_LENGTH]>,
}

impl Upgrade {
    /// What a request over HTTP/1.x that has an `Upgrade` field asks for. `None`: no WebSocket; in HTTP/1.0 the field means
    /// nothing (RFC 9110, 7.8). `has_body`: its framing announces one.
    #[must_use]
    pub fn of_http1(method: &Method, protocol: Protocol, headers: &HeaderMap, has_body: bool) -> Option<Self> {
        if protocol == Protocol::Http10 || !fields::has_token(headers, &header::UPGRADE, "websocket") {
            return None;
        }
        let fault = match () {
            () if *method != Method::GET => Some("the method is not GET"),
            () if has_body => Some("it has a body"),
            () if !fields::has_token(headers, &header::CONNECTION, "upgrade") => {
                Some("Connection does not name the upgrade")
            }
            () => None,
        };
        Some(match (fault, one(headers, &header::SEC_WEBSOCKET_KEY).and_then(key)) {
            (Some(what), _) => Self::Malformed(Reason::WebsocketMalformed, what),
            // First: another version may have another key.
            (None, _) if !is_version_13(headers) => Self::OTHER_VERSION,
            (None, None) => {
                Self::Malformed(Reason::WebsocketMalformed, "Sec-WebSocket-Key is not 16 bytes in base64, once")
            }
            (None, key) => Self::WebSocket(Handshake { key }),
        })
    }

    /// What an extended CONNECT with `:protocol = websocket` asks for. `is_over`: the client has closed its side with it.
    #[must_use]
    pub fn of_http2(headers: &HeaderMap, is_over: bool) -> Self {
        if is_over || headers.contains_key(header::CONTENT_LENGTH) {
            return Self::Malformed(Reason::WebsocketMalformed, "it has ended, or has a length");
        }
        if is_version_13(headers) { Self::WebSocket(Handshake { key: None }) } else { Self::OTHER_VERSION }
    }

    const OTHER_VERSION: Self = Self::Malformed(Reason::WebsocketVersion, "Sec-WebSocket-Version is not 13");
}

impl Handshake {
    /// The answer that takes a WebSocket and hands its connection over. Fields such as `Sec-WebSocket-Protocol` may be added.
    #[must_use]
    pub fn answer(&self, takeover: Box<dyn Takeover>) -> Response {
        let mut response = Response::new(Body::Takeover(takeover));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        if let Some(key) = &self.key {
            response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept_for(key));
        }
        response
    }
}

/// The `Sec-WebSocket-Accept` that belongs to a `Sec-WebSocket-Key` (RFC 6455, 4.2.2).
#[must_use]
pub fn accept_for(key: &[u8]) -> HeaderValue {
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    // Base64 has nothing in it that a value may not have.
    HeaderValue::try_from(STANDARD.encode(sum)).unwrap_or(HeaderValue::from_static(""))
}

fn is_version_13(headers: &HeaderMap) -> bool {
    one(headers, &header::SEC_WEBSOCKET_VERSION).is_some_and(|value| value.as_bytes() == b"13")
}

/// The value of a field that stands there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    headers.get(name).filter(|_| !fields::is_repeated(headers, name))
}

/// A key, where it is 16 bytes in base64.
fn key(value: &HeaderValue) -> Option<[u8; KEY_LENGTH]> {
    let bytes: [u8; KEY_LENGTH] = value.as_bytes().try_into().ok()?;
    let (digits, end) = bytes.split_at(KEY_LENGTH - 2);
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    (end == b"==" && digits.iter().all(is_digit)).then_some(bytes)
}

/// What a connection is used for once it has left HTTP.
pub trait Takeover {
    /// Uses `io` until nothing is left to be said. Driven by the connection's own task; `exchange` is finished behind it, with
    /// the reason of the error, if there is one. [`Exchange::bytes_in`] and [`Exchange::bytes_out`] are counted by `io`.
    ///
    /// Whoever is to hear that the edge is stopping waits for [`Draining`](crate::runtime::drain::Draining) beside it. A reload
    /// ends nothing.
    fn run(self: Box<Self>, io: ClientIo, exchange: Rc<Exchange>) -> Running;
}

/// What [`Takeover::run`] returns.
pub type Running = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// The client's bytes, both ways: over HTTP/1.1 the connection's own, with those first that came behind the head; over HTTP/2
/// what the DATA frames of one stream carry, at the pace of its windows.
///
/// `shutdown` says that nothing more will come, and leaves the other direction open (FIN, END_STREAM). Dropped without that
/// it breaks the connection or the stream off (RST, CANCEL), so that nobody takes what has been sent for the whole.
pub type ClientIo = Box<dyn ClientStream>;

/// See [`ClientIo`].
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// To be called by whoever has no use for more bytes at the moment: takes in what has come, so that it is no more than
    /// bytes. Over HTTP/2 each small frame that waits would cost hundreds of them. Reading brings it later; no more comes than
    /// the client's window lets it send. Ready when the client has closed its side behind that.
    ///
    /// # Errors
    /// The client has broken off.
    fn poll_gather(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    /// Whether the client has closed its side, or broken off, behind what has come. For whoever has no use for more bytes, and
    /// looks now and then. False where [`Self::poll_gather`] tells.
    fn is_left(&self) -> bool {
        false
    }
}

impl ClientStream for ClientIo {
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_gather(cx)
    }

    fn is_left(&self) -> bool {
        (**self).is_left()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    /// The sample of RFC 6455, 1.2, with these lines instead of its own by the same names.
    fn sample(instead: &[(&'static str, Option<&str>)]) -> HeaderMap {
        let mut all = headers(&[
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-version", "13"),
        ]);
        for (name, value) in instead {
            all.remove(*name);
            if let Some(value) = value {
                all.append(*name, value.parse().unwrap());
            }
        }
        all
    }

    fn read(headers: &HeaderMap) -> Option<Upgrade> {
        Upgrade::of_http1(&Method::GET, Protocol::Http11, headers, false)
    }

    fn reason(upgrade: Option<Upgrade>) -> Option<Reason> {
        match upgrade {
            Some(Upgrade::Malformed(reason, _)) => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn the_sample_of_the_rfc_is_a_handshake() {
        assert_eq!(accept_for(KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let expected = Handshake { key: Some(KEY.as_bytes().try_into().unwrap()) };
        for lines in [
            sample(&[]),
            sample(&[("connection", Some("keep-alive, UPGRADE")), ("upgrade", Some("h2c, WebSocket"))]),
            sample(&[("sec-websocket-protocol", Some("chat, v2"))]),
        ] {
            assert_eq!(read(&lines), Some(Upgrade::WebSocket(expected)), "{lines:?}");
        }
    }

    #[test]
    fn what_breaks_the_rules_has_its_reason() {
        use Reason::{WebsocketMalformed as Malformed, WebsocketVersion as Version};
        for (instead, expected) in [
            (&[("sec-websocket-key", None)][..], Malformed),
            (&[("sec-websocket-key", Some(""))], Malformed),
            (&[("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ"))], Malformed),
            (&[("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ===="))], Malformed),
            (&[("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZ*=="))], Malformed),
            (&[("connection", None)], Malformed),
            (&[("connection", Some("keep-alive"))], Malformed),
            (&[("sec-websocket-version", None)], Version),
            (&[("sec-websocket-version", Some("8"))], Version),
            (&[("sec-websocket-version", Some("13, 8"))], Version),
            (&[("sec-websocket-version", Some("8")), ("sec-websocket-key", None)], Version),
        ] {
            assert_eq!(reason(read(&sample(instead))), Some(expected), "{instead:?}");
        }
        let twice = |name: &'static str, value: &str| {
            let mut lines = sample(&[]);
            lines.append(name, value.parse().unwrap());
            lines
        };
        assert_eq!(reason(read(&twice("sec-websocket-key", KEY))), Some(Malformed));
        assert_eq!(reason(read(&twice("sec-websocket-version", "13"))), Some(Version));
        let plain = sample(&[]);
        for (method, protocol, has_body) in
            [(Method::POST, Protocol::Http11, false), (Method::GET, Protocol::Http11, true)]
        {
            assert_eq!(reason(Upgrade::of_http1(&method, protocol, &plain, has_body)), Some(Malformed));
        }
        assert_eq!(Upgrade::of_http1(&Method::GET, Protocol::Http10, &plain, false), None);
    }

    #[test]
    fn another_protocol_is_no_websocket() {
        assert_eq!(read(&sample(&[("upgrade", Some("h2c"))])), None);
        assert_eq!(read(&sample(&[("upgrade", Some("websockets"))])), None);
    }

    #[test]
    fn over_http_2_there_is_no_key() {
        let version = headers(&[("sec-websocket-version", "13")]);
        assert_eq!(Upgrade::of_http2(&version, false), Upgrade::WebSocket(Handshake { key: None }));
        assert_eq!(reason(Some(Upgrade::of_http2(&version, true))), Some(Reason::WebsocketMalformed));
        assert_eq!(reason(Some(Upgrade::of_http2(&HeaderMap::new(), false))), Some(Reason::WebsocketVersion));
        let length = headers(&[("sec-websocket-version", "13"), ("content-length", "0")]);
        assert_eq!(reason(Some(Upgrade::of_http2(&length, false))), Some(Reason::WebsocketMalformed));
    }

    proptest! {
        #[test]
        fn a_key_is_what_stands_for_16_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = STANDARD.encode(&bytes);
            let value = HeaderValue::try_from(&text).unwrap();
            prop_assert_eq!(key(&value).is_some(), bytes.len() == 16, "{}", text);
        }

        #[test]
        fn one_byte_that_is_no_digit_makes_it_none(bytes in any::<[u8; 16]>(), at in 0..KEY_LENGTH, byte in 0x20..0x7f_u8) {
            let mut text = STANDARD.encode(bytes).into_bytes();
            text[at] = byte;
            let is_digit = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
            let is_key = if at < KEY_LENGTH - 2 { is_digit } else { byte == b'=' };
            prop_assert_eq!(key(&HeaderValue::from_bytes(&text).unwrap()).is_some(), is_key);
        }
    }
}
