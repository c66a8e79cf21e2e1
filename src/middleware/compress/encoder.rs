//! One body on its way through a coding: bytes in, bytes out, with all the memory that this takes bounded.
//!
//! All three behave alike: what is pushed comes out when the encoder likes, at the latest with a flush or the end; what has
//! come out after a flush can be decoded to the last byte that was pushed. Each puts [`padding`](super::padding) where its
//! format has room for bytes that mean nothing.
//!
//! Encoders of gzip and zstd are made once and used again; a thread keeps some for the next body. That of brotli cannot be
//! used again.

mod brotli;
mod gzip;
mod zstd;

use std::cell::RefCell;

use self::brotli::Brotli;
use self::gzip::Gzip;
use self::zstd::Zstd;
use crate::http::Coding;

/// The encoder has failed, which none does that is used as it is meant to be, unless there is no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

/// An encoder in the middle of a body.
pub(super) struct Encoder(Kind);

enum Kind {
    /// Boxed: most of its state is no pointer, and it is moved more often than it is looked into.
    Brotli(Box<Brotli>),
    Zstd(Zstd),
    Gzip(Gzip),
}

/// How many of each coding a thread keeps.
const KEPT: usize = 16;

thread_local! {
    static IDLE: RefCell<Idle> = const { RefCell::new(Idle { gzip: Vec::new(), zstd: Vec::new() }) };
}

struct Idle {
    gzip: Vec<Gzip>,
    zstd: Vec<Zstd>,
}

impl Encoder {
    /// The most memory that one takes, in bytes: what `cargo bench --bench pieces compress` shows as `max alloc`, rounded up.
    pub(super) const fn memory(coding: Coding) -> usize {
        match coding {
            Coding::Brotli => brotli::MEMORY,
            Coding::Zstd => zstd::MEMORY,
            Coding::Gzip => gzip::MEMORY,
        }
    }

    /// One at the beginning of a body of this length, where it is known.
    pub(super) fn take(coding: Coding, length: Option<u64>) -> Result<Self, Broken> {
        let kind = match coding {
            Coding::Brotli => Kind::Brotli(Box::new(Brotli::new(length))),
            Coding::Zstd => {
                let kept = IDLE.with_borrow_mut(|idle| idle.zstd.pop());
                let mut zstd = kept.map_or_else(Zstd::new, Ok)?;
                zstd.begin(length)?;
                Kind::Zstd(zstd)
            }
            Coding::Gzip => {
                let kept = IDLE.with_borrow_mut(|idle| idle.gzip.pop());
                let mut gzip = kept.unwrap_or_else(Gzip::new);
                gzip.begin();
                Kind::Gzip(gzip)
            }
        };
        Ok(Self(kind))
    }

    /// Takes some of the body.
    pub(super) fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        match &mut self.0 {
            Kind::Brotli(brotli) => brotli.push(data, out),
            Kind::Zstd(zstd) => zstd.push(data, out),
            Kind::Gzip(gzip) => gzip.push(data, out),
        }
    }

    /// Lets out all that was pushed.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        match &mut self.0 {
            Kind::Brotli(brotli) => brotli.flush(out),
            Kind::Zstd(zstd) => zstd.flush(out),
            Kind::Gzip(gzip) => gzip.flush(out),
        }
    }

    /// The end of the body. Once.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        match &mut self.0 {
            Kind::Brotli(brotli) => brotli.finish(out),
            Kind::Zstd(zstd) => zstd.finish(out),
            Kind::Gzip(gzip) => gzip.finish(out),
        }
    }

    /// Leaves it to the next body, wherever this one has ended.
    pub(super) fn keep(self) {
        // The thread may be ending.
        let _ = IDLE.try_with(|idle| {
            let idle = &mut *idle.borrow_mut();
            match self.0 {
                Kind::Gzip(gzip) if idle.gzip.len() < KEPT => idle.gzip.push(gzip),
                Kind::Zstd(zstd) if idle.zstd.len() < KEPT => idle.zstd.push(zstd),
                Kind::Brotli(_) | Kind::Gzip(_) | Kind::Zstd(_) => {}
            }
        });
    }
}

/// Lets go of the encoders that this thread keeps: memory follows the present load.
pub fn forget_encoders() {
    IDLE.with_borrow_mut(|idle| {
        idle.gzip.clear();
        idle.zstd.clear();
    });
}

/// What decoders make of it.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod decoding {
    use std::io::Read as _;

    use super::Coding;

    /// All of a body that has come to its end; `None`: it has not, or there is more behind it.
    pub(in crate::middleware::compress) fn whole(coding: Coding, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => {
                let mut decoder = flate2::bufread::GzDecoder::new(bytes);
                decoder.read_to_end(&mut out).ok()?;
                decoder.into_inner().is_empty().then_some(out)
            }
            Coding::Zstd => {
                let (mut context, mut input) = (zstd_safe::DCtx::create(), zstd_safe::InBuffer::around(bytes));
                let mut left = 0;
                while input.pos < bytes.len() {
                    left = step(&mut context, &mut input, &mut out).ok()?;
                }
                (left == 0).then_some(out)
            }
            Coding::Brotli => {
                brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).ok()?;
                Some(out)
            }
        }
    }

    /// As much as can be had of the beginning of one.
    pub(in crate::middleware::compress) fn beginning(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // Errors say that it has no end.
        match coding {
            Coding::Gzip => drop(flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut out)),
            Coding::Zstd => {
                let (mut context, mut input) = (zstd_safe::DCtx::create(), zstd_safe::InBuffer::around(bytes));
                while input.pos < bytes.len() && step(&mut context, &mut input, &mut out).is_ok() {}
            }
            Coding::Brotli => drop(brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out)),
        }
        out
    }

    fn step(
        context: &mut zstd_safe::DCtx<'_>,
        input: &mut zstd_safe::InBuffer<'_>,
        out: &mut Vec<u8>,
    ) -> zstd_safe::SafeResult {
        out.reserve(256 << 10);
        let written = out.len();
        context.decompress_stream(&mut zstd_safe::OutBuffer::around_pos(out, written), input)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::middleware::compress::padding;

    /// Text that repeats itself a little, as pages do.
    pub(super) fn text(length: usize) -> Vec<u8> {
        let rows = (0_u32..)
            .flat_map(|n| format!("{{\"id\": {n}, \"hash\": {:08x}}}\n", n.wrapping_mul(2_654_435_761)).into_bytes());
        rows.take(length).collect()
    }

    fn compressed(coding: Coding, length: Option<u64>, pieces: &[(&[u8], bool)]) -> Vec<u8> {
        let mut encoder = Encoder::take(coding, length).unwrap();
        let mut out = Vec::new();
        for (piece, is_flushed) in pieces {
            encoder.push(piece, &mut out).unwrap();
            if *is_flushed {
                encoder.flush(&mut out).unwrap();
            }
        }
        encoder.finish(&mut out).unwrap();
        encoder.keep();
        out
    }

    #[test]
    fn each_makes_text_smaller_and_gives_it_back() {
        for coding in Coding::ALL {
            for length in [0, 1, 1_000, 100_000, 1_000_000] {
                let text = text(length);
                let out = compressed(coding, Some(length as u64), &[(&text, false)]);
                assert!(decoding::whole(coding, &out).as_deref() == Some(&*text), "{coding:?} of {length}");
                assert!(out.len() < length / 2 + padding::MOST + 64, "{coding:?}: {} of {length}", out.len());
            }
        }
    }

    #[test]
    fn a_flush_lets_out_all_that_was_pushed() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::take(coding, None).unwrap();
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            for n in 0..200 {
                let event = format!("data: event {n}\n\n");
                encoder.push(event.as_bytes(), &mut out).unwrap();
                encoder.flush(&mut out).unwrap();
                expected.extend(event.into_bytes());
                assert!(decoding::beginning(coding, &out) == expected, "{coding:?} after {n}");
            }
            assert_eq!(decoding::whole(coding, &out), None, "{coding:?} has no end yet");
        }
    }

    #[test]
    fn what_was_left_in_the_middle_of_a_body_begins_another_one() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::take(coding, Some(1 << 30)).unwrap();
            encoder.push(&text(300_000), &mut Vec::new()).unwrap();
            encoder.keep();
            let out = compressed(coding, None, &[(b"another", false)]);
            assert_eq!(decoding::whole(coding, &out).as_deref(), Some(&b"another"[..]), "{coding:?}");
        }
        forget_encoders();
        IDLE.with_borrow(|idle| assert!(idle.gzip.is_empty() && idle.zstd.is_empty()));
    }

    #[test]
    fn the_same_page_is_not_always_as_long() {
        for coding in Coding::ALL {
            let page = text(5_000);
            let mut lengths: Vec<usize> =
                (0..200).map(|_| compressed(coding, Some(5_000), &[(&page, false)]).len()).collect();
            lengths.sort_unstable();
            lengths.dedup();
            assert!(lengths.len() > 60, "{coding:?}: {lengths:?}");
            assert!(lengths[lengths.len() - 1] - lengths[0] <= padding::MOST + 1, "{coding:?}: {lengths:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_pushed_and_flushed_comes_back(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3_000), 0..40_usize, any::<bool>()), 0..12),
            is_pledged: bool,
        ) {
            // Some of it repeats, so that every kind of block occurs.
            let pieces: Vec<(Vec<u8>, bool)> =
                pieces.into_iter().map(|(bytes, times, flush)| (bytes.repeat(times), flush)).collect();
            let all: Vec<u8> = pieces.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            let pieces: Vec<(&[u8], bool)> = pieces.iter().map(|(bytes, flush)| (&bytes[..], *flush)).collect();
            for coding in Coding::ALL {
                let out = compressed(coding, is_pledged.then_some(all.len() as u64), &pieces);
                prop_assert!(decoding::whole(coding, &out).as_deref() == Some(&*all), "{:?}", coding);
            }
        }
    }
}
