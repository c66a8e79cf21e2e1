//! brotli (RFC 7932). The padding is a block of metadata at the beginning, which decoders skip.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderOperation as Operation, BrotliEncoderParameter as Parameter, BrotliEncoderStateStruct,
};

use super::Broken;
use crate::middleware::compress::padding;

/// Of the window, the hash table, and a block with its commands.
pub(super) const MEMORY: usize = 2 << 20;

/// What it costs beside the others: `docs/performance.md`, "What a coding costs".
const QUALITY: u32 = 4;
/// Of a block that is skipped: the encoder says of one with a single byte that it has none.
const LEAST_SKIPPED: usize = 2;
/// 64 KiB.
const WINDOW_LOG: u32 = 16;

pub(super) struct Brotli {
    state: BrotliEncoderStateStruct<StandardAlloc>,
    has_padding: bool,
}

impl Brotli {
    pub(super) fn new(length: Option<u64>) -> Self {
        let mut state = BrotliEncoderStateStruct::new(StandardAlloc::default());
        state.set_parameter(Parameter::BROTLI_PARAM_QUALITY, QUALITY);
        state.set_parameter(Parameter::BROTLI_PARAM_LGWIN, WINDOW_LOG);
        let hint = length.and_then(|length| u32::try_from(length).ok()).unwrap_or(0);
        state.set_parameter(Parameter::BROTLI_PARAM_SIZE_HINT, hint);
        Self { state, has_padding: false }
    }

    pub(super) fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        self.pad(out)?;
        self.run(data, Operation::BROTLI_OPERATION_PROCESS, out)
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.pad(out)?;
        self.run(&[], Operation::BROTLI_OPERATION_FLUSH, out)
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.pad(out)?;
        self.run(&[], Operation::BROTLI_OPERATION_FINISH, out)
    }

    fn run(&mut self, data: &[u8], operation: Operation, out: &mut Vec<u8>) -> Result<(), Broken> {
        let (mut left, mut at) = (data.len(), 0);
        loop {
            // No room of ours: what has come out is taken from where it lies.
            let (mut room, mut written) = (0, 0);
            let went = self.state.compress_stream(
                operation,
                &mut left,
                data,
                &mut at,
                &mut room,
                &mut [],
                &mut written,
                &mut None,
                &mut |_, _, _, _| (),
            );
            if !went {
                return Err(Broken("brotli"));
            }
            while self.state.has_more_output() {
                let mut count = 0;
                let piece = self.state.take_output(&mut count);
                out.extend_from_slice(&piece[..count]);
            }
            if left == 0 && !self.state.has_more_output() {
                return Ok(());
            }
        }
    }

    fn pad(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        if std::mem::replace(&mut self.has_padding, true) {
            return Ok(());
        }
        self.skipped(&padding::BYTES[..LEAST_SKIPPED + padding::length()], out)
    }

    /// A block that decoders skip. With room for all of it: the encoder is in the middle of it until it has seen its end.
    fn skipped(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        let (mut left, mut at, mut written) = (bytes.len(), 0, 0);
        let mut block = [0; padding::BYTES.len() + 16];
        let mut room = block.len();
        let went = self.state.compress_stream(
            Operation::BROTLI_OPERATION_EMIT_METADATA,
            &mut left,
            bytes,
            &mut at,
            &mut room,
            &mut block,
            &mut written,
            &mut None,
            &mut |_, _, _, _| (),
        );
        if !went || left > 0 {
            return Err(Broken("brotli"));
        }
        out.extend_from_slice(&block[..written]);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::decoding;
    use super::*;
    use crate::http::Coding;

    #[test]
    fn decoders_skip_padding_of_any_length() {
        for length in 0..=padding::MOST {
            let (mut brotli, mut out) = (Brotli::new(None), Vec::new());
            brotli.has_padding = true;
            brotli.skipped(&padding::BYTES[..LEAST_SKIPPED + length], &mut out).unwrap();
            brotli.push(b"a page", &mut out).unwrap();
            brotli.finish(&mut out).unwrap();
            assert_eq!(decoding::whole(Coding::Brotli, &out).as_deref(), Some(&b"a page"[..]), "{length}");
        }
    }
}
