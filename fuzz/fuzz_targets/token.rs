//! Nobody who has no key makes a token that is good; what is taken apart is spelled in one way only.

#![no_main]

use std::time::Duration;

use hostler::credentials::jwt::{Expected, Unverified};
use hostler::credentials::{Algorithm, KeySet};
use libfuzzer_sys::fuzz_target;

/// Keys of RFC 7517 (A.1) and RFC 8037 (A.2).
const KEYS: &[u8] = br#"{"keys":[
    {"kty":"EC","crv":"P-256","kid":"1","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
    {"kty":"OKP","crv":"Ed25519","kid":"2","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fuzz_target!(|bytes: &[u8]| {
    // As a set of keys: whatever is taken can be used, and is read the same again.
    if let Ok(set) = KeySet::parse(bytes, &"it") {
        assert!(!set.keys().is_empty() && KeySet::parse(bytes, &"it").is_ok_and(|again| again == set));
    }
    let expected = Expected {
        algorithms: Algorithm::ALL.to_vec(),
        issuer: "i".into(),
        audience: vec!["a".into()],
        leeway: Duration::ZERO,
    };
    let Ok(token) = Unverified::parse(bytes, &expected) else { return };
    // The claims are taken apart only behind a good signature.
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'.').collect();
    assert!(parts.len() == 3 && !parts[0].contains(&b'=') && !parts[2].contains(&b'='));
    let Ok(keys) = KeySet::parse(KEYS, &"it") else { unreachable!("the keys of two RFCs") };
    assert!(token.verify(&keys, &expected, Duration::from_secs(1)).is_err());
});
