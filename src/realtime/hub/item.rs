//! What is published: one item for one channel, in up to three formats.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::Filters;

/// Names and values that go with an item, or with a client that is held.
pub type Meta = Vec<(Box<str>, Box<str>)>;

/// Something published on a channel.
#[derive(Debug, Default)]
pub struct Item {
    /// Where. Not empty.
    pub channel: Box<str>,
    /// Its own id.
    pub id: Option<Box<str>>,
    /// The id of the item before it.
    pub prev_id: Option<Box<str>>,
    /// `no-seq`: it is not made wait for the item before it.
    pub is_unsequenced: bool,
    /// For filters.
    pub meta: Meta,
    /// `http-response`: for clients that wait for an answer.
    pub response: Option<Content<ResponsePart>>,
    /// `http-stream`: for clients that take a stream.
    pub stream: Option<Content<StreamPart>>,
    /// `ws-message`: for WebSockets.
    pub message: Option<Content<MessagePart>>,
}

/// One format of an item.
#[derive(Debug)]
pub struct Content<T> {
    /// `content-filters`: it is only for those whose own filters of content are exactly these. `None`: for everybody.
    pub filters: Option<Filters>,
    /// What it says.
    pub part: T,
}

/// `http-response`.
#[derive(Debug)]
pub enum ResponsePart {
    /// The answer.
    Send(Reply),
    /// There is news at the app: the request is to be asked again.
    Hint,
}

/// `http-stream`.
#[derive(Debug)]
pub enum StreamPart {
    /// More of the body.
    Send(Bytes),
    /// There is news at the app.
    Hint,
    /// The body ends.
    Close,
}

/// `ws-message`.
#[derive(Debug)]
pub enum MessagePart {
    /// A message, a ping or a pong.
    Send(Message),
    /// The socket is closed, with a code and a reason.
    Close(Option<u16>, Box<str>),
    /// The app wants to be asked.
    Refresh,
}

/// A published answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Merged over those of the answer that was held back. `Grip-Expose-Headers` has been taken out.
    pub headers: HeaderMap,
    /// If not empty: only these names of all reach the client, in lower case.
    pub exposed: Vec<Box<str>>,
    /// Its body.
    pub body: ReplyBody,
}

/// The body of a published answer.
#[derive(Debug, Clone)]
pub enum ReplyBody {
    /// All of it.
    Whole(Bytes),
    /// Changes to the JSON of the answer that was held back (RFC 6902): a JSON list, checked when it was published.
    Patch(Bytes),
}

/// What a WebSocket frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Text,
    Binary,
    Ping,
    Pong,
}

impl Kind {
    /// RFC 6455, 5.2.
    #[must_use]
    pub const fn opcode(self) -> u8 {
        match self {
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }
}

/// A published WebSocket message.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The message. UTF-8 where it is text; 125 bytes at most where it is a ping or a pong.
    pub payload: Bytes,
    /// The whole server frame, made once for all who get it.
    frame: OnceLock<Bytes>,
}

impl Message {
    /// A message.
    #[must_use]
    pub const fn new(kind: Kind, payload: Bytes) -> Self {
        Self { kind, payload, frame: OnceLock::new() }
    }

    /// The frame that a server sends (RFC 6455, 5.2): whole, not masked, without extensions.
    pub fn frame(&self) -> &Bytes {
        self.frame.get_or_init(|| {
            let length = self.payload.len();
            let mut frame = BytesMut::with_capacity(length + 10);
            frame.put_u8(0x80 | self.kind.opcode());
            match (u8::try_from(length), u16::try_from(length)) {
                (Ok(short @ ..126), _) => frame.put_u8(short),
                (_, Ok(medium)) => {
                    frame.put_u8(126);
                    frame.put_u16(medium);
                }
                _ => {
                    frame.put_u8(127);
                    frame.put_u64(length as u64);
                }
            }
            frame.extend_from_slice(&self.payload);
            frame.freeze()
        })
    }
}

impl Item {
    /// A name's value among what goes with it.
    #[must_use]
    pub fn meta(&self, name: &str) -> Option<&str> {
        self.meta.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
    }

    /// What it takes of memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let response = self.response.as_ref().map_or(0, |content| match &content.part {
            ResponsePart::Send(reply) => {
                let fields = reply.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
                let (ReplyBody::Whole(body) | ReplyBody::Patch(body)) = &reply.body;
                body.len() + fields.sum::<usize>()
            }
            ResponsePart::Hint => 0,
        });
        let stream = self.stream.as_ref().map_or(0, |content| match &content.part {
            StreamPart::Send(bytes) => bytes.len(),
            StreamPart::Hint | StreamPart::Close => 0,
        });
        let message = self.message.as_ref().map_or(0, |content| match &content.part {
            // The frame as well.
            MessagePart::Send(message) => 2 * message.payload.len(),
            MessagePart::Close(_, reason) => reason.len(),
            MessagePart::Refresh => 0,
        });
        let meta: usize = self.meta.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        size_of::<Self>() + self.channel.len() + meta + response + stream + message
    }
}
