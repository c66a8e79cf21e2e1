//! The end-to-end tests: the real binary on real sockets, against scripted workers and real gunicorn.
//!
//! One binary, because every further one would link the whole crate again. `support` starts things and speaks to
//! them; every other module holds claims about the gateway, one claim a test.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, unused_imports, reason = "one harness for all modules; each uses its part")]
mod support;

mod client_gone;
mod failures;
mod harness;
mod life;
mod wire_forwarding;
mod wire_http2;
mod wire_requests;
mod wire_responses;
