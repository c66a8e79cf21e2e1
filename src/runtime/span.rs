//! Stretches of files that are sent from where they lie (sendfile(2)): no copy through our memory.

use std::fs::File;
use std::io::IoSliceMut;
use std::sync::Arc;

use rustix::io::{ReadWriteFlags, preadv2};

/// The most that is sent in one turn of a connection.
const MOST: u64 = 256 << 10;
/// Less is not worth its system calls.
const LEAST: u64 = 16 << 10;

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
    /// The bytes from `start`, as many before `end` as may be sent in one turn. `None`: they are few, or not in the page
    /// cache, and sending them would keep the thread waiting for a disk.
    #[must_use]
    pub fn at_hand(file: &Arc<File>, start: u64, end: u64) -> Option<Self> {
        let length = end.saturating_sub(start).min(MOST);
        // The kernel forgets what was not used for longest: what lies between two bytes that are there is there, too.
        let is_at_hand = length >= LEAST && is_cached(file, start) && is_cached(file, start + length - 1);
        is_at_hand.then(|| Self { file: Arc::clone(file), start, length: usize::try_from(length).unwrap_or(0) })
    }

    /// Steps over bytes that have been sent. Whether those were all.
    pub fn advance(&mut self, bytes: usize) -> bool {
        self.start += bytes as u64;
        self.length = self.length.saturating_sub(bytes);
        self.length == 0
    }
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
        let length = |start, end| Span::at_hand(&file, start, end).map(|span| span.length);
        assert_eq!(length(0, 300 << 10), Some(256 << 10));
        assert_eq!(length(200 << 10, 300 << 10), Some(100 << 10));
        assert_eq!(length(299 << 10, 300 << 10), None, "few");
        assert_eq!(length(0, 0), None);
        assert_eq!(length(256 << 10, 400 << 10), None, "the file is shorter");
    }
}
