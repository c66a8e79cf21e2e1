//! What the operator sees: the log, the access log, the metrics, and the identity of a request in all of them.

pub mod access_log;
pub mod clf;
pub mod json;
pub mod log;
pub mod metrics;
pub mod throttle;
