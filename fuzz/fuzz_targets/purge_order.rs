//! An order to purge that we take names hosts and paths as requests have them, and means the same when it is written anew.

#![no_main]

use hostler::admin::purge_order;
use hostler::cache::purge::{Address, What};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(order) = purge_order(&[bytes]) else { return };
    if let What::Url(Address { host, target }) | What::Prefix(Address { host, target }) = &order.what {
        assert!(!host.is_empty() && !host.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert!(target.starts_with('/') && target.bytes().all(|byte| (0x21..=0x7E).contains(&byte)));
    }
    if let What::Url(Address { host, target }) = &order.what {
        assert_eq!(What::url(&format!("https://{host}{target}")).as_ref(), Ok(&order.what));
    }
    assert!(!order.what.purges().is_empty());
});
