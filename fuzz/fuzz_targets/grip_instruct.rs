//! Instructions in JSON that are taken keep to the limits, and their answer can be written.

#![no_main]

use hostler::realtime::grip::{Instruct, LARGEST};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut instruct = Instruct::default();
    if instruct.read_json(http::StatusCode::OK, bytes).is_err() {
        return;
    }
    assert!(bytes.len() <= LARGEST && instruct.channels.len() <= 20);
    let Some(response) = instruct.response else { panic!("an answer without one") };
    assert!((200..600).contains(&response.status.as_u16()) && response.body.len() <= bytes.len());
    assert!(!response.headers.contains_key("content-length"));
});
