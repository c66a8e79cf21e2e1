//! Which idle connection goes when room is short: the one whose time would be over first.
//!
//! Nobody keeps them in order: a request costs its connection two stores. Looking through all of them is for the moment
//! of need, and finds enough for many newcomers, so that a flood at the limit costs little for each.

use std::cell::RefCell;
use std::time::Duration;

use super::{AWAKE, ENTRIES};

/// How many one look finds.
const FOUND: usize = 256;

thread_local! {
    static IDLE: RefCell<Idle> = const { RefCell::new(Idle { found: Vec::new(), was_full: false, looked: None }) };
}

/// What the last look has found.
struct Idle {
    /// When its time is over, and its slot. The next to go stands last.
    found: Vec<(Duration, usize)>,
    /// Whether there may have been more.
    was_full: bool,
    /// When that was, by the coarse clock.
    looked: Option<Duration>,
}

/// Ends the wait of an idle connection of this thread, as if its time were over. Whether there was one.
///
/// Its task wakes, and has still to see whether something has arrived that it does not know of.
pub fn evict() -> bool {
    IDLE.with_borrow_mut(|idle| {
        idle.evict() || {
            // With nobody idle, the clock moves before all are looked at again.
            let is_worth_it = idle.was_full || idle.looked != Some(AWAKE.get());
            is_worth_it && {
                idle.look();
                idle.evict()
            }
        }
    })
}

impl Idle {
    fn evict(&mut self) -> bool {
        while let Some((at, slot)) = self.found.pop() {
            let waker = ENTRIES.with_borrow(|entries| {
                let entry = entries.get(slot)?.as_ref()?;
                // It may have had a request meanwhile.
                let is_the_same = entry.at.get() == Some(at) && entry.spare.get().is_some();
                is_the_same.then(|| {
                    entry.at.set(Some(Duration::ZERO));
                    entry.spare.set(None);
                    entry.waker.take()
                })
            });
            if let Some(waker) = waker {
                // Without a waker its task is about to look at the deadline by itself.
                waker.into_iter().for_each(std::task::Waker::wake);
                return true;
            }
        }
        false
    }

    fn look(&mut self) {
        let now = AWAKE.get();
        self.looked = Some(now);
        self.found.clear();
        ENTRIES.with_borrow(|entries| {
            for (slot, entry) in entries.iter().enumerate() {
                if let Some(entry) = entry
                    && entry.spare.get().is_some_and(|from| from <= now)
                    && let Some(at) = entry.at.get()
                {
                    self.found.push((at, slot));
                }
            }
        });
        self.was_full = self.found.len() > FOUND;
        if self.was_full {
            self.found.select_nth_unstable(FOUND);
            self.found.truncate(FOUND);
            self.found.shrink_to(FOUND);
        }
        self.found.sort_unstable_by(|one, other| other.cmp(one));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::super::Deadline;
    use super::*;
    use crate::runtime::paused;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn is_over(deadline: &Deadline) -> bool {
        poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_ready())).await
    }

    async fn over(deadlines: &[Deadline]) -> Vec<usize> {
        let mut over = Vec::new();
        for (at, deadline) in deadlines.iter().enumerate() {
            if is_over(deadline).await {
                over.push(at);
            }
        }
        over
    }

    #[test]
    fn the_idlest_goes_first_and_who_is_busy_or_new_stays() {
        paused(async || {
            let deadlines: Vec<_> = (0..5).map(|_| Deadline::new()).collect();
            for deadline in [&deadlines[2], &deadlines[0]] {
                deadline.arm_idle(MINUTE, Duration::ZERO);
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            deadlines[1].arm(MINUTE);
            deadlines[3].arm_idle(MINUTE, Duration::from_secs(2));
            for expected in [vec![2], vec![0, 2]] {
                assert!(evict());
                assert_eq!(over(&deadlines).await, expected);
            }
            assert!(!evict(), "the last one is too new");
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(evict());
            assert_eq!(over(&deadlines).await, [0, 2, 3]);
            assert!(!evict());
        });
    }

    #[test]
    fn who_has_had_a_request_since_the_last_look_stays() {
        paused(async || {
            let deadlines: Vec<_> = (0..3).map(|_| Deadline::new()).collect();
            deadlines.iter().for_each(|deadline| deadline.arm_idle(MINUTE, Duration::ZERO));
            assert!(evict());
            let left: Vec<_> = (0..3).filter(|at| deadlines[*at].entry.at.get() != Some(Duration::ZERO)).collect();
            left.iter().for_each(|at| deadlines[*at].arm(MINUTE));
            assert!(!evict());
        });
    }

    #[test]
    fn one_look_is_enough_for_many() {
        paused(async || {
            let deadlines: Vec<_> = (0..FOUND * 3).map(|_| Deadline::new()).collect();
            deadlines.iter().for_each(|deadline| deadline.arm_idle(MINUTE, Duration::ZERO));
            assert!((0..FOUND * 3).all(|_| evict()));
            assert_eq!(over(&deadlines).await.len(), FOUND * 3);
            assert!(!evict());
        });
    }
}
