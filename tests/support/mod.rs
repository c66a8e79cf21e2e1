//! What the tests are written with: the gateway, a scripted worker, clients and storms of them, gunicorn and other
//! servers, command-line tools.
//!
//! Every wait has an end ([`LIMIT`]) and fails with all that was captured, so that no test hangs and none sleeps.

pub(crate) mod address;
pub(crate) mod backlog;
pub(crate) mod cached;
pub(crate) mod chromium;
pub(crate) mod client;
pub(crate) mod coding;
pub(crate) mod download;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod gunicorn;
pub(crate) mod h2;
pub(crate) mod h2_worker;
pub(crate) mod journal;
pub(crate) mod lines;
pub(crate) mod message;
pub(crate) mod server;
pub(crate) mod shop;
pub(crate) mod storm;
pub(crate) mod tls_worker;
pub(crate) mod tool;
pub(crate) mod uwsgi;
pub(crate) mod websocket;
pub(crate) mod worker;

use std::time::{Duration, Instant};

pub(crate) use address::{Address, Stream};
pub(crate) use chromium::Chromium;
pub(crate) use client::Client;
pub(crate) use gateway::Gateway;
pub(crate) use gunicorn::Gunicorn;
pub(crate) use h2::H2;
pub(crate) use message::Response;
pub(crate) use server::Server;
pub(crate) use storm::{Ask, Outcome, Storm};
pub(crate) use uwsgi::Uwsgi;
pub(crate) use websocket::WebSocket;
pub(crate) use worker::{Latch, Visit, Worker};

/// The longest that any single wait of a test takes before it fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Between two looks at something that does not tell when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Looks until `look` finds something; `None` after [`LIMIT`]. For what has no event to wait for.
pub(crate) fn look_until<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    look_for(LIMIT, look)
}

/// The same within another limit.
pub(crate) fn look_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
