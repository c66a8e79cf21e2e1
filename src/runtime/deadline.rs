//! Deadlines as a stored instant and a coarse sweep, not a timer each.
//!
//! Arming one is a store, and nobody reads the clock but a task per thread, which looks at all of them every [`TICK`]
//! and wakes those that are over. A deadline never fires early, and at most two ticks late: it is for limits that are
//! felt, not for measuring.
//!
//! Whoever can be spared while it waits says so ([`Deadline::arm_spare`]). That makes the list of deadlines the list of
//! idle connections as well: where room is short, [`evict`] ends the longest wait.

mod evict;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

pub use self::evict::{Spare, evict, make_room};

use super::drain;

/// How often the sweep looks.
pub const TICK: Duration = Duration::from_millis(200);
/// How long a new connection has for its first bytes, whoever else may need its place.
pub const NEWCOMER: Duration = Duration::from_secs(2);
/// How long what has begun may take that is no request yet, a handshake or a head, whoever else may need the place. From
/// its first bytes: a byte now and then does not make it longer.
pub const UNFINISHED: Duration = Duration::from_secs(5);

thread_local! {
    static ENTRIES: RefCell<Vec<Option<Rc<Entry>>>> = const { RefCell::new(Vec::new()) };
    static FREE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    /// The coarse clock: how long this thread has been awake when the sweep last looked.
    static AWAKE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

struct Entry {
    at: Cell<Option<Duration>>,
    /// Whether its wait may be ended to make room, and from when on.
    spare: Cell<Option<(Spare, Duration)>>,
    waker: Cell<Option<Waker>>,
}

/// One point in time after which its task is woken. Not armed when made.
pub struct Deadline {
    entry: Rc<Entry>,
    slot: usize,
}

/// The deadline came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl Deadline {
    /// A deadline that is not armed.
    #[must_use]
    pub fn new() -> Self {
        let entry = Rc::new(Entry { at: Cell::new(None), spare: Cell::new(None), waker: Cell::new(None) });
        let slot = ENTRIES.with_borrow_mut(|entries| {
            if let Some(slot) = FREE.with_borrow_mut(Vec::pop) {
                entries[slot] = Some(Rc::clone(&entry));
                return slot;
            }
            entries.push(Some(Rc::clone(&entry)));
            entries.len() - 1
        });
        Self { entry, slot }
    }

    /// Fires once `after` has passed from now.
    pub fn arm(&self, after: Duration) {
        // A tick more, because the coarse clock may be a tick old.
        self.entry.at.set(AWAKE.get().checked_add(after.saturating_add(TICK)));
        self.entry.spare.set(None);
    }

    /// Fires once `after` has passed, or when it would have before that.
    pub fn hasten(&self, after: Duration) {
        let Some(at) = AWAKE.get().checked_add(after.saturating_add(TICK)) else { return };
        if self.entry.at.get().is_none_or(|before| at < before) {
            self.entry.at.set(Some(at));
        }
    }

    /// The same as [`arm`](Self::arm) where the wait may be ended to make room ([`evict`]) once it has lasted for `grace`.
    pub fn arm_spare(&self, after: Duration, kind: Spare, grace: Duration) {
        self.arm(after);
        self.entry.spare.set(AWAKE.get().checked_add(grace).map(|from| (kind, from)));
    }

    /// Whether it is over because somebody else needs the room. Until armed again.
    #[must_use]
    pub fn is_evicted(&self) -> bool {
        self.entry.at.get() == Some(Duration::ZERO)
    }

    /// Whether it has come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.entry.at.get().is_some_and(|at| at <= AWAKE.get())
    }

    /// Never fires, until armed again.
    pub fn disarm(&self) {
        self.entry.at.set(None);
        self.entry.spare.set(None);
    }

    /// Ready when it is over. Remembers the task either way, which [`wake_all`] may wake.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        let kept = match self.entry.waker.take() {
            Some(waker) if waker.will_wake(cx.waker()) => waker,
            _ => cx.waker().clone(),
        };
        self.entry.waker.set(Some(kept));
        Poll::Pending
    }

    /// Whether it can fire.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.entry.at.get().is_some()
    }

    /// The same for what has not come to a request yet: once the thread drains, it has no longer than `grace`. It can be
    /// spared after [`NEWCOMER`], and once something has come, after [`UNFINISHED`].
    ///
    /// # Errors
    /// [`Elapsed`].
    pub async fn bound_or_drain<F: Future>(
        &self,
        after: Duration,
        grace: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        self.arm_spare(after, Spare::Idle, NEWCOMER);
        let mut future = pin!(future);
        let (mut is_ending, mut polls) = (false, 0_u8);
        let result = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => {
                polls = polls.saturating_add(1);
                if !is_ending && drain::is_draining() {
                    is_ending = true;
                    self.arm(grace);
                } else if polls == 2 && !is_ending && !self.is_over() {
                    // What wakes it is neither its time nor a drain: something has come, and is not enough.
                    self.entry.spare.set(AWAKE.get().checked_add(UNFINISHED).map(|from| (Spare::Idle, from)));
                }
                self.poll(cx).map(|()| Err(Elapsed))
            }
        })
        .await;
        self.disarm();
        result
    }

    /// The future's output, unless `after` passes first.
    ///
    /// # Errors
    /// [`Elapsed`].
    pub async fn bound<F: Future>(&self, after: Duration, future: F) -> Result<F::Output, Elapsed> {
        self.arm(after);
        let mut future = pin!(future);
        let result = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx).map(|()| Err(Elapsed)),
        })
        .await;
        self.disarm();
        result
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // The thread may be ending, with its list gone before this.
        let _ = ENTRIES.try_with(|entries| entries.borrow_mut()[self.slot] = None);
        let _ = FREE.try_with(|free| free.borrow_mut().push(self.slot));
    }
}

/// The coarse clock: how long this thread has been awake, up to a [`TICK`] ago. Nobody reads a clock for it.
#[must_use]
pub fn awake() -> Duration {
    AWAKE.get()
}

/// Wakes every task that waits on a deadline of this thread, so that it looks at what has changed for all.
pub fn wake_all() {
    wake(|_| true);
}

/// Advances the coarse clock and wakes what is over, for ever.
pub(crate) async fn sweep() {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tick.tick().await;
        let now = Instant::now();
        // A thread that was stopped or starved has waited for nobody meanwhile.
        AWAKE.set(AWAKE.get() + (now - last).min(2 * TICK));
        last = now;
        let awake = AWAKE.get();
        shrink();
        wake(|entry| entry.at.get().is_some_and(|at| at <= awake));
    }
}

/// Forgets places that a peak has left behind, so that nobody looks at them for ever.
fn shrink() {
    ENTRIES.with_borrow_mut(|entries| {
        let used = entries.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        if entries.len() < 1024 || used > entries.len() / 2 {
            return;
        }
        entries.truncate(used);
        entries.shrink_to(used * 2);
        FREE.with_borrow_mut(|free| {
            free.retain(|slot| *slot < used);
            free.shrink_to(used * 2);
        });
    });
}

fn wake(which: impl Fn(&Entry) -> bool) {
    // Wakers run schedulers, never tasks; still they are called after the list is released.
    let due: Vec<Waker> = ENTRIES.with_borrow(|entries| {
        entries.iter().flatten().filter(|entry| which(entry)).filter_map(|entry| entry.waker.take()).collect()
    });
    for waker in due {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_fires_never_early_and_at_most_two_ticks_late() {
        let sweeping = sweep();
        let begin = Instant::now();
        let waiting = async {
            let deadline = Deadline::new();
            assert_eq!(deadline.bound(Duration::from_secs(3), std::future::pending::<()>()).await, Err(Elapsed));
            begin.elapsed()
        };
        let took = tokio::select! { took = waiting => took, () = sweeping => unreachable!() };
        assert!(took >= Duration::from_secs(3) && took <= Duration::from_secs(3) + 2 * TICK, "{took:?}");
    }

    /// For how long something keeps its place that goes on every second, so many times.
    async fn keeps_its_place(steps: u32) -> Duration {
        let begun = Instant::now();
        let (minute, deadline) = (Duration::from_secs(60), Deadline::new());
        let going_on = async {
            for _ in 0..steps {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        // A task of its own: what wakes it is not what has come.
        let wanted = tokio::task::spawn_local(async {
            while !evict(Spare::Idle) {
                tokio::time::sleep(TICK).await;
            }
        });
        assert_eq!(deadline.bound_or_drain(minute, minute, going_on).await, Err(Elapsed));
        wanted.await.unwrap();
        begun.elapsed()
    }

    #[test]
    fn what_has_begun_keeps_its_place_for_longer_than_who_says_nothing_and_not_for_ever() {
        crate::runtime::paused(async || {
            let slack = 3 * TICK;
            let took = keeps_its_place(0).await;
            assert!(took >= NEWCOMER && took <= NEWCOMER + slack, "{took:?}");
            for steps in [1, 30] {
                let took = keeps_its_place(steps).await;
                let wanted = Duration::from_secs(1) + UNFINISHED;
                assert!(took + slack >= wanted && took <= wanted + slack, "{steps}: {took:?}");
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_used_again() {
        let before = ENTRIES.with_borrow(Vec::len);
        for _ in 0..10 {
            drop((Deadline::new(), Deadline::new()));
        }
        assert!(ENTRIES.with_borrow(Vec::len) <= before + 2);
    }
}
