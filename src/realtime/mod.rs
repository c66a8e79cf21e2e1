//! Realtime for synchronous apps: clients are held at the edge, and the app speaks to them in short plain requests.
//!
//! [`hub`] brings what is published on a channel to whoever is held on it. [`grip`] holds clients whose answer says so;
//! [`publish`] is the door through which apps publish. [`over_http`] speaks WebSocket for them, as [`events`] in requests
//! of its own ([`ask`]).

pub mod ask;
pub mod events;
pub mod grip;
pub mod hub;
pub mod over_http;
pub mod publish;
pub mod websocket;
