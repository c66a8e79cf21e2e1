//! `routes[].rate_limit`.

use super::{KeyBy, Rate};

/// How often the same client may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// In the long run.
    pub rate: Rate,
    /// At once, after a rest. 1 to 1,000,000; default as many as `rate` counts.
    pub burst: u32,
    /// Who is the same. Whoever has no such field or cookie is told apart by his address. Default the client.
    pub by: KeyBy,
    /// Whether it only counts and tells what it would refuse. Default false.
    pub dry_run: bool,
}
