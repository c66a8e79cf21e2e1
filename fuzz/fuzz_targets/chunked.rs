//! The chunk decoder says the same of the same bytes, in one piece or byte by byte.

#![no_main]

use hostler::http1::chunked::{Decoder, Malformed, Step};
use libfuzzer_sys::fuzz_target;

/// The body and the bytes used, `None` when more are needed.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
    let (mut decoder, mut body, mut used) = (Decoder::default(), Vec::new(), 0);
    for mut rest in pieces {
        loop {
            match decoder.step(rest)? {
                Step::Data { skip, data } => {
                    body.extend_from_slice(&rest[skip..skip + data]);
                    rest = &rest[skip + data..];
                    used += skip + data;
                }
                Step::More { skip } => {
                    assert_eq!(skip, rest.len());
                    used += skip;
                    break;
                }
                Step::End { skip } => return Ok(Some((body, used + skip))),
            }
        }
    }
    Ok(None)
}

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(decode(std::iter::once(bytes)), decode(bytes.chunks(1)));
});
