//! The HTTP cache (RFC 9111): what may be kept of an app's answers, for whom, and for how long.
//!
//! [`key`] says what requests ask for the same, [`policy`] decides what becomes of an answer and of a request. Both are pure:
//! they have no clock, no socket and no store, and are handed what they need to know.

pub mod key;
pub mod policy;
