//! The end-to-end tests: the real binary on real sockets, against scripted workers and real gunicorn.
//!
//! One binary, because every further one would link the whole crate again. `support` starts things and speaks to
//! them; every other module holds claims about the gateway, one claim a test.

// A test says what went wrong by panicking.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, unused_imports, reason = "one harness for all modules; each uses its part")]
mod support;

mod admin;
mod allocations;
mod auth;
mod auth_forward;
mod behind_a_balancer;
mod browser;
mod cache;
mod cache_coalescing;
mod cache_disk;
mod cache_django;
mod cache_poisoning;
mod cache_purge;
mod cache_stale;
mod client_address;
mod client_gone;
mod compression;
mod cors;
mod dashboards;
mod deploy;
mod django;
mod downloads;
mod drain;
mod error_pages;
mod examples;
mod failures;
mod files;
mod files_beside_nginx;
mod grip;
mod handover;
mod harness;
mod header_rules;
mod health;
mod hostile;
mod hostile_workers;
mod large_files;
mod life;
mod limits;
mod logs;
mod mid_upload;
mod operator;
mod rate_limit;
mod redirects;
mod reload;
mod restarts;
mod retries;
mod route_timeout;
mod routing;
mod servers;
mod slow_clients;
mod sockets;
mod tls;
mod two_in_a_row;
mod uploads;
mod upstream_h2c;
mod upstream_tls;
mod uwsgi;
mod waiting_room;
mod websocket_conformance;
mod websocket_grip;
mod websocket_over_http;
mod websocket_restarts;
mod websocket_tunnel;
mod wire_early;
mod wire_forwarding;
mod wire_http2;
mod wire_http2_floods;
mod wire_http2_frames;
mod wire_requests;
mod wire_responses;
mod wire_reuse;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;
