//! The frame guard finds the same frames and says the same of them, in one piece or byte by byte, in both directions.

#![no_main]

use std::time::Duration;

use hostler::edge::frame_guard::budgets::Budgets;
use hostler::edge::frame_guard::frames::{Frame, Frames};
use hostler::observe::metrics::Http2Refusal;
use libfuzzer_sys::fuzz_target;

fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<u8>) {
    let (mut parser, mut found) = (Frames::behind(0), Vec::new());
    for mut piece in pieces {
        while let Some(frame) = parser.next(&mut piece) {
            assert!(frame.content() <= frame.length);
            found.push(frame);
        }
        assert!(piece.is_empty());
    }
    (found, parser.incomplete())
}

/// What is said of bytes that go in both directions, and whether a head is open then.
fn judge<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Result<(), Http2Refusal>, Vec<Http2Refusal>, Option<u64>) {
    let (mut budgets, mut told, mut result) = (Budgets::new(64 << 10, Duration::ZERO), Vec::new(), Ok(()));
    // The preface is stepped over, whatever it is.
    let _ = budgets.received(&[0; 24]);
    for piece in pieces {
        let sent = budgets.sent(piece, |refusal| told.push(refusal));
        let received = if result.is_ok() { budgets.received(piece) } else { Ok(()) };
        result = result.and(received);
        drop(sent);
    }
    // Behind a refusal nothing is looked at any more.
    let open = budgets.open_head().filter(|_| result.is_ok());
    (result, told, open)
}

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(frames(std::iter::once(bytes)), frames(bytes.chunks(1)));
    let (whole, pieces) = (judge(std::iter::once(bytes)), judge(bytes.chunks(1)));
    assert_eq!(whole.1, pieces.1);
    // What earns credit on the way out comes earlier or later when both directions are cut: only without it they agree.
    if whole.1.is_empty() && !frames(std::iter::once(bytes)).0.iter().any(|frame| frame.kind <= 1) {
        assert_eq!((whole.0, whole.2), (pieces.0, pieces.2));
    }
});
