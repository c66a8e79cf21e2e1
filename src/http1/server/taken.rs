//! How fast the client takes a response.
//!
//! What the kernel has is not yet with the client, and a slow client lets us write only when a third of the socket's
//! buffer is free: that can be minutes of bytes taken all the time. So when half of the client's allowance is used up,
//! and again at its end, the kernel is asked how much has been acknowledged. No system call before that.

use std::task::{Context, Poll, ready};

use super::connection::Connection;
use crate::config::MinRate;
use crate::runtime::buffers;
use crate::runtime::{Allowance, Deadline};

/// The client's credit for one response.
pub(super) struct Taken {
    rate: MinRate,
    allowance: Allowance,
    /// What was not acknowledged when the kernel was last asked; `None`: something was written since.
    left: Option<u32>,
    is_waiting: bool,
    /// Whether it ever did: before that there is nothing to earn.
    has_waited: bool,
}

impl Taken {
    pub(super) fn new(rate: MinRate) -> Self {
        Self { rate, allowance: Allowance::new(rate), left: None, is_waiting: false, has_waited: false }
    }

    /// The socket has taken so many bytes.
    pub(super) fn some(&mut self, bytes: usize, deadline: &Deadline) {
        if self.has_waited {
            self.is_waiting = false;
            self.left = None;
            self.allowance.moved(bytes as u64, deadline);
        }
    }

    /// The socket has taken all that there is.
    pub(super) fn all(&mut self, deadline: &Deadline) {
        if self.has_waited {
            // Its buffer was full, and has room for more than was left: a good part of it has been read.
            *self = Self::new(self.rate);
            deadline.disarm();
        }
    }

    /// The socket takes nothing. Ready when the client is too slow.
    pub(super) fn poll_stalled(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        is_flushing: bool,
    ) -> Poll<()> {
        let deadline = &connection.deadline;
        if is_flushing && self.is_waiting && !deadline.is_over() {
            self.some(buffers::SIZE, deadline);
        }
        (self.is_waiting, self.has_waited) = (true, true);
        loop {
            let is_evicted = ready!(self.allowance.poll_half(deadline, cx));
            // The first look shows only from where on; where nothing can be seen, another one shows no more.
            let acknowledged = self.acknowledged(connection);
            if is_evicted && (acknowledged == Some(0) || self.left.is_none()) {
                return Poll::Ready(());
            }
            self.allowance.moved(acknowledged.unwrap_or(0), deadline);
            if self.allowance.left().is_zero() {
                return Poll::Ready(());
            }
        }
    }

    /// What the client has acknowledged since the kernel was last asked; `None`: it was not.
    fn acknowledged(&mut self, connection: &Connection) -> Option<u64> {
        let before = std::mem::replace(&mut self.left, connection.io.borrow().stream.socket().unacknowledged());
        Some(before?.saturating_sub(self.left?).into())
    }
}
