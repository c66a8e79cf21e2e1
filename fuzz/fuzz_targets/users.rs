//! A file of users that is taken names somebody, and every one of them once.

#![no_main]

use std::path::Path;

use hostler::credentials::Users;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(users) = Users::parse(bytes, Path::new("users")) else { return };
    assert!(users.count() > 0);
    // In a line of its own, whatever stands before it.
    let more = [bytes, b"\nann-of-the-fuzzer:$2y$04$uo2tarQNU6Op2maS.faPT.THsG3WgKdOnK5ABlLlsYsjiSFSsTMNa\n"].concat();
    if let Ok(more) = Users::parse(&more, Path::new("users")) {
        assert_eq!(more.count(), users.count() + 1);
        assert!(more.get("ann-of-the-fuzzer").is_some());
    }
});
