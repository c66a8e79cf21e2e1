//! Items that are taken have a channel and a format, and a frame of theirs is one that a client can read.

#![no_main]

use hostler::realtime::hub::{Kind, MessagePart};
use hostler::realtime::publish::items;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(items) = items::read(bytes) else { return };
    for item in items {
        assert!(!item.channel.is_empty() && item.size() > 0);
        assert!(item.response.is_some() || item.stream.is_some() || item.message.is_some());
        let Some(content) = &item.message else { continue };
        let MessagePart::Send(message) = &content.part else { continue };
        let frame = message.frame();
        assert!(frame[0] == 0x80 | message.kind.opcode() && frame.ends_with(&message.payload));
        assert!(message.kind != Kind::Text || std::str::from_utf8(&message.payload).is_ok());
    }
});
