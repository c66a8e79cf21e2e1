//! zstd (RFC 8878, and RFC 9659 for HTTP). The padding is a skippable frame behind the only other one: what stops reading at the end
//! of the first frame, as some clients do, has all of the body.

use zstd_safe::zstd_sys::ZSTD_EndDirective as Directive;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::Broken;
use crate::middleware::compress::padding;

/// Of the window, the tables, and a block on its way in and out.
pub(super) const MEMORY: usize = 672 << 10;

/// What it costs beside the others: `docs/performance.md`, "What a coding costs".
const LEVEL: i32 = 3;
/// 64 KiB. Clients need not take more than 8 MiB (RFC 9659), but what is larger costs more here than it saves.
const WINDOW_LOG: u32 = 16;
const HASH_LOG: u32 = 15;
const CHAIN_LOG: u32 = 14;

/// The first of the magic numbers of frames to be skipped.
const SKIPPED: u32 = 0x184d_2a50;

/// Room that is made at a time.
const ROOM: usize = 8 << 10;

pub(super) struct Zstd {
    context: CCtx<'static>,
}

impl Zstd {
    pub(super) fn new() -> Result<Self, Broken> {
        let mut context = CCtx::try_create().ok_or(Broken("no memory for zstd"))?;
        for parameter in [
            CParameter::CompressionLevel(LEVEL),
            CParameter::WindowLog(WINDOW_LOG),
            CParameter::HashLog(HASH_LOG),
            CParameter::ChainLog(CHAIN_LOG),
        ] {
            context.set_parameter(parameter).map_err(|_| Broken("zstd"))?;
        }
        Ok(Self { context })
    }

    /// A length that is known makes tables that fit it. It is not relied upon: a body that ends elsewhere is cut.
    pub(super) fn begin(&mut self, length: Option<u64>) -> Result<(), Broken> {
        self.context.reset(ResetDirective::SessionOnly).map_err(|_| Broken("zstd"))?;
        self.context.set_pledged_src_size(length).map_err(|_| Broken("zstd"))?;
        Ok(())
    }

    pub(super) fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        self.run(data, Directive::ZSTD_e_continue, out)
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.run(&[], Directive::ZSTD_e_flush, out)
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.run(&[], Directive::ZSTD_e_end, out)?;
        let padding = &padding::BYTES[..padding::length()];
        out.extend_from_slice(&SKIPPED.to_le_bytes());
        out.extend_from_slice(&(padding.len() as u32).to_le_bytes());
        out.extend_from_slice(padding);
        Ok(())
    }

    fn run(&mut self, data: &[u8], directive: Directive, out: &mut Vec<u8>) -> Result<(), Broken> {
        let mut input = InBuffer::around(data);
        loop {
            if out.len() == out.capacity() {
                out.reserve(ROOM);
            }
            let written = out.len();
            let mut output = OutBuffer::around_pos(out, written);
            let left = self.context.compress_stream2(&mut output, &mut input, directive).map_err(|_| Broken("zstd"))?;
            let is_done = match directive {
                Directive::ZSTD_e_continue => input.pos == data.len(),
                Directive::ZSTD_e_flush | Directive::ZSTD_e_end => left == 0,
            };
            if is_done {
                return Ok(());
            }
        }
    }
}
