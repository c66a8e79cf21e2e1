//! HTTP/2 frame by frame, for what no library would send.

use std::path::Path;

use super::{Address, Client};

/// Frame types (RFC 9113, 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITIZED: u8 = 0x20;

/// What opens a connection (RFC 9113, 3.4); SETTINGS follow.
pub(crate) const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What came of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A response head began.
    Answered { status: u16 },
    /// The stream was reset, with this code.
    Reset(u32),
    /// The connection ends, with this code.
    GoAway(u32),
    /// The connection was closed without a word.
    Closed,
}

/// A connection on which the test writes every frame itself.
pub(crate) struct Frames {
    client: Client,
}

impl Frames {
    /// Connects and sends the preface with empty settings.
    pub(crate) fn connect(address: &Address) -> Self {
        Self::over(Client::connect(address), b"")
    }

    /// The same over TLS.
    pub(crate) fn tls(address: &Address, name: &str, root: &Path) -> Self {
        Self::over(Client::tls_speaking(b"h2", address, name, root), b"")
    }

    /// With settings of the test's own.
    pub(crate) fn over(mut client: Client, settings: &[u8]) -> Self {
        client.send(PREFACE);
        client.send(frame(SETTINGS, 0, 0, settings));
        Self { client }
    }

    /// On a connection on which nothing has been said.
    pub(crate) fn silent(client: Client) -> Self {
        Self { client }
    }

    /// Sends bytes that need not be frames. Whether the gateway still took them.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> bool {
        self.client.try_send(bytes).is_ok()
    }

    /// Sends a frame. Whether the gateway still took it.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.client.try_send(frame(kind, flags, stream, payload)).is_ok()
    }

    /// A whole request without a body, in one HEADERS frame.
    pub(crate) fn request(&mut self, stream: u32, fields: &[(&str, &[u8])]) -> bool {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
    }

    /// Reads on until it is clear what becomes of this stream. A `100 Continue` is not clear.
    pub(crate) fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Some((kind, on, payload)) = self.next() else { return Outcome::Closed };
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match kind {
                // Interim answers are on the way to one.
                HEADERS if on == stream && !(100..200).contains(&status(&payload)) => {
                    return Outcome::Answered { status: status(&payload) };
                }
                RST_STREAM if on == stream => return Outcome::Reset(code(0)),
                GOAWAY if code(4) != 0 => return Outcome::GoAway(code(4)),
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        self.next_frame().map(|frame| (frame.kind, frame.stream, frame.payload))
    }

    /// The next frame, `None` at the end of the connection.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        let head = self.client.take(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload: self.client.take(length)? })
    }

    /// The first frame of this type, those before it left out.
    pub(crate) fn next_of(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next_frame()).find(|frame| frame.kind == kind)
    }
}

/// A frame of the gateway's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The status that a frame HEADERS begins with.
    pub(crate) fn status(&self) -> u16 {
        status(&self.payload)
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals without Huffman coding and without indexing (RFC 7541, 6.2.2).
pub(crate) fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name.as_bytes());
        text(&mut bytes, value);
    }
    bytes
}

fn text(into: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        into.push(length as u8);
    } else {
        into.push(127);
        length -= 127;
        while length >= 128 {
            into.push((length % 128 + 128) as u8);
            length /= 128;
        }
        into.push(length as u8);
    }
    into.extend_from_slice(text);
}

/// The status that begins a response's header block: an entry of the static table, or a literal with the table's name.
/// 0 when it is written in another way.
fn status(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [index @ 0x88..=0x8e, ..] => STATIC[usize::from(index - 0x88)],
        [0x48 | 0x08 | 0x18, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        [0x48 | 0x08 | 0x18, length @ 0x82..=0x83, digits @ ..] => huffman(&digits[..usize::from(length & 0x7f)]),
        _ => 0,
    }
}

/// Three digits (RFC 7541, appendix B): 0 to 2 in five bits, the others in six.
fn huffman(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | u16::from(*bit));
    let (mut rest, mut status) = (&bits[..], 0);
    for _ in 0..3 {
        let five = number(&rest[..5]);
        let (digit, used) = if five < 3 { (five, 5) } else { (number(&rest[..6]) - 0x19 + 3, 6) };
        status = status * 10 + digit;
        rest = &rest[used..];
    }
    status
}
