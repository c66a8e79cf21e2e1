//! One file, one layer (or one action at the bottom of a route), all of one form: what it does, its configuration key,
//! what it adds; then the layer, its service, its pure parts, its tests. No file here knows another.

pub mod accel;
pub mod access_log;
pub mod answer;
pub mod auth;
pub mod cache;
pub mod client_ip;
pub mod compress;
pub mod cors;
pub mod metrics;
pub mod missing_slash;
pub mod proxy;
pub mod rate_limit;
pub mod redirect;
pub mod request_headers;
pub mod request_id;
pub mod rescue;
pub mod response_headers;
pub mod websocket;
