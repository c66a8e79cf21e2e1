//! How far another end may fall behind the rate it has to keep up.
//!
//! A [`Credit`] is one of time: it is used up while we wait for the other end, each byte that moves earns some of
//! it back, and there is never more of it than `after`. So whoever moves nothing has `after`, whoever keeps up the rate
//! has for ever, and nobody saves up: a fast beginning does not pay for a stall. Only waiting costs: time in which we are
//! the ones who are slow is not counted. An [`Allowance`] is a credit that a task waits with.

use std::task::{Context, Poll};
use std::time::Duration;

use super::Deadline;
use super::deadline::{self, Spare};
use crate::config::MinRate;

/// How long nothing may move when room is short, whatever the credit.
pub const WHEN_SHORT: Duration = Duration::from_secs(5);

/// How long one end may still be waited for, in one direction of one message. Reads no clock.
#[derive(Debug, Clone, Copy)]
pub struct Credit {
    rate: MinRate,
    left: Duration,
    /// What was waited beyond the credit: or else a byte now and then would be enough for ever.
    debt: Duration,
}

impl Credit {
    /// All of it.
    #[must_use]
    pub fn new(rate: MinRate) -> Self {
        Self { rate, left: rate.after, debt: Duration::ZERO }
    }

    /// What is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.left
    }

    /// The other end was waited for.
    pub fn spend(&mut self, waited: Duration) {
        self.debt = self.debt.saturating_add(waited.saturating_sub(self.left));
        self.left = self.left.saturating_sub(waited);
    }

    /// It has moved `bytes`.
    pub fn earn(&mut self, bytes: u64) {
        let earned = time_for(self.rate, bytes);
        let kept = earned.saturating_sub(self.debt);
        self.debt = self.debt.saturating_sub(earned);
        self.left = self.left.saturating_add(kept).min(self.rate.after);
    }
}

/// One end's [`Credit`], and the wait for it.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    credit: Credit,
    /// Since when we wait, on the coarse clock.
    since: Option<Duration>,
}

impl Allowance {
    /// The whole credit.
    #[must_use]
    pub fn new(rate: MinRate) -> Self {
        Self { credit: Credit::new(rate), since: None }
    }

    /// What is left of the credit.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.credit.left()
    }

    /// We wait for the other end: from now on it costs. Ready when nothing is left, or when room is short and nothing has
    /// moved for [`WHEN_SHORT`].
    pub fn poll_wait(&mut self, deadline: &Deadline, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_part(self.credit.rate.after, deadline, cx)
    }

    /// The same for whoever can look closer at what has moved: ready at half of the credit as well. Says whether room is
    /// short. What is not told by [`Self::moved`] has not moved.
    pub fn poll_half(&mut self, deadline: &Deadline, cx: &mut Context<'_>) -> Poll<bool> {
        self.poll_part(self.credit.rate.after / 2, deadline, cx).map(|()| deadline.is_evicted())
    }

    fn poll_part(&mut self, part: Duration, deadline: &Deadline, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() || !deadline.is_armed() {
            self.settle();
            if self.left().is_zero() {
                return Poll::Ready(());
            }
            self.since = Some(deadline::awake());
            deadline.arm_spare(self.left().min(part), Spare::Stalled, WHEN_SHORT);
        }
        deadline.poll(cx)
    }

    /// The other end has moved `bytes`, and we do not wait for the moment.
    pub fn moved(&mut self, bytes: u64, deadline: &Deadline) {
        self.pause(deadline);
        self.credit.earn(bytes);
    }

    /// We do not wait for the moment.
    pub fn pause(&mut self, deadline: &Deadline) {
        self.settle();
        deadline.disarm();
    }

    /// Takes the time waited so far out of the credit.
    fn settle(&mut self) {
        if let Some(since) = self.since.take() {
            self.credit.spend(deadline::awake().saturating_sub(since));
        }
    }
}

/// What `bytes` may take at this rate.
fn time_for(rate: MinRate, bytes: u64) -> Duration {
    let per_second = rate.min.max(1);
    let (seconds, rest) = (bytes / per_second, bytes % per_second);
    // `rest` is less than the rate: the quotient is less than a second.
    let nanos = u128::from(rest) * 1_000_000_000 / u128::from(per_second);
    Duration::new(seconds, u32::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::runtime::deadline::TICK;
    use crate::runtime::paused;

    const RATE: MinRate = MinRate { min: 500, after: Duration::from_secs(20) };

    /// How long an end lasts that moves `bytes` every `every`.
    async fn lasts(bytes: u64, every: Duration) -> Option<Duration> {
        let (mut allowance, deadline, begun) = (Allowance::new(RATE), Deadline::new(), Instant::now());
        while begun.elapsed() < Duration::from_secs(600) {
            let given_up = poll_fn(|cx| allowance.poll_wait(&deadline, cx));
            tokio::select! {
                biased;
                () = given_up => return Some(begun.elapsed()),
                () = sleep(every) => allowance.moved(bytes, &deadline),
            }
        }
        None
    }

    #[test]
    fn the_time_for_some_bytes_is_exact() {
        for (bytes, millis) in [(0, 0), (1, 2), (250, 500), (500, 1_000), (10_001, 20_002)] {
            assert_eq!(time_for(RATE, bytes), Duration::from_millis(millis));
        }
        assert!(time_for(RATE, u64::MAX) > Duration::from_secs(1 << 50), "no overflow");
    }

    #[test]
    fn who_moves_nothing_has_all_of_the_credit_and_no_more() {
        paused(async || {
            let lasted = lasts(0, Duration::from_secs(1_000)).await.unwrap();
            assert!(lasted >= RATE.after && lasted <= RATE.after + 3 * TICK, "{lasted:?}");
        });
    }

    #[test]
    fn who_dribbles_is_given_up_and_who_keeps_up_is_not() {
        paused(async || {
            let second = Duration::from_secs(1);
            let lasted = lasts(1, second).await.unwrap();
            assert!(lasted >= RATE.after && lasted < RATE.after + 2 * second, "a byte a second: {lasted:?}");
            let lasted = lasts(1, TICK / 2).await.unwrap();
            assert!(lasted >= RATE.after && lasted < RATE.after + 2 * second, "ten bytes a second: {lasted:?}");
            let lasted = lasts(250, second).await.unwrap();
            assert!(
                lasted > 2 * RATE.after - second && lasted < 2 * RATE.after + 3 * second,
                "half the rate: {lasted:?}"
            );
            assert_eq!(lasts(600, second).await, None, "more than the rate");
            assert_eq!(lasts(9_000, 15 * second).await, None, "the same in bursts");
        });
    }

    #[test]
    fn a_fast_beginning_does_not_pay_for_a_stall() {
        paused(async || {
            let (mut allowance, deadline) = (Allowance::new(RATE), Deadline::new());
            allowance.moved(1 << 30, &deadline);
            assert_eq!(allowance.left(), RATE.after);
        });
    }

    #[test]
    fn time_in_which_we_do_not_wait_costs_nothing() {
        paused(async || {
            let (mut allowance, deadline) = (Allowance::new(RATE), Deadline::new());
            let waited = tokio::time::timeout(Duration::from_secs(5), poll_fn(|cx| allowance.poll_wait(&deadline, cx)));
            assert!(waited.await.is_err());
            allowance.pause(&deadline);
            let left = allowance.left();
            assert!(left <= Duration::from_secs(16) && left >= Duration::from_secs(14), "{left:?}");
            sleep(Duration::from_secs(300)).await;
            allowance.moved(0, &deadline);
            assert_eq!(allowance.left(), left);
        });
    }
}
