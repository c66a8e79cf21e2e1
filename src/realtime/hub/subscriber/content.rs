//! What an item is to a client of one format: whether it is for it, how much, and what is delivered.

use bytes::Bytes;

use super::super::Filters;
use super::super::item::{Item, Message, MessagePart, Reply, ReplyBody, ResponsePart, StreamPart};
use super::{Delivery, Format, OVERHEAD};

/// Whether an item has this format, and for whom alone it is.
pub(super) fn wanted(item: &Item, format: Format) -> Option<Option<Filters>> {
    match format {
        Format::Response => item.response.as_ref().map(|content| content.filters),
        Format::Stream => item.stream.as_ref().map(|content| content.filters),
        Format::Message => item.message.as_ref().map(|content| content.filters),
    }
}

/// Bytes of what the item is in this format.
pub(super) fn content_length(item: &Item, format: Format) -> usize {
    match format {
        Format::Response => item.response.as_ref().map_or(0, |content| match &content.part {
            ResponsePart::Send(Reply { body: ReplyBody::Whole(body) | ReplyBody::Patch(body), .. }) => body.len(),
            ResponsePart::Hint => 0,
        }),
        Format::Stream => item.stream.as_ref().map_or(0, |content| match &content.part {
            StreamPart::Send(bytes) => bytes.len(),
            StreamPart::Hint | StreamPart::Close => 0,
        }),
        Format::Message => item.message.as_ref().map_or(0, |content| match &content.part {
            MessagePart::Send(message) => message.payload.len(),
            MessagePart::Close(..) | MessagePart::Refresh => 0,
        }),
    }
}

/// What a delivery of the client's own costs of its room.
pub(super) fn cost_of(delivery: &Delivery) -> usize {
    OVERHEAD
        + match delivery {
            Delivery::Reply(reply) => match &reply.body {
                ReplyBody::Whole(body) | ReplyBody::Patch(body) => body.len(),
            },
            Delivery::Data(bytes) => bytes.len(),
            Delivery::Message(message) => message.payload.len(),
            _ => 0,
        }
}

/// An item with content that is one client's alone.
pub(super) fn made(item: &Item, format: Format, render: impl Fn(&[u8]) -> Bytes) -> Delivery {
    match shared(item, format) {
        Delivery::Data(content) => Delivery::Data(render(&content)),
        Delivery::Message(message) => Delivery::Message(Message::new(message.kind, render(&message.payload))),
        Delivery::Reply(mut reply) => {
            if let ReplyBody::Whole(body) = &mut reply.body {
                *body = render(body);
            }
            Delivery::Reply(reply)
        }
        other => other,
    }
}

/// An item as everybody gets it.
pub(super) fn shared(item: &Item, format: Format) -> Delivery {
    let delivery = match format {
        Format::Response => item.response.as_ref().map(|content| match &content.part {
            ResponsePart::Send(reply) => Delivery::Reply(Box::new(reply.clone())),
            ResponsePart::Hint => Delivery::Hint,
        }),
        Format::Stream => item.stream.as_ref().map(|content| match &content.part {
            StreamPart::Send(bytes) => Delivery::Data(bytes.clone()),
            StreamPart::Hint => Delivery::Hint,
            StreamPart::Close => Delivery::Close(None, Box::default()),
        }),
        Format::Message => item.message.as_ref().map(|content| match &content.part {
            MessagePart::Send(message) => {
                // Made in the shared one, so that it is there for the next.
                message.frame();
                Delivery::Message(message.clone())
            }
            MessagePart::Close(code, reason) => Delivery::Close(*code, reason.clone()),
            MessagePart::Refresh => Delivery::Refresh,
        }),
    };
    // Nothing is queued that does not have the format.
    delivery.unwrap_or(Delivery::Hint)
}
