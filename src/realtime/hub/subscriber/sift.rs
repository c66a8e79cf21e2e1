//! What comes to a client while its app says where it is: kept in a pause, and sifted after it.

use std::rc::Rc;

use super::content::cost_of;
use super::{Arrived, Delivery, Flow, Held, Item, Member, Offered, Queued, Subscriber, push};

impl Subscriber {
    /// What comes from now on is kept, until [`Self::resume`].
    pub fn pause(&self) {
        let mut state = self.member.state.borrow_mut();
        if matches!(state.flow, Flow::Open) {
            state.flow = Flow::Recovering(Vec::new());
        }
    }

    /// Nobody can tell what the client has missed: it is nowhere any more, and takes what comes.
    pub fn free(&self) {
        self.member.state.borrow_mut().channels.iter_mut().for_each(|held| held.position = None);
    }

    /// The app has said where the client is: what was kept goes out from there on, channel by channel. What is not known to follow
    /// from there is kept while the app is asked once more; after that it is old, and dropped.
    pub fn resume(&self) {
        let (kept, starts) = {
            let mut state = self.member.state.borrow_mut();
            let kept = match std::mem::take(&mut state.flow) {
                Flow::Recovering(kept) => kept,
                flow => {
                    state.flow = flow;
                    return;
                }
            };
            state.bytes -= kept.iter().map(|arrived| self.member.cost(arrived)).sum::<usize>();
            let start = |held: &Held| (Rc::clone(&held.channel), start(held, &kept));
            let starts: Vec<_> = state.channels.iter().map(start).collect();
            (kept, starts)
        };
        let mut loose = Vec::new();
        for (at, arrived) in kept.iter().enumerate() {
            let item = &arrived.item;
            let Some((_, start)) = starts.iter().find(|(channel, _)| **channel == *item.channel) else { continue };
            match start {
                None if is_in_chain(item) => loose.push(Rc::clone(arrived)),
                Some(start) if at < *start && is_in_chain(item) => {}
                _ => {
                    if self.member.offer(arrived) == Offered::Gap {
                        self.local.forget(&item.channel);
                    }
                }
            }
        }
        self.member.ask_again(loose);
    }
}

impl Member {
    /// These are neither from before the client's position nor after it, as far as can be told. Once: an app that says so again
    /// knows better.
    fn ask_again(&self, loose: Vec<Rc<Arrived>>) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let is_second = std::mem::replace(&mut state.has_asked_again, !loose.is_empty());
        if is_second || loose.is_empty() {
            state.has_asked_again = false;
            return;
        }
        let cost: usize = loose.iter().map(|arrived| self.cost(arrived)).sum();
        match &mut state.flow {
            Flow::Over => return,
            Flow::Recovering(kept) => kept.extend(loose),
            Flow::Open => {
                state.flow = Flow::Recovering(loose);
                push(state, Queued::Own(Delivery::Recover), cost_of(&Delivery::Recover));
            }
        }
        state.bytes += cost;
        self.wake();
    }
}

/// Whether it is one of those that follow one another. What is not stands in no history of an app either.
fn is_in_chain(item: &Item) -> bool {
    item.id.is_some() || item.prev_id.is_some()
}

/// From which of these on they follow what the client has. `None`: that cannot be told.
fn start(held: &Held, kept: &[Rc<Arrived>]) -> Option<usize> {
    let Some(position) = &held.position else { return Some(0) };
    let is_of_it = |arrived: &Rc<Arrived>| *arrived.item.channel == *held.channel && is_in_chain(&arrived.item);
    if let Some(had) = kept.iter().rposition(|one| is_of_it(one) && one.item.id.as_ref() == Some(position)) {
        return Some(had + 1);
    }
    if let Some(next) = kept.iter().position(|one| is_of_it(one) && one.item.prev_id.as_ref() == Some(position)) {
        return Some(next);
    }
    // One that does not say what comes before it begins anew.
    let begins = kept.iter().position(|one| is_of_it(one) && one.item.prev_id.is_none());
    begins.or_else(|| (!kept.iter().any(is_of_it)).then_some(0))
}
