//! A client of WebSockets (RFC 6455), frame by frame, over HTTP/1.1 (plain or TLS) and HTTP/2; and what a scripted worker needs
//! to speak them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::client::End;
use super::h2::{H2, Tunnel};
use super::{Client, Response, Visit};

/// Opcodes.
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A key, and what belongs to it (RFC 6455, 1.2).
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    /// The reserved bits: 4 is RSV1, of what is compressed.
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A whole message, or a control frame.
    pub(crate) fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self { fin: true, rsv: 0, opcode, payload: payload.as_ref().to_vec() }
    }

    /// A part of a message.
    pub(crate) fn part(opcode: u8, fin: bool, payload: impl AsRef<[u8]>) -> Self {
        Self { fin, ..Self::new(opcode, payload) }
    }

    /// A close frame.
    pub(crate) fn close(code: u16) -> Self {
        Self::new(CLOSE, code.to_be_bytes())
    }

    /// The code of a close frame.
    pub(crate) fn code(&self) -> Option<u16> {
        Some(u16::from_be_bytes(self.payload.get(..2)?.try_into().unwrap())).filter(|_| self.opcode == CLOSE)
    }

    /// As a client sends it.
    pub(crate) fn masked(&self) -> Vec<u8> {
        let mut bytes = self.header(0x80);
        bytes.extend(MASK);
        bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// As a server sends it.
    pub(crate) fn plain(&self) -> Vec<u8> {
        let mut bytes = self.header(0);
        bytes.extend(&self.payload);
        bytes
    }

    fn header(&self, mask: u8) -> Vec<u8> {
        let mut bytes = vec![if self.fin { 0x80 } else { 0 } | self.rsv << 4 | self.opcode];
        match self.payload.len() {
            length @ 0..126 => bytes.push(mask | u8::try_from(length).unwrap()),
            length @ 126..0x1_0000 => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes
    }

    /// Reads one; `take` brings exactly so many bytes. `None`: they end before its first.
    pub(crate) fn read(mut take: impl FnMut(usize) -> Option<Vec<u8>>) -> Option<Self> {
        let start = take(2)?;
        let mut number = |bytes: usize| {
            let bytes = take(bytes).expect("a whole frame");
            usize::try_from(bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))).unwrap()
        };
        let length = match start[1] & 0x7f {
            126 => number(2),
            127 => number(8),
            length => length.into(),
        };
        let mask = (start[1] & 0x80 != 0).then(|| take(4).expect("a mask"));
        let mut payload = take(length).expect("a whole frame");
        if let Some(mask) = mask {
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        Some(Self { fin: start[0] & 0x80 != 0, rsv: start[0] >> 4 & 7, opcode: start[0] & 0x0f, payload })
    }
}

/// A client's end of a WebSocket.
pub(crate) struct WebSocket {
    wire: Wire,
    /// Of the answer that has opened it.
    headers: Vec<(String, String)>,
}

enum Wire {
    Http1(Box<Client>),
    Http2 { tunnel: Tunnel, unread: Vec<u8> },
}

impl WebSocket {
    /// Opens one over HTTP/1.1, with these fields beside those that every handshake has.
    pub(crate) fn open(client: Client, path: &str, fields: &[(&str, &str)]) -> Self {
        Self::try_open(client, path, fields).unwrap_or_else(|response| panic!("{response:?}"))
    }

    /// The same, or the response that there was instead.
    pub(crate) fn try_open(mut client: Client, path: &str, fields: &[(&str, &str)]) -> Result<Self, Response> {
        client.send(handshake(path, fields));
        Self::opened(client)
    }

    /// What comes of a handshake that was sent.
    pub(crate) fn opened(mut client: Client) -> Result<Self, Response> {
        let peeked = client.peek(12).to_vec();
        if !peeked.starts_with(b"HTTP/1.1 101") {
            return Err(client.response("GET"));
        }
        let (_, headers) = client.head().expect("a head");
        let all = |name: &str| -> Vec<&str> {
            headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(all("sec-websocket-accept"), [ACCEPT]);
        assert_eq!((all("upgrade"), all("connection")), (vec!["websocket"], vec!["Upgrade"]));
        assert_eq!((all("content-length"), all("transfer-encoding")), (vec![], vec![]));
        Ok(Self { wire: Wire::Http1(Box::new(client)), headers })
    }

    /// Opens one over HTTP/2 (RFC 8441).
    pub(crate) fn over_h2(h2: &H2, path: &str, fields: &[(&str, &str)]) -> Self {
        Self::try_over_h2(h2, path, fields).unwrap_or_else(|response| panic!("{response:?}"))
    }

    /// The same, or the response that there was instead.
    pub(crate) fn try_over_h2(h2: &H2, path: &str, fields: &[(&str, &str)]) -> Result<Self, Response> {
        let fields = [&[("sec-websocket-version", "13")], fields].concat();
        let (tunnel, headers) = h2.connect_for("websocket", path, &fields).tunnel()?;
        let is_of_http1 =
            |(name, _): &&(String, String)| matches!(name.as_str(), "sec-websocket-accept" | "upgrade" | "connection");
        assert_eq!(headers.iter().find(is_of_http1), None);
        Ok(Self { wire: Wire::Http2 { tunnel, unread: Vec::new() }, headers })
    }

    /// The stream of HTTP/2 that it is.
    pub(crate) fn into_tunnel(self) -> Tunnel {
        match self.wire {
            Wire::Http2 { tunnel, unread } if unread.is_empty() => tunnel,
            _ => panic!("it is none, or has been read from"),
        }
    }

    /// A field of the answer that has opened it.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.masked());
    }

    /// Sends a text.
    pub(crate) fn text(&mut self, text: &str) {
        self.send(&Frame::new(TEXT, text));
    }

    /// Sends these bytes, whatever they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        match &mut self.wire {
            Wire::Http1(client) => client.send(bytes),
            Wire::Http2 { tunnel, .. } => tunnel.send(bytes).expect("the gateway takes what is sent"),
        }
    }

    /// The same where the gateway may have ended it already.
    pub(crate) fn send_bytes_if_open(&mut self, bytes: &[u8]) {
        // An error is one that has ended.
        let _ = match &mut self.wire {
            Wire::Http1(client) => client.try_send(bytes).is_ok(),
            Wire::Http2 { tunnel, .. } => tunnel.send(bytes).is_ok(),
        };
    }

    /// The next frame; `None`: the gateway has ended its side, or broken it off.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        Frame::read(|count| self.take(count))
    }

    /// The next message, of all its frames; control frames may not come before it.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        loop {
            let frame = self.frame().expect("a frame");
            assert!(frame.opcode < CLOSE, "{frame:?}");
            message.extend(frame.payload);
            if frame.fin {
                return message;
            }
        }
    }

    /// Exactly so many bytes; `None`: they end before.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        match &mut self.wire {
            Wire::Http1(client) => client.take(count),
            Wire::Http2 { tunnel, unread } => {
                while unread.len() < count {
                    unread.extend_from_slice(&tunnel.read()?.ok()?);
                }
                Some(unread.drain(..count).collect())
            }
        }
    }

    /// Says goodbye with this code, hears the same, and waits for the end.
    pub(crate) fn close(mut self, code: u16) {
        self.send(&Frame::close(code));
        assert_eq!(self.frame().expect("a close frame").code(), Some(code));
        assert_eq!(self.end(), End::Closed);
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        match &mut self.wire {
            Wire::Http1(client) => client.finish(),
            Wire::Http2 { tunnel, .. } => tunnel.finish(),
        }
    }

    /// Leaves without a word.
    pub(crate) fn reset(self) {
        match self.wire {
            Wire::Http1(client) => client.reset(),
            Wire::Http2 { tunnel, .. } => tunnel.reset(),
        }
    }

    /// Reads whatever comes up to the gateway's end. How many bytes that were, and how it ended.
    pub(crate) fn drain(&mut self) -> (usize, End) {
        match &mut self.wire {
            Wire::Http1(client) => client.drain(),
            Wire::Http2 { tunnel, unread } => {
                let mut count = std::mem::take(unread).len();
                loop {
                    match tunnel.read() {
                        None => return (count, End::Closed),
                        Some(Err(_)) => return (count, End::Reset),
                        Some(Ok(bytes)) => count += bytes.len(),
                    }
                }
            }
        }
    }

    /// Waits for the gateway's end, before which nothing may come: in good order, or broken off.
    pub(crate) fn end(&mut self) -> End {
        match &mut self.wire {
            Wire::Http1(client) => client.end(),
            Wire::Http2 { tunnel, unread } => {
                assert!(unread.is_empty(), "more came: {unread:?}");
                match tunnel.read() {
                    None => End::Closed,
                    Some(Err(_)) => End::Reset,
                    Some(Ok(bytes)) => panic!("more came: {bytes:?}"),
                }
            }
        }
    }
}

/// A handshake, with these fields beside those that every one has. One of the same name stands instead of it; an empty value
/// leaves it out.
pub(crate) fn handshake(path: &str, fields: &[(&str, &str)]) -> String {
    let own = [
        ("Host", "shop.example"),
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    let is_replaced = |name: &str| fields.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let kept = own.iter().filter(|(name, _)| !is_replaced(name));
    let given = fields.iter().filter(|(_, value)| !value.is_empty());
    let lines: String = kept.chain(given).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\n{lines}\r\n")
}

/// What a worker answers to this key.
pub(crate) fn accept_for(key: &str) -> String {
    let all = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, all.as_bytes());
    STANDARD.encode(sum)
}

/// The worker's end, for scripts.
impl Visit {
    /// Takes the next request and answers it with 101 and these fields. `false`: the gateway has closed instead, or asked for a
    /// page, which it got.
    pub(crate) fn accept_websocket(&mut self, fields: &str) -> bool {
        self.accept_websocket_and(fields, b"")
    }

    /// The same with bytes that come in one piece with the 101.
    pub(crate) fn accept_websocket_and(&mut self, fields: &str, bytes: &[u8]) -> bool {
        let Some(request) = self.request() else { return false };
        let Some(key) = request.header("sec-websocket-key") else {
            self.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\npage");
            return false;
        };
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{fields}\r\n",
            accept_for(&key)
        );
        self.send([head.as_bytes(), bytes].concat());
        true
    }

    /// The next frame of the client. `None`: it has ended.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        Frame::read(|count| Some(self.body(count)).filter(|bytes| bytes.len() == count))
    }
}
