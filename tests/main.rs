//! End-to-end tests: the whole gateway against real parts.

// A test says what went wrong by panicking.
#![allow(clippy::unwrap_used)]

mod allocations;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;
