//! When a connection ends that gives nobody anything to do: one that never says what it is, one without streams, one
//! whose head never ends, one that takes nothing of what is sent.

use std::task::{Context, Poll};
use std::time::Duration;

use super::Limits;
use super::shared::Shared;
use super::stall::Stall;
use crate::edge::frame_guard::Guard;
use crate::runtime::deadline::{self, Spare};
use crate::runtime::{Deadline, drain};

/// From GOAWAY to the end of a connection without streams.
const GOODBYE: Duration = Duration::from_secs(5);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing: whoever waits is woken.
    Nothing,
    /// To say goodbye, and to let end what is under way.
    Goodbye,
    /// To end at once, with a goodbye if it has spoken: its place is needed, and it has no streams.
    Evicted,
    /// To end at once: there was no preface in time.
    NoPreface,
    /// To end at once: a head took too long.
    HeadTimeout,
    /// To end at once: the client takes nothing.
    Stalled,
    /// To end at once: goodbye was said, and nothing is left to wait for.
    End,
}

/// The deadlines of one connection.
pub(super) struct Timers {
    idle: Deadline,
    head: Option<(Deadline, u64)>,
    stall: Option<Box<Stall>>,
    taken: u64,
    header_timeout: Duration,
    idle_timeout: Duration,
    was_busy: bool,
    has_spoken: bool,
    said_goodbye: bool,
    is_ending: bool,
    /// Whether a drain has found it before its preface.
    is_last_chance: bool,
}

impl Timers {
    pub(super) fn new(limits: &Limits) -> Self {
        let idle = Deadline::new();
        idle.arm_spare(limits.header_timeout, Spare::Idle, deadline::NEWCOMER);
        Self {
            idle,
            head: None,
            stall: None,
            taken: 0,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            was_busy: false,
            has_spoken: false,
            said_goodbye: false,
            is_ending: false,
            is_last_chance: false,
        }
    }

    /// The preface has come.
    pub(super) fn has_spoken(&mut self) {
        self.has_spoken = true;
    }

    /// Goodbye is said for another reason. The codec has some time for it.
    pub(super) fn is_ending(&mut self) {
        self.is_ending = true;
        self.idle.arm(GOODBYE);
    }

    /// Looks at all of them. `is_blocked`: bytes are kept that the socket does not take.
    pub(super) fn poll(&mut self, shared: &Shared, guard: &Guard, is_blocked: bool, cx: &mut Context<'_>) -> Due {
        if self.is_ending {
            return if self.idle.poll(cx).is_ready() { Due::End } else { Due::Nothing };
        }
        if self.poll_stall(shared, is_blocked, cx).is_ready() {
            return Due::Stalled;
        }
        if self.poll_head(guard, cx).is_ready() {
            return Due::HeadTimeout;
        }
        // An answer is not done before the socket has taken it.
        self.poll_idle(shared.is_busy() || is_blocked, cx)
    }

    fn poll_idle(&mut self, is_busy: bool, cx: &mut Context<'_>) -> Due {
        if is_busy != self.was_busy {
            self.was_busy = is_busy;
            match (is_busy, self.said_goodbye) {
                (true, _) => self.idle.disarm(),
                (false, true) => self.idle.arm(GOODBYE),
                (false, false) => self.idle.arm_spare(self.idle_timeout, Spare::Idle, Duration::ZERO),
            }
        }
        let is_over = self.idle.poll(cx).is_ready();
        if self.said_goodbye {
            return if is_over { Due::End } else { Due::Nothing };
        }
        if is_over && self.idle.is_evicted() {
            return Due::Evicted;
        }
        if !self.has_spoken {
            return self.poll_preface(is_over, cx);
        }
        if !is_over && !drain::is_draining() {
            return Due::Nothing;
        }
        self.said_goodbye = true;
        if !is_busy {
            self.idle.arm(GOODBYE);
        }
        Due::Goodbye
    }

    /// Nothing can be said before the preface. While the edge drains, it may still come with a first request.
    fn poll_preface(&mut self, is_over: bool, cx: &mut Context<'_>) -> Due {
        if is_over {
            return Due::NoPreface;
        }
        if drain::is_draining() && !std::mem::replace(&mut self.is_last_chance, true) {
            self.idle.arm(drain::FIRST_REQUEST);
            return if self.idle.poll(cx).is_ready() { Due::NoPreface } else { Due::Nothing };
        }
        Due::Nothing
    }

    /// Every head has its own time, from its first bytes on.
    fn poll_head(&mut self, guard: &Guard, cx: &mut Context<'_>) -> Poll<()> {
        match (guard.open_head(), &mut self.head) {
            (None, None) => return Poll::Pending,
            (None, Some((deadline, _))) => deadline.disarm(),
            (Some(number), head) => {
                let (deadline, of) = head.get_or_insert_with(|| (Deadline::new(), number));
                if !deadline.is_armed() || *of != number {
                    *of = number;
                    deadline.arm(self.header_timeout);
                }
                return deadline.poll(cx);
            }
        }
        Poll::Pending
    }

    fn poll_stall(&mut self, shared: &Shared, is_blocked: bool, cx: &mut Context<'_>) -> Poll<()> {
        let taken = shared.wire.taken();
        let moved = taken - std::mem::replace(&mut self.taken, taken);
        if let Some(stall) = self.stall.as_mut().filter(|stall| stall.is_waiting() && (moved > 0 || !is_blocked)) {
            stall.moved(moved);
        }
        if !is_blocked {
            return Poll::Pending;
        }
        let stall = self.stall.get_or_insert_with(|| Box::new(Stall::new(shared.limits.read_rate)));
        stall.poll(cx, || shared.wire.acknowledged())
    }
}
