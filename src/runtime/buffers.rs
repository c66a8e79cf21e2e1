//! Read and write buffers, kept per thread and lent out only while there are bytes in them: an idle connection holds none.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;

/// What a buffer holds when it is taken.
pub const SIZE: usize = 16 << 10;
/// The largest that is kept: what HTTP/2 collects before it is sent.
const LARGEST: usize = 4 * SIZE;
/// How many a thread keeps.
const KEPT: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A byte vector that goes back to its thread's list when it is dropped. Empty when taken.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty buffer of at least [`SIZE`] bytes capacity.
    #[must_use]
    pub fn take() -> Self {
        Self(FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(SIZE)))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        // One that has grown for a large head is not kept: memory follows the present load.
        if buffer.capacity() > LARGEST {
            return;
        }
        buffer.clear();
        // The thread may be ending.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(buffer);
            }
        });
    }
}

/// The size of a [`Piece`].
pub const PIECE: usize = 64 << 10;
/// How many of them a thread keeps.
const KEPT_PIECES: usize = 16;

thread_local! {
    static FREE_PIECES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Room for a part of a large body, which goes back to the list of the thread that lets go of it. Holds whatever was in it:
/// who fills it says how much of it counts.
#[derive(Debug)]
pub struct Piece {
    bytes: Box<[u8]>,
    length: usize,
}

impl Piece {
    /// One with nothing in it that counts.
    #[must_use]
    pub fn take() -> Self {
        let kept = FREE_PIECES.with_borrow_mut(Vec::pop);
        Self { bytes: kept.unwrap_or_else(|| vec![0; PIECE].into()), length: 0 }
    }

    /// All of its room.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The first `length` bytes of it, which have been filled.
    #[must_use]
    pub fn into_bytes(mut self, length: usize) -> Bytes {
        self.length = length;
        Bytes::from_owner(self)
    }
}

/// Lets go of the room for pieces that this thread keeps: memory follows the present load.
pub fn forget_pieces() {
    FREE_PIECES.take();
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // The thread may be ending.
        let _ = FREE_PIECES.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT_PIECES {
                free.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}
