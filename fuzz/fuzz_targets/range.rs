//! The parts that a Range field asks for are parts of the body that do not touch, each byte once; asked for anew as they are,
//! they are the same parts. The first eight bytes are the length of the body.

#![no_main]

use hostler::http::range::{ByteRange, MAX_RANGES, Ranges, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, value)) = bytes.split_first_chunk() else { return };
    let number = u64::from_le_bytes(*length);
    // Small bodies as often as large ones.
    let length = number >> (number % 64);
    let read = parse(value, length);
    let parts: Vec<ByteRange> = match &read {
        Ranges::Whole | Ranges::Unsatisfiable => return,
        Ranges::One(part) => vec![*part],
        Ranges::Many(parts) => {
            assert!(parts.len() > 1 && parts.len() <= MAX_RANGES);
            parts.clone()
        }
    };
    let mut sum = 0_u64;
    for (at, part) in parts.iter().enumerate() {
        assert!(part.first <= part.last && part.last < length);
        sum += part.len();
        for other in &parts[..at] {
            assert!(other.last + 1 < part.first || part.last + 1 < other.first, "they touch");
        }
    }
    assert!(sum <= length);
    let specs: Vec<String> = parts.iter().map(|part| format!("{}-{}", part.first, part.last)).collect();
    assert_eq!(parse(format!("bytes={}", specs.join(",")).as_bytes(), length), read);
});
