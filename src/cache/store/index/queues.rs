//! Who goes next where room is made: S3-FIFO (Yang and others, SOSP 2023), by weight.
//!
//! What is new goes through a small queue, and leaves at its end if nobody has asked for it again by then: whoever asks once for
//! everything drives out nothing but what is new. What was asked for goes on to the main queue, which is gone round as a clock.
//! Who is driven out of the small queue is remembered for a while, and comes to the main queue at once if it comes again.

use std::collections::VecDeque;

/// Of the weight, so many hundredths are for what is new.
const SMALL: u64 = 10;
/// Most that is counted of how often something was asked for.
pub(super) const MOST: u8 = 3;
/// So many are looked at to find one that may go; then any has to.
const LOOKS: usize = 128;

/// Where something is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Queue {
    #[default]
    None,
    Small,
    Main,
}

/// The place of something in the queues.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    weight: u32,
    /// Tells the node that is its own from those that it has left behind.
    stamp: u32,
    queue: Queue,
    asked: u8,
}

impl Place {
    /// It was asked for.
    pub(super) fn touch(&mut self) {
        self.asked = (self.asked + 1).min(MOST);
    }

    /// It counts as asked for once less than it was.
    pub(super) fn cool(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    pub(super) fn asked(self) -> u8 {
        self.asked
    }

    pub(super) fn is_queued(self) -> bool {
        self.queue != Queue::None
    }

    pub(super) fn weight(self) -> u32 {
        self.weight
    }
}

#[derive(Debug, Clone, Copy)]
struct Node {
    slot: u32,
    stamp: u32,
}

/// The queues of one level of one shard.
#[derive(Debug, Default)]
pub(super) struct Queues {
    small: VecDeque<Node>,
    main: VecDeque<Node>,
    small_weight: u64,
    weight: u64,
    live: usize,
    stamp: u32,
    ghosts: Box<[u32]>,
}

/// The places of the slots of a shard.
pub(super) trait Places {
    /// That of a slot on the level that is asked about. `None`: the slot is free.
    fn place(&mut self, slot: u32) -> Option<&mut Place>;
    /// What the slot's ghost is known by.
    fn print(&self, slot: u32) -> u32;
}

impl Queues {
    /// Queues what was in none.
    pub(super) fn enter(&mut self, slot: u32, weight: u32, places: &mut impl Places) {
        let queue = if self.take_ghost(places.print(slot)) { Queue::Main } else { Queue::Small };
        let stamp = self.next_stamp();
        let Some(place) = places.place(slot) else { return };
        *place = Place { weight, stamp, queue, asked: place.asked };
        let weight = u64::from(weight);
        self.weight += weight;
        self.live += 1;
        match queue {
            Queue::Main => self.main.push_back(Node { slot, stamp }),
            _ => {
                self.small_weight += weight;
                self.small.push_back(Node { slot, stamp });
            }
        }
        self.tidy(places);
    }

    /// Takes something out of its queue. Its node stays behind, and is passed over.
    pub(super) fn leave(&mut self, place: &mut Place) -> u32 {
        let weight = place.weight;
        match place.queue {
            Queue::None => return 0,
            Queue::Small => self.small_weight -= u64::from(weight),
            Queue::Main => {}
        }
        self.weight -= u64::from(weight);
        self.live -= 1;
        *place = Place::default();
        weight
    }

    fn next_stamp(&mut self) -> u32 {
        self.stamp = self.stamp.wrapping_add(1);
        self.stamp
    }

    /// The slot that has to go: it is in its queue still. `None`: there is none, or each was asked for, and counts for less now;
    /// where somebody `has_to` go, that is nothing to go by.
    pub(super) fn pick(&mut self, places: &mut impl Places, has_to: bool) -> Option<u32> {
        let mut looks = 0;
        while self.live > 0 {
            let is_small = self.small_weight * 100 > self.weight * SMALL || self.weight == self.small_weight;
            let queue = if is_small { &mut self.small } else { &mut self.main };
            let Some(node) = queue.pop_front() else {
                // Of no weight: whatever is there.
                let node = self.small.pop_front().or_else(|| self.main.pop_front())?;
                if is_of(node, places) {
                    return Some(node.slot);
                }
                continue;
            };
            let Some(place) = places.place(node.slot).filter(|place| place.stamp == node.stamp && place.is_queued())
            else {
                continue;
            };
            if place.asked == 0 || looks >= LOOKS || has_to {
                if is_small {
                    self.keep_ghost(places.print(node.slot));
                }
                return Some(node.slot);
            }
            if is_small {
                (place.asked, place.queue) = (0, Queue::Main);
                self.small_weight -= u64::from(place.weight);
            } else {
                place.asked -= 1;
            }
            self.main.push_back(node);
            looks += 1;
            if looks >= self.live && looks < LOOKS {
                return None;
            }
        }
        None
    }

    /// Nodes that were left behind do not pile up.
    fn tidy(&mut self, places: &mut impl Places) {
        if self.small.len() + self.main.len() > 2 * self.live + 64 {
            self.small.retain(|node| is_of(*node, places));
            self.main.retain(|node| is_of(*node, places));
        }
        // As many ghosts as there are entries: a table in which a new one takes the place of an old one.
        if self.live > self.ghosts.len() {
            self.ghosts = vec![0; (2 * self.live).next_power_of_two().max(16)].into();
        }
    }

    fn keep_ghost(&mut self, print: u32) {
        if let Some(ghost) = self.ghost(print) {
            *ghost = print;
        }
    }

    fn take_ghost(&mut self, print: u32) -> bool {
        self.ghost(print).is_some_and(|ghost| {
            let was_here = print != 0 && *ghost == print;
            if was_here {
                *ghost = 0;
            }
            was_here
        })
    }

    fn ghost(&mut self, print: u32) -> Option<&mut u32> {
        let mask = self.ghosts.len().wrapping_sub(1);
        self.ghosts.get_mut(print as usize & mask)
    }
}

fn is_of(node: Node, places: &mut impl Places) -> bool {
    places.place(node.slot).is_some_and(|place| place.stamp == node.stamp && place.is_queued())
}
