//! Stretches of files that are sent from where they lie (sendfile(2)): no copy through our memory.

use std::fs::File;
use std::io::IoSliceMut;
use std::sync::Arc;

use rustix::io::{ReadWriteFlags, preadv2};

/// The most that is sent in one turn of a connection.
const MOST: u64 = 256 << 10;
/// Less is not worth its system calls.
const LEAST: u64 = 16 << 10;
/// The smallest page that Linux has; the page cache keeps nothing smaller.
const PAGE: u64 = 4 << 10;

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

    /// The same of any file, such as one of which clients have asked for parts: what lies between those is not there. Every
    /// page is asked for, with a system call each, and the span ends before the first that is missing.
    ///
    /// Nothing holds the pages until they are sent: a machine that runs out of memory meanwhile may take them, and then the
    /// thread waits for the disk after all.
    #[must_use]
    pub fn at_hand_throughout(file: &Arc<File>, start: u64, end: u64) -> Option<Self> {
        let most = end.saturating_sub(start).min(MOST);
        let length = if most < LEAST { 0 } else { reach(start, start + most, |at| is_cached(file, at)) };
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

/// How many bytes from `start` on are there, of those before `end`. `is_there` is asked for the last byte wanted of each page.
fn reach(start: u64, end: u64, is_there: impl Fn(u64) -> bool) -> u64 {
    let mut reached = start;
    while reached < end {
        let next = ((reached / PAGE + 1) * PAGE).min(end);
        if !is_there(next - 1) {
            break;
        }
        reached = next;
    }
    reached - start
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
            assert_eq!(length(290 << 10, 400 << 10), None, "the file is shorter");
        }
    }

    #[test]
    fn a_span_ends_before_the_first_page_that_is_missing() {
        for start in [0, 1, PAGE - 1, PAGE, 3 * PAGE + 7] {
            for missing in 0..20 {
                let end = 16 * PAGE + 9;
                let has = |at: u64| at / PAGE != missing;
                let first_missing = (start..end).find(|at| !has(*at)).unwrap_or(end);
                assert_eq!(start + reach(start, end, has), first_missing, "{start}, without page {missing}");
            }
        }
        assert_eq!(reach(5, 5, |_| true), 0);
        assert_eq!(reach(0, 2 * PAGE, |at| at < PAGE + 1), PAGE, "the file ends in the second page");
    }
}
