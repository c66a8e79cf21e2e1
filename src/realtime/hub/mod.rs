//! Channels and those who are held on them.
//!
//! ```text
//! publish door ─► Channels::publish ─► sequencer ─┬─► inbox of thread 1 ─► Local ─► Subscriber, Subscriber, …
//!                 (any thread)         (one)      └─► inbox of thread 2 ─► Local ─► Subscriber, …
//! ```
//!
//! [`Channels`] is for many threads. An item passes the [`sequence`](self::sequence) once, goes into the inbox of each thread
//! once, and is delivered there without a lock: who is held is known to its own thread alone ([`Local`]). Bytes that are
//! the same for all are made once and shared.
//!
//! The way from a publish to the sequencer is a [`Fanout`], so that several edges can share their channels: what arrives
//! from another edge goes the way that a local item goes.
//!
//! Everything has a bound: see [`limits`].

mod channels;
mod filter;
mod item;
mod local;
mod render;
mod sequence;
mod subscriber;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use channels::{Behind, Channels, Fanout, Report};
pub use filter::{Filter, Filters};
pub use item::{Content, Item, Kind, Message, MessagePart, Meta, Reply, ReplyBody, ResponsePart, StreamPart};
pub use local::Local;
pub use render::{IdEncoding, render};
pub use subscriber::{Delivery, Format, Standing, Subscriber, Subscription, TooMany};

/// What bounds the hub.
pub mod limits {
    use std::time::Duration;

    /// Bytes of a channel's name.
    pub const CHANNEL: usize = 1_024;
    /// Bytes of an item's id.
    pub const ID: usize = 1_024;
    /// Channels that one client is held on. As many as Pushpin's `connection_subscription_max`.
    pub const CHANNELS_PER_CLIENT: usize = 20;
    /// Filters of one subscription.
    pub const FILTERS: usize = 5;
    /// Names in a client's metadata, and bytes of a name and its value together.
    pub const META: usize = 32;
    /// Bytes of a name and of a value in metadata.
    pub const META_TEXT: usize = 4 << 10;
    /// Items of one channel that wait for the one before them.
    pub const PARKED: usize = 100;
    /// Items of all channels that wait so.
    pub const ALL_PARKED: usize = 10_000;
    /// Bytes of those.
    pub const PARKED_BYTES: usize = 32 << 20;
    /// How long they wait.
    pub const PATIENCE: Duration = Duration::from_secs(5);
    /// How long an id is remembered, so that an item is not delivered twice.
    pub const REMEMBERED: Duration = Duration::from_secs(60);
    /// Ids that are remembered, at most.
    pub const IDS: usize = 200_000;
    /// How long a channel's last id is kept after the last item.
    pub const LAST_ID: Duration = Duration::from_secs(600);
    /// Channels whose last id is kept. Items of others are delivered as they come.
    pub const SEQUENCED: usize = 100_000;
    /// Bytes of items that lie in inboxes.
    pub const UNDELIVERED: usize = 64 << 20;
}
