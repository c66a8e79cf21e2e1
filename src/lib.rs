//! Hostler: the edge for Python's synchronous web.
//!
//! The modules stand in layer order. Each may use only those above it in this list; features (everything in
//! `middleware`) never import each other. `stack` is the one place that knows every layer, `app` the one that turns a
//! configuration into a running gateway.

pub mod error;

pub mod credentials;

pub mod config;
pub mod http;
pub mod x509;

pub mod observe;
pub mod runtime;

pub mod http1;
pub mod uwsgi;

pub mod edge;
pub mod upstream;

pub mod access;

pub mod files;

pub mod cache;

pub mod realtime;

pub mod middleware;

pub mod admin;
pub mod router;

pub mod stack;

pub mod app;

pub mod cli;
