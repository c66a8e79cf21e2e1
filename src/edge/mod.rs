//! Bytes in: listening sockets, the PROXY protocol, TLS, and the protocol each connection speaks. Knows no feature.

pub mod admission;
mod coalesce;
pub mod connection;
pub mod frame_guard;
mod http2;
pub mod inherited;
pub mod listener;
pub mod local_ca;
pub mod proxy_protocol;
pub mod side_door;
pub mod tls;
