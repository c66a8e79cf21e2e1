//! Drives one WebSocket: brings what comes from the client, the app, the channels and the clock to the [`Session`], and what it
//! says to them. Nothing here decides anything.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Holding;
use super::held::Care;
use super::session::{Cause, Wish};
use crate::error::{Error, Reason, Side};
use crate::http::{ClientIo, Exchange};
use crate::observe::throttle::Throttles;
use crate::realtime::ask::Way;
use crate::realtime::hub::{Delivery, Filters, Subscriber, Subscription};
use crate::realtime::websocket::{Received, Wire};
use crate::runtime::Deadline;
use crate::runtime::deadline::awake;
use crate::runtime::drain::{self, Draining};

/// What is done in one turn before others have theirs.
const TURN: usize = 64;

/// To its end. The client's connection is closed then, or broken off.
pub(super) async fn drive(holding: Holding, io: ClientIo, exchange: Rc<Exchange>) -> Result<(), Error> {
    let Holding { care, first, subscriber, max_message, read_rate, metrics } = holding;
    let wire = Wire::new(io, max_message);
    let mut drive = Drive {
        care,
        wire,
        subscriber,
        deadline: Deadline::new(),
        armed: None,
        draining: Draining::new(),
        is_draining: false,
        read: 0,
    };
    drive.open(first);
    let is_orderly = poll_fn(|cx| {
        let turn = drive.poll(cx);
        let (messages_in, messages_out) = drive.care.session.take_counts();
        if messages_in > 0 {
            metrics.messages_in.inc_by(messages_in);
        }
        if messages_out > 0 {
            metrics.messages_out.inc_by(messages_out);
        }
        turn
    })
    .await;
    let Drive { care, wire, subscriber, .. } = drive;
    let (cause, way) = (care.session.cause().cloned(), care.asker.way());
    drop(subscriber);
    // The app hears of it while the client still reads our last words.
    drop(care);
    if is_orderly {
        wire.end(read_rate).await;
    }
    match cause {
        None => Ok(()),
        Some(cause) => Err(told(cause, &exchange, &way)),
    }
}

/// The operator hears of what is the edge's. The app's failures have been told where they happened, the client's stand in the
/// access log.
fn told(Cause { reason, detail, is_counted }: Cause, exchange: &Exchange, way: &Way) -> Error {
    static THROTTLES: Throttles = Throttles::new();
    if reason.side() == Side::Upstream {
        if !is_counted {
            way.complain(exchange, reason, &detail);
        }
        exchange.is_counted.set(true);
    }
    let id = exchange.id.get();
    let request_id = id.as_ref().map_or("", |id| id.as_str());
    let error = Error::new(reason).detail(detail);
    if reason.side() == Side::Edge && reason != Reason::ShuttingDown {
        if let Some(left_out) = THROTTLES.pass(reason) {
            tracing::warn!(request_id, reason = reason.as_str(), left_out, "a WebSocket ends: {error}");
        }
    } else {
        tracing::debug!(request_id, reason = reason.as_str(), "a WebSocket ends: {error}");
    }
    error
}

struct Drive {
    care: Care,
    wire: Wire<ClientIo>,
    subscriber: Option<Subscriber>,
    /// For what is next.
    deadline: Deadline,
    armed: Option<Duration>,
    draining: Draining,
    is_draining: bool,
    /// Bytes of the client that have been noted.
    read: u64,
}

impl Drive {
    /// What the app has said with OPEN.
    fn open(&mut self, first: super::First) {
        self.care.session.opened(first.answer, first.prefix, awake(), &mut self.wire.outbox);
        self.grant();
    }

    /// Until nothing is waited for: whether the rest is to be written.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        for _ in 0..TURN {
            let now = awake();
            let mut moved = self.poll_drain(cx, now);
            moved |= self.poll_app(cx, now);
            moved |= self.poll_channels(cx, now);
            moved |= self.poll_client(cx, now);
            self.care.session.time(now, &mut self.wire.outbox);
            moved |= self.ask(now);
            moved |= self.poll_write(cx, now);
            if let Some(is_orderly) = self.care.session.over() {
                return Poll::Ready(is_orderly);
            }
            if !moved && self.poll_time(cx, now).is_pending() {
                self.wire.gather(cx);
                return Poll::Pending;
            }
        }
        self.wire.gather(cx);
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, now: Duration) -> bool {
        if self.is_draining || self.draining.poll(cx).is_pending() {
            return false;
        }
        self.is_draining = true;
        let ending = drain::ending();
        self.care.session.drain(now + ending.moment(), ending.patience);
        true
    }

    fn poll_app(&mut self, cx: &mut Context<'_>, now: Duration) -> bool {
        let held = &mut *self.care;
        let Some(asking) = &mut held.asking else { return false };
        let Poll::Ready(answer) = asking.as_mut().poll(cx) else { return false };
        held.asking = None;
        held.answered(answer, now, &mut self.wire.outbox);
        self.grant();
        true
    }

    /// Does what the app wants of the channels.
    fn grant(&mut self) {
        for wish in self.care.session.take_wishes() {
            let Some(subscriber) = &self.subscriber else { continue };
            match wish {
                Wish::Subscribe { channel, filters } => {
                    let filters = Filters::named(filters.iter().map(String::as_str));
                    let subscription = Subscription { channel: channel.into(), filters, position: None };
                    if let Err(error) = subscriber.subscribe(&subscription) {
                        tracing::debug!("a subscription of a WebSocket is left out: {error}");
                    }
                }
                Wish::Unsubscribe { channel } => subscriber.unsubscribe(&channel),
                Wish::SetMeta { name, value } => subscriber.set_meta(&name, value.as_deref()),
            }
        }
    }

    fn poll_channels(&mut self, cx: &mut Context<'_>, now: Duration) -> bool {
        let Some(subscriber) = &self.subscriber else { return false };
        let (session, out) = (&mut self.care.session, &mut self.wire.outbox);
        if !session.wants_published(out) {
            if subscriber.poll_overflow(cx).is_ready() {
                session.overflowed();
                return true;
            }
            return false;
        }
        let Poll::Ready(delivery) = subscriber.poll_next(cx) else { return false };
        match delivery {
            Delivery::Message(message) => session.published(message.frame().clone(), now, out),
            Delivery::Close(code, reason) => session.published_close(code, &reason, out),
            Delivery::Refresh => session.published_refresh(),
            Delivery::Overflow => session.overflowed(),
            // A WebSocket has no position to go back to: it goes on, and its app is asked what has been missed.
            Delivery::Recover => {
                subscriber.resume();
                session.published_refresh();
            }
            // Of other formats.
            Delivery::Reply(_) | Delivery::Data(_) | Delivery::Hint => {}
        }
        true
    }

    fn poll_client(&mut self, cx: &mut Context<'_>, now: Duration) -> bool {
        if !self.care.session.wants_input() {
            return false;
        }
        let received = self.wire.poll_read(cx);
        if self.wire.bytes_read() != self.read {
            self.read = self.wire.bytes_read();
            self.care.session.heard(now);
        }
        let Poll::Ready(received) = received else { return false };
        self.care.session.received(received, now, &mut self.wire.outbox);
        true
    }

    fn ask(&mut self, now: Duration) -> bool {
        let held = &mut *self.care;
        if held.asking.is_some() {
            return false;
        }
        let Some(sending) = held.session.next_request(now, &self.wire.outbox) else { return false };
        held.asking = Some(held.asker.tell(sending));
        true
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, now: Duration) -> bool {
        if self.wire.outbox.is_done() {
            return false;
        }
        let before = self.wire.outbox.len();
        let failed = matches!(self.wire.poll_write(cx), Poll::Ready(Err(_)));
        let went = before - self.wire.outbox.len();
        self.care.session.wrote(went, now, &self.wire.outbox);
        if failed {
            self.wire.outbox.clear();
            self.care.session.received(Received::Gone, now, &mut self.wire.outbox);
        }
        went > 0 || failed
    }

    /// Ready when it is time for something.
    fn poll_time(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<()> {
        let next = self.care.session.next_time(&self.wire.outbox);
        if next != self.armed {
            match next {
                Some(at) => self.deadline.arm(at.saturating_sub(now)),
                None => self.deadline.disarm(),
            }
            self.armed = next;
        }
        let over = self.deadline.poll(cx);
        if over.is_ready() {
            self.armed = None;
            self.deadline.disarm();
        }
        over
    }
}
