//! What becomes of a WebSocket between its client and its app, without any input or output of its own: it is told what has come
//! and what time it is, and says what is to be sent to whom.
//!
//! | who ends it | the client gets | the app gets |
//! |---|---|---|
//! | the client, by a Close | the app's Close; its own again when the app says nothing for [`CLOSE_PATIENCE`] | what came before, then CLOSE |
//! | the app, by CLOSE or by publishing `close` | that Close | the client's answer as CLOSE, or DISCONNECT |
//! | the app, by DISCONNECT | its connection is broken off | nothing more |
//! | the client, by leaving | | what came before, then DISCONNECT |
//! | the client, by breaking the rules | 1002, 1007 or 1009 | what came before, then DISCONNECT |
//! | the app, by failing | 1011, or 1013 where it was only too busy | DISCONNECT. What it has not taken is not sent again |
//! | the edge, by stopping | 1001 | what came before, then the client's answer as CLOSE, or DISCONNECT |
//!
//! One request is out at a time, and what the app has not taken stays in the [`Batch`]: so nothing is lost on the way, doubled or
//! reordered as long as the socket is open. Once the app may have begun what it has not answered for, the socket ends.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::answer::{Answer, Failure};
use super::batch::{Batch, Sending};
use super::control::{self, Control, KeepAlive, Message};
use crate::config::MinRate;
use crate::error::Reason;
use crate::realtime::events::{self, Event, Kind};
use crate::realtime::websocket::{Broken, Opcode, Outbox, Received, close};
use crate::runtime::Credit;

/// How long a Close waits for the other side's.
pub(super) const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What a route says of its WebSockets.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Whether the app may say what only the edge can do.
    pub(super) is_grip: bool,
    /// Bytes that wait for the app before the client has to, and bytes that wait for the client before the app is not asked.
    pub(super) buffer: usize,
    /// After how long without a word the client is sent a ping.
    pub(super) ping: Option<Duration>,
    /// What the client has to take of what waits for it.
    pub(super) read_rate: MinRate,
}

/// What the app wants of the channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Subscribe { channel: String, filters: Vec<String> },
    Unsubscribe { channel: String },
    SetMeta { name: String, value: Option<String> },
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Open,
    /// The client has sent its Close, and waits for ours.
    Asked {
        code: Option<u16>,
        reason: String,
        until: Duration,
    },
    /// Ours has been sent, and the client's is waited for, once it has all that was sent.
    Sent {
        until: Option<Duration>,
    },
    /// Nothing is waited for. What has not been written yet still is, if `is_orderly`.
    Over {
        is_orderly: bool,
    },
}

/// Why it has ended otherwise than by a Close of the client or of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) reason: Reason,
    /// For the operator.
    pub(super) detail: String,
    /// Whether it has been counted under the upstream's name.
    pub(super) is_counted: bool,
}

/// A WebSocket that is open.
pub(super) struct Session {
    rules: Rc<Rules>,
    stage: Stage,
    cause: Option<Cause>,
    /// For the app.
    batch: Batch,
    /// Whether CLOSE or DISCONNECT is among what has been sent or waits: nothing follows.
    is_end_told: bool,
    /// The app wants to hear nothing more.
    is_detached: bool,
    /// What messages for the client begin with, where the app may say other things as well.
    prefix: Option<Bytes>,
    /// How long after an answer the app is asked again, without a message.
    interval: Option<Duration>,
    ask_at: Option<Duration>,
    /// It has been published that the app wants to be asked.
    is_refresh: bool,
    ping_at: Option<Duration>,
    /// Pings since anything has come.
    pings: u8,
    /// How far the client may still fall behind that has not taken all, and since when that is.
    behind: Option<(Credit, Duration)>,
    keep_alive: Option<KeepAlive>,
    keep_alive_at: Option<Duration>,
    delayed: Option<(Message, Duration)>,
    drain_at: Option<Duration>,
    /// The edge is stopping, and an answer is waited for that is on its way.
    is_leaving: bool,
    /// For how long the other side's Close is waited for.
    patience: Duration,
    wishes: Vec<Wish>,
    /// Messages of the client, and to it, since they were asked for.
    counts: (u64, u64),
}

impl Session {
    /// One that the app has taken with this answer.
    pub(super) fn new(rules: Rc<Rules>, now: Duration) -> Self {
        let ping_at = rules.ping.map(|ping| now + ping);
        Self {
            rules,
            stage: Stage::Open,
            cause: None,
            batch: Batch::default(),
            is_end_told: false,
            is_detached: false,
            prefix: None,
            interval: None,
            ask_at: None,
            is_refresh: false,
            ping_at,
            pings: 0,
            behind: None,
            keep_alive: None,
            keep_alive_at: None,
            delayed: None,
            drain_at: None,
            is_leaving: false,
            patience: CLOSE_PATIENCE,
            wishes: Vec::new(),
            counts: (0, 0),
        }
    }

    /// Whether a message of the client finds room.
    pub(super) fn wants_input(&self) -> bool {
        match self.stage {
            Stage::Open => self.batch.len() < self.rules.buffer,
            Stage::Sent { .. } => true,
            Stage::Asked { .. } | Stage::Over { .. } => false,
        }
    }

    /// Whether what is published finds somebody.
    pub(super) fn wants_published(&self, out: &Outbox) -> bool {
        self.is_speaking() && out.len() < self.rules.buffer
    }

    /// `Some`: nothing is waited for any more. With whether the rest is still to be written.
    pub(super) fn over(&self) -> Option<bool> {
        match self.stage {
            Stage::Over { is_orderly } => Some(is_orderly),
            _ => None,
        }
    }

    /// Why it has ended, if that is worth a word.
    pub(super) fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// What the app has wanted since the last look.
    pub(super) fn take_wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }

    /// Messages of the client, and to it, since the last look.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.counts)
    }

    /// The client has sent something, whatever it is.
    pub(super) fn heard(&mut self, now: Duration) {
        self.pings = 0;
        self.ping_at = self.rules.ping.map(|ping| now + ping);
    }

    /// Something has been put into the outbox or written from it, of which so many bytes have gone.
    pub(super) fn wrote(&mut self, went: usize, now: Duration, out: &Outbox) {
        if out.is_done() {
            self.behind = None;
            if let Stage::Sent { until } = &mut self.stage {
                // The client has ours now.
                until.get_or_insert(now + self.patience);
            }
            return;
        }
        let (credit, since) = self.behind.get_or_insert_with(|| (Credit::new(self.rules.read_rate), now));
        if went > 0 {
            credit.spend(now.saturating_sub(*since));
            credit.earn(went as u64);
            *since = now;
        }
    }

    /// When the client is given up that takes too little.
    fn stalled_at(&self) -> Option<Duration> {
        self.behind.map(|(credit, since)| since + credit.left())
    }

    /// The client has sent this.
    pub(super) fn received(&mut self, received: Received, now: Duration, out: &mut Outbox) {
        match received {
            Received::Sign => {}
            Received::Text(content) => self.message(Kind::Text, &content),
            Received::Binary(content) => self.message(Kind::Binary, &content),
            Received::Close(code, reason) => self.client_closes(code, reason, now, out),
            Received::Broken(Broken { code, reason, detail }) => {
                if self.is_speaking() {
                    out.close(Some(code), "");
                    self.fail(reason, detail);
                }
                self.stage = Stage::Over { is_orderly: true };
            }
            Received::Gone => {
                if self.stage == Stage::Open {
                    self.fail(Reason::ClientGone, String::new());
                }
                self.stage = Stage::Over { is_orderly: false };
            }
        }
    }

    fn message(&mut self, kind: Kind, content: &[u8]) {
        if self.stage == Stage::Open {
            self.counts.0 += 1;
            if !self.is_detached {
                self.batch.push(kind, content);
            }
        }
    }

    fn client_closes(&mut self, code: Option<u16>, reason: String, now: Duration, out: &mut Outbox) {
        let is_first = self.stage == Stage::Open;
        if !self.is_detached {
            self.tell_close(code, &reason);
        }
        self.stage = match is_first && !self.is_detached {
            true => Stage::Asked { code, reason, until: now + self.patience },
            false => {
                if is_first {
                    out.close(code, &reason);
                }
                Stage::Over { is_orderly: true }
            }
        };
    }

    /// What is sent to the app now, if anything is. To be called again once it has answered.
    pub(super) fn next_request(&mut self, now: Duration, out: &Outbox) -> Option<Sending> {
        if self.batch.is_out() || self.is_detached || self.is_patient(out) {
            return None;
        }
        let is_due = !self.is_end_told && (self.is_refresh || self.ask_at.is_some_and(|at| at <= now));
        if !self.batch.is_news() && !is_due {
            return None;
        }
        self.is_refresh = false;
        self.ask_at = None;
        Some(self.batch.take(self.is_end_told))
    }

    /// Whether the app is not asked before the client has taken some of what waits for it.
    fn is_patient(&self, out: &Outbox) -> bool {
        self.stage == Stage::Open && out.len() >= self.rules.buffer
    }

    /// The app has answered the request that was out, or could not.
    pub(super) fn answered(&mut self, answer: Result<Answer, Failure>, now: Duration, out: &mut Outbox) {
        let is_end_out = self.batch.is_end_out();
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return self.app_failed(failure, is_end_out, out),
        };
        if let Err(fault) = self.batch.accepted(answer.accepted, self.rules.buffer) {
            let detail = format!("Content-Bytes-Accepted is {} of {}", fault.accepted, fault.offered);
            return self.app_failed(Failure::of_app(Reason::BadEvents, detail), is_end_out, out);
        }
        if matches!(self.stage, Stage::Over { .. }) {
            // The client is not there to hear of it.
            self.heed_detach(&answer.events);
            return;
        }
        if let Some(interval) = answer.interval {
            self.interval = interval;
        }
        for event in answer.events {
            if event.kind == Kind::Open {
                let detail = "a second OPEN".to_owned();
                return self.app_failed(Failure::of_app(Reason::BadEvents, detail), is_end_out, out);
            }
            self.happens(event, now, out);
        }
        if let Stage::Asked { code, reason, .. } = &self.stage
            && self.batch.is_empty()
        {
            out.close(*code, reason);
            self.stage = Stage::Over { is_orderly: true };
        }
        self.ask_at = self.interval.map(|interval| now + interval);
        if self.is_leaving {
            self.go_away(now, out);
        }
    }

    /// What is left of an answer when the client has gone: whether the app wants to hear of that.
    fn heed_detach(&mut self, events: &[Event]) {
        let is_detach = |event: &Event| {
            let json = event.content.strip_prefix(control::PREFIX).filter(|_| event.kind == Kind::Text);
            json.is_some_and(|json| control::parse(json) == Ok(Some(Control::Detach)))
        };
        if self.prefix.is_some() && events.iter().any(is_detach) {
            self.is_detached = true;
            self.batch.clear();
        }
    }

    /// The answer to OPEN, where the client has gone meanwhile.
    pub(super) fn opened_for_nobody(&mut self, answer: &Answer, prefix: Option<Bytes>) {
        self.prefix = prefix.filter(|_| self.rules.is_grip);
        self.heed_detach(&answer.events);
    }

    /// The answer to OPEN: what stands in it behind OPEN is said now.
    pub(super) fn opened(&mut self, answer: Answer, prefix: Option<Bytes>, now: Duration, out: &mut Outbox) {
        self.prefix = prefix.filter(|_| self.rules.is_grip);
        let events = answer.events.into_iter().skip(1).collect();
        self.answered(Ok(Answer { events, accepted: None, ..answer }), now, out);
    }

    fn happens(&mut self, event: Event, now: Duration, out: &mut Outbox) {
        match event.kind {
            Kind::Text => self.app_says(Opcode::Text, event.content, now, out),
            Kind::Binary => self.app_says(Opcode::Binary, event.content, now, out),
            Kind::Ping => self.send(&Message { opcode: Opcode::Ping, content: event.content }, now, out),
            Kind::Pong => self.send(&Message { opcode: Opcode::Pong, content: event.content }, now, out),
            Kind::Close => {
                let (code, reason) = events::parse_close(&event.content).unwrap_or_default();
                self.app_closes(code, reason, out);
            }
            Kind::Disconnect => {
                self.is_end_told = true;
                self.batch.clear();
                self.stage = Stage::Over { is_orderly: false };
            }
            Kind::Open => {}
        }
    }

    /// A message for the client, or one for the edge.
    fn app_says(&mut self, opcode: Opcode, content: Bytes, now: Duration, out: &mut Outbox) {
        let content = match &self.prefix {
            None => content,
            Some(_) if opcode == Opcode::Text && content.starts_with(control::PREFIX) => {
                return self.control(&content[control::PREFIX.len()..], now, out);
            }
            Some(prefix) if content.starts_with(prefix) => content.slice(prefix.len()..),
            // For neither: Pushpin drops it as well.
            Some(_) => return,
        };
        self.send(&Message { opcode, content }, now, out);
    }

    fn control(&mut self, json: &[u8], now: Duration, out: &mut Outbox) {
        let control = match control::parse(json) {
            Ok(Some(control)) => control,
            Ok(None) => return,
            Err(what) => {
                tracing::debug!("a control message of the app is left out: {what}");
                return;
            }
        };
        match control {
            Control::Subscribe { channel, filters } => self.wishes.push(Wish::Subscribe { channel, filters }),
            Control::Unsubscribe { channel } => self.wishes.push(Wish::Unsubscribe { channel }),
            Control::SetMeta { name, value } => self.wishes.push(Wish::SetMeta { name, value }),
            Control::Detach => {
                self.is_detached = true;
                self.batch.clear();
            }
            Control::KeepAlive(keep_alive) => {
                self.keep_alive_at = keep_alive.as_ref().map(|keep_alive| now + keep_alive.every);
                self.keep_alive = keep_alive;
            }
            Control::SendDelayed { message, after } => {
                self.flush_delayed(now, out);
                self.delayed = Some((message, now + after));
            }
            Control::FlushDelayed => self.flush_delayed(now, out),
        }
    }

    fn flush_delayed(&mut self, now: Duration, out: &mut Outbox) {
        if let Some((message, _)) = self.delayed.take() {
            self.send(&message, now, out);
        }
    }

    fn app_closes(&mut self, code: Option<u16>, reason: &str, out: &mut Outbox) {
        let code = close::for_client(code);
        match &self.stage {
            Stage::Open => {
                out.close(code, reason);
                self.stage = Stage::Sent { until: None };
            }
            Stage::Asked { code: asked, .. } => {
                out.close(code.or(*asked), reason);
                self.stage = Stage::Over { is_orderly: true };
            }
            Stage::Sent { .. } | Stage::Over { .. } => {}
        }
    }

    /// Frames that were published on a channel of it.
    pub(super) fn published(&mut self, frames: Bytes, now: Duration, out: &mut Outbox) {
        if self.is_speaking() {
            out.bytes(frames);
            self.counts.1 += 1;
            self.said(now);
        }
    }

    /// It was published that the connection ends.
    pub(super) fn published_close(&mut self, code: Option<u16>, reason: &str, out: &mut Outbox) {
        self.app_closes(code, reason, out);
    }

    /// It was published that the app wants to be asked.
    pub(super) fn published_refresh(&mut self) {
        self.is_refresh = true;
    }

    /// More has been published than the client takes.
    pub(super) fn overflowed(&mut self) {
        let detail = format!("more than {} bytes wait (realtime.buffer)", self.rules.buffer);
        self.drop_client(Reason::HoldOverflow, detail);
    }

    /// The edge is stopping: the client is told at that time, and has so long for its answer.
    pub(super) fn drain(&mut self, at: Duration, patience: Duration) {
        if self.stage == Stage::Open && self.drain_at.is_none() {
            (self.drain_at, self.patience) = (Some(at), patience);
        }
    }

    /// When it wants to be told the time.
    pub(super) fn next_time(&self, out: &Outbox) -> Option<Duration> {
        let until = match self.stage {
            Stage::Asked { until, .. } => Some(until),
            Stage::Sent { until } => until,
            Stage::Open | Stage::Over { .. } => None,
        };
        // While a request is out, its answer is what is waited for; and while too much waits for the client, that it takes some.
        let is_asked_by_time = !self.batch.is_out() && !self.is_detached && !self.is_end_told && !self.is_patient(out);
        let ask_at = self.ask_at.filter(|_| is_asked_by_time);
        let delayed = self.delayed.as_ref().map(|(_, at)| *at);
        let times = [until, ask_at, delayed, self.ping_at, self.stalled_at(), self.keep_alive_at, self.drain_at];
        times.into_iter().flatten().min()
    }

    /// It is this late.
    pub(super) fn time(&mut self, now: Duration, out: &mut Outbox) {
        match &self.stage {
            Stage::Asked { code, reason, until } if *until <= now => {
                out.close(*code, reason);
                self.stage = Stage::Over { is_orderly: true };
            }
            Stage::Sent { until: Some(until) } if *until <= now => self.stage = Stage::Over { is_orderly: false },
            _ => {}
        }
        if is_due(&mut self.drain_at, now) && self.stage == Stage::Open {
            if self.batch.is_out() && !self.is_leaving {
                // Its answer is worth a moment: nobody will ask for it again.
                self.is_leaving = true;
                self.drain_at = Some(now + self.patience);
            } else {
                self.go_away(now, out);
            }
        }
        if self.stalled_at().is_some_and(|at| at <= now) {
            let MinRate { min, after } = self.rules.read_rate;
            let detail = format!("{} bytes wait, and for {after:?} less than {min} a second were taken", out.len());
            return self.drop_client(Reason::ClientStalled, detail);
        }
        if let Some((_, at)) = &self.delayed
            && *at <= now
        {
            self.flush_delayed(now, out);
        }
        if is_due(&mut self.keep_alive_at, now)
            && let Some(KeepAlive { message, every, .. }) = self.keep_alive.clone()
        {
            // A client that has not taken what was sent before needs no more of it.
            if out.is_done() {
                self.send(&message, now, out);
            }
            self.keep_alive_at = Some(now + every);
        }
        if is_due(&mut self.ping_at, now) {
            self.ping(now, out);
        }
    }

    /// The edge is stopping.
    fn go_away(&mut self, now: Duration, out: &mut Outbox) {
        if self.stage == Stage::Open {
            self.drain_at = None;
            out.close(Some(close::GOING_AWAY), "");
            self.fail(Reason::ShuttingDown, String::new());
            self.stage = Stage::Sent { until: None };
            self.wrote(0, now, out);
        }
    }

    /// Nothing has come for a while.
    fn ping(&mut self, now: Duration, out: &mut Outbox) {
        const MOST: u8 = 2;
        if !self.is_speaking() {
            return;
        }
        self.ping_at = self.rules.ping.map(|ping| now + ping);
        if !self.wants_input() || !out.is_empty() {
            // Nobody listens to the client, or a ping would not come to it before what waits: what it does not say is not its
            // fault.
            return;
        }
        if self.pings == MOST {
            let detail = format!("{MOST} pings have no answer (websocket.ping)");
            return self.drop_client(Reason::PingTimeout, detail);
        }
        self.pings += 1;
        out.frame(Opcode::Ping, &Bytes::new());
    }

    /// The client's side is over. What the app has to hear yet is what [`Self::next_request`] brings from now on.
    pub(super) fn leave(&mut self) {
        self.stage = Stage::Over { is_orderly: false };
        if !self.is_detached && !self.is_end_told {
            self.tell(Kind::Disconnect, &[]);
        }
    }

    /// What was out may have been done, or not: nothing of it is sent again, and nothing that would come behind it. The app
    /// hears of the end alone, unless that was out.
    fn app_failed(&mut self, failure: Failure, is_end_out: bool, out: &mut Outbox) {
        self.is_end_told &= is_end_out;
        self.batch.clear();
        if self.is_speaking() {
            out.close(Some(failure.code), "");
            self.stage = Stage::Over { is_orderly: true };
        } else if matches!(self.stage, Stage::Over { .. }) {
            self.leave();
        }
        let Failure { reason, detail, is_counted, .. } = failure;
        self.cause.get_or_insert(Cause { reason, detail, is_counted });
    }

    fn drop_client(&mut self, reason: Reason, detail: String) {
        self.fail(reason, detail);
        self.stage = Stage::Over { is_orderly: false };
    }

    fn fail(&mut self, reason: Reason, detail: String) {
        self.cause.get_or_insert(Cause { reason, detail, is_counted: false });
    }

    /// Whether the client may still be sent messages.
    fn is_speaking(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Asked { .. })
    }

    fn send(&mut self, message: &Message, now: Duration, out: &mut Outbox) {
        if self.is_speaking() {
            out.frame(message.opcode, &message.content);
            self.counts.1 += 1;
            self.said(now);
        }
    }

    /// Something has been sent to the client: what is sent when nothing else is, is not now.
    fn said(&mut self, now: Duration) {
        if let Some(KeepAlive { every, is_interval: false, .. }) = &self.keep_alive {
            self.keep_alive_at = Some(now + *every);
        }
    }

    fn tell_close(&mut self, code: Option<u16>, reason: &str) {
        if !self.is_end_told {
            match code {
                None => self.tell(Kind::Close, &[]),
                Some(code) => self.tell(Kind::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat()),
            }
        }
    }

    fn tell(&mut self, kind: Kind, content: &[u8]) {
        self.batch.push(kind, content);
        self.is_end_told = true;
    }
}

/// Whether a time has come; it does not come again.
fn is_due(at: &mut Option<Duration>, now: Duration) -> bool {
    at.take_if(|at| *at <= now).is_some()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
