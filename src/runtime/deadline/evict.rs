//! Whose wait ends when room is short: the one that has lasted longest.
//!
//! Nobody keeps them in order: a request costs its connection two stores. Looking through all of them is for the moment
//! of need, and finds enough for many newcomers, so that a flood at the limit costs little for each.

use std::cell::RefCell;
use std::time::Duration;

use super::{AWAKE, ENTRIES};

/// How many one look finds.
const FOUND: usize = 256;
/// As many can be looked through for every newcomer.
const CHEAP: usize = 1024;

/// What is waited for by those whose wait may be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    /// A client's next wish: a connection without a whole request.
    Idle,
    /// The other end's next step in the middle of an exchange.
    Stalled,
}

thread_local! {
    static IDLE: RefCell<Candidates> = const { RefCell::new(Candidates::new(Spare::Idle)) };
    static STALLED: RefCell<Candidates> = const { RefCell::new(Candidates::new(Spare::Stalled)) };
}

/// What the last look has found.
struct Candidates {
    kind: Spare,
    /// Since when they may be asked to go, and their slots. The next to go stands last.
    found: Vec<(Duration, usize)>,
    /// Whether there may have been more.
    was_full: bool,
    /// When that was, by the coarse clock.
    looked: Option<Duration>,
}

/// Ends a wait of this kind in this thread, as if its time were over ([`super::Deadline::is_evicted`] tells). Whether
/// there was one.
///
/// Its task wakes, and has still to see whether something has arrived that it does not know of.
pub fn evict(kind: Spare) -> bool {
    let candidates = match kind {
        Spare::Idle => &IDLE,
        Spare::Stalled => &STALLED,
    };
    candidates.with_borrow_mut(Candidates::evict)
}

/// The same for whichever kind there is: whoever has nothing under way goes before those who do not go on with it.
pub fn make_room() -> bool {
    evict(Spare::Idle) || evict(Spare::Stalled)
}

impl Candidates {
    const fn new(kind: Spare) -> Self {
        Self { kind, found: Vec::new(), was_full: false, looked: None }
    }

    fn evict(&mut self) -> bool {
        if self.evict_found() {
            return true;
        }
        // Where there are many, and few of them can be spared, the clock moves before all are looked at again.
        let is_dear = ENTRIES.with_borrow(|entries| entries.len() > CHEAP);
        if is_dear && !self.was_full && self.looked == Some(AWAKE.get()) {
            return false;
        }
        self.look();
        self.evict_found()
    }

    fn evict_found(&mut self) -> bool {
        while let Some((since, slot)) = self.found.pop() {
            let waker = ENTRIES.with_borrow(|entries| {
                let entry = entries.get(slot)?.as_ref()?;
                // It may have gone on meanwhile.
                (entry.spare.get() == Some((self.kind, since))).then(|| {
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
                let spare = entry.as_ref().and_then(|entry| entry.spare.get());
                if let Some((_, since)) = spare.filter(|(kind, since)| *kind == self.kind && *since <= now) {
                    self.found.push((since, slot));
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

    async fn over(deadlines: &[Deadline]) -> Vec<usize> {
        let mut over = Vec::new();
        for (at, deadline) in deadlines.iter().enumerate() {
            let is_over = poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_ready())).await;
            assert_eq!(is_over, deadline.is_evicted());
            if is_over {
                over.push(at);
            }
        }
        over
    }

    fn idle(deadline: &Deadline, grace: u64) {
        deadline.arm_spare(MINUTE, Spare::Idle, Duration::from_secs(grace));
    }

    #[test]
    fn the_idlest_goes_first_and_who_is_busy_or_new_stays() {
        paused(async || {
            let deadlines: Vec<_> = (0..5).map(|_| Deadline::new()).collect();
            for deadline in [&deadlines[2], &deadlines[0]] {
                idle(deadline, 0);
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            deadlines[1].arm(MINUTE);
            idle(&deadlines[3], 2);
            deadlines[4].arm_spare(MINUTE, Spare::Stalled, Duration::ZERO);
            for expected in [vec![2], vec![0, 2]] {
                assert!(evict(Spare::Idle));
                assert_eq!(over(&deadlines).await, expected);
            }
            assert!(!evict(Spare::Idle), "the last one is too new");
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(evict(Spare::Idle));
            assert_eq!(over(&deadlines).await, [0, 2, 3]);
            assert!(!evict(Spare::Idle));
            assert!(evict(Spare::Stalled) && !evict(Spare::Stalled));
            assert_eq!(over(&deadlines).await, [0, 2, 3, 4]);
        });
    }

    #[test]
    fn who_has_gone_on_since_the_last_look_stays() {
        paused(async || {
            let deadlines: Vec<_> = (0..3).map(|_| Deadline::new()).collect();
            deadlines.iter().for_each(|deadline| idle(deadline, 0));
            assert!(evict(Spare::Idle));
            deadlines.iter().filter(|deadline| !deadline.is_evicted()).for_each(|deadline| deadline.arm(MINUTE));
            assert!(!evict(Spare::Idle));
            assert_eq!(over(&deadlines).await.len(), 1);
        });
    }

    #[test]
    fn one_look_is_enough_for_many() {
        paused(async || {
            let deadlines: Vec<_> = (0..FOUND * 3).map(|_| Deadline::new()).collect();
            deadlines.iter().for_each(|deadline| idle(deadline, 0));
            assert!((0..FOUND * 3).all(|_| evict(Spare::Idle)));
            assert_eq!(over(&deadlines).await.len(), FOUND * 3);
            assert!(!evict(Spare::Idle));
        });
    }
}
