//! `grip`: clients are held because their app's answer says so (GRIP, as Pushpin and the Python libraries speak it).
//!
//! | | |
//! |---|---|
//! | to the app | `Grip-Sig` ([`signature`]), `Grip-Feature`, and `Grip-Last` where it is asked what a client has missed |
//! | from the app | `Grip-*` fields or `application/grip-instruct`: [`instruct`] |
//! | `Grip-Hold: response` | the client waits for an answer, until the app's own is its answer: [`response`] |
//! | `Grip-Hold: stream` | the client gets the app's answer, and then what is published: [`stream`] |
//!
//! The layer stands just above the action, so that a download (`X-Accel-Redirect`) is none of its business, and everything above
//! sees the answer that the client gets. The worker is free as soon as its short answer is in.

mod ask;
mod farewell;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fixture;
mod instruct;
mod layer;
mod links;
mod parameters;
mod patch;
mod response;
mod signature;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use instruct::{Fault, HoldMode, Instruct, KeepAlive, KeepAliveMode, LARGEST, Next, ResponsePart};
pub use layer::{Grip, GripLayer, Held, Terms};
pub use links::Links;
pub use parameters::{Parameters, split};
pub(in crate::realtime) use signature::USE;
pub use signature::{Signer, SigningKey};

/// JSON as both instructions and what is published have it.
pub(in crate::realtime) mod json {
    pub(in crate::realtime) use super::instruct::{
        BASE64, content, object, read_response, shown, string, strings, whole,
    };
    pub(in crate::realtime) use super::patch::check as check_patch;
}

/// What the edge can do, as `Grip-Feature` tells it. Separated as the libraries split it.
pub const FEATURES: &str = "status, link:next, link:gone, filter:skip-self, filter:skip-users, filter:require-sub, \
                            filter:build-id, filter:var-subst";
