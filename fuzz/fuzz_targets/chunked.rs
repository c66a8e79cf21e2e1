//! The chunk decoder says the same of the same bytes, in one piece, byte by byte and split anywhere; it says what a second
//! reading from the grammar says; and a body that is written anew in chunks is the same body.

#![no_main]

use hostler::http1::chunked::{Decoder, Malformed, Step};
use libfuzzer_sys::fuzz_target;
use reference::Chunked;

#[allow(dead_code)]
#[path = "../../src/http1/tests/reference.rs"]
mod reference;

/// The body and the bytes used, `None` when more are needed.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
    let (mut decoder, mut body, mut used) = (Decoder::default(), Vec::new(), 0);
    for mut rest in pieces {
        loop {
            match decoder.step(rest)? {
                Step::Data { skip, data } => {
                    assert!(data > 0);
                    body.extend_from_slice(&rest[skip..skip + data]);
                    rest = &rest[skip + data..];
                    used += skip + data;
                }
                Step::More { skip } => {
                    assert_eq!(skip, rest.len());
                    used += skip;
                    break;
                }
                Step::End { skip } => {
                    assert!(decoder.is_end());
                    return Ok(Some((body, used + skip)));
                }
            }
        }
    }
    Ok(None)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = decode(std::iter::once(bytes));
    assert_eq!(whole, decode(bytes.chunks(1)));
    let cut = bytes.first().map_or(0, |byte| usize::from(*byte) % bytes.len());
    let (before, after) = bytes.split_at(cut);
    assert_eq!(whole, decode([before, after].into_iter()));
    let second = match reference::chunked(bytes) {
        Chunked::Whole(body, used) => Ok(Some((body, used))),
        Chunked::Cut => Ok(None),
        Chunked::Malformed => Err(Malformed),
    };
    assert_eq!(whole, second);
    let Ok(Some((body, _))) = whole else { return };
    let mut anew = Vec::new();
    for chunk in body.chunks(7) {
        anew.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        anew.extend_from_slice(chunk);
        anew.extend_from_slice(b"\r\n");
    }
    anew.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(decode(std::iter::once(&anew[..])), Ok(Some((body, anew.len()))));
});
