//! A client that takes nothing, or too little: what it may cost us in time (`limits.read_rate`).
//!
//! What we have written may lie in the socket for long, so that we see nothing move although the client reads on. Half
//! way through the allowance the kernel is asked how much has been acknowledged, and at its end again: the difference is
//! progress. A client that keeps up costs no system call.

use std::task::{Context, Poll, ready};

use crate::config::MinRate;
use crate::runtime::{Allowance, Deadline};

/// One thing that a client has to take.
pub(super) struct Stall {
    allowance: Allowance,
    deadline: Deadline,
    /// How far the client had come when we looked last.
    seen: Option<u64>,
    is_waiting: bool,
}

impl Stall {
    /// The whole allowance.
    pub(super) fn new(rate: MinRate) -> Self {
        Self { allowance: Allowance::new(rate), deadline: Deadline::new(), seen: None, is_waiting: false }
    }

    /// Whether we wait for the client.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// The client has taken `bytes`, and we do not wait for the moment.
    pub(super) fn moved(&mut self, bytes: u64) {
        self.allowance.moved(bytes, &self.deadline);
        self.seen = None;
        self.is_waiting = false;
    }

    /// We wait for the client. Ready when it has used up its allowance, or when room is short and it takes nothing.
    /// `acknowledged` is how many bytes of what it is to take have arrived, where that is known.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, acknowledged: impl Fn() -> Option<u64>) -> Poll<()> {
        self.is_waiting = true;
        loop {
            let is_short = ready!(self.allowance.poll_half(&self.deadline, cx));
            let now = acknowledged();
            let progress = now.zip(self.seen).map(|(now, seen)| now.saturating_sub(seen));
            // The first look shows only from where on; where nothing can be seen, another one shows no more.
            let has_stopped = now.is_none() || progress == Some(0);
            self.seen = now;
            self.allowance.moved(progress.unwrap_or(0), &self.deadline);
            if self.allowance.left().is_zero() || (is_short && has_stopped) {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::runtime::deadline::{Spare, evict};
    use crate::runtime::paused;

    const RATE: MinRate = MinRate { min: 500, after: Duration::from_secs(60) };

    /// How long a client lasts that is seen to acknowledge `bytes` a second, and opens no window.
    async fn lasts(bytes: u64) -> Option<Duration> {
        let (mut stall, begun) = (Stall::new(RATE), Instant::now());
        let arrived = || Some(bytes * begun.elapsed().as_secs());
        let limit = Duration::from_secs(1000);
        let given_up = tokio::time::timeout(limit, poll_fn(|cx| stall.poll(cx, arrived))).await;
        given_up.is_ok().then(|| begun.elapsed())
    }

    #[test]
    fn who_takes_nothing_has_its_allowance_and_who_reads_on_is_waited_for() {
        paused(async || {
            let lasted = lasts(0).await.unwrap();
            assert!(lasted >= RATE.after && lasted < RATE.after + Duration::from_secs(2), "{lasted:?}");
            let lasted = lasts(100).await.unwrap();
            assert!(lasted < RATE.after * 3 / 2, "too slow: {lasted:?}");
            assert_eq!(lasts(1500).await, None);
        });
    }

    #[test]
    fn what_is_not_known_is_no_progress() {
        paused(async || {
            let (mut stall, begun) = (Stall::new(RATE), Instant::now());
            poll_fn(|cx| stall.poll(cx, || None)).await;
            assert!(begun.elapsed() < RATE.after + Duration::from_secs(2));
        });
    }

    /// How many evictions, one every six seconds, a client outlasts that is seen to acknowledge `bytes` a second.
    async fn outlasts(bytes: Option<u64>) -> usize {
        let (mut stall, begun) = (Stall::new(RATE), Instant::now());
        let arrived = || bytes.map(|bytes| bytes * begun.elapsed().as_secs());
        for count in 0..8 {
            let waiting = poll_fn(|cx| stall.poll(cx, arrived));
            tokio::select! { biased; () = waiting => return count - 1, () = sleep(Duration::from_secs(6)) => {} }
            assert!(evict(Spare::Stalled), "it can be asked to go");
        }
        8
    }

    #[test]
    fn when_room_is_short_who_is_seen_to_take_nothing_goes_and_who_reads_on_stays() {
        paused(async || {
            assert_eq!(outlasts(Some(0)).await, 1, "the first look shows from where on");
            assert_eq!(outlasts(None).await, 0, "there is nothing to be seen");
            assert_eq!(outlasts(Some(1500)).await, 8);
        });
    }

    #[test]
    fn the_kernel_is_not_asked_before_half_of_the_time() {
        paused(async || {
            let (mut stall, asked) = (Stall::new(RATE), Cell::new(0));
            let ask = || Some(asked.replace(asked.get() + 1));
            for _ in 0..1000 {
                let waiting = poll_fn(|cx| stall.poll(cx, ask));
                tokio::select! { biased; () = waiting => panic!("it moves"), () = sleep(RATE.after / 4) => {} }
                stall.moved(1 << 20);
            }
            assert_eq!(asked.get(), 0);
        });
    }
}
