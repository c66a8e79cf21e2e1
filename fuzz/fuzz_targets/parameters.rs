//! Parameters of a control request that we take are text without control characters, and mean the same when they are
//! written anew.

#![no_main]

use hostler::admin::Parameters;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(parameters) = Parameters::parse(&[bytes]) else { return };
    let mut anew = Vec::new();
    for (name, value) in [("upstream", &parameters.upstream), ("endpoint", &parameters.endpoint)] {
        let Some(value) = value else { continue };
        assert!(!value.is_empty() && !value.contains(char::is_control));
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        anew.push(format!("{name}={encoded}"));
    }
    let anew = anew.join("&");
    assert_eq!(Parameters::parse(&[anew.as_bytes()]), Ok(parameters));
});
