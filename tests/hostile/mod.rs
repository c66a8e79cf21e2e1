//! Hostile bytes from both sides, row by row: `requests.txt` and `responses.txt` say what stands on the wire, what becomes
//! of it, and why.
//!
//! Requests go over TCP and TLS, in HTTP/1.1 and where it can be said in HTTP/2, to a worker that records every byte, and to
//! real gunicorn and uWSGI. Each is refused, with its reason everywhere and nothing at the worker, or arrives as
//! exactly one request that has one reading.

mod expressed;
mod requests;
mod responses;
mod servers;
mod strict;
pub(crate) mod table;
