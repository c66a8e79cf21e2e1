//! The HTTP/1.1 wire (RFC 9112), both roles.
//!
//! [`head`] and [`chunked`] are pure codecs: bytes in, a verdict out. [`server`] reads requests and writes responses on
//! a client's connection; [`client`] does one exchange on a worker's. Both run inside the future of the exchange.

mod body;
pub mod chunked;
pub mod client;
pub mod head;
mod io;
pub mod request;
pub mod response;
pub mod server;
mod write;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests;

pub use io::ReadAhead;
pub use write::with_date;
