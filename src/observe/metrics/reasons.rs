//! One counter per reason, resolved at its first use.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec};

use crate::error::Reason;

pub(super) struct ReasonCounters {
    family: IntCounterVec,
    upstream: String,
    /// By the reason's place in [`Reason::ALL`].
    counters: [OnceLock<IntCounter>; Reason::ALL.len()],
}

impl ReasonCounters {
    pub(super) fn new(family: &IntCounterVec, upstream: &str) -> Self {
        let counters = std::array::from_fn(|_| OnceLock::new());
        Self { family: family.clone(), upstream: upstream.to_owned(), counters }
    }

    pub(super) fn inc(&self, reason: Reason) {
        self.counters[reason as usize]
            .get_or_init(|| self.family.with_label_values(&[self.upstream.as_str(), reason.as_str()]))
            .inc();
    }

    pub(super) fn get(&self, reason: Reason) -> u64 {
        self.counters[reason as usize].get().map_or(0, IntCounter::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place, "{reason}");
        }
    }
}
