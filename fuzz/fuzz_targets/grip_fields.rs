//! Instructions that are taken name channels, keep to the limits, and leave nothing of themselves in the head.

#![no_main]

use hostler::realtime::grip::{Instruct, split};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = [b"grip-", &line[..colon]].concat();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&name), HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
        if let Ok(text) = std::str::from_utf8(line) {
            let length = |list: bool| -> usize {
                let elements = split(text, list);
                let all = elements.iter().flat_map(|element| std::iter::once(&element.first).chain(&element.rest));
                all.map(|(name, value)| name.len() + value.as_deref().map_or(0, str::len)).sum()
            };
            assert!(length(true) <= text.len() && length(false) <= text.len());
        }
    }
    let Ok(instruct) = Instruct::of_fields(&headers) else { return };
    assert!(instruct.channels.len() <= 20 && instruct.channels.iter().all(|channel| !channel.channel.is_empty()));
    assert!(instruct.keep_alive.as_ref().is_none_or(|keep_alive| !keep_alive.data.is_empty()));
    instruct.strip(&mut headers);
    assert!(!Instruct::is_in(&headers));
});
