//! What the app has answered before, kept and given out again (RFC 9111).

pub mod store;
