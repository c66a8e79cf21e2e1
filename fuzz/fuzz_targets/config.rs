//! No text makes the loader panic, nor the report of what is wrong with it.

#![no_main]

use std::path::Path;

use hostler::config::load_str;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(report) = load_str(text, "hostler.yaml", Path::new("/nonexistent"), &|_| None) {
        assert!(!report.to_string().is_empty());
    }
});
