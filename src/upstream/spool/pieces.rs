//! Bytes in memory, in the order in which they came.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A piece that is copied beside its neighbours, and how many bytes lie side by side at most.
const SMALL: usize = 4 << 10;
const TAIL: usize = 16 << 10;

/// Pieces of a body.
#[derive(Default)]
pub(super) struct Pieces {
    queue: VecDeque<Bytes>,
    /// Small pieces side by side, behind the queue: each on its own would cost more than it holds.
    tail: BytesMut,
    length: u64,
}

/// How a small piece is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Small {
    /// As it is, when nothing is before it: it may be taken at once.
    WhereAlone,
    /// Beside its neighbours.
    Joined,
}

impl Pieces {
    /// Bytes in all of them.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, data: Bytes, small: Small) {
        let is_alone = self.queue.is_empty() && self.tail.is_empty();
        self.length += data.len() as u64;
        if data.len() < SMALL && !(is_alone && small == Small::WhereAlone) {
            self.tail.extend_from_slice(&data);
        } else {
            self.close_tail();
            self.queue.push_back(data);
        }
        if self.tail.len() >= TAIL {
            self.close_tail();
        }
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        if self.queue.is_empty() {
            self.close_tail();
        }
        let data = self.queue.pop_front()?;
        self.length -= data.len() as u64;
        Some(data)
    }

    /// All of them.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.close_tail();
        self.length = 0;
        self.queue.drain(..).collect()
    }

    /// Puts these before all others again.
    pub(super) fn put_back(&mut self, pieces: Vec<Bytes>) {
        for piece in pieces.into_iter().rev() {
            self.length += piece.len() as u64;
            self.queue.push_front(piece);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// In how many pieces they lie.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.queue.len() + usize::from(!self.tail.is_empty())
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_in_their_order_however_they_lie() {
        for small in [Small::WhereAlone, Small::Joined] {
            let mut pieces = Pieces::default();
            let mut expected = Vec::new();
            for number in 0..60_u8 {
                let length = if number % 7 == 0 { SMALL } else { 1000 };
                let data = vec![number; length];
                expected.extend_from_slice(&data);
                pieces.push(data.into(), small);
                if number == 30 {
                    let taken = pieces.take();
                    assert!(pieces.is_empty());
                    pieces.put_back(taken);
                }
            }
            assert_eq!(pieces.length(), expected.len() as u64);
            assert!(pieces.count() < 30, "{}", pieces.count());
            let all: Vec<u8> = std::iter::from_fn(|| pieces.pop()).flatten().collect();
            assert!(all == expected && pieces.is_empty());
        }
    }
}
