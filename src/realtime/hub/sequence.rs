//! The order of items: what comes before its predecessor waits for it, what comes twice is dropped.
//!
//! Ids are opaque. An item that names the one before it (`prev-id`), where another one is known to be the last, is parked until
//! that one comes, for [`limits::PATIENCE`] at most; then it is let go all the same, and whoever notices the gap asks the app. An
//! item that comes again within [`limits::REMEMBERED`] is a publisher's second try: the same channel, id and content.
//!
//! Pure: the time is a parameter.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::item::{MessagePart, ResponsePart, StreamPart};
use super::{Item, limits};

/// Between two looks which channels are old.
const LOOK: Duration = Duration::from_secs(5);

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes out now.
    Released,
    /// It waits for the one before it.
    Parked,
    /// It has been here before.
    Duplicate,
}

/// The last ids of channels, and what waits.
#[derive(Default)]
pub(super) struct Sequencer {
    chains: HashMap<Box<str>, Chain>,
    parked: usize,
    /// Bytes of that.
    parked_bytes: usize,
    seen: HashSet<u128>,
    /// The same in the order in which they are forgotten.
    ages: VecDeque<(Instant, u128)>,
    /// When it was looked last which channels are old.
    looked: Option<Instant>,
}

/// Gives items the names by which it is known again whether they have been here. Made before the sequence is locked: an item may be
/// large.
#[derive(Default)]
pub(super) struct Names {
    /// Random, so that nobody can make two items look alike.
    keys: (RandomState, RandomState),
}

impl Names {
    /// `None`: without an id it is always new.
    pub(super) fn of(&self, item: &Item) -> Option<u128> {
        item.id.as_ref()?;
        let half = |key: &RandomState| {
            let mut hasher = key.build_hasher();
            fingerprint(item, &mut hasher);
            u128::from(hasher.finish())
        };
        Some(half(&self.keys.0) << 64 | half(&self.keys.1))
    }
}

struct Chain {
    last: Option<Box<str>>,
    /// When the last item went out.
    at: Instant,
    /// In the order in which they came.
    parked: Vec<(Instant, Arc<Item>)>,
}

impl Sequencer {
    /// Takes an item, whose name is one of [`Names`], and appends what goes out now because of it.
    pub(super) fn offer(
        &mut self,
        item: Arc<Item>,
        name: Option<u128>,
        now: Instant,
        out: &mut Vec<Arc<Item>>,
    ) -> Outcome {
        self.age(now);
        if name.is_some_and(|name| !self.remember(name, now)) && !self.may_come_again(&item) {
            return Outcome::Duplicate;
        }
        if item.is_unsequenced {
            out.push(item);
            return Outcome::Released;
        }
        let last = self.chains.get(&item.channel).and_then(|chain| chain.last.as_deref());
        let waits = matches!((last, item.prev_id.as_deref()), (Some(last), Some(before)) if last != before);
        if !waits {
            self.release(item, now, out);
            return Outcome::Released;
        }
        let channel = item.channel.clone();
        let Some(chain) = self.chains.get_mut(&channel) else { return Outcome::Released };
        self.parked += 1;
        self.parked_bytes += item.size();
        chain.parked.push((now, item));
        while self.has_no_room(&channel) {
            // The oldest of the channel has waited long enough.
            let Some(first) = self.chains.get_mut(&channel).and_then(|chain| chain.take_first(|_| true)) else { break };
            self.is_taken(&first);
            self.release(first, now, out);
        }
        Outcome::Parked
    }

    /// Appends what has waited long enough, and forgets what is too old. To be called now and then.
    pub(super) fn sweep(&mut self, now: Instant, out: &mut Vec<Arc<Item>>) {
        self.age(now);
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= limits::PATIENCE;
        if self.parked > 0 {
            let has_due = |chain: &Chain| chain.parked.iter().any(|(since, _)| is_over(since));
            let due: Vec<Box<str>> =
                self.chains.iter().filter(|(_, chain)| has_due(chain)).map(|(name, _)| name.clone()).collect();
            for channel in due {
                while let Some(item) = self.chains.get_mut(&channel).and_then(|chain| chain.take_first(is_over)) {
                    self.is_taken(&item);
                    self.release(item, now, out);
                }
            }
        }
        // All of them are looked at, which need not be done often.
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return;
        }
        self.looked = Some(now);
        let is_old = |chain: &Chain| now.saturating_duration_since(chain.at) >= limits::LAST_ID;
        self.chains.retain(|_, chain| !chain.parked.is_empty() || !is_old(chain));
        if self.chains.capacity() > 1_024 && self.chains.len() < self.chains.capacity() / 4 {
            self.chains.shrink_to(self.chains.len() * 2);
        }
    }

    /// The id of the channel's last item, where it is known.
    pub(super) fn last(&self, channel: &str) -> Option<&str> {
        self.chains.get(channel)?.last.as_deref()
    }

    /// The channel's last id has turned out to be of no use.
    pub(super) fn forget(&mut self, channel: &str) {
        if let Some(chain) = self.chains.get_mut(channel) {
            chain.last = None;
        }
    }

    /// Forgets all last ids, and appends what waits.
    pub(super) fn forget_all(&mut self, out: &mut Vec<Arc<Item>>) {
        let chains = std::mem::take(&mut self.chains);
        let mut parked: Vec<_> = chains.into_values().flat_map(|chain| chain.parked).collect();
        parked.sort_by_key(|(since, _)| *since);
        out.extend(parked.into_iter().map(|(_, item)| item));
        (self.parked, self.parked_bytes) = (0, 0);
    }

    /// Whether anything waits.
    #[cfg(test)]
    pub(super) fn is_waiting(&self) -> bool {
        self.parked > 0
    }

    /// Whether more waits on this channel, or on all, than may wait.
    fn has_no_room(&self, channel: &str) -> bool {
        let on_channel = self.chains.get(channel).map_or(0, |chain| chain.parked.len());
        on_channel > limits::PARKED || self.parked > limits::ALL_PARKED || self.parked_bytes > limits::PARKED_BYTES
    }

    /// An item does not wait any more.
    fn is_taken(&mut self, item: &Item) {
        self.parked -= 1;
        self.parked_bytes -= item.size();
    }

    /// Lets an item go, and whatever has waited for it.
    fn release(&mut self, item: Arc<Item>, now: Instant, out: &mut Vec<Arc<Item>>) {
        let mut next = Some(item);
        while let Some(item) = next {
            next = None;
            let is_known = self.chains.contains_key(&item.channel);
            if item.id.is_some() && (is_known || self.chains.len() < limits::SEQUENCED) {
                let chain = self.chains.entry(item.channel.clone()).or_insert_with(|| Chain {
                    last: None,
                    at: now,
                    parked: Vec::new(),
                });
                (chain.last, chain.at) = (item.id.clone(), now);
                let follows = |(_, parked): &(Instant, Arc<Item>)| parked.prev_id == item.id;
                if let Some(at) = chain.parked.iter().position(follows) {
                    let following = chain.parked.remove(at).1;
                    self.is_taken(&following);
                    next = Some(following);
                }
            } else if let Some(chain) = self.chains.get_mut(&item.channel) {
                // It has no name by which the next one could refer to it.
                chain.last = None;
            }
            out.push(item);
        }
    }

    /// Whether an item that has been here is not a second try all the same. One that closes does no harm twice, and whoever has come
    /// since is meant as well: django-eventstream's kicks have the same ids each time. One that names none before it, where others
    /// have come since, begins anew.
    fn may_come_again(&self, item: &Item) -> bool {
        let closes_stream = item.stream.as_ref().is_some_and(|content| matches!(content.part, StreamPart::Close));
        let closes_socket = item.message.as_ref().is_some_and(|content| matches!(content.part, MessagePart::Close(..)));
        let has_moved_on = || self.last(&item.channel).is_some_and(|last| Some(last) != item.id.as_deref());
        closes_stream || closes_socket || (item.prev_id.is_none() && !item.is_unsequenced && has_moved_on())
    }

    /// Whether an item is new.
    fn remember(&mut self, name: u128, now: Instant) -> bool {
        if !self.seen.insert(name) {
            return false;
        }
        self.ages.push_back((now, name));
        if self.ages.len() > limits::IDS
            && let Some((_, oldest)) = self.ages.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    fn age(&mut self, now: Instant) {
        while let Some((since, name)) = self.ages.front() {
            if now.saturating_duration_since(*since) < limits::REMEMBERED {
                break;
            }
            self.seen.remove(name);
            self.ages.pop_front();
        }
        if self.ages.is_empty() && self.ages.capacity() > 1_024 {
            self.ages = VecDeque::new();
            self.seen = HashSet::new();
        }
    }
}

impl Chain {
    /// The oldest item that has waited long enough; or, where others lead to it that wait as well, the first of those.
    fn take_first(&mut self, is_over: impl Fn(&Instant) -> bool) -> Option<Arc<Item>> {
        let mut at = self.parked.iter().position(|(since, _)| is_over(since))?;
        // No more steps than there are items: ids may go round in circles.
        for _ in 0..self.parked.len() {
            let before = &self.parked[at].1.prev_id;
            match self.parked.iter().position(|(_, item)| item.id.is_some() && item.id == *before) {
                Some(earlier) => at = earlier,
                None => break,
            }
        }
        Some(self.parked.remove(at).1)
    }
}

/// What makes an item the same one: a publisher that numbers anew after a restart is not to lose what it says.
fn fingerprint(item: &Item, hasher: &mut impl Hasher) {
    (&item.channel, &item.id, &item.prev_id, &item.meta).hash(hasher);
    if let Some(content) = &item.response {
        match &content.part {
            ResponsePart::Send(reply) => {
                reply.status.hash(hasher);
                let (super::ReplyBody::Whole(body) | super::ReplyBody::Patch(body)) = &reply.body;
                body.hash(hasher);
            }
            ResponsePart::Hint => 1_u8.hash(hasher),
        }
    }
    if let Some(content) = &item.stream {
        match &content.part {
            StreamPart::Send(bytes) => bytes.hash(hasher),
            StreamPart::Hint => 2_u8.hash(hasher),
            StreamPart::Close => 3_u8.hash(hasher),
        }
    }
    if let Some(content) = &item.message {
        match &content.part {
            MessagePart::Send(message) => message.payload.hash(hasher),
            MessagePart::Close(code, reason) => (code, reason).hash(hasher),
            MessagePart::Refresh => 4_u8.hash(hasher),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::LazyLock;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::Content;
    use super::*;

    /// Offers an item by its name.
    fn offered(sequencer: &mut Sequencer, item: Arc<Item>, now: Instant, out: &mut Vec<Arc<Item>>) -> Outcome {
        static NAMES: LazyLock<Names> = LazyLock::new(Names::default);
        let name = NAMES.of(&item);
        sequencer.offer(item, name, now, out)
    }

    fn item(id: &str, before: &str) -> Arc<Item> {
        let name = |text: &str| (!text.is_empty()).then(|| text.into());
        let part = StreamPart::Send(Bytes::copy_from_slice(format!("{before}>{id}").as_bytes()));
        Arc::new(Item {
            channel: "c".into(),
            id: name(id),
            prev_id: name(before),
            stream: Some(Content { filters: None, part }),
            ..Item::default()
        })
    }

    /// Offers `id<before` one after the other, a second apart, and tells what went out after each.
    fn played(script: &[&str]) -> Vec<String> {
        let (mut sequencer, begin) = (Sequencer::default(), Instant::now());
        let mut told = Vec::new();
        for (second, step) in script.iter().enumerate() {
            let now = begin + Duration::from_secs(second as u64);
            let mut out = Vec::new();
            sequencer.sweep(now, &mut out);
            match *step {
                "." => {}
                "forget" => sequencer.forget("c"),
                "forget all" => sequencer.forget_all(&mut out),
                step => {
                    let (id, before) = step.split_once('<').unwrap_or((step, ""));
                    offered(&mut sequencer, item(id, before), now, &mut out);
                }
            }
            let ids: Vec<&str> = out.iter().map(|item| item.id.as_deref().unwrap_or("-")).collect();
            told.push(ids.join(" "));
        }
        told
    }

    #[test]
    fn items_go_out_in_the_order_of_their_ids() {
        for (script, expected) in [
            // As they come, whatever is known.
            (&["1", "2<1", "3<2"][..], &["1", "2", "3"][..]),
            (&["5<4", "6<5"], &["5", "6"]),
            // One that comes too early waits for those before it.
            (&["1", "3<2", "2<1"], &["1", "", "2 3"]),
            (&["1", "4<3", "3<2", "2<1"], &["1", "", "", "2 3 4"]),
            // But not for ever.
            (&["1", "3<2", ".", ".", ".", ".", "."], &["1", "", "", "", "", "", "3"]),
            (&["1", "3<2", ".", ".", ".", ".", "4<3"], &["1", "", "", "", "", "", "3 4"]),
            // And what waits together goes out in its order.
            (&["1", "5<4", "4<3", ".", ".", ".", "."], &["1", "", "", "", "", "", "4 5"]),
            (&["1", "5<6", "6<5", ".", ".", ".", ".", "."], &["1", "", "", "", "", "", "5 6", ""]),
            // What comes after that is late, and goes out: whoever is held knows where it is.
            (&["1", "3<2", ".", ".", ".", ".", ".", "2<1"], &["1", "", "", "", "", "", "3", ""]),
            // Without the id before it, an item begins anew.
            (&["1", "7", "8<7"], &["1", "7", "8"]),
            // Without an id of its own, it leaves nothing to follow.
            (&["1", "", "9<8"], &["1", "-", "9"]),
            // Twice is once.
            (&["1", "1", "2<1", "2<1"], &["1", "", "2", ""]),
            // What is known can be wrong.
            (&["1", "forget", "9<8"], &["1", "", "9"]),
            (&["1", "3<2", "forget all", "9<8"], &["1", "", "3", "9"]),
        ] {
            assert_eq!(played(script), expected, "{script:?}");
        }
    }

    #[test]
    fn an_id_is_remembered_for_a_minute_and_with_its_content() {
        let (mut sequencer, begin) = (Sequencer::default(), Instant::now());
        let mut offer = |item: Arc<Item>, second| {
            offered(&mut sequencer, item, begin + Duration::from_secs(second), &mut Vec::new())
        };
        assert_eq!(offer(item("1", ""), 0), Outcome::Released);
        assert_eq!(offer(item("1", ""), 59), Outcome::Duplicate);
        assert_eq!(offer(item("1", ""), 60), Outcome::Released);
        let mut other = Arc::into_inner(item("1", "")).unwrap();
        other.meta.push(("require_sub".into(), "events-b".into()));
        assert_eq!(offer(Arc::new(other), 60), Outcome::Released, "it says something else");
    }

    #[test]
    fn an_item_without_sequence_goes_out_and_moves_nothing() {
        let (mut sequencer, now) = (Sequencer::default(), Instant::now());
        let mut out = Vec::new();
        offered(&mut sequencer, item("1", ""), now, &mut out);
        let mut free = Arc::into_inner(item("9", "8")).unwrap();
        free.is_unsequenced = true;
        assert_eq!(offered(&mut sequencer, Arc::new(free), now, &mut out), Outcome::Released);
        assert_eq!(sequencer.last("c"), Some("1"));
    }

    #[test]
    fn more_than_may_wait_go_out_the_oldest_first() {
        let (mut sequencer, now) = (Sequencer::default(), Instant::now());
        let mut out = Vec::new();
        offered(&mut sequencer, item("0", ""), now, &mut out);
        for at in 0..limits::PARKED + 2 {
            offered(&mut sequencer, item(&format!("{}", 2 * at + 2), &format!("{}", 2 * at + 1)), now, &mut out);
        }
        let ids: Vec<_> = out.iter().map(|item| item.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["0", "2", "4"]);
        assert_eq!(sequencer.parked, limits::PARKED);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_as_well() {
        let (mut sequencer, now) = (Sequencer::default(), Instant::now());
        let mut out = Vec::new();
        for at in 0..200 {
            let part =
                |text: &str| Some(Content { filters: None, part: StreamPart::Send(Bytes::from(text.to_owned())) });
            let mut first = Arc::into_inner(item("0", "")).unwrap();
            first.channel = format!("c{at}").into();
            let mut large = Arc::into_inner(item("2", "1")).unwrap();
            (large.channel, large.stream) = (first.channel.clone(), part(&"x".repeat(1 << 20)));
            offered(&mut sequencer, Arc::new(first), now, &mut out);
            offered(&mut sequencer, Arc::new(large), now, &mut out);
        }
        let most = limits::PARKED_BYTES >> 20;
        assert!(sequencer.parked <= most && sequencer.parked >= most - 1, "{}", sequencer.parked);
        out.clear();
        sequencer.sweep(now + limits::PATIENCE, &mut out);
        assert_eq!((sequencer.parked, sequencer.parked_bytes), (0, 0));
    }

    #[test]
    fn a_second_kick_is_one_and_an_item_that_begins_anew_comes_again() {
        let (mut sequencer, now) = (Sequencer::default(), Instant::now());
        let mut offer = |item: &dyn Fn() -> Item| offered(&mut sequencer, Arc::new(item()), now, &mut Vec::new());
        let kick = |id: &str, before: &str, part: fn() -> StreamPart| {
            let mut item = Arc::into_inner(item(id, before)).unwrap();
            item.stream = Some(Content { filters: None, part: part() });
            item
        };
        let said = || kick("kick-1", "", || StreamPart::Send(Bytes::from_static(b"bye")));
        let closed = || kick("kick-2", "kick-1", || StreamPart::Close);
        for _ in 0..2 {
            assert_eq!([offer(&said), offer(&closed)], [Outcome::Released, Outcome::Released]);
        }
        assert_eq!(offer(&said), Outcome::Released);
        assert_eq!(offer(&said), Outcome::Duplicate, "at once after the first it is a second try");
    }

    #[test]
    fn what_is_old_takes_no_memory() {
        let (mut sequencer, begin) = (Sequencer::default(), Instant::now());
        for at in 0..5_000 {
            let mut one = Arc::into_inner(item("1", "")).unwrap();
            one.channel = format!("c{at}").into();
            offered(&mut sequencer, Arc::new(one), begin, &mut Vec::new());
        }
        assert_eq!((sequencer.chains.len(), sequencer.seen.len()), (5_000, 5_000));
        sequencer.sweep(begin + limits::LAST_ID, &mut Vec::new());
        assert_eq!((sequencer.chains.len(), sequencer.seen.len(), sequencer.ages.len()), (0, 0, 0));
        assert!(sequencer.chains.capacity() < 1_024 && sequencer.seen.capacity() < 1_024);
    }

    proptest! {
        /// A chain in any order, all of it within the patience: it goes out once, and in order.
        #[test]
        fn any_order_becomes_the_order(order in Just((1..20_usize).collect::<Vec<_>>()).prop_shuffle()) {
            let (mut sequencer, now) = (Sequencer::default(), Instant::now());
            let mut out = Vec::new();
            offered(&mut sequencer, item("0", ""), now, &mut out);
            for at in &order {
                offered(&mut sequencer, item(&at.to_string(), &(at - 1).to_string()), now, &mut out);
                offered(&mut sequencer, item(&at.to_string(), &(at - 1).to_string()), now, &mut out);
            }
            let ids: Vec<usize> = out.iter().map(|item| item.id.as_deref().unwrap().parse().unwrap()).collect();
            prop_assert_eq!(ids, (0..20).collect::<Vec<_>>());
            prop_assert!(!sequencer.is_waiting());
        }
    }
}
