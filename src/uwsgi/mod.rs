//! The uwsgi protocol, the gateway's side: what uWSGI speaks on its `socket`.
//!
//! One exchange a connection: a packet of variables ([`vars`]), the body as it is, then a response whose head reads like
//! HTTP's ([`response`]) and whose body ends with its Content-Length or with the connection. Both are pure codecs; the
//! exchange itself is [`crate::http1::client`]'s, told by [`DIALECT`] what differs.

pub mod response;
pub mod vars;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use crate::http1::client::Dialect;

/// How an endpoint answers that is spoken to in uwsgi.
pub static DIALECT: Dialect = Dialect {
    read_head: response::parse,
    // It says nothing of the cause on the wire, so these are all there is to look for.
    silence: "uWSGI answers nothing when the app raised before start_response, when the worker was killed (harakiri, out \
              of memory), or when the request is over a limit of its own (buffer-size, max-vars, limit-post): its log \
              says which",
    unread_body: Some(
        "the app may have left the request's body unread, and uWSGI resets the connection then: set `post-buffering` there",
    ),
    has_continue: false,
};
