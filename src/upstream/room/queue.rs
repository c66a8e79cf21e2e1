//! Who is next: higher priorities first; within one, clients take turns, and each client's requests keep their order.
//!
//! At every second turn a client that has had none yet goes before those who have had theirs and wait for another: who comes
//! with one request does not wait for a turn of all who come with many, and these wait twice as long at most.
//! Clients with one request each are served in the order they came. Pure: knows nothing of slots, time or wakers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Waiting entries of any kind.
#[derive(Debug)]
pub(super) struct Queue<T> {
    lines: HashMap<(i32, u64), Line<T>>,
    /// The turn of every line, and whose it is.
    order: BTreeMap<Turn, u64>,
    levels: BTreeMap<i32, Level>,
    /// Every line by priority and length, to find the longest of the lowest.
    lengths: BTreeSet<(i32, usize, u64)>,
    len: usize,
    /// Numbers for entries and turns, which never repeat.
    next: u64,
}

/// When a line is next, among those of its priority and standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    priority: Reverse<i32>,
    standing: Standing,
    number: u64,
}

/// Whether a line has had a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    New,
    Served,
}

/// What one client has waiting at one priority.
#[derive(Debug)]
struct Line<T> {
    turn: Turn,
    entries: BTreeMap<u64, T>,
}

/// How much waits at one priority.
#[derive(Debug, Default, Clone, Copy)]
struct Level {
    lines: usize,
    entries: usize,
    /// Whether the last turn went to a new line before one that had waited for longer.
    has_overtaken: bool,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    priority: i32,
    client: u64,
    entry: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            order: BTreeMap::new(),
            levels: BTreeMap::new(),
            lengths: BTreeSet::new(),
            len: 0,
            next: 0,
        }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// About how many are served before a request that this client adds now: all of higher priority, its own, and one of
    /// every other client.
    pub(super) fn ahead(&self, priority: i32, client: u64) -> usize {
        let above: usize = self.levels.range(priority.saturating_add(1)..).map(|(_, level)| level.entries).sum();
        let beside = self.levels.get(&priority).map_or(0, |level| level.lines);
        match self.lines.get(&(priority, client)) {
            Some(line) => above + beside - 1 + line.entries.len(),
            None => above + beside,
        }
    }

    /// Adds an entry behind the others of its client.
    pub(super) fn push(&mut self, priority: i32, client: u64, value: T) -> Ticket {
        let entry = self.number();
        let turn = Turn { priority: Reverse(priority), standing: Standing::New, number: self.next };
        let line = self.lines.entry((priority, client)).or_insert_with(|| {
            self.order.insert(turn, client);
            self.levels.entry(priority).or_default().lines += 1;
            Line { turn, entries: BTreeMap::new() }
        });
        self.lengths.remove(&(priority, line.entries.len(), client));
        line.entries.insert(entry, value);
        self.lengths.insert((priority, line.entries.len(), client));
        self.levels.entry(priority).or_default().entries += 1;
        self.next += 1;
        self.len += 1;
        Ticket { priority, client, entry }
    }

    /// Takes the entry that is next. Its client goes to the end of the turns.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (turn, client, overtakes) = self.turn()?;
        let Reverse(priority) = turn.priority;
        self.order.remove(&turn);
        let next = Turn { standing: Standing::Served, number: self.number(), ..turn };
        let line = self.lines.get_mut(&(priority, client))?;
        let (_, value) = line.entries.pop_first()?;
        let left = line.entries.len();
        if left == 0 {
            self.lines.remove(&(priority, client));
        } else {
            line.turn = next;
            self.order.insert(next, client);
        }
        if let Some(level) = self.levels.get_mut(&priority) {
            level.has_overtaken = overtakes;
        }
        self.left(priority, client, left);
        Some(value)
    }

    /// The entry that is next.
    pub(super) fn peek(&self) -> Option<&T> {
        let (turn, client, _) = self.turn()?;
        self.lines.get(&(turn.priority.0, client))?.entries.first_key_value().map(|(_, value)| value)
    }

    /// Whose turn it is, and whether that is before somebody who has waited for longer.
    fn turn(&self) -> Option<(Turn, u64, bool)> {
        let (new, client) = self.order.first_key_value().map(|(turn, client)| (*turn, *client))?;
        if new.standing == Standing::Served {
            return Some((new, client, false));
        }
        let from = Turn { standing: Standing::Served, number: 0, ..new };
        let served = self.order.range(from..).next().filter(|(turn, _)| turn.priority == new.priority);
        let Some((served, other)) = served.filter(|(turn, _)| turn.number < new.number) else {
            return Some((new, client, false));
        };
        let has_overtaken = self.levels.get(&new.priority.0).is_some_and(|level| level.has_overtaken);
        Some(if has_overtaken { (*served, *other, false) } else { (new, client, true) })
    }

    /// Takes an entry out, wherever it stands. `None`: it has been taken already.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let key = (ticket.priority, ticket.client);
        let line = self.lines.get_mut(&key)?;
        let value = line.entries.remove(&ticket.entry)?;
        let left = line.entries.len();
        if left == 0 {
            self.order.remove(&line.turn);
            self.lines.remove(&key);
        }
        self.left(ticket.priority, ticket.client, left);
        Some(value)
    }

    /// Who would give way to a newcomer when there is no place left: the latest of the lowest priority's longest line,
    /// if that priority is lower or that line longer, by more than the newcomer itself.
    fn yielding(&self, priority: i32, client: u64) -> Option<Ticket> {
        let (lowest, ..) = *self.lengths.first()?;
        let (_, longest, owner) = *self.lengths.range(..=(lowest, usize::MAX, u64::MAX)).next_back()?;
        let own = self.lines.get(&(priority, client)).map_or(0, |line| line.entries.len());
        if priority < lowest || (priority == lowest && longest <= own + 1) {
            return None;
        }
        let (entry, _) = self.lines.get(&(lowest, owner))?.entries.last_key_value()?;
        Some(Ticket { priority: lowest, client: owner, entry: *entry })
    }

    /// Whether somebody would give way to a request of this client.
    pub(super) fn has_yielding(&self, priority: i32, client: u64) -> bool {
        self.yielding(priority, client).is_some()
    }

    /// Takes out who gives way to a request of this client.
    pub(super) fn take_yielding(&mut self, priority: i32, client: u64) -> Option<T> {
        let ticket = self.yielding(priority, client)?;
        self.remove(ticket)
    }

    /// Keeps the counts after an entry has gone from a line that has `left` more.
    fn left(&mut self, priority: i32, client: u64, left: usize) {
        self.len -= 1;
        self.lengths.remove(&(priority, left + 1, client));
        if left > 0 {
            self.lengths.insert((priority, left, client));
        }
        if let Some(level) = self.levels.get_mut(&priority) {
            level.entries -= 1;
            level.lines -= usize::from(left == 0);
            if level.lines == 0 {
                self.levels.remove(&priority);
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(queue: &mut Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn clients_with_one_request_each_are_served_as_they_came() {
        let mut queue = Queue::default();
        for (client, name) in [(3, "a"), (1, "b"), (2, "c")] {
            queue.push(0, client, name);
        }
        assert_eq!(drain(&mut queue), ["a", "b", "c"]);
    }

    #[test]
    fn a_client_with_many_requests_does_not_keep_another_waiting() {
        let mut queue = Queue::default();
        for name in ["a1", "a2", "a3", "a4"] {
            queue.push(0, 1, name);
        }
        queue.push(0, 2, "b");
        assert_eq!((queue.ahead(0, 1), queue.ahead(0, 2), queue.ahead(0, 3)), (5, 2, 2));
        assert_eq!(drain(&mut queue), ["a1", "b", "a2", "a3", "a4"]);
    }

    #[test]
    fn who_comes_with_one_request_does_not_wait_for_a_turn_of_all_who_come_with_many() {
        let mut queue = Queue::default();
        for client in 1..=8 {
            for _ in 0..3 {
                queue.push(0, client, "many");
            }
        }
        assert_eq!(std::iter::from_fn(|| queue.pop()).take(8).count(), 8, "a turn for each");
        queue.push(0, 9, "one");
        assert_eq!((queue.pop(), queue.pop()), (Some("one"), Some("many")));
    }

    #[test]
    fn who_has_had_a_turn_waits_twice_as_long_for_the_next_at_most_whoever_comes() {
        let mut queue = Queue::default();
        for client in 1..=5 {
            queue.push(0, client, "many");
            queue.push(0, client, "many");
        }
        assert_eq!(std::iter::from_fn(|| queue.pop()).take(5).count(), 5);
        let mut served = Vec::new();
        for client in 6..16 {
            queue.push(0, client, "one");
            served.extend(queue.pop());
        }
        assert_eq!(served, ["one", "many"].repeat(5));
    }

    #[test]
    fn a_higher_priority_goes_first_whoever_asks() {
        let mut queue = Queue::default();
        queue.push(0, 1, "page");
        queue.push(-10, 1, "task");
        queue.push(10, 2, "api");
        assert_eq!((queue.ahead(10, 1), queue.ahead(0, 1), queue.ahead(-10, 5)), (1, 2, 3));
        assert_eq!(drain(&mut queue), ["api", "page", "task"]);
    }

    #[test]
    fn who_leaves_costs_nobody_a_turn() {
        let mut queue = Queue::default();
        let gone = [queue.push(0, 1, "a1"), queue.push(0, 1, "a2")];
        queue.push(0, 1, "a3");
        queue.push(0, 2, "b");
        assert_eq!(gone.map(|ticket| queue.remove(ticket)), [Some("a1"), Some("a2")]);
        assert_eq!(queue.remove(gone[0]), None);
        assert_eq!(queue.len(), 2);
        assert_eq!(drain(&mut queue), ["a3", "b"]);
    }

    #[test]
    fn the_longest_line_gives_way_to_who_has_less() {
        let mut queue = Queue::default();
        for name in ["a1", "a2", "a3"] {
            queue.push(0, 1, name);
        }
        queue.push(0, 2, "b1");
        assert_eq!(queue.take_yielding(0, 1), None, "not to itself");
        assert_eq!(queue.take_yielding(-10, 3), None, "not to a lower priority");
        assert_eq!(queue.take_yielding(0, 3), Some("a3"));
        assert_eq!(queue.take_yielding(0, 2), None, "two against one and the new one");
        assert_eq!(queue.take_yielding(10, 1), Some("a2"), "to a higher priority always");
        queue.push(-10, 4, "task");
        assert_eq!(queue.take_yielding(0, 3), Some("task"));
        assert_eq!(drain(&mut queue), ["a1", "b1"]);
    }

    /// The same rule told in the plainest way: a list per priority of lists per client, and whether these are new.
    #[derive(Default, Clone)]
    struct Model(Vec<(i32, Lines, bool)>);

    type Lines = Vec<(u64, Vec<u32>, bool)>;

    impl Model {
        fn push(&mut self, priority: i32, client: u64, value: u32) {
            if !self.0.iter().any(|(level, ..)| *level == priority) {
                self.0.push((priority, Vec::new(), false));
                self.0.sort_by_key(|(level, ..)| Reverse(*level));
            }
            let (_, lines, _) = self.0.iter_mut().find(|(level, ..)| *level == priority).unwrap();
            match lines.iter_mut().find(|(owner, ..)| *owner == client) {
                Some((_, line, _)) => line.push(value),
                None => lines.push((client, vec![value], true)),
            }
        }

        fn pop(&mut self) -> Option<u32> {
            let (_, lines, has_overtaken) = self.0.iter_mut().find(|(_, lines, _)| !lines.is_empty())?;
            let first_new = lines.iter().position(|(.., is_new)| *is_new).unwrap_or(0);
            let at = if *has_overtaken { 0 } else { first_new };
            *has_overtaken = at > 0;
            let (client, mut line, _) = lines.remove(at);
            let value = line.remove(0);
            if line.is_empty() {
                self.forget_empty();
            } else {
                lines.push((client, line, false));
            }
            Some(value)
        }

        /// Who comes after that begins anew.
        fn forget_empty(&mut self) {
            self.0.retain(|(_, lines, _)| !lines.is_empty());
        }

        fn remove(&mut self, value: u32) -> bool {
            for (_, lines, _) in &mut self.0 {
                for (_, line, _) in lines.iter_mut() {
                    if let Some(at) = line.iter().position(|entry| *entry == value) {
                        line.remove(at);
                        lines.retain(|(_, line, _)| !line.is_empty());
                        self.forget_empty();
                        return true;
                    }
                }
            }
            false
        }
    }

    proptest! {
        #[test]
        fn it_does_what_the_plain_rule_does(steps in prop::collection::vec((0..4_u8, -1..2_i32, 0..4_u64, any::<prop::sample::Index>()), 1..200)) {
            let (mut queue, mut model) = (Queue::default(), Model::default());
            let mut tickets = Vec::new();
            for (number, (step, priority, client, which)) in steps.into_iter().enumerate() {
                let value = u32::try_from(number).unwrap();
                match step {
                    0 => {
                        prop_assert_eq!(queue.peek().copied(), model.clone().pop());
                        prop_assert_eq!(queue.pop(), model.pop());
                    }
                    1 if !tickets.is_empty() => {
                        let (ticket, value): (Ticket, u32) = tickets[which.index(tickets.len())];
                        prop_assert_eq!(queue.remove(ticket).is_some(), model.remove(value));
                    }
                    _ => {
                        tickets.push((queue.push(priority, client, value), value));
                        model.push(priority, client, value);
                    }
                }
                let left: usize = model.0.iter().flat_map(|(_, lines, _)| lines).map(|(_, line, _)| line.len()).sum();
                prop_assert_eq!(queue.len(), left);
                prop_assert_eq!(queue.order.len(), queue.lines.len());
                let lengths: BTreeSet<_> = queue.lines.iter().map(|((level, client), line)| (*level, line.entries.len(), *client)).collect();
                prop_assert_eq!(&lengths, &queue.lengths);
                let counted = queue.levels.values().fold((0, 0), |sum, level| (sum.0 + level.lines, sum.1 + level.entries));
                prop_assert_eq!(counted, (queue.lines.len(), queue.len()));
            }
        }
    }
}
