//! Whatever an app answers to a WebSocket's events is read without a panic and within its own bytes; what is read is, written
//! anew, read as the same; and a body that is cut is never taken for one with less in its last event.

#![no_main]

use bytes::Bytes;
use hostler::realtime::events::{Kind, MAX_EVENTS, decode, parse_close, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let body = Bytes::copy_from_slice(bytes);
    let events = match decode(&body) {
        Ok(events) => events,
        Err(malformed) => {
            assert!(malformed.at < body.len());
            assert!(!malformed.to_string().is_empty());
            return;
        }
    };
    assert!(events.len() <= MAX_EVENTS);
    assert!(events.iter().map(|event| event.content.len()).sum::<usize>() <= body.len());
    let mut anew = Vec::new();
    for event in &events {
        match event.kind {
            Kind::Text => assert!(std::str::from_utf8(&event.content).is_ok()),
            Kind::Close => assert!(parse_close(&event.content).is_some()),
            _ => {}
        }
        write(&mut anew, event.kind, &event.content);
    }
    let anew = Bytes::from(anew);
    assert_eq!(decode(&anew).as_ref(), Ok(&events));
    if let Some(last) = anew.len().checked_sub(1) {
        assert!(decode(&anew.slice(..last)).is_err());
    }
});
