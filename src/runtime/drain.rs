//! Whether this thread is on its way out: connections look at it between two requests.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::chance::some_of;
use super::{Deadline, deadline};

/// How long a drain waits for a first request that may be on its way: of a connection that was just opened, of a
/// handshake, of a head that has begun.
pub const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// The longest time over which farewells are spread.
const LONGEST_SPREAD: Duration = Duration::from_secs(30);
/// The longest for which one waits for its answer.
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);

/// How what lives long ends when the edge does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Over which time clients are told: they come back all together otherwise.
    pub spread: Duration,
    /// How long each has for its answer.
    pub patience: Duration,
}

impl Ending {
    /// Where everything is to have ended after `timeout`.
    #[must_use]
    pub fn within(timeout: Duration) -> Self {
        let part = timeout / 4;
        Self { spread: part.min(LONGEST_SPREAD), patience: part.min(LONGEST_PATIENCE) }
    }

    /// When one of them is told, from now: by chance.
    #[must_use]
    pub fn moment(self) -> Duration {
        some_of(self.spread)
    }
}

thread_local! {
    static DRAINING: Cell<bool> = const { Cell::new(false) };
    static ENDING: Cell<Ending> = const { Cell::new(Ending { spread: Duration::ZERO, patience: LONGEST_PATIENCE }) };
    static ERRANDS: Cell<usize> = const { Cell::new(0) };
    static WAITS_FOR_ERRANDS: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// Whether connections of this thread should end after the exchange at hand.
#[must_use]
pub fn is_draining() -> bool {
    DRAINING.get()
}

/// How long-lived connections of this thread end, once it drains.
#[must_use]
pub fn ending() -> Ending {
    ENDING.get()
}

/// Asks all connections of this thread to end, and wakes the idle ones.
pub fn begin(ending: Ending) {
    ENDING.set(ending);
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

/// The turn to go of one who is held, once this thread drains: a moment of its own, because clients come back at once.
#[derive(Debug, Default)]
pub struct Turn(Option<Duration>);

impl Turn {
    /// When it is, by the clock that says [`now`](deadline::awake). `None`: this thread does not drain.
    pub fn at(&mut self, now: Duration) -> Option<Duration> {
        is_draining().then(|| *self.0.get_or_insert_with(|| now + ending().moment()))
    }
}

/// Something that is yet to be done for a client that has gone. A drain waits for it as it does for connections.
#[derive(Debug)]
pub struct Errand(());

impl Errand {
    /// One that ends when it is dropped.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "an errand is begun, not had")]
    pub fn new() -> Self {
        ERRANDS.set(ERRANDS.get() + 1);
        Self(())
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        let left = ERRANDS.get() - 1;
        ERRANDS.set(left);
        if left == 0
            && let Some(waker) = WAITS_FOR_ERRANDS.take()
        {
            waker.wake();
        }
    }
}

/// Waits until no errand of this thread is left.
pub async fn errands() {
    poll_fn(|cx| {
        if ERRANDS.get() == 0 {
            return Poll::Ready(());
        }
        WAITS_FOR_ERRANDS.set(Some(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn farewells_are_spread_over_a_part_of_the_time_that_there_is() {
        let seconds = Duration::from_secs;
        for (timeout, spread, patience) in [(0, 0, 0), (8, 2, 2), (40, 10, 5), (3600, 30, 5)] {
            let expected = Ending { spread: seconds(spread), patience: seconds(patience) };
            assert_eq!(Ending::within(seconds(timeout)), expected, "{timeout}");
        }
        let moments: std::collections::HashSet<_> = (0..50).map(|_| Ending::within(seconds(8)).moment()).collect();
        assert!(moments.len() > 10 && moments.iter().all(|moment| *moment < seconds(2)), "{moments:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_the_last_errand() {
        errands().await;
        let (first, second) = (Errand::new(), Errand::new());
        let order = RefCell::new(Vec::new());
        tokio::join!(
            async {
                errands().await;
                order.borrow_mut().push("over");
            },
            async {
                drop(first);
                tokio::task::yield_now().await;
                order.borrow_mut().push("first");
                drop(second);
            }
        );
        assert_eq!(order.into_inner(), ["first", "over"]);
    }
}
