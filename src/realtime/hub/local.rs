//! A thread's own part of the hub: who is held on which channel, without a lock.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::channels::{Channels, Post};
use super::subscriber::{Arrived, Format, Member, Offered, Subscriber};
use crate::observe::metrics::HoldLoss;

/// A thread's clients by channel.
pub struct Local {
    channels: Channels,
    inbox: RefCell<UnboundedReceiver<Post>>,
    /// What was taken out of it, and is to be delivered before the rest of it.
    aside: RefCell<VecDeque<Post>>,
    rooms: RefCell<HashMap<Rc<str>, Room>>,
}

/// Who is held on a channel.
#[derive(Default)]
struct Room {
    members: Vec<Rc<Member>>,
    seen: Option<Seen>,
}

/// Where a channel was when this thread heard of it last.
struct Seen {
    id: Box<str>,
    at: Instant,
    /// Whether an item has led there; else an app has said so.
    is_by_item: bool,
}

/// What a thread takes out of its inbox in one go: items, and offers to those who are held.
const TURN: usize = 64;
const OFFERS: usize = 1_000;

impl Local {
    /// The part of the calling thread. [`Self::run`] has to run there.
    #[must_use]
    pub fn attach(channels: &Channels) -> Rc<Self> {
        let inbox = RefCell::new(channels.attach());
        Rc::new(Self { channels: channels.clone(), inbox, aside: RefCell::default(), rooms: RefCell::default() })
    }

    /// Delivers what comes, for ever.
    pub async fn run(self: Rc<Self>) {
        loop {
            let first = poll_fn(|cx| self.poll_post(cx)).await;
            let Some(first) = first else { return };
            let mut offers = self.take(first);
            for _ in 1..TURN {
                if offers >= OFFERS {
                    break;
                }
                let Some(post) = self.next_post() else { break };
                offers += self.take(post);
            }
            // Those who have got something have their turn.
            tokio::task::yield_now().await;
        }
    }

    fn poll_post(&self, cx: &mut Context<'_>) -> Poll<Option<Post>> {
        match self.aside.borrow_mut().pop_front() {
            Some(post) => Poll::Ready(Some(post)),
            None => self.inbox.borrow_mut().poll_recv(cx),
        }
    }

    fn next_post(&self) -> Option<Post> {
        let aside = self.aside.borrow_mut().pop_front();
        aside.or_else(|| self.inbox.borrow_mut().try_recv().ok())
    }

    /// A client that is to be held, for which so many bytes may wait.
    #[must_use]
    pub fn subscriber(self: &Rc<Self>, format: Format, room: u64) -> Subscriber {
        Subscriber::new(Rc::clone(self), format, usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// The process's channels.
    #[must_use]
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// To how many it was offered.
    fn take(&self, post: Post) -> usize {
        match post {
            Post::Item(posted) => self.deliver(Rc::new(Arrived { item: posted.item.clone() })),
            Post::Recover => {
                let mut all = 0;
                for room in self.rooms.borrow_mut().values_mut() {
                    room.seen = None;
                    room.members.iter().for_each(|member| member.recover());
                    all += room.members.len();
                }
                all
            }
        }
    }

    fn deliver(&self, arrived: Rc<Arrived>) -> usize {
        let item = &arrived.item;
        let (mut taken, mut overflown, mut gaps, mut offers) = (0, 0, 0, 0);
        if let Some(room) = self.rooms.borrow_mut().get_mut(&*item.channel) {
            // Without an id nothing leads anywhere.
            room.seen = item.id.clone().map(|id| Seen { id, at: Instant::now(), is_by_item: true });
            offers = room.members.len();
            for member in &room.members {
                match member.offer(&arrived) {
                    Offered::Taken => taken += 1,
                    Offered::Passed => {}
                    Offered::Overflow => overflown += 1,
                    Offered::Gap => gaps += 1,
                }
            }
        }
        let metrics = self.channels.metrics();
        metrics.delivered(taken);
        metrics.lost(HoldLoss::BufferFull, overflown);
        if gaps > 0 {
            self.channels.forget(&item.channel);
        }
        offers
    }

    /// Puts a client among those on a channel. The channel's name, shared, and its place.
    pub(super) fn join(&self, channel: &str, member: &Rc<Member>) -> (Rc<str>, usize) {
        let mut rooms = self.rooms.borrow_mut();
        let name = match rooms.get_key_value(channel) {
            Some((name, _)) => Rc::clone(name),
            None => channel.into(),
        };
        let room = rooms.entry(Rc::clone(&name)).or_default();
        room.members.push(Rc::clone(member));
        (name, room.members.len() - 1)
    }

    /// Takes the client at this place away. The last one takes its place.
    pub(super) fn leave(&self, channel: &str, place: usize) {
        let mut rooms = self.rooms.borrow_mut();
        let Some(room) = rooms.get_mut(channel) else { return };
        if place < room.members.len() {
            room.members.swap_remove(place);
        }
        if let Some(member) = room.members.get(place) {
            member.moved(channel, place);
        }
        if room.members.is_empty() {
            rooms.remove(channel);
        } else if room.members.capacity() > 64 && room.members.len() < room.members.capacity() / 4 {
            let keep = room.members.len() * 2;
            room.members.shrink_to(keep);
        }
        if rooms.capacity() > 1_024 && rooms.len() < rooms.capacity() / 4 {
            let keep = rooms.len() * 2;
            rooms.shrink_to(keep);
        }
    }

    /// Delivers what is in the inbox for these channels. Their last ids, up to which that leads. What there is for others, which may
    /// be much, waits for its turn.
    pub(super) fn catch_up(&self, channels: &[Rc<str>]) -> Vec<Option<Box<str>>> {
        let take = || {
            let (mut inbox, mut aside) = (self.inbox.borrow_mut(), self.aside.borrow_mut());
            while let Ok(post) = inbox.try_recv() {
                aside.push_back(post);
            }
        };
        let last = self.channels.last_ids(channels.iter().map(|channel| &**channel), take);
        let is_wanted = |post: &Post| match post {
            Post::Item(posted) => channels.iter().any(|channel| **channel == *posted.item.channel),
            Post::Recover => false,
        };
        let (wanted, rest): (VecDeque<_>, VecDeque<_>) = self.aside.take().into_iter().partition(is_wanted);
        self.aside.replace(rest);
        for post in wanted {
            self.take(post);
        }
        last
    }

    /// Delivers all that there is.
    #[cfg(test)]
    pub(super) fn deliver_all(&self) {
        while let Some(post) = self.next_post() {
            self.take(post);
        }
    }

    /// The channel's last id is not one that clients can follow.
    pub(super) fn forget(&self, channel: &str) {
        self.channels.forget(channel);
    }

    /// An app has just said that this is the last id.
    pub(super) fn confirm(&self, channel: &str, id: &str) {
        if let Some(room) = self.rooms.borrow_mut().get_mut(channel) {
            match &mut room.seen {
                Some(seen) if *seen.id == *id => seen.at = Instant::now(),
                seen => *seen = Some(Seen { id: id.into(), at: Instant::now(), is_by_item: false }),
            }
        }
    }

    /// Whether each of these channels, of which there are some, is known to have been at this id within `age`.
    #[must_use]
    pub fn are_confirmed(&self, positions: &[(Rc<str>, Box<str>)], age: Duration) -> bool {
        !positions.is_empty() && positions.iter().all(|(channel, id)| self.is_confirmed(channel, id, age))
    }

    pub(super) fn is_confirmed(&self, channel: &str, id: &str, age: Duration) -> bool {
        self.seen(channel, id, |seen| seen.at.elapsed() < age)
    }

    pub(super) fn has_led_to(&self, channel: &str, id: &str) -> bool {
        self.seen(channel, id, |seen| seen.is_by_item)
    }

    fn seen(&self, channel: &str, id: &str, holds: impl FnOnce(&Seen) -> bool) -> bool {
        let rooms = self.rooms.borrow();
        let seen = rooms.get(channel).and_then(|room| room.seen.as_ref());
        seen.is_some_and(|seen| *seen.id == *id && holds(seen))
    }

    /// How many channels somebody is held on.
    #[cfg(test)]
    pub(super) fn rooms(&self) -> usize {
        self.rooms.borrow().len()
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}
