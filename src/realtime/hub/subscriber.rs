//! One client that is held: the channels it is on, where it is on them, and what waits to be taken by it.
//!
//! A channel may have a *position*: the id of the last item that the client has, by what its app has said or by what it has got
//! since. The next item must name it as the one before; if it does not, the client is told to recover ([`Delivery::Recover`]):
//! what comes meanwhile is kept, and sifted by [`Subscriber::resume`] once the app has said where the client is.
//!
//! Here is who is on which channel, and what waits; [`positions`] looks at where a client is, [`sift`] at what was kept, and
//! [`content`] at what an item is to it.

mod content;
mod positions;
mod sift;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

pub use self::positions::Standing;

use self::content::{content_length, cost_of, made, shared, wanted};
use super::item::{Item, Message, Meta, Reply};
use super::local::Local;
use super::render::{built_id, render_with};
use super::{Filters, limits};

/// Which of an item's formats a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `http-response`
    Response,
    /// `http-stream`
    Stream,
    /// `ws-message`
    Message,
}

/// What comes to a client.
#[derive(Debug)]
pub enum Delivery {
    /// The answer ([`Format::Response`]).
    Reply(Box<Reply>),
    /// More of the body ([`Format::Stream`]).
    Data(Bytes),
    /// A message ([`Format::Message`]). Its frame is shared by all who get the same.
    Message(Message),
    /// The end, with a code and a reason where it is a WebSocket's.
    Close(Option<u16>, Box<str>),
    /// There is news at the app.
    Hint,
    /// The app wants to be asked ([`Format::Message`]).
    Refresh,
    /// The client has missed something: its app is to be asked. Until [`Subscriber::resume`] nothing else comes.
    Recover,
    /// The client took too little, and its buffer is full: what was in it is gone, and nothing else comes.
    Overflow,
}

/// A channel as a client is put on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The channel.
    pub channel: Box<str>,
    /// What is not for the client, or is made for it.
    pub filters: Filters,
    /// The id of the last item that it has; `None`: it takes what comes.
    pub position: Option<Box<str>>,
}

/// A client is on as many channels as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a client can be on {} channels at a time", limits::CHANNELS_PER_CLIENT)
    }
}

/// A client that is held. Made by [`Local::subscriber`]; dropped, it is on no channel any more.
pub struct Subscriber {
    local: Rc<Local>,
    member: Rc<Member>,
}

/// The same as its thread sees it.
pub(super) struct Member {
    format: Format,
    /// Bytes that may wait for it.
    room: usize,
    waker: Cell<Option<Waker>>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    channels: Vec<Held>,
    meta: Meta,
    queue: VecDeque<Queued>,
    /// Of what waits.
    bytes: usize,
    flow: Flow,
    /// Positions that were passed since [`Subscriber::follow`].
    trail: Option<Vec<(Rc<str>, Box<str>)>>,
    /// Whether the app was asked once more, because what was kept did not follow from where it said the client is.
    has_asked_again: bool,
}

struct Held {
    channel: Rc<str>,
    /// Its place among those on the channel.
    place: usize,
    filters: Filters,
    position: Option<Box<str>>,
    /// It has not been compared yet.
    is_new: bool,
}

enum Queued {
    /// As everybody has it.
    Shared(Rc<Arrived>),
    /// The same, of which the client's own content is made when it is taken: not for thousands of them while it is delivered.
    /// With the id that is written into it.
    Made(Rc<Arrived>, Filters, Option<Box<[u8]>>),
    /// About the client.
    Own(Delivery),
}

#[derive(Default)]
enum Flow {
    #[default]
    Open,
    /// The app is being asked: what comes is kept.
    Recovering(Vec<Rc<Arrived>>),
    /// Nothing else comes.
    Over,
}

/// What an item costs beside its bytes while it waits.
const OVERHEAD: usize = 64;

/// Positions that are remembered while the app is asked.
const TRAIL: usize = 256;

/// An item in a thread.
pub(super) struct Arrived {
    pub(super) item: Arc<Item>,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// The client has it, or will have it.
    Taken,
    /// It is not for the client.
    Passed,
    /// The client's buffer was full: it is lost.
    Overflow,
    /// It does not follow what the client has: the client is to recover.
    Gap,
}

impl Subscriber {
    pub(super) fn new(local: Rc<Local>, format: Format, room: usize) -> Self {
        let member = Member { format, room, waker: Cell::new(None), state: RefCell::new(State::default()) };
        Self { local, member: Rc::new(member) }
    }

    /// Puts the client on a channel. On one where it is already, filters and position are the new ones.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn subscribe(&self, subscription: &Subscription) -> Result<(), TooMany> {
        let Subscription { channel, filters, position } = subscription;
        let mut state = self.member.state.borrow_mut();
        if let Some(held) = state.channels.iter_mut().find(|held| *held.channel == **channel) {
            held.filters = *filters;
            held.position.clone_from(position);
            return Ok(());
        }
        if state.channels.len() == limits::CHANNELS_PER_CLIENT {
            return Err(TooMany);
        }
        let (channel, place) = self.local.join(channel, &self.member);
        state.channels.push(Held { channel, place, filters: *filters, position: position.clone(), is_new: true });
        Ok(())
    }

    /// Takes the client off a channel. What waits for it from there stays.
    pub fn unsubscribe(&self, channel: &str) {
        let mut state = self.member.state.borrow_mut();
        let Some(at) = state.channels.iter().position(|held| *held.channel == *channel) else { return };
        let held = state.channels.swap_remove(at);
        drop(state);
        self.local.leave(&held.channel, held.place);
    }

    /// Puts the client on these channels and on no others.
    pub fn move_to(&self, subscriptions: &[Subscription]) {
        let is_kept = |held: &Held| subscriptions.iter().any(|wanted| *wanted.channel == *held.channel);
        let gone: Vec<Rc<str>> = {
            let state = self.member.state.borrow();
            state.channels.iter().filter(|held| !is_kept(held)).map(|held| Rc::clone(&held.channel)).collect()
        };
        gone.iter().for_each(|channel| self.unsubscribe(channel));
        for subscription in subscriptions {
            // Whoever made the list has kept to the limit.
            let _ = self.subscribe(subscription);
        }
    }

    /// Sets a value for filters; `None` takes it away.
    pub fn set_meta(&self, name: &str, value: Option<&str>) {
        let mut state = self.member.state.borrow_mut();
        state.meta.retain(|(known, _)| &**known != name);
        if let Some(value) = value
            && state.meta.len() < limits::META
        {
            state.meta.push((name.into(), value.into()));
        }
    }

    /// All values at once.
    pub fn set_all_meta(&self, meta: Meta) {
        self.member.state.borrow_mut().meta = meta;
    }

    /// What comes next.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Delivery> {
        let mut state = self.member.state.borrow_mut();
        let Some(queued) = state.queue.pop_front() else {
            let kept = match self.member.waker.take() {
                Some(waker) if waker.will_wake(cx.waker()) => waker,
                _ => cx.waker().clone(),
            };
            self.member.waker.set(Some(kept));
            return Poll::Pending;
        };
        if state.queue.is_empty() && state.queue.capacity() > 16 {
            state.queue = VecDeque::new();
        }
        Poll::Ready(match queued {
            Queued::Shared(arrived) => {
                state.bytes -= self.member.cost(&arrived);
                drop(state);
                shared(&arrived.item, self.member.format)
            }
            Queued::Made(arrived, filters, id) => {
                state.bytes -= self.member.cost(&arrived) + id.as_ref().map_or(0, |id| id.len());
                made(&arrived.item, self.member.format, |content| {
                    render_with(content, filters, &state.meta, id.as_deref()).into()
                })
            }
            Queued::Own(delivery) => {
                state.bytes -= cost_of(&delivery);
                delivery
            }
        })
    }

    /// Whether the client has been given up. Remembers the task if not, as [`Self::poll_next`] does: for whoever waits for
    /// something else meanwhile.
    pub fn poll_overflow(&self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.member.state.borrow().queue.front(), Some(Queued::Own(Delivery::Overflow))) {
            return Poll::Ready(());
        }
        self.member.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.member.state.borrow().queue.is_empty()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let channels = std::mem::take(&mut self.member.state.borrow_mut().channels);
        for held in channels {
            self.local.leave(&held.channel, held.place);
        }
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("format", &self.member.format).finish_non_exhaustive()
    }
}

impl Member {
    /// Brings an item.
    pub(super) fn offer(&self, arrived: &Rc<Arrived>) -> Offered {
        let item = &*arrived.item;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(at) = state.channels.iter().position(|held| *held.channel == *item.channel) else {
            return Offered::Passed;
        };
        // Where the client is already, by what its app has said.
        let is_had = item.id.is_some() && state.channels[at].position == item.id;
        match &mut state.flow {
            Flow::Open if is_had => return Offered::Passed,
            Flow::Open => {}
            Flow::Over => return Offered::Passed,
            Flow::Recovering(kept) => {
                let cost = self.cost(arrived);
                if state.bytes + cost > self.room && !kept.is_empty() {
                    return self.overflow(state);
                }
                state.bytes += cost;
                kept.push(Rc::clone(arrived));
                return Offered::Taken;
            }
        }
        if !follows(&state.channels[at], item) {
            state.bytes += self.cost(arrived);
            state.flow = Flow::Recovering(vec![Rc::clone(arrived)]);
            push(state, Queued::Own(Delivery::Recover), cost_of(&Delivery::Recover));
            self.wake();
            return Offered::Gap;
        }
        advance(state, at, item);
        let filters = state.channels[at].filters;
        let is_wanted = match wanted(item, self.format) {
            None => return Offered::Passed,
            Some(content) => content.is_none_or(|wanted| wanted == filters.of_content()),
        };
        let is_held_on = |channel: &str| state.channels.iter().any(|held| *held.channel == *channel);
        if !is_wanted || !filters.pass(item, &state.meta, is_held_on) {
            return Offered::Passed;
        }
        let id = own_id(item, filters, state);
        let cost = self.cost(arrived) + id.as_ref().map_or(0, |id| id.len());
        // One item is always taken, however large: it may be the only one for long.
        if state.bytes + cost > self.room && !state.queue.is_empty() {
            return self.overflow(state);
        }
        let is_shared = filters.of_content().is_empty();
        let arrived = Rc::clone(arrived);
        let queued = if is_shared { Queued::Shared(arrived) } else { Queued::Made(arrived, filters, id) };
        push(state, queued, cost);
        self.wake();
        Offered::Taken
    }

    /// The client is to ask its app, whatever it has.
    pub(super) fn recover(&self) {
        let mut state = self.state.borrow_mut();
        if matches!(state.flow, Flow::Open) {
            state.flow = Flow::Recovering(Vec::new());
            push(&mut state, Queued::Own(Delivery::Recover), cost_of(&Delivery::Recover));
            self.wake();
        }
    }

    /// The channel of this client at this place among its members is now at another one.
    pub(super) fn moved(&self, channel: &str, place: usize) {
        let mut state = self.state.borrow_mut();
        if let Some(held) = state.channels.iter_mut().find(|held| *held.channel == *channel) {
            held.place = place;
        }
    }

    fn overflow(&self, state: &mut State) -> Offered {
        state.flow = Flow::Over;
        state.queue = VecDeque::from([Queued::Own(Delivery::Overflow)]);
        state.bytes = cost_of(&Delivery::Overflow);
        self.wake();
        Offered::Overflow
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What an item costs of the client's room.
    fn cost(&self, arrived: &Arrived) -> usize {
        OVERHEAD + content_length(&arrived.item, self.format)
    }
}

fn push(state: &mut State, queued: Queued, cost: usize) {
    state.bytes += cost;
    state.queue.push_back(queued);
}

/// Whether an item comes after what the client has. One that has neither an id nor one before it stands outside the chain.
fn follows(held: &Held, item: &Item) -> bool {
    match (&held.position, &item.prev_id) {
        (Some(position), Some(before)) => position == before,
        _ => true,
    }
}

/// The client has an item: that is where it is now.
fn advance(state: &mut State, at: usize, item: &Item) {
    let held = &mut state.channels[at];
    let (Some(position), Some(id)) = (&mut held.position, &item.id) else { return };
    if let Some(trail) = &mut state.trail
        && trail.len() < TRAIL
    {
        trail.push((Rc::clone(&held.channel), id.clone()));
    }
    position.clone_from(id);
}

/// The id of an item as the client has it that gets it now.
fn own_id(item: &Item, filters: Filters, state: &State) -> Option<Box<[u8]>> {
    let position = |channel: &str| {
        let held = state.channels.iter().find(|held| *held.channel == *channel)?;
        held.position.as_deref().or_else(|| item.id.as_deref().filter(|_| *item.channel == *channel))
    };
    built_id(filters, &state.meta, position).map(Into::into)
}
