//! gzip (RFC 1952). Head and tail are written here, because the head has the padding: a comment, which decoders pass over.

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::Broken;
use crate::middleware::compress::padding;

/// Of the window, the hash chains and what has not come out: all of it is there from the beginning.
pub(super) const MEMORY: usize = 384 << 10;

/// Makes it a little smaller than nginx's default does. What it costs: `docs/performance.md`, "What a coding costs".
const LEVEL: u32 = 2;

/// Magic, deflate, a comment, no time, nothing of the speed, unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0x10, 0, 0, 0, 0, 0, 0xff];

/// A flush that has less room says twice that it was one.
const LEAST_ROOM: usize = 64;
/// Room that is made at a time.
const ROOM: usize = 8 << 10;

pub(super) struct Gzip {
    deflate: Compress,
    crc: Crc,
    has_head: bool,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self { deflate: Compress::new(Compression::new(LEVEL), false), crc: Crc::new(), has_head: false }
    }

    pub(super) fn begin(&mut self) {
        self.deflate.reset();
        self.crc.reset();
        self.has_head = false;
    }

    pub(super) fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        self.head(out);
        self.crc.update(data);
        self.run(data, FlushCompress::None, out)
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.head(out);
        self.run(&[], FlushCompress::Sync, out)
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.head(out);
        self.run(&[], FlushCompress::Finish, out)?;
        out.extend_from_slice(&self.crc.sum().to_le_bytes());
        // Modulo 2^32, as the format has it.
        out.extend_from_slice(&self.crc.amount().to_le_bytes());
        Ok(())
    }

    fn head(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_head, true) {
            out.extend_from_slice(&HEAD);
            out.extend_from_slice(&padding::BYTES[..padding::length()]);
            out.push(0);
        }
    }

    fn run(&mut self, mut data: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> Result<(), Broken> {
        loop {
            if out.capacity() - out.len() < LEAST_ROOM {
                out.reserve(ROOM);
            }
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(data, out, flush).map_err(|_| Broken("gzip"))?;
            let taken = self.deflate.total_in() - before;
            data = data.get(usize::try_from(taken).unwrap_or(usize::MAX)..).unwrap_or_default();
            let is_done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                // Where it has left room, there is no more.
                _ => data.is_empty() && out.len() < out.capacity(),
            };
            if is_done {
                return Ok(());
            }
        }
    }
}
