//! Whether this thread is on its way out: connections look at it between two requests.

use std::cell::Cell;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Deadline, deadline};

/// How long a drain waits for a first request that may be on its way: of a connection that was just opened, of a
/// handshake, of a head that has begun.
pub const FIRST_REQUEST: Duration = Duration::from_secs(1);

thread_local! {
    static DRAINING: Cell<bool> = const { Cell::new(false) };
}

/// Whether connections of this thread should end after the exchange at hand.
#[must_use]
pub fn is_draining() -> bool {
    DRAINING.get()
}

/// Asks all connections of this thread to end, and wakes the idle ones.
pub fn begin() {
    DRAINING.set(true);
    deadline::wake_all();
}

/// Whoever lives long and is to hear that the edge is stopping.
#[derive(Default)]
pub struct Draining(Deadline);

impl Draining {
    /// One that listens from its first poll on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ready once this thread drains, and from then on.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if is_draining() {
            return Poll::Ready(());
        }
        // It is never armed: what wakes its task is the drain.
        self.0.poll(cx)
    }
}
