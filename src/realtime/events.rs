//! `application/websocket-events`: what a WebSocket is over HTTP, in requests to the app and in its answers.
//!
//! An event is `TYPE CRLF`, or `TYPE SP length CRLF content CRLF` with the length of the content in hexadecimal digits. A
//! body is any number of them, one after the other. Types that are not known here are stepped over, as Pushpin does.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

/// The media type of the bodies.
pub const MEDIA_TYPE: &str = "application/websocket-events";

/// Events of one body. What an app says in one answer is less by far.
pub const MAX_EVENTS: usize = 16_384;
/// Bytes of `TYPE SP length`.
const MAX_LINE: usize = 64;
/// Digits of a length.
const MAX_DIGITS: usize = 8;

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The connection is to be opened; in an answer: it is.
    Open,
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// A ping, with what is to come back.
    Ping,
    /// A pong.
    Pong,
    /// The end in good order, with a code of two bytes and a reason, or without both.
    Close,
    /// The end in no order: the client is gone; in an answer: it is to be dropped.
    Disconnect,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] =
        &[Self::Open, Self::Text, Self::Binary, Self::Ping, Self::Pong, Self::Close, Self::Disconnect];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Text => "TEXT",
            Self::Binary => "BINARY",
            Self::Ping => "PING",
            Self::Pong => "PONG",
            Self::Close => "CLOSE",
            Self::Disconnect => "DISCONNECT",
        }
    }

    fn parse(word: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str().as_bytes() == word)
    }
}

/// One event of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// Empty where there is none.
    pub content: Bytes,
}

/// Why bytes are no events, and at which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// The byte at which the event begins that it is wrong with.
    pub at: usize,
}

/// What can be wrong with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No CRLF within [`MAX_LINE`] bytes, or before the end.
    Line,
    /// The type is no word in capital letters.
    Type,
    /// The length is not one to eight hexadecimal digits.
    Length,
    /// The body ends before the content does.
    Short,
    /// The content is not followed by CRLF: its length is wrong.
    End,
    /// The text is not UTF-8.
    Text,
    /// The content of a CLOSE is one byte, or its reason is not UTF-8.
    Close,
    /// More than [`MAX_EVENTS`].
    Many,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.fault {
            Fault::Line => "has no line end",
            Fault::Type => "has no type in capital letters",
            Fault::Length => "has a length that is not one to eight hexadecimal digits",
            Fault::Short => "is shorter than its length says",
            Fault::End => "is not followed by CRLF where its length ends",
            Fault::Text => "is a TEXT that is not UTF-8",
            Fault::Close => "is a CLOSE of one byte, or with a reason that is not UTF-8",
            Fault::Many => return write!(f, "there are more than {MAX_EVENTS} events"),
        };
        write!(f, "the event at byte {} {what}", self.at)
    }
}

/// All events of a body, or what is wrong with it: nothing is done by half. The contents share the body's memory.
///
/// # Errors
/// [`Malformed`].
pub fn decode(body: &Bytes) -> Result<Vec<Event>, Malformed> {
    let (mut events, mut at, mut count) = (Vec::new(), 0, 0);
    while at < body.len() {
        count += 1;
        if count > MAX_EVENTS {
            return Err(Malformed { fault: Fault::Many, at });
        }
        let (kind, content, next) = next_event(body, at).map_err(|fault| Malformed { fault, at })?;
        if let Some(kind) = kind {
            events.push(Event { kind, content: body.slice(content) });
        }
        at = next;
    }
    Ok(events)
}

/// The same of what was written by [`write`]: it ends where it is no event.
pub(super) fn decode_unchecked(body: &Bytes) -> impl Iterator<Item = Event> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let (kind, content, next) = (at < body.len()).then(|| take_event(body, at).ok())??;
            at = next;
            if let Some(kind) = kind {
                return Some(Event { kind, content: body.slice(content) });
            }
        }
    })
}

/// The event at a byte, checked.
fn next_event(body: &[u8], at: usize) -> Result<(Option<Kind>, Range<usize>, usize), Fault> {
    let (kind, content, next) = take_event(body, at)?;
    let bytes = &body[content.clone()];
    match kind {
        Some(Kind::Text) if std::str::from_utf8(bytes).is_err() => return Err(Fault::Text),
        Some(Kind::Close) if parse_close(bytes).is_none() => return Err(Fault::Close),
        _ => {}
    }
    Ok((kind, content, next))
}

/// The event at a byte, where its content is, and where the next one begins.
fn take_event(body: &[u8], at: usize) -> Result<(Option<Kind>, Range<usize>, usize), Fault> {
    let rest = &body[at..];
    let line = rest[..rest.len().min(MAX_LINE + 2)].windows(2).position(|pair| pair == b"\r\n").ok_or(Fault::Line)?;
    let (word, length) = match rest[..line].iter().position(|byte| *byte == b' ') {
        Some(space) => (&rest[..space], Some(&rest[space + 1..line])),
        None => (&rest[..line], None),
    };
    if word.is_empty() || !word.iter().all(u8::is_ascii_uppercase) {
        return Err(Fault::Type);
    }
    let kind = Kind::parse(word);
    let from = at + line + 2;
    let Some(length) = length else { return Ok((kind, from..from, from)) };
    let length = parse_length(length).ok_or(Fault::Length)?;
    let content = from..from.saturating_add(length);
    match body.get(content.end..content.end.saturating_add(2)) {
        Some(b"\r\n") => {}
        Some(_) => return Err(Fault::End),
        None => return Err(Fault::Short),
    }
    let next = content.end + 2;
    Ok((kind, content, next))
}

fn parse_length(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as usize);
    digits.iter().try_fold(0_usize, |length, byte| Some(length << 4 | digit(byte)?))
}

/// The code and the reason of a CLOSE. `None`: it has one byte, or a reason that is not UTF-8. Without content, and with the
/// code 0 that django-grip writes for none, there is no code.
#[must_use]
pub fn parse_close(content: &[u8]) -> Option<(Option<u16>, &str)> {
    match content {
        [] => Some((None, "")),
        [_] => None,
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let reason = std::str::from_utf8(reason).ok()?;
            Some(if code == 0 { (None, "") } else { (Some(code), reason) })
        }
    }
}

/// Appends an event. A message has a length even when it is empty; other kinds have one only with content.
pub fn write(out: &mut Vec<u8>, kind: Kind, content: &[u8]) {
    out.extend_from_slice(kind.as_str().as_bytes());
    if content.is_empty() && !matches!(kind, Kind::Text | Kind::Binary) {
        out.extend_from_slice(b"\r\n");
        return;
    }
    out.push(b' ');
    write_length(out, content.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}

/// Appends a CLOSE.
pub fn write_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    match code {
        None => write(out, Kind::Close, &[]),
        Some(code) => write(out, Kind::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat()),
    }
}

/// In lower case and without zeros in front.
fn write_length(out: &mut Vec<u8>, length: usize) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (length >> (4 * place)) & 0xf;
        out.push(b"0123456789abcdef"[digit]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(body: &'static [u8]) -> Result<Vec<Event>, (Fault, usize)> {
        decode(&Bytes::from_static(body)).map_err(|malformed| (malformed.fault, malformed.at))
    }

    #[test]
    fn bodies_of_the_libraries_are_read() {
        use Kind::{Binary, Close, Disconnect, Open, Ping, Pong, Text};
        for (body, events) in [
            (&b""[..], &[][..]),
            (b"OPEN\r\n", &[(Open, &b""[..])]),
            (b"OPEN\r\nTEXT 5\r\nhello\r\n", &[(Open, b""), (Text, b"hello")]),
            (b"TEXT 0\r\n\r\nTEXT\r\n", &[(Text, b""), (Text, b"")]),
            (b"BINARY 3\r\n\xff\r\n\r\n", &[(Binary, b"\xff\r\n")]),
            (b"TEXT A\r\n0123456789\r\nTEXT a\r\n0123456789\r\n", &[(Text, b"0123456789"), (Text, b"0123456789")]),
            (b"PING\r\nPONG 2\r\nhi\r\n", &[(Ping, b""), (Pong, b"hi")]),
            (b"CLOSE 2\r\n\x03\xe8\r\n", &[(Close, b"\x03\xe8")]),
            (b"CLOSE\r\nDISCONNECT\r\n", &[(Close, b""), (Disconnect, b"")]),
            (b"NEWS 1\r\nx\r\nOPEN\r\n", &[(Open, b"")]),
            (b"TEXT 00000001\r\nx\r\n", &[(Text, b"x")]),
        ] {
            let event =
                |(kind, content): &(Kind, &'static [u8])| Event { kind: *kind, content: Bytes::from_static(content) };
            assert_eq!(decoded(body), Ok(events.iter().map(event).collect()), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_event_has_its_fault_and_its_place() {
        for (body, fault, at) in [
            (&b"OPEN"[..], Fault::Line, 0),
            (b"OPEN\n", Fault::Line, 0),
            (b"OPEN\r\nTEXT 5", Fault::Line, 6),
            (b"<!doctype html><html><head><title>Server Error (500)</title></head></html>", Fault::Line, 0),
            (b"\r\n", Fault::Type, 0),
            (b" 5\r\nhello\r\n", Fault::Type, 0),
            (b"open\r\n", Fault::Type, 0),
            (b"TEXT \r\n", Fault::Length, 0),
            (b"TEXT 0x5\r\nhello\r\n", Fault::Length, 0),
            (b"TEXT -5\r\nhello\r\n", Fault::Length, 0),
            (b"TEXT 5 \r\nhello\r\n", Fault::Length, 0),
            (b"TEXT 123456789\r\nhello\r\n", Fault::Length, 0),
            (b"TEXT 6\r\nhello", Fault::Short, 0),
            (b"TEXT 5\r\nhello", Fault::Short, 0),
            (b"TEXT 5\r\nhello\r", Fault::Short, 0),
            (b"TEXT ffffffff\r\nhello\r\n", Fault::Short, 0),
            (b"TEXT 4\r\nhello\r\n", Fault::End, 0),
            (b"OPEN\r\nTEXT 1\r\n\xff\r\n", Fault::Text, 6),
            (b"CLOSE 1\r\nx\r\n", Fault::Close, 0),
            (b"CLOSE 3\r\n\x03\xe8\xff\r\n", Fault::Close, 0),
        ] {
            assert_eq!(decoded(body), Err((fault, at)), "{}", body.escape_ascii());
            let words = decode(&Bytes::from_static(body)).unwrap_err().to_string();
            assert!(words.starts_with(&format!("the event at byte {at} ")), "{words}");
        }
        let many = Bytes::from(b"PING\r\n".repeat(MAX_EVENTS + 1));
        assert_eq!(decode(&many).unwrap_err().fault, Fault::Many);
        assert_eq!(decode(&many.slice(6..)).unwrap().len(), MAX_EVENTS);
    }

    #[test]
    fn events_are_written_as_the_libraries_read_them() {
        let mut out = Vec::new();
        write(&mut out, Kind::Open, b"");
        write(&mut out, Kind::Text, b"");
        write(&mut out, Kind::Binary, &[7; 256]);
        write(&mut out, Kind::Ping, b"");
        write(&mut out, Kind::Ping, b"hi");
        write_close(&mut out, None, "");
        write_close(&mut out, Some(1000), "bye");
        write(&mut out, Kind::Disconnect, b"");
        let binary = [b"BINARY 100\r\n".as_slice(), &[7; 256], b"\r\n"].concat();
        let expected = [
            b"OPEN\r\nTEXT 0\r\n\r\n",
            &*binary,
            b"PING\r\nPING 2\r\nhi\r\nCLOSE\r\nCLOSE 5\r\n\x03\xe8bye\r\nDISCONNECT\r\n",
        ];
        assert_eq!(out.escape_ascii().to_string(), expected.concat().escape_ascii().to_string());
    }

    #[test]
    fn the_code_0_of_django_grip_is_no_code() {
        assert_eq!(parse_close(b""), Some((None, "")));
        assert_eq!(parse_close(b"\0\0"), Some((None, "")));
        assert_eq!(parse_close(b"\x03\xe8"), Some((Some(1000), "")));
        assert_eq!(parse_close(b"\x0f\xa0away"), Some((Some(4000), "away")));
        assert_eq!(parse_close(b"x"), None);
    }

    fn event() -> impl Strategy<Value = (Kind, Vec<u8>)> {
        prop_oneof![
            Just((Kind::Open, Vec::new())),
            Just((Kind::Disconnect, Vec::new())),
            "\\PC{0,40}".prop_map(|text| (Kind::Text, text.into_bytes())),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (Kind::Binary, bytes)),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| (Kind::Pong, bytes)),
            (1000_u16..5000, "[a-z]{0,9}")
                .prop_map(|(code, reason)| { (Kind::Close, [&code.to_be_bytes()[..], reason.as_bytes()].concat()) }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(events in proptest::collection::vec(event(), 0..20)) {
            let mut body = Vec::new();
            events.iter().for_each(|(kind, content)| write(&mut body, *kind, content));
            let read = decode(&Bytes::from(body)).unwrap();
            let read: Vec<_> = read.into_iter().map(|event| (event.kind, event.content.to_vec())).collect();
            prop_assert_eq!(read, events);
        }

        #[test]
        fn no_bytes_are_read_twice_or_beyond_the_end(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(events) = decode(&Bytes::from(body.clone())) {
                prop_assert!(events.iter().map(|event| event.content.len()).sum::<usize>() <= body.len());
            }
        }

        #[test]
        fn a_body_that_is_cut_is_never_taken_for_a_whole_one_with_less_content(
            events in proptest::collection::vec(event(), 1..6), cut in any::<proptest::sample::Index>()
        ) {
            let (mut body, mut ends) = (Vec::new(), vec![0]);
            for (kind, content) in &events {
                write(&mut body, *kind, content);
                ends.push(body.len());
            }
            let at = cut.index(body.len());
            let read = decode(&Bytes::copy_from_slice(&body[..at]));
            match ends.iter().position(|end| *end == at) {
                Some(whole) => prop_assert_eq!(read.unwrap().len(), whole),
                None => prop_assert!(read.is_err()),
            }
        }
    }
}
