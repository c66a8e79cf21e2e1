//! HTTP/2 (RFC 9113): the `h2` crate on a stream whose writes are coalesced and whose frames are watched.
//!
//! One future drives the connection ([`serve`]), one task serves each stream ([`exchange`]):
//!
//! 1. accept what `h2` has read as a request, within its limits and those of the [frame guard](super::frame_guard);
//! 2. call the stack, while watching for the client to leave;
//! 3. send the response as far as the client's windows go ([`send`]);
//! 4. end: without streams after `limits.idle_timeout`, in a drain, or when the client gives reason to ([`timers`]).
//!
//! What one connection can make us hold beside the bodies in the spool: 1 MiB of request bodies that nobody has read yet
//! ([`CONNECTION_WINDOW`]) and 2 MiB for the frames they are in ([`DATA_FRAMES`]), for each of up to 16 WebSockets whose worker
//! does not read ([`WIDENED_FOR`]) 256 KiB more and up to twice that in what they are kept in, 192 KiB
//! of responses that the socket does not take ([`shared`], [`super::coalesce`]), and for each of `limits.streams` a head of
//! `limits.header_size` and one piece of its response.

mod body;
mod exchange;
mod incoming;
mod message;
mod send;
mod shared;
mod stall;
mod takeover;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod timers;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason as Code;
use h2::server::{Builder, Connection, Handshake};

use self::shared::Shared;
use self::timers::{Due, Timers};
use super::coalesce::{Coalescing, coalesce};
use super::frame_guard::{Guard, Guarded};
use crate::config::MinRate;
use crate::error::Reason;
use crate::http::ConnectionInfo;
use crate::http1::server::Entry;
use crate::observe::metrics::{Http2Refusal, Metrics};
use crate::runtime::buffers::Buffer;
use crate::runtime::{Deadline, Stream};

/// What a connection is held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) streams: u32,
    /// Whether the peer is trusted: it speaks for many clients.
    pub(super) is_proxy: bool,
    /// Bytes of a header list.
    pub(super) header_size: u32,
    pub(super) header_count: usize,
    /// To the first request, and from the first byte of a head to its last.
    pub(super) header_timeout: Duration,
    /// Without a stream.
    pub(super) idle_timeout: Duration,
    /// Of a request body, while it is waited for.
    pub(super) body_rate: MinRate,
    /// Of a response, while the client does not take it.
    pub(super) read_rate: MinRate,
    /// Whether the client is told that WebSockets may come over this connection (RFC 8441). What has been said stays said for
    /// as long as it lives, whatever a reload changes: where no route takes them any more, they are refused one by one.
    pub(super) websockets: bool,
}

/// Bytes a client may send on one stream, and on all streams of a connection, before we have taken them.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// So many WebSockets add their windows to the connection's: what their workers do not read keeps nothing else from coming.
const WIDENED_FOR: u32 = 16;
/// The same where the peer speaks for many clients.
const WIDENED_FOR_MANY: u32 = 128;
/// Bytes of one stream's response that `h2` holds at most, where the client closes a window after it was granted.
pub(super) const SEND_BUFFER: usize = 32 << 10;
/// Streams that were reset before they were accepted: more than the frame guard lets through, which tells of them. Those
/// that `h2` itself resets are counted there as well, and forgotten with time, which `h2` does not.
const PENDING_RESETS: usize = 512;
/// What small DATA frames that nobody has read yet may cost in memory, as `h2` counts it (256 bytes less their data, for each
/// that has less): a whole stream's window in frames of 32 bytes. Nothing else bounds those of 16 bytes and more. Only those
/// wait there that came since the stream was driven last: see [`incoming`] and [`takeover`]. Those for streams that are no more
/// are never forgotten.
const DATA_FRAMES: usize = 2 << 20;
/// The same where the peer speaks for many clients.
const DATA_FRAMES_OF_MANY: usize = 16 << 20;
/// Streams that we have reset are remembered, so that what a client had on its way for them is not held against it.
const KEPT_RESETS: usize = 128;
const KEPT_RESETS_FOR: Duration = Duration::from_secs(5);
/// How much of what a client still sends is read behind an answer, before its stream is reset or its connection closed upon
/// it, and for how long.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// How a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client has gone, or nothing was left to say, or there is no time for it.
    Closed,
    /// Our GOAWAY has a reason that the client should get to read.
    GoodbyeSaid,
}

/// The codec before and after the preface.
enum Codec {
    Handshake(Handshake<Guarded<Coalescing>, Bytes>),
    Open(Connection<Guarded<Coalescing>, Bytes>),
}

struct Driver<E> {
    codec: Codec,
    guard: Rc<Guard>,
    shared: Rc<Shared>,
    timers: Timers,
    entry: E,
    /// Set when the codec was told to end at once.
    ending: Option<End>,
    /// For how many WebSockets the connection's window is wide enough.
    widened_for: u32,
}

/// Serves a connection to its end.
pub(super) async fn serve<E>(
    stream: Stream,
    first: Buffer,
    info: Rc<ConnectionInfo>,
    limits: Limits,
    metrics: Arc<Metrics>,
    entry: E,
) where
    E: Entry + Clone + 'static,
{
    let (io, wire) = coalesce(stream, first);
    // More than the limit, so that what exceeds it reaches the stack and is refused there, with its reason.
    let header_list = limits.header_size.saturating_mul(2);
    let guard = Guard::new(header_list, limits.is_proxy, Rc::clone(&info), metrics);
    let handshake = codec(&limits, header_list).handshake(guard.guard(io));
    let guard_of_streams = Rc::clone(&guard);
    let mut driver = Driver {
        codec: Codec::Handshake(handshake),
        guard,
        shared: Shared::new(info, limits, wire.clone(), guard_of_streams),
        timers: Timers::new(&limits),
        entry,
        ending: None,
        widened_for: 0,
    };
    let end = poll_fn(|cx| driver.poll(cx)).await;
    drop(driver);
    if end == End::GoodbyeSaid {
        let mut left = LINGER_BYTES;
        // However it ends, the connection is dropped now.
        let _ = Deadline::new().bound(LINGER, poll_fn(|cx| wire.poll_end(cx, &mut left))).await;
    }
}

fn codec(limits: &Limits, header_list: u32) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(header_list)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(None)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .data_frame_budget(if limits.is_proxy { DATA_FRAMES_OF_MANY } else { DATA_FRAMES })
        .max_concurrent_reset_streams(KEPT_RESETS)
        .reset_stream_duration(KEPT_RESETS_FOR);
    if limits.websockets {
        builder.enable_connect_protocol();
    }
    builder
}

/// The code of the GOAWAY that follows a verdict of the frame guard.
fn code_for(refusal: Http2Refusal) -> Code {
    match refusal {
        Http2Refusal::Preface => Code::PROTOCOL_ERROR,
        Http2Refusal::ConnectionFrameSize => Code::FRAME_SIZE_ERROR,
        _ => Code::ENHANCE_YOUR_CALM,
    }
}

impl<E: Entry + Clone + 'static> Driver<E> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            self.guard.begin_turn();
            let end = self.poll_codec(cx);
            // Once after each poll: the answers of all streams that were ready go out together.
            let flushed = self.shared.wire.poll_flush(cx);
            if end.is_ready() {
                return end;
            }
            if matches!(flushed, Poll::Ready(Err(_))) {
                return Poll::Ready(End::Closed);
            }
            if !self.shared.wire.was_full() {
                self.shared.make_room();
            }
            if let Some(refusal) = self.guard.verdict().filter(|_| self.ending.is_none()) {
                self.shared.end(Reason::Http2Refused);
                self.end_with(code_for(refusal), End::GoodbyeSaid);
                continue;
            }
            match self.timers.poll(&self.shared, &self.guard, flushed.is_pending(), cx) {
                Due::Nothing => return Poll::Pending,
                Due::Goodbye => self.goodbye(),
                Due::HeadTimeout => {
                    self.guard.tell(Http2Refusal::HeaderTimeout);
                    self.shared.end(Reason::HeaderTimeout);
                    self.end_with(Code::ENHANCE_YOUR_CALM, End::GoodbyeSaid);
                }
                Due::Evicted if matches!(self.codec, Codec::Handshake(_)) => return Poll::Ready(End::Closed),
                // A request that has just arrived is told that nobody has seen it.
                Due::Evicted if !self.shared.wire.is_quiet() => self.end_with(Code::NO_ERROR, End::GoodbyeSaid),
                Due::Evicted => self.end_with(Code::NO_ERROR, End::Closed),
                Due::NoPreface => {
                    self.guard.tell(Http2Refusal::Preface);
                    return Poll::Ready(End::Closed);
                }
                Due::Stalled => {
                    self.guard.tell(Http2Refusal::ClientStalled);
                    self.shared.end(Reason::ClientStalled);
                    self.shared.wire.reset_on_close();
                    return Poll::Ready(End::Closed);
                }
                Due::End => return Poll::Ready(End::Closed),
            }
        }
    }

    /// Moves frames, and begins what has come. Ready when the codec has closed.
    fn poll_codec(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let connection = match &mut self.codec {
                Codec::Open(connection) => connection,
                Codec::Handshake(handshake) => match Pin::new(handshake).poll(cx) {
                    Poll::Ready(Ok(connection)) => {
                        self.timers.has_spoken();
                        self.codec = Codec::Open(connection);
                        continue;
                    }
                    Poll::Ready(Err(error)) => {
                        if !error.is_io() {
                            self.guard.tell(Http2Refusal::Preface);
                        }
                        return Poll::Ready(End::Closed);
                    }
                    Poll::Pending => return Poll::Pending,
                },
            };
            let most = if self.shared.limits.is_proxy { WIDENED_FOR_MANY } else { WIDENED_FOR };
            let websockets = self.shared.websockets().min(most);
            if websockets > self.widened_for {
                self.widened_for = websockets;
                connection.set_target_window_size(CONNECTION_WINDOW + websockets * STREAM_WINDOW);
            }
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (entry, shared, open) = (self.entry.clone(), Rc::clone(&self.shared), self.shared.open());
                    tokio::task::spawn_local(exchange::serve(entry, shared, request, respond, open));
                }
                Poll::Ready(Some(Err(error))) if error.is_go_away() && error.is_library() => {
                    self.shared.end(Reason::Http2Refused);
                    return Poll::Ready(End::GoodbyeSaid);
                }
                Poll::Ready(_) => return Poll::Ready(self.ending.unwrap_or(End::Closed)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn goodbye(&mut self) {
        if let Codec::Open(connection) = &mut self.codec {
            connection.graceful_shutdown();
        }
    }

    /// GOAWAY with this code, and the end of all streams. `h2` writes it behind the frame at hand.
    fn end_with(&mut self, code: Code, end: End) {
        self.ending = Some(end);
        self.timers.is_ending();
        if let Codec::Open(connection) = &mut self.codec {
            connection.abrupt_shutdown(code);
        }
    }
}
