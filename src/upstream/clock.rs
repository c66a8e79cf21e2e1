//! The process' own clock in milliseconds, which fit an atomic.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Milliseconds since the process first asked, from 1: 0 stands for never.
pub(super) fn now() -> u64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let now = 1 + millis(BEGIN.elapsed());
    #[cfg(test)]
    let now = now + AHEAD.get();
    now
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
thread_local! {
    static AHEAD: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Puts the clock of this thread forward.
#[cfg(test)]
pub(super) fn advance(by: Duration) {
    AHEAD.set(AHEAD.get() + millis(by));
}
