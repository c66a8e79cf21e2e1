//! Heads as clients, workers and attackers may send them.

use proptest::prelude::*;

/// Names that decide about framing and routing: most values under them are refused.
const DECISIVE: &[&str] = &["Content-Length", "Transfer-Encoding", "Host", "Expect"];

/// Names that belong to one connection, or that the app believes.
const NAMES: &[&str] = &[
    "Connection",
    "Cookie",
    "TE",
    "Trailer",
    "Upgrade",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authorization",
    "HTTP2-Settings",
    "X-Forwarded-For",
    "x-forwarded-proto",
    "X-Forwarded-Host",
    "X_Forwarded_For",
    "Forwarded",
    "X-Real-IP",
    "X-Request-ID",
    "X-Request-Start",
    "X-Accel-Redirect",
    "X-Sendfile",
    "Grip-Sig",
    "Remote-User",
    "Client-Cert",
    "X-Client-Cert-Subject",
    "Script-Name",
    "Script_Name",
    "Path-Info",
    "Proxy",
    "Accept",
    "X-CSRFToken",
    "Authorization",
    "Content-Type",
];

/// Values that mean something under one of the names.
const VALUES: &[&str] = &[
    "",
    "0",
    "5",
    "5, 5",
    "+5",
    "18446744073709551616",
    "chunked",
    "Chunked",
    "gzip, chunked",
    "identity",
    "close",
    "keep-alive, X-CSRFToken",
    "host, content-length, accept",
    "100-continue",
    "websocket",
    "shop.example",
    "[::1]:80",
    "a=b; c=d",
    "https",
    "10.0.0.1",
];

/// Lines that contradict each other.
const FRAMINGS: &[&[u8]] = &[
    b"Content-Length: 5\r\n",
    b"Content-Length: 6\r\n",
    b"content-length:0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding:chunked \r\n",
    b"Transfer-Encoding: identity\r\n",
];

const TARGETS: &[&str] = &[
    "/",
    "*",
    "/a/b?c=d",
    "/a%2Fb",
    "/a/../b",
    "/%2e%2e/",
    "//a//",
    "/a;b=c",
    "/caf%C3%A9",
    "/%zz",
    "/a?b#c",
    "/<a>",
    "/a`b",
    "/a?b=\"c\"",
    "/\"{a}\"?`b`",
    "/\\",
    "http://shop.example/a",
    "https://shop.example?q",
    "http://other.example/",
    "http://user@shop.example/",
    "shop.example:443",
];

/// What turns one message into two, or one reading into another.
const DAMAGE: &[&[u8]] = &[
    b"",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b":",
    b" :",
    b",",
    b"\r\n ",
    b"\r\n\r\n",
    b"\r\n\r\r\n",
    b"\n\n",
    b"HTTP/1.1",
    b"Host: b\r\n",
    b"Content-Length: 7\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"%2e",
    b"..",
    b"GET / HTTP/1.1\r\n",
];

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => prop::sample::select(DECISIVE).prop_map(String::from),
        16 => prop::sample::select(NAMES).prop_map(String::from),
        4 => "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}",
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![6 => 0x20..0x7F_u8, 1 => Just(b'\t'), 1 => 0x80..=0xFF_u8];
    prop_oneof![
        3 => prop::sample::select(VALUES).prop_map(|value| value.as_bytes().to_vec()),
        1 => prop::collection::vec(byte, 0..30),
    ]
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    let before = prop::sample::select(&[" ", "", "\t ", "  "][..]);
    let after = prop::sample::select(&["", " ", "\t"][..]);
    let any = (name(), before, value(), after).prop_map(|(name, before, value, after)| {
        [name.as_bytes(), b":", before.as_bytes(), &value, after.as_bytes(), b"\r\n"].concat()
    });
    prop_oneof![10 => any, 1 => prop::sample::select(FRAMINGS).prop_map(<[u8]>::to_vec)]
}

fn fields() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(field(), 0..7).prop_map(|fields| fields.concat())
}

/// A head that follows the grammar; what it says may still be refused.
pub(crate) fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![
        12 => prop::sample::select(&["GET", "POST", "PUT", "HEAD", "OPTIONS", "M-SEARCH"][..]),
        1 => prop::sample::select(&["CONNECT", "TRACE", "get"][..]),
    ];
    let target = prop_oneof![
        1 => prop::sample::select(TARGETS).prop_map(String::from),
        4 => "/[a-z0-9/._~!$&'()*+,;=:@-]{0,20}(\\?[!-~&&[^#\"<>]]{0,10})?",
    ];
    let version = prop_oneof![5 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0")];
    let host =
        prop_oneof![8 => Just("Host: shop.example\r\n"), 1 => Just("host:\tSHOP.example:8443 \r\n"), 1 => Just("")];
    (method, target, version, fields(), host, fields()).prop_map(|(method, target, version, before, host, after)| {
        [format!("{method} {target} {version}\r\n").as_bytes(), &before, host.as_bytes(), &after, b"\r\n"].concat()
    })
}

/// The same from a worker.
pub(crate) fn response() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        prop::sample::select(&["HTTP/1.1 200 OK", "HTTP/1.0 404 Not Found", "HTTP/1.1 204", "HTTP/1.1 103 "][..])
            .prop_map(String::from),
        "HTTP/1\\.[01] [0-9]{3}( [ -~]{0,12})?",
    ];
    (line, fields()).prop_map(|(line, fields)| [line.as_bytes(), b"\r\n", &fields, b"\r\n"].concat())
}

/// The same in CGI's form: no status line.
pub(crate) fn cgi_response() -> impl Strategy<Value = Vec<u8>> {
    let status = prop_oneof![
        2 => prop::sample::select(&["", "Status: 404 Not Found\r\n", "status:200\r\n", "Location: /a\r\n"][..])
            .prop_map(String::from),
        1 => "Status:[ ]?[0-9]{2,4}( [ -~]{0,12})?\r\n",
    ];
    (fields(), status, fields())
        .prop_map(|(before, status, after)| [&before, status.as_bytes(), &after, b"\r\n"].concat())
}

/// The message with a few places cut out or replaced.
pub(crate) fn damaged(message: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<prop::sample::Index>(), 0..4_usize, prop::sample::select(DAMAGE));
    (message, prop::collection::vec(damage, 1..4)).prop_map(|(mut bytes, damages)| {
        for (at, length, piece) in damages {
            let at = at.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, piece.iter().copied());
        }
        bytes
    })
}

/// Noise in which line ends are frequent.
pub(crate) fn noise() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![2 => Just(b'\r'), 3 => Just(b'\n'), 1 => Just(b':'), 1 => Just(b' '), 4 => any::<u8>()];
    prop::collection::vec(byte, 0..80)
}
