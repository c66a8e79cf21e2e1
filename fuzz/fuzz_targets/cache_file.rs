//! A file of the cache is read as it was written, or not at all: whatever else is in it, no byte of a body comes out.

#![no_main]

use hostler::cache::Key;
use hostler::cache::store::body_of_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The key that the file says it has, so that more than that is looked at.
    let Some(Ok(key)) = bytes.get(32..64).map(<[u8; 32]>::try_from) else { return };
    let Some(body) = body_of_file(&Key::from_bytes(key), bytes) else { return };
    let mut other = key;
    other[0] ^= 1;
    assert!(body_of_file(&Key::from_bytes(other), bytes).is_none(), "it is another's");
    assert!(body.len() < bytes.len());
    // One bit of it, anywhere but in the mark.
    let at = body.len() % bytes.len();
    if !(112..120).contains(&at) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x10;
        assert!(body_of_file(&Key::from_bytes(key), &flipped).is_none(), "bit flipped in {at}");
    }
    assert!(body_of_file(&Key::from_bytes(key), &bytes[..bytes.len() - 1]).is_none());
});
