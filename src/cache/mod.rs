//! The HTTP cache (RFC 9111): what may be kept of an app's answers, for whom, for how long, and where.
//!
//! [`key`] says what requests ask for the same, [`policy`] decides what becomes of an answer and of a request. Both are pure:
//! they have no clock, no socket and no store, and are handed what they need to know. [`store`] keeps what it is given, in memory
//! and on disk, and knows nothing of what it means. [`coalesce`] makes one request of many for the same, and knows nothing of that
//! either; what such a request brings is a [`landing`], which some may follow at their own pace ([`crowd`]). [`Cache`] is all of that
//! which is one for the process. [`purge`] reads what somebody
//! wants struck from the store.

pub mod backoff;
pub mod clock;
pub mod coalesce;
pub mod crowd;
mod handle;
pub mod key;
pub mod landing;
pub mod policy;
pub mod purge;
pub mod store;

pub use self::handle::Cache;
pub use self::key::Key;
