//! The HTTP cache (RFC 9111): what may be kept of an app's answers, for whom, for how long, and where.
//!
//! [`key`] says what requests ask for the same, [`policy`] decides what becomes of an answer and of a request. Both are pure:
//! they have no clock, no socket and no store, and are handed what they need to know. [`store`] keeps what it is given, in memory
//! and on disk, and knows nothing of what it means.

pub mod key;
pub mod policy;
pub mod store;
