//! Stretches of files that are sent from where they lie (sendfile(2)): no copy through our memory.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::IoSliceMut;
use std::sync::Arc;

use rustix::io::{ReadWriteFlags, preadv2};

/// The most that is sent in one turn of a connection.
const MOST: u64 = 256 << 10;
/// Less is not worth its system calls.
const LEAST: u64 = 16 << 10;
/// The smallest page that Linux has; the page cache keeps nothing smaller.
const PAGE: u64 = 4 << 10;
/// Of so many pages one is asked for.
const STRETCH: u64 = 8;

/// A stretch of a file.
#[derive(Debug, Clone)]
pub struct Span {
    /// Where it lies.
    pub file: Arc<File>,
    /// Its first byte.
    pub start: u64,
    /// Bytes, at least one.
    pub length: usize,
}

impl Span {
    /// The bytes from `start` of a file that has been written from its beginning to its end, as many before `end` as may be
    /// sent in one turn. `None`: they are few, or not in the page cache, and sending them would keep the thread waiting for a
    /// disk.
    #[must_use]
    pub fn at_hand(file: &Arc<File>, start: u64, end: u64) -> Option<Self> {
        let length = end.saturating_sub(start).min(MOST);
        // The kernel forgets what was not used for longest: of what was written in this order, what lies between two bytes that
        // are there is there, too.
        let is_at_hand = length >= LEAST && is_cached(file, start) && is_cached(file, start + length - 1);
        is_at_hand.then(|| Self::of(file, start, length))
    }

    /// The same of any file, such as one of which clients have asked for parts: what lies between those is not there. Of every
    /// eight pages one is asked for, which nobody can foresee, and the span ends before the eight in which it is missing.
    ///
    /// A page that is missing all the same is waited for, and is there from then on. Whatever share of the pages of a span is
    /// missing, that are three of its 64 on average at most: where more are, it is noticed. To ask for each would cost as much
    /// as to read it. Nor does anything hold the pages until they are sent.
    #[must_use]
    pub fn at_hand_throughout(file: &Arc<File>, start: u64, end: u64) -> Option<Self> {
        let most = end.saturating_sub(start).min(MOST);
        let length = if most < LEAST { 0 } else { reach(start, start + most, chance(), |at| is_cached(file, at)) };
        (length >= LEAST).then(|| Self::of(file, start, length))
    }

    fn of(file: &Arc<File>, start: u64, length: u64) -> Self {
        Self { file: Arc::clone(file), start, length: usize::try_from(length).unwrap_or(0) }
    }

    /// Steps over bytes that have been sent. Whether those were all.
    pub fn advance(&mut self, bytes: usize) -> bool {
        self.start += bytes as u64;
        self.length = self.length.saturating_sub(bytes);
        self.length == 0
    }
}

/// How many bytes from `start` on seem to be there, of those before `end`. `is_there` is asked for one page of each stretch,
/// which `chance` picks: for the last of its bytes that are wanted.
fn reach(start: u64, end: u64, mut chance: u64, is_there: impl Fn(u64) -> bool) -> u64 {
    let mut reached = start;
    while reached < end {
        let next = ((reached / (STRETCH * PAGE) + 1) * STRETCH * PAGE).min(end);
        let (first, last) = (reached / PAGE, (next - 1) / PAGE);
        let page = first + chance % (last - first + 1);
        chance = chance.rotate_right(7);
        if !is_there(((page + 1) * PAGE).min(next) - 1) {
            break;
        }
        reached = next;
    }
    reached - start
}

/// A number that nobody can foresee (xorshift, from a seed of the system's).
fn chance() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0_u8) | 1);
    }
    let mut state = STATE.get();
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    STATE.set(state);
    state
}

/// Whether the byte at `at` can be read without waiting. No, where the file system cannot be asked so.
fn is_cached(file: &File, at: u64) -> bool {
    let mut byte = [0];
    matches!(preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT), Ok(1))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_just_written_is_at_hand_and_what_is_not_there_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 300 << 10]).unwrap();
        let file = Arc::new(file);
        for at_hand in [Span::at_hand, Span::at_hand_throughout] {
            let length = |start, end| at_hand(&file, start, end).map(|span| span.length);
            assert_eq!(length(0, 300 << 10), Some(256 << 10));
            assert_eq!(length(200 << 10, 300 << 10), Some(100 << 10));
            assert_eq!(length(299 << 10, 300 << 10), None, "few");
            assert_eq!(length(0, 0), None);
            assert_eq!(length(300 << 10, 400 << 10), None, "the file is shorter");
        }
    }

    #[test]
    fn one_page_of_eight_is_asked_for_and_any_of_them_may_be() {
        for (start, end) in [(0, 64 * PAGE), (3 * PAGE + 7, 40 * PAGE + 9), (PAGE - 1, PAGE + 1), (5, 6)] {
            let mut asked = std::collections::BTreeSet::new();
            for _ in 0..2000 {
                let calls = std::cell::RefCell::new(Vec::new());
                let all = reach(start, end, chance(), |at| {
                    calls.borrow_mut().push(at);
                    true
                });
                assert_eq!(all, end - start);
                let stretches: Vec<u64> = calls.borrow().iter().map(|at| at / (STRETCH * PAGE)).collect();
                let expected: Vec<u64> = (start / (STRETCH * PAGE)..=(end - 1) / (STRETCH * PAGE)).collect();
                assert_eq!(stretches, expected, "{start} to {end}");
                assert!(calls.borrow().iter().all(|at| (start..end).contains(at)));
                asked.extend(calls.into_inner().iter().map(|at| at / PAGE));
            }
            assert!(
                asked.into_iter().eq(start / PAGE..=(end - 1) / PAGE),
                "{start} to {end}: every page, now and then"
            );
        }
    }

    #[test]
    fn a_span_ends_before_the_stretch_in_which_a_page_is_found_missing() {
        let stretch = STRETCH * PAGE;
        for missing in 0..4 {
            let has = |at: u64| at / stretch != missing;
            assert_eq!(reach(0, 4 * stretch, chance(), has), missing * stretch);
        }
        assert_eq!(reach(5, 5, 0, |_| true), 0);
    }
}
