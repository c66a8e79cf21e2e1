//! The vocabulary of HTTP that every layer shares: request, response, body, exchange. No sockets, and no files but as the place where a body lies.

mod answer_fields;
mod body;
mod cache_verdict;
pub mod coding;
pub mod conditional;
mod connection_info;
mod exchange;
pub mod fields;
pub mod forwarded;
mod held;
mod host;
pub mod identity;
mod key;
pub mod multipart;
mod network;
mod path;
mod per_client;
pub mod query;
pub mod range;
mod redispatch;
mod request_id;
mod service;
pub mod text;
mod told;
pub mod upgrade;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use answer_fields::AnswerFields;
pub use body::{Body, Source};
pub use cache_verdict::CacheVerdict;
pub use coding::{Coding, Codings};
pub use connection_info::{ConnectionInfo, Sender};
pub use exchange::{
    Exchange, ExchangeGuard, Finish, Observer, Phase, Protocol, RouteLabel, Timings, cut_open_exchanges, open_exchanges,
};
pub use held::Held;
pub use host::Host;
pub use identity::Identity;
pub use key::{Key, key};
pub use network::network;
pub use path::{Target, without_dots};
pub use per_client::PerClient;
pub use redispatch::{Dispatch, Dispatched, MAX_HOPS, Onward, Redispatch};
pub use request_id::RequestId;
pub use service::{Request, Response, Service};
pub use told::{Asked, Charset, Handover, Handovers, Told};
pub use upgrade::{ClientIo, ClientStream, Handshake, Takeover, Upgrade};
