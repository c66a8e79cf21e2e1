//! Bytes in memory, for as long as anybody has them.
//!
//! The index counts what can be found. A client who takes his time has what he is being sent until the end, though it may have
//! been driven out long before: with many of those there would be no bound to memory, whatever is driven out. So the bytes of
//! heads and bodies are counted until the last part of them is dropped, wherever that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

/// How many bytes there are.
#[derive(Debug, Default)]
pub(super) struct Blocks(AtomicU64);

impl Blocks {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// These bytes, which count until nobody has a part of them. A share of them allocates nothing.
    pub(super) fn of(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        let bytes = bytes.into_boxed_slice();
        self.0.fetch_add(bytes.len() as u64, Relaxed);
        Bytes::from_owner(Block { bytes, all: Arc::clone(self) })
    }
}

struct Block {
    bytes: Box<[u8]>,
    all: Arc<Blocks>,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes.len() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_the_last_part_of_them_is_dropped() {
        let blocks = Arc::<Blocks>::default();
        let (one, two) = (blocks.of(vec![1; 100]), blocks.of(vec![2; 50]));
        assert_eq!(blocks.bytes(), 150);
        let part = one.slice(10..20);
        drop((one, two));
        assert_eq!((blocks.bytes(), &part[..]), (100, &[1; 10][..]));
        drop(part.slice(1..2));
        drop(part);
        assert_eq!(blocks.bytes(), 0);
    }
}
