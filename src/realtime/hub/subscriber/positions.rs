//! Where a client is on its channels, and what that tells: whether it has missed something, and what an answer of its app is worth.

use std::rc::Rc;
use std::time::Duration;

use super::{Subscriber, Subscription};

/// What an answer of the app is worth to a client to which items have come meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// None has come: it is as new as it was asked for.
    Unmoved,
    /// The client has had everything that it says.
    Passed,
    /// It says something that the client has not had.
    Ahead,
}

impl Subscriber {
    /// Looks, once the client is on new channels, whether it has missed something there between its app's answer and now. If so,
    /// [`Delivery::Recover`] comes. Not between [`Self::pause`] and [`Self::resume`].
    pub fn compare(&self) {
        let positions: Vec<Rc<str>> = {
            let mut state = self.member.state.borrow_mut();
            let new = state.channels.iter_mut().filter_map(|held| std::mem::take(&mut held.is_new).then_some(&*held));
            new.filter(|held| held.position.is_some()).map(|held| Rc::clone(&held.channel)).collect()
        };
        if positions.is_empty() {
            return;
        }
        let last = self.local.catch_up(&positions);
        let mut missed = false;
        for (channel, last) in positions.iter().zip(last) {
            let Some(last) = last else { continue };
            let is_there = {
                let state = self.member.state.borrow();
                let held = state.channels.iter().find(|held| held.channel == *channel);
                held.is_none_or(|held| held.position.as_deref() == Some(&*last))
            };
            if !is_there {
                self.local.forget(channel);
                missed = true;
            }
        }
        if missed {
            self.member.recover();
        }
    }

    /// The positions, for `Grip-Last`.
    #[must_use]
    pub fn positions(&self) -> Vec<(Rc<str>, Box<str>)> {
        let state = self.member.state.borrow();
        let positions = state.channels.iter();
        positions.filter_map(|held| Some((Rc::clone(&held.channel), held.position.clone()?))).collect()
    }

    /// Whether the gateway itself can tell that nothing was missed: every channel that has a position is known to have been there
    /// within `age`. False without any.
    #[must_use]
    pub fn is_confirmed(&self, age: Duration) -> bool {
        self.all_positions(|channel, position| self.local.is_confirmed(channel, position, age))
    }

    /// The same, however long ago, where items have led there one after the other.
    #[must_use]
    pub fn is_chain_whole(&self) -> bool {
        self.all_positions(|channel, position| self.local.has_led_to(channel, position))
    }

    fn all_positions(&self, holds: impl Fn(&str, &str) -> bool) -> bool {
        let state = self.member.state.borrow();
        let mut any = false;
        for held in &state.channels {
            let Some(position) = &held.position else { continue };
            any = true;
            if !holds(&held.channel, position) {
                return false;
            }
        }
        any
    }

    /// Its app has just said that these are the last ids: that holds for everybody on these channels.
    pub fn confirm(&self, subscriptions: &[Subscription]) {
        for subscription in subscriptions {
            if let Some(position) = &subscription.position {
                self.local.confirm(&subscription.channel, position);
            }
        }
    }

    /// Its app is asked where it is while items go on coming: remembers where they lead.
    pub fn follow(&self) {
        self.member.state.borrow_mut().trail = Some(Vec::new());
    }

    /// What an answer is worth that says the client is here, after [`Self::follow`].
    #[must_use]
    pub fn standing(&self, subscriptions: &[Subscription]) -> Standing {
        let mut state = self.member.state.borrow_mut();
        let trail = state.trail.take().unwrap_or_default();
        if trail.is_empty() {
            return Standing::Unmoved;
        }
        let is_had = |wanted: &Subscription| {
            let Some(position) = &wanted.position else { return true };
            let held = state.channels.iter().find(|held| *held.channel == *wanted.channel);
            held.is_some_and(|held| held.position.as_ref() == Some(position))
                || trail.iter().any(|(channel, passed)| **channel == *wanted.channel && passed == position)
        };
        if subscriptions.iter().all(is_had) { Standing::Passed } else { Standing::Ahead }
    }
}
